"""ImageNet where its images are in no class folders: in the published archives, or flat in a folder.

An image's name tells its class: the class folder in an archive, or the name itself, or, for an evaluation image, its
number, whose class the ground truth gives. Neither its position nor the number of images matters.
"""

import re
import shlex
import tarfile
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sslticket.data.datasets import binary_formats
from sslticket.data.datasets.base import SPLITS, Dataset, ImageArrays, Listing, Split
from sslticket.data.datasets.folders import (
    FolderLayout,
    cached_class_folders,
    class_order,
    folder_contents,
    split_folder,
)
from sslticket.data.tar import TarMember, list_archives
from sslticket.errors import BadInput, one_line
from sslticket.storage.files import read_bytes

_LARGEST_DEVKIT_FILE = 1 << 26  # bytes of one of the kit's files; the published ones have less than a megabyte


@dataclass(frozen=True)
class Devkit:
    """The classes and the ground truth in ImageNet's development kit.

    Attributes:
        path: Folder or archive of the kit.
        wnids: WordNet names of the classes, by their number, from 1 on.
        ground_truth: Number of the class of each evaluation image, in the order of the numbers in the images' names.
    """

    path: Path
    wnids: dict[int, str]
    ground_truth: tuple[int, ...]

    @classmethod
    def find(cls, folder: Path, layout: "ImageNetLayout") -> "Devkit | None":
        """Read the kit in a folder, unpacked or as an archive, compressed or not; None where it is not there.

        Raises:
            BadInput: Naming the file, if the kit is damaged.
        """
        kits = sorted(folder.glob(f"{layout.devkit}*"), key=lambda path: (path.name != f"{layout.devkit}.tar.gz", path))
        # Unpacked with its folders, in a folder that a browser named after the archive, or without them.
        unpacked = [root for kit in kits if kit.is_dir() for root in (kit / kit.name, kit / layout.devkit, kit)]
        for home in (root / inner for root in (*unpacked, folder) for inner in ("data", ".")):
            if all((home / name).is_file() for name in (layout.meta, layout.ground_truth)):
                meta, truth = (
                    read_bytes(home / name, _LARGEST_DEVKIT_FILE) for name in (layout.meta, layout.ground_truth)
                )
                return cls._parse(home, meta, truth)
        archive = next((kit for kit in kits if kit.is_file() and kit.suffix in (".tar", ".gz", ".tgz")), None)
        return cls._parse(archive, *_read_packed_devkit(archive, layout)) if archive else None

    @classmethod
    def _parse(cls, root: Path, meta: bytes, truth: bytes) -> "Devkit":
        try:
            synsets = binary_formats.read_mat(meta, ("synsets",), root)["synsets"]
            leaves = [synset for synset in synsets if synset["num_children"].item() == 0]
            wnids = {int(synset["ILSVRC2012_ID"].item()): str(synset["WNID"]) for synset in leaves}
            # A line's number is that of its image, so none within may be empty.
            numbers = tuple(int(line) for line in truth.decode("ascii").rstrip().splitlines())
        except BadInput as error:
            raise BadInput(f"the development kit is damaged: {error}") from error
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise BadInput(
                f"the development kit in {root} is damaged ({one_line(error)}); download it again"
            ) from error
        if not numbers or not set(numbers) <= wnids.keys():
            strange = min(set(numbers) - wnids.keys(), default="nothing")
            raise BadInput(
                f"the ground truth of the development kit in {root} holds {strange}, which is none of its "
                f"{len(wnids)} classes; download it again"
            )
        return cls(root, wnids, numbers)


def _read_packed_devkit(archive: Path, layout: "ImageNetLayout") -> list[bytes]:
    """Read the two files in the kit's archive, whatever folders they are in and however it is compressed."""
    try:
        with tarfile.open(archive, "r:*") as kit:
            found = {entry.name.rpartition("/")[2]: entry for entry in kit if entry.isfile()}
            entries = [found[name] for name in (layout.meta, layout.ground_truth)]
            if large := next((entry for entry in entries if entry.size > _LARGEST_DEVKIT_FILE), None):
                raise BadInput(f"{archive} has {large.size:,} bytes of {large.name}; download it again")
            contents = [file.read() if (file := kit.extractfile(entry)) else b"" for entry in entries]
            if any(len(content) != entry.size for content, entry in zip(contents, entries, strict=True)):
                raise EOFError("it breaks off")
    except (OSError, EOFError, KeyError, tarfile.TarError, zlib.error) as error:
        raise BadInput(
            f"{archive} is truncated, damaged or another archive ({one_line(error)}); download it again"
        ) from error
    return contents


