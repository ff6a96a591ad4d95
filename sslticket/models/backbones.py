"""The networks of the papers, and any other by its name from timm or torchvision, all without their last layer."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, cast

import torch
from torch import Tensor, nn

from sslticket.errors import BadInput, unknown_name
from sslticket.registry import registry_of


def list_external_models() -> list[str]:
    """Names of every classification network of timm and of torchvision."""
    import timm
    from torchvision import models

    return sorted({*timm.list_models(), *models.list_models(module=models)})


def name_without_weights(name: str) -> str | None:
    """The network's name in a name of trained weights; None for a network's own name.

    Timm writes weights behind a point, "resnet50.a1_in1k", knows older names that stand for such, and reads others
    from "hf-hub:user/name" and "local-dir:PATH"; torchvision has a "ResNet50_Weights.IMAGENET1K_V2" for each.
    """
    import timm

    weights = timm.models.get_deprecated_models().get(name) or ""
    if "." in weights:
        return weights.partition(".")[0]
    bare = name.rstrip("/").rpartition("/")[2].rpartition(":")[2].partition(".")[0]
    bare = bare.lower().removesuffix("_weights") if bare.lower().endswith("_weights") else bare
    return bare if bare != name else None


def create_external_model(name: str, *, channels: int, image_size: int, drop_path: float = 0.0) -> nn.Module | None:
    """The network without its classification layer, from timm or else from torchvision; None where neither has it.

    Raises:
        BadInput: If blocks are to be left out and the network has no such setting.
    """
    import timm

    if timm.is_model(name):
        return _create_timm_model(name, channels, image_size, drop_path)
    from torchvision import models

    if name in models.list_models(module=models):
        if drop_path:
            raise _cannot_drop(name)
        return _create_torchvision_model(name, channels, image_size)
    return None


def alexnet(channels: int, image_size: int) -> nn.Module:
    """AlexNet of torchvision: 4096 features; the first two linear layers of its MLP stay and are prunable."""
    return _create_torchvision_model("alexnet", channels, image_size)


# What timm's transformers take so that they work with images of other sizes too: position embeddings are interpolated
# from one and the same parameter, and a side that is no multiple of the patch is padded with zeros.
_ANY_SIZE: tuple[Mapping[str, bool], ...] = (
    {"dynamic_img_size": True, "dynamic_img_pad": True},
    {"dynamic_img_size": True},
    {"strict_img_size": False},
)


def _create_timm_model(name: str, channels: int, image_size: int, drop_path: float) -> nn.Module:
    """The network for images of this size, and of others where it can, which changes no bit for images of this one."""
    import timm

    options: dict[str, Any] = {"pretrained": False, "num_classes": 0, "in_chans": channels}
    if drop_path:
        options["drop_path_rate"] = drop_path
    for any_size in (*_ANY_SIZE, {}):
        state = torch.get_rng_state()
        try:
            net = cast(nn.Module, timm.create_model(name, img_size=image_size, **options, **any_size))
        except TypeError as error:
            if "drop_path_rate" in str(error):
                raise _cannot_drop(name) from error
            # Networks that take images of any size have no such arguments.
            if not any(argument in str(error) for argument in ("img_size", *any_size)):
                raise
        else:
            if not any_size or all(image_size % side == 0 for side in _patch_sizes(net)):
                return net
        # Whatever was tried before, weights are drawn from the same numbers.
        torch.set_rng_state(state)
    try:
        return cast(nn.Module, timm.create_model(name, **options))
    except TypeError as error:
        if "drop_path_rate" in str(error):
            raise _cannot_drop(name) from error
        raise


def _cannot_drop(name: str) -> BadInput:
    return BadInput(
        f"--drop-path must have a network of timm's whose blocks can be left out, which {name} is not; give "
        "--drop-path 0, or a --model such as vit_small_patch16_224 or convnext_tiny"
    )


def _patch_sizes(net: nn.Module) -> tuple[int, ...]:
    """Sides of a transformer's patches; images whose size is no multiple lose their rest where one size is shown."""
    size = getattr(getattr(net, "patch_embed", None), "patch_size", ())
    return tuple(size) if isinstance(size, tuple | list) else (size,)


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
    """A convolution like `conv` for images of so many channels, with PyTorch's usual initial weights."""
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


