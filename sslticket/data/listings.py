"""Lists of images that take long to make, kept in the cache folder until what they list changes."""

import hashlib
import logging
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sslticket.data.folders import Listing, class_folders, contents, listing
from sslticket.files import locked, regular, written_whole

log = logging.getLogger("sslticket")

# A change within the same tick of the file system's clock would go unseen, so what changed just now is not kept. Two
# seconds is the coarsest clock there is, FAT's.
SETTLED = 2.0


def cache_folder() -> Path:
    """Where what takes long to make or to get is kept: $SSLTICKET_CACHE, or .cache/sslticket in the home folder."""
    return Path(os.environ.get("SSLTICKET_CACHE") or "~/.cache/sslticket").expanduser()


@dataclass(frozen=True)
class Stamp:
    """When something last changed.

    Attributes:
        text: names and times; another text is another state.
        latest: of the times, in seconds.
    """

    text: str
    latest: float

    @classmethod
    def of(cls, paths: Iterable[Path]) -> "Stamp":
        """Of files or folders; a folder changes when something in it comes, goes or is renamed."""
        states = [(path, path.stat()) for path in paths]
        text = "\n".join(f"{path.name} {state.st_mtime_ns} {state.st_size}" for path, state in states)
        return cls(text, max((state.st_mtime for _, state in states), default=0.0))


_VERSION = 2  # of what is kept: names are normalised, and what was left out is kept with them


def kept(place: Path, stamp: Stamp, make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Arrays that were made before, or are made now and kept if they can be.

    Args:
        place: what they are about; names them in the cache.
        stamp: the state of `place` that they belong to, looked at before they are made.
        make: makes them.
    """
    name = hashlib.sha256(str(place.resolve()).encode("utf-8", "surrogateescape")).hexdigest()[:16]
    path = cache_folder() / "lists" / f"{name}.npz"
    state = np.frombuffer(f"{_VERSION}\n{stamp.text}".encode("utf-8", "surrogateescape"), np.uint8)
    if there := _there(path, state):
        return there
    with locked(path):  # one process makes it, for those beside it too
        if there := _there(path, state):
            return there
        made = make()
        if time.time() - stamp.latest > SETTLED:
            try:
                with written_whole(path) as temporary, temporary.open("wb") as target:
                    np.savez(target, allow_pickle=False, state=state, **made)
            except OSError as error:
                log.info("the list of %s is not kept, %s: %s", place, path, error.strerror)
        return made


def _there(path: Path, state: np.ndarray) -> dict[str, np.ndarray] | None:
    """The arrays in a file, if they are of this state."""
    try:
        with regular(path) as (file, _), np.load(file) as content:
            if np.array_equal(content["state"], state):
                return {name: content[name] for name in content.files if name != "state"}
    except Exception:  # a damaged file can raise nearly anything
        pass  # none yet, or one that is damaged: it is only a copy
    return None


def joined(names: Iterable[str]) -> np.ndarray:
    """Names as one array of bytes."""
    return np.frombuffer("\0".join(names).encode("utf-8", "surrogateescape"), np.uint8)


def split(names: np.ndarray) -> list[str]:
    """The names in such an array."""
    return names.tobytes().decode("utf-8", "surrogateescape").split("\0") if names.size else []


def kept_listing(root: Path, classes: tuple[str, ...] | None = None) -> Listing:
    """`folders.listing`, which reads every class folder, from the cache where no class folder has changed.

    Raises:
        BadInput: as `folders.listing`.
    """

    def make() -> dict[str, np.ndarray]:
        found = listing(root, classes)
        lists = {"classes": found.classes, "files": found.files, "left_out": found.left_out}
        return {name: joined(names) for name, names in lists.items()} | {"labels": found.labels}

    own, top = class_folders(root), contents(root)
    stamp = Stamp.of(root / name for name in own)
    # What else is in the root may come and go while no class folder changes.
    state = "\n\n".join(["\n".join(names) for names in (classes or (), top.images, top.others)])
    arrays = kept(root, Stamp(f"{stamp.text}\n\n{state}", stamp.latest), make)
    found, files, left_out = (split(arrays[name]) for name in ("classes", "files", "left_out"))
    return Listing(root, tuple(found), files, arrays["labels"], left_out=tuple(left_out))
