"""A split of a data set, opened: what is in it, in how many channels, and whether it is the official one.

`make_loader` makes batches of it.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sslticket.data.augment import View
from sslticket.data.datasets import DATASETS
from sslticket.data.datasets.base import Dataset, ImageArrays, Listing, Split, check_part, path_safe
from sslticket.data.datasets.catalogue import get_dataset
from sslticket.data.datasets.locate import DatasetLocation, MissingSplit, find_dataset
from sslticket.data.decode import cached_image_array, image_reader
from sslticket.data.manifest import Manifest
from sslticket.data.subset_lists import read_lines
from sslticket.data.unreadable import UnreadableImages, log_unreadable
from sslticket.errors import BadInput

if TYPE_CHECKING:
    import torch

    from sslticket.data.loader import Loader, Sampler

SPLIT_SEED = 0
"""Seed of the one split into training and evaluation images that a set published without evaluation images has here."""


@dataclass(frozen=True, eq=False)
class DataSource:
    """A split of a data set, found; `dataclasses.replace` its manifest to use a part of it.

    Attributes:
        dataset: Data set that it is a split of.
        manifest: List of the images to use.
        images: Pixels of the whole split, (N, H, W, C) uint8; None where the images are files.
        unreadable: Reasons why images could not be read and are not in the manifest, by path.
        left_out: Entries among the images that are none, as `Listing` has them.
    """

    dataset: Dataset
    manifest: Manifest
    images: np.ndarray | None = None
    unreadable: Mapping[str, str] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()


def open_split(name: str, split: Split, data_root: Path | None = None) -> DataSource:
    """Find a data set and open one of its splits; needs no torch, and decodes no image files that are not packed.

    Args:
        name: Name of the data set, as `get_dataset` takes it.
        split: Split that is wanted, "train" or "eval".
        data_root: Folder to search; None searches $SSLTICKET_DATA and the system's folders, then downloads what
            torchvision can download. Sets that come inside a package are taken from there all the same.

    Raises:
        BadInput: If the name is unknown, nothing is found (naming every folder searched), or files are damaged.
    """
    entry = get_dataset(name)
    content = _open_content(entry, split, find_dataset(entry, data_root))
    manifest = _manifest_of(entry, split, content)
    if isinstance(content, ImageArrays):
        return DataSource(entry, manifest, content.images)
    if entry.kind == "files":
        return DataSource(entry, manifest, left_out=content.left_out)
    images, reasons = cached_image_array(content, entry.eval_view.size, entry.channels)
    frame = manifest.frame[~manifest.frame["file"].isin(list(reasons))].reset_index(drop=True)
    frame = frame.assign(item=np.arange(len(frame)))
    bad = {str(content.root / file): reason for file, reason in reasons.items()}
    log_unreadable(bad)
    return DataSource(entry, replace(manifest, frame=frame), images, bad, content.left_out)


def _open_content(entry: Dataset, split: Split, where: DatasetLocation) -> Listing | ImageArrays:
    """List or read a split's images; of a set without evaluation images, the seeded split's where it has one."""
    if entry.train_fraction is None:
        return where.open(entry, split)
    try:
        evaluation = where.open(entry, "eval")
    except MissingSplit:
        whole = where.open(entry, "train")
    else:
        return evaluation if split == "eval" else where.open(entry, "train")
    rows = _manifest_of(entry, "train", whole).stratified_rows(entry.train_fraction, SPLIT_SEED)
    if split == "eval":
        rows = np.setdiff1d(np.arange(len(whole.labels)), rows)
        if not len(rows):
            raise MissingSplit(f"{entry.name} has too few images of each class to set some aside for evaluation")
    if isinstance(whole, ImageArrays):
        return whole._replace(images=whole.images[rows], labels=whole.labels[rows])
    byte_ranges = None if whole.byte_ranges is None else whole.byte_ranges[rows]
    files = [whole.files[row] for row in rows.tolist()]
    return replace(whole, files=files, labels=whole.labels[rows], byte_ranges=byte_ranges)


def _manifest_of(entry: Dataset, split: Split, content: Listing | ImageArrays) -> Manifest:
    if isinstance(content, ImageArrays):
        frame = pd.DataFrame({"item": np.arange(len(content.images)), "label": content.labels})
        return Manifest(frame, content.classes, entry.name, split, None)
    # Objects: pyarrow's strings cannot hold a name that is no UTF-8.
    frame = pd.DataFrame({"file": pd.Series(content.files, dtype=object), "label": content.labels})
    if content.byte_ranges is not None:
        frame[["archive", "offset", "size"]] = content.byte_ranges
    return Manifest(frame, content.classes, entry.name, split, content.root, content.archives, content.preprocessing)


def make_loader(
    source: DataSource,
    views: tuple[View, ...],
    sampler: "Sampler",
    *,
    augment_seed: int,
    device: "torch.device",
    threads: int,
    max_bad_images: int,
    channels_last: bool = False,
) -> "Loader":
    """Make a loader of the source's images: from the device's own memory for arrays, through DALI for files.

    Args:
        source: The images.
        views: What is made of each image, one tensor in the batch per view.
        sampler: Which images make up a global batch, and which of them this process loads.
        augment_seed: Seed of the `augment` stream.
        device: Where the batches are wanted.
        threads: Threads for reading and decoding.
        max_bad_images: How many images may be unreadable before that is an error.
        channels_last: Memory format of the batches.

    Raises:
        BadInput: If more images are unreadable, or DALI is not installed.
    """
    unreadable = UnreadableImages(source.dataset.name, max_bad_images, source.unreadable)
    mean, std = source.dataset.mean, source.dataset.std
    # Imported here, so that a dry run, which only opens splits, needs neither torch nor DALI.
    if source.images is None:
        from sslticket.data.dali_loader import DaliDecoder, DaliLoader

        encoded = bool(source.manifest.archives)
        decoder = DaliDecoder(views, mean, std, device, threads, channels_last, encoded)
        return DaliLoader(source.manifest, decoder, sampler, augment_seed=augment_seed, unreadable=unreadable)
    from sslticket.data.loader import MemoryLoader

    return MemoryLoader(
        source.images,
        source.manifest,
        views,
        sampler,
        mean=mean,
        std=std,
        augment_seed=augment_seed,
        device=device,
        channels_last=channels_last,
        unreadable=unreadable,
    )


# Weights of red, green and blue in luma, ITU-R BT.601, as JPEG and every image library have it; in 16-bit fixed point.
_LUMA_FIXED_POINT = np.array([19595, 38470, 7471], np.uint32)
_CONVERTED_AT_ONCE = 4096  # images, as the whole set in 32 bits might not fit


def convert_channels(source: DataSource, channels: int) -> DataSource:
    """Convert images to another number of channels: gray ones are repeated, of colour ones the luma is taken.

    They are normalised as their own set is: a gray set's mean and deviation go to each channel; of a colour set's, the
    mean of the luma follows exactly and its deviation as if the channels rose and fell together, as in photographs they
    nearly do (of CIFAR-10, 0.247 where 0.239 is measured).

    Args:
        source: Images of 1 or 3 channels.
        channels: 1 or 3.

    Raises:
        BadInput: For another number of channels.
    """
    entry = source.dataset
    if entry.channels == channels:
        return source
    if {entry.channels, channels} != {1, 3}:
        raise BadInput(
            f"the channels of {entry.name} and of the network must be 1 or 3 to be converted, got {entry.channels} and "
            f"{channels}; give --channels 1 or 3"
        )
    if channels == 3:
        changed = replace(entry, channels=3, mean=entry.mean * 3, std=entry.std * 3)
        # Repeated in the loader's copy on the device only; here the three channels are one.
        images = None if source.images is None else np.broadcast_to(source.images, (*source.images.shape[:3], 3))
        return replace(source, dataset=changed, images=images)
    weights = _LUMA_FIXED_POINT / _LUMA_FIXED_POINT.sum()
    mean, std = (float(np.dot(weights, values)) for values in (entry.mean, entry.std))
    changed = replace(entry, channels=1, mean=(mean,), std=(std,))
    if source.images is None:
        return replace(source, dataset=changed)
    gray = np.empty((*source.images.shape[:3], 1), np.uint8)
    for start in range(0, len(gray), _CONVERTED_AT_ONCE):
        luma = source.images[start : start + _CONVERTED_AT_ONCE].astype(np.uint32) @ _LUMA_FIXED_POINT
        gray[start : start + _CONVERTED_AT_ONCE, ..., 0] = (luma + 0x8000) >> 16  # rounded half up
    return replace(source, dataset=changed, images=gray)


_HASHED_IMAGES = 64  # images whose bytes tell two sets with the same names apart; a few milliseconds


def official_image_count(entry: Dataset, split: str) -> int | None:
    """Return how many images a split has officially; None for one's own."""
    return None if entry.image_counts is None else entry.image_counts[0 if split == "train" else 1]


