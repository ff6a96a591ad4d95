"""MNIST and Fashion-MNIST in forms other than idx: Keras's mnist.npz, and tables of comma-separated pixels."""

import io
import math
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd

from sslticket.data.arrays import checked_labels
from sslticket.data.dataset import Split
from sslticket.errors import BadInput, one_line

_SIDE = 28
_LABELS = ("label", "class")
_HEADING = 1 << 16  # bytes of the first line
_LARGEST = 1 << 28  # bytes of an array; MNIST's largest has 47 MB


def read_npz(path: Path, split: Split, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels from the file that Keras downloads, with the arrays x_train, y_train, x_test and y_test.

    Returns:
        (N, 28, 28, 1) uint8 and (N,) int64.

    Raises:
        BadInput: if the file is damaged or another one.
    """
    end = "train" if split == "train" else "test"
    try:
        with zipfile.ZipFile(path) as archive:
            images, labels = (_npy(archive, f"{letter}_{end}.npy") for letter in "xy")
    except Exception as error:  # a damaged file can raise nearly anything
        raise BadInput(f"{path} is damaged or no mnist.npz of Keras ({one_line(error)}); download it again") from error
    if images.dtype != np.uint8 or images.shape != (*labels.shape, _SIDE, _SIDE):
        raise BadInput(f"{path} is no mnist.npz of Keras: it needs N x 28 x 28 bytes and N labels; download it again")
    return images[..., None], checked_labels(path, labels, 0, classes - 1)


def read_csv(path: Path, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels from a table as Kaggle has it: a line for each image, its label and then its 784 pixels.

    The column of the labels is the first, or that which a heading calls so.

    Returns:
        (N, 28, 28, 1) uint8 and (N,) int64.

    Raises:
        BadInput: if the file is cut short, damaged or another one.
    """
    try:
        with path.open(encoding="utf-8") as file:
            columns = [name.strip().strip('"') for name in file.readline(_HEADING).split(",")]
        heading = not columns[0].isdigit()
        table = pd.read_csv(path, header=None, skiprows=int(heading), dtype=np.uint8).to_numpy()
    except Exception as error:  # a damaged file can raise nearly anything
        raise BadInput(f"{path} is damaged or no table of images ({one_line(error)}); download it again") from error
    if table.shape[1] != 1 + _SIDE * _SIDE:
        raise BadInput(f"{path} has {table.shape[1]} columns, not a label and 784 pixels; download it again")
    # Where there is a heading, it tells which column the labels are, and not its place.
    found = [place for place, name in enumerate(columns) if name.lower() in _LABELS] if heading else [0]
    if len(found) != 1:
        raise BadInput(f"{path} has {len(found)} columns that its heading calls {' or '.join(_LABELS)}, not one")
    labels, pixels = table[:, found[0]], np.delete(table, found[0], axis=1)
    return pixels.reshape(-1, _SIDE, _SIDE, 1), checked_labels(path, labels, 0, classes - 1)


def _npy(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """An array of plain numbers, of which no more is believed than the archive holds."""
    if archive.getinfo(name).file_size > _LARGEST:
        raise ValueError(f"{name} says that it has {archive.getinfo(name).file_size:,} bytes")
    content = archive.read(name)
    file = io.BytesIO(content)
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError(f"{name} is of an unknown version")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    if dtype.kind not in "iu" or math.prod(shape) * dtype.itemsize != len(content) - file.tell():
        raise ValueError(f"{name} does not hold the numbers that it says")
    return np.frombuffer(content, dtype, offset=file.tell()).reshape(shape, order="F" if fortran else "C")
