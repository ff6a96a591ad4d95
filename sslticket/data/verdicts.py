"""Which images can be read, and how: one verdict on each, from one full decode, kept for every process and run."""

import hashlib
import logging
import os
import struct
import time
from collections.abc import Container
from concurrent.futures import Future, ThreadPoolExecutor
from enum import IntEnum
from pathlib import Path
from typing import BinaryIO, NamedTuple
from urllib.parse import quote_from_bytes, unquote_to_bytes

import numpy as np
import PIL
from PIL import Image

from sslticket.data.archives import Archives
from sslticket.data.decoding import Unreadable, as_ppm, orientation, whole
from sslticket.data.listings import SETTLED, cache_folder
from sslticket.data.manifest import Manifest
from sslticket.data.reading import opened, why
from sslticket.files import locked

log = logging.getLogger("sslticket")

_RULES = 1  # number of the rules below; verdicts by others are made anew
_SAVED_EACH = 10.0  # seconds
_LONGEST = 2**28  # bytes of a file that DALI, which reads files whole, is given


class Kind(IntEnum):
    """How an image is to be read."""

    UNKNOWN = 0
    GOOD = 1  # DALI shows what Pillow shows
    PILLOW = 2  # DALI might show something else, or nothing
    BAD = 3  # it cannot be read


class Verdict(NamedTuple):
    """How an image is to be read.

    Attributes:
        kind: how.
        reason: why not, where it cannot be.
        lasting: it is about the image's bytes, not about a file that cannot be opened today.
    """

    kind: Kind
    reason: str = ""
    lasting: bool = True


def judge(source: Path | bytes | BinaryIO) -> Verdict:
    """The verdict on an image, which depends on its bytes alone: what a full decode by Pillow makes of it."""
    try:
        image = whole(source)
    except Unreadable as error:
        return Verdict(Kind.BAD, str(error), error.lasting)
    return Verdict(Kind.GOOD if _plain(image) else Kind.PILLOW)


def _plain(image: Image.Image) -> bool:
    """Whether DALI is sure to show the same picture.

    Of the kinds listed here it does, even where they are damaged and Pillow reads them, as both use the same libraries.
    Others, such as CMYK without Adobe's marker, 16 bits, several sorts of TIFF, and EXIF that is not as it should be,
    it shows otherwise, or refuses, or dies of.
    """
    turn = orientation(image)
    if image.format in ("JPEG", "MPO"):
        told = [data for name, data in getattr(image, "applist", ()) if name == "APP1" and data.startswith(b"Exif")]
        seen = _simple_orientation(told[0]) if told else 1
        return image.mode in ("L", "RGB") and len(told) <= 1 and turn == seen
    modes = {"PNG": ("1", "L", "LA", "P", "RGB", "RGBA"), "WEBP": ("RGB", "RGBA")}
    return image.mode in modes.get(str(image.format), ()) and turn == 1 and "exif" not in image.info


def _simple_orientation(exif: bytes) -> int | None:
    """The orientation in the one EXIF block of a JPEG; None where the block is not plainly in order."""
    head, block = exif[:6], exif[6:]
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(block[:4])
    if head != b"Exif\0\0" or order is None or len(block) < 10:
        return None
    (start,) = struct.unpack_from(f"{order}I", block, 4)
    if start + 2 > len(block):
        return None
    (count,) = struct.unpack_from(f"{order}H", block, start)
    if start + 2 + 12 * count > len(block):
        return None
    entries = [struct.unpack_from(f"{order}HHIH", block, start + 2 + 12 * place) for place in range(count)]
    found = [entry for entry in entries if entry[0] == 0x0112]
    if not found:
        return 1
    ((_, kind, values, value), *more) = found
    if more or (kind, values) != (3, 1):  # one short number
        return None
    return value if 1 <= value <= 8 else 1