def count_images_and_classes(source: DataSource) -> tuple[int, int]:
    """Count the images of a split, those that cannot be read among them, and the classes that have any."""
    manifest = source.manifest
    return len(manifest) + len(source.unreadable), len(manifest.classes) - len(manifest.empty_classes)


def is_complete(source: DataSource) -> bool:
    """Whether a split has as many images and classes as are official, where either is."""
    images, classes = count_images_and_classes(source)
    official = official_image_count(source.dataset, source.manifest.split)
    return official in (None, images) and source.dataset.classes in (None, classes)


def describe_difference(source: DataSource) -> str:
    """Describe in a line what a split that is not complete has, and what it would have."""
    entry, split = source.dataset, source.manifest.split
    images, classes = count_images_and_classes(source)
    kind = "training" if split == "train" else "evaluation"
    where = f" in {source.manifest.root}" if source.manifest.root else ""
    official = (official_image_count(entry, split), entry.classes)
    expected = " of ".join("any number" if count is None else f"{count:,}" for count in official)
    return f"{entry.name}{where} has {images:,} {kind} images of {classes:,} classes, and officially {expected}"


def check_complete(sources: Sequence[DataSource], part: str | None) -> list[DataSource]:
    """Give the splits of a set the part's name, if the set is complete without one and not complete with one.

    Args:
        sources: The splits that were found, whole: before any half, subset or list.
        part: What the user calls images that are a part of the set, or other ones in its place.

    Raises:
        BadInput: If the counts are not the official ones and no part is named, or they are and one is; it names both.
    """
    entry = sources[0].dataset
    check_part(entry.name, part)
    odd = next((source for source in sources if not is_complete(source)), None)
    if odd is not None and part is None:
        raise BadInput(
            f"{describe_difference(odd)}; complete it (sslticket data verify {entry.name}), or name its part with "
            "--part NAME, such as --part flowers102"
        )
    if odd is None and part is not None:
        images, classes = count_images_and_classes(sources[0])
        raise BadInput(
            f"{entry.name} is whole, with the official {images:,} training images of {classes:,} classes, so "
            f"{part!r} is no part of it; leave --part out"
        )
    return [replace(source, manifest=replace(source.manifest, part=part)) for source in sources]


