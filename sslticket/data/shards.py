"""Resized images in tar files, as `sslticket data pack` leaves them: what is in such a folder.

OUT/pack.json                       dataset, settings and the hashes of the images that were packed
OUT/train/shard-00000.tar           WebDataset: <row>.jpg and <row>.cls (the label) for each image
OUT/train/shard-00000.idx           DALI's index of it
OUT/train/manifest.csv              the images in their own order: file, label, shard, offset, size
OUT/train/split.json                classes and shards; written last, so a split that has it is whole
OUT/eval/...
"""

from pathlib import Path
from typing import Any

import pandas as pd

from sslticket.data.dataset import Split
from sslticket.data.folders import Listing
from sslticket.errors import BadInput, one_line
from sslticket.files import read_json

FORMAT = 1
_LONGEST = 1 << 26  # bytes of a file that tells of a split: names of 22,000 classes, and 500 shards
_COLUMNS = {"file": "object", "label": "int64", "shard": "int64", "offset": "int64", "size": "int64"}


def holds_pack(folder: Path, dataset: str) -> bool:
    """Whether a folder holds shards of this data set."""
    return (folder / "pack.json").is_file() and read_settings(folder).get("dataset") == dataset


def read_settings(folder: Path) -> dict[str, Any]:
    """What the shards in a folder were made of, and how.

    Raises:
        BadInput: if that cannot be read, or is of another version.
    """
    content = _json(folder / "pack.json")
    if content.get("format") != FORMAT:
        raise BadInput(f"{folder} has shards of format {content.get('format')}, this version reads {FORMAT}; pack anew")
    return content


def open_pack(folder: Path, split: Split) -> Listing | None:
    """The images in a split's shards; None where no such split was packed.

    Raises:
        BadInput: if the split was not packed to its end, or a shard is missing or truncated.
    """
    root, settings = folder / split, read_settings(folder)
    if split not in settings.get("images", ()):
        return None
    if not (root / "split.json").is_file():
        raise BadInput(f"{root} was not packed to its end; give the same sslticket data pack command again")
    about = _json(root / "split.json")
    try:
        paths = tuple(root / name for name in about["shards"])
        for path, size in zip(paths, about["shards"].values(), strict=True):
            check_size(path, size)
        frame = pd.read_csv(
            root / "manifest.csv", dtype=_COLUMNS, keep_default_na=False, encoding_errors="surrogateescape"
        )
        if list(frame) != list(_COLUMNS) or len(frame) != about["images"]:
            raise ValueError(f"it has {len(frame)} rows, not {about['images']}")
        classes = tuple(about["classes"])
    except BadInput:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInput(
            f"{root / 'manifest.csv'} or split.json is damaged ({one_line(error)}); copy or pack it anew"
        ) from error
    places = frame[["shard", "offset", "size"]].to_numpy()
    form = f"short side {settings['short_side']}, quality {settings['quality']}"
    return Listing(root, classes, list(frame["file"]), frame["label"].to_numpy(), paths, places, form)


def check_size(path: Path, size: int) -> None:
    """Raise `BadInput` if a shard is not as long as it was when it was written."""
    found = path.stat().st_size if path.is_file() else None
    if found != size:
        state = "is missing" if found is None else f"has {found:,} bytes, not {size:,}"
        raise BadInput(f"shard {path} {state}; copy it anew, or delete {path.parent / 'split.json'} and pack again")


def _json(path: Path) -> dict[str, Any]:
    fix = "copy it anew or pack again"
    content = read_json(path, most=_LONGEST, fix=fix)
    if not isinstance(content, dict):
        raise BadInput(f"{path} is damaged (it holds no names and values); {fix}")
    return content
