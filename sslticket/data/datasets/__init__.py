"""The known data sets by name, the forms in which they are published, and where each one is looked for.

A data set of one's own is a `Dataset` in a file of one's own, named as `path/file.py:NAME`; any folder of class folders
needs no file, and is named as `folder:NAME`.
"""

from typing import TYPE_CHECKING

from sslticket.registry import Registry

if TYPE_CHECKING:
    from sslticket.data.datasets.base import Dataset

_CATALOGUE = "sslticket.data.datasets.catalogue"

CATALOGUED = {
    "imagenet": f"{_CATALOGUE}:IMAGENET",
    "places365": f"{_CATALOGUE}:PLACES365",
    "places365_small": f"{_CATALOGUE}:PLACES365_SMALL",
    "folder": f"{_CATALOGUE}:FOLDER",
    "tiny_imagenet": f"{_CATALOGUE}:TINY_IMAGENET",
    "cifar10": f"{_CATALOGUE}:CIFAR10",
    "cifar100": f"{_CATALOGUE}:CIFAR100",
    "svhn": f"{_CATALOGUE}:SVHN",
    "svhn_extra": f"{_CATALOGUE}:SVHN_EXTRA",
    "mnist": f"{_CATALOGUE}:MNIST",
    "fashion_mnist": f"{_CATALOGUE}:FASHION_MNIST",
    "digits": f"{_CATALOGUE}:DIGITS",
}
"""Where each known data set is defined. To add one, add its entry there and a line here."""

DATASETS: "Registry[Dataset]" = Registry("dataset", CATALOGUED, base="sslticket.data.datasets.base:Dataset")
