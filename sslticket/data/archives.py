"""Images inside tar files, read in place: which there are, and any of them without unpacking."""

import os
import tarfile
import weakref
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import IO, NamedTuple, TypeVar

import numpy as np

from sslticket.errors import BadInput, one_line

_BLOCK = 512
_AHEAD = 2  # batches whose images are read while the one before them is decoded
_READERS = 16  # threads that read; they mostly wait for the file system

Plan = TypeVar("Plan")


class Member(NamedTuple):
    """A file in a tar file: its name, and where its bytes are."""

    name: str
    offset: int
    size: int


def members(path: Path) -> list[Member]:
    """The files in a tar file that is not compressed, and those in tar files within it, as "inner/name".

    Raises:
        BadInput: if it cannot be read, is truncated, or is no tar file.
    """
    try:
        # Unbuffered: only headers are read, a block each, at places far from one another.
        with path.open("rb", buffering=0) as file:
            found = []
            for member in _walk(file, path):
                if not member.name.endswith(".tar"):
                    found.append(member)
                    continue
                file.seek(member.offset)
                above = member.name.removesuffix(".tar")
                found += [inner._replace(name=f"{above}/{inner.name}") for inner in _walk(file, path, member)]
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror}") from error
    return found


def _walk(file: IO[bytes], path: Path, within: Member | None = None) -> list[Member]:
    """The files of the archive that starts where `file` stands."""
    where = f"{path}, in {within.name}," if within else f"{path}"
    entries, end = [], 0
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            for entry in archive:
                end = entry.offset_data + -(-entry.size // _BLOCK) * _BLOCK
                entries.append(entry)
    except tarfile.TarError as error:
        raise BadInput(
            f"{where} is truncated, damaged or no tar file ({one_line(error)}); download it again"
        ) from error
    # tarfile takes a header that is cut off or damaged for the end; the real end is a block of zeros.
    file.seek(end)
    if not entries or file.read(_BLOCK) != bytes(_BLOCK):
        raise BadInput(f"{where} breaks off after {len(entries)} files; download it again")
    return [Member(entry.name, entry.offset_data, entry.size) for entry in entries if entry.isfile()]


class Archives:
    """Reads images out of tar files, several at a time."""

    def __init__(self, paths: Sequence[Path]) -> None:
        """Opens nothing yet."""
        self._paths, self._files = paths, dict[int, int]()
        self._pool, self._lock = ThreadPoolExecutor(_READERS), Lock()
        weakref.finalize(self, _close, self._files)

    def read(self, archive: int, offset: int, size: int) -> np.ndarray:
        """The bytes of an image, (size,) uint8; fewer where the file is shorter or cannot be read."""
        try:
            with self._lock:
                if archive not in self._files:
                    self._files[archive] = os.open(self._paths[archive], os.O_RDONLY)
            content = os.pread(self._files[archive], size, offset)
        except OSError:
            content = b""
        return np.frombuffer(content, np.uint8)

    def ahead(
        self, feed: Callable[[int], Plan], places: Callable[[Plan], np.ndarray], batches: int
    ) -> Callable[[int], tuple[Plan, list[np.ndarray]]]:
        """A feed of batches with the bytes of their images, read before they are asked for.

        Args:
            feed: what a batch is made of.
            places: of a batch's images, (B, 3) int64: archive, offset and size.
            batches: how many there are; they are asked for in order.
        """
        pending: deque[tuple[Plan, list[Future[np.ndarray]]]] = deque()

        def read(batch: int) -> tuple[Plan, list[np.ndarray]]:
            while len(pending) <= _AHEAD and (later := batch + len(pending)) < batches:
                plan = feed(later)
                pending.append((plan, [self._pool.submit(self.read, *map(int, place)) for place in places(plan)]))
            plan, futures = pending.popleft()
            return plan, [future.result() for future in futures]

        return read


def _close(files: Mapping[int, int]) -> None:
    for file in files.values():
        os.close(file)
