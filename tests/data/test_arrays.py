import gzip
import pickle
import struct
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from sslticket.data.datasets.arrays import read_cifar, read_cifar_pickle, read_idx
from sslticket.data.datasets.base import SPLITS
from sslticket.data.source import open_split

Refused = Callable[..., AbstractContextManager[None]]

IMAGES = np.random.default_rng(0).integers(0, 256, (10, 32, 32, 3), np.uint8)
LABELS = [3, 8, 8, 0, 6, 6, 1, 6, 3, 1]


class _Python2(pickle._Pickler):
    """Writes byte strings and numpy's booleans as Python 2 and numpy 1 did when CIFAR was published."""

    dispatch: ClassVar = {
        **pickle._Pickler.dispatch,
        bytes: lambda self, value: self.write(b"T" + struct.pack("<i", len(value)) + value),  # type: ignore[attr-defined]
        bool: lambda self, value: self.write(b"K\x01" if value else b"K\x00"),  # type: ignore[attr-defined]
    }


def write_pickle(path: Path, content: object) -> None:
    with path.open("wb") as file:
        _Python2(file, protocol=2).dump(content)
    path.write_bytes(path.read_bytes().replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))


def write_cifar10(folder: Path) -> Path:
    """Ten images: two in each training file, and the first two again for evaluation."""
    folder.mkdir(parents=True)
    flat = IMAGES.transpose(0, 3, 1, 2).reshape(10, -1)
    for number in range(6):
        name = f"data_batch_{number + 1}" if number < 5 else "test_batch"
        part = slice(2 * (number % 5), 2 * (number % 5) + 2)
        write_pickle(folder / name, {b"data": flat[part], b"labels": LABELS[part]})
    names = [b"airplane", b"automobile", b"bird", b"cat", b"deer", b"dog", b"frog", b"horse", b"ship", b"truck"]
    write_pickle(folder / "batches.meta", {b"label_names": names})
    return folder


def write_idx(path: Path, values: np.ndarray) -> None:
    content = bytes((0, 0, 8, values.ndim)) + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def test_cifars_python_files_give_back_pixels_labels_and_names(tmp_path: Path) -> None:
    write_cifar10(tmp_path / "cifar-10-batches-py")
    train, held_out = open_split("cifar10", "train", tmp_path), open_split("cifar10", "eval", tmp_path)
    np.testing.assert_array_equal(train.images, IMAGES)
    np.testing.assert_array_equal(train.manifest.labels, LABELS)
    np.testing.assert_array_equal(held_out.images, IMAGES[:2])
    assert train.manifest.classes[8] == "ship"


def test_labels_that_are_none_are_named_with_their_image(tmp_path: Path, refused: Refused) -> None:
    folder = write_cifar10(tmp_path / "cifar-10-batches-py")
    flat = IMAGES[:2].transpose(0, 3, 1, 2).reshape(2, -1)
    cases = {
        "gives image 1 the label 10; labels are whole numbers from 0 to 9": [3, 10],
        "gives image 0 the label -1": [-1, 3],
        "gives image 1 the label 2.5": [3.0, 2.5],
        "gives image 0 the label nan": [float("nan"), 3.0],
        "has labels that are no numbers; it needs whole numbers to 9": [b"cat", b"dog"],
    }
    for words, labels in cases.items():
        write_pickle(folder / "data_batch_3", {b"data": flat, b"labels": labels})
        with refused(str(folder / "data_batch_3"), words, "download it again"):
            open_split("cifar10", "train", tmp_path)


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path, refused: Refused) -> None:
    class Malicious:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (tmp_path / "it ran",)

    (tmp_path / "data_batch_1").write_bytes(pickle.dumps({"data": Malicious()}))
    with refused(str(tmp_path / "data_batch_1"), "damaged or no CIFAR file"):
        read_cifar_pickle(tmp_path / "data_batch_1")
    assert not (tmp_path / "it ran").exists()


def test_truncated_and_foreign_cifar_files_are_named(tmp_path: Path, refused: Refused) -> None:
    folder = write_cifar10(tmp_path / "cifar-10-batches-py")
    one = folder / "data_batch_1"
    whole = one.read_bytes()
    for length in (0, 10, len(whole) // 2, len(whole) - 1):
        one.write_bytes(whole[:length])
        with refused(str(one)):
            read_cifar(folder, ["data_batch_1"], "labels", ("batches.meta", "label_names"))
    write_pickle(one, {b"data": IMAGES, b"labels": LABELS})
    with refused(str(one), "3072"):
        read_cifar(folder, ["data_batch_1"], "labels", ("batches.meta", "label_names"))
    one.unlink()
    with refused(str(one), "No such file", "download it again"):
        open_split("cifar10", "train", tmp_path)


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("folder", [".", "MNIST/raw"])
def test_idx_files_are_read_wherever_torchvision_or_the_reader_puts_them(
    tmp_path: Path, folder: str, suffix: str
) -> None:
    (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    images = IMAGES[:, :28, :28, 0]
    write_idx(tmp_path / folder / f"train-images-idx3-ubyte{suffix}", images)
    write_idx(tmp_path / folder / f"train-labels-idx1-ubyte{suffix}", np.array(LABELS, np.uint8))
    source = open_split("mnist", "train", tmp_path)
    np.testing.assert_array_equal(source.images, images[..., None])
    np.testing.assert_array_equal(source.manifest.labels, LABELS)


def test_damaged_idx_files_are_named(tmp_path: Path, refused: Refused) -> None:
    images, labels = tmp_path / "images.gz", tmp_path / "labels"
    write_idx(images, IMAGES[..., 0])
    write_idx(labels, np.array(LABELS, np.uint8))
    assert read_idx(images, labels, 10)[0].shape == (10, 32, 32, 1)
    with refused(str(labels), "gives image 1 the label 8; labels are whole numbers from 0 to 7"):
        read_idx(images, labels, 8)
    with refused(str(images), "no idx file of 1-dimensional bytes", "00 00 08 03"):
        read_idx(images, images, 10)
    write_idx(labels, np.array(LABELS[:9], np.uint8))
    with refused("10 images", "9 labels"):
        read_idx(images, labels, 10)
    labels.write_bytes(labels.read_bytes()[:-1])
    with refused(str(labels), "holds 8 bytes, not 9"):
        read_idx(images, labels, 10)
    images.write_bytes(images.read_bytes()[:500])
    with refused(str(images), "truncated or damaged"):
        read_idx(images, labels, 10)
    images.write_bytes(gzip.compress(b""))
    with refused(str(images), "is empty", "download it again"):
        read_idx(images, labels, 10)
    images.write_text("not gzip at all")
    with refused(str(images), "no idx file of 3-dimensional bytes"):
        read_idx(images, labels, 10)


def test_the_content_of_an_idx_file_tells_whether_it_is_gzipped_and_not_its_name(tmp_path: Path) -> None:
    write_idx(tmp_path / "i.gz", IMAGES[..., 0])
    write_idx(tmp_path / "i", IMAGES[..., 0])
    write_idx(tmp_path / "l", np.array(LABELS, np.uint8))
    (tmp_path / "i.gz").replace(tmp_path / "images")
    (tmp_path / "i").replace(tmp_path / "images.gz")
    for name in ("images", "images.gz"):
        np.testing.assert_array_equal(read_idx(tmp_path / name, tmp_path / "l", 10)[0], IMAGES[..., :1])


@pytest.mark.data
def test_fashion_mnist_is_whole(test_data: Path) -> None:
    for split, count in zip(SPLITS, (60_000, 10_000), strict=True):
        source = open_split("fashion_mnist", split, test_data / "fashion-mnist")
        assert source.images is not None
        assert source.images.shape == (count, 28, 28, 1)
        assert source.manifest.class_counts().tolist() == [count // 10] * 10
        if split == "train":
            pixels: np.ndarray = source.images / 255
            assert (round(pixels.mean(), 4), round(pixels.std(), 4)) == (*source.dataset.mean, *source.dataset.std)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("core", [b"numpy.core", b"numpy._core"])
def test_cifar_saved_anew_is_read_in_every_protocol_of_both_numpys(tmp_path: Path, protocol: int, core: bytes) -> None:
    folder = write_cifar10(tmp_path / "cifar-10-batches-py")
    for path in folder.iterdir():
        content = {key.encode(): value for key, value in read_cifar_pickle(path).items()}
        if b"labels" in content:
            content |= {b"labels": np.array(content[b"labels"]), b"note": b"", b"more": [np.int64(3), b"\xff"]}
            content[b"data"] = np.asfortranarray(content[b"data"]) if path.name == "data_batch_2" else content[b"data"]
        saved = pickle.dumps(content, protocol)
        # Later protocols write how long each name is, so there the name cannot be replaced.
        path.write_bytes(saved.replace(b"numpy._core", core) if protocol < 4 else saved)
    source = open_split("cifar10", "train", tmp_path)
    np.testing.assert_array_equal(source.images, IMAGES)
    assert source.manifest.labels.tolist() == LABELS


def test_a_pickle_cannot_ask_for_memory_that_its_file_does_not_fill(tmp_path: Path, refused: Refused) -> None:
    begun = np.empty(0).__reduce__()[0]

    class Large:
        def __reduce__(self) -> tuple[object, ...]:
            return begun, (np.ndarray, (1 << 40,), b"b")

    (tmp_path / "data_batch_1").write_bytes(pickle.dumps({"data": Large()}))
    with refused(str(tmp_path / "data_batch_1"), "begun as"):
        read_cifar_pickle(tmp_path / "data_batch_1")


def test_pickles_of_odd_values_are_named(tmp_path: Path, refused: Refused) -> None:
    folder = write_cifar10(tmp_path / "cifar-10-batches-py")
    flat = IMAGES[:2].transpose(0, 3, 1, 2).reshape(2, -1)
    for labels in ([[3], [8, 1]], np.array(3), [[3, 8]], {3: 8}, None):
        write_pickle(folder / "data_batch_1", {b"data": flat, b"labels": labels, b"\xff\xfe": 0})
        with refused(str(folder / "data_batch_1"), "no CIFAR file"):
            open_split("cifar10", "train", tmp_path)
    for names in ([], [1, 2], [["a"]], "abc"):
        write_pickle(folder / "batches.meta", {b"label_names": names})
        with refused(str(folder / "batches.meta"), "no CIFAR file", "download it again"):
            open_split("cifar10", "train", tmp_path)


def test_damaged_files_of_the_binary_version_are_named(tmp_path: Path, refused: Refused) -> None:
    names = tmp_path / "batches.meta.txt"
    names.write_text("\n".join("abcdefghij"))
    test = tmp_path / "test_batch.bin"
    for content, words in (
        (b"", "holds 0 bytes"),
        (bytes(3072), "3,072 bytes, which is no whole number of images of 3,073"),
        (bytes([10]) + bytes(3072), "gives image 0 the label 10"),
    ):
        test.write_bytes(content)
        with refused(str(test), words, "download it again"):
            open_split("cifar10", "eval", tmp_path)
    names.unlink()
    with refused(str(names), "No such file"):
        open_split("cifar10", "eval", tmp_path)


@pytest.mark.parametrize(
    ("content", "why"),
    {
        "an index of memory": (b"\x80\x02}r\xff\xff\xff\x7f.", ""),
        "bytes beyond the end": (b"\x80\x05\x96" + (2**40).to_bytes(8, "little") + b".", "damaged"),
        "a name that is deep": (b"\x80\x04N" + b"\x85" * 10**5 + b"\x8c\x01a\x93.", "a name that is no word"),
        "a key that is deep": (b"\x80\x04}N" + b"\x85" * 10**5 + b"Ns.", "a key that is a tuple"),
        "a class": (b"cos\nsystem\n.", "it asks for 'os.system'"),
        "no end": (b"\x80\x02}", "damaged"),
        "a list in a list": (b"\x80\x02}X\x01\0\0\0a]]as.", "a list within a list"),
    }.values(),
)
def test_forged_pickles_take_neither_memory_nor_the_process(
    tmp_path: Path, refused: Refused, content: bytes, why: str
) -> None:
    (tmp_path / "data_batch_1").write_bytes(content)
    if not why:
        assert read_cifar_pickle(tmp_path / "data_batch_1") == {}
        return
    with refused(str(tmp_path / "data_batch_1"), why, "download it again"):
        read_cifar_pickle(tmp_path / "data_batch_1")


def test_a_gzipped_file_is_not_unpacked_beyond_what_its_header_says(tmp_path: Path, refused: Refused) -> None:
    head = bytes((0, 0, 8, 3)) + struct.pack(">3I", 2, 2, 2)
    (tmp_path / "labels").write_bytes(bytes((0, 0, 8, 1)) + struct.pack(">I", 2) + bytes(2))
    (tmp_path / "images.gz").write_bytes(gzip.compress(head + bytes(10**8)))
    with refused("images.gz", "holds more than 8 bytes, not 2 x 2 x 2"):
        read_idx(tmp_path / "images.gz", tmp_path / "labels", 10)
    (tmp_path / "images.gz").write_bytes(gzip.compress(head[:4] + bytes([255] * 12)))
    with refused("images.gz", "4294967295 x 4294967295 x 4294967295"):
        read_idx(tmp_path / "images.gz", tmp_path / "labels", 10)
