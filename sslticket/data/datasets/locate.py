"""Where a data set is looked for, its download where torchvision can do it, and the list of a split's images."""

import contextlib
import functools
import io
import os
import shlex
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Literal, NamedTuple

from sslticket.data.datasets import lists
from sslticket.data.datasets.base import SPLITS, Dataset, ImageNetLayout, Places365Layout, Split, TinyImageNetLayout
from sslticket.data.datasets.folders import Listing, cache_folder, cached_class_folders, class_folders
from sslticket.data.datasets.imagenet import (
    GroundTruth,
    find_archives,
    is_flat_evaluation,
    is_flat_training,
    list_evaluation,
    list_flat_training,
    list_training_archives,
)
from sslticket.data.datasets.lists import find_listed_images, holds_tiny_imagenet, list_places365
from sslticket.data.datasets.unpack import conversion_advice
from sslticket.data.shards import holds_shards, open_shards
from sslticket.errors import BadInput, one_line
from sslticket.storage.files import file_lock


class DatasetLocation(NamedTuple):
    """A folder that holds a data set, and how."""

    folder: Path
    storage: Literal["files", "arrays", "shards"]


def find_dataset(dataset: Dataset, data_root: Path | None) -> DatasetLocation:
    """The folder that holds the data set.

    With a `data_root`: there, or in the folder in it that has the set's name. Else $SSLTICKET_DATA/<name>, the place
    where the operating system's packages put it, or the cache folder. What is nowhere is downloaded by torchvision into
    the first or the last of these, if it can.

    Raises:
        BadInput: naming every place looked at and how to get the set, if it is in none of them.
    """
    if found := find_local_dataset(dataset, data_root):
        return found
    if data_root is None and dataset.torchvision and not conversion_advice(dataset, _search_paths(dataset, None)):
        return _download(dataset, _search_paths(dataset, None))
    raise dataset_not_found(dataset, data_root)


def dataset_not_found(dataset: Dataset, data_root: Path | None) -> BadInput:
    """An error that names every place looked at and how to get the set, or a form there that only needs a command."""
    places = _search_paths(dataset, data_root)
    if cure := conversion_advice(dataset, [place.parent if place.is_file() else place for place in places]):
        return BadInput(cure)
    return BadInput(
        f"no images of {dataset.name} found; looked in {_describe_search(dataset, _search_paths(dataset, data_root))}; get them from "
        f"{dataset.homepage} and give their folder with --data-root or put it in $SSLTICKET_DATA/{dataset.name}"
    )


def find_local_dataset(dataset: Dataset, data_root: Path | None) -> DatasetLocation | None:
    """The folder that holds the data set, if it is there already."""
    return next((found for place in _search_paths(dataset, data_root) if (found := _location_in(dataset, place))), None)


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


def missing_split(dataset: Dataset, split: Split, folder: Path) -> MissingSplit:
    """An error for a split that is not in the data set's folder."""
    if cure := conversion_advice(dataset, [folder]):
        return MissingSplit(cure)
    names = dataset.train_folders if split == "train" else dataset.eval_folders
    flat = [name for name in names if (folder / name).is_dir()]
    have = f"{flat[0]}/ holds no class folders" if flat else f"it has no {' or '.join(f'{name}/' for name in names)}"
    what = "training" if split == "train" else "evaluation"
    fix = f"put them in {names[0]}/<class>/"
    layout = dataset.layout
    if isinstance(layout, ImageNetLayout):
        fix += (
            f" or put {layout.train[0]} there" if split == "train" else f", or put {layout.devkit}.tar.gz beside them"
        )
    if isinstance(layout, Places365Layout):
        fix += (
            f", or unpack them to {layout.train_images if split == 'train' else layout.eval_images}/ beside their lists"
        )
    return MissingSplit(f"{folder} has no {what} images: {have}; {fix}")


def _search_paths(dataset: Dataset, data_root: Path | None) -> list[Path]:
    if data_root is not None:
        return [data_root.expanduser(), data_root.expanduser() / dataset.name]
    home, system = os.environ.get("SSLTICKET_DATA"), dataset.system_folder
    places = [Path(home).expanduser() / dataset.name] if home else []
    places += [Path(system)] if system else []
    return places + ([cache_folder() / dataset.name] if dataset.torchvision else [])


def _location_in(dataset: Dataset, place: Path) -> DatasetLocation | None:
    layout = dataset.layout
    if holds_shards(place, dataset.name):
        return DatasetLocation(place, "shards")
    if isinstance(layout, ImageNetLayout):
        if find_archives(place, (*layout.train, *layout.eval)):
            return DatasetLocation(place, "files")
    elif isinstance(layout, Places365Layout):
        if any(find_listed_images(place, layout, split) for split in SPLITS):
            return DatasetLocation(place, "files")
    elif isinstance(layout, TinyImageNetLayout):
        for folder in (place / name for name in layout.folders):
            if any(
                holds_tiny_imagenet(folder, layout, split) or split_folder(dataset, split, folder) for split in SPLITS
            ):
                return DatasetLocation(folder, "files")
    elif not isinstance(layout, str):
        for folder in (place / name for name in layout.folders):
            # CIFAR-100 has files called train and test, like the folders that small images may lie in.
            if any((folder / name).is_file() for name in layout.files):
                return DatasetLocation(folder, "arrays")
    if any(split_folder(dataset, split, place) for split in SPLITS):
        return DatasetLocation(place, "files")
    if isinstance(layout, ImageNetLayout) and any(flat_folder(dataset, split, place) for split in SPLITS):
        return DatasetLocation(place, "files")
    return None


