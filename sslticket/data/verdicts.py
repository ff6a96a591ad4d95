"""Which images can be read, and how: one verdict on each, from one full decode, kept for every process and run."""

import hashlib
import os
import time
from collections.abc import Container
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from sslticket.data.archives import Archives
from sslticket.data.decoding import Unreadable, as_ppm
from sslticket.data.judging import RULES, Kind, Verdict, judge
from sslticket.data.listings import SETTLED
from sslticket.data.manifest import Manifest
from sslticket.data.reading import LONGEST, opened, why
from sslticket.data.remembered import Remembered

_SAVED_EACH = 10.0  # seconds


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
        self._manifest, self._archives, self._count = manifest, archives, threads
        self._places = manifest.places if archives else None
        self._stamps = [_stamp(path) for path in manifest.archives]
        self._kinds = np.zeros(len(manifest), np.uint8)
        self._reasons: dict[int, str] = {}
        self._pending: dict[int, Future[Verdict]] = {}
        self._pool: ThreadPoolExecutor | None = None
        self._kept = Remembered(manifest.root)
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
                self._pending[row] = self._threads().submit(self._of, row)

    def kinds(self, rows: np.ndarray) -> np.ndarray:
        """The kind of each row's verdict, (N,) uint8; those that have none are judged."""
        self.begin(rows)
        for row in rows[self._kinds[rows] == Kind.UNKNOWN].tolist():
            if row in self._pending:
                self._settle(row, self._pending.pop(row).result())
        self._kept.save(_SAVED_EACH)
        kinds: np.ndarray = self._kinds[rows]
        return kinds

    def _threads(self) -> ThreadPoolExecutor:
        self._pool = self._pool or ThreadPoolExecutor(self._count)
        return self._pool

    def _settle(self, row: int, verdict: Verdict) -> None:
        self._kinds[row] = verdict.kind
        if verdict.kind == Kind.BAD:
            self._reasons[row] = verdict.reason

    def revise(self, row: int) -> None:
        """Judge an image that DALI refused anew: it has changed and cannot be read now, or only Pillow reads it."""
        before, verdict = self._kinds[row], self._made(row, refused=True)
        self._settle(row, verdict)
        self.revised += int(before != verdict.kind)

    def ppms(self, rows: list[int], mode: str) -> list[bytes | None]:
        """What images show, see `decoding.as_ppm`; None for one that has changed since and cannot be read now."""
        return list(self._threads().map(partial(self._ppm, mode=mode), rows))

    def _ppm(self, row: int, mode: str) -> bytes | None:
        try:
            return as_ppm(self._manifest.path(row) if self._archives is None else self._bytes(row), mode)
        except Unreadable:
            return None

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
        if self._places is not None:
            content = self._bytes(row)
            if len(content) < self._places[row][2]:
                return Verdict(Kind.BAD, "its archive cannot be read there, or is cut off", lasting=False)
            verdict, state, settled = judge(content), self._state(row), True
        else:
            try:
                with opened(self._manifest.path(row)) as file:
                    status = os.fstat(file.fileno())
                    verdict = judge(file)
            except OSError as error:
                return Verdict(Kind.BAD, why(error), lasting=False)
            refused |= status.st_size > LONGEST
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


def _key(file: str, state: str) -> int:
    """An even number of 64 bits for a name and a state, under the rules of today."""
    text = f"{RULES} {state} {file}".encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") & ~1


def _told(status: os.stat_result) -> str:
    return f"{status.st_size} {status.st_mtime_ns}"


def _stamp(path: Path) -> str:
    try:
        return _told(path.stat())
    except OSError:
        return "gone"
