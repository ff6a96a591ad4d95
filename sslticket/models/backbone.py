"""From a name to a backbone: (B, channels, size, size) images in, (B, F) features out, no classification layer."""

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sslticket.errors import BadInput, unknown
from sslticket.models import external, lenet, resnet, vgg


class Network(NamedTuple):
    """One of the papers' networks.

    Attributes:
        make: called with channels and image size.
        smallest: the least image size, in pixels, that reaches its last layer.
    """

    make: Callable[[int, int], nn.Module]
    smallest: int


KNOWN: Mapping[str, Network] = {
    "alexnet": Network(external.alexnet, 63),
    "conv3": Network(vgg.conv3, 4),
    "conv6": Network(vgg.conv6, 8),
    "lenet300": Network(lenet.lenet300, 1),
    "resnet18": Network(resnet.resnet18, 1),
    "resnet18_cifar": Network(resnet.resnet18_cifar, 1),
    "resnet20": Network(resnet.resnet20, 1),
    "resnet50": Network(resnet.resnet50, 1),
    "vgg19": Network(vgg.vgg19, 16),
}

# What third-party constructors and forward passes raise over an image size they can't work with.
_REFUSALS = (ArithmeticError, AssertionError, IndexError, RuntimeError, TypeError, ValueError)
_USUAL_SIZES = (32, 64, 96, 128, 160, 192, 224, 256, 299, 384, 512)


def names() -> list[str]:
    """The papers' networks; every name of timm and torchvision works too."""
    return sorted(KNOWN)


def build(name: str, *, channels: int = 3, image_size: int = 224) -> nn.Module:
    """A network without its classification layer, its weights drawn from torch's global random numbers.

    The papers' names come first, then timm's, then torchvision's: `resnet18`, `resnet50` and `vgg19`, which all
    three have, are the papers'. Parameters have their original names, so weights fit other copies of the network.

    Args:
        name: one of `names()`, or any classification network of timm or torchvision.
        channels: of the images; 1 for grey ones.
        image_size: side of the square images, in pixels.

    Returns:
        (B, channels, image_size, image_size) -> (B, F), in training mode.

    Raises:
        BadInput: for an unknown name, one of trained weights, or images that the network can't work with.
    """
    if channels < 1 or image_size < 1:
        raise BadInput(f"no image has {channels} channels and {image_size} pixels a side; give both at least 1")
    if network := KNOWN.get(name):
        if image_size < network.smallest:
            raise _too_small(name, image_size, network.smallest)
        return network.make(channels, image_size)
    if (bare := external.without_weights(name)) is not None:
        known = bare in KNOWN or bare in external.names()
        raise BadInput(
            f"{name!r} stands for trained weights, and tickets are searched from a random initialisation; give --model "
            f"{bare if known else 'the name of a network, such as resnet50'}"
        )
    try:
        backbone = external.build(name, channels=channels, image_size=image_size)
    except _REFUSALS as error:
        raise BadInput(f"{name} cannot be built for {image_size}-pixel images: {_first_line(error)}") from error
    if backbone is None:
        near = get_close_matches(name, {*KNOWN, *external.names()}, n=3, cutoff=0.5)
        raise BadInput(f"{unknown('model', name, near or KNOWN)}; any name of timm or torchvision works too")
    _check(name, backbone, channels, image_size)
    return backbone


def features(backbone: nn.Module, *, channels: int, image_size: int) -> int:
    """How many features F the backbone gives for an image; leaves its state and the random numbers as they were.

    Raises:
        BadInput: if what it gives is not one vector per image.
    """
    weight = next(backbone.parameters())
    zeros = torch.zeros(1, channels, image_size, image_size, device=weight.device, dtype=weight.dtype)
    modes = [(module, module.training) for module in backbone.modules()]
    backbone.eval()
    drawing = [] if weight.is_cpu else [weight.device]
    try:
        with torch.random.fork_rng(drawing, device_type=weight.device.type), torch.no_grad():
            output = backbone(zeros)
    finally:
        for module, training in modes:
            module.training = training
    if not isinstance(output, Tensor) or output.ndim != 2:
        raise BadInput(f"a {type(backbone).__name__} gives no vector of features per image; choose another model")
    return output.shape[1]


def takes(backbone: nn.Module, *, channels: int, image_size: int) -> bool:
    """Whether the backbone works with square images of this size too."""
    try:
        return features(backbone, channels=channels, image_size=image_size) > 0
    except _REFUSALS:
        return False


def _check(name: str, backbone: nn.Module, channels: int, image_size: int) -> None:
    try:
        features(backbone, channels=channels, image_size=image_size)
    except BadInput:
        raise
    except _REFUSALS as error:
        for size in (size for size in _USUAL_SIZES if size > image_size):
            try:
                features(backbone, channels=channels, image_size=size)
            except _REFUSALS:
                continue
            raise _too_small(name, image_size, size) from error
        raise BadInput(f"{name} cannot work with {image_size}-pixel images: {_first_line(error)}") from error


def _too_small(name: str, image_size: int, enough: int) -> BadInput:
    return BadInput(f"{image_size}-pixel images are too small for {name}; {enough} pixels are enough")


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
