"""Photographs packed into shards, and read back."""

import json
import os
import shutil
import socket
from collections.abc import Callable
from contextlib import AbstractContextManager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nvidia.dali import Pipeline, fn
from PIL import Image, ImageOps

from sslticket.data.augment import View
from sslticket.data.datasets.base import SPLITS
from sslticket.data.loader import Batch, Sampler
from sslticket.data.manifest import Manifest
from sslticket.data.shards import ShardSettings, start_shards, write_shards
from sslticket.data.source import make_loader, open_split, verify_dataset

Refused = Callable[..., AbstractContextManager[None]]

SIDE = 200
HOW = ShardSettings(short_side=SIDE, shard_size=7)


def packed(root: Path, out: Path, how: ShardSettings = HOW) -> dict[str, str]:
    manifests = [open_split("imagenet", split, root).manifest for split in SPLITS]
    start_shards(manifests, out, how)
    return {
        path: reason
        for manifest in manifests
        for path, reason in write_shards(manifest, out, how, lambda _: None).items()
    }


def content(manifest: Manifest, row: int) -> bytes:
    archive, offset, size = manifest.byte_ranges[row]
    return bytes(manifest.archives[archive].read_bytes()[offset : offset + size])


def batches(root: Path, view: View, count: int) -> list[Batch]:
    source = open_split("imagenet", "train", root)
    order = Sampler(len(source.manifest), 6, 2)
    images = make_loader(
        source, (view,), order, augment_seed=3, device=torch.device("cpu"), threads=2, max_bad_images=9
    )
    return list(images.train(0, count))