def hash_images(source: DataSource, lists: Iterable[Path] = ()) -> str:
    """Compute 16 hexadecimal digits that distinguish sets whose names do not, whatever the seed.

    They are over the list of images and labels, the bytes of some of the images, since two folders may have the same
    names in them, and the names in the lists that choose among them.

    Args:
        source: A whole split.
        lists: Files with one name a line, of the images that are used or whose labels are.

    Raises:
        BadInput: If a list cannot be read.
    """
    digest = hashlib.sha256(source.manifest.hash.encode())
    some = source.manifest.evenly_spaced(_HASHED_IMAGES)
    read = image_reader(some)
    for row in range(len(some)):
        content = read(row) if source.images is None else source.images[some.array_indices[row]].tobytes()
        digest.update(hashlib.sha256(content).digest())
    for path in lists:
        names = "\n".join(sorted({line.text for line in read_lines(path)}))
        digest.update(names.encode("utf-8", "surrogateescape") + b"\0")
    return digest.hexdigest()[:16]


def own_folder_name(source: DataSource) -> str:
    """Name one's own images: as their data set is called, or for the data set "folder", as the folder is.

    That is its own name, or the name above it where it is "train". One with the name of a known set, or of a half of
    one, is "folder-imagenet": nobody knows that it is that set.
    """
    if source.dataset.name != "folder":
        return source.dataset.folder_name
    assert source.manifest.root is not None, "images in folders are files"
    root = source.manifest.root.absolute()  # not resolved: a link's name is the one that people chose
    own = root.parent if root.name in source.dataset.train_folders else root
    name, sets = path_safe(own.name), DATASETS.names()
    known = name in sets or (name[-1:] in ("a", "b") and name[:-1] in sets)
    return "-".join(filter(None, ["folder" if known or not name else "", name]))
