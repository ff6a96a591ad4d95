"""Resized images in tar files, as `sslticket data pack` leaves them: what is in such a folder.

OUT/pack.json                       dataset, settings and the hashes of the images that were packed
OUT/train/shard-00000.tar           WebDataset: <row>.jpg and <row>.cls (the label) for each image
OUT/train/shard-00000.idx           DALI's index of it
OUT/train/manifest.csv              the images in their own order: file, label, shard, offset, size
OUT/train/split.json                classes, shards with their lengths, and SHA-256 sums, which older ones lack; written
                                    last, so a split that has it is whole
OUT/eval/...
"""

import hashlib
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sslticket.data.dataset import Split
from sslticket.data.folders import Listing
from sslticket.errors import BadInput, one_line
from sslticket.files import read_bytes, read_json, regular

FORMAT = 1
_LONGEST = 1 << 26  # bytes of a file that tells of a split: names of 22,000 classes, and 500 shards
_LONGEST_LIST = 1 << 32  # of a list of images, which has 60 bytes a line
_BLOCK, _PIECE = 512, 1 << 20
_SHARD = re.compile(r"shard-[0-9]{5,9}\.tar")
_SETTINGS = {"dataset": str, "short_side": int, "quality": int, "shard_size": int, "images": dict}
_FIX = "copy it anew or pack again"
_COLUMNS = {"file": "object", "label": "int64", "shard": "int64", "offset": "int64", "size": "int64"}


def holds_pack(folder: Path, dataset: str) -> bool:
    """Whether a folder holds shards of this data set."""
    return (folder / "pack.json").is_file() and read_settings(folder).get("dataset") == dataset


def read_settings(folder: Path) -> dict[str, Any]:
    """What the shards in a folder were made of, and how.

    Raises:
        BadInput: if that cannot be read, or is of another version.
    """
    path = folder / "pack.json"
    content = _json(path)
    if content.get("format") != FORMAT:
        found = repr(content.get("format"))[:40]
        raise BadInput(f"{folder} has shards of format {found}, this version reads {FORMAT}; pack anew")
    if odd := [name for name, kind in _SETTINGS.items() if type(content.get(name)) is not kind]:
        raise _damaged(path, f"it does not tell its {odd[0]}")
    return content


def open_pack(folder: Path, split: Split) -> Listing | None:
    """The images in a split's shards; None where no such split was packed.

    Every image lies within its shard, whose length is looked at, and its label is that of a class. That the shards hold
    what they held is for `damage` to find, which reads them.

    Raises:
        BadInput: if the split was not packed to its end, a shard is missing or truncated, or a list is damaged.
    """
    root, settings = folder / split, read_settings(folder)
    if split not in settings["images"]:
        return None
    if not (root / "split.json").is_file():
        raise BadInput(f"{root} was not packed to its end; give the same sslticket data pack command again")
    about = _about(root)
    paths = tuple(root / name for name in about["shards"])
    sizes = np.array(list(about["shards"].values()), np.int64)
    for path, size in about["shards"].items():
        check_size(root / path, size)
    frame = _frame(root / "manifest.csv", about)
    places = frame[["shard", "offset", "size"]].to_numpy(np.int64)
    shard, offset, size = places.T
    within = (shard >= 0) & (shard < len(paths)) & (offset >= _BLOCK) & (size >= 0)
    # Not their sum, which might be too large a number.
    within[within] = size[within] <= sizes[shard[within]] - offset[within]
    labels = frame["label"].to_numpy()
    for fits, what in ((within, "in no shard"), ((labels >= 0) & (labels < len(about["classes"])), "of no class")):
        if not fits.all():
            row = int(np.flatnonzero(~fits)[0])
            raise _damaged(root / "manifest.csv", f"line {row + 2} tells of an image {what}")
    form = f"short side {settings['short_side']}, quality {settings['quality']}"
    return Listing(root, tuple(about["classes"]), list(frame["file"]), labels, paths, places, form)


