"""Opening a split of a data set: where it lies, what is in it, and the loader that makes batches of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sslticket.data import places
from sslticket.data.arrays import read_cifar, read_cifar_binary, read_idx, read_svhn
from sslticket.data.bad import BadImages, name_bad
from sslticket.data.catalogue import dataset
from sslticket.data.dataset import Dataset, Split
from sslticket.data.folders import Listing
from sslticket.data.layouts import Cifar, Idx, Mat
from sslticket.data.manifest import Manifest
from sslticket.data.order import Order
from sslticket.data.packing import packed
from sslticket.data.splits import split_listing
from sslticket.data.tables import read_csv, read_npz
from sslticket.data.views import View

if TYPE_CHECKING:
    import torch

    from sslticket.data.loader import Loader

DIGITS_SEED = 0  # of the one split into 80% training and 20% evaluation images that digits, published whole, has here


@dataclass(frozen=True, eq=False)
class Source:
    """A split of a data set, found; `dataclasses.replace` its manifest to use a part of it.

    Attributes:
        dataset: the catalogue's entry.
        manifest: the images to use.
        images: the whole split's pixels, (N, H, W, C) uint8; None where the images are files.
        bad: images that could not be read and are not in the manifest, by path, and why.
        left_out: what lies among the images and is none of them, as `folders.Listing` has it.
    """

    dataset: Dataset
    manifest: Manifest
    images: np.ndarray | None = None
    bad: Mapping[str, str] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()


def open_split(name: str, split: Split, data_root: Path | None = None) -> Source:
    """Find a data set and open one of its splits; needs no torch, and decodes no image files that are not packed.

    Args:
        name: in the catalogue.
        split: "train" or "eval".
        data_root: where it lies; None looks in $SSLTICKET_DATA and the system's places, then downloads what torchvision
            can download. Sets that come inside a package are taken from there all the same.

    Raises:
        BadInput: if the name is unknown, nothing is found (naming every place looked at), or files are damaged.
    """
    entry = dataset(name)
    if entry.layout == "sklearn":
        return _digits(entry, split)
    where = places.find(entry, data_root)
    if where.layout == "arrays":
        return _arrays(entry, split, where.folder)
    return _files(entry, split, split_listing(entry, split, where))


def loader(
    source: Source,
    views: tuple[View, ...],
    order: Order,
    *,
    augment_seed: int,
    device: "torch.device",
    threads: int,
    max_bad_images: int,
    channels_last: bool = False,
) -> "Loader":
    """Batches of the source's images: from the device's own memory for arrays, through DALI for files.

    Args:
        source: the images.
        views: what to make of each image, one tensor in the batch per view.
        order: which images make up a global batch, and this process's share.
        augment_seed: of the `augment` stream.
        device: where the batches are wanted.
        threads: for reading and decoding.
        max_bad_images: how many images may be unreadable before that is an error.
        channels_last: memory format of the batches.

    Raises:
        BadInput: if more images are unreadable, or DALI is not installed.
    """
    bad = BadImages(source.dataset.name, max_bad_images, source.bad)
    mean, std = source.dataset.mean, source.dataset.std
    # Imported here, so that a dry run, which only opens splits, needs neither torch nor DALI.
    if source.images is None:
        from sslticket.data.dali import Decoder
        from sslticket.data.files import FileLoader

        encoded = bool(source.manifest.archives)
        decoder = Decoder(views, mean, std, device, threads, channels_last, encoded)
        return FileLoader(source.manifest, decoder, order, augment_seed=augment_seed, bad=bad)
    from sslticket.data.resident import ResidentLoader

    return ResidentLoader(
        source.images,
        source.manifest,
        views,
        order,
        colours=(mean, std),
        augment_seed=augment_seed,
        device=device,
        channels_last=channels_last,
        bad=bad,
    )


def _digits(entry: Dataset, split: Split) -> Source:
    """scikit-learn's digits, pixels of 0 to 16 spread over 0 to 255."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    # 255 / 16 is no whole number: halves are rounded up.
    images = np.floor(digits.images * 255 / 16 + 0.5).astype(np.uint8)[..., None]
    whole = _of_arrays(entry, "train", images, digits.target.astype(np.int64), entry.class_names)
    items = whole.manifest.subset(0.8, seed=DIGITS_SEED).items
    if split == "eval":
        items = np.setdiff1d(np.arange(len(images)), items)
    return _of_arrays(entry, split, images[items], digits.target[items].astype(np.int64), entry.class_names)


def _arrays(entry: Dataset, split: Split, folder: Path) -> Source:
    layout = entry.layout
    assert isinstance(layout, Cifar | Idx | Mat), f"{entry.name} has no arrays to read"
    files = layout.train if split == "train" else layout.eval
    if isinstance(layout, Cifar):
        if any((folder / file).is_file() for file in files) or not (folder / f"{files[0]}.bin").is_file():
            return _of_arrays(entry, split, *read_cifar(folder, files, layout.labels, layout.names))
        binary = [f"{file}.bin" for file in files]
        return _of_arrays(entry, split, *read_cifar_binary(folder, binary, layout.binary[1]))
    if isinstance(layout, Mat):
        return _of_arrays(entry, split, *read_svhn([folder / file for file in files]), entry.class_names)
    return _of_arrays(entry, split, *_digit_images(layout, folder, split, len(entry.class_names)), entry.class_names)


def _digit_images(layout: Idx, folder: Path, split: Split, classes: int) -> tuple[np.ndarray, np.ndarray]:
    files = layout.train if split == "train" else layout.eval
    spelled = [[path for name in layout.spellings(file) if (path := folder / name).is_file()] for file in files]
    table = folder / layout.tables[split == "eval"]
    if not any(spelled) and table.is_file():
        return read_csv(table, classes)
    if not any(spelled) and layout.npz and (folder / layout.npz).is_file():
        return read_npz(folder / layout.npz, split, classes)
    images, labels = (found[0] if found else folder / file for found, file in zip(spelled, files, strict=True))
    return read_idx(images, labels, classes)


def _of_arrays(
    entry: Dataset, split: Split, images: np.ndarray, labels: np.ndarray, classes: tuple[str, ...]
) -> Source:
    frame = pd.DataFrame({"item": np.arange(len(images)), "label": labels})
    return Source(entry, Manifest(frame, classes, entry.name, split, None), images)


def _files(entry: Dataset, split: Split, found: Listing) -> Source:
    # Objects: pyarrow's strings cannot hold a name that is no UTF-8.
    frame = pd.DataFrame({"file": pd.Series(found.files, dtype=object), "label": found.labels})
    if found.places is not None:
        frame[["archive", "offset", "size"]] = found.places
    manifest = Manifest(frame, found.classes, entry.name, split, found.root, found.archives, found.form)
    if entry.kind == "files":
        return Source(entry, manifest, left_out=found.left_out)
    images, reasons = packed(found, entry.eval.size, entry.channels)
    frame = frame[~frame["file"].isin(list(reasons))].reset_index(drop=True)
    frame = frame.assign(item=np.arange(len(frame)))
    bad = {str(found.root / file): reason for file, reason in reasons.items()}
    name_bad(bad)
    return Source(entry, replace(manifest, frame=frame), images, bad, found.left_out)
