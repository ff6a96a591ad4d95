import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sslticket.data.datasets import CATALOGUED
from sslticket.data.datasets.catalogue import get_dataset
from sslticket.data.source import open_split

Refused = Callable[..., AbstractContextManager[None]]


def picture(path: Path, shade: int = 100, size: tuple[int, int] = (32, 32)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (shade, 50, 200)).save(path)


def test_an_unknown_name_gets_the_nearest(refused: Refused) -> None:
    with refused("unknown dataset 'cifr10'", "did you mean cifar10"):
        open_split("cifr10", "train")


def test_a_missing_set_names_every_folder_searched(
    tmp_path: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    with refused(f"{tmp_path / 'gone'} (not there)", f"{tmp_path / 'gone' / 'imagenet'} (not there)", "--data-root"):
        open_split("imagenet", "train", tmp_path / "gone")
    (tmp_path / "imagenet").mkdir()
    with refused(f"{tmp_path / 'imagenet'} (no class folders with images in train/ and no ILSVRC2012_img_train.tar)"):
        open_split("imagenet", "train", tmp_path)
    with refused("SSLTICKET_DATA is not set", "image-net.org"):
        open_split("imagenet", "train")
    monkeypatch.setenv("SSLTICKET_DATA", str(tmp_path))
    with refused(f"{tmp_path / 'imagenet'} (", "$SSLTICKET_DATA/imagenet"):
        open_split("imagenet", "train")


def test_folders_are_found_by_root_by_name_and_by_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("train/b/2.jpg", "train/a/1.PNG", "train/a/3.webp", "val/b/9.jpg"):
        picture(tmp_path / "imagenet" / name)
    (tmp_path / "imagenet/train/a/notes.txt").write_text("no image")
    (tmp_path / "imagenet/train/a/._1.PNG").write_text("no image either")
    monkeypatch.setenv("SSLTICKET_DATA", str(tmp_path))
    for root in (tmp_path / "imagenet", tmp_path, None):
        manifest = open_split("imagenet", "train", root).manifest
        assert list(manifest.frame["file"]) == ["a/1.PNG", "a/3.webp", "b/2.jpg"]
        assert manifest.labels.tolist() == [0, 0, 1]
        assert manifest.image_path(2) == tmp_path / "imagenet/train/b/2.jpg"


def test_both_splits_number_the_classes_alike(tmp_path: Path, refused: Refused) -> None:
    for name in ("train/a/1.jpg", "train/b/1.jpg", "test/b/1.jpg"):
        picture(tmp_path / name)
    held_out = open_split("imagenet", "eval", tmp_path).manifest
    assert (held_out.classes, held_out.labels.tolist()) == (("a", "b"), [1])
    picture(tmp_path / "test/c/1.jpg")
    with refused(str(tmp_path / "test"), "'c'"):
        open_split("imagenet", "eval", tmp_path)


def test_any_folder_of_class_folders_will_do(tmp_path: Path, refused: Refused) -> None:
    picture(tmp_path / "cats/1.jpg")
    picture(tmp_path / "dogs/1.jpg")
    assert open_split("folder", "train", tmp_path).manifest.classes == ("cats", "dogs")
    with refused("no evaluation images", "val/<class>/"):
        open_split("folder", "eval", tmp_path)
    picture(tmp_path / "val/ILSVRC2012_val_00000001.JPEG")
    picture(tmp_path / "train/cats/1.jpg")
    with refused("val/ holds no class folders"):
        open_split("imagenet", "eval", tmp_path)


def test_folders_without_images_are_refused(tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "train/a").mkdir(parents=True)
    with refused(f"no images in {tmp_path / 'train'}", ".jpeg"):
        open_split("folder", "train", tmp_path)
    picture(tmp_path / "train/b/1.jpg")
    with refused(str(tmp_path / "train/a"), "has no images"):
        open_split("folder", "train", tmp_path)


def test_digits_are_split_once_and_for_all() -> None:
    train, held_out = open_split("digits", "train"), open_split("digits", "eval")
    assert (len(train.manifest), len(held_out.manifest)) == (1438, 359)
    shares = held_out.manifest.class_counts() / (train.manifest.class_counts() + held_out.manifest.class_counts())
    assert abs(shares - 0.2).max() < 0.003
    assert train.images is not None
    assert train.images.shape[1:] == (8, 8, 1)
    assert (train.images.min(), train.images.max()) == (0, 255)
    pixels = train.images / 255
    assert (round(float(np.mean(pixels)), 4), round(float(np.std(pixels)), 4)) == (
        *train.dataset.mean,
        *train.dataset.std,
    )
    assert train.manifest.hash == open_split("digits", "train").manifest.hash


def test_small_images_are_packed_once_without_the_unreadable_ones(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number, shade in enumerate((10, 20, 30, 40)):
        picture(tmp_path / f"train/{'ab'[number % 2]}/{number}.png", shade)
    (tmp_path / "train/a/1.png").write_bytes(b"")
    (tmp_path / "train/b/2.png").write_text("no image")
    picture(tmp_path / "train/b/8.png", 80, size=(64, 48))
    whole = (tmp_path / "train/a/0.png").read_bytes()
    (tmp_path / "train/b/9.png").write_bytes(whole[: len(whole) // 2])
    seen = []
    for _ in range(2):
        source = open_split("cifar10", "train", tmp_path)
        assert source.images is not None
        assert source.images[..., 0].reshape(5, -1)[:, 0].tolist() == [10, 30, 20, 40, 80]
        assert list(source.manifest.frame["file"]) == ["a/0.png", "a/2.png", "b/1.png", "b/3.png", "b/8.png"]
        seen.append((dict(source.unreadable), source.manifest.hash))
    assert seen[0] == seen[1]
    assert [Path(name).name for name in source.unreadable] == ["1.png", "2.png", "9.png"]
    assert "the file is empty" in source.unreadable[str(tmp_path / "train/a/1.png")]
    assert "skipped image" in caplog.text
    cached = list(Path(os.environ["SSLTICKET_CACHE"]).glob("packed/*.npy"))
    assert len(cached) == 1
    picture(tmp_path / "train/a/1.png", 90)
    assert len(open_split("cifar10", "train", tmp_path).manifest) == 6


def test_a_damaged_copy_of_small_images_is_made_again(tmp_path: Path) -> None:
    for number, shade in enumerate((10, 20, 30)):
        picture(tmp_path / f"train/a/{number}.png", shade)
    (tmp_path / "train/a/1.png").write_bytes(b"")

    def shades() -> list[int]:
        images = open_split("cifar10", "train", tmp_path).images
        assert images is not None
        return [int(image[0, 0, 0]) for image in images]

    assert shades() == [10, 30]
    (place,) = Path(os.environ["SSLTICKET_CACHE"]).glob("packed/*.npy")
    for path, contents in {
        place: (b"", place.read_bytes()[:300], place.read_bytes().replace(b"(2, 32", b"(1, 32")),
        place.with_suffix(".json"): (b"", b"[" * 9999, b"[]", b'{"a/1.png": 1}', b'{"other.png": "bad"}', b"{}"),
    }.items():
        whole = path.read_bytes()
        for content in contents:
            path.write_bytes(content)
            assert shades() == [10, 30]
            assert path.read_bytes() == whole


def test_a_set_of_unreadable_images_is_refused(tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "train/a").mkdir(parents=True)
    (tmp_path / "train/a/1.png").write_text("no image")
    with refused("got none of 1", "a/1.png"):
        open_split("cifar10", "train", tmp_path)


def test_a_subset_replaces_the_manifest_alone() -> None:
    source = open_split("digits", "train")
    part = replace(source, manifest=source.manifest.subset(0.1, seed=0))
    assert part.images is source.images
    # Row 5 of the subset is still a picture of what its label says: the one whose item number it carries.
    item = part.manifest.array_indices[5]
    assert source.manifest.labels[item] == part.manifest.labels[5]


def test_every_entry_can_be_augmented_and_evaluated_at_one_size() -> None:
    for name, entry in ((name, get_dataset(name)) for name in CATALOGUED):
        assert entry.name == name
        assert len(entry.mean) == len(entry.std) == entry.channels
        assert entry.train_view.size == entry.eval_view.size
        assert entry.eval_view.crop == "center"
        assert not entry.eval_view.flip


def test_opening_a_split_loads_neither_torch_nor_dali() -> None:
    code = (
        "import sys; from sslticket.data.source import open_split; open_split('digits', 'train').manifest.hash; "
        "sys.exit(bool({'torch', 'nvidia.dali'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