_LARGEST_LIST = 1 << 28  # bytes of a list; that of the training images has 40 MB
_CLASS_COUNT, _IMAGES_PER_CLASS = 1000, 50
_EVALUATION_NAME = re.compile(r"ILSVRC2012_val_(\d{8})(?:_(n\d{8}))?(?=$|[^\w])", re.IGNORECASE)
WNID = re.compile(r"\bn\d{8}\b")
"""A class's name: its number in WordNet."""


# A line of each holds an image's name and its class: Kaggle's table, the script that sorts the images into class
# folders, and Caffe's list, whose classes are numbers unless somebody wrote their names.
_PAIR_FILES = ("LOC_val_solution.csv", "valprep.sh", "val.txt")
_SYNSET_FILE = "imagenet_2012_validation_synset_labels.txt"  # TensorFlow's: line n is the class of image n
# Line n + 1 of each begins with the name of the class that lists call n.
_CLASS_ORDER_FILES = ("synsets.txt", "synset_words.txt", "LOC_synset_mapping.txt", "imagenet_lsvrc_2015_synsets.txt")


def parse_evaluation_name(name: str) -> tuple[int, str | None] | None:
    """Return the number in an evaluation image's name, and the class where the name has it too; None for other names.

    "ILSVRC2012_val_00000001.JPEG" is the official name, "ILSVRC2012_val_00000001_n01751748.JPEG" Hugging Face's.
    """
    found = _EVALUATION_NAME.match(name.rpartition("/")[2])
    return (int(found[1]), found[2]) if found else None


@dataclass(frozen=True)
class GroundTruth:
    """The ground truth of the evaluation images, from whichever published file has it.

    Attributes:
        path: File or kit that it was read from.
        wnids: Class of each image, by the number in the image's name.
        classes: All classes, sorted.
    """

    path: Path
    wnids: dict[int, str]
    classes: tuple[str, ...]

    @classmethod
    def find(cls, folder: Path, layout: "ImageNetLayout") -> "GroundTruth | None":
        """Read it from a folder's files: the development kit, or one of the lists that others made of it.

        Raises:
            BadInput: Naming the file, if it is damaged or has numbers without the classes that they stand for.
        """
        if kit := Devkit.find(folder, layout):
            wnids = {image: kit.wnids[number] for image, number in enumerate(kit.ground_truth, 1)}
            _check_lines(kit.path, wnids, len(kit.wnids))
            return cls(kit.path, wnids, tuple(sorted(kit.wnids.values())))
        homes = [folder, *(folder / name for name in layout.list_folders)]
        if folder.name in ("ILSVRC", "CLS-LOC"):  # Kaggle's tables lie beside ILSVRC/Data/CLS-LOC
            homes += folder.absolute().parents[:3]
        for path in (home / name for name in _PAIR_FILES for home in homes):
            if path.is_file() and (wnids := _read_pairs(path, homes)):
                return cls(path, wnids, tuple(sorted(set(wnids.values()))))
        for path in (home / _SYNSET_FILE for home in homes):
            if path.is_file():
                wnids = dict(enumerate(_read_first_words(path), 1))
                _check_lines(path, wnids, len(set(wnids.values())))
                return cls(path, wnids, tuple(sorted(set(wnids.values()))))
        return None

    def check_listing(self, found: Listing) -> None:
        """Raise `BadInput` if an evaluation image lies in the folder of another class than its number has.

        Folders whose names are no numbers of WordNet are of one's own choice.
        """
        for file, label in zip(found.files, found.labels.tolist(), strict=True):
            folder, known = found.classes[label], parse_evaluation_name(file)
            wnid = self.wnids.get(known[0], folder) if known and WNID.fullmatch(folder) else folder
            if wnid != folder:
                raise BadInput(
                    f"{found.root / file} is of class {wnid} according to {self.path}; sort the images anew, or take "
                    "away what is wrong"
                )

    def class_of(self, name: str, number: int) -> str:
        """Return the class of an image.

        Raises:
            BadInput: If it is not known.
        """
        if number not in self.wnids:
            raise BadInput(
                f"{self.path} has the classes of {len(self.wnids):,} evaluation images, and not that of {name}; "
                "get the whole file, or take the image away"
            )
        return self.wnids[number]


