"""Checks whether a data set is complete: its counts, its official files' MD5 sums, and its images decoded."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sslticket.data import shards
from sslticket.data.datasets import locate
from sslticket.data.datasets.base import SPLITS, Dataset, Split
from sslticket.data.datasets.catalogue import get_dataset
from sslticket.data.datasets.folders import describe_left_out
from sslticket.data.decode import ImageKind
from sslticket.data.source import DataSource, count_images_and_classes, is_complete, official_image_count, open_split
from sslticket.data.tar import TarReader
from sslticket.data.unreadable import Verdicts, abbreviate_classes
from sslticket.errors import BadInput

_READ_SIZE = 1 << 22


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
        yield Finding(f"{split}: no images of {abbreviate_classes(empty)}", ok=False)
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
