"""Images that cannot be read: found by one full decode, kept for every process and run, named once, and counted.

What is found of an image is its verdict (`decode.Verdict`). Verdicts are kept in the cache folder, so an image is
decoded in full once in its life, and whichever process or run meets it first, all others know. More unreadable images
than a run allows are an error.
"""

import hashlib
import logging
import os
import time
from collections.abc import Container, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote_from_bytes, unquote_to_bytes

import numpy as np

from sslticket.data.datasets.folders import CLOCK_GRANULARITY, describe_left_out
from sslticket.data.decode import (
    MAX_FILE_BYTES,
    VERDICT_RULES,
    DecodeError,
    ImageKind,
    Verdict,
    judge_image,
    open_regular_file,
    os_error_reason,
    to_ppm,
)
from sslticket.data.manifest import Manifest
from sslticket.data.tar import TarReader
from sslticket.errors import BadInput
from sslticket.escaping import escape_terminal
from sslticket.storage.files import NONBLOCKING, cache_folder, file_lock, read_bytes

log = logging.getLogger("sslticket")

_MAX_CACHE_BYTES = 1 << 32  # of a file with verdicts, 500 million images
_SAVE_INTERVAL = 10.0  # seconds


class UnreadableImages(dict[str, str]):
    """Paths of unreadable images and why."""

    def __init__(self, dataset: str, limit: int, known: Mapping[str, str]) -> None:
        """Start with the ones already known.

        Args:
            dataset: Name of the data set, for the error.
            limit: How many there may be.
            known: Reasons by path.

        Raises:
            BadInput: If these are too many already.
        """
        super().__init__(known)
        self._dataset, self._limit = dataset, limit
        self.add({})

    def add(self, found: Mapping[str, str]) -> None:
        """Log and keep more of them.

        Raises:
            BadInput: If there are now more than `limit`.
        """
        log_unreadable(found)
        self.update(found)
        if len(self) > self._limit:
            first = "; ".join(f"{path}: {reason}" for path, reason in list(self.items())[:3])
            raise BadInput(
                f"unreadable images of {self._dataset} must be at most {self._limit}, got {len(self)} ({first}); "
                "repair or remove them, or raise --max-bad-images"
            )


def unreadable_fields(unreadable: Mapping[str, str]) -> dict[str, Any]:
    """Make the fields of rows on images that could not be read: their number, and where there are any, their hash.

    Args:
        unreadable: Reasons by path. The hash is over the images' names and their folders', wherever the data lies.
    """
    if not unreadable:
        return {"bad_images": 0}
    names = sorted("/".join(path.split("/")[-2:]) for path in unreadable)
    digest = hashlib.sha256("\n".join(names).encode("utf-8", "surrogateescape"))
    return {"bad_images": len(unreadable), "bad_hash": digest.hexdigest()[:16]}


def log_unreadable(found: Mapping[str, str]) -> None:
    """Log each unreadable image."""
    for path, reason in found.items():
        log.warning("skipped image %s: %s", escape_terminal(path), escape_terminal(reason))


def log_empty_classes(manifest: Manifest) -> None:
    """Log classes without images: a file may be damaged, or only a part of the set be there."""
    if empty := manifest.empty_classes:
        kind = "training" if manifest.split == "train" else "evaluation"
        classes, dataset = escape_terminal(abbreviate_classes(empty)), escape_terminal(manifest.dataset)
        log.warning("no %s images of %s in %s", kind, classes, dataset)


def log_left_out(manifest: Manifest, names: Iterable[str]) -> None:
    """Log files among the images that are none, as `DataSource.left_out` has them."""
    if description := describe_left_out(names):
        kind = "training" if manifest.split == "train" else "evaluation"
        log.warning("among the %s images of %s, %s", kind, manifest.dataset, description)


def abbreviate_classes(names: Iterable[str]) -> str:
    """Name the first ten classes, and how many more there are; a terminal should not scroll by with a thousand."""
    listed = sorted(names)
    more = f" and {len(listed) - 10:,} more" if len(listed) > 10 else ""
    return f"{'class' if len(listed) == 1 else 'classes'} {', '.join(listed[:10])}{more}"