@pytest.fixture(scope="session")
def originals(few_photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The photographs, some of them already small, one of these a PNG, and one that cannot be read."""
    root = tmp_path_factory.mktemp("originals")
    shutil.copytree(few_photographs / "train", root / "train")
    paths = sorted((root / "train").glob("*/*"))
    for place, kind in ((4, "JPEG"), (9, "PNG")):
        with Image.open(paths[place]) as image:
            image.convert("RGB").resize((SIDE + 50, SIDE)).save(paths[place], kind)
    paths[12].write_bytes(paths[12].read_bytes()[:9000])
    shutil.copytree(root / "train", root / "val")
    return root


@pytest.fixture(scope="session")
def shards(originals: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("packed") / "shards"
    bad = packed(originals, out)
    assert [Path(path).relative_to(originals).parts[0] for path in bad] == ["train", "val"]
    return out


@pytest.mark.data
def test_packing_keeps_the_list_of_images_and_changes_its_hash(originals: Path, shards: Path) -> None:
    for split in SPLITS:
        before, after = (
            open_split("imagenet", split, originals).manifest,
            open_split("imagenet", split, shards).manifest,
        )
        assert list(after.frame["file"]) == list(before.frame["file"])
        assert after.labels.tolist() == before.labels.tolist()
        assert after.classes == before.classes
        assert after.hash != before.hash
        chosen = after.subset(0.3, "classes", seed=1).frame["file"]
        assert list(chosen) == list(before.subset(0.3, "classes", seed=1).frame["file"])


@pytest.mark.data
def test_long_sides_are_shrunk_and_all_else_is_as_it_was(originals: Path, shards: Path) -> None:
    before, after = (
        open_split("imagenet", "train", originals).manifest,
        open_split("imagenet", "train", shards).manifest,
    )
    for row in range(30):
        whole, small = before.image_path(row).read_bytes(), content(after, row)
        if row in (4, 9, 12):
            assert small == whole
            continue
        with Image.open(BytesIO(whole)) as old, Image.open(BytesIO(small)) as new:
            assert new.format == "JPEG"
            assert min(new.size) == SIDE
            straight = ImageOps.exif_transpose(old).convert("RGB")
            assert abs(max(new.size) - SIDE * max(straight.size) / min(straight.size)) <= 0.5
            assert (new.width > new.height) == (straight.width > straight.height)
            # In gray: JPEG keeps colours at half the size.
            exact = np.asarray(straight.resize(new.size, Image.Resampling.BICUBIC).convert("L"), np.int16)
            assert abs(exact - np.asarray(new.convert("L"))).mean() < 2


@pytest.mark.data
def test_batches_from_shards_equal_those_from_the_same_images_as_files(shards: Path, tmp_path: Path) -> None:
    manifest = open_split("imagenet", "train", shards).manifest
    for row, file in enumerate(manifest.frame["file"]):
        place = tmp_path / "train" / file
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content(manifest, row))
    view = View(size=64, crop="resized", flip=True)
    for one, other in zip(batches(tmp_path, view, 7), batches(shards, view, 7), strict=True):
        assert torch.equal(one.indices, other.indices)
        assert torch.equal(one.labels, other.labels)
        assert torch.equal(one.views[0], other.views[0])
        assert 12 not in other.indices


@pytest.mark.data
def test_others_read_the_shards_as_webdataset(originals: Path, shards: Path) -> None:
    manifest = open_split("imagenet", "train", originals).manifest
    tars = sorted((shards / "train").glob("*.tar"))
    assert len(tars) == 5
    pipe = Pipeline(30, 1, None)
    with pipe:
        outputs: Any = fn.readers.webdataset(
            paths=[str(path) for path in tars],
            index_paths=[str(path.with_suffix(".idx")) for path in tars],
            ext=["jpg;png", "cls"],
            missing_component_behavior="error",
        )
        pipe.set_outputs(*outputs)
    images, labels = pipe.run()
    seen = {(np.array(images[i]).tobytes(), int(np.array(labels[i]).tobytes())) for i in range(30)}
    after = open_split("imagenet", "train", shards).manifest
    assert seen == {(content(after, row), int(manifest.labels[row])) for row in range(30)}


@pytest.mark.data
def test_packing_goes_on_where_it_stopped_and_ends_with_the_same_bytes(
    originals: Path, shards: Path, tmp_path: Path, refused: Refused
) -> None:
    out = shutil.copytree(shards, tmp_path / "shards")
    (out / "train/split.json").unlink()
    with refused(str(out / "train"), "must be packed to its end", "again"):
        open_split("imagenet", "train", out)
    (out / "train/shard-00002.tar").unlink()
    (out / "train/shard-00003.idx").unlink()
    (out / f"train/.shard-00002.tar.{socket.gethostname()}.{2**30}.part").write_bytes(b"of a killed packing")
    shutil.rmtree(out / "eval")
    with refused(str(out / "eval"), "must be packed to its end", "again"):
        open_split("imagenet", "eval", out)
    packed(originals, out)
    names = {path.relative_to(out) for path in out.rglob("*")}
    assert names == {path.relative_to(shards) for path in shards.rglob("*")}
    assert all((out / name).read_bytes() == (shards / name).read_bytes() for name in names if (out / name).is_file())


@pytest.mark.data
def test_shards_may_be_packed_again_smaller(shards: Path, tmp_path: Path) -> None:
    packed(shards, tmp_path / "small", ShardSettings(short_side=40))
    manifest = open_split("imagenet", "train", tmp_path / "small").manifest
    for row in (0, 4, 9):
        with Image.open(BytesIO(content(manifest, row))) as image:
            assert min(image.size) == 40


@pytest.mark.data
def test_damaged_shards_are_named(shards: Path, tmp_path: Path, refused: Refused) -> None:
    out = shutil.copytree(shards, tmp_path / "shards")
    tar = out / "train/shard-00001.tar"
    whole = tar.read_bytes()
    tar.write_bytes(whole[:-1])
    with refused(f"shard {tar} has {len(whole) - 1:,} bytes, not {len(whole):,}; copy it again"):
        open_split("imagenet", "train", out)
    tar.unlink()
    with refused(str(tar), "is missing"):
        open_split("imagenet", "train", out)
    tar.write_bytes(whole)
    table = out / "train/manifest.csv"
    lines = table.read_text().splitlines(keepends=True)
    for damaged in ("", "".join(lines[:9]), "".join(lines)[:-30], "".join(lines).replace(",0,", ",x,", 1)):
        table.write_text(damaged)
        with refused("manifest.csv"):
            open_split("imagenet", "train", out)
    (out / "train/split.json").write_text("{")
    with refused("split.json", "damaged"):
        open_split("imagenet", "train", out)
    (out / "pack.json").write_text(json.dumps({"format": 9, "dataset": "imagenet"}))
    with refused("must be of format 1, got 9"):
        open_split("imagenet", "train", out)


@pytest.mark.data
def test_a_folder_of_something_else_is_left_alone(
    originals: Path, shards: Path, tmp_path: Path, refused: Refused
) -> None:
    before = (shards / "pack.json").read_bytes()
    with refused(str(shards), "other settings"):
        packed(originals, shards, ShardSettings(short_side=SIDE, quality=80, shard_size=7))
    (tmp_path / "own").mkdir()
    (tmp_path / "own/notes.txt").touch()
    with refused(str(tmp_path / "own"), "must be new, empty or hold shards"):
        packed(originals, tmp_path / "own")
    assert [path.name for path in (tmp_path / "own").iterdir()] == ["notes.txt"]
    with refused("at most 500 shards", "--shard-size 2"):
        start_shards(
            [Manifest(open_split("digits", "train").manifest.frame[:501], (), "x", "train", None)],
            tmp_path / "x",
            ShardSettings(short_side=9, shard_size=1),
        )
    assert (shards / "pack.json").read_bytes() == before
    assert not (tmp_path / "x").exists()


@pytest.mark.data
def test_names_that_are_no_text_survive(few_photographs: Path, tmp_path: Path) -> None:
    odd = tmp_path / "data/train/a" / os.fsdecode(b'caf\xe9, "1".jpg')
    odd.parent.mkdir(parents=True)
    shutil.copy(next((few_photographs / "train").glob("*/*")), odd)
    manifest = open_split("folder", "train", tmp_path / "data").manifest
    start_shards([manifest], tmp_path / "out", HOW)
    write_shards(manifest, tmp_path / "out", HOW, lambda _: None)
    assert list(open_split("folder", "train", tmp_path / "out").manifest.frame["file"]) == [f"a/{odd.name}"]


@pytest.mark.parametrize(
    "bad", [{"short_side": 0}, {"short_side": 9, "quality": 101}, {"short_side": 9, "shard_size": 0}]
)
def test_impossible_settings_are_refused(bad: dict[str, int], refused: Refused) -> None:
    with refused("give --"):
        ShardSettings(**bad)


def test_shards_of_another_set_are_not_taken(tmp_path: Path, refused: Refused) -> None:
    other = {"format": 1, "dataset": "places365", "short_side": 9, "quality": 9, "shard_size": 9, "images": {}}
    (tmp_path / "pack.json").write_text(json.dumps(other))
    with refused("no images of imagenet found"):
        open_split("imagenet", "train", tmp_path)


def edited(old: str, new: str) -> Callable[[str], str]:
    def edit(text: str) -> str:
        assert old in text
        return text.replace(old, new, 1)

    return edit


def told(**changes: object) -> Callable[[str], str]:
    return lambda text: json.dumps(json.loads(text) | changes)


def last(number: object) -> Callable[[str], str]:
    """Another size of the last image."""
    return lambda text: f"{text[: text.rindex(',')]},{number}\n"


FORGED = {
    "a label of no class": ("manifest.csv", edited(",0,", ",-5,")),
    "a label beyond all classes": ("manifest.csv", edited(",0,", ",99,")),
    "a label of another class": ("manifest.csv", edited(",0,", ",1,")),
    "a place beyond its shard": ("manifest.csv", last(99_999_999)),
    "a place beyond all numbers": ("manifest.csv", last(2**63 - 1)),
    "a number that is none": ("manifest.csv", last("many")),
    "a line too few": ("manifest.csv", lambda text: text[: text.rstrip().rindex("\n") + 1]),
    "images that are no number": ("split.json", told(images=True)),
    "a class that is there twice": ("split.json", told(classes=["a", "a"])),
    "a shard elsewhere": ("split.json", edited("shard-00000.tar", "../shard-00000.tar")),
    "a size that is none": ("split.json", told(shards={"shard-00000.tar": -1})),
    "shards that are a list": ("split.json", told(shards=[])),
    "no names": ("split.json", lambda _: "[1]"),
}


@pytest.mark.data
@pytest.mark.parametrize(("name", "change"), FORGED.values(), ids=FORGED)
@pytest.mark.parametrize("summed", [True, False], ids=["summed", "older"])
def test_forged_lists_of_shards_are_refused(
    shards: Path, tmp_path: Path, refused: Refused, name: str, change: Callable[[str], str], summed: bool
) -> None:
    root = shutil.copytree(shards, tmp_path / "copy", copy_function=os.link)
    texts = {path: (root / "train" / path).read_text() for path in ("split.json", "manifest.csv")}
    if not summed:  # as it was before there were sums
        texts["split.json"] = told(sums=None)(texts["split.json"])
    texts[name] = change(texts[name])
    for path, text in texts.items():
        (root / "train" / path).unlink()
        (root / "train" / path).write_text(text)
    if change is FORGED["a label of another class"][1] and not summed:
        assert len(open_split("imagenet", "train", root).manifest) == 30, "nothing tells"
        return
    with refused(str(root / "train"), "pack"):
        open_split("imagenet", "train", root)


@pytest.mark.data
def test_verifying_finds_a_shard_that_is_not_what_was_packed(shards: Path, tmp_path: Path) -> None:
    root = shutil.copytree(shards, tmp_path / "copy")

    def found() -> list[str]:
        looked = verify_dataset("imagenet", root, decode=0, md5=True, threads=1, stage=lambda *_: lambda _: None)
        return [text for text, good in looked if "packed" in text and not good]

    assert found() == []
    path, split = root / "eval/shard-00001.tar", root / "eval/split.json"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert found() == [f"{path} is not what was packed; copy it again, or pack again"]
    split.write_text(told(sums=None)(split.read_text()))
    assert found() == []


def test_odd_names_of_images_and_classes_come_back_as_they_are(tmp_path: Path) -> None:
    names = ["cr\r.png", "line\n.png", "com,ma.png", 'quo"te.png', " NA.png", os.fsdecode(b"caf\xe9.png")]
    for folder in ("nan", "c,\r\nd", os.fsdecode(b"cl\xe9")):
        (tmp_path / "images/train" / folder).mkdir(parents=True)
        for shade, name in enumerate(names):
            Image.new("L", (9, 9), shade).save(tmp_path / "images/train" / folder / name)
    manifest = open_split("folder", "train", tmp_path / "images").manifest
    start_shards([manifest], tmp_path / "out", HOW)
    write_shards(manifest, tmp_path / "out", HOW, lambda _: None)
    shards = open_split("folder", "train", tmp_path / "out").manifest
    assert (list(shards.frame["file"]), shards.classes) == (list(manifest.frame["file"]), manifest.classes)
    assert [part.take_shots(2, seed=0).class_counts().tolist() for part in (shards, manifest)] == [[2, 2, 2]] * 2
