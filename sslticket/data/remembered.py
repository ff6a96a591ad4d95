"""Verdicts on images that are in the cache folder, where other processes and later runs find them."""

import hashlib
import logging
import os
import time
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote_from_bytes, unquote_to_bytes

import numpy as np

from sslticket.data.judging import Kind, Verdict
from sslticket.data.listings import cache_folder
from sslticket.files import locked, read_bytes

log = logging.getLogger("sslticket")

_LARGEST = 1 << 32  # bytes of a file, 500 million images


class Remembered:
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
        keys, reasons = self._keys, self._reasons  # another thread may put newer ones in their place
        if key in reasons:
            return Verdict(Kind.BAD, reasons[key])
        place = int(np.searchsorted(keys, np.uint64(key)))
        there = [int(kept) - key for kept in keys[place : place + 2]]
        if 1 in there:  # of an image that DALI refused there is an older verdict too, without the bit
            return Verdict(Kind.PILLOW)
        return Verdict(Kind.GOOD) if 0 in there else None

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
        reasons, names = dict[int, str](), set[str]()
        try:
            content = read_bytes(self._good, _LARGEST)
            lines = read_bytes(self._bad, _LARGEST).decode("utf-8", "replace").split("\n")
        except (OSError, ValueError):  # none yet, or something else in its place
            content, lines = b"", []
        for key, name, reason in (line.split(" ", 2) for line in lines if line.count(" ") >= 2):
            with suppress(ValueError):
                reasons[int(key, 16)] = reason
                names.add(os.fsdecode(unquote_to_bytes(name)))
        self._keys = np.unique(np.frombuffer(content[: len(content) // 8 * 8], "<u8").astype(np.uint64))
        self._reasons, self.names = reasons, names


def _append(path: Path, content: bytes) -> None:
    """Put something at the end of a file, after the last whole record of eight bytes or line."""
    if not content:
        path.touch()
        return
    with open(path, "ab", opener=_at_once) as file:  # Path.open has no opener
        if path.suffix == ".good":
            file.truncate(file.tell() // 8 * 8)
        elif file.tell():
            content = b"\n" + content
        file.write(content)


def _at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK, 0o666)  # a pipe that nobody reads is an error, and not waited for
