"""Readers of the formats in which small image sets are published.

CIFAR's python and binary files, MNIST's idx files, its mnist.npz of Keras and its tables of comma-separated pixels, and
SVHN's MATLAB files.
"""

import gzip
import io
import math
import struct
import zipfile
import zlib
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np

from sslticket.data.datasets import DATASETS, binary_formats
from sslticket.data.datasets.base import Dataset, ImageArrays, Layout, Listing, Split
from sslticket.data.datasets.folders import FolderLayout
from sslticket.errors import BadInput, one_line
from sslticket.storage.files import open_regular, read_bytes

MADE_UP = "made-up"
"""Name of the data set of made-up images."""
# MNIST's images shrink to a fifth. Small files may hold what they like.
_MAX_RATIO, _SMALL_SIZE = 100, 1 << 26
_LARGEST_FILE = 1 << 33  # bytes of a file that is kept whole; the largest published one, SVHN's extra images, has 1.3e9


def read_cifar_pickle(path: Path) -> dict[str, object]:
    """Return the dictionary in one of CIFAR's python files, its byte strings decoded; no code of the file is run.

    Raises:
        BadInput: If the file cannot be read, is damaged, or holds anything but arrays and plain values.
    """
    return binary_formats.read_pickle(_read_file(path), path)


def read_cifar(
    folder: Path, files: Sequence[str], label_key: str, names: tuple[str, str]
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Read images, labels and class names from CIFAR's python files (Krizhevsky 2009).

    Args:
        folder: Folder of the files.
        files: Names of the split's files, in order.
        label_key: Key of the labels, "labels" or "fine_labels".
        names: File with the class names, and its key.

    Returns:
        (N, 32, 32, 3) uint8, (N,) int64, and the class names.

    Raises:
        BadInput: Naming the file, if one is missing or damaged.
    """
    meta = read_cifar_pickle(folder / names[0]).get(names[1])
    if not isinstance(meta, list) or not meta or not all(isinstance(name, bytes | str) for name in meta):
        raise BadInput(f"{folder / names[0]} is no CIFAR file: it has no list {names[1]!r} of names; download it again")
    classes = tuple(name.decode("utf-8", "replace") if isinstance(name, bytes) else name for name in meta)
    parts = [_read_cifar_file(folder / file, label_key, len(classes)) for file in files]
    images, labels = (np.concatenate(column) for column in zip(*parts, strict=True))
    return images, labels, classes


def _read_cifar_file(path: Path, label_key: str, classes: int) -> tuple[np.ndarray, np.ndarray]:
    content = read_cifar_pickle(path)
    data, labels = content.get("data"), content.get(label_key)
    # Not of words: the longest would decide on the memory of each.
    plain = isinstance(labels, list) and all(isinstance(label, (int, float)) for label in labels)
    if isinstance(labels, list) and not plain:
        raise BadInput(
            f"{path} has labels that are no numbers; it needs whole numbers to {classes - 1}; download it again"
        )
    numbers = np.array(labels if plain or isinstance(labels, np.ndarray) else [])
    pixels, count = (data, len(numbers)) if numbers.ndim == 1 else (None, 0)
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape != (count, 3 * 32 * 32):
        raise BadInput(f"{path} is no CIFAR file: it needs 'data' of N x 3072 bytes and N {label_key!r}")
    return pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), check_labels(path, numbers, 0, classes - 1)


def read_cifar_binary(folder: Path, files: Sequence[str], names: str) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Read images, labels and class names from CIFAR's "binary version" (its home page).

    A record is one byte with the label, or in CIFAR-100 two of which the second is the fine label, and 3,072 bytes of
    pixels. The number of classes tells which.

    Args:
        folder: Folder of the files.
        files: Names of the split's files, in order.
        names: File with the class names, one a line.

    Returns:
        (N, 32, 32, 3) uint8, (N,) int64, and the class names.

    Raises:
        BadInput: Naming the file, if one is missing, cut short or damaged.
    """
    classes = tuple(_read_file(folder / names).decode("utf-8", "replace").split())
    if not classes:
        raise BadInput(f"{folder / names} is empty; it needs the classes' names, one a line: download it again")
    first = 2 if len(classes) == 100 else 1
    images, labels = [], []
    for path in (folder / file for file in files):
        content = np.frombuffer(_read_file(path), np.uint8)
        if content.size == 0 or content.size % (first + 3072):
            raise BadInput(
                f"{path} holds {content.size:,} bytes, which is no whole number of images of {first + 3072:,}; "
                "download it again"
            )
        records = content.reshape(-1, first + 3072)
        images.append(records[:, first:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
        labels.append(check_labels(path, records[:, first - 1], 0, len(classes) - 1))
    return np.concatenate(images), np.concatenate(labels), classes


def read_idx(images: Path, labels: Path, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Read images and labels from a pair of idx files, gzipped or not (LeCun et al., the MNIST page).

    Returns:
        (N, H, W, 1) uint8 and (N,) int64.

    Raises:
        BadInput: Naming the file, if one is missing, truncated or not what its header says.
    """
    pixels, numbers = _read_idx_array(images, 3), _read_idx_array(labels, 1)
    if len(pixels) != len(numbers):
        raise BadInput(f"{images} has {len(pixels)} images but {labels} has {len(numbers)} labels; download them again")
    return pixels[..., None], check_labels(labels, numbers, 0, classes - 1)


def _read_idx_array(path: Path, dimensions: int) -> np.ndarray:
    start = 4 + 4 * dimensions
    magic = bytes((0, 0, 8, dimensions))  # 8 says unsigned bytes
    try:
        with open_regular(path) as (file, size):
            # Its content says whether it is gzipped: browsers unpack and leave the name, or rename and do not unpack.
            packed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            stream = gzip.GzipFile(fileobj=file) if packed else file
            head = stream.read(start)
            if len(head) < start or head[:4] != magic:
                found = f"it starts {head[:4].hex(' ')}" if head else "it is empty"
                raise BadInput(f"{path} is no idx file of {dimensions}-dimensional bytes: {found}; download it again")
            shape = struct.unpack(f">{dimensions}I", head[4:])
            count = math.prod(shape)
            # No more is unpacked than there should be, nor than images shrink to so many bytes.
            most = max(_SMALL_SIZE, _MAX_RATIO * size) if stream is not file else size
            content = stream.read(count + 1) if count <= min(_LARGEST_FILE, most) else b""
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise BadInput(f"{path} is truncated or damaged ({one_line(error)}); download it again") from error
    except OSError as error:
        raise _read_error(path, error) from error
    if len(content) != count:
        sizes = " x ".join(map(str, shape))
        held = f"more than {count}" if len(content) > count else len(content) or "other"
        raise BadInput(f"{path} holds {held} bytes, not {sizes} as it says; download it again")
    return np.frombuffer(content, np.uint8).reshape(shape)


def read_svhn(paths: Sequence[Path]) -> tuple[np.ndarray, np.ndarray]:
    """Read images and labels from SVHN's MATLAB files of cropped digits, which call the digit 0 class 10.

    Returns:
        (N, 32, 32, 3) uint8 and (N,) int64 from 0 to 9, the files' images one after the other.

    Raises:
        BadInput: Naming the file, if one is missing, truncated or no such file.
    """
    images, labels = [], []
    for path in paths:
        content = binary_formats.read_mat(_read_file(path), ("X", "y"), path)
        pixels, numbers = content.get("X", 0), content.get("y", 0)
        whole = isinstance(pixels, np.ndarray) and isinstance(numbers, np.ndarray)
        if not whole or pixels.dtype != np.uint8 or pixels.shape != (32, 32, 3, numbers.size):
            raise BadInput(
                f"{path} is no SVHN file: it needs X of 32 x 32 x 3 x N bytes and N labels y; download it again"
            )
        images.append(pixels.transpose(3, 0, 1, 2))
        labels.append(check_labels(path, numbers.ravel(), 1, 10) % 10)
    return np.concatenate(images), np.concatenate(labels)


def check_labels(path: Path, labels: np.ndarray, first: int, last: int) -> np.ndarray:
    """Return the labels as int64, (N,).

    Raises:
        BadInput: If there are none, or one is no whole number from `first` to `last`.
    """
    if labels.size == 0 or labels.dtype.kind not in "iuf":
        found = f"labels of the type {labels.dtype}" if labels.size else "no labels"
        raise BadInput(f"{path} has {found}; it needs whole numbers from {first} to {last}; download it again")
    wrong = np.flatnonzero(~((labels >= first) & (labels <= last) & (labels % 1 == 0)))
    if wrong.size:
        image = int(wrong[0])
        raise BadInput(
            f"{path} gives image {image} the label {labels[image]}; labels are whole numbers from {first} to {last}; "
            "download it again"
        )
    return labels.astype(np.int64)


def _read_file(path: Path) -> bytes:
    try:
        return read_bytes(path, _LARGEST_FILE)
    except OSError as error:
        raise _read_error(path, error) from error


def _read_error(path: Path, error: OSError) -> BadInput:
    fix = "download it again" if isinstance(error, FileNotFoundError) else "make it readable"
    return BadInput(f"cannot read {path}: {error.strerror}; {fix}")


_MNIST_SIDE = 28
_LABEL_HEADINGS = ("label", "class")
_LONGEST_HEADING = 1 << 16  # bytes of the first line
_LARGEST_NPY = 1 << 28  # bytes of an array; MNIST's largest has 47 MB


def read_mnist_npz(path: Path, split: Split, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Read images and labels from the file that Keras downloads, with the arrays x_train, y_train, x_test and y_test.

    Returns:
        (N, 28, 28, 1) uint8 and (N,) int64.

    Raises:
        BadInput: If the file is damaged or another one.
    """
    end = "train" if split == "train" else "test"
    try:
        with zipfile.ZipFile(path) as archive:
            images, labels = (_read_npy(archive, f"{letter}_{end}.npy") for letter in "xy")
    except Exception as error:  # a damaged file can raise nearly anything
        raise BadInput(f"{path} is damaged or no mnist.npz of Keras ({one_line(error)}); download it again") from error
    if images.dtype != np.uint8 or images.shape != (*labels.shape, _MNIST_SIDE, _MNIST_SIDE):
        raise BadInput(f"{path} is no mnist.npz of Keras: it needs N x 28 x 28 bytes and N labels; download it again")
    return images[..., None], check_labels(path, labels, 0, classes - 1)


def read_mnist_csv(path: Path, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Read images and labels from a table as Kaggle has it: a line for each image, its label and then its 784 pixels.

    The column of the labels is the first, or that which a heading calls so.

    Returns:
        (N, 28, 28, 1) uint8 and (N,) int64.

    Raises:
        BadInput: If the file is cut short, damaged or another one.
    """
    import pandas as pd  # here, so that the catalogue, which needs this file, starts without it

    try:
        with path.open(encoding="utf-8") as file:
            columns = [name.strip().strip('"') for name in file.readline(_LONGEST_HEADING).split(",")]
        heading = not columns[0].isdigit()
        table = pd.read_csv(path, header=None, skiprows=int(heading), dtype=np.uint8).to_numpy()
    except Exception as error:  # a damaged file can raise nearly anything
        raise BadInput(f"{path} is damaged or no table of images ({one_line(error)}); download it again") from error
    if table.shape[1] != 1 + _MNIST_SIDE * _MNIST_SIDE:
        raise BadInput(f"{path} has {table.shape[1]} columns, not a label and 784 pixels; download it again")
    # Where there is a heading, it names the column of the labels, whichever that is.
    found = [column for column, name in enumerate(columns) if name.lower() in _LABEL_HEADINGS] if heading else [0]
    if len(found) != 1:
        raise BadInput(
            f"{path} has {len(found)} columns that its heading calls {' or '.join(_LABEL_HEADINGS)}, not one"
        )
    labels, pixels = table[:, found[0]], np.delete(table, found[0], axis=1)
    return pixels.reshape(-1, _MNIST_SIDE, _MNIST_SIDE, 1), check_labels(path, labels, 0, classes - 1)


def _read_npy(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """An array of plain numbers, of which no more is believed than the archive holds."""
    if archive.getinfo(name).file_size > _LARGEST_NPY:
        raise ValueError(f"{name} says that it has {archive.getinfo(name).file_size:,} bytes")
    content = archive.read(name)
    file = io.BytesIO(content)
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError(f"{name} is of an unknown version")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    if dtype.kind not in "iu" or math.prod(shape) * dtype.itemsize != len(content) - file.tell():
        raise ValueError(f"{name} does not hold the numbers that it says")
    return np.frombuffer(content, dtype, offset=file.tell()).reshape(shape, order="F" if fortran else "C")


@dataclass(frozen=True, kw_only=True)
class ArrayLayout(FolderLayout):
    """Files that hold a whole split each; or else the images in class folders.

    Attributes:
        folders: Folders that the files may lie in.
        train: Files of the training split.
        eval: Files of the evaluation split.
    """

    folders: tuple[str, ...] = (".",)
    train: tuple[str, ...]
    eval: tuple[str, ...]

    @abstractmethod
    def read(self, dataset: Dataset, split: Split, folder: Path) -> ImageArrays:
        """Read a split's files in a folder.

        Raises:
            BadInput: Naming the file, if one is missing or damaged.
        """

    def files(self) -> tuple[str, ...]:
        """Return the names of files of which any shows that the data set is there."""
        return (*self.train, *self.eval)

    def find(self, dataset: Dataset, folder: Path) -> Path | None:
        """Return the first of `folders` that has one of the files; or `folder`, if it has class folders."""
        # CIFAR-100 has files called train and test, like the folders that small images may lie in.
        homes = (folder / name for name in self.folders)
        return next((home for home in homes if self._holds(home)), None) or super().find(dataset, folder)

    def open(self, dataset: Dataset, split: Split, folder: Path) -> Listing | ImageArrays | None:
        """Read a split's files, or list the images in its class folders where none of the files is there."""
        return self.read(dataset, split, folder) if self._holds(folder) else super().open(dataset, split, folder)

    def _holds(self, folder: Path) -> bool:
        return any((folder / name).is_file() for name in self.files())


@dataclass(frozen=True, kw_only=True)
class CifarLayout(ArrayLayout):
    """CIFAR's python files (Krizhevsky 2009), or those of its "binary version", which are called alike.

    Attributes:
        labels: Key of the labels.
        names: File with the class names, and its key.
        binary_names: File with the class names in the binary version.
    """

    labels: str
    names: tuple[str, str]
    binary_names: str

    def files(self) -> tuple[str, ...]:
        """Return the names of files of which any shows that the data set is there."""
        return tuple(name + end for name in (*self.train, *self.eval) for end in ("", ".bin"))

    def read(self, dataset: Dataset, split: Split, folder: Path) -> ImageArrays:
        """Read a split's python files, or its binary ones where only those are there."""
        files = self.train if split == "train" else self.eval
        if any((folder / file).is_file() for file in files) or not (folder / f"{files[0]}.bin").is_file():
            return ImageArrays(*read_cifar(folder, files, self.labels, self.names))
        return ImageArrays(*read_cifar_binary(folder, [f"{file}.bin" for file in files], self.binary_names))


@dataclass(frozen=True, kw_only=True)
class IdxLayout(ArrayLayout):
    """MNIST's idx files, of images and of labels, and other forms of the same arrays.

    Attributes:
        tables: Table of comma-separated pixels for each split.
        npz: Keras's file of both splits, where it has one.
    """

    train: tuple[str, ...] = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")
    eval: tuple[str, ...] = ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
    tables: tuple[str, str]
    npz: str | None = None

    def files(self) -> tuple[str, ...]:
        """Return the names of files of which any shows that the data set is there."""
        idx = tuple(spelled for name in (*self.train, *self.eval) for spelled in _idx_spellings(name))
        return (*idx, *self.tables, *filter(None, [self.npz]))

    def read(self, dataset: Dataset, split: Split, folder: Path) -> ImageArrays:
        """Read a split's idx files, or else its table, or else its arrays in Keras's file."""
        classes = len(dataset.class_names)
        files = self.train if split == "train" else self.eval
        spelled = [[path for name in _idx_spellings(file) if (path := folder / name).is_file()] for file in files]
        table = folder / self.tables[split == "eval"]
        if not any(spelled) and table.is_file():
            return ImageArrays(*read_mnist_csv(table, classes), dataset.class_names)
        if not any(spelled) and self.npz and (folder / self.npz).is_file():
            return ImageArrays(*read_mnist_npz(folder / self.npz, split, classes), dataset.class_names)
        images, labels = (found[0] if found else folder / file for found, file in zip(spelled, files, strict=True))
        return ImageArrays(*read_idx(images, labels, classes), dataset.class_names)


def _idx_spellings(name: str) -> tuple[str, ...]:
    """Return what an idx file may be called; some programs unpack it as "train-images.idx3-ubyte"."""
    dotted = name.replace("-idx", ".idx")
    return name, f"{name}.gz", dotted, f"{dotted}.gz"


@dataclass(frozen=True, kw_only=True)
class SvhnLayout(ArrayLayout):
    """SVHN's MATLAB files of cropped digits (Netzer et al. 2011)."""

    train: tuple[str, ...] = ("train_32x32.mat",)
    eval: tuple[str, ...] = ("test_32x32.mat",)

    def read(self, dataset: Dataset, split: Split, folder: Path) -> ImageArrays:
        """Read a split's files, one after the other."""
        files = self.train if split == "train" else self.eval
        return ImageArrays(*read_svhn([folder / file for file in files]), dataset.class_names)


@dataclass(frozen=True, kw_only=True)
class DigitsLayout(Layout):
    """The digits inside scikit-learn, which are one set without a split of their own."""

    package: ClassVar[str] = "scikit-learn"

    def find(self, dataset: Dataset, folder: Path) -> Path | None:
        """Return `folder`: the images are in the package, wherever that is."""
        return folder

    def open(self, dataset: Dataset, split: Split, folder: Path) -> Listing | ImageArrays | None:
        """Read all images as training images, pixels of 0 to 16 spread over 0 to 255."""
        if split == "eval":
            return None
        from sklearn.datasets import load_digits

        digits = load_digits()
        # 255 / 16 is no whole number: halves are rounded up.
        images = np.floor(digits.images * 255 / 16 + 0.5).astype(np.uint8)[..., None]
        return ImageArrays(images, digits.target.astype(np.int64), dataset.class_names)


@dataclass(frozen=True, kw_only=True)
class MadeUpLayout(Layout):
    """Images of noise with labels in turn, which lie nowhere: they cost a network what real ones of their size do.

    Attributes:
        side: Side in pixels.
        counts: Numbers of training and of evaluation images.
    """

    package: ClassVar[str] = "sslticket"

    side: int
    counts: tuple[int, int]

    def find(self, dataset: Dataset, folder: Path) -> Path | None:
        """Return `folder`: there are no files."""
        return folder

    def open(self, dataset: Dataset, split: Split, folder: Path) -> Listing | ImageArrays | None:
        """Make up the images of a split."""
        count, classes = self.counts[0 if split == "train" else 1], dataset.classes or 1
        shape = (count, self.side, self.side, dataset.channels)
        images = np.random.default_rng(count).integers(0, 256, shape, np.uint8)
        names = tuple(str(number) for number in range(classes))
        return ImageArrays(images, np.arange(count) % classes, names) if count else None


def register_made_up_dataset(like: Dataset, classes: int, train: int, evaluation: int) -> Dataset:
    """Register a data set of made-up images that is looked for by its name as any other, for measurements of speed.

    Args:
        like: Data set whose images' size, channels, views and normalisation it has.
        classes: Number of classes.
        train: Number of training images; at least one a class.
        evaluation: Number of evaluation images; 0 for none.
    """
    side = like.eval_view.resize or like.eval_view.size
    entry = replace(
        like,
        name=MADE_UP,
        classes=classes,
        kind="arrays",
        image_counts=None,
        class_counts=(),
        class_range=None,
        layout=MadeUpLayout(side=side, counts=(max(train, classes), evaluation)),
        class_names=(),
        train_fraction=None,
        torchvision=None,
        system_folder=None,
    )
    return DATASETS.register(MADE_UP)(entry)
