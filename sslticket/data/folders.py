"""Folders of class folders: which images are in them."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sslticket.errors import BadInput

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".pbm", ".tif", ".tiff")


@dataclass(frozen=True)
class Listing:
    """The images in a folder of class folders, by class and name.

    Attributes:
        root: the folder.
        classes: the class folders' names, sorted.
        files: paths relative to `root`, with forward slashes.
        labels: (N,) int64, places in `classes`.
    """

    root: Path
    classes: tuple[str, ...]
    files: list[str]
    labels: np.ndarray


def class_folders(root: Path) -> list[str]:
    """Names of the folders in `root`, hidden ones left out, sorted; none where there is no such folder."""
    if not root.is_dir():
        return []
    with os.scandir(root) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def listing(root: Path, classes: tuple[str, ...] | None = None) -> Listing:
    """The images directly in the class folders of `root`.

    Args:
        root: a folder of class folders.
        classes: the training split's classes, so that another split gets the same labels; None takes the folders'.

    Raises:
        BadInput: if there are no images, a class has none, or a class is not among `classes`.
    """
    found = class_folders(root)
    strange = sorted(set(found) - set(classes or found))
    if strange:
        raise BadInput(
            f"{root} has class {strange[0]!r}, which the training images do not; remove or rename that folder"
        )
    names = [_images(root / name) for name in found]
    if not any(names):
        raise BadInput(f"no images in {root}; it needs a folder per class with files named {' '.join(SUFFIXES)}")
    for name, images in zip(found, names, strict=True):
        if not images:
            raise BadInput(
                f"class folder {root / name} has no images; remove it or put {' '.join(SUFFIXES)} files there"
            )
    order = classes or tuple(found)
    labels = np.repeat([order.index(name) for name in found], [len(images) for images in names]).astype(np.int64)
    files = [f"{name}/{image}" for name, images in zip(found, names, strict=True) for image in images]
    return Listing(root, order, files, labels)


def _images(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        names = (entry.name for entry in entries)
        return sorted(name for name in names if name.lower().endswith(SUFFIXES) and not name.startswith("."))
