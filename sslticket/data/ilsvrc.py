"""ImageNet's images where they are in no class folders: in the published archives, or flat in a folder.

What an image shows, its name tells: the class folder in an archive, or the name itself, or, for an evaluation image,
its number, which the ground truth knows. Neither its place nor the number of images has a part in it.
"""

import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sslticket.data.archives import Held, Member, held
from sslticket.data.folders import SUFFIXES, Listing, contents, numbered
from sslticket.data.layouts import Ilsvrc
from sslticket.data.listings import Stamp, joined, kept, split
from sslticket.data.truth import WNID, Truth, official
from sslticket.errors import BadInput

# "n01440764_10026.JPEG" is the official name, "n01440764_10026_n01440764.JPEG" Hugging Face's.
_TRAINING = re.compile(r"(?P<name>(?P<wnid>n\d{8})_\d+)(?:_(?P<again>n\d{8}))?(?P<end>\.\w+)")


class _Image(NamedTuple):
    """An image: the name by which it is known, its class, and where it is, if that is in an archive."""

    name: str
    wnid: str
    place: tuple[int, int, int] = (0, 0, 0)


def archives(folder: Path, patterns: Iterable[str]) -> tuple[Path, ...]:
    """The archives of a split in a folder, in the first of the ways in which they may lie there."""
    ways = (sorted(path for path in folder.glob(pattern) if path.is_file()) for pattern in patterns)
    return tuple(next(filter(None, ways), ()))


def training(folder: Path, layout: Ilsvrc) -> Listing | None:
    """The training images in a folder's archives, to be read in place, as class folders would list them; None without.

    Raises:
        BadInput: if an archive is damaged, or an image's class cannot be told.
    """
    paths = archives(folder, layout.train)
    if not paths:
        return None
    found, left_out = archived(paths)
    images = [_Image(*_class_and_name(paths[number], member), (number, *member[1:])) for number, member in found]
    return _listing(paths[0], images, None, paths, left_out)


def flat_training(folder: Path) -> Listing:
    """The training images that lie in a folder itself and whose names tell their classes.

    Raises:
        BadInput: naming a file whose name does not.
    """
    names, left_out = _names(folder)
    images = [_Image(name, _wnid(folder, name)) for name in names]
    return _listing(folder, images, None, (), left_out)


def evaluation(
    folder: Path | None, paths: Sequence[Path], truth: Truth | None, classes: tuple[str, ...] | None
) -> Listing | None:
    """The evaluation images, labelled by the numbers in their names, as class folders would list them.

    Args:
        folder: that the images lie flat in; None where they are in archives.
        paths: of the archives, to be read in place.
        truth: what the images show; None where only their own names can tell it.
        classes: the training images' classes; None takes the ground truth's.

    Returns:
        None if the names do not tell what the images show, and nothing else does.

    Raises:
        BadInput: if an image has no number or one that the ground truth does not know, two have one number, or a class
            is not among `classes`.
    """
    place = folder or paths[0]
    if folder:
        names, left_out = _names(folder)
        found = [(name, (0, 0, 0)) for name in names]
    else:
        inside, left_out = archived(paths)
        found = [(member.name, (number, *member[1:])) for number, member in inside]
    images, seen = [], dict[int, str]()
    for stored, where in found:
        above, _, name = stored.rpartition("/")
        known = official(name)
        if known is None:
            raise BadInput(
                f"{place} has {name}, which is none of ImageNet's evaluation images: their names have a number, such "
                "as ILSVRC2012_val_00000001.JPEG; take it away"
            )
        number, wnid = known
        if WNID.fullmatch(above):  # an archive that was packed anew, of class folders
            if wnid not in (None, above):
                raise BadInput(f"{place} has {stored}, whose folder is not that of its class; pack it anew")
            wnid = above
        if number in seen:
            raise BadInput(f"{place} has image {number} twice, as {seen[number]} and {name}; take one of them away")
        seen[number] = name
        if wnid is None and truth is None:
            return None
        told = truth.wnid(name, number) if truth else wnid
        if wnid not in (None, told):
            raise BadInput(f"{place} has {stored}, which {truth and truth.place} gives class {told}; get both again")
        images.append(_Image(name if folder else f"{told}/{_official_name(name)}", str(told), where))
    order = classes or (truth.classes if truth else None)
    if order and (strange := sorted({image.wnid for image in images} - set(order))):
        raise BadInput(f"{place} has class {strange[0]!r}, which the training images do not; add its training images")
    return _listing(place, images, order, () if folder else tuple(paths), left_out)