class VerdictCache:
    """The verdicts on images of one folder or archive that are in the cache folder.

    Two files that only grow. One has eight bytes for each image that can be read: a hash of its name and state, whose
    lowest bit says how. The other has a line for each that cannot be: the same hash, the name, and why. What a killed
    writer left unfinished fits no image, so it does no harm.
    """

    def __init__(self, root: Path) -> None:
        name = hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:16]
        self._readable_file, self._unreadable_file = (
            cache_folder() / "verdicts" / f"{name}.{kind}" for kind in ("good", "bad")
        )
        self._root, self._saved = root, time.monotonic()
        self._unsaved: dict[int, Verdict] = {}
        self._lines: list[str] = []
        self._read()

    def get(self, key: int) -> Verdict | None:
        """Return the verdict that is kept under a key; None where there is none."""
        if verdict := self._unsaved.get(key):
            return verdict
        keys, reasons = self._keys, self._reasons  # another thread may put newer ones in their place
        if key in reasons:
            return Verdict(ImageKind.UNREADABLE, reasons[key])
        position = int(np.searchsorted(keys, np.uint64(key)))
        bits = [int(kept) - key for kept in keys[position : position + 2]]
        if 1 in bits:  # of an image that DALI refused there is an older verdict too, without the bit
            return Verdict(ImageKind.PILLOW)
        return Verdict(ImageKind.GOOD) if 0 in bits else None

    def add(self, key: int, verdict: Verdict, file: str) -> None:
        """Keep a verdict, from now on for this process, and after `save` for all."""
        self._unsaved[key] = verdict
        if verdict.kind == ImageKind.UNREADABLE:
            self._lines.append(f"{key:016x} {quote_from_bytes(os.fsencode(file))} {verdict.reason}\n")
            self.names.add(file)

    def save(self, seconds: float) -> None:
        """Write what is new, if something was last written so many seconds ago, and read what others found."""
        if not self._unsaved or time.monotonic() - self._saved < seconds:
            return
        fresh, lines, self._lines = dict(self._unsaved), self._lines, []
        keys = [
            key + (verdict.kind == ImageKind.PILLOW)
            for key, verdict in fresh.items()
            if verdict.kind != ImageKind.UNREADABLE
        ]
        try:
            with file_lock(self._readable_file):
                for path, content in (
                    (self._readable_file, np.array(keys, "<u8").tobytes()),
                    (self._unreadable_file, "".join(lines).encode("utf-8", "surrogateescape")),
                ):
                    if not content:
                        path.touch()
                        continue
                    # Not blocking: a pipe that nobody reads is an error, and not waited for. Path.open has no opener.
                    with open(path, "ab", opener=lambda p, flags: os.open(p, flags | NONBLOCKING, 0o666)) as file:
                        # After the last whole record of eight bytes, or line.
                        if path is self._readable_file:
                            file.truncate(file.tell() // 8 * 8)
                        file.write(b"\n" + content if path is self._unreadable_file and file.tell() else content)
            self._read()
            for key in fresh:
                del self._unsaved[key]
        except OSError as error:
            log.info(
                "the verdicts on images of %s are not kept in %s: %s", self._root, self._readable_file, error.strerror
            )
        self._saved = time.monotonic()

    def _read(self) -> None:
        """Read what is kept; damaged remains are taken for hashes of no image."""
        reasons, names = dict[int, str](), set[str]()
        try:
            content = read_bytes(self._readable_file, _MAX_CACHE_BYTES)
            lines = read_bytes(self._unreadable_file, _MAX_CACHE_BYTES).decode("utf-8", "replace").split("\n")
        except (OSError, ValueError):  # none yet, or something else in its place
            content, lines = b"", []
        for key, name, reason in (line.split(" ", 2) for line in lines if line.count(" ") >= 2):
            with suppress(ValueError):
                reasons[int(key, 16)] = reason
                names.add(os.fsdecode(unquote_to_bytes(name)))
        self._keys = np.unique(np.frombuffer(content[: len(content) // 8 * 8], "<u8").astype(np.uint64))
        self._reasons, self.names = reasons, names


class Verdicts(Container[int]):
    """The verdicts on a manifest's images: made when they are asked for, kept in the cache folder, shared through it.

    A verdict is kept under a hash of the image's path, size and time of change, so a changed file is judged again. As a
    container it holds the rows of images that cannot be read, and judges a row when it is asked about it.

    Attributes:
        reasons: Why images cannot be read, by row.
        revisions: Number of verdicts that came out otherwise when they were made again.
    """

    def __init__(self, manifest: Manifest, threads: int, archives: TarReader | None) -> None:
        """Read what is kept.

        Args:
            manifest: The images.
            threads: Number of threads that decode.
            archives: Reader of the archives that hold the images; None where they are files.
        """
        assert manifest.root is not None, "images of an array have no files"
        self._manifest, self._archives = manifest, archives
        self._byte_ranges = manifest.byte_ranges if archives else None
        self._archive_states = ["gone"] * len(manifest.archives)
        for number, path in enumerate(manifest.archives):
            with suppress(OSError):
                self._archive_states[number] = _file_state(path.stat())
        self._files = manifest.frame["file"]
        self._kinds = np.zeros(len(manifest), np.uint8)
        self._pending: dict[int, Future[Verdict]] = {}
        self._pool = ThreadPoolExecutor(threads)
        self._cache = VerdictCache(manifest.root)
        self.reasons: dict[int, str] = {}
        self.revisions = 0

    def __contains__(self, row: object) -> bool:
        assert isinstance(row, int)
        return bool(self.kinds(np.array([row]))[0] == ImageKind.UNREADABLE)

    @property
    def known_unreadable(self) -> np.ndarray:
        """Rows of images that were found to be unreadable before, by whichever process, and are as they were."""
        named = np.flatnonzero(self._files.isin(list(self._cache.names)))
        return named[[row in self for row in named.tolist()]]

    @property
    def complete(self) -> bool:
        """Whether every image has its verdict."""
        return not self._pending and bool(self._kinds.all())

    @property
    def all_unreadable(self) -> bool:
        """Whether every image was judged, and none can be read."""
        return bool((self._kinds == ImageKind.UNREADABLE).all())

    def start(self, rows: np.ndarray) -> None:
        """Begin to judge those of these rows that have no verdict yet; `kinds` is called with them later."""
        for row in rows[self._kinds[rows] == ImageKind.UNKNOWN].tolist():
            if row not in self._pending:
                self._pending[row] = self._pool.submit(self._verdict, row)

    def kinds(self, rows: np.ndarray) -> np.ndarray:
        """Return the kind of each row's verdict, (N,) uint8; those that have none are judged."""
        self.start(rows)
        for row in rows[self._kinds[rows] == ImageKind.UNKNOWN].tolist():
            if row in self._pending:
                self._record(row, self._pending.pop(row).result())
        self._cache.save(_SAVE_INTERVAL)
        kinds: np.ndarray = self._kinds[rows]
        return kinds

    def _record(self, row: int, verdict: Verdict) -> None:
        self._kinds[row] = verdict.kind
        if verdict.kind == ImageKind.UNREADABLE:
            self.reasons[row] = verdict.reason

    def revise(self, row: int) -> None:
        """Judge an image again that DALI refused: it has changed and cannot be read now, or only Pillow reads it."""
        before, verdict = self._kinds[row], self._judge(row, refused=True)
        self._record(row, verdict)
        self.revisions += int(before != verdict.kind)

    def state_key(self, row: int) -> int | None:
        """Return an even number of 64 bits for an image's name and state; None where it may just be changing."""
        try:
            if self._byte_ranges is None:
                status = self._manifest.image_path(row).stat()
                settled = time.time() - status.st_mtime > CLOCK_GRANULARITY
                return self._key(row, _file_state(status)) if settled else None
            return self._key(row, self._image_state(row))
        except OSError:
            return None

    def is_pillows(self, row: int) -> bool:
        """Whether a row's image is one that Pillow decodes; it has its verdict."""
        return bool(self._kinds[row] == ImageKind.PILLOW)

    def decode_to_ppm(self, rows: list[int], mode: str) -> list[bytes | None]:
        """Encode what images show by `decode.to_ppm`; None for one that has changed since and cannot be read now."""
        read = self._manifest.image_path if self._archives is None else self._read_bytes
        found: list[bytes | None] = []
        for future in [self._pool.submit(lambda row: to_ppm(read(row), mode), row) for row in rows]:
            try:
                found.append(future.result())
            except DecodeError:
                found.append(None)
        return found

    def save(self) -> None:
        """Keep what is not yet kept."""
        self._cache.save(0)

    def _verdict(self, row: int) -> Verdict:
        """The verdict that was kept, or that is made and kept now."""
        try:
            state = self._image_state(row)
        except OSError as error:
            return Verdict(ImageKind.UNREADABLE, os_error_reason(error), permanent=False)
        return self._cache.get(self._key(row, state)) or self._judge(row)

    def _judge(self, row: int, *, refused: bool = False) -> Verdict:
        """A new verdict, kept if it lasts; on an image that DALI `refused`, it is never "good"."""
        if self._byte_ranges is not None:
            content = self._read_bytes(row)
            if len(content) < self._byte_ranges[row][2]:
                return Verdict(ImageKind.UNREADABLE, "its archive cannot be read there, or is cut off", permanent=False)
            verdict, state, settled = judge_image(content), self._image_state(row), True
        else:
            try:
                with open_regular_file(self._manifest.image_path(row)) as file:
                    status = os.fstat(file.fileno())
                    verdict = judge_image(file)
            except OSError as error:
                return Verdict(ImageKind.UNREADABLE, os_error_reason(error), permanent=False)
            refused |= status.st_size > MAX_FILE_BYTES
            state, settled = _file_state(status), time.time() - status.st_mtime > CLOCK_GRANULARITY
        if refused and verdict.kind == ImageKind.GOOD:
            verdict = Verdict(ImageKind.PILLOW)
        if verdict.permanent and settled:
            self._cache.add(self._key(row, state), verdict, str(self._files.iat[row]))
        return verdict

    def _read_bytes(self, row: int) -> bytes:
        assert self._archives is not None
        assert self._byte_ranges is not None
        return self._archives.read(*self._byte_ranges[row].tolist()).tobytes()

    def _key(self, row: int, state: str) -> int:
        """An even number of 64 bits for an image's name and state, under the rules of today."""
        text = f"{VERDICT_RULES} {state} {self._files.iat[row]!s}".encode("utf-8", "surrogateescape")
        return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") & ~1

    def _image_state(self, row: int) -> str:
        if self._byte_ranges is None:
            return _file_state(self._manifest.image_path(row).stat())
        archive, offset, size = self._byte_ranges[row].tolist()
        return f"{self._archive_states[archive]} {offset} {size}"


def _file_state(status: os.stat_result) -> str:
    return f"{status.st_size} {status.st_mtime_ns}"
