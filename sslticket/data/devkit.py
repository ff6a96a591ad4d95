"""ImageNet's development kit, in whatever state a download or a browser left it."""

import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from sslticket.data import mat
from sslticket.data.layouts import Ilsvrc
from sslticket.errors import BadInput, one_line
from sslticket.files import read_bytes

_LARGEST = 1 << 26  # bytes of one of the kit's files; the published ones have less than a megabyte


@dataclass(frozen=True)
class Devkit:
    """What the development kit tells.

    Attributes:
        place: where it lies.
        wnids: the WordNet names of the classes, by their number, from 1 on.
        truth: the number of the class of each evaluation image, in the order of the numbers in the images' names.
    """

    place: Path
    wnids: dict[int, str]
    truth: tuple[int, ...]

    @classmethod
    def of(cls, folder: Path, layout: Ilsvrc) -> "Devkit | None":
        """The kit in a folder, unpacked or as an archive, compressed or not; None where it is not there.

        Raises:
            BadInput: naming the file, if the kit is damaged.
        """
        kits = sorted(folder.glob(f"{layout.devkit}*"), key=lambda path: (path.name != f"{layout.devkit}.tar.gz", path))
        # Unpacked with its folders, in a folder that a browser named after the archive, or without them.
        unpacked = [place for kit in kits if kit.is_dir() for place in (kit / kit.name, kit / layout.devkit, kit)]
        for home in (place / inner for place in (*unpacked, folder) for inner in ("data", ".")):
            if all((home / name).is_file() for name in (layout.meta, layout.truth)):
                meta, truth = (read_bytes(home / name, _LARGEST) for name in (layout.meta, layout.truth))
                return cls._read(home, meta, truth)
        archive = next((kit for kit in kits if kit.is_file() and kit.suffix in (".tar", ".gz", ".tgz")), None)
        return cls._read(archive, *_packed(archive, layout)) if archive else None

    @classmethod
    def _read(cls, place: Path, meta: bytes, truth: bytes) -> "Devkit":
        try:
            synsets = mat.read(meta, ("synsets",), place)["synsets"]
            leaves = [synset for synset in synsets if synset["num_children"].item() == 0]
            wnids = {int(synset["ILSVRC2012_ID"].item()): str(synset["WNID"]) for synset in leaves}
            # A line's number is that of its image, so none within may be empty.
            numbers = tuple(int(line) for line in truth.decode("ascii").rstrip().splitlines())
        except BadInput as error:
            raise BadInput(f"the development kit is damaged: {error}") from error
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise BadInput(
                f"the development kit in {place} is damaged ({one_line(error)}); download it again"
            ) from error
        if not numbers or not set(numbers) <= wnids.keys():
            strange = min(set(numbers) - wnids.keys(), default="nothing")
            raise BadInput(
                f"the ground truth of the development kit in {place} holds {strange}, which is none of its "
                f"{len(wnids)} classes; download it again"
            )
        return cls(place, wnids, numbers)


def _packed(archive: Path, layout: Ilsvrc) -> list[bytes]:
    """The two files in the kit's archive, whatever folders they are in there and however it is compressed."""
    try:
        with tarfile.open(archive, "r:*") as kit:
            found = {entry.name.rpartition("/")[2]: entry for entry in kit if entry.isfile()}
            entries = [found[name] for name in (layout.meta, layout.truth)]
            if large := next((entry for entry in entries if entry.size > _LARGEST), None):
                raise BadInput(f"{archive} tells {large.size:,} bytes of {large.name}; download it again")
            contents = [file.read() if (file := kit.extractfile(entry)) else b"" for entry in entries]
            if any(len(content) != entry.size for content, entry in zip(contents, entries, strict=True)):
                raise EOFError("it breaks off")
    except (OSError, EOFError, KeyError, tarfile.TarError, zlib.error) as error:
        raise BadInput(
            f"{archive} is truncated, damaged or another archive ({one_line(error)}); download it again"
        ) from error
    return contents