class Verdicts(Container[int]):
    """The verdicts on a manifest's images: made when they are asked for, kept in the cache folder, shared through it.

    A verdict is kept under a name that holds the image's path, size and time of change, so a changed file is judged
    anew. As a container it holds the rows of images that cannot be read, and looks when it is asked.
    """

    def __init__(self, manifest: Manifest, threads: int, archives: Archives | None) -> None:
        """Reads what is kept.

        Args:
            manifest: the images.
            threads: that decode.
            archives: that hold the images; None where they are files.
        """
        assert manifest.root is not None, "images of an array have no files"
        self._manifest, self._threads, self._archives = manifest, threads, archives
        self._places = manifest.places if archives else None
        self._stamps = [_stamp(path) for path in manifest.archives]
        self._kinds = np.zeros(len(manifest), np.uint8)
        self._reasons: dict[int, str] = {}
        self._pending: dict[int, Future[Verdict]] = {}
        self._pool: ThreadPoolExecutor | None = None
        self._kept = _Kept(manifest.root)
        self.revised = 0  # verdicts that came out otherwise when they were made again

    def __contains__(self, row: object) -> bool:
        assert isinstance(row, int)
        return bool(self.kinds(np.array([row]))[0] == Kind.BAD)

    @property
    def known_bad(self) -> np.ndarray:
        """Rows of images that were found to be unreadable before, by whichever process, and are as they were."""
        named = np.flatnonzero(self._manifest.frame["file"].isin(list(self._kept.names)))
        return named[[row in self for row in named.tolist()]]

    @property
    def complete(self) -> bool:
        """Whether every image has its verdict."""
        return not self._pending and bool(self._kinds.all())

    @property
    def all_bad(self) -> bool:
        """Whether every image was judged, and none can be read."""
        return bool((self._kinds == Kind.BAD).all())

    def reason(self, row: int) -> str:
        """Why a bad image cannot be read."""
        return self._reasons[row]

    def begin(self, rows: np.ndarray) -> None:
        """Begin to judge those of these rows that have no verdict yet; a `kinds` of them comes later."""
        for row in rows[self._kinds[rows] == Kind.UNKNOWN].tolist():
            if row not in self._pending:
                self._pool = self._pool or ThreadPoolExecutor(self._threads)
                self._pending[row] = self._pool.submit(self._of, row)

    def kinds(self, rows: np.ndarray) -> np.ndarray:
        """The kind of each row's verdict, (N,) uint8; those that have none are judged."""
        self.begin(rows)
        for row in rows[self._kinds[rows] == Kind.UNKNOWN].tolist():
            if row in self._pending:
                self._settle(row, self._pending.pop(row).result())
        self._kept.save(_SAVED_EACH)
        kinds: np.ndarray = self._kinds[rows]
        return kinds

    def _settle(self, row: int, verdict: Verdict) -> None:
        self._kinds[row] = verdict.kind
        if verdict.kind == Kind.BAD:
            self._reasons[row] = verdict.reason

    def revise(self, row: int) -> None:
        """Judge an image that DALI refused anew: it has changed and cannot be read now, or only Pillow reads it."""
        before, verdict = self._kinds[row], self._made(row, refused=True)
        self._settle(row, verdict)
        self.revised += int(before != verdict.kind)

    def ppm(self, row: int, mode: str) -> bytes:
        """What an image shows, see `decoding.as_ppm`."""
        return as_ppm(self._manifest.path(row) if self._archives is None else self._bytes(row), mode)

    def save(self) -> None:
        """Keep what is not yet kept."""
        self._kept.save(0)

    def _of(self, row: int) -> Verdict:
        """The verdict that is kept, or is made now and then kept."""
        try:
            state = self._state(row)
        except OSError as error:
            return Verdict(Kind.BAD, why(error), lasting=False)
        if kept := self._kept.of(_key(self._file(row), state)):
            return kept
        return self._made(row)

    def _made(self, row: int, *, refused: bool = False) -> Verdict:
        """A new verdict, kept if it lasts; on an image that DALI `refused`, it is never "good"."""
        if self._archives is not None:
            verdict, state, settled = judge(self._bytes(row)), self._state(row), True
        else:
            try:
                with opened(self._manifest.path(row)) as file:
                    status = os.fstat(file.fileno())
                    verdict = judge(file)
            except OSError as error:
                return Verdict(Kind.BAD, why(error), lasting=False)
            refused |= status.st_size > _LONGEST
            state, settled = _told(status), time.time() - status.st_mtime > SETTLED
        if refused and verdict.kind == Kind.GOOD:
            verdict = Verdict(Kind.PILLOW)
        if verdict.lasting and settled:
            self._kept.add(_key(self._file(row), state), verdict, self._file(row))
        return verdict

    def _bytes(self, row: int) -> bytes:
        assert self._archives is not None
        assert self._places is not None
        return self._archives.read(*self._places[row].tolist()).tobytes()

    def _file(self, row: int) -> str:
        return str(self._manifest.frame["file"].iat[row])

    def _state(self, row: int) -> str:
        if self._places is None:
            return _told(self._manifest.path(row).stat())
        archive, offset, size = self._places[row].tolist()
        return f"{self._stamps[archive]} {offset} {size}"