def _check_lines(root: Path, wnids: dict[int, str], classes: int) -> None:
    """Raise `BadInput` if lines are missing or double where a line's number is all that says which image it is of.

    Each of the 1,000 classes has 50 evaluation images (Russakovsky et al. 2015, Table 2).
    """
    odd = next(((wnid, count) for wnid, count in Counter(wnids.values()).items() if count != _IMAGES_PER_CLASS), None)
    if classes == _CLASS_COUNT and odd:
        raise BadInput(
            f"the ground truth in {root} has {odd[1]} images of {odd[0]}, not {_IMAGES_PER_CLASS}: lines are missing "
            "or double, so others are of other images; download it again"
        )


def _read_pairs(path: Path, homes: list[Path]) -> dict[int, str]:
    """Read classes by the images' numbers, from a file whose lines hold a name and a class; others are ignored."""
    wnids: dict[int, str] = {}
    order: list[str] = []
    for count, line in enumerate(map(str.strip, _read_text(path).splitlines()), 1):
        found = re.search(_EVALUATION_NAME.pattern, line, re.IGNORECASE)
        if not found:
            continue
        named = set(WNID.findall(line.replace(found[0], " "))) | {found[2]} - {None}
        number = re.search(r"[\s,](\d+)$", line)
        if not named and number:
            order = order or _read_class_order(path, homes)
            if int(number[1]) < len(order):
                named = {order[int(number[1])]}
        image = int(found[1])
        if len(named) != 1 or wnids.get(image) not in (None, *named):
            raise BadInput(f"{path}, line {count}: {line[:80]!r} does not have one class of one image; get it again")
        wnids[image] = str(*named)
    return wnids


def _read_class_order(path: Path, homes: list[Path]) -> list[str]:
    """Read the classes that a list's numbers stand for, which only a list of the classes says."""
    for root in (home / name for name in _CLASS_ORDER_FILES for home in homes):
        if root.is_file():
            return _read_first_words(root)
    folder = shlex.quote(str(homes[0]))
    raise BadInput(
        f"{path} gives classes as numbers, and no list of the classes says what they stand for; put "
        f"{_CLASS_ORDER_FILES[0]}, which is published with it, beside it, or if they stand for the sorted "
        f"folders of the training images: "
        f"(cd {folder}/train && LC_ALL=C ls) > {folder}/{_CLASS_ORDER_FILES[0]}"
    )


def _read_first_words(path: Path) -> list[str]:
    """Read the class that each line of a file begins with."""
    # A line's number is that of its image, so none within may be empty.
    words = [(line.split() or [""])[0] for line in _read_text(path).rstrip().splitlines()]
    strange = next((word for word in words if not WNID.fullmatch(word)), None if words else "nothing")
    if strange is not None:
        raise BadInput(f"{path} holds {strange[:40]!r} where a class such as n01440764 belongs; get it again")
    return words


def _read_text(path: Path) -> str:
    try:
        return read_bytes(path, _LARGEST_LIST).decode("utf-8-sig")
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError:
        raise BadInput(f"{path} is no text file; get it again") from None


# "n01440764_10026.JPEG" is the official name, "n01440764_10026_n01440764.JPEG" Hugging Face's.
_TRAINING_NAME = re.compile(r"(?P<name>(?P<wnid>n\d{8})_\d+)(?:_(?P<again>n\d{8}))?(?P<end>\.\w+)")


class _NamedImage(NamedTuple):
    """An image: the name by which it is known, its class, and where it is, if that is in an archive."""

    name: str
    wnid: str
    location: tuple[int, int, int] = (0, 0, 0)


def _find_archives(folder: Path, patterns: Iterable[str]) -> tuple[Path, ...]:
    """Return the archives of a split in a folder: the files that fit the first of the patterns that any fits."""
    found = (sorted(path for path in folder.glob(pattern) if path.is_file()) for pattern in patterns)
    return tuple(next(filter(None, found), ()))


