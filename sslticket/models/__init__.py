"""Networks without their classification layer, by name: the papers' own, a user's, then any of timm's or torchvision's.

The registry needs no torch; functions are imported from `sslticket.models.backbones` when they are first used.
"""

import re
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from sslticket.registry import Registry

if TYPE_CHECKING:
    from sslticket.models.backbones import accepts_image_size, create_model, list_models, num_features

__all__ = [
    "MODELS",
    "PAPER_MODELS",
    "RANDOM_INIT",
    "accepts_image_size",
    "create_model",
    "list_models",
    "load_model",
    "num_features",
]

RANDOM_INIT = "random"
"""The `--init` of a search that starts from weights drawn by its seed; see `sslticket.models.pretrained` for others."""

PAPER_MODELS: Mapping[str, str] = {
    "alexnet": "sslticket.models.backbones:alexnet",
    "conv3": "sslticket.models.paper_networks:conv3",
    "conv6": "sslticket.models.paper_networks:conv6",
    "lenet300": "sslticket.models.paper_networks:lenet300",
    "resnet18": "sslticket.models.paper_networks:resnet18",
    "resnet18_cifar": "sslticket.models.paper_networks:resnet18_cifar",
    "resnet20": "sslticket.models.paper_networks:resnet20",
    "resnet50": "sslticket.models.paper_networks:resnet50",
    "vgg11": "sslticket.models.paper_networks:vgg11",
    "vgg13": "sslticket.models.paper_networks:vgg13",
    "vgg16": "sslticket.models.paper_networks:vgg16",
    "vgg19": "sslticket.models.paper_networks:vgg19",
}
"""Where the papers' networks are, by their names."""

MODELS: Registry[Callable[[int, int], Any]] = Registry("model", PAPER_MODELS)
"""Functions or classes that are called with the images' channels and side in pixels and give a backbone: images
(B, channels, side, side) -> features (B, F), with initial weights by torch's generator. All names of timm and
torchvision work beside these."""


def load_model(name: str) -> str:
    """The plain name of a model, after the file or module that defines it was loaded.

    Args:
        name: "path/file.py:Name" or "package.module:Name"; any other name is returned as it is.

    Raises:
        BadInput: If the file or module has no such model, or if its plain name is that of one of the papers' networks.
    """
    if not re.fullmatch(r"(.*\.py|[A-Za-z_][\w.]*):\w+", name):
        return name
    plain = name.rpartition(":")[2]
    MODELS.register(plain)(MODELS.get(name))
    return plain


def __getattr__(name: str) -> Any:
    if name == "build":  # the former name of `create_model`, which the cards of exported tickets have
        name = "create_model"
    if name in __all__:
        return getattr(import_module("sslticket.models.backbones"), name)
    raise AttributeError(f"module 'sslticket.models' has no attribute {name!r}")
