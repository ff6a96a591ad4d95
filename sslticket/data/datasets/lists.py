"""Places365 and Tiny-ImageNet, whose publishers list the images' classes in text files."""

import shlex
from collections import Counter
from pathlib import Path

import numpy as np

from sslticket.data.datasets.base import Places365Layout, Split, TinyImageNetLayout
from sslticket.data.datasets.folders import (
    Listing,
    class_folders,
    class_order,
    folder_contents,
    image_names,
    is_image,
    path_below_root,
)
from sslticket.data.datasets.imagenet import list_archives
from sslticket.errors import BadInput
from sslticket.storage.files import read_bytes

_LARGEST_FILE_LIST = 1 << 30  # bytes of a list; that of the training images has 80 MB


def find_listed_images(folder: Path, layout: Places365Layout, split: Split) -> Path | None:
    """The folder or the archive of the images that a split's list names, if it is there."""
    names = layout.train_images if split == "train" else layout.eval_images
    return next((place for name in names if (place := folder / name).is_dir() or place.is_file()), None)


def find_list(folder: Path, layout: Places365Layout, name: str) -> Path:
    """Where a list lies, or would lie."""
    return next((path for home in layout.list_folders if (path := folder / home / name).is_file()), folder / name)


def list_places365(
    folder: Path, layout: Places365Layout, split: Split, order: tuple[str, ...] | None = None
) -> Listing:
    """The images that a split's list names, in its order, their classes in `order` or else in the official one.

    Whether each file is there is not looked at, unless they are in an archive: 1.8 million looks take minutes.

    Raises:
        BadInput: if a list is missing, cut short, or names a class that there is not, or that is not the one in whose
            folder the image lies; or the images' folder is missing, or their archive lacks some.
    """
    folders = _places365_folders(folder, layout)
    classes = tuple(map(_folder_class_name, folders))
    path = find_list(folder, layout, layout.train if split == "train" else layout.eval)
    root = find_listed_images(folder, layout, split)
    assert root is not None, "asked for only where the images are"
    files, labels, others = [], [], []
    for name, label in zip(*_read_file_list(path), strict=True):
        file = name.lstrip("/")
        if file.startswith(".") or "/." in file or "//" in file:
            if (inside := path_below_root(file)) is None:
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
    places, left_out = _locate_in_archive(root, path, files)
    return Listing(root, order or classes, files, number, (root,), places, left_out=(*others, *left_out))


def places365_classes(folder: Path, layout: Places365Layout) -> tuple[str, ...]:
    """The classes in the official order, by the names that their folders have where the set is in class folders.

    Raises:
        BadInput: if their list is missing or damaged.
    """
    return tuple(map(_folder_class_name, _places365_folders(folder, layout)))


