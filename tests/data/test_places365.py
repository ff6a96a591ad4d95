"""Places365 as its lists of files describe it, and as class folders."""

import os
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from sslticket.data.source import open_split

Refused = Callable[..., AbstractContextManager[None]]

CLASSES = ["/a/airfield", "/b/bar", "/a/apartment_building/outdoor"]
TRAIN = ["/a/airfield/00000001.jpg 0", "/a/apartment_building/outdoor/00000007.jpg 2", "/b/bar/00000001.jpg 1"]
VAL = ["Places365_val_00000001.jpg 1", "Places365_val_00000002.jpg 0"]


def write_lists(root: Path) -> None:
    numbered = [f"{name} {number}" for number, name in enumerate(CLASSES)]
    for name, lines in (
        ("categories_places365.txt", numbered),
        ("places365_train_standard.txt", TRAIN),
        ("places365_val.txt", VAL),
    ):
        (root / name).write_text("\n".join(lines) + "\n")


@pytest.fixture
def root(few_photographs: Path, tmp_path: Path) -> Path:
    """Five photographs in the folders of both sizes, with the lists beside them."""
    write_lists(tmp_path)
    photographs = sorted((few_photographs / "train").glob("*/*"))
    for train, val in (("data_large_standard", "val_large"), ("data_256_standard", "val_256")):
        names = [f"{train}/{line.split()[0]}" for line in TRAIN] + [f"{val}/{line.split()[0]}" for line in VAL]
        for name, photograph in zip(names, photographs, strict=False):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(photograph, tmp_path / name)
    return tmp_path


@pytest.mark.data
@pytest.mark.parametrize(("name", "folder"), [("places365", "large"), ("places365_small", "256")])
def test_lists_tell_files_classes_and_labels(root: Path, name: str, folder: str) -> None:
    train, held_out = (open_split(name, split, root).manifest for split in ("train", "eval"))
    assert train.classes == held_out.classes == ("airfield", "bar", "apartment_building-outdoor")
    assert train.labels.tolist() == [0, 2, 1]
    assert held_out.labels.tolist() == [1, 0]
    assert train.image_path(2) == root / f"data_{folder}_standard/b/bar/00000001.jpg"
    assert held_out.image_path(1) == root / f"val_{folder}/Places365_val_00000002.jpg"
    assert all(part.image_path(row).is_file() for part in (train, held_out) for row in range(len(part)))


@pytest.mark.data
def test_class_folders_and_lists_number_the_classes_alike(root: Path, refused: Refused) -> None:
    for number, name in enumerate(("bar", "airfield", "apartment_building-outdoor")):
        (root / "train" / name).mkdir(parents=True)
        shutil.copy(root / "val_large/Places365_val_00000001.jpg", root / f"train/{name}/{number}.jpg")
    train, held_out = (open_split("places365", split, root).manifest for split in ("train", "eval"))
    assert train.classes == held_out.classes
    assert held_out.labels.tolist() == [2, 0]
    (root / "train/bar").rename(root / "train/pub")
    with refused("differ in the class 'bar'"):
        open_split("places365", "eval", root)


@pytest.mark.data
def test_lists_that_are_damaged_are_named(root: Path, refused: Refused) -> None:
    train = root / "places365_train_standard.txt"
    train.write_text("\n".join(TRAIN[:2]) + "\n/b/bar/0000")
    with refused(str(train), "line 3", "'/b/bar/0000'"):
        open_split("places365", "train", root)
    train.write_text("/b/bar/00000001.jpg 3\n")
    with refused(str(train), "/b/bar/00000001.jpg class 3", "0 to 2"):
        open_split("places365", "train", root)
    train.write_text("\n".join([*TRAIN, "/b/bar/00000002.jpg 0"]))  # as if it were 01 and cut short
    with refused(str(train), "/b/bar/00000002.jpg class 0, whose folder is a/airfield/"):
        open_split("places365", "train", root)
    train.write_text("/../elsewhere/00000001.jpg 0\n")
    with refused(str(train), "/../elsewhere/00000001.jpg, which leads out of"):
        open_split("places365", "train", root)
    for content in (b"", b"\xff\xd8\xff\xe0 no text"):
        train.write_bytes(content)
        with refused(str(train), "download it again"):
            open_split("places365", "train", root)
    train.unlink()
    os.mkfifo(train)
    with refused(str(train), "no file but a pipe"):
        open_split("places365", "train", root)
    train.unlink()
    with refused(str(train), "No such file"):
        open_split("places365", "train", root)
    categories = root / "categories_places365.txt"
    categories.write_text("/a/airfield 0\n/b/bar 2\n")
    with refused(str(categories), "from 0 on"):
        open_split("places365", "eval", root)


def test_lists_without_images_say_where_they_belong(tmp_path: Path, refused: Refused) -> None:
    write_lists(tmp_path)
    with refused("no folder data_large_standard", "places2.csail.mit.edu"):
        open_split("places365", "train", tmp_path)
    (tmp_path / "val_large").mkdir()
    with refused("no training images", "data_large_standard"):
        open_split("places365", "train", tmp_path)


@pytest.mark.data
def test_lists_name_images_as_folders_do_and_name_no_others(root: Path) -> None:
    known = {split: open_split("places365", split, root).manifest.hash for split in ("train", "eval")}
    lines = [TRAIN[0].replace("/a/", "/./a//"), *TRAIN[1:], "/b/bar/._00000001.jpg 1", "/b/bar/notes.txt 1"]
    (root / "places365_train_standard.txt").write_text("\n".join(lines))
    (root / "places365_val.txt").write_text("\n".join([f"./{VAL[0]}", VAL[1], ".Places365_val_00000003.jpg 0"]))
    train, held_out = (open_split("places365", split, root) for split in ("train", "eval"))
    assert {"train": train.manifest.hash, "eval": held_out.manifest.hash} == known
    assert train.left_out == ("/b/bar/._00000001.jpg", "/b/bar/notes.txt")
    assert held_out.left_out == (".Places365_val_00000003.jpg",)
