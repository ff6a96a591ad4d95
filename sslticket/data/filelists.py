"""Places365 as its lists of files describe it."""

import shlex
from collections import Counter
from pathlib import Path

import numpy as np

from sslticket.data.dataset import Split
from sslticket.data.folders import Listing, below_root, is_image
from sslticket.data.ilsvrc import archived
from sslticket.data.layouts import Lists
from sslticket.errors import BadInput
from sslticket.files import read_bytes

_LARGEST = 1 << 30  # bytes of a list; that of the training images has 80 MB


def images(folder: Path, layout: Lists, split: Split) -> Path | None:
    """The folder or the archive of the images that a split's list names, if it is there."""
    names = layout.train_images if split == "train" else layout.eval_images
    return next((place for name in names if (place := folder / name).is_dir() or place.is_file()), None)


def list_file(folder: Path, layout: Lists, name: str) -> Path:
    """Where a list lies, or would lie."""
    return next((path for home in layout.homes if (path := folder / home / name).is_file()), folder / name)


def listed(folder: Path, layout: Lists, split: Split, order: tuple[str, ...] | None = None) -> Listing:
    """The images that a split's list names, in its order, their classes in `order` or else in the official one.

    Whether each file is there is not looked at, unless they are in an archive: 1.8 million looks take minutes.

    Raises:
        BadInput: if a list is missing, cut short, or names a class that there is not, or that is not the one in whose
            folder the image lies; or the images' folder is missing, or their archive lacks some.
    """
    folders = _class_folders(folder, layout)
    classes = tuple(map(_class_name, folders))
    path = list_file(folder, layout, layout.train if split == "train" else layout.eval)
    root = images(folder, layout, split)
    assert root is not None, "asked for only where the images are"
    files, labels, others = [], [], []
    for name, label in zip(*_pairs(path), strict=True):
        file = name.lstrip("/")
        if file.startswith(".") or "/." in file or "//" in file:
            if (inside := below_root(file)) is None:
                raise BadInput(f"{path} gives {name}, which leads out of {root}; download it again")
            file = inside
        if not is_image(file):
            others.append(name)
            continue
        files.append(file)
        labels.append(label)
        if not 0 <= label < len(classes):
            raise BadInput(f"{path} gives {name} class {label}; there are 0 to {len(classes) - 1}; download it again")
        # Training images lie in their class's folder, so a number that was cut short cannot pass for another class.
        if split == "train" and not file.startswith(folders[label]):
            raise BadInput(
                f"{path} gives {name} class {label}, whose folder is {folders[label]}; download it again, and "
                f"{layout.classes}"
            )
    if len(set(files)) < len(files):
        raise BadInput(f"{path} names {Counter(files).most_common(1)[0][0]} more than once; download it again")
    if order is not None and set(order) != set(classes):
        odd = min(set(order) ^ set(classes))
        raise BadInput(
            f"{root} and the training images in class folders differ in the class {odd!r}; check the folders"
        )
    number = np.array([(order or classes).index(name) for name in classes], np.int64)[labels]
    if root.is_dir():
        return Listing(root, order or classes, files, number, left_out=tuple(others))
    places, left_out = _inside(root, path, files)
    return Listing(root, order or classes, files, number, (root,), places, left_out=(*others, *left_out))


def class_names(folder: Path, layout: Lists) -> tuple[str, ...]:
    """The classes in the official order, by the names that their folders have where the set is in class folders.

    Raises:
        BadInput: if their list is missing or damaged.
    """
    return tuple(map(_class_name, _class_folders(folder, layout)))


def _inside(archive: Path, path: Path, files: list[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Where the listed images are in an archive, (N, 3) int64, and what else it holds."""
    found, left_out = archived([archive], classed=False)
    names = [member.name for _, member in found]
    tops = {name.partition("/")[0] for name in names}
    # The folder that all lie in, such as data_large/, is in no list.
    top = f"{tops.pop()}/" if len(tops) == 1 and all("/" in name for name in names) else ""
    inside = {name.removeprefix(top): each for name, each in zip(names, found, strict=True)}
    if missing := next((file for file in files if file not in inside), None):
        raise BadInput(f"{archive} lacks {missing}, which {path} names; download both again")
    places = [(0, member.offset, member.size) for _, member in map(inside.__getitem__, files)]
    others = sorted(top + name for name in inside.keys() - set(files))
    return np.array(places, np.int64), (*left_out, *others)


def _class_folders(folder: Path, layout: Lists) -> list[str]:
    """The classes' folders among the images, such as "a/apartment_building/outdoor/"."""
    path = list_file(folder, layout, layout.classes)
    names, numbers = _pairs(path)
    if numbers != list(range(len(names))):
        raise BadInput(f"{path} does not number its classes from 0 on; download it again")
    return [f"{name.strip('/')}/" for name in names]


def _class_name(folder: str) -> str:
    return folder.rstrip("/").partition("/")[2].replace("/", "-")


def _pairs(path: Path) -> tuple[list[str], list[int]]:
    try:
        lines = read_bytes(path, _LARGEST).decode("utf-8-sig").splitlines()
    except OSError as error:
        raise BadInput(
            f"cannot read {path}: {error.strerror}; it is in Places365's archive of lists, which belongs beside the "
            f"images; type: cd {shlex.quote(str(path.parent))} && tar -xf filelist_places365-standard.tar"
        ) from error
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