class _Kept:
    """The verdicts on images of one folder or archive that are in the cache folder.

    Two files that only grow. One has eight bytes for each image that can be read: a hash of its name and state, whose
    lowest bit says how. The other has a line for each that cannot be: the same hash, the name, and why. What a killed
    writer left unfinished fits no image, so it does no harm.
    """

    def __init__(self, root: Path) -> None:
        name = hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:16]
        self._good, self._bad = (cache_folder() / "verdicts" / f"{name}.{kind}" for kind in ("good", "bad"))
        self._root, self._saved = root, time.monotonic()
        self._fresh: dict[int, Verdict] = {}
        self._lines: list[str] = []
        self._read()

    def of(self, key: int) -> Verdict | None:
        """The verdict that is kept under a key."""
        if found := self._fresh.get(key):
            return found
        if key in self._reasons:
            return Verdict(Kind.BAD, self._reasons[key])
        place = int(np.searchsorted(self._keys, np.uint64(key)))
        if place < len(self._keys) and (found_key := int(self._keys[place])) - key in (0, 1):
            # Of one that DALI refused there is an older verdict too, without the bit.
            after = place + 1 < len(self._keys) and int(self._keys[place + 1]) == key + 1
            return Verdict(Kind.PILLOW if found_key == key + 1 or after else Kind.GOOD)
        return None

    def add(self, key: int, verdict: Verdict, file: str) -> None:
        """Keep a verdict, from now on for this process, and after `save` for all."""
        self._fresh[key] = verdict
        if verdict.kind == Kind.BAD:
            self._lines.append(f"{key:016x} {quote_from_bytes(os.fsencode(file))} {verdict.reason}\n")
            self.names.add(file)

    def save(self, seconds: float) -> None:
        """Write what is new, if so long ago something was written, and read what others found."""
        if not self._fresh or time.monotonic() - self._saved < seconds:
            return
        fresh, lines, self._lines = dict(self._fresh), self._lines, []
        keys = [key + (verdict.kind == Kind.PILLOW) for key, verdict in fresh.items() if verdict.kind != Kind.BAD]
        try:
            with locked(self._good):
                for path, content in (
                    (self._good, np.array(keys, "<u8").tobytes()),
                    (self._bad, "".join(lines).encode("utf-8", "surrogateescape")),
                ):
                    _append(path, content)
            self._read()
            for key in fresh:
                del self._fresh[key]
        except OSError as error:
            log.info("the verdicts on images of %s are not kept in %s: %s", self._root, self._good, error.strerror)
        self._saved = time.monotonic()

    def _read(self) -> None:
        """What is there; damaged remains are taken for hashes of no image."""
        self._keys, self._reasons, self.names = np.empty(0, np.uint64), dict[int, str](), set[str]()
        try:
            content = self._good.read_bytes()
            self._keys = np.unique(np.frombuffer(content[: len(content) // 8 * 8], "<u8").astype(np.uint64))
            lines = self._bad.read_text("utf-8", "replace").split("\n")
        except OSError:
            return
        for key, name, reason in (line.split(" ", 2) for line in lines if line.count(" ") >= 2):
            try:
                self._reasons[int(key, 16)] = reason
                self.names.add(os.fsdecode(unquote_to_bytes(name)))
            except ValueError:
                continue


def _append(path: Path, content: bytes) -> None:
    """Put something at the end of a file, after the last whole record of eight bytes or line."""
    if not content:
        path.touch()
        return
    with path.open("ab") as file:
        if path.suffix == ".good":
            file.truncate(file.tell() // 8 * 8)
        elif file.tell():
            content = b"\n" + content
        file.write(content)


def _key(file: str, state: str) -> int:
    """An even number of 64 bits for a name and a state, under the rules of today."""
    text = f"{_RULES} {PIL.__version__} {state} {file}".encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") & ~1


def _told(status: os.stat_result) -> str:
    return f"{status.st_size} {status.st_mtime_ns}"


def _stamp(path: Path) -> str:
    try:
        return _told(path.stat())
    except OSError:
        return "gone"
