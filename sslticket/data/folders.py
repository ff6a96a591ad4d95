"""Which images there are: a list of them, and how folders of class folders are listed."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sslticket.errors import BadInput

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".pbm", ".tif", ".tiff")


@dataclass(frozen=True)
class Listing:
    """Images and what they show; in a folder of class folders, by class and name.

    Attributes:
        root: the folder, or the archive.
        classes: the classes' names.
        files: paths relative to `root`, with forward slashes.
        labels: (N,) int64, places in `classes`.
        archives: the tar files that the images are in; none where they are files of their own.
        places: (N, 3) int64, each image's archive, offset and size; None where they are files of their own.
        form: what was done to the images; "" for the images as they are published.
    """

    root: Path
    classes: tuple[str, ...]
    files: list[str]
    labels: np.ndarray
    archives: tuple[Path, ...] = ()
    places: np.ndarray | None = None
    form: str = ""


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
    names = [image_names(root / name) for name in found]
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


def image_names(folder: Path) -> list[str]:
    """Names of the images directly in a folder, by their suffix, sorted."""
    with os.scandir(folder) as entries:
        names = (entry.name for entry in entries)
        return sorted(name for name in names if name.lower().endswith(SUFFIXES) and not name.startswith("."))
