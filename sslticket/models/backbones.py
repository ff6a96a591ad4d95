"""The networks of the papers, and any other by its name from timm or torchvision, all without their last layer."""

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from sslticket.errors import BadInput, unknown_name
from sslticket.models import lenet_vgg, resnet


def list_external_models() -> list[str]:
    """Every classification network of timm and of torchvision."""
    import timm
    from torchvision import models

    return sorted({*timm.list_models(), *models.list_models(module=models)})


def name_without_weights(name: str) -> str | None:
    """Of a name that stands for trained weights, the part that names a network; None for a network's own name.

    timm writes weights behind a point, "resnet50.a1_in1k", knows older names that stand for such, and reads others
    from "hf-hub:user/name" and "local-dir:PATH"; torchvision has a "ResNet50_Weights.IMAGENET1K_V2" for each.
    """
    import timm

    weights = timm.models.get_deprecated_models().get(name) or ""
    if "." in weights:
        return weights.partition(".")[0]
    bare = name.rstrip("/").rpartition("/")[2].rpartition(":")[2].partition(".")[0]
    bare = bare.lower().removesuffix("_weights") if bare.lower().endswith("_weights") else bare
    return bare if bare != name else None


def create_external_model(name: str, *, channels: int, image_size: int) -> nn.Module | None:
    """The network without its classification layer, from timm or else from torchvision; None where neither has it."""
    import timm

    if timm.is_model(name):
        return _create_timm_model(name, channels, image_size)
    from torchvision import models

    if name in models.list_models(module=models):
        return _create_torchvision_model(name, channels, image_size)
    return None


def alexnet(channels: int, image_size: int) -> nn.Module:
    """AlexNet as torchvision has it: 4096 features; the first two linear layers of its MLP stay and are prunable."""
    return _create_torchvision_model("alexnet", channels, image_size)


def _create_timm_model(name: str, channels: int, image_size: int) -> nn.Module:
    import timm

    options = {"pretrained": False, "num_classes": 0, "in_chans": channels}
    try:
        return cast(nn.Module, timm.create_model(name, img_size=image_size, **options))
    except TypeError as error:
        # Networks that take images of any size have no such argument.
        if "img_size" not in str(error):
            raise
    return cast(nn.Module, timm.create_model(name, **options))


def _create_torchvision_model(name: str, channels: int, image_size: int) -> nn.Module:
    from torchvision import models

    options: Mapping[str, Any] = {}
    if name in ("googlenet", "inception_v3"):
        options = {"aux_logits": False, "init_weights": True}
    elif name.startswith("vit_"):
        options = {"image_size": image_size}
    elif name.startswith("maxvit_"):
        options = {"input_size": (image_size, image_size)}
    net = cast(nn.Module, models.get_model(name, weights=None, **options))

    layers = list(net.named_modules())
    # SqueezeNet classifies by a 1x1 convolution; without it, its average pool gives the features.
    kind = nn.Linear if any(isinstance(layer, nn.Linear) for _, layer in layers) else nn.Conv2d
    net.set_submodule([path for path, layer in layers if isinstance(layer, kind)][-1], nn.Identity())
    path, first = next((path, layer) for path, layer in layers if isinstance(layer, nn.Conv2d))
    if first.in_channels != channels:
        net.set_submodule(path, _with_input_channels(first, channels))
    return net


def _with_input_channels(conv: nn.Conv2d, channels: int) -> nn.Conv2d:
    """A convolution like `conv` for images of so many channels, drawn as PyTorch draws any convolution."""
    return nn.Conv2d(
        channels,
        conv.out_channels,
        cast(Any, conv.kernel_size),
        cast(Any, conv.stride),
        cast(Any, conv.padding),
        cast(Any, conv.dilation),
        conv.groups,
        conv.bias is not None,
        conv.padding_mode,
    )


class PaperModel(NamedTuple):
    """One of the papers' networks.

    Attributes:
        create: called with channels and image size.
        min_image_size: the least image size, in pixels, that reaches its last layer.
    """

    create: Callable[[int, int], nn.Module]
    min_image_size: int


PAPER_MODELS: Mapping[str, PaperModel] = {
    "alexnet": PaperModel(alexnet, 63),
    "conv3": PaperModel(lenet_vgg.conv3, 4),
    "conv6": PaperModel(lenet_vgg.conv6, 8),
    "lenet300": PaperModel(lenet_vgg.lenet300, 1),
    "resnet18": PaperModel(resnet.resnet18, 1),
    "resnet18_cifar": PaperModel(resnet.resnet18_cifar, 1),
    "resnet20": PaperModel(resnet.resnet20, 1),
    "resnet50": PaperModel(resnet.resnet50, 1),
    "vgg19": PaperModel(lenet_vgg.vgg19, 16),
}

# What third-party constructors and forward passes raise over an image size they can't work with.
_UNSUITABLE_SIZE_ERRORS = (ArithmeticError, AssertionError, IndexError, RuntimeError, TypeError, ValueError)
_USUAL_SIZES = (32, 64, 96, 128, 160, 192, 224, 256, 299, 384, 512)


def list_models() -> list[str]:
    """The papers' networks; every name of timm and torchvision works too."""
    return sorted(PAPER_MODELS)


def create_model(name: str, *, channels: int = 3, image_size: int = 224) -> nn.Module:
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
    if network := PAPER_MODELS.get(name):
        if image_size < network.min_image_size:
            raise _too_small(name, image_size, network.min_image_size)
        return network.create(channels, image_size)
    if (bare := name_without_weights(name)) is not None:
        known = bare in PAPER_MODELS or bare in list_external_models()
        raise BadInput(
            f"{name!r} stands for trained weights, and tickets are searched from a random initialisation; give --model "
            f"{bare if known else 'the name of a network, such as resnet50'}"
        )
    try:
        backbone = create_external_model(name, channels=channels, image_size=image_size)
    except _UNSUITABLE_SIZE_ERRORS as error:
        raise BadInput(f"{name} cannot be built for {image_size}-pixel images: {_first_line(error)}") from error
    if backbone is None:
        near = get_close_matches(name, {*PAPER_MODELS, *list_external_models()}, n=3, cutoff=0.5)
        raise BadInput(
            f"{unknown_name('model', name, near or PAPER_MODELS)}; any name of timm or torchvision works too"
        )
    _check_image_size(name, backbone, channels, image_size)
    return backbone


def num_features(backbone: nn.Module, *, channels: int, image_size: int) -> int:
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


def accepts_image_size(backbone: nn.Module, *, channels: int, image_size: int) -> bool:
    """Whether the backbone works with square images of this size too."""
    try:
        return num_features(backbone, channels=channels, image_size=image_size) > 0
    except _UNSUITABLE_SIZE_ERRORS:
        return False


def _check_image_size(name: str, backbone: nn.Module, channels: int, image_size: int) -> None:
    try:
        num_features(backbone, channels=channels, image_size=image_size)
    except BadInput:
        raise
    except _UNSUITABLE_SIZE_ERRORS as error:
        for size in (size for size in _USUAL_SIZES if size > image_size):
            try:
                num_features(backbone, channels=channels, image_size=size)
            except _UNSUITABLE_SIZE_ERRORS:
                continue
            raise _too_small(name, image_size, size) from error
        raise BadInput(f"{name} cannot work with {image_size}-pixel images: {_first_line(error)}") from error


def _too_small(name: str, image_size: int, enough: int) -> BadInput:
    return BadInput(f"{image_size}-pixel images are too small for {name}; {enough} pixels are enough")


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