def _list_evaluation(
    folder: Path | None, paths: Sequence[Path], truth: GroundTruth | None, classes: tuple[str, ...] | None
) -> Listing | None:
    """List the evaluation images, labelled by the numbers in their names, as class folders would list them.

    Args:
        folder: Folder that the images lie flat in; None where they are in archives.
        paths: Archives, to be read in place.
        truth: Classes of the images; None where only their own names can have them.
        classes: Classes of the training images; None takes the ground truth's.

    Returns:
        The listing; None if neither the names nor a file have the images' classes.

    Raises:
        BadInput: If an image has no number or one that the ground truth does not know, two have one number, or a class
            is not among `classes`.
    """
    root = folder or paths[0]
    if folder:
        names, left_out = _flat_names(folder)
        found = [(name, (0, 0, 0)) for name in names]
    else:
        inside, left_out = list_archives(paths)
        found = [(member.name, (number, *member[1:])) for number, member in inside]
    images, seen = [], dict[int, str]()
    for stored, where in found:
        above, _, name = stored.rpartition("/")
        known = parse_evaluation_name(name)
        if known is None:
            raise BadInput(
                f"{root} has {name}, which is none of ImageNet's evaluation images: their names have a number, such "
                "as ILSVRC2012_val_00000001.JPEG; take it away"
            )
        number, wnid = known
        if WNID.fullmatch(above):  # an archive that was packed anew, of class folders
            if wnid not in (None, above):
                raise BadInput(f"{root} has {stored}, whose folder is not that of its class; pack it anew")
            wnid = above
        if number in seen:
            raise BadInput(f"{root} has image {number} twice, as {seen[number]} and {name}; take one of them away")
        seen[number] = name
        if wnid is None and truth is None:
            return None
        known_wnid = truth.class_of(name, number) if truth else wnid
        if wnid not in (None, known_wnid):
            raise BadInput(
                f"{root} has {stored}, which {truth and truth.path} gives class {known_wnid}; get both again"
            )
        # Hugging Face puts the class behind the official name.
        official = f"{known_wnid}/{re.sub(r'_n[0-9]{8}(?=[.][^.]*$)', '', name)}"
        images.append(_NamedImage(name if folder else official, str(known_wnid), where))
    order = classes or (truth.classes if truth else None)
    if order and (strange := sorted({image.wnid for image in images} - set(order))):
        raise BadInput(f"{root} has class {strange[0]!r}, which the training images do not; add its training images")
    return _sorted_listing(root, images, order, () if folder else tuple(paths), left_out)


def _sorted_listing(
    root: Path,
    images: list[_NamedImage],
    classes: tuple[str, ...] | None,
    paths: tuple[Path, ...],
    left_out: tuple[str, ...],
) -> Listing:
    """List images by class and name; two of one name are refused."""
    if not images:
        raise BadInput(f"{root} holds no images; download it again")
    images = sorted(images, key=lambda image: (image.wnid, image.name))
    names = [image.name for image in images]
    if twice := next((one for one, other in pairwise(names) if one == other), None):
        raise BadInput(f"{root} holds {twice} twice; download it again, or take one of them away")
    order = class_order(root, (image.wnid for image in images), classes)
    number = {name: label for label, name in enumerate(order)}
    labels = np.array([number[image.wnid] for image in images], np.int64)
    byte_ranges = np.array([image.location for image in images], np.int64) if paths else None
    return Listing(root, order, names, labels, paths, byte_ranges, left_out=left_out)


def _class_and_name(archive: Path, member: TarMember) -> tuple[str, str]:
    """Return the name of a training image as class folders have it, and its class."""
    *folders, base = member.name.split("/")
    if (found := _TRAINING_NAME.fullmatch(base)) and (found["again"] or not folders):
        wnid = _training_wnid(archive, base)
        return f"{wnid}/{found['name']}{found['end']}", wnid
    if not folders:
        raise BadInput(f"{archive} has {base!r} in no folder or archive of a class, so it has no label; pack it anew")
    return member.name, folders[-1]


def _training_wnid(root: Path, name: str) -> str:
    found = _TRAINING_NAME.fullmatch(name)
    if not found or found["again"] not in (None, found["wnid"]):
        raise BadInput(
            f"{root} has {name}, whose name does not have one class as n01440764_10026.JPEG has; put it in the "
            "folder of its class, or take it away"
        )
    return found["wnid"]


def _flat_names(folder: Path) -> tuple[list[str], tuple[str, ...]]:
    """Return the names of the images in a folder itself, and of what else is there."""
    found = folder_contents(folder)
    return found.images, (*found.others, *(f"{name}/" for name in found.folders))


