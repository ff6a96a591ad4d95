"""Whole sets are told from parts of them, and two sets of images from each other, whatever they are called."""

import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import pytest

from sslticket.data.datasets import CATALOGUED, base
from sslticket.data.datasets.base import SPLITS
from sslticket.data.datasets.catalogue import get_dataset
from sslticket.data.own_images import hash_images, own_folder_name
from sslticket.data.shards import ShardSettings, start_shards, write_shards
from sslticket.data.source import (
    DataSource,
    check_complete,
    count_images_and_classes,
    open_split,
)
from tests.digits import write_digits

Refused = Callable[..., AbstractContextManager[None]]


def both(name: str, root: Path | None = None) -> list[DataSource]:
    return [open_split(name, split, root) for split in SPLITS]


def test_the_official_counts_are_those_that_were_published() -> None:
    published = {
        "imagenet": (1000, (1_281_167, 50_000)),
        "places365": (365, (1_803_460, 36_500)),
        "places365_small": (365, (1_803_460, 36_500)),
        "tiny_imagenet": (200, (100_000, 10_000)),
        "cifar10": (10, (50_000, 10_000)),
        "cifar100": (100, (50_000, 10_000)),
        "svhn": (10, (73_257, 26_032)),
        "svhn_extra": (10, (73_257 + 531_131, 26_032)),
        "mnist": (10, (60_000, 10_000)),
        "fashion_mnist": (10, (60_000, 10_000)),
        "digits": (10, (1_438, 359)),
        "folder": (None, None),
    }
    assert {
        name: (entry.classes, entry.image_counts) for name, entry in ((name, get_dataset(name)) for name in CATALOGUED)
    } == published


def test_a_set_of_other_counts_is_refused_until_it_is_called_a_part(tmp_path: Path, refused: Refused) -> None:
    root = write_digits(tmp_path / "flowers", train=3, val=2)
    with refused(
        f"mnist in {root / 'train'} has 30 training images of 10 classes, and officially 60,000 of 10;", "--part NAME"
    ):
        check_complete(both("mnist", root), None)
    named = check_complete(both("mnist", root), "3 a class")
    assert [source.manifest.name for source in named] == ["mnist[3 a class]"] * 2
    assert [source.manifest.hash for source in named] == [source.manifest.hash for source in both("mnist", root)]


def test_a_complete_set_takes_no_name_of_a_part_and_an_incomplete_split_needs_one(refused: Refused) -> None:
    train, held_out = both("digits")
    assert [source.manifest.name for source in check_complete([train, held_out], None)] == ["digits"] * 2
    with refused("digits is whole, with the official 1,438 training images of 10 classes", "leave --part out"):
        check_complete([train, held_out], "most")
    short = replace(held_out, manifest=held_out.manifest.evenly_spaced(358))
    with refused("digits has 358 evaluation images of 10 classes, and officially 359 of 10"):
        check_complete([train, short], None)
    assert check_complete([train, short], "most")[0].manifest.name == "digits[most]"


def test_classes_count_where_they_have_images_and_images_where_they_cannot_be_read(refused: Refused) -> None:
    (train, _) = both("digits")
    merged = train.manifest.frame.assign(label=train.manifest.labels.clip(max=8))
    with refused("1,438 training images of 9 classes, and officially 1,438 of 10"):
        check_complete([replace(train, manifest=replace(train.manifest, frame=merged))], None)
    damaged = replace(
        train, manifest=train.manifest.evenly_spaced(1437), unreadable={"7/1437.png": "the file is empty"}
    )
    assert check_complete([damaged], None)[0].manifest.name == "digits"


def test_shards_have_the_counts_of_what_was_packed(tmp_path: Path) -> None:
    root, out, how = write_digits(tmp_path / "few", train=3, val=2), tmp_path / "packed", ShardSettings(short_side=4)
    originals = both("imagenet", root)
    start_shards([source.manifest for source in originals], out, how)
    for source in originals:
        write_shards(source.manifest, out, how, lambda done: None)
    packed = both("imagenet", out)
    small = replace(packed[0].dataset, classes=10, image_counts=(30, 20))
    whole = [replace(source, dataset=small) for source in packed]
    found = check_complete(whole, None)
    assert [count_images_and_classes(source) for source in found] == [(30, 10), (20, 10)]
    assert found[0].manifest.hash != originals[0].manifest.hash, "their pixels are others"
    assert hash_images(found[0]) not in (hash_images(originals[0]), hash_images(found[1]))


@pytest.mark.parametrize("part", ["flowers102", "1 image a class", "v1.2_small-ish", "x" * 40])
def test_names_of_parts_are_a_few_plain_words(part: str) -> None:
    base.check_part("imagenet", part)
    assert base.display_name("imagenet", part) == f"imagenet[{part}]"


@pytest.mark.parametrize("part", ["", " ", "flowers ", "a/b", "a[b]", "é", "a\nb", "x" * 41])
def test_what_cannot_go_into_names_is_refused(part: str, refused: Refused) -> None:
    with refused("--part must be up to 40", "for imagenet", "--part"):
        base.check_part("imagenet", part)


def test_one_s_own_folder_has_no_part(refused: Refused) -> None:
    with refused("no official counts", "leave --part out"):
        base.check_part("folder", "flowers102")


def test_the_hash_of_images_depends_on_names_and_pixels_and_not_on_the_folder(tmp_path: Path) -> None:
    flowers = write_digits(tmp_path / "flowers", train=3)
    copied = shutil.copytree(flowers, tmp_path / "elsewhere" / "copied")
    repainted = write_digits(tmp_path / "repainted", train=3, first=3)
    more = write_digits(tmp_path / "more", train=4)
    source, copy, other, larger = (open_split("folder", "train", root) for root in (flowers, copied, repainted, more))
    assert source.manifest.hash == other.manifest.hash, "the list of names and labels is the same"
    assert hash_images(source) == hash_images(copy)
    assert len({hash_images(each) for each in (source, other, larger)}) == 3
    small, painted = (open_split("mnist", "train", root) for root in (flowers, repainted))
    assert small.manifest.hash == painted.manifest.hash
    assert hash_images(small) != hash_images(painted), "of sets kept in memory too"


def test_the_hash_of_images_depends_on_the_names_in_lists(tmp_path: Path) -> None:
    source = open_split("folder", "train", write_digits(tmp_path / "flowers", train=3))
    lists = [tmp_path / f"{name}.txt" for name in "abc"]
    for path, text in zip(lists, ("0/0.png\n1/1.png\n", "1/1.png\n\n0/0.png", "0/0.png\n1/2.png\n"), strict=True):
        path.write_text(text)
    first, mixed, other = (hash_images(source, [path]) for path in lists)
    assert first == mixed
    assert len({first, other, hash_images(source)}) == 3


def test_a_folder_is_called_by_its_own_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_digits(tmp_path / "My flowers (2)", train=1)
    assert own_folder_name(open_split("folder", "train", root)) == "My-flowers-2"
    assert own_folder_name(open_split("folder", "train", root / "train")) == "My-flowers-2"
    for name in ("imagenet", "cifar10b"):
        known = open_split("folder", "train", write_digits(tmp_path / name, train=1))
        assert own_folder_name(known) == f"folder-{name}", "it need not be the known set"
    monkeypatch.chdir(root)
    assert own_folder_name(open_split("folder", "train", Path())) == "My-flowers-2"
