"""Decoded images that are kept in the cache folder, for later epochs and for all processes and seeds of a host.

What is kept are whole images as they are decoded, so any view can be cut from them, and the pixels of a view are the
same bits whether its image was kept or is decoded anew. They lie in a file for each list of images, which processes map
into their memory: the system's page cache is what holds them.
"""

import hashlib
import io
import logging
import math
import mmap
import os
import socket
import struct
import time
import weakref
import zlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock
from typing import NamedTuple

import numpy as np
import psutil
from PIL import Image

from sslticket.data.decode import IMAGE_FORMATS, image_reader
from sslticket.data.manifest import Manifest
from sslticket.storage.files import cache_folder, file_lock

try:
    import fcntl  # filelock has no lock that several share
except ImportError:  # on Windows, where nothing is kept
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger("sslticket")

_RECORD = struct.Struct("<QQIIII")  # key, offset, height, width, check of the pixels, check of what is before
_HEAD = struct.Struct("<8sQ16x")  # what kind of file it is, bytes that its images are expected to take
_MAGIC = b"sslpix01"
_UNUSED_SECONDS = 7 * 24 * 3600.0  # after which anybody who opens the folder deletes a file that nobody uses
_SAMPLED_IMAGES = 64  # whose sizes say how much a whole list takes
_MEMORY_SHARE, _DISK_SHARE = 0.5, 0.25  # of what is free, unless a budget is given


class _Record(NamedTuple):
    offset: int
    height: int
    width: int
    check: int