def _locate_in_archive(archive: Path, path: Path, files: list[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Where the listed images are in an archive, (N, 3) int64, and what else it holds."""
    found, left_out = list_archives([archive], classed=False)
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


def _places365_folders(folder: Path, layout: Places365Layout) -> list[str]:
    """The classes' folders among the images, such as "a/apartment_building/outdoor/"."""
    path = find_list(folder, layout, layout.classes)
    names, numbers = _read_file_list(path)
    if numbers != list(range(len(names))):
        raise BadInput(f"{path} does not number its classes from 0 on; download it again")
    return [f"{name.strip('/')}/" for name in names]


def _folder_class_name(folder: str) -> str:
    return folder.rstrip("/").partition("/")[2].replace("/", "-")


def _read_file_list(path: Path) -> tuple[list[str], list[int]]:
    try:
        lines = read_bytes(path, _LARGEST_FILE_LIST).decode("utf-8-sig").splitlines()
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


_LARGEST_ANNOTATIONS = 1 << 26  # bytes of the annotations; the published ones have 350 kB


def holds_tiny_imagenet(folder: Path, layout: TinyImageNetLayout, split: Split) -> bool:
    """Whether a split lies there in this form, and not in plain class folders."""
    root = folder / (layout.train if split == "train" else layout.eval)
    return bool(split == "eval" and _flat_evaluation_images(root, layout)) or any(
        (root / name / layout.images).is_dir() for name in class_folders(root)
    )


def _flat_evaluation_images(root: Path, layout: TinyImageNetLayout) -> list[str]:
    """The evaluation images that lie in one folder, their classes in a list beside it."""
    images = root / layout.images
    return image_names(images) if (root / layout.annotations).is_file() and images.is_dir() else []


def list_tiny_imagenet(folder: Path, layout: TinyImageNetLayout, split: Split) -> Listing:
    """The images of a split by class and name, classes numbered in the order of their sorted names.

    Raises:
        BadInput: if a class has no images, an evaluation image no class, or its class no training images.
    """
    known = class_folders(folder / layout.train)
    root = folder / (layout.train if split == "train" else layout.eval)
    left_out: list[str] = []
    if split == "eval" and (names := _flat_evaluation_images(root, layout)):
        told = _read_annotations(root / layout.annotations)
        if stray := next((name for name in names if name not in told), None):
            raise BadInput(
                f"{root / layout.annotations} does not tell what {stray} shows; get it again, or take it away"
            )
        pairs = [(told[name], f"{layout.images}/{name}") for name in names]
        flat = folder_contents(root / layout.images)
        left_out = [f"{layout.images}/{name}" for name in (*flat.others, *(f"{name}/" for name in flat.folders))]
        left_out += _entries_beside(root, layout, layout.annotations)
    else:
        pairs = []
        for name in class_folders(root):
            inner = folder_contents(root / name / layout.images) if (root / name / layout.images).is_dir() else None
            if not inner or not inner.images:
                raise BadInput(f"{root / name / layout.images} has no images; remove {root / name}, or complete it")
            pairs += [(name, f"{name}/{layout.images}/{image}") for image in inner.images]
            left_out += [f"{name}/{layout.images}/{other}" for other in inner.others]
            left_out += [f"{name}/{other}" for other in _entries_beside(root / name, layout, f"{name}_boxes.txt")]
        left_out += [name for name in folder_contents(root).others if name != layout.annotations]
    classes = class_order(root, (wnid for wnid, _ in pairs), tuple(known) or None)
    number = {name: label for label, name in enumerate(classes)}
    pairs.sort()
    labels = np.array([number[wnid] for wnid, _ in pairs], np.int64)
    found = Listing(root, classes, [file for _, file in pairs], labels, left_out=tuple(left_out))
    if split == "eval":
        check_tiny_imagenet(folder, layout, found)
    return found


def check_tiny_imagenet(folder: Path, layout: TinyImageNetLayout, found: Listing) -> None:
    """Raise `BadInput` if an evaluation image's folder is another class's than the list tells, where there is one."""
    annotations = folder / layout.eval / layout.annotations
    told = _read_annotations(annotations) if annotations.is_file() else {}
    for file, label in zip(found.files, found.labels.tolist(), strict=True):
        if (wnid := told.get(file.rpartition("/")[2], found.classes[label])) != found.classes[label]:
            raise BadInput(
                f"{found.root / file} is of class {wnid}, as {annotations} tells; sort the images anew, or take away "
                "what is wrong"
            )


def _entries_beside(folder: Path, layout: TinyImageNetLayout, known: str) -> list[str]:
    """What lies beside the folder of images, without the one file that is published there.

    Raises:
        BadInput: if that is images.
    """
    there = folder_contents(folder)
    if there.images:
        raise BadInput(
            f"{folder / there.images[0]} lies beside {layout.images}/ ({len(there.images):,} images do); move "
            "them there, or take them away"
        )
    return [name for name in there.others if name != known] + [
        f"{name}/" for name in there.folders if name != layout.images
    ]


def _read_annotations(path: Path) -> dict[str, str]:
    """The class of each evaluation image, by name."""
    try:
        lines = read_bytes(path, _LARGEST_ANNOTATIONS).decode("utf-8-sig").splitlines()
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
