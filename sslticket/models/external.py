"""Backbones of timm and torchvision; each takes over a second to import, so neither is until a name asks for it."""

from collections.abc import Mapping
from typing import Any, cast

from torch import nn


def names() -> list[str]:
    """Every classification network of timm and of torchvision."""
    import timm
    from torchvision import models

    return sorted({*timm.list_models(), *models.list_models(module=models)})


def without_weights(name: str) -> str | None:
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


def build(name: str, *, channels: int, image_size: int) -> nn.Module | None:
    """The network without its classification layer, from timm or else from torchvision; None where neither has it."""
    import timm

    if timm.is_model(name):
        return _timm(name, channels, image_size)
    from torchvision import models

    if name in models.list_models(module=models):
        return _torchvision(name, channels, image_size)
    return None


def alexnet(channels: int, image_size: int) -> nn.Module:
    """AlexNet as torchvision has it: 4096 features; the first two linear layers of its MLP stay and are prunable."""
    return _torchvision("alexnet", channels, image_size)


def _timm(name: str, channels: int, image_size: int) -> nn.Module:
    import timm

    options = {"pretrained": False, "num_classes": 0, "in_chans": channels}
    try:
        return cast(nn.Module, timm.create_model(name, img_size=image_size, **options))
    except TypeError as error:
        # Networks that take images of any size have no such argument.
        if "img_size" not in str(error):
            raise
    return cast(nn.Module, timm.create_model(name, **options))


def _torchvision(name: str, channels: int, image_size: int) -> nn.Module:
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
        net.set_submodule(path, _with_channels(first, channels))
    return net


def _with_channels(conv: nn.Conv2d, channels: int) -> nn.Conv2d:
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
