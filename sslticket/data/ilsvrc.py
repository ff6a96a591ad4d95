"""ImageNet as it is downloaded: archives read in place, and evaluation images in no class folders."""

import io
import tarfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from sslticket.data.archives import Held, Member, held
from sslticket.data.folders import SUFFIXES, Listing, image_names, numbered
from sslticket.data.layouts import Ilsvrc
from sslticket.data.listings import Stamp, joined, kept, split
from sslticket.errors import BadInput, one_line


@dataclass(frozen=True)
class Devkit:
    """What the development kit tells.

    Attributes:
        wnids: the WordNet names of the classes, by their number, from 1 on.
        truth: the number of the class of each evaluation image, in the order of the images' names.
    """

    wnids: dict[int, str]
    truth: tuple[int, ...]

    @classmethod
    def of(cls, folder: Path, layout: Ilsvrc) -> "Devkit | None":
        """The kit in a folder, as the archive or unpacked; None where it is not there.

        Raises:
            BadInput: naming the file, if the kit is damaged.
        """
        archive = folder / layout.devkit
        # Unpacked with its folders, without the first, or the two files alone.
        homes = [folder / Path(*Path(layout.meta).parts[skip:-1]) for skip in range(len(Path(layout.meta).parts))]
        names = Path(layout.meta).name, Path(layout.truth).name
        for home in homes:
            if all((home / name).is_file() for name in names):
                return cls._read(home, *((home / name).read_bytes() for name in names))
        if not archive.is_file():
            return None
        try:
            with tarfile.open(archive, "r:gz") as kit:
                files = [kit.extractfile(name) for name in (layout.meta, layout.truth)]
                contents = [file.read() if file else b"" for file in files]
        except (OSError, EOFError, KeyError, tarfile.TarError, zlib.error) as error:
            raise BadInput(
                f"{archive} is truncated, damaged or another archive ({one_line(error)}); download it again"
            ) from error
        return cls._read(archive, *contents)

    @classmethod
    def _read(cls, place: Path, meta: bytes, truth: bytes) -> "Devkit":
        from scipy.io import loadmat  # takes longer to import than folders take to list

        try:
            synsets = loadmat(io.BytesIO(meta), squeeze_me=True)["synsets"]
            leaves = np.atleast_1d(synsets[synsets["num_children"] == 0])
            wnids = {
                int(number): str(wnid) for number, wnid in zip(leaves["ILSVRC2012_ID"], leaves["WNID"], strict=True)
            }
            numbers = tuple(int(line) for line in truth.split())
        except Exception as error:  # a damaged MATLAB file can raise nearly anything
            raise BadInput(
                f"the development kit in {place} is damaged ({one_line(error)}); download it again"
            ) from error
        if not numbers or not set(numbers) <= wnids.keys():
            strange = min(set(numbers) - wnids.keys(), default="nothing")
            raise BadInput(
                f"the ground truth of the development kit in {place} holds {strange}, which is none of its "
                f"{len(wnids)} classes; download it again"
            )
        return cls(wnids, numbers)


def training(archive: Path) -> Listing:
    """The training images, to be read in place from the archive of archives, as class folders would list them."""
    found, left_out = _held(archive)
    if loose := next((member.name for member in found if "/" not in member.name), None):
        raise BadInput(f"{archive} has {loose!r} in no folder or archive of a class, so it has no label; pack it anew")
    classes = numbered(archive, (member.name.rpartition("/")[0] for member in found), None)
    return replace(_inside(archive, sorted(found), classes), left_out=tuple(left_out))


def evaluation(place: Path, kit: Devkit, classes: tuple[str, ...] | None) -> Listing:
    """The evaluation images, labelled by the development kit, as class folders would list them.

    Args:
        place: the archive, to be read in place, or the folder that it was unpacked to.
        kit: its ground truth goes by the order of the images' names.
        classes: the training images' classes; None takes the kit's.

    Raises:
        BadInput: if there are not as many images as the kit knows, or a class is not among `classes`.
    """
    order = classes or tuple(sorted(kit.wnids.values()))
    archived = {Path(member.name).name: member for member in _held(place).images} if place.is_file() else {}
    names = sorted(archived) if archived else image_names(place)
    if len(names) != len(kit.truth):
        raise BadInput(
            f"{place} has {len(names):,} images, and the development kit tells what {len(kit.truth):,} show; "
            "download again the one that is not whole"
        )
    wnids = [kit.wnids[number] for number in kit.truth]
    if strange := sorted(set(wnids) - set(order)):
        raise BadInput(f"{place} has class {strange[0]!r}, which the training images do not; add its training images")
    pairs = sorted(zip(wnids, names, strict=True))
    if archived:
        return _inside(place, [archived[name]._replace(name=f"{wnid}/{name}") for wnid, name in pairs], order)
    number = {name: label for label, name in enumerate(order)}
    labels = np.array([number[wnid] for wnid, _ in pairs], np.int64)
    return Listing(place, order, [name for _, name in pairs], labels)


def _inside(archive: Path, found: Sequence[Member], classes: tuple[str, ...]) -> Listing:
    number = {name: label for label, name in enumerate(classes)}
    labels = np.array([number[member.name.rpartition("/")[0]] for member in found], np.int64)
    places = np.array([(0, member.offset, member.size) for member in found], np.int64)
    return Listing(archive, classes, [member.name for member in found], labels, (archive,), places)


def _held(archive: Path) -> Held:
    """The archive's images, from the cache if they were listed before.

    Raises:
        BadInput: if there are none, or as `archives.held`.
    """

    def make() -> dict[str, np.ndarray]:
        images, left_out = held(archive)
        if not images:
            raise BadInput(f"no images in {archive}; its members need names with {' '.join(SUFFIXES)}")
        names, offsets, sizes = zip(*images, strict=True)
        return {"names": joined(names), "places": np.array([offsets, sizes], np.int64), "left_out": joined(left_out)}

    arrays = kept(archive, Stamp.of([archive]), make)
    images = [Member(*each) for each in zip(split(arrays["names"]), *arrays["places"].tolist(), strict=True)]
    return Held(images, split(arrays["left_out"]))
