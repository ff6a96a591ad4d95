"""The images of one split of a data set of files, in whichever of its forms it is there."""

import shlex
from contextlib import suppress
from pathlib import Path

from sslticket.data import places, tinyimagenet
from sslticket.data.dataset import Dataset, Split
from sslticket.data.filelists import images, listed
from sslticket.data.folders import Listing, class_folders
from sslticket.data.ilsvrc import archives, evaluation, flat_training, training
from sslticket.data.layouts import Ilsvrc, Lists, Tree
from sslticket.data.listings import kept_listing
from sslticket.data.shards import open_pack
from sslticket.data.truth import Truth
from sslticket.errors import BadInput


def split_listing(entry: Dataset, split: Split, found: places.Found) -> Listing:
    """A split's images, as resized shards, class folders, or in the form in which the set is published.

    Both splits number the classes alike, even where one lacks some of them.

    Raises:
        BadInput: if the split is not there (`places.MissingSplit`), or files are damaged.
    """
    folder = found.folder
    if found.layout == "shards":
        pack = open_pack(folder, split)
        if pack is None:
            what = "training" if split == "train" else "evaluation"
            raise places.MissingSplit(f"{folder} has no {what} images, as there were none to pack; pack the whole set")
        return pack
    if isinstance(entry.layout, Tree) and tinyimagenet.holds(folder, entry.layout, split):
        return tinyimagenet.listed(folder, entry.layout, split)
    train = places.split_folder(entry, "train", folder)
    own = train if split == "train" else places.split_folder(entry, "eval", folder)
    if own is not None:
        if isinstance(entry.layout, Ilsvrc):
            _check_unpacked(own)
        listing = kept_listing(own, _classes(entry, folder, train))
        if split == "eval":
            _check_told(entry, folder, listing)
        return listing
    if isinstance(entry.layout, Lists) and images(folder, entry.layout, split):
        return listed(folder, entry.layout, split, _classes(entry, folder, train))
    if isinstance(entry.layout, Ilsvrc) and (published := _ilsvrc(entry, entry.layout, split, folder, train)):
        return published
    raise places.no_split(entry, split, folder)


def _check_told(entry: Dataset, folder: Path, found: Listing) -> None:
    """Raise `BadInput` if an evaluation image's folder is another class's than a published file beside it tells."""
    truth = None
    with suppress(BadInput):  # they need not be there, nor whole
        if isinstance(entry.layout, Ilsvrc):
            truth = Truth.of(folder, entry.layout)
    if truth:
        truth.check(found)
    if isinstance(entry.layout, Tree):
        tinyimagenet.check(folder, entry.layout, found)


def _check_unpacked(root: Path) -> None:
    """Raise `BadInput` if a class's archive lies among the class folders and its own folder is not there."""
    if packed := next((path for path in sorted(root.glob("n[0-9]*.tar")) if not (root / path.stem).is_dir()), None):
        raise BadInput(
            f"{packed} is a class that was not unpacked; type: mkdir {shlex.quote(str(packed.with_suffix('')))} && "
            f"tar -xf {shlex.quote(str(packed))} -C {shlex.quote(str(packed.with_suffix('')))}"
        )


def _classes(entry: Dataset, folder: Path, train: Path | None) -> tuple[str, ...] | None:
    """The training images' classes, if they are there."""
    if train is not None:
        return tuple(class_folders(train))
    if isinstance(entry.layout, Ilsvrc) and (own := _training(entry, entry.layout, folder)):
        return own.classes
    return None


def _training(entry: Dataset, layout: Ilsvrc, folder: Path) -> Listing | None:
    if archived := training(folder, layout):
        return archived
    flat = places.flat_folder(entry, "train", folder)
    return flat_training(flat) if flat else None


def _ilsvrc(entry: Dataset, layout: Ilsvrc, split: Split, folder: Path, train: Path | None) -> Listing | None:
    if split == "train":
        return _training(entry, layout, folder)
    flat = places.flat_folder(entry, "eval", folder)
    paths = () if flat else archives(folder, layout.eval)
    if not flat and not paths:
        return None
    return evaluation(flat, paths, Truth.of(folder, layout), _classes(entry, folder, train))