@dataclass(frozen=True, kw_only=True)
class ImageNetLayout(FolderLayout):
    """ImageNet as it is downloaded, and the files that have the classes of the evaluation images.

    Attributes:
        train: Where the archives of training images lie; the official one is an archive of archives, one per class.
        eval: Where those of the evaluation images lie, in no class folders.
        devkit: What the names of the development kit's archive and folder begin with.
        meta: File in the kit with the classes and their numbers.
        ground_truth: File in the kit with the number of the class of each evaluation image.
        list_folders: Folders beside the images in which others put lists of them.
    """

    train: tuple[str, ...] = ("ILSVRC2012_img_train.tar", "train_images_*.tar", "data/train_images_*.tar")
    eval: tuple[str, ...] = ("ILSVRC2012_img_val.tar", "val_images.tar", "data/val_images.tar")
    devkit: str = "ILSVRC2012_devkit_t12"
    meta: str = "meta.mat"
    ground_truth: str = "ILSVRC2012_validation_ground_truth.txt"
    list_folders: tuple[str, ...] = ("val", "caffe_ilsvrc12", "meta")

    def find(self, dataset: Dataset, folder: Path) -> Path | None:
        """Return `folder` if it has the images of any split: archives, class folders or a flat folder."""
        if _find_archives(folder, (*self.train, *self.eval)) or super().find(dataset, folder):
            return folder
        return folder if any(_flat_folder(dataset, split, folder) for split in SPLITS) else None

    def open(self, dataset: Dataset, split: Split, folder: Path) -> Listing | ImageArrays | None:
        """List the images in class folders, or else those in archives or in a flat folder."""
        if (root := split_folder(dataset, split, folder)) is not None:
            _check_unpacked(root)
            found = cached_class_folders(root, self.training_classes(dataset, folder))
            truth = None
            with suppress(BadInput):  # it need not be there, nor whole
                truth = GroundTruth.find(folder, self) if split == "eval" else None
            if truth:
                truth.check_listing(found)
            return found
        if split == "train":
            return self._list_training(dataset, folder)
        flat = _flat_folder(dataset, "eval", folder)
        paths = () if flat else _find_archives(folder, self.eval)
        if not flat and not paths:
            return None
        return _list_evaluation(flat, paths, GroundTruth.find(folder, self), self.training_classes(dataset, folder))

    def training_classes(self, dataset: Dataset, folder: Path) -> tuple[str, ...] | None:
        """Return the training images' classes in the order of their labels; None where there are none."""
        if (found := super().training_classes(dataset, folder)) is not None:
            return found
        listed = self._list_training(dataset, folder)
        return listed.classes if listed else None

    def published_classes(self, folder: Path) -> tuple[str, ...] | None:
        """Return the classes that the ground truth has, where it is in the folder."""
        truth = GroundTruth.find(folder, self)
        return truth.classes if truth else None

    def describe_missing(self, dataset: Dataset) -> str:
        """Return what a folder without this data set lacks, for an error."""
        return f"{super().describe_missing(dataset)} and no {self.train[0]}"

    def how_to_add(self, split: Split) -> str:
        """Return what else than class folders would make a split complete, for an error."""
        return f" or put {self.train[0]} there" if split == "train" else f", or put {self.devkit}.tar.gz beside them"

    def _list_training(self, dataset: Dataset, folder: Path) -> Listing | None:
        """List training images in archives, to be read in place, or in a flat folder, as class folders would list them.

        Raises:
            BadInput: If an archive is damaged, or it is not clear of which class an image is.
        """
        if paths := _find_archives(folder, self.train):
            found, left_out = list_archives(paths)
            images = [
                _NamedImage(*_class_and_name(paths[number], member), (number, *member[1:])) for number, member in found
            ]
            return _sorted_listing(paths[0], images, None, paths, left_out)
        if (flat := _flat_folder(dataset, "train", folder)) is None:
            return None
        names, left_out = _flat_names(flat)
        images = [_NamedImage(name, _training_wnid(flat, name)) for name in names]
        return _sorted_listing(flat, images, None, (), left_out)


def _flat_folder(dataset: Dataset, split: Split, folder: Path) -> Path | None:
    """Return the folder of a split's images that are in no class folders and whose names say what they are."""
    names = dataset.train_folders if split == "train" else dataset.eval_folders
    fits = _TRAINING_NAME.fullmatch if split == "train" else parse_evaluation_name
    for flat in (folder / name for name in names):
        if flat.is_dir() and any(fits(path.name) for path in flat.iterdir()):
            return flat
    return None


def _check_unpacked(root: Path) -> None:
    """Raise `BadInput` if a class's archive lies among the class folders and its own folder is not there."""
    if packed := next((path for path in sorted(root.glob("n[0-9]*.tar")) if not (root / path.stem).is_dir()), None):
        raise BadInput(
            f"{packed} is a class that was not unpacked; type: mkdir {shlex.quote(str(packed.with_suffix('')))} && "
            f"tar -xf {shlex.quote(str(packed))} -C {shlex.quote(str(packed.with_suffix('')))}"
        )
