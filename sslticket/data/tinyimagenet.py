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
        flat = contents(root / layout.images)
        left_out = [f"{layout.images}/{name}" for name in (*flat.others, *(f"{name}/" for name in flat.folders))]
        left_out += _beside(root, layout, layout.annotations)
    else:
        pairs = []
        for name in class_folders(root):
            inner = contents(root / name / layout.images) if (root / name / layout.images).is_dir() else None
            if not inner or not inner.images:
                raise BadInput(f"{root / name / layout.images} has no images; remove {root / name}, or complete it")
            pairs += [(name, f"{name}/{layout.images}/{image}") for image in inner.images]
            left_out += [f"{name}/{layout.images}/{other}" for other in inner.others]
            left_out += [f"{name}/{other}" for other in _beside(root / name, layout, f"{name}_boxes.txt")]
        left_out += [name for name in contents(root).others if name != layout.annotations]
    classes = numbered(root, (wnid for wnid, _ in pairs), tuple(known) or None)
    number = {name: label for label, name in enumerate(classes)}
    pairs.sort()
    labels = np.array([number[wnid] for wnid, _ in pairs], np.int64)
    found = Listing(root, classes, [file for _, file in pairs], labels, left_out=tuple(left_out))
    if split == "eval":
        check(folder, layout, found)
    return found


def check(folder: Path, layout: Tree, found: Listing) -> None:
    """Raise `BadInput` if an evaluation image's folder is another class's than the list tells, where there is one."""
    annotations = folder / layout.eval / layout.annotations
    told = _annotations(annotations) if annotations.is_file() else {}
    for file, label in zip(found.files, found.labels.tolist(), strict=True):
        if (wnid := told.get(file.rpartition("/")[2], found.classes[label])) != found.classes[label]:
            raise BadInput(
                f"{found.root / file} is of class {wnid}, as {annotations} tells; sort the images anew, or take away "
                "what is wrong"
            )


def _beside(folder: Path, layout: Tree, known: str) -> list[str]:
    """What lies beside the folder of images, without the one file that is published there.

    Raises:
        BadInput: if that is images.
    """
    there = contents(folder)
    if there.images:
        raise BadInput(
            f"{folder / there.images[0]} lies beside {layout.images}/ ({len(there.images):,} images do); move "
            "them there, or take them away"
        )
    return [name for name in there.others if name != known] + [
        f"{name}/" for name in there.folders if name != layout.images
    ]


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
