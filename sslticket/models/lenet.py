"""LeNet 300-100 (LeCun et al. 1998), the lottery-ticket papers' network for MNIST."""

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
