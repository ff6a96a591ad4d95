"""Where a data set is looked for, its download where torchvision can do it, and the opening of its splits."""

import contextlib
import functools
import io
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from sslticket.data.datasets.base import SPLIT_NAMES, Dataset, ImageArrays, Layout, Listing, Split
from sslticket.data.datasets.unpack import conversion_advice
from sslticket.data.shards import holds_shards, open_shards
from sslticket.errors import BadInput, one_line
from sslticket.escaping import shell_quote
from sslticket.storage.files import cache_folder, file_lock


class MissingSplit(BadInput):
    """The data set is there, but not this split of it."""


@dataclass(frozen=True, kw_only=True)
class ShardsLayout(Layout):
    """The tar shards that `sslticket data pack` writes, in which every data set of files may lie."""

    def find(self, dataset: Dataset, folder: Path) -> Path | None:
        """Return `folder` if shards of this data set are in it."""
        return folder if holds_shards(folder, dataset.name) else None

    def open(self, dataset: Dataset, split: Split, folder: Path) -> Listing:
        """List the images in a split's shards.

        Raises:
            BadInput: If shards are missing or damaged; `MissingSplit` if none of this split were written.
        """
        found = open_shards(folder, split)
        if found is None:
            raise MissingSplit(
                f"{folder} has no {SPLIT_NAMES[split]} images, as there were none to pack; pack the whole set"
            )
        return found


EVERY_LAYOUT: tuple[Layout, ...] = (ShardsLayout(),)
"""Layouts that every data set may have, tried before its own. To add one, add it here."""


class DatasetLocation(NamedTuple):
    """A folder that holds a data set, and the layout that it has there."""

    folder: Path
    layout: Layout

    def open(self, dataset: Dataset, split: Split) -> Listing | ImageArrays:
        """List or read the images of a split.

        Raises:
            BadInput: If the split is not there (`MissingSplit`), or files are damaged.
        """
        found = self.layout.open(dataset, split, self.folder)
        if found is not None:
            return found
        if advice := conversion_advice(dataset, [self.folder]):
            raise MissingSplit(advice)
        names = dataset.train_folders if split == "train" else dataset.eval_folders
        flat = [name for name in names if (self.folder / name).is_dir()]
        lacks = f"{flat[0]}/ holds no class folders" if flat else f"it has no {'/ or '.join(names)}/"
        fix = f"put them in {names[0]}/<class>/{dataset.layout.how_to_add(split)}"
        if dataset.name == "folder":
            fix += f", or give --dataset folder:{self.folder.absolute().name}, which sets a fifth of each class aside"
        raise MissingSplit(f"{self.folder} has no {SPLIT_NAMES[split]} images: {lacks}; {fix}")


def find_dataset(dataset: Dataset, data_root: Path | None) -> DatasetLocation:
    """Find the folder that holds the data set.

    With a `data_root`: there, or in the folder in it that has the set's name. Else $SSLTICKET_DATA/<name>, the place
    where the operating system's packages put it, or the cache folder. What is nowhere is downloaded by torchvision into
    the first or the last of these, if it can. A set that comes inside a package is taken from there all the same.

    Raises:
        BadInput: Naming every folder that was searched and how to get the set, if it is in none of them.
    """
    if found := find_local_dataset(dataset, data_root):
        return found
    if data_root is None and dataset.torchvision and not conversion_advice(dataset, _search_paths(dataset, None)):
        home = os.environ.get("SSLTICKET_DATA")
        target = (Path(home).expanduser() if home else cache_folder()) / dataset.folder_name
        with file_lock(target):  # of several processes one downloads
            return _location_in(dataset, target) or _fetch(dataset, _search_paths(dataset, None), target)
    raise dataset_not_found(dataset, data_root)


def dataset_not_found(dataset: Dataset, data_root: Path | None) -> BadInput:
    """Return an error that names every folder that was searched and how to get the set, or to convert what is there."""
    paths = _search_paths(dataset, data_root)
    if advice := conversion_advice(dataset, [path.parent if path.is_file() else path for path in paths]):
        return BadInput(advice)
    if dataset.name.startswith("folder:"):
        here = Path(dataset.folder_name)
        path = f"./{here}" if here.is_dir() else f"PATH/{here}"
        return BadInput(
            f"no images of {dataset.name} found; looked in {_describe_search(dataset, paths)}; give the folder that "
            f"{here} lies in with --data-root, or its path in place of its name, as {shell_quote(f'folder:{path}')}"
        )
    return BadInput(
        f"no images of {dataset.name} found; looked in {_describe_search(dataset, paths)}; get them from "
        f"{dataset.homepage} and give their folder with --data-root or put it in $SSLTICKET_DATA/{dataset.folder_name}"
    )


def find_local_dataset(dataset: Dataset, data_root: Path | None) -> DatasetLocation | None:
    """Find the folder that holds the data set, without any download; None where there is none."""
    if dataset.layout.package:
        return DatasetLocation(Path(), dataset.layout)
    found = (_location_in(dataset, folder) for folder in _search_paths(dataset, data_root))
    return next(filter(None, found), None)


def _search_paths(dataset: Dataset, data_root: Path | None) -> list[Path]:
    name = dataset.folder_name
    if data_root is not None:
        paths = [data_root.expanduser(), data_root.expanduser() / name]
        # Any folder of folders could be one of class folders, so of "folder:flowers" the name decides first.
        return paths if name == dataset.name else paths[::-1]
    home, system = os.environ.get("SSLTICKET_DATA"), dataset.system_folder
    paths = [Path(home).expanduser() / name] if home else []
    paths += [Path(system)] if system else []
    return paths + ([cache_folder() / name] if dataset.torchvision else [])


def _location_in(dataset: Dataset, folder: Path) -> DatasetLocation | None:
    for layout in (*EVERY_LAYOUT, dataset.layout):
        if (found := layout.find(dataset, folder)) is not None:
            return DatasetLocation(found, layout)
    return None


def _describe_search(dataset: Dataset, searched: list[Path]) -> str:
    if not searched:
        return "no place, as SSLTICKET_DATA is not set"
    lacks = dataset.layout.describe_missing(dataset)
    states = {path: lacks if path.is_dir() else "not a folder" if path.exists() else "not there" for path in searched}
    return ", ".join(f"{path} ({state})" for path, state in states.items())


def _fetch(dataset: Dataset, searched: list[Path], target: Path) -> DatasetLocation:
    """Download into another folder first, then rename, so that half a download is never taken for a whole one."""
    try:
        import torchvision

        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{dataset.name}-") as folder:
            partial = Path(folder) / dataset.name
            download = functools.partial(
                getattr(torchvision.datasets, str(dataset.torchvision)), partial, download=True
            )
            with contextlib.redirect_stdout(io.StringIO()):
                for options in [{"split": name} for name in dataset.torchvision_splits] or [{}]:
                    download(**options)
            partial.rename(target)
    except (ImportError, OSError, RuntimeError) as error:
        if found := _location_in(dataset, target):  # another process was quicker
            return found
        raise BadInput(
            f"no images of {dataset.name} found in {_describe_search(dataset, searched)}, and the download to {target} "
            f"failed ({one_line(error)}); get them from {dataset.homepage} and give their folder with --data-root"
        ) from error
    found = _location_in(dataset, target)
    assert found, f"torchvision left {target} in a layout unknown here"
    return found
