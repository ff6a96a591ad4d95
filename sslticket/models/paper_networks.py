"""The papers' networks, without their classification layer: LeNet 300-100, Conv-6, VGGs, Conv-3 and ResNets.

The residual networks (He et al. 2016) have torchvision's parameter names. torchvision has only their ImageNet form, and
importing it costs more than building a ResNet-50 here; its state dicts (classification layer left out) load into these
networks and give the same features.
"""

from collections.abc import Sequence
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn


def _conv(inward: int, outward: int, size: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inward, outward, size, stride, padding=size // 2, bias=False)


def _shortcut(inward: int, outward: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and inward == outward:
        return None
    return nn.Sequential(_conv(inward, outward, 1, stride), nn.BatchNorm2d(outward))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut."""

    expansion = 1

    def __init__(self, inward: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _conv(inward, width, 3, stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _conv(width, width, 3)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _shortcut(inward, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inward, H, W) -> (B, width * expansion, H / stride, W / stride)."""
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = self.bn2(self.conv2(out))
        out += x if self.downsample is None else self.downsample(x)
        return F.relu(out, inplace=True)


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions around a shortcut; the 3x3 one carries the stride, as in torchvision ("v1.5")."""

    expansion = 4

    def __init__(self, inward: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _conv(inward, width, 1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _conv(width, width, 3, stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = _conv(width, width * self.expansion, 1)
        self.bn3 = nn.BatchNorm2d(width * self.expansion)
        self.downsample = _shortcut(inward, width * self.expansion, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inward, H, W) -> (B, width * expansion, H / stride, W / stride)."""
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = F.relu(self.bn2(self.conv2(out)), inplace=True)
        out = self.bn3(self.conv3(out))
        out += x if self.downsample is None else self.downsample(x)
        return F.relu(out, inplace=True)


class ResNet(nn.Module):
    """A stem, stages `layer1`, `layer2`, ... each half as large as the one before, and a global average pool.

    Args:
        channels: Number of the images' channels.
        block: Class of the blocks of which stages are made.
        depths: Number of blocks in each stage.
        widths: Channels of each stage's 3x3 convolutions; features are the last one times the block's expansion.
        small_images: Whether to take the CIFAR stem, a 3x3 convolution at full size, in place of
            ImageNet's 7x7 at stride 2 and max pool.
    """

    def __init__(
        self,
        channels: int,
        block: type[BasicBlock] | type[Bottleneck],
        depths: Sequence[int],
        widths: Sequence[int],
        *,
        small_images: bool,
    ) -> None:
        super().__init__()
        width = widths[0]
        self.conv1 = _conv(channels, width, 3) if small_images else _conv(channels, width, 7, stride=2)
        self.bn1 = nn.BatchNorm2d(width)
        self.maxpool = nn.Identity() if small_images else nn.MaxPool2d(3, stride=2, padding=1)
        self.stages = [f"layer{number}" for number in range(1, len(depths) + 1)]
        for name, depth, inner in zip(self.stages, depths, widths, strict=True):
            blocks = []
            for place in range(depth):
                blocks.append(block(width, inner, stride=2 if place == 0 and name != "layer1" else 1))
                width = inner * block.expansion
            self.add_module(name, nn.Sequential(*blocks))
        for module in self.modules():
            # Batch norm starts at 1 and 0 everywhere: the papers' networks don't zero the last one of a block.
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) -> (B, F)."""
        x = self.maxpool(F.relu(self.bn1(self.conv1(x)), inplace=True))
        for stage in self.stages:
            x = getattr(self, stage)(x)
        return x.mean(dim=(2, 3))


def resnet50(channels: int, image_size: int) -> ResNet:
    """ResNet-50, ImageNet form: 2048 features, 23,454,912 convolution weights."""
    return ResNet(channels, Bottleneck, (3, 4, 6, 3), (64, 128, 256, 512), small_images=False)


def resnet18(channels: int, image_size: int) -> ResNet:
    """ResNet-18, ImageNet form: 512 features."""
    return ResNet(channels, BasicBlock, (2, 2, 2, 2), (64, 128, 256, 512), small_images=False)


def resnet18_cifar(channels: int, image_size: int) -> ResNet:
    """ResNet-18, CIFAR form: 512 features."""
    return ResNet(channels, BasicBlock, (2, 2, 2, 2), (64, 128, 256, 512), small_images=True)


def resnet20(channels: int, image_size: int) -> ResNet:
    """The 20-layer CIFAR ResNet, "Resnet-18" in the lottery-ticket papers: 64 features.

    270,256 convolution weights, of which 267,696 are in 3x3 convolutions and the rest in the two 1x1 shortcuts
    that Continuous Sparsification (section 4.2) leaves dense.
    """
    return ResNet(channels, BasicBlock, (3, 3, 3), (16, 32, 64), small_images=True)


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
# Simonyan & Zisserman 2015, table 1, configurations A, B and D, modified in the same way: "for all the considered VGGs
# we use the modified version of Morcos et al." (Finding Winning Tickets with Limited (or No) Supervision, appendix D).
VGG11: VGGConfig = (64, "M", 128, "M", *(256,) * 2, "M", *(512,) * 2, "M", *(512,) * 2)
VGG13: VGGConfig = (*(64,) * 2, "M", *(128,) * 2, "M", *(256,) * 2, "M", *(512,) * 2, "M", *(512,) * 2)
VGG16: VGGConfig = (*(64,) * 2, "M", *(128,) * 2, "M", *(256,) * 3, "M", *(512,) * 3, "M", *(512,) * 3)
# Frankle & Carbin 2019, figure 2; Continuous Sparsification, section 4.1.
CONV6: VGGConfig = (64, 64, "M", 128, 128, "M", 256, 256, "M")
CONV6_HIDDEN = (256, 256)
# Ours: small enough to find tickets on 8x8 digits in minutes on two cores.
CONV3: VGGConfig = (16, "M", 32, "M", 32)


class VGG(nn.Module):
    """Convolutions with ReLU, then either a global average pool or, where `hidden` is given, linear layers with ReLU.

    `features` has torchvision's names: those of `vgg19_bn` fit the modified VGG-19, and so on. Weights start
    Xavier-normal, biases 0, batch norm 1 and 0 (Morcos et al., appendix A.1; Frankle & Carbin 2019, figure 2, for
    Conv-6).

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


def vgg11(channels: int, image_size: int) -> VGG:
    """VGG-11, modified as VGG-19: 512 features, 9,217,728 convolution weights."""
    return VGG(channels, VGG11, batch_norm=True)


def vgg13(channels: int, image_size: int) -> VGG:
    """VGG-13, modified as VGG-19: 512 features, 9,402,048 convolution weights."""
    return VGG(channels, VGG13, batch_norm=True)


def vgg16(channels: int, image_size: int) -> VGG:
    """VGG-16, modified as VGG-19: 512 features, 14,710,464 convolution weights."""
    return VGG(channels, VGG16, batch_norm=True)


def vgg19(channels: int, image_size: int) -> VGG:
    """VGG-19 with batch norm and a global average pool for its linear layers: 512 features, 20.0M weights."""
    return VGG(channels, VGG19, batch_norm=True)


def conv6(channels: int, image_size: int) -> VGG:
    """Conv-6 up to its last linear layer but one: 256 features."""
    return VGG(channels, CONV6, batch_norm=False, hidden=CONV6_HIDDEN, image_size=image_size)


def conv3(channels: int, image_size: int) -> VGG:
    """Three convolutions with batch norm and a global average pool, for small grey images: 32 features."""
    return VGG(channels, CONV3, batch_norm=True)
