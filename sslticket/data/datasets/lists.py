"""Places365 and Tiny-ImageNet, whose publishers list the images' classes in text files."""

import shlex
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sslticket.data.datasets.base import SPLITS, Dataset, ImageArrays, Listing, Split
from sslticket.data.datasets.folders import (
    FolderLayout,
    class_folders,
    class_order,
    folder_contents,
    is_image,
    path_below_root,
    split_folder,
)
from sslticket.data.tar import list_archives
from sslticket.errors import BadInput
from sslticket.storage.files import read_bytes

_LARGEST_FILE_LIST = 1 << 30  # bytes of a list; that of the training images has 80 MB
_LARGEST_ANNOTATIONS = 1 << 26  # bytes of the annotations; the published ones have 350 kB


@dataclass(frozen=True, kw_only=True)
class Places365Layout(FolderLayout):
    """Places365's lists of files and the images that they name, as torchvision arranges them and in other states.

    Attributes:
        train_images: Folders, or archives that are read in place, that the names of training images are relative to.
        eval_images: Folders or archives that those of evaluation images are relative to.
        train: List of the training images, a name and a class number per line.
        eval: List of the evaluation images, likewise.
        classes: List of the classes and their numbers.
        list_folders: Folders that the lists may lie in; the second is what their archive unpacks to.
    """

    train_images: tuple[str, ...]
    eval_images: tuple[str, ...]
    train: str = "places365_train_standard.txt"
    eval: str = "places365_val.txt"
    classes: str = "categories_places365.txt"
    list_folders: tuple[str, ...] = (".", "filelist_places365-standard")

    def find(self, dataset: Dataset, folder: Path) -> Path | None:
        """Return `folder` if it has the images of any split, listed or in class folders."""
        listed = any(self.find_images(folder, split) for split in SPLITS)
        return folder if listed else super().find(dataset, folder)

    def open(self, dataset: Dataset, split: Split, folder: Path) -> Listing | ImageArrays | None:
        """List the images in class folders, or else those that the split's list names."""
        if found := self.list_class_folders(dataset, split, folder):
            return found
        if not self.find_images(folder, split):
            return None
        return self.list_images(folder, split, self.training_classes(dataset, folder))

    def find_images(self, folder: Path, split: Split) -> Path | None:
        """Return the folder or the archive of the images that a split's list names; None where there is none."""
        names = self.train_images if split == "train" else self.eval_images
        return next((place for name in names if (place := folder / name).is_dir() or place.is_file()), None)

    def list_images(self, folder: Path, split: Split, order: tuple[str, ...] | None = None) -> Listing:
        """List the images that a split's list names, in its order.

        Files in folders are not asked for one by one, as 1.8 million questions take minutes; those in archives are.

        Args:
            folder: Folder of the data set.
            split: Split that is wanted.
            order: Classes in the order of their labels; None takes the official order.

        Raises:
            BadInput: If a list is missing, cut short, or names a class that there is not, or that is not the one in
                whose folder the image lies; or the images' folder is missing, or their archive lacks some.
        """
        folders = self._class_folders(folder)
        classes = tuple(map(_class_name, folders))
        path = self._find_list(folder, self.train if split == "train" else self.eval)
        root = self.find_images(folder, split)
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
                raise BadInput(
                    f"{path} gives {name} class {label}; there are 0 to {len(classes) - 1}; download it again"
                )
            # Training images lie in their class's folder, so a number that was cut short cannot pass for another class.
            if split == "train" and not file.startswith(folders[label]):
                raise BadInput(
                    f"{path} gives {name} class {label}, whose folder is {folders[label]}; download it again, and "
                    f"{self.classes}"
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
        byte_ranges, left_out = _locate_in_archive(root, path, files)
        return Listing(root, order or classes, files, number, (root,), byte_ranges, left_out=(*others, *left_out))

    def published_classes(self, folder: Path) -> tuple[str, ...] | None:
        """Return the classes in the official order, by the names that their folders have in class folders.

        Raises:
            BadInput: If their list is damaged.
        """
        there = self._find_list(folder, self.classes).is_file()
        return tuple(map(_class_name, self._class_folders(folder))) if there else None

    def describe_missing(self, dataset: Dataset) -> str:
        """Return what a folder without this data set lacks, for an error."""
        return f"{super().describe_missing(dataset)} and no folder {self.train_images[0]}"

    def how_to_add(self, split: Split) -> str:
        """Return what else than class folders would make a split complete, for an error."""
        return f", or unpack them to {self.train_images if split == 'train' else self.eval_images}/ beside their lists"

    def _find_list(self, folder: Path, name: str) -> Path:
        """Return where a list lies, or would lie."""
        return next((path for home in self.list_folders if (path := folder / home / name).is_file()), folder / name)

    def _class_folders(self, folder: Path) -> list[str]:
        """Return the classes' folders among the images, such as "a/apartment_building/outdoor/"."""
        path = self._find_list(folder, self.classes)
        names, numbers = _read_file_list(path)
        if numbers != list(range(len(names))):
            raise BadInput(f"{path} does not number its classes from 0 on; download it again")
        return [f"{name.strip('/')}/" for name in names]


def _locate_in_archive(archive: Path, path: Path, files: list[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return where the listed images are in an archive, (N, 3) int64, and what else it holds."""
    found, left_out = list_archives([archive], classed=False)
    names = [member.name for _, member in found]
    tops = {name.partition("/")[0] for name in names}
    # The folder that all lie in, such as data_large/, is in no list.
    top = f"{tops.pop()}/" if len(tops) == 1 and all("/" in name for name in names) else ""
    inside = {name.removeprefix(top): each for name, each in zip(names, found, strict=True)}
    if missing := next((file for file in files if file not in inside), None):
        raise BadInput(f"{archive} lacks {missing}, which {path} names; download both again")
    byte_ranges = [(0, member.offset, member.size) for _, member in map(inside.__getitem__, files)]
    others = sorted(top + name for name in inside.keys() - set(files))
    return np.array(byte_ranges, np.int64), (*left_out, *others)


def _class_name(folder: str) -> str:
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


@dataclass(frozen=True, kw_only=True)
class TinyImageNetLayout(FolderLayout):
    """Tiny-ImageNet: train/<wnid>/images/*.JPEG, val/images/*.JPEG and val/val_annotations.txt.

    Attributes:
        folders: Folders that those of the splits may lie in; the second is what the archive unpacks to, the third what
            Kaggle's does.
        train: Folder of the training split.
        eval: Folder of the evaluation split.
        images: Folder in a class's folder, or in that of the evaluation images.
        annotations: List in the evaluation images' folder, with the name and the class of each.
    """

    folders: tuple[str, ...] = (".", "tiny-imagenet-200", "tiny-imagenet-200/tiny-imagenet-200")
    train: str = "train"
    eval: str = "val"
    images: str = "images"
    annotations: str = "val_annotations.txt"

    def find(self, dataset: Dataset, folder: Path) -> Path | None:
        """Return the first of `folders` that has the images of any split."""
        for home in (folder / name for name in self.folders):
            if any(self._holds(home, split) or split_folder(dataset, split, home) for split in SPLITS):
                return home
        return None

    def open(self, dataset: Dataset, split: Split, folder: Path) -> Listing | ImageArrays | None:
        """List the images as they are published, by class and name, or else those in class folders.

        Classes are numbered in the order of their sorted names.

        Raises:
            BadInput: If a class has no images, an evaluation image no class, or its class no training images.
        """
        found = (
            self._list_published(split, folder)
            if self._holds(folder, split)
            else self.list_class_folders(dataset, split, folder)
        )
        if found and split == "eval":
            self._check_annotations(folder, found)
        return found

    def _holds(self, folder: Path, split: Split) -> bool:
        """Whether a split lies in a folder as it is published, and not in plain class folders."""
        root = folder / (self.train if split == "train" else self.eval)
        return bool(split == "eval" and self._unsorted_images(root)) or any(
            (root / name / self.images).is_dir() for name in class_folders(root)
        )

    def _unsorted_images(self, root: Path) -> list[str]:
        """Return the evaluation images that lie in one folder, their classes in a list beside it."""
        images = root / self.images
        return folder_contents(images).images if (root / self.annotations).is_file() and images.is_dir() else []

    def _list_published(self, split: Split, folder: Path) -> Listing:
        known = class_folders(folder / self.train)
        root = folder / (self.train if split == "train" else self.eval)
        left_out: list[str] = []
        if split == "eval" and (names := self._unsorted_images(root)):
            wnids = _read_annotations(root / self.annotations)
            if stray := next((name for name in names if name not in wnids), None):
                raise BadInput(f"{root / self.annotations} has no class of {stray}; get it again, or take it away")
            pairs = [(wnids[name], f"{self.images}/{name}") for name in names]
            inner = folder_contents(root / self.images)
            left_out = [f"{self.images}/{name}" for name in (*inner.others, *(f"{name}/" for name in inner.folders))]
            left_out += self._entries_beside(root, self.annotations)
        else:
            pairs = []
            for name in class_folders(root):
                images = root / name / self.images
                found = folder_contents(images) if images.is_dir() else None
                if not found or not found.images:
                    raise BadInput(f"{images} has no images; remove {root / name}, or complete it")
                pairs += [(name, f"{name}/{self.images}/{image}") for image in found.images]
                left_out += [f"{name}/{self.images}/{other}" for other in found.others]
                left_out += [f"{name}/{other}" for other in self._entries_beside(root / name, f"{name}_boxes.txt")]
            left_out += [name for name in folder_contents(root).others if name != self.annotations]
        classes = class_order(root, (wnid for wnid, _ in pairs), tuple(known) or None)
        number = {name: label for label, name in enumerate(classes)}
        pairs.sort()
        labels = np.array([number[wnid] for wnid, _ in pairs], np.int64)
        return Listing(root, classes, [file for _, file in pairs], labels, left_out=tuple(left_out))

    def _check_annotations(self, folder: Path, found: Listing) -> None:
        """Raise `BadInput` if an evaluation image's folder is another class's than the list, where there is one."""
        annotations = folder / self.eval / self.annotations
        wnids = _read_annotations(annotations) if annotations.is_file() else {}
        for file, label in zip(found.files, found.labels.tolist(), strict=True):
            if (wnid := wnids.get(file.rpartition("/")[2], found.classes[label])) != found.classes[label]:
                raise BadInput(
                    f"{found.root / file} is of class {wnid} according to {annotations}; sort the images anew, or take "
                    "away what is wrong"
                )

    def _entries_beside(self, folder: Path, known: str) -> list[str]:
        """Return what lies beside the folder of images, without the one file that is published there.

        Raises:
            BadInput: If that is images.
        """
        there = folder_contents(folder)
        if there.images:
            raise BadInput(
                f"{folder / there.images[0]} lies beside {self.images}/ ({len(there.images):,} images do); move "
                "them there, or take them away"
            )
        return [name for name in there.others if name != known] + [
            f"{name}/" for name in there.folders if name != self.images
        ]


def _read_annotations(path: Path) -> dict[str, str]:
    """Return the class of each evaluation image, by name."""
    try:
        lines = read_bytes(path, _LARGEST_ANNOTATIONS).decode("utf-8-sig").splitlines()
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror}; it has the evaluation images' classes") from error
    except UnicodeDecodeError:
        raise BadInput(f"{path} is no text file; get it again") from None
    wnids: dict[str, str] = {}
    for count, words in enumerate((line.split() for line in lines), 1):
        if not words:
            continue
        if len(words) < 2 or wnids.get(words[0], words[1]) != words[1]:
            raise BadInput(f"{path}, line {count}: {' '.join(words)[:60]!r} does not name one class; get it again")
        wnids[words[0]] = words[1]
    return wnids
