"""The papers' networks without shortcuts: LeNet 300-100, Conv-6, VGG-19; and Conv-3 for small images."""

from collections.abc import Sequence
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn


class LeNet(nn.Module):
    """Two linear layers with ReLU over the flattened image; the third, the classification layer, is a head.

    Weights start Xavier-normal, biases 0 (Frankle & Carbin 2019, figure 2).
    """

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(inputs, 300)
        self.fc2 = nn.Linear(300, 100)
        for layer in (self.fc1, self.fc2):
            nn.init.xavier_normal_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) -> (B, 100)."""
        return F.relu(self.fc2(F.relu(self.fc1(x.flatten(1)))))


def lenet300(channels: int, image_size: int) -> LeNet:
    """LeNet 300-100: 100 features, and on 28x28 grey images 266,200 weights with a head of 10 classes."""
    return LeNet(channels * image_size**2)


VGGConfig = Sequence[int | Literal["M"]]

# Simonyan & Zisserman 2015, configuration E, whose last max pool the global average pool replaces. Morcos et al.
# (appendix A.1) list a fifth convolution in the fourth group, yet say that the structure is the original's: four it is.
VGG19: VGGConfig = (*(64,) * 2, "M", *(128,) * 2, "M", *(256,) * 4, "M", *(512,) * 4, "M", *(512,) * 4)
# Frankle & Carbin 2019, figure 2; Continuous Sparsification, section 4.1.
CONV6: VGGConfig = (64, 64, "M", 128, 128, "M", 256, 256, "M")
CONV6_HIDDEN = (256, 256)
# Ours: small enough to find tickets on 8x8 digits in minutes on two cores.
CONV3: VGGConfig = (16, "M", 32, "M", 32)


class VGG(nn.Module):
    """Convolutions with ReLU, then either a global average pool or, where `hidden` is given, linear layers with ReLU.

    `features` has torchvision's names: those of `vgg19_bn` fit the modified VGG-19. Weights start Xavier-normal,
    biases 0, batch norm 1 and 0 (Morcos et al., appendix A.1; Frankle & Carbin 2019, figure 2, for Conv-6).

    Args:
        channels: Number of the images' channels.
        plan: Filters of each convolution; "M" is a 2x2 max pool.
        batch_norm: Whether one follows each convolution.
        hidden: Units of the linear layers.
        image_size: Side of the images in pixels, needed only for linear layers.
    """

    def __init__(
        self, channels: int, plan: VGGConfig, *, batch_norm: bool, hidden: Sequence[int] = (), image_size: int = 0
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width, size = channels, image_size
        for step in plan:
            if step == "M":
                layers.append(nn.MaxPool2d(2))
                size //= 2
                continue
            layers.append(nn.Conv2d(width, step, 3, padding=1))
            layers += [nn.BatchNorm2d(step)] if batch_norm else []
            layers.append(nn.ReLU(inplace=True))
            width = step
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.Identity() if hidden else nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential()
        width *= size**2
        for units in hidden:
            self.classifier.extend([nn.Linear(width, units), nn.ReLU(inplace=True)])
            width = units
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.xavier_normal_(module.weight)
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) -> (B, F)."""
        features: Tensor = self.classifier(self.avgpool(self.features(x)).flatten(1))
        return features


def vgg19(channels: int, image_size: int) -> VGG:
    """VGG-19 with batch norm and a global average pool for its linear layers: 512 features, 20.0M weights."""
    return VGG(channels, VGG19, batch_norm=True)


def conv6(channels: int, image_size: int) -> VGG:
    """Conv-6 up to its last linear layer but one: 256 features."""
    return VGG(channels, CONV6, batch_norm=False, hidden=CONV6_HIDDEN, image_size=image_size)


def conv3(channels: int, image_size: int) -> VGG:
    """Three convolutions with batch norm and a global average pool, for small grey images: 32 features."""
    return VGG(channels, CONV3, batch_norm=True)