def _describe_search(dataset: Dataset, looked: list[Path]) -> str:
    if not looked:
        return "no place, as SSLTICKET_DATA is not set"
    lacks = "no class folders with images in train/" if dataset.kind == "files" else "none of its files in it"
    if isinstance(dataset.layout, ImageNetLayout):
        lacks += f" and no {dataset.layout.train[0]}"
    if isinstance(dataset.layout, Places365Layout):
        lacks += f" and no folder {dataset.layout.train_images[0]}"
    states = {place: lacks if place.is_dir() else "not a folder" if place.exists() else "not there" for place in looked}
    return ", ".join(f"{place} ({state})" for place, state in states.items())


def _download(dataset: Dataset, looked: list[Path]) -> DatasetLocation:
    """Fetch what is not there yet; of several processes one does."""
    home = os.environ.get("SSLTICKET_DATA")
    target = (Path(home).expanduser() if home else cache_folder()) / dataset.name
    with file_lock(target):
        return _location_in(dataset, target) or _fetch(dataset, looked, target)


def _fetch(dataset: Dataset, looked: list[Path], target: Path) -> DatasetLocation:
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
        if found := _location_in(dataset, target):  # another process was quicker
            return found
        raise BadInput(
            f"no images of {dataset.name} found in {_describe_search(dataset, looked)}, and the download to {target} failed "
            f"({one_line(error)}); get them from {dataset.homepage} and give their folder with --data-root"
        ) from error
    found = _location_in(dataset, target)
    assert found, f"torchvision left {target} in a layout unknown here"
    return found


def list_split(entry: Dataset, split: Split, found: DatasetLocation) -> Listing:
    """A split's images, as resized shards, class folders, or in the form in which the set is published.

    Both splits number the classes alike, even where one lacks some of them.

    Raises:
        BadInput: if the split is not there (`places.MissingSplit`), or files are damaged.
    """
    folder = found.folder
    if found.storage == "shards":
        pack = open_shards(folder, split)
        if pack is None:
            what = "training" if split == "train" else "evaluation"
            raise MissingSplit(f"{folder} has no {what} images, as there were none to pack; pack the whole set")
        return pack
    if isinstance(entry.layout, TinyImageNetLayout) and lists.holds_tiny_imagenet(folder, entry.layout, split):
        return lists.list_tiny_imagenet(folder, entry.layout, split)
    train = split_folder(entry, "train", folder)
    own = train if split == "train" else split_folder(entry, "eval", folder)
    if own is not None:
        if isinstance(entry.layout, ImageNetLayout):
            _check_unpacked(own)
        listing = cached_class_folders(own, _training_classes(entry, folder, train))
        if split == "eval":
            _check_against_ground_truth(entry, folder, listing)
        return listing
    if isinstance(entry.layout, Places365Layout) and find_listed_images(folder, entry.layout, split):
        return list_places365(folder, entry.layout, split, _training_classes(entry, folder, train))
    if isinstance(entry.layout, ImageNetLayout) and (
        published := _list_imagenet(entry, entry.layout, split, folder, train)
    ):
        return published
    raise missing_split(entry, split, folder)


def _check_against_ground_truth(entry: Dataset, folder: Path, found: Listing) -> None:
    """Raise `BadInput` if an evaluation image's folder is another class's than a published file beside it tells."""
    truth = None
    with suppress(BadInput):  # they need not be there, nor whole
        if isinstance(entry.layout, ImageNetLayout):
            truth = GroundTruth.find(folder, entry.layout)
    if truth:
        truth.check_listing(found)
    if isinstance(entry.layout, TinyImageNetLayout):
        lists.check_tiny_imagenet(folder, entry.layout, found)


def _check_unpacked(root: Path) -> None:
    """Raise `BadInput` if a class's archive lies among the class folders and its own folder is not there."""
    if packed := next((path for path in sorted(root.glob("n[0-9]*.tar")) if not (root / path.stem).is_dir()), None):
        raise BadInput(
            f"{packed} is a class that was not unpacked; type: mkdir {shlex.quote(str(packed.with_suffix('')))} && "
            f"tar -xf {shlex.quote(str(packed))} -C {shlex.quote(str(packed.with_suffix('')))}"
        )


def _training_classes(entry: Dataset, folder: Path, train: Path | None) -> tuple[str, ...] | None:
    """The training images' classes, if they are there."""
    if train is not None:
        return tuple(class_folders(train))
    if isinstance(entry.layout, ImageNetLayout) and (own := _list_imagenet_training(entry, entry.layout, folder)):
        return own.classes
    return None


def _list_imagenet_training(entry: Dataset, layout: ImageNetLayout, folder: Path) -> Listing | None:
    if archived := list_training_archives(folder, layout):
        return archived
    flat = flat_folder(entry, "train", folder)
    return list_flat_training(flat) if flat else None


def _list_imagenet(
    entry: Dataset, layout: ImageNetLayout, split: Split, folder: Path, train: Path | None
) -> Listing | None:
    if split == "train":
        return _list_imagenet_training(entry, layout, folder)
    flat = flat_folder(entry, "eval", folder)
    paths = () if flat else find_archives(folder, layout.eval)
    if not flat and not paths:
        return None
    return list_evaluation(flat, paths, GroundTruth.find(folder, layout), _training_classes(entry, folder, train))
