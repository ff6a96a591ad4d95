"""A split of a data set, opened: what is in it, in how many channels, and whether it is complete.

`open_split` finds it, `make_loader` makes batches of it, `check_complete` refuses a set that is not the official one,
and `verify_dataset` checks its counts, its official files' MD5 sums, and that its images can be decoded.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from sslticket.data import shards
from sslticket.data.augment import View
from sslticket.data.datasets import locate
from sslticket.data.datasets.base import SPLITS, Dataset, ImageArrays, Listing, Split, check_part
from sslticket.data.datasets.catalogue import get_dataset
from sslticket.data.datasets.folders import describe_left_out
from sslticket.data.datasets.locate import DatasetLocation, MissingSplit, find_dataset
from sslticket.data.decode import Decoder, ImageKind, cached_image_array, choose_decoder
from sslticket.data.manifest import ImageCounts, Manifest
from sslticket.data.tar import TarReader
from sslticket.data.unreadable import UnreadableImages, Verdicts, abbreviate_classes, log_unreadable
from sslticket.errors import BadInput

if TYPE_CHECKING:
    import torch

    from sslticket.data.decoded_images import FileDecoder
    from sslticket.data.loader import Loader, Sampler


class UnknownCounts(BadInput):
    """How many images there are is known to nobody before they are opened."""


PLANNED = "planned from the catalogue's counts: the images are not here"
"""What a plan says that was made without images."""
SPLIT_SEED = 0
"""Seed of the one split into training and evaluation images that a set published without evaluation images has here."""
_READ_SIZE = 1 << 22


@dataclass(frozen=True, eq=False)
class DataSource:
    """A split of a data set, found; `dataclasses.replace` its manifest to use a part of it.

    Attributes:
        dataset: Data set that it is a split of.
        manifest: List of the images to use.
        images: Pixels of the whole split, (N, H, W, C) uint8; None where the images are files.
        unreadable: Reasons why images could not be read and are not in the manifest, by path.
        left_out: Entries among the images that are none, as `Listing` has them.
        planned: For a plan where the images are not here, what says so; "" where they are.
    """

    dataset: Dataset
    manifest: Manifest
    images: np.ndarray | None = None
    unreadable: Mapping[str, str] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    planned: str = ""


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


def is_here(name: str, data_root: Path | None) -> bool:
    """Whether a data set is on this machine; nothing is downloaded."""
    return locate.find_local_dataset(get_dataset(name), data_root) is not None


def known_counts(name: str, split: Split, data_root: Path | None, part: str | None = None) -> ImageCounts:
    """Return how many images a split has, for a plan: as published, else as listed where the images are here.

    Raises:
        UnknownCounts: If nobody publishes any, as of a user's own images or of a part of a set, and they are not here;
            it says where they were looked for.
    """
    entry = get_dataset(name)
    if not part and (official := ImageCounts.official(entry, split)) is not None:
        return official
    if (where := locate.find_local_dataset(entry, data_root)) is not None:
        return _listed_counts(entry, split, where)
    missing = locate.dataset_not_found(entry, data_root)
    raise UnknownCounts(f"{missing} (how many there are{f' in {part}' if part else ''}, nothing else tells a plan)")


@cache
def _listed_counts(entry: Dataset, split: Split, where: DatasetLocation) -> ImageCounts:
    """The images of a split that is here, by class; a plan of many searches lists a folder once."""
    manifest = _manifest_of(entry, split, _open_content(entry, split, where))
    per_class = np.bincount(manifest.labels, minlength=len(manifest.classes))
    return ImageCounts(per_class, fewest=int(per_class.min(initial=0)))


def made_up_split(entry: Dataset, manifest: Manifest) -> DataSource:
    """Make up a split of a data set that is not here, for a plan: its images have a number and a size, and no pixels.

    Args:
        entry: Data set.
        manifest: List of the images, see `ImageCounts.manifest`.
    """
    images, side = None, entry.eval_view.size
    if entry.kind == "arrays":
        images = np.broadcast_to(np.zeros((), np.uint8), (len(manifest), side, side, entry.channels))
    return DataSource(entry, manifest, images, planned=PLANNED)


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
    keep_decoded: float | None = None,
    decoder: Decoder | None = None,
) -> "Loader":
    """Make a loader of the source's images: from the device's own memory for arrays, through a decoder for files.

    Args:
        source: The images.
        views: What is made of each image, one tensor in the batch per view.
        sampler: Which images make up a global batch, and which of them this process loads.
        augment_seed: Seed of the `augment` stream.
        device: Where the batches are wanted.
        threads: Threads for reading and decoding.
        max_bad_images: How many images may be unreadable before that is an error.
        channels_last: Memory format of the batches.
        keep_decoded: Gigabytes of decoded image files that are kept, as `RuntimeConfig` has them. Where some are given,
            images for a CUDA device are decoded on the host.
        decoder: What decodes image files; None for the machine's own, see `choose_decoder`.

    Raises:
        BadInput: If more images are unreadable, or the decoder is not installed.
    """
    unreadable = UnreadableImages(source.dataset.name, max_bad_images, source.unreadable)
    mean, std = source.dataset.mean, source.dataset.std
    # Imported here, so that a dry run, which only opens splits, needs neither torch nor a decoder.
    if source.images is None:
        from sslticket.data.file_loader import FileLoader

        encoded, budget = bool(source.manifest.archives), None if keep_decoded is None else 1e9 * keep_decoded
        how = {"views": views, "mean": mean, "std": std, "device": device, "threads": threads}
        how |= {"channels_last": channels_last, "encoded": encoded}
        return FileLoader(
            source.manifest,
            _make_decoder(choose_decoder(decoder, device.type), how, on_host=bool(keep_decoded)),
            sampler,
            augment_seed=augment_seed,
            unreadable=unreadable,
            budget=budget,
        )
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


def _make_decoder(name: Decoder, how: Mapping[str, Any], *, on_host: bool) -> "FileDecoder":
    """The decoder of that name; neither is imported where the other decodes."""
    if name == "dali":
        from sslticket.data.dali_decoder import DaliDecoder

        return DaliDecoder(**how, on_host=on_host)
    from sslticket.data.torchvision_decoder import TorchvisionDecoder

    return TorchvisionDecoder(**how)


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
    if source.planned:
        return replace(source, dataset=changed, images=source.images[..., :1])
    gray = np.empty((*source.images.shape[:3], 1), np.uint8)
    for start in range(0, len(gray), _CONVERTED_AT_ONCE):
        luma = source.images[start : start + _CONVERTED_AT_ONCE].astype(np.uint32) @ _LUMA_FIXED_POINT
        gray[start : start + _CONVERTED_AT_ONCE, ..., 0] = (luma + 0x8000) >> 16  # rounded half up
    return replace(source, dataset=changed, images=gray)


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


def check_md5(path: Path, expected: tuple[str, ...], advance: Callable[[int], object]) -> None:
    """Compare a file's MD5 sum.

    Args:
        path: Path of the file.
        expected: The sums it may have, 32 hexadecimal digits each, the official one first.
        advance: Called with the number of bytes read.

    Raises:
        BadInput: If the sum is another, or the file cannot be read.
    """
    digest = hashlib.md5(usedforsecurity=False)
    try:
        with path.open("rb") as file:
            while chunk := file.read(_READ_SIZE):
                digest.update(chunk)
                advance(len(chunk))
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror}") from error
    if digest.hexdigest() not in expected:
        raise BadInput(
            f"{path} has the MD5 sum {digest.hexdigest()}, the official file {expected[0]}; it is truncated, damaged "
            "or another file: download it again"
        )


_DECODED_AT_ONCE = 64

ProgressStage = Callable[[str, int], Callable[[int], object]]
"""A function called with what begins and how much of it there is; it returns what is called with how much is done."""


class Finding(NamedTuple):
    """The result of one check.

    Attributes:
        text: What was found, in a line.
        ok: Whether it is as it should be.
    """

    text: str
    ok: bool


def verify_dataset(
    name: str, data_root: Path | None, *, decode: int | None, md5: bool, threads: int, stage: ProgressStage
) -> Iterator[Finding]:
    """Check a data set that is on this machine; nothing is downloaded.

    Args:
        name: Name of the data set, in the catalogue.
        data_root: Folder that it lies in; None searches the usual folders.
        decode: Images of each split to decode, evenly spread; None decodes all.
        md5: Whether the MD5 sums of the official files that are there are compared.
        threads: Number of threads that decode.
        stage: Progress of the checks.

    Yields:
        The finding of each check.

    Raises:
        BadInput: If the set is nowhere.
    """
    entry = get_dataset(name)
    found = locate.find_local_dataset(entry, data_root)
    if found is None:
        raise locate.dataset_not_found(entry, data_root)
    if md5:
        yield from _check_md5_sums(entry, found.folder, stage)
    packed = found.folder if md5 and isinstance(found.layout, locate.ShardsLayout) else None
    known, sources = None, {}
    errors: dict[str, bool] = {}  # by text: a damaged file may stand in the way of both splits
    try:
        known = entry.layout.published_classes(found.folder)
    except BadInput as error:
        errors[str(error)] = False
    for split in SPLITS:
        try:
            sources[split] = open_split(name, split, data_root)
        except BadInput as error:
            errors[str(error)] = isinstance(error, locate.MissingSplit) and entry.image_counts is None
    yield from (Finding(*error) for error in errors.items())
    for split, source in sources.items():
        yield from _check_counts(entry, split, source)
        yield from _check_class_names(split, source, known)
        if packed:
            yield from _check_shards(split, packed, stage)
    for split, source in sources.items():
        yield from _check_decoding(split, source, decode, threads, stage)


def _check_md5_sums(entry: Dataset, folder: Path, stage: ProgressStage) -> Iterator[Finding]:
    for path, expected in entry.layout.checksums(folder).items():
        try:
            check_md5(path, expected, stage(path.name, path.stat().st_size))
            yield Finding(f"{path} has the official MD5 sum", ok=True)
        except BadInput as error:
            yield Finding(str(error), ok=False)


def _check_shards(split: Split, folder: Path, stage: ProgressStage) -> Iterator[Finding]:
    damage = shards.find_shard_damage(folder, split, stage)
    if damage is None:
        yield Finding(f"{split}: packed by a version that kept no sums; shards are of the right lengths", ok=True)
        return
    yield from (Finding(text, ok=False) for text in damage)
    if not damage:
        yield Finding(f"{split}: all shards are what was packed", ok=True)


def _check_counts(entry: Dataset, split: Split, source: DataSource) -> Iterator[Finding]:
    counts, (images, _) = source.manifest.class_counts(), count_images_and_classes(source)
    text = f"{split}: {images:,} images of {len(counts):,} classes, {counts.min():,} to {counts.max():,} each"
    if not (complete := is_complete(source)):
        official = (official_image_count(entry, split), entry.classes)
        published = ["any number of" if count is None else f"{count:,}" for count in official]
        text += f"; published are {published[0]} images of {published[1]} classes"
    yield Finding(text, ok=complete)
    if empty := source.manifest.empty_classes:
        few = split == "eval" and entry.train_fraction is not None  # a class of an image or two has none to set aside
        why = ": too few to set one aside" if few else ""
        yield Finding(f"{split}: no images of {abbreviate_classes(empty)}{why}", ok=few)
    if left_out := describe_left_out(source.left_out):
        yield Finding(f"{split}: {left_out}", ok=True)


def _check_class_names(split: Split, source: DataSource, known: tuple[str, ...] | None) -> Iterator[Finding]:
    if known is None:
        return
    if strange := set(source.manifest.classes) - set(known):
        yield Finding(f"{split}: none of the published classes: {abbreviate_classes(strange)}", ok=False)
    if missing := set(known) - set(source.manifest.classes):
        yield Finding(f"{split}: missing: {abbreviate_classes(missing)}", ok=False)


def _check_decoding(
    split: Split, source: DataSource, most: int | None, threads: int, stage: ProgressStage
) -> Iterator[Finding]:
    if source.images is None and most == 0:
        return
    manifest = source.manifest if most is None else source.manifest.evenly_spaced(most)
    reasons, pillows = dict(source.unreadable), 0
    if source.images is None and len(manifest):
        verdicts = Verdicts(manifest, threads, TarReader(manifest.archives) if manifest.archives else None)
        advance = stage(f"{split} images", len(manifest))
        for rows in np.split(np.arange(len(manifest)), range(_DECODED_AT_ONCE, len(manifest), _DECODED_AT_ONCE)):
            kinds = verdicts.kinds(rows)
            unreadable = rows[kinds == ImageKind.UNREADABLE].tolist()
            reasons |= {str(manifest.image_path(row)): verdicts.reasons[row] for row in unreadable}
            pillows += int((kinds == ImageKind.PILLOW).sum())
            advance(len(rows))
        verdicts.save()
    what = "kept whole in memory" if source.images is not None else f"{len(manifest):,} images decoded"
    yield Finding(f"{split}: {what}, {len(reasons):,} cannot be read", ok=not reasons)
    yield from (Finding(f"{path}: {reason}", ok=False) for path, reason in sorted(reasons.items()))
    if pillows:
        yield Finding(f"{split}: {pillows:,} are of kinds that Pillow decodes, on the CPU", ok=True)