def is_flat_training(folder: Path) -> bool:
    """Whether images that lie in a folder itself have names that tell their classes."""
    return folder.is_dir() and any(_TRAINING.fullmatch(path.name) for path in folder.iterdir())


def is_flat_evaluation(folder: Path) -> bool:
    """Whether images that lie in a folder itself have the numbers of evaluation images in their names."""
    return folder.is_dir() and any(official(path.name) for path in folder.iterdir())


def _listing(
    place: Path,
    images: list[_Image],
    classes: tuple[str, ...] | None,
    paths: tuple[Path, ...],
    left_out: tuple[str, ...],
) -> Listing:
    """Images by class and name; those of one name are refused."""
    if not images:
        raise BadInput(f"{place} holds no images; download it again")
    images = sorted(images, key=lambda image: (image.wnid, image.name))
    names = [image.name for image in images]
    if twice := next((one for one, other in pairwise(names) if one == other), None):
        raise BadInput(f"{place} holds {twice} twice; download it again, or take one of them away")
    order = numbered(place, (image.wnid for image in images), classes)
    number = {name: label for label, name in enumerate(order)}
    labels = np.array([number[image.wnid] for image in images], np.int64)
    places = np.array([image.place for image in images], np.int64) if paths else None
    return Listing(place, order, names, labels, paths, places, left_out=left_out)


def _class_and_name(archive: Path, member: Member) -> tuple[str, str]:
    """The name of a training image as class folders have it, and its class."""
    *folders, base = member.name.split("/")
    if (found := _TRAINING.fullmatch(base)) and (found["again"] or not folders):
        wnid = _wnid(archive, base)
        return f"{wnid}/{found['name']}{found['end']}", wnid
    if not folders:
        raise BadInput(f"{archive} has {base!r} in no folder or archive of a class, so it has no label; pack it anew")
    return member.name, folders[-1]


def _wnid(place: Path, name: str) -> str:
    found = _TRAINING.fullmatch(name)
    if not found or found["again"] not in (None, found["wnid"]):
        raise BadInput(
            f"{place} has {name}, whose name does not tell one class as n01440764_10026.JPEG does; put it in the "
            "folder of its class, or take it away"
        )
    return found["wnid"]


def _official_name(name: str) -> str:
    """The name without the class that Hugging Face puts behind it."""
    stem, dot, end = name.rpartition(".")
    return f"{re.sub(r'_n[0-9]{8}$', '', stem)}{dot}{end}"


def _names(folder: Path) -> tuple[list[str], tuple[str, ...]]:
    """Names of the images in a folder itself, and of what else is there."""
    found = contents(folder)
    return found.images, (*found.others, *(f"{name}/" for name in found.folders))


def archived(paths: Sequence[Path], *, classed: bool = True) -> tuple[list[tuple[int, Member]], tuple[str, ...]]:
    """The images in archives, each with its archive's number, and what else they hold; see `archives.held`."""
    each = [_kept(path, classed) for path in paths]
    images = [(number, member) for number, one in enumerate(each) for member in one.images]
    return images, tuple(name for one in each for name in one.left_out)


def _kept(archive: Path, classed: bool) -> Held:
    """The archive's images, from the cache if they were listed before.

    Raises:
        BadInput: if there are none, or as `archives.held`.
    """

    def make() -> dict[str, np.ndarray]:
        images, left_out = held(archive, classed=classed)
        if not images:
            raise BadInput(f"no images in {archive}; its members need names with {' '.join(SUFFIXES)}")
        names, offsets, sizes = zip(*images, strict=True)
        return {"names": joined(names), "places": np.array([offsets, sizes], np.int64), "left_out": joined(left_out)}

    stamp = Stamp.of([archive])
    arrays = kept(archive, stamp if classed else Stamp(f"{stamp.text}\nas stored", stamp.latest), make)
    images = [Member(*each) for each in zip(split(arrays["names"]), *arrays["places"].tolist(), strict=True)]
    return Held(images, split(arrays["left_out"]))
