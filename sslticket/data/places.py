"""Where a data set's files are looked for, and their download where torchvision can do it."""

import contextlib
import functools
import io
import os
import tempfile
from pathlib import Path
from typing import Literal, NamedTuple

from sslticket.data.cures import cured
from sslticket.data.dataset import SPLITS, Dataset, Split
from sslticket.data.filelists import images
from sslticket.data.folders import class_folders
from sslticket.data.ilsvrc import archives, is_flat_evaluation, is_flat_training
from sslticket.data.layouts import Ilsvrc, Lists, Tree
from sslticket.data.listings import cache_folder
from sslticket.data.shards import holds_pack
from sslticket.data.tinyimagenet import holds
from sslticket.errors import BadInput, one_line
from sslticket.files import locked


class Found(NamedTuple):
    """A folder that holds a data set, and how."""

    folder: Path
    layout: Literal["files", "arrays", "shards"]


def find(dataset: Dataset, data_root: Path | None) -> Found:
    """The folder that holds the data set.

    With a `data_root`: there, or in the folder in it that has the set's name. Else $SSLTICKET_DATA/<name>, the place
    where the operating system's packages put it, or the cache folder. What is nowhere is downloaded by torchvision into
    the first or the last of these, if it can.

    Raises:
        BadInput: naming every place looked at and how to get the set, if it is in none of them.
    """
    if found := look(dataset, data_root):
        return found
    if data_root is None and dataset.torchvision and not cured(dataset, _places(dataset, None)):
        return _download(dataset, _places(dataset, None))
    raise nowhere(dataset, data_root)


def nowhere(dataset: Dataset, data_root: Path | None) -> BadInput:
    """An error that names every place looked at and how to get the set, or a form there that only needs a command."""
    places = _places(dataset, data_root)
    if cure := cured(dataset, [place.parent if place.is_file() else place for place in places]):
        return BadInput(cure)
    return BadInput(
        f"no images of {dataset.name} found; looked in {_seen(dataset, _places(dataset, data_root))}; get them from "
        f"{dataset.home} and give their folder with --data-root or put it in $SSLTICKET_DATA/{dataset.name}"
    )


def look(dataset: Dataset, data_root: Path | None) -> Found | None:
    """The folder that holds the data set, if it is there already."""
    return next((found for place in _places(dataset, data_root) if (found := _held(dataset, place))), None)


def split_folder(dataset: Dataset, split: Split, folder: Path) -> Path | None:
    """The folder of class folders of a split, if it has any."""
    for name in dataset.train_folders if split == "train" else dataset.eval_folders:
        found = class_folders(folder / name)
        # Without this, a folder of val/ alone would pass for a set with the class "val".
        if found and not (name == "." and set(found) & set(dataset.eval_folders)):
            return folder / name
    return None


def flat_folder(dataset: Dataset, split: Split, folder: Path) -> Path | None:
    """The folder of ImageNet's images of a split that are in no class folders and whose names tell what they are."""
    names, is_flat = (
        (dataset.train_folders, is_flat_training) if split == "train" else (dataset.eval_folders, is_flat_evaluation)
    )
    return next((folder / name for name in names if is_flat(folder / name)), None)


class MissingSplit(BadInput):
    """The data set is there, but not this split of it."""


def no_split(dataset: Dataset, split: Split, folder: Path) -> MissingSplit:
    """An error for a split that is not in the data set's folder."""
    if cure := cured(dataset, [folder]):
        return MissingSplit(cure)
    names = dataset.train_folders if split == "train" else dataset.eval_folders
    flat = [name for name in names if (folder / name).is_dir()]
    have = f"{flat[0]}/ holds no class folders" if flat else f"it has no {' or '.join(f'{name}/' for name in names)}"
    what = "training" if split == "train" else "evaluation"
    fix = f"put them in {names[0]}/<class>/"
    layout = dataset.layout
    if isinstance(layout, Ilsvrc):
        fix += (
            f" or put {layout.train[0]} there" if split == "train" else f", or put {layout.devkit}.tar.gz beside them"
        )
    if isinstance(layout, Lists):
        fix += (
            f", or unpack them to {layout.train_images if split == 'train' else layout.eval_images}/ beside their lists"
        )
    return MissingSplit(f"{folder} has no {what} images: {have}; {fix}")


def _places(dataset: Dataset, data_root: Path | None) -> list[Path]:
    if data_root is not None:
        return [data_root.expanduser(), data_root.expanduser() / dataset.name]
    home, system = os.environ.get("SSLTICKET_DATA"), dataset.system
    places = [Path(home).expanduser() / dataset.name] if home else []
    places += [Path(system)] if system else []
    return places + ([cache_folder() / dataset.name] if dataset.torchvision else [])


def _held(dataset: Dataset, place: Path) -> Found | None:
    layout = dataset.layout
    if holds_pack(place, dataset.name):
        return Found(place, "shards")
    if isinstance(layout, Ilsvrc):
        if archives(place, (*layout.train, *layout.eval)):
            return Found(place, "files")
    elif isinstance(layout, Lists):
        if any(images(place, layout, split) for split in SPLITS):
            return Found(place, "files")
    elif isinstance(layout, Tree):
        for folder in (place / name for name in layout.folders):
            if any(holds(folder, layout, split) or split_folder(dataset, split, folder) for split in SPLITS):
                return Found(folder, "files")
    elif not isinstance(layout, str):
        for folder in (place / name for name in layout.folders):
            # CIFAR-100 has files called train and test, like the folders that small images may lie in.
            if any((folder / name).is_file() for name in layout.files):
                return Found(folder, "arrays")
    if any(split_folder(dataset, split, place) for split in SPLITS):
        return Found(place, "files")
    if isinstance(layout, Ilsvrc) and any(flat_folder(dataset, split, place) for split in SPLITS):
        return Found(place, "files")
    return None


def _seen(dataset: Dataset, looked: list[Path]) -> str:
    if not looked:
        return "no place, as SSLTICKET_DATA is not set"
    lacks = "no class folders with images in train/" if dataset.kind == "files" else "none of its files in it"
    if isinstance(dataset.layout, Ilsvrc):
        lacks += f" and no {dataset.layout.train[0]}"
    if isinstance(dataset.layout, Lists):
        lacks += f" and no folder {dataset.layout.train_images[0]}"
    states = {place: lacks if place.is_dir() else "not a folder" if place.exists() else "not there" for place in looked}
    return ", ".join(f"{place} ({state})" for place, state in states.items())


def _download(dataset: Dataset, looked: list[Path]) -> Found:
    """Fetch what is not there yet; of several processes one does."""
    home = os.environ.get("SSLTICKET_DATA")
    target = (Path(home).expanduser() if home else cache_folder()) / dataset.name
    with locked(target):
        return _held(dataset, target) or _fetch(dataset, looked, target)


def _fetch(dataset: Dataset, looked: list[Path], target: Path) -> Found:
    """Fetch into another folder first, then rename, so that half a download is never taken for a whole one."""
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
        if found := _held(dataset, target):  # another process was quicker
            return found
        raise BadInput(
            f"no images of {dataset.name} found in {_seen(dataset, looked)}, and the download to {target} failed "
            f"({one_line(error)}); get them from {dataset.home} and give their folder with --data-root"
        ) from error
    found = _held(dataset, target)
    assert found, f"torchvision left {target} in a layout unknown here"
    return found
