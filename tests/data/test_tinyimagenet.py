"""Tiny-ImageNet's tree: images in a folder of their class's folder, evaluation images with a list of their classes."""

import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from PIL import Image

from sslticket.data.datasets.base import Split
from sslticket.data.source import open_split

Refused = Callable[..., AbstractContextManager[None]]

FISH, SHARK = "n01440764", "n01484850"


def picture(path: Path, shade: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (64, 64), (shade, 0, 0)).save(path, "PNG")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for number, wnid in enumerate((FISH, SHARK)):
        picture(tmp_path / f"train/{wnid}/images/{wnid}_0.JPEG", 10 + number)
        picture(tmp_path / f"val/images/val_{number}.JPEG", 20 + number)
    (tmp_path / "val/val_annotations.txt").write_text(
        f"val_1.JPEG\t{FISH}\t0\t0\t9\t9\nval_0.JPEG\t{SHARK}\t0\t0\t9\t9\n"
    )
    return tmp_path


def shown(root: Path, split: Split) -> dict[int, str]:
    """The class of each image, by its shade."""
    source = open_split("tiny_imagenet", split, root)
    classes = [source.manifest.classes[label] for label in source.manifest.labels]
    assert source.images is not None
    shades = [int(source.images[item, 0, 0, 0]) for item in source.manifest.array_indices]
    return dict(zip(shades, classes, strict=True))


def test_evaluation_images_have_the_classes_of_the_list(root: Path) -> None:
    assert shown(root, "train") == {10: FISH, 11: SHARK}
    assert shown(root, "eval") == {20: SHARK, 21: FISH}
    (root / "val/images/val_0.JPEG").unlink()
    assert shown(root, "eval") == {21: FISH}


def test_sorted_into_class_folders_they_have_the_same(root: Path) -> None:
    for number, wnid in ((0, SHARK), (1, FISH)):
        (root / f"val/{wnid}/images").mkdir(parents=True)
        (root / f"val/images/val_{number}.JPEG").rename(root / f"val/{wnid}/images/val_{number}.JPEG")
    (root / "val/images").rmdir()
    assert shown(root, "eval") == {20: SHARK, 21: FISH}
    for number, wnid in ((0, SHARK), (1, FISH)):
        (root / f"val/{wnid}/images/val_{number}.JPEG").rename(root / f"val/{wnid}/val_{number}.JPEG")
        (root / f"val/{wnid}/images").rmdir()
    assert shown(root, "eval") == {20: SHARK, 21: FISH}


@pytest.mark.parametrize("inner", ["images/", ""])
def test_sorted_otherwise_than_the_list_tells_they_are_refused(root: Path, refused: Refused, inner: str) -> None:
    for number, wnid in ((0, FISH), (1, SHARK)):
        picture(root / f"val/{wnid}/{inner}val_{number}.JPEG", 20 + number)
    shutil.rmtree(root / "val/images")
    with refused(
        str(root / f"val/{FISH}/{inner}val_0.JPEG"), f"is of class {SHARK} according to", "val_annotations.txt"
    ):
        open_split("tiny_imagenet", "eval", root)


def test_what_has_no_class_is_refused(root: Path, refused: Refused) -> None:
    annotations = root / "val/val_annotations.txt"
    picture(root / "val/images/preview.JPEG", 99)
    with refused(str(annotations), "has no class of preview.JPEG"):
        open_split("tiny_imagenet", "eval", root)
    (root / "val/images/preview.JPEG").unlink()
    for line in ("val_0.JPEG", f"val_0.JPEG\t{FISH}"):  # the second contradicts the first of its name
        annotations.write_text(f"val_0.JPEG\t{SHARK}\nval_1.JPEG\t{FISH}\n{line}\n")
        with refused(str(annotations), "line 3", "does not name one class"):
            open_split("tiny_imagenet", "eval", root)
    annotations.write_text("val_0.JPEG\tn99999999\nval_1.JPEG\tn01440764\n")
    with refused(str(root / "val"), "'n99999999'"):
        open_split("tiny_imagenet", "eval", root)
    (root / f"train/{FISH}/images/{FISH}_0.JPEG").unlink()
    with refused(str(root / f"train/{FISH}/images"), "has no images"):
        open_split("tiny_imagenet", "train", root)


def test_what_lies_among_the_images_is_told(root: Path) -> None:
    (root / f"train/{FISH}/images/notes.txt").write_text("no image")
    (root / f"train/{FISH}/{FISH}_boxes.txt").write_text("published so")
    (root / f"train/{FISH}/old").mkdir()
    assert open_split("tiny_imagenet", "train", root).left_out == (f"{FISH}/images/notes.txt", f"{FISH}/old/")
    picture(root / f"val/{FISH}/val_1.JPEG", 21)
    assert open_split("tiny_imagenet", "eval", root).left_out == (f"{FISH}/",)


@pytest.mark.parametrize(("split", "name"), [("train", f"train/{FISH}/1.JPEG"), ("eval", "val/1.JPEG")])
def test_images_beside_the_folder_of_images_are_refused(root: Path, refused: Refused, split: Split, name: str) -> None:
    picture(root / name, 99)
    with refused(str(root / name), "lies beside images/"):
        open_split("tiny_imagenet", split, root)
