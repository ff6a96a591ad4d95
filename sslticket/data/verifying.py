"""Is a data set whole? Its counts against the catalogue's, its official files' MD5 sums, and its images decoded."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sslticket.data import checksums, places, shards
from sslticket.data.archives import Archives
from sslticket.data.bad import some_classes
from sslticket.data.catalogue import dataset
from sslticket.data.dataset import SPLITS, Dataset, Split
from sslticket.data.filelists import class_names, list_file
from sslticket.data.folders import left_out
from sslticket.data.judging import Kind
from sslticket.data.layouts import Ilsvrc, Lists
from sslticket.data.opening import Source, open_split
from sslticket.data.parts import counts, is_whole, published
from sslticket.data.truth import Truth
from sslticket.data.verdicts import Verdicts
from sslticket.errors import BadInput

_JUDGED_AT_ONCE = 64

Stage = Callable[[str, int], Callable[[int], object]]
"""Called with what begins and how much of it there is; returns what is called with how much is done."""


class Finding(NamedTuple):
    """One thing that was looked at.

    Attributes:
        text: what it is, in a line.
        good: whether it is as it should be.
    """

    text: str
    good: bool


def verify(
    name: str, data_root: Path | None, *, decode: int | None, md5: bool, threads: int, stage: Stage
) -> Iterator[Finding]:
    """Look at a data set that is there; nothing is downloaded.

    Args:
        name: in the catalogue.
        data_root: where it lies; None looks in the usual places.
        decode: images of each split to decode, evenly spread; None decodes all.
        md5: compare the MD5 sums of the official files that are there.
        threads: for decoding.
        stage: told what goes on.

    Raises:
        BadInput: if the set is nowhere.
    """
    entry = dataset(name)
    found = None if entry.layout == "sklearn" else places.look(entry, data_root)
    if found is None and entry.layout != "sklearn":
        raise places.nowhere(entry, data_root)
    if found and md5:
        yield from _sums(entry, found.folder, stage)
    packed = found.folder if found and md5 and found.layout == "shards" else None
    known, sources = None, {}
    errors: dict[str, bool] = {}  # by text: a damaged file may stand in the way of both splits
    try:
        known = _class_names(entry, found.folder) if found else None
    except BadInput as error:
        errors[str(error)] = False
    for split in SPLITS:
        try:
            sources[split] = open_split(name, split, data_root)
        except BadInput as error:
            errors[str(error)] = isinstance(error, places.MissingSplit) and entry.images is None
    yield from (Finding(*error) for error in errors.items())
    for split, source in sources.items():
        yield from _counts(entry, split, source)
        yield from _names(split, source, known)
        if packed:
            yield from _packed(split, packed, stage)
    for split, source in sources.items():
        yield from _decoded(split, source, decode, threads, stage)


def _sums(entry: Dataset, folder: Path, stage: Stage) -> Iterator[Finding]:
    for path, expected in checksums.official(entry.name, folder).items():
        try:
            checksums.check(path, expected, stage(path.name, path.stat().st_size))
            yield Finding(f"{path} has the official MD5 sum", good=True)
        except BadInput as error:
            yield Finding(str(error), good=False)


def _packed(split: Split, folder: Path, stage: Stage) -> Iterator[Finding]:
    damage = shards.damage(folder, split, stage)
    if damage is None:
        yield Finding(f"{split}: packed by a version that kept no sums; shards are of the right lengths", good=True)
        return
    yield from (Finding(text, good=False) for text in damage)
    if not damage:
        yield Finding(f"{split}: all shards are what was packed", good=True)


def _counts(entry: Dataset, split: Split, source: Source) -> Iterator[Finding]:
    each, (images, _) = source.manifest.counts(), counts(source)
    found = f"{split}: {images:,} images of {len(each):,} classes, {each.min():,} to {each.max():,} each"
    if not (whole := is_whole(source)):
        found += f"; published are {published(entry, split):,} images of {entry.classes:,} classes"
    yield Finding(found, good=whole)
    if empty := source.manifest.empty:
        yield Finding(f"{split}: no images of {some_classes(empty)}", good=False)
    if told := left_out(source.left_out):
        yield Finding(f"{split}: {told}", good=True)


def _class_names(entry: Dataset, folder: Path) -> tuple[str, ...] | None:
    """The published classes, where something in the folder tells them."""
    if isinstance(entry.layout, Ilsvrc) and (truth := Truth.of(folder, entry.layout)):
        return truth.classes
    if isinstance(entry.layout, Lists) and list_file(folder, entry.layout, entry.layout.classes).is_file():
        return class_names(folder, entry.layout)
    return None


def _names(split: Split, source: Source, known: tuple[str, ...] | None) -> Iterator[Finding]:
    if known is None:
        return
    if strange := set(source.manifest.classes) - set(known):
        yield Finding(f"{split}: none of the published classes: {some_classes(strange)}", good=False)
    if missing := set(known) - set(source.manifest.classes):
        yield Finding(f"{split}: missing: {some_classes(missing)}", good=False)


def _decoded(split: Split, source: Source, most: int | None, threads: int, stage: Stage) -> Iterator[Finding]:
    if source.images is None and most == 0:
        return
    bad, pillows, manifest = dict(source.bad), 0, source.manifest if most is None else source.manifest.thinned(most)
    if source.images is None and len(manifest):
        verdicts = Verdicts(manifest, threads, Archives(manifest.archives) if manifest.archives else None)
        advance = stage(f"{split} images", len(manifest))
        for rows in np.split(np.arange(len(manifest)), range(_JUDGED_AT_ONCE, len(manifest), _JUDGED_AT_ONCE)):
            kinds = verdicts.kinds(rows)
            bad |= {str(manifest.path(row)): verdicts.reason(row) for row in rows[kinds == Kind.BAD].tolist()}
            pillows += int((kinds == Kind.PILLOW).sum())
            advance(len(rows))
        verdicts.save()
    what = "kept whole in memory" if source.images is not None else f"{len(manifest):,} images decoded"
    yield Finding(f"{split}: {what}, {len(bad):,} cannot be read", good=not bad)
    yield from (Finding(f"{path}: {reason}", good=False) for path, reason in sorted(bad.items()))
    if pillows:
        yield Finding(f"{split}: {pillows:,} are of kinds that Pillow decodes, on the CPU", good=True)
