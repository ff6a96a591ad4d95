"""A model of one's own: two convolutions for small images.

Run       sslticket run supervised_digits --model examples/tiny_cnn.py:tiny_cnn
"""

from torch import nn


def tiny_cnn(channels: int, image_size: int) -> nn.Module:
    """Images (B, channels, image_size, image_size) -> features (B, 32), with PyTorch's usual initial weights."""
    return nn.Sequential(
        nn.Conv2d(channels, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )
