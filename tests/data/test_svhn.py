"""SVHN's MATLAB files, written here with scikit-learn's digits at four times their size."""

import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from scipy.io import savemat
from sklearn.datasets import load_digits

from sslticket.data.source import open_split

Refused = Callable[..., AbstractContextManager[None]]

DIGITS = load_digits()
IMAGES = np.repeat(np.kron(DIGITS.images[:60] * 15, np.ones((4, 4))).astype(np.uint8)[..., None], 3, axis=3)
LABELS = DIGITS.target[:60]


def write_svhn(path: Path, part: slice, labels: np.ndarray | None = None) -> None:
    """As published: images last, labels from 1 to 10 in a column."""
    numbers = np.where(LABELS[part] == 0, 10, LABELS[part]) if labels is None else labels
    content = {"X": IMAGES[part].transpose(1, 2, 3, 0), "y": numbers.astype(np.uint8)[:, None]}
    savemat(path, content, do_compression=True)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_svhn(tmp_path / "train_32x32.mat", slice(0, 20))
    write_svhn(tmp_path / "extra_32x32.mat", slice(20, 50))
    write_svhn(tmp_path / "test_32x32.mat", slice(50, 60))
    return tmp_path


def test_pixels_and_digits_come_back_and_ten_is_nought(root: Path) -> None:
    train, held_out = open_split("svhn", "train", root), open_split("svhn", "eval", root)
    np.testing.assert_array_equal(train.images, IMAGES[:20])
    np.testing.assert_array_equal(train.manifest.labels, LABELS[:20])
    assert 0 in train.manifest.labels
    np.testing.assert_array_equal(held_out.images, IMAGES[50:])
    assert train.manifest.classes == tuple("0123456789")


def test_the_extra_images_follow_the_training_ones(root: Path) -> None:
    source = open_split("svhn_extra", "train", root)
    np.testing.assert_array_equal(source.images, IMAGES[:50])
    np.testing.assert_array_equal(source.manifest.labels, LABELS[:50])
    assert len(open_split("svhn_extra", "eval", root).manifest) == 10


def test_a_missing_part_is_named(root: Path, refused: Refused) -> None:
    (root / "extra_32x32.mat").unlink()
    assert len(open_split("svhn", "train", root).manifest) == 20
    with refused(str(root / "extra_32x32.mat"), "No such file"):
        open_split("svhn_extra", "train", root)


class Published:
    """Stands in for torchvision's class, which downloads one split a call."""

    files: ClassVar[dict[str, Path]] = {}

    def __init__(self, root: Path, split: str, download: bool) -> None:
        assert download
        Path(root).mkdir(exist_ok=True)
        if split not in self.files:
            raise OSError("connection lost")
        shutil.copy(self.files[split], root)


def test_a_download_fetches_every_part_or_leaves_nothing(
    root: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, refused: Refused
) -> None:
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("SSLTICKET_DATA", str(home))
    monkeypatch.setattr("torchvision.datasets.SVHN", Published)
    monkeypatch.setattr(Published, "files", {"train": root / "train_32x32.mat", "extra": root / "extra_32x32.mat"})
    with refused("the download to", "connection lost"):
        open_split("svhn_extra", "train")
    assert list(home.iterdir()) == []
    monkeypatch.setitem(Published.files, "test", root / "test_32x32.mat")
    assert len(open_split("svhn_extra", "train").manifest) == 50
    assert sorted(path.name for path in (home / "svhn_extra").iterdir()) == [
        *("extra_32x32.mat", "test_32x32.mat", "train_32x32.mat")
    ]


def test_truncated_and_foreign_files_are_named(root: Path, refused: Refused) -> None:
    path = root / "train_32x32.mat"
    whole = path.read_bytes()
    for length in (0, 100, 128, 200, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with refused(str(path), "download it again"):
            open_split("svhn", "train", root)
    savemat(path, {"X": IMAGES[:5], "y": LABELS[:5]})
    with refused(str(path), "32 x 32 x 3 x N"):
        open_split("svhn", "train", root)


@pytest.mark.parametrize("wrong", [0, 11])
def test_labels_out_of_range_are_refused(root: Path, refused: Refused, wrong: int) -> None:
    write_svhn(root / "train_32x32.mat", slice(0, 3), np.array([1, wrong, 10]))
    with refused(str(root / "train_32x32.mat"), "labels are whole numbers from 1 to 10"):
        open_split("svhn", "train", root)
