"""Tiny-ImageNet's tree: train/<wnid>/images/*.JPEG, val/images/*.JPEG and val/val_annotations.txt."""

from pathlib import Path

import numpy as np

from sslticket.data.dataset import Split
from sslticket.data.folders import Listing, class_folders, contents, image_names, numbered
from sslticket.data.layouts import Tree
from sslticket.errors import BadInput
from sslticket.files import read_bytes

_LARGEST = 1 << 26  # bytes of the annotations; the published ones have 350 kB


def holds(folder: Path, layout: Tree, split: Split) -> bool:
    """Whether a split lies there in this form, and not in plain class folders."""
    root = folder / (layout.train if split == "train" else layout.eval)
    return bool(split == "eval" and _flat(root, layout)) or any(
        (root / name / layout.images).is_dir() for name in class_folders(root)
    )


def _flat(root: Path, layout: Tree) -> list[str]:
    """The evaluation images that lie in one folder, their classes in a list beside it."""
    images = root / layout.images
    return image_names(images) if (root / layout.annotations).is_file() and images.is_dir() else []


def listed(folder: Path, layout: Tree, split: Split) -> Listing:
    """The images of a split by class and name, classes numbered in the order of their sorted names.

    Raises:
        BadInput: if a class has no images, an evaluation image no class, or its class no training images.
    """
    known = class_folders(folder / layout.train)
    root = folder / (layout.train if split == "train" else layout.eval)
    left_out: list[str] = []
    if split == "eval" and (names := _flat(root, layout)):
        told = _annotations(root / layout.annotations)
        if stray := next((name for name in names if name not in told), None):
            raise BadInput(
                f"{root / layout.annotations} does not tell what {stray} shows; get it again, or take it away"
            )
        pairs = [(told[name], f"{layout.images}/{name}") for name in names]
        left_out = [f"{layout.images}/{name}" for name in contents(root / layout.images).others]
    else:
        pairs = []
        for name in class_folders(root):
            inner = contents(root / name / layout.images) if (root / name / layout.images).is_dir() else None
            if not inner or not inner.images:
                raise BadInput(f"{root / name / layout.images} has no images; remove {root / name}, or complete it")
            pairs += [(name, f"{name}/{layout.images}/{image}") for image in inner.images]
            left_out += [f"{name}/{layout.images}/{other}" for other in inner.others]
    classes = numbered(root, (wnid for wnid, _ in pairs), tuple(known) or None)
    number = {name: label for label, name in enumerate(classes)}
    pairs.sort()
    labels = np.array([number[wnid] for wnid, _ in pairs], np.int64)
    return Listing(root, classes, [file for _, file in pairs], labels, left_out=tuple(left_out))


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
