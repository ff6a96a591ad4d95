"""Which images there are: what a name tells, a list of images, and how folders of class folders are listed."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sslticket.errors import BadInput

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".pbm", ".tif", ".tiff")
_OF_SYSTEMS = ("__MACOSX", "@eaDir", "lost+found", "$RECYCLE.BIN", "System Volume Information")
"""What macOS, Synology, file systems and Windows put among images: copies, thumbnails and what was thrown away."""


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
        left_out: what lies among the images and is none of them, as paths below `root`; folders end in "/".
    """

    root: Path
    classes: tuple[str, ...]
    files: list[str]
    labels: np.ndarray
    archives: tuple[Path, ...] = ()
    places: np.ndarray | None = None
    form: str = ""
    left_out: tuple[str, ...] = ()


def is_image(name: str) -> bool:
    """Whether a path below a split's root is an image's, by its suffix; no part of it may be hidden or a system's own.

    This is the only filter: class folders, flat folders, members of archives and lists all pass through it.
    """
    return name.lower().endswith(SUFFIXES) and not is_hidden(name)


def is_hidden(name: str) -> bool:
    """Whether any part of a path is hidden, as ".x" and macOS's "._x" are, or is a system's own, as "__MACOSX" is."""
    return any(part.startswith(".") or part in _OF_SYSTEMS for part in name.split("/"))


def below_root(name: str) -> str | None:
    """A path as it is called everywhere: "./a//1.jpg" is "a/1.jpg"; None where it leads out of the root."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    return None if name.startswith("/") or ".." in parts else "/".join(parts)


def left_out(names: Iterable[str]) -> str:
    """A line about what was found among images and is none: "left out: 2 files that are no images (a/x.txt, ...)".

    It is "" where there is nothing.
    """
    listed = sorted(names)
    if not listed:
        return ""
    what = "file that is no image" if len(listed) == 1 else "files that are no images"
    return f"left out: {len(listed):,} {what} ({', '.join(listed[:3])}{', ...' if len(listed) > 3 else ''})"


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
        return sorted(name for name in names if is_image(name))