class DecodedCache:
    """Decoded images in two files that only grow: their pixels one after the other, and an index of them.

    An image is in the index once its pixels are in the file whole, and before a process shows an image for the first
    time, it compares the pixels with the index's check. So what a killed writer, a full disk or a crashed machine left
    unfinished is no image's, and a later writer goes on behind it. The files may be deleted at any time: who uses them
    keeps them.
    """

    def __init__(self, path: Path, channels: int, expected: int, limit: int) -> None:
        """Open the files, or make them; see `open_cache`.

        Args:
            path: Path of the file of pixels; the index's has another suffix.
            channels: Channels of the images.
            expected: Bytes that the images will take, as far as that is known.
            limit: Bytes that the file may have.

        Raises:
            OSError: If they cannot be opened or locked.
        """
        self._channels, self._limit = channels, limit
        self._files = [os.open(each, os.O_RDWR | os.O_CREAT, 0o666) for each in (path, _index_of(path))]
        weakref.finalize(self, _close, self._files)
        self._pixels, self._index = self._files
        fcntl.flock(self._pixels, fcntl.LOCK_SH)  # who holds it uses the file
        self._lock = Lock()
        self._records: dict[int, _Record] = {}
        self._checked = set[int]()
        self._map: mmap.mmap | None = None
        with self._only_writer():
            head = os.pread(self._index, _HEAD.size, 0)
            if len(head) < _HEAD.size or not head.startswith(_MAGIC):
                os.ftruncate(self._index, 0)
                os.pwrite(self._index, _HEAD.pack(_MAGIC, expected), 0)
        os.utime(self._index)
        self._read_to = _HEAD.size
        self._read_index()

    @property
    def full(self) -> bool:
        """Whether no more images are kept, as the budget is used up or the disk is full."""
        return os.fstat(self._pixels).st_size >= self._limit

    def get(self, keys: Sequence[int | None], pool: ThreadPoolExecutor) -> list[np.ndarray | None]:
        """Return the images with these keys, (H, W, C) uint8 not to be written to; None for those that are not here.

        Args:
            keys: Key of each image; None for one that is never kept.
            pool: Threads that compare pixels with their checks.
        """
        try:
            if any(key is not None and key not in self._records for key in keys):
                self._read_index()
            found = [None if key is None else self._find(key) for key in keys]
        except OSError as error:  # some file systems let no file be mapped
            self._give_up(error)
            return [None] * len(keys)
        unchecked = {
            key: image for key, image in zip(keys, found, strict=True) if image is not None and key not in self._checked
        }
        for key, check in zip(unchecked, pool.map(_check_of, unchecked.values()), strict=True):
            assert key is not None
            if check == self._records[key].check:
                self._checked.add(key)
            else:
                del self._records[key]
        return [None if key not in self._checked else image for key, image in zip(keys, found, strict=True)]

    def add(self, key: int, image: np.ndarray) -> None:
        """Keep an image, (H, W, C) uint8, unless it is there already or the budget is used up."""
        image = np.ascontiguousarray(image)
        check = _check_of(image)
        with self._lock:
            if self.full:
                return
            try:
                with self._only_writer():
                    self._read_records()
                    if (there := self._records.get(key)) is not None and there.check == check:
                        return
                    offset = os.fstat(self._pixels).st_size
                    if offset + image.nbytes > self._limit:
                        self._limit = 0
                        return
                    _write_all(self._pixels, image.data.cast("B"), offset)
                    fields = (key, offset, *image.shape[:2], check)
                    record = _RECORD.pack(*fields, zlib.crc32(_RECORD.pack(*fields, 0)))
                    _write_all(self._index, memoryview(record), _whole_records(os.fstat(self._index).st_size))
            except OSError as error:
                self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        if self._limit:
            log.info("no more decoded images are kept: %s", error.strerror)
        self._limit = 0

    def _find(self, key: int) -> np.ndarray | None:
        record = self._records.get(key)
        if record is None:
            return None
        count = record.height * record.width * self._channels
        if self._map is None or record.offset + count > len(self._map):
            size = os.fstat(self._pixels).st_size
            if record.offset + count > size:
                del self._records[key]
                return None
            # Writable, as torch takes no other arrays without a warning; nobody writes.
            self._map = mmap.mmap(self._pixels, size, access=mmap.ACCESS_WRITE)
        pixels = np.frombuffer(self._map, np.uint8, count, record.offset)
        return pixels.reshape(record.height, record.width, self._channels)

    def _read_index(self) -> None:
        with self._lock:
            self._read_records()

    def _read_records(self) -> None:
        """Read what was added to the index since; records that are not whole are no image's."""
        end = _whole_records(os.fstat(self._index).st_size)
        if end <= self._read_to:
            return
        content = os.pread(self._index, end - self._read_to, self._read_to)
        self._read_to += len(content) // _RECORD.size * _RECORD.size
        for *fields, check in _RECORD.iter_unpack(content[: len(content) // _RECORD.size * _RECORD.size]):
            if check == zlib.crc32(_RECORD.pack(*fields, 0)):
                key, *record = fields
                self._records[key] = _Record(*record)
                self._checked.discard(key)

    @contextmanager
    def _only_writer(self) -> Iterator[None]:
        fcntl.flock(self._index, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._index, fcntl.LOCK_UN)


def open_cache(manifest: Manifest, channels: int, rules: str, budget: float | None) -> DecodedCache | None:
    """Open the kept images of a list of files; None where they do not fit, or the cache folder cannot be used.

    Args:
        manifest: The images.
        channels: Channels in which they are decoded.
        rules: Whatever else decides which pixels an image has, such as the versions of decoders.
        budget: Bytes that all files of this host may take together; what does not fit is decoded anew each time. None
            for half of the memory and a quarter of the disk that are free, and only for lists that fit whole.
    """
    if fcntl is None:
        return None
    folder = cache_folder() / "decoded" / socket.gethostname()
    digest = hashlib.sha256(f"{manifest.root and manifest.root.resolve()}\n{channels}\n{rules}\n".encode())
    digest.update("\n".join(sorted(manifest.frame["file"])).encode("utf-8", "surrogateescape"))
    path = folder / f"{digest.hexdigest()[:16]}.pixels"
    try:
        expected = _expected_bytes(path) or _estimate_bytes(manifest, channels)
        folder.mkdir(parents=True, exist_ok=True)
        with file_lock(folder / "files"):
            limit = _make_room(path, expected, budget)
            return None if limit is None else DecodedCache(path, channels, expected, limit)
    except OSError as error:
        log.info("decoded images of %s are not kept in %s: %s", manifest.dataset, folder, error.strerror)
        return None


def _make_room(path: Path, expected: int, budget: float | None) -> int | None:
    """Bytes that a file of pixels may take, after older ones that nobody uses are deleted; None where it won't fit."""
    others = {other: _claimed_bytes(other) for other in path.parent.glob("*.pixels") if other != path}
    used = sum(others.values()) + (_claimed_bytes(path) if path.exists() else 0)
    most = budget if budget is not None else _default_budget(path.parent, used)
    fits = budget is not None or expected <= most
    for other in sorted(others, key=_last_use):
        old = time.time() - _last_use(other) > _UNUSED_SECONDS
        if (old or (fits and sum(others.values()) + expected > most)) and _delete_unused(other):
            del others[other]
    left = int(most - sum(others.values()))
    # Half a list is worth its memory only to who asks for it.
    return left if expected > 0 and left > 0 and (budget is not None or expected <= left) else None


def _default_budget(folder: Path, used: int) -> float:
    """A share of the memory that is free, and of the disk that would be without what is kept there."""
    disk = os.statvfs(folder)
    return min(_MEMORY_SHARE * available_memory(), _DISK_SHARE * (disk.f_bavail * disk.f_frsize + used))


def available_memory() -> int:
    """Bytes of memory that this process and the system's cache of files may still take; 0 where it is not known."""
    found = []
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        found.append(1024 * int(next(line for line in lines if line.startswith("MemAvailable")).split()[1]))
        for limit in _group_limits():
            with suppress(OSError, ValueError):  # "max" is no limit
                found.append(int(limit.read_text()))
    return min(found) if found else int(psutil.virtual_memory().available)


def _group_limits() -> Iterable[Path]:
    """Files with the limits of this process's control group, and of those it is in, as batch systems set them."""
    top = Path("/sys/fs/cgroup")
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, kinds, name = line.split(":", 2)
        if kinds in ("", "memory"):
            base, file = (top, "memory.max") if not kinds else (top / "memory", "memory.limit_in_bytes")
            place = base / name.lstrip("/")
            yield from (each / file for each in (place, *place.parents) if each.is_relative_to(base))


def _delete_unused(path: Path) -> bool:
    """Delete a file of pixels and its index, unless a process has them open; whether it is gone."""
    try:
        number = os.open(path, os.O_RDWR)
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for each in (path, _index_of(path)):
                each.unlink(missing_ok=True)
        finally:
            os.close(number)
    except OSError:
        return False
    return True


def _claimed_bytes(path: Path) -> int:
    """Bytes that a file of pixels has, or will have."""
    with suppress(OSError):
        return max(path.stat().st_size, _expected_bytes(path))
    return 0


def _expected_bytes(path: Path) -> int:
    """Bytes that were expected of a file of pixels when it was made; 0 where there is none."""
    with suppress(OSError, struct.error):
        with _index_of(path).open("rb") as file:
            kind, expected = _HEAD.unpack(file.read(_HEAD.size))
        return int(expected) if kind == _MAGIC else 0
    return 0


def _last_use(path: Path) -> float:
    with suppress(OSError):
        return _index_of(path).stat().st_mtime
    return 0.0


def _index_of(path: Path) -> Path:
    return path.with_suffix(".index")


def _whole_records(size: int) -> int:
    return _HEAD.size + max(0, size - _HEAD.size) // _RECORD.size * _RECORD.size


def _check_of(image: np.ndarray) -> int:
    return zlib.crc32(image.data)


def _write_all(file: int, content: memoryview, offset: int) -> None:
    while len(content):
        written = os.pwrite(file, content, offset)
        content, offset = content[written:], offset + written


def _close(files: list[int]) -> None:
    for file in files:
        os.close(file)


def _estimate_bytes(manifest: Manifest, channels: int) -> int:
    """Bytes that the images will take decoded, from the sizes of some of them; 0 where none can be read."""
    rows = np.unique(np.linspace(0, len(manifest) - 1, _SAMPLED_IMAGES).astype(int)).tolist() if len(manifest) else []
    read, pixels = image_reader(manifest), []
    for row in rows:
        with suppress(Exception):  # an image that cannot be read has none, and is named where it is met
            width, height = Image.open(io.BytesIO(read(row)), formats=IMAGE_FORMATS).size
            pixels.append(width * height)
    return math.ceil(np.mean(pixels) * channels * len(manifest)) if pixels else 0
