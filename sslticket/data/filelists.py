"""Places365 as its lists of files describe it."""

from pathlib import Path

import numpy as np

from sslticket.data.dataset import Split
from sslticket.data.folders import Listing
from sslticket.data.layouts import Lists
from sslticket.errors import BadInput


def listed(folder: Path, layout: Lists, split: Split, order: tuple[str, ...] | None = None) -> Listing:
    """The images that a split's list names, in its order, their classes in `order` or else in the official one.

    Whether each file is there is not looked at: 1.8 million looks take minutes.

    Raises:
        BadInput: if a list is missing, cut short, or names a class that there is not, or that is not the one in whose
            folder the image lies; or the images' folder is missing.
    """
    folders = _class_folders(folder, layout)
    classes = tuple(map(_class_name, folders))
    path = folder / (layout.train if split == "train" else layout.eval)
    root = folder / (layout.train_images if split == "train" else layout.eval_images)
    if not root.is_dir():
        raise BadInput(f"{path} lists the images of {root}, which is no folder; unpack its archive there")
    names, labels = _pairs(path)
    files = [name.lstrip("/") for name in names]
    for name, file, label in zip(names, files, labels, strict=True):
        if not 0 <= label < len(classes):
            raise BadInput(f"{path} gives {name} class {label}; there are 0 to {len(classes) - 1}; download it again")
        # Training images lie in their class's folder, so a number that was cut short cannot pass for another class.
        if split == "train" and not file.startswith(folders[label]):
            raise BadInput(
                f"{path} gives {name} class {label}, whose folder is {folders[label]}; download it again, and "
                f"{layout.classes}"
            )
    if order is not None and set(order) != set(classes):
        odd = min(set(order) ^ set(classes))
        raise BadInput(
            f"{root} and the training images in class folders differ in the class {odd!r}; check the folders"
        )
    place = np.array([(order or classes).index(name) for name in classes], np.int64)
    return Listing(root, order or classes, files, place[labels])


def class_names(folder: Path, layout: Lists) -> tuple[str, ...]:
    """The classes in the official order, by the names that their folders have where the set is in class folders.

    Raises:
        BadInput: if their list is missing or damaged.
    """
    return tuple(map(_class_name, _class_folders(folder, layout)))


def _class_folders(folder: Path, layout: Lists) -> list[str]:
    """The classes' folders among the images, such as "a/apartment_building/outdoor/"."""
    names, numbers = _pairs(folder / layout.classes)
    if numbers != list(range(len(names))):
        raise BadInput(f"{folder / layout.classes} does not number its classes from 0 on; download it again")
    return [f"{name.strip('/')}/" for name in names]


def _class_name(folder: str) -> str:
    return folder.rstrip("/").partition("/")[2].replace("/", "-")


def _pairs(path: Path) -> tuple[list[str], list[int]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror}; it is in Places365's archive of file lists") from error
    except UnicodeDecodeError:
        raise BadInput(f"{path} is no text file; download it again") from None
    names, numbers = [], []
    for count, line in enumerate(lines, 1):
        name, _, number = line.rpartition(" ")
        if not name or not number.isdigit():
            raise BadInput(f"{path}, line {count}: {line[:60]!r} is no name and class number; download it again")
        names.append(name)
        numbers.append(int(number))
    if not names:
        raise BadInput(f"{path} is empty; download it again")
    return names, numbers
