"""Tiny-ImageNet's tree: train/<wnid>/images/*.JPEG, val/images/*.JPEG and val/val_annotations.txt."""

from pathlib import Path

import numpy as np

from sslticket.data.dataset import Split
from sslticket.data.folders import Listing, class_folders, image_names
from sslticket.data.layouts import Tree
from sslticket.errors import BadInput
from sslticket.files import read_bytes

_LARGEST = 1 << 26  # bytes of the annotations; the published ones have 350 kB


def holds(folder: Path, layout: Tree, split: Split) -> bool:
    """Whether a split lies there in this form, and not in plain class folders."""
    root = folder / (layout.train if split == "train" else layout.eval)
    flat = split == "eval" and (root / layout.annotations).is_file() and (root / layout.images).is_dir()
    return flat or any((root / name / layout.images).is_dir() for name in class_folders(root))


def listed(folder: Path, layout: Tree, split: Split) -> Listing:
    """The images of a split by class and name, classes numbered in the order of their sorted names.

    Raises:
        BadInput: if a class has no images, an evaluation image no class, or its class no training images.
    """
    known = class_folders(folder / layout.train)
    root = folder / (layout.train if split == "train" else layout.eval)
    if split == "eval" and (root / layout.images).is_dir():
        told = _annotations(root / layout.annotations)
        names = image_names(root / layout.images)
        if stray := next((name for name in names if name not in told), None):
            raise BadInput(
                f"{root / layout.annotations} does not tell what {stray} shows; get it again, or take it away"
            )
        pairs = [(told[name], f"{layout.images}/{name}") for name in names]
    else:
        images = {
            name: image_names(root / name / layout.images)
            for name in class_folders(root)
            if (root / name / layout.images).is_dir()
        }
        if empty := next((name for name in class_folders(root) if not images.get(name)), None):
            raise BadInput(f"{root / empty / layout.images} holds no images; remove {root / empty} or complete it")
        pairs = [(name, f"{name}/{layout.images}/{image}") for name, found in images.items() for image in found]
    pairs.sort()
    classes = tuple(known or sorted({wnid for wnid, _ in pairs}))
    if strange := sorted({wnid for wnid, _ in pairs} - set(classes)):
        raise BadInput(f"{root} has class {strange[0]!r}, which the training images do not; add its training images")
    number = {name: label for label, name in enumerate(classes)}
    return Listing(root, classes, [file for _, file in pairs], np.array([number[wnid] for wnid, _ in pairs], np.int64))


def _annotations(path: Path) -> dict[str, str]:
    """The class of each evaluation image, by name."""
    try:
        lines = read_bytes(path, _LARGEST).decode("utf-8-sig").splitlines()
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror}; it tells what the evaluation images show") from error
    except UnicodeDecodeError:
        raise BadInput(f"{path} is no text file; get it again") from None
    told: dict[str, str] = {}
    for count, words in enumerate((line.split() for line in lines), 1):
        if not words:
            continue
        if len(words) < 2 or told.get(words[0], words[1]) != words[1]:
            raise BadInput(f"{path}, line {count}: {' '.join(words)[:60]!r} does not tell one class; get it again")
        told[words[0]] = words[1]
    return told
