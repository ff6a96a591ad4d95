"""Is a set of the catalogue the whole official one, or a part that the user has named? And which images are it?"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from sslticket.data.catalogue import DATASETS
from sslticket.data.dataset import Dataset
from sslticket.data.lists import lines
from sslticket.data.names import check_part, in_paths
from sslticket.data.opening import Source
from sslticket.data.reading import reader
from sslticket.errors import BadInput

_SAMPLED = 64  # images whose bytes tell two sets with the same names apart; a few milliseconds


def published(entry: Dataset, split: str) -> int | None:
    """How many images a split has officially; None for one's own."""
    return None if entry.images is None else entry.images[0 if split == "train" else 1]


def counts(source: Source) -> tuple[int, int]:
    """Images of a split, those that cannot be read among them, and classes that have any."""
    return len(source.manifest) + len(source.bad), len(source.manifest.classes) - len(source.manifest.empty)


def is_whole(source: Source) -> bool:
    """Whether a split has as many images and classes as the official one, or is one's own."""
    return (published(source.dataset, source.manifest.split), source.dataset.classes) in (
        (None, None),
        counts(source),
    )


def differs(source: Source) -> str:
    """What a split that is not whole has, and what it would have, for a person."""
    entry, split = source.dataset, source.manifest.split
    images, classes = counts(source)
    what = "training" if split == "train" else "evaluation"
    where = f" in {source.manifest.root}" if source.manifest.root else ""
    return (
        f"{entry.name}{where} has {images:,} {what} images of {classes:,} classes, and officially "
        f"{published(entry, split):,} of {entry.classes:,}"
    )


def checked(sources: Sequence[Source], part: str | None) -> list[Source]:
    """The splits of a set with the part's name, if it is whole without one and not whole with one.

    Args:
        sources: the splits that are there, whole: before any half, subset or list.
        part: what the user says of images that are a part of the set, or other ones in its place.

    Raises:
        BadInput: naming both counts, if they differ and no part is named, or agree and one is.
    """
    entry = sources[0].dataset
    check_part(entry.name, part)
    odd = next((source for source in sources if not is_whole(source)), None)
    if odd is not None and part is None:
        raise BadInput(
            f"{differs(odd)}; complete it (sslticket data verify {entry.name}), or say what part it is with --part "
            "NAME, such as --part flowers102"
        )
    if odd is None and part is not None:
        images, classes = counts(sources[0])
        raise BadInput(
            f"{entry.name} is whole, with the official {images:,} training images of {classes:,} classes, so "
            f"{part!r} is no part of it; leave --part out"
        )
    return [replace(source, manifest=replace(source.manifest, part=part)) for source in sources]


def images_hash(source: Source, lists: Iterable[Path] = ()) -> str:
    """16 hexadecimal digits by which sets are told apart whose names do not do that; no seed has a part in it.

    The list of images and labels, the bytes of some of the images, since two folders may have the same names in them,
    and the names in the lists that choose among them.

    Args:
        source: a whole split.
        lists: files with one name a line, of the images that are used or whose labels are.

    Raises:
        BadInput: if a list cannot be read.
    """
    digest = hashlib.sha256(source.manifest.hash.encode())
    some = source.manifest.thinned(_SAMPLED)
    read = reader(some)
    for row in range(len(some)):
        content = read(row) if source.images is None else source.images[some.items[row]].tobytes()
        digest.update(hashlib.sha256(content).digest())
    for path in lists:
        digest.update("\n".join(sorted({line.text for line in lines(path)})).encode("utf-8", "surrogateescape") + b"\0")
    return digest.hexdigest()[:16]


def folder_name(source: Source) -> str:
    """What a folder of one's own images is called: its own name, or the name above that where it is "train".

    One that has the name of a known set, or of a half of one, is "folder-imagenet": nobody knows that it is that set.
    """
    assert source.manifest.root is not None, "one's own images are files"
    root = source.manifest.root.absolute()  # not resolved: a link's name is the one that people chose
    own = root.parent if root.name in source.dataset.train_folders else root
    name = in_paths(own.name)
    known = name in DATASETS or (name[-1:] in ("a", "b") and name[:-1] in DATASETS)
    return "-".join(filter(None, ["folder" if known or not name else "", name]))