_MIN_IMAGE_SIZES = {"alexnet": 63, "conv3": 4, "conv6": 8, "vgg11": 16, "vgg13": 16, "vgg16": 16, "vgg19": 16}
"""The least image size, in pixels, that reaches the last layer of the papers' networks; 1 for the others."""

# What third-party constructors and forward passes raise over an image size they can't work with.
_UNSUITABLE_SIZE_ERRORS = (ArithmeticError, AssertionError, IndexError, RuntimeError, TypeError, ValueError)
_USUAL_SIZES = (32, 64, 96, 128, 160, 192, 224, 256, 299, 384, 512)


def list_models() -> list[str]:
    """Names of the papers' networks and of those that were registered; those of timm and torchvision work too."""
    return registry_of("model").names()


def create_model(name: str, *, channels: int = 3, image_size: int = 224, drop_path: float = 0.0) -> nn.Module:
    """A network without its classification layer, with initial weights by torch's global generator.

    The papers' names come first, then a user's own, then timm's, then torchvision's: `resnet18`, `resnet50`
    and `vgg11` to `vgg19`, which all have, are the papers'. Parameters have their original names, so weights fit other
    copies of the network.

    Args:
        name: A name among `list_models()`, or that of any classification network of timm or torchvision.
        channels: Number of the images' channels; 1 for gray ones.
        image_size: Side of the square images in pixels.
        drop_path: Probability with which its last block is left out for an image in training, which falls to 0 at its
            first; its weights do not depend on it.

    Returns:
        The network in training mode: (B, channels, image_size, image_size) -> (B, F).

    Raises:
        BadInput: If the name is unknown or that of trained weights, or if the network can't work with such images or
            leave out blocks.
    """
    if channels < 1 or image_size < 1:
        raise BadInput(f"images must have at least 1 channel and 1 pixel a side, got {channels} and {image_size}")
    registry = registry_of("model")
    if registry.is_built_in(name):
        if image_size < (least := _MIN_IMAGE_SIZES.get(name, 1)):
            raise _too_small(name, image_size, least)
        if drop_path:
            raise _cannot_drop(name)
        network: nn.Module = registry.get(name)(channels, image_size)
        return network
    own = registry.own_part(name)
    if own is None and (bare := name_without_weights(name)) is not None:
        known = registry.is_built_in(bare) or bare in list_external_models()
        raise BadInput(
            f"--model must name a network without trained weights, got {name!r}; give --model "
            f"{bare if known else 'the name of a network, such as resnet50'}, and --init {name} to start from them"
        )
    try:
        if own is not None:
            if drop_path:
                raise _cannot_drop(name)
            backbone: nn.Module | None = own(channels, image_size)
        else:
            backbone = create_external_model(name, channels=channels, image_size=image_size, drop_path=drop_path)
    except _UNSUITABLE_SIZE_ERRORS as error:
        why = _first_line(error).rstrip(".!")
        raise BadInput(
            f"{name} cannot be built for {image_size}-pixel images ({why}); give another --image-size"
        ) from error
    if backbone is None:
        near = get_close_matches(name, {*registry.names(), *list_external_models()}, n=3, cutoff=0.5)
        raise BadInput(
            f"{unknown_name('model', name, near or registry.names())}; any name of timm or torchvision works too, and "
            "file.py:Name for your own"
        )
    _check_image_size(name, backbone, channels, image_size)
    return backbone


def num_features(backbone: nn.Module, *, channels: int, image_size: int) -> int:
    """Number F of the backbone's features of an image; its state and the random numbers are left unchanged.

    Raises:
        BadInput: If its output is not one vector per image.
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
        raise BadInput(
            "a model must give a vector of features per image, (B, F), got another output of a "
            f"{type(backbone).__name__}; choose another --model"
        )
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
    return BadInput(
        f"images for {name} must have at least {enough} pixels a side, got {image_size}; give --image-size {enough}"
    )


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
