"""Where a data set's files are looked for, and their download where torchvision can do it."""

import contextlib
import io
import os
import tempfile
from pathlib import Path
from typing import Literal, NamedTuple

from sslticket.data.catalogue import Cifar, Dataset, Idx
from sslticket.data.folders import class_folders
from sslticket.data.packing import cache_folder
from sslticket.errors import BadInput


class Found(NamedTuple):
    """A folder that holds a data set, and how."""

    folder: Path
    layout: Literal["folders", "arrays"]


def find(dataset: Dataset, data_root: Path | None) -> Found:
    """The folder that holds the data set.

    With a `data_root`: there, or in the folder in it that has the set's name. Else $SSLTICKET_DATA/<name>, the place
    where the operating system's packages put it, or the cache folder. What is nowhere is downloaded by torchvision into
    the first or the last of these, if it can.

    Raises:
        BadInput: naming every place looked at and how to get the set, if it is in none of them.
    """
    looked = _places(dataset, data_root)
    for place in looked:
        if found := _held(dataset, place):
            return found
    if data_root is None and dataset.torchvision:
        return _download(dataset, looked)
    raise BadInput(
        f"no images of {dataset.name} found; looked in {_seen(dataset, looked)}; get them from {dataset.home} and give "
        f"their folder with --data-root or put it in $SSLTICKET_DATA/{dataset.name}"
    )


def split_folder(dataset: Dataset, split: Literal["train", "eval"], folder: Path) -> Path | None:
    """The folder of class folders of a split, if it has any."""
    for name in dataset.train_folders if split == "train" else dataset.eval_folders:
        found = class_folders(folder / name)
        # Without this, a folder of val/ alone would pass for a set with the class "val".
        if found and not (name == "." and set(found) & set(dataset.eval_folders)):
            return folder / name
    return None


class MissingSplit(BadInput):
    """The data set is there, but not this split of it."""


def no_split(dataset: Dataset, split: Literal["train", "eval"], folder: Path) -> MissingSplit:
    """An error for a split that is not in the data set's folder."""
    names = dataset.train_folders if split == "train" else dataset.eval_folders
    flat = [name for name in names if (folder / name).is_dir()]
    have = f"{flat[0]}/ holds no class folders" if flat else f"it has no {' or '.join(f'{name}/' for name in names)}"
    what = "training" if split == "train" else "evaluation"
    return MissingSplit(f"{folder} has no {what} images: {have}; put them in {names[0]}/<class>/")


def plain_or_gz(path: Path) -> Path:
    """The file, or its gzipped form where only that is there."""
    zipped = path.with_name(path.name + ".gz")
    return zipped if zipped.exists() and not path.exists() else path


def _places(dataset: Dataset, data_root: Path | None) -> list[Path]:
    if data_root is not None:
        return [data_root.expanduser(), data_root.expanduser() / dataset.name]
    home, system = os.environ.get("SSLTICKET_DATA"), dataset.system
    places = [Path(home).expanduser() / dataset.name] if home else []
    places += [Path(system)] if system else []
    return places + ([cache_folder() / dataset.name] if dataset.torchvision else [])


def _held(dataset: Dataset, place: Path) -> Found | None:
    layout = dataset.layout
    if isinstance(layout, Cifar):
        names = {*layout.train, *layout.eval}
    elif isinstance(layout, Idx):
        names = {name + end for name in (*layout.train, *layout.eval) for end in ("", ".gz")}
    else:
        names = set()
    inside = () if isinstance(layout, str) else (layout.folder, ".", "raw")
    for folder in (place / name for name in inside):
        # CIFAR-100 has files called train and test, like the folders that small images may lie in.
        if any((folder / name).is_file() for name in names):
            return Found(folder, "arrays")
    splits: tuple[Literal["train", "eval"], ...] = ("train", "eval")
    if any(split_folder(dataset, split, place) for split in splits):
        return Found(place, "folders")
    return None


def _seen(dataset: Dataset, looked: list[Path]) -> str:
    if not looked:
        return "no place, as SSLTICKET_DATA is not set"
    lacks = "no class folders with images in train/" if dataset.kind == "files" else "none of its files in it"
    states = {place: lacks if place.is_dir() else "not a folder" if place.exists() else "not there" for place in looked}
    return ", ".join(f"{place} ({state})" for place, state in states.items())


def _download(dataset: Dataset, looked: list[Path]) -> Found:
    """Fetch into another folder first, then rename, so that half a download is never taken for a whole one."""
    home = os.environ.get("SSLTICKET_DATA")
    target = (Path(home).expanduser() if home else cache_folder()) / dataset.name
    try:
        import torchvision

        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{dataset.name}-") as folder:
            partial = Path(folder) / dataset.name
            with contextlib.redirect_stdout(io.StringIO()):
                getattr(torchvision.datasets, str(dataset.torchvision))(partial, download=True)
            partial.rename(target)
    except (ImportError, OSError, RuntimeError) as error:
        if found := _held(dataset, target):  # another process was quicker
            return found
        reason = " ".join(str(error).split()) or type(error).__name__
        raise BadInput(
            f"no images of {dataset.name} found in {_seen(dataset, looked)}, and the download to {target} failed "
            f"({reason}); get them from {dataset.home} and give their folder with --data-root"
        ) from error
    found = _held(dataset, target)
    assert found, f"torchvision left {target} in a layout unknown here"
    return found