def damage(folder: Path, split: Split, stage: Callable[[str, int], Callable[[int], object]]) -> list[str] | None:
    """What is wrong with the content of a split's shards, by their sums; None where it was packed without any.

    Args:
        folder: of the shards.
        split: one that `open_pack` opens.
        stage: called with what begins and how many bytes it has; returns what is called with how many are done.
    """
    root = folder / split
    sums = _about(root).get("sums")
    if sums is None:
        return None
    found = []
    for name, expected in sums.items():
        advance = stage(f"{split}/{name}", (root / name).stat().st_size)
        if sum_of(root / name, advance) != expected:
            found.append(f"{root / name} is not what was packed; copy it anew, or pack again")
    return found


def sum_of(path: Path, advance: Callable[[int], object] = lambda _: None) -> str:
    """The SHA-256 sum of a file, 64 hexadecimal digits; `advance` is called with the number of bytes read."""
    digest = hashlib.sha256()
    with regular(path) as (file, _):
        while piece := file.read(_PIECE):
            digest.update(piece)
            advance(len(piece))
    return digest.hexdigest()


def _about(root: Path) -> dict[str, Any]:
    """What split.json tells, all of it there and of its types."""
    path = root / "split.json"
    about = _json(path)
    classes, shards, sums = about.get("classes"), about.get("shards"), about.get("sums")
    if not is_count(about.get("images")) or not isinstance(classes, list) or not isinstance(shards, dict):
        raise _damaged(path, "it does not tell its images, classes and shards")
    if not all(isinstance(name, str) for name in classes) or len(set(classes)) < len(classes):
        raise _damaged(path, "its classes are no names, or one is there twice")
    if odd := [name for name, size in shards.items() if not _SHARD.fullmatch(name) or not is_count(size)]:
        raise _damaged(path, f"it tells of a shard {odd[0][:80]!r}")
    if sums is not None and (not isinstance(sums, dict) or sums.keys() != {"manifest.csv", *shards}):
        raise _damaged(path, "its sums are not those of its shards")
    return about


def _frame(path: Path, about: dict[str, Any]) -> pd.DataFrame:
    """The images in their own order."""
    try:
        content = read_bytes(path, _LONGEST_LIST)
    except FileNotFoundError:
        raise BadInput(f"{path} is missing; copy it or pack anew") from None
    if about.get("sums") and hashlib.sha256(content).hexdigest() != about["sums"]["manifest.csv"]:
        raise _damaged(path, "it is not what was packed")
    try:
        frame = pd.read_csv(
            io.BytesIO(content),
            dtype=_COLUMNS,
            keep_default_na=False,
            encoding_errors="surrogateescape",
            lineterminator="\n",  # a name may hold a carriage return, which the writer does not quote
        )
    except (ValueError, OverflowError) as error:
        raise _damaged(path, one_line(error)) from None
    if list(frame) != list(_COLUMNS) or len(frame) != about["images"]:
        raise _damaged(path, f"it has {len(frame):,} lines of images, not {about['images']:,}")
    return frame


def is_count(value: object) -> bool:
    """Whether a value from JSON is a number of things."""
    return type(value) is int and 0 <= value < 1 << 60


def check_size(path: Path, size: int) -> None:
    """Raise `BadInput` if a shard is not as long as it was when it was written."""
    found = path.stat().st_size if path.is_file() else None
    if found != size:
        state = "is missing" if found is None else f"has {found:,} bytes, not {size:,}"
        raise BadInput(f"shard {path} {state}; copy it anew, or delete {path.parent / 'split.json'} and pack again")


def _json(path: Path) -> dict[str, Any]:
    content = read_json(path, most=_LONGEST, fix=_FIX)
    if not isinstance(content, dict):
        raise _damaged(path, "it holds no names and values")
    return content


def _damaged(path: Path, why: str) -> BadInput:
    return BadInput(f"{path} is damaged ({why}); {_FIX}")
