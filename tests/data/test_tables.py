"""Keras's and Kaggle's files of digits are read for what they hold, and damaged ones named."""

import io
import zipfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sslticket.data.source import open_split

Refused = Callable[..., AbstractContextManager[None]]

IMAGES = np.random.default_rng(0).integers(0, 256, (4, 28, 28), np.uint8)


def write_npz(path: Path, **arrays: Any) -> None:
    known: dict[str, Any] = {"x_train": IMAGES, "y_train": np.array([3, 1, 4, 1], np.uint8)}
    np.savez(path, **(known | arrays))


def test_an_npz_of_other_arrays_is_refused(tmp_path: Path, refused: Refused) -> None:
    path = tmp_path / "mnist.npz"
    write_npz(path)
    assert open_split("mnist", "train", tmp_path).manifest.labels.tolist() == [3, 1, 4, 1]
    for arrays, words in (
        ({"y_train": np.array([3, 1, 4, 10])}, "gives image 3 the label 10"),
        ({"y_train": np.array([3, 1, 4])}, "N x 28 x 28 bytes and N labels"),
        ({"x_train": IMAGES / 255}, "does not hold the numbers that it says"),
        ({"x_train": IMAGES.astype(object)}, "does not hold the numbers that it says"),
    ):
        write_npz(path, **arrays)
        with refused(str(path), words, "download it again"):
            open_split("mnist", "train", tmp_path)
    whole = path.read_bytes()
    for content in (b"", whole[:100], whole[: len(whole) // 2], b"PK" + whole[2:50]):
        path.write_bytes(content)
        with refused(str(path), "download it again"):
            open_split("mnist", "train", tmp_path)


def test_an_npz_cannot_ask_for_memory_that_it_does_not_fill(tmp_path: Path, refused: Refused) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (1 << 40, 28, 28)})
    with zipfile.ZipFile(tmp_path / "mnist.npz", "w") as archive:
        archive.writestr("x_train.npy", header.getvalue())
        archive.writestr("y_train.npy", header.getvalue())
    with refused(str(tmp_path / "mnist.npz"), "does not hold the numbers"):
        open_split("mnist", "train", tmp_path)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("heading", [True, False])
def test_a_table_may_have_a_heading(tmp_path: Path, heading: bool, end: str) -> None:
    lines = [",".join(map(str, [label, *image.ravel()])) for label, image in zip([3, 1], IMAGES, strict=False)]
    lines = [",".join(["label", *(f"pixel{number}" for number in range(784))])] * heading + lines
    (tmp_path / "mnist_test.csv").write_bytes((end.join(lines) + end).encode())
    source = open_split("mnist", "eval", tmp_path)
    assert source.images is not None
    np.testing.assert_array_equal(source.images[..., 0], IMAGES[:2])
    assert source.manifest.labels.tolist() == [3, 1]


@pytest.mark.parametrize("place", [0, 5, 784])
def test_the_heading_tells_which_column_the_labels_are(tmp_path: Path, refused: Refused, place: int) -> None:
    lines = [[f"pixel{number}" for number in range(784)], *(list(map(str, image.ravel())) for image in IMAGES[:2])]
    for line, label in zip(lines, ("Label", "3", "1"), strict=True):
        line.insert(place, label)
    path = tmp_path / "mnist_test.csv"
    path.write_text("\n".join(map(",".join, lines)))
    source = open_split("mnist", "eval", tmp_path)
    assert source.images is not None
    np.testing.assert_array_equal(source.images[..., 0], IMAGES[:2])
    assert source.manifest.labels.tolist() == [3, 1]
    path.write_text(path.read_text().replace("Label", "digit"))
    with refused(str(path), "has 0 columns that its heading calls label or class"):
        open_split("mnist", "eval", tmp_path)


def test_damaged_tables_of_pixels_are_named(tmp_path: Path, refused: Refused) -> None:
    path = tmp_path / "mnist_train.csv"
    row = ["3", *["7"] * 784]
    for text, words in (
        ("", "no table of images"),
        (",".join(row[:-1]), "784 columns"),
        (",".join(row) + "\n3,7", "damaged"),
        (",".join(["3", "256", *row[2:]]), "damaged"),
        (",".join(["3", "-1", *row[2:]]), "damaged"),
        (",".join(["3", "0.5", *row[2:]]), "damaged"),
        (",".join(["11", *row[1:]]), "label 11"),
    ):
        path.write_text(text)
        with refused(str(path), words, "download it again"):
            open_split("mnist", "train", tmp_path)
