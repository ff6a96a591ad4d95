"""Folders of class folders: which files in them are images, what their names say, and the cached list of them."""

import hashlib
import logging
import os
import time
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sslticket.data.datasets.base import SPLITS, Dataset, ImageArrays, Layout, Listing, Split
from sslticket.errors import BadInput
from sslticket.storage.files import atomic_write, cache_folder, file_lock, open_regular

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".pbm", ".tif", ".tiff")
_SYSTEM_FOLDERS = {"__MACOSX", "@eaDir", "lost+found", "$RECYCLE.BIN", "System Volume Information"}
"""Folders that macOS, Synology, file systems and Windows put among images: copies, thumbnails and deleted files."""
_COMPANION_FILES = ("readme", "license", "licence", "copying", "notice", "authors", "citation", "changelog", "makefile")
"""Files without a suffix that may lie beside class folders; any other might be what is left of a class's folder."""


def is_image(name: str) -> bool:
    """Whether a path below a split's root is an image's, by its suffix; no part of it may be hidden or a system's own.

    This is the only filter: class folders, flat folders, members of archives and lists all pass through it.
    """
    return name.lower().endswith(IMAGE_SUFFIXES) and not is_hidden(name)


def is_hidden(name: str) -> bool:
    """Whether any part of a path is hidden, as ".x" and macOS's "._x" are, or is a system's own, as "__MACOSX" is."""
    # Few names get past the first look, and there may be millions.
    return (name[:1] == "." or "/" in name or name in _SYSTEM_FOLDERS) and any(
        part.startswith(".") or part in _SYSTEM_FOLDERS for part in name.split("/")
    )


def path_below_root(name: str) -> str | None:
    """Normalise a path below a root: "./a//1.jpg" is "a/1.jpg"; None where it leads out of the root."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    return None if name.startswith("/") or ".." in parts else "/".join(parts)


def describe_left_out(names: Iterable[str]) -> str:
    """Describe in a line what lies among images and is none: "left out: 2 files that are no images (a/x.txt, ...)".

    Args:
        names: Paths as in `Listing.left_out`.

    Returns:
        The line, "" where there is nothing.
    """
    listed = sorted(names)
    inner = [name for name in listed if name.endswith("/") and not is_hidden(name)]
    others = [name for name in listed if name not in inner]
    said = []
    if others:
        what = "file that is no image" if len(others) == 1 else "files that are no images"
        said.append(f"{len(others):,} {what} ({_first_names(others)})")
    if inner:
        what = "folder that is no class's" if len(inner) == 1 else "folders that are no class's"
        said.append(
            f"{len(inner):,} {what} ({_first_names(inner)}), with all that is in {'it' if len(inner) == 1 else 'them'}"
        )
    return f"left out: {'; '.join(said)}" if said else ""


def _first_names(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


class FolderContents(NamedTuple):
    """The names in a folder, each list sorted: its folders, its images, and all else, which is left out."""

    folders: list[str]
    images: list[str]
    others: list[str]


def folder_contents(folder: Path) -> FolderContents:
    """List a folder; image files are not opened, so links among them and what is no file are found when they are read.

    Raises:
        BadInput: If it cannot be read.
    """
    found = FolderContents([], [], [])
    try:
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=attrgetter("name")):
                # Of an image's name only the kind of the entry is asked for, which takes no look at the file itself.
                if is_image(entry.name) and not entry.is_dir(follow_symlinks=False):
                    found.images.append(entry.name)
                elif not is_hidden(entry.name) and _is_folder(entry):
                    found.folders.append(entry.name)
                else:
                    found.others.append(entry.name)
    except OSError as error:
        raise BadInput(f"cannot read the folder {folder}: {error.strerror}; give it the rights to be read") from error
    return found


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link in a circle, or to where nobody may look
        return False


def class_folders(root: Path) -> list[str]:
    """Return the names of the folders in `root`, hidden ones left out, sorted; none where there is no such folder.

    Raises:
        BadInput: If it, or what may be a class folder in it, is a link to what is not there.
    """
    if root.is_dir():
        found = folder_contents(root)
        for name in found.others:
            _check_link(root / name)
        return found.folders
    _check_link(root)
    return []


def _check_link(path: Path) -> None:
    """Raise `BadInput` if a path is a link that leads nowhere: its images would be missing without a word."""
    if path.is_symlink() and not path.name.startswith("."):
        try:
            path.stat()
        except OSError as error:
            raise BadInput(
                f"{path} is a link to {path.readlink()}, which cannot be reached ({error.strerror}); mount or "
                "restore that, or remove the link"
            ) from error


def list_class_folders(root: Path, classes: tuple[str, ...] | None = None) -> Listing:
    """List the images directly in the class folders of `root`.

    Args:
        root: Folder of class folders.
        classes: Classes of the training split, so that another split gets the same labels; None takes the folders'.

    Raises:
        BadInput: If there are no images, a class has none or is not among `classes`, a folder cannot be read, or an
            image or what may be a class lies where it has no label.
    """
    top = folder_contents(root)
    found = class_folders(root)
    order = class_order(root, found, classes)
    inner = [folder_contents(root / name) for name in found]
    if not any(each.images or each.folders for each in inner):
        raise BadInput(f"no images in {root}; it needs a folder per class with files named {' '.join(IMAGE_SUFFIXES)}")
    for name, each in zip(found, inner, strict=True):
        if not each.images:
            raise _no_images_error(root / name)
    if same := _same_folder(root, found):
        raise BadInput(f"{root / same[0]} and {root / same[1]} are one folder, of two classes; remove a link")
    if top.images:
        raise BadInput(
            f"{root / top.images[0]} lies beside the class folders, so it has no label ({len(top.images):,} images "
            "do); move each to its class folder, or elsewhere"
        )
    for name in top.others:
        if name in order or not (is_hidden(name) or "." in name or name.lower() in _COMPANION_FILES):
            raise BadInput(f"{root / name} is no folder, and lies where class folders do; restore or remove it")
    labels = np.repeat([order.index(name) for name in found], [len(each.images) for each in inner]).astype(np.int64)
    files = [f"{name}/{image}" for name, each in zip(found, inner, strict=True) for image in each.images]
    outside = [
        f"{name}/{other}"
        for name, each in zip(found, inner, strict=True)
        for other in (*each.others, *(f"{folder}/" for folder in each.folders))
    ]
    return Listing(root, order, files, labels, left_out=(*top.others, *outside))


def _same_folder(root: Path, names: Iterable[str]) -> tuple[str, str] | None:
    """Return two class folders that are one, if there are any: their images would have two labels."""
    first = dict[tuple[int, int], str]()
    for name in names:
        state = (root / name).stat()
        if (other := first.setdefault((state.st_dev, state.st_ino), name)) != name:
            return other, name
    return None


def class_order(root: Path, found: Iterable[str], classes: tuple[str, ...] | None) -> tuple[str, ...]:
    """Return the classes in the order of their labels: `classes`, or those found, sorted.

    Args:
        root: Folder or archive where they were found, for errors.
        found: Names of classes there.
        classes: Classes of the training split; None where the found ones are those.

    Raises:
        BadInput: If one is not among `classes`, or two are the same text, written in two ways.
    """
    names = sorted(set(found))
    spelt: dict[str, str] = {}
    for name in names:
        if (other := spelt.setdefault(unicodedata.normalize("NFC", name), name)) != name:
            raise BadInput(
                f"{root} has two classes that read {other!r}, composed of other Unicode characters ({other!a}, "
                f"{name!a}); put their images into one folder"
            )
    if classes is None:
        return tuple(names)
    strange = sorted(set(names) - set(classes))
    if not strange:
        return classes
    folded = unicodedata.normalize("NFC", strange[0]).casefold()
    alike = [name for name in classes if unicodedata.normalize("NFC", name).casefold() == folded]
    if alike:
        raise BadInput(
            f"{root} has class {strange[0]!r}, which the training images call {alike[0]!r} ({strange[0]!a}, "
            f"{alike[0]!a}); rename that folder"
        )
    raise BadInput(f"{root} has class {strange[0]!r}, which the training images do not; remove or rename that folder")


def _no_images_error(folder: Path) -> BadInput:
    """Return an error for a class folder without images, which may lie deeper in it."""
    for deeper, _, names in os.walk(folder):
        if any(map(is_image, names)):
            return BadInput(
                f"class folder {folder} has no images itself, but {deeper} has; move them up into it or, if the "
                f"folders in {Path(deeper).parent} are the classes, put those in its place"
            )
    return BadInput(f"class folder {folder} has no images; remove it or put {' '.join(IMAGE_SUFFIXES)} files there")


log = logging.getLogger("sslticket")

# A change within the same tick of the file system's clock would go unseen, so what changed just now is not kept. Two
# seconds is the coarsest clock there is, FAT's.
CLOCK_GRANULARITY = 2.0


@dataclass(frozen=True)
class Stamp:
    """The state of files or folders by their times of change.

    Attributes:
        text: Names, times and sizes; another text is another state.
        latest: The latest of the times, in seconds.
    """

    text: str
    latest: float

    @classmethod
    def of_paths(cls, paths: Iterable[Path]) -> "Stamp":
        """Read the state of files or folders; a folder changes when something in it comes, goes or is renamed."""
        states = [(path, path.stat()) for path in paths]
        text = "\n".join(f"{path.name} {state.st_mtime_ns} {state.st_size}" for path, state in states)
        return cls(text, max((state.st_mtime for _, state in states), default=0.0))


_CACHE_VERSION = 2  # of what is kept: names are normalised, and what was left out is kept with them


def cached_arrays(root: Path, stamp: Stamp, make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Return arrays that were made before and kept in the cache folder, or make them and keep them if possible.

    Args:
        root: Folder or archive that they describe; names them in the cache.
        stamp: State of `root` that they belong to, read before they are made.
        make: Function that makes them.
    """
    name = hashlib.sha256(str(root.resolve()).encode("utf-8", "surrogateescape")).hexdigest()[:16]
    path = cache_folder() / "lists" / f"{name}.npz"
    state = np.frombuffer(f"{_CACHE_VERSION}\n{stamp.text}".encode("utf-8", "surrogateescape"), np.uint8)
    if there := _read_cached(path, state):
        return there
    with file_lock(path):  # one process makes it, for those beside it too
        if there := _read_cached(path, state):
            return there
        made = make()
        if time.time() - stamp.latest > CLOCK_GRANULARITY:
            try:
                with atomic_write(path) as temporary, temporary.open("wb") as target:
                    np.savez(target, allow_pickle=False, state=state, **made)
            except OSError as error:
                log.info("the list of %s is not kept, %s: %s", root, path, error.strerror)
        return made


def _read_cached(path: Path, state: np.ndarray) -> dict[str, np.ndarray] | None:
    """The arrays in a file, if they are of this state."""
    try:
        with open_regular(path) as (file, _), np.load(file) as content:
            if np.array_equal(content["state"], state):
                return {name: content[name] for name in content.files if name != "state"}
    except Exception:  # a damaged file can raise nearly anything
        pass  # none yet, or one that is damaged: it is only a copy
    return None


def join_names(names: Iterable[str]) -> np.ndarray:
    """Store names as one array of bytes, (N,) uint8."""
    return np.frombuffer("\0".join(names).encode("utf-8", "surrogateescape"), np.uint8)


def split_names(names: np.ndarray) -> list[str]:
    """Return the names that `join_names` stored."""
    return names.tobytes().decode("utf-8", "surrogateescape").split("\0") if names.size else []


def cached_class_folders(root: Path, classes: tuple[str, ...] | None = None) -> Listing:
    """As `list_class_folders`, which reads every class folder, but from the cache where no class folder has changed.

    Raises:
        BadInput: As `list_class_folders`.
    """

    def make() -> dict[str, np.ndarray]:
        found = list_class_folders(root, classes)
        lists = {"classes": found.classes, "files": found.files, "left_out": found.left_out}
        return {name: join_names(names) for name, names in lists.items()} | {"labels": found.labels}

    own, top = class_folders(root), folder_contents(root)
    stamp = Stamp.of_paths(root / name for name in own)
    # What else is in the root may come and go while no class folder changes.
    state = "\n\n".join(["\n".join(names) for names in (classes or (), top.images, top.others)])
    arrays = cached_arrays(root, Stamp(f"{stamp.text}\n\n{state}", stamp.latest), make)
    found, files, left_out = (split_names(arrays[name]) for name in ("classes", "files", "left_out"))
    return Listing(root, tuple(found), files, arrays["labels"], left_out=tuple(left_out))


def split_folder(dataset: Dataset, split: Split, folder: Path) -> Path | None:
    """Return the folder of class folders of a split; None where there is none."""
    for name in dataset.train_folders if split == "train" else dataset.eval_folders:
        found = class_folders(folder / name)
        # Without this, a folder of val/ alone would pass for a set with the class "val".
        if found and not (name == "." and set(found) & set(dataset.eval_folders)):
            return folder / name
    return None


@dataclass(frozen=True, kw_only=True)
class FolderLayout(Layout):
    """Folders of class folders, such as train/<class>/ and val/<class>/; nearly every data set may lie in them."""

    def find(self, dataset: Dataset, folder: Path) -> Path | None:
        """Return `folder` if it has the class folders of any split."""
        return folder if any(split_folder(dataset, split, folder) for split in SPLITS) else None

    def open(self, dataset: Dataset, split: Split, folder: Path) -> Listing | ImageArrays | None:
        """List the images in a split's class folders."""
        return self.list_class_folders(dataset, split, folder)

    def list_class_folders(self, dataset: Dataset, split: Split, folder: Path) -> Listing | None:
        """List the images in a split's class folders, with the labels of the training images' classes."""
        root = split_folder(dataset, split, folder)
        return None if root is None else cached_class_folders(root, self.training_classes(dataset, folder))

    def training_classes(self, dataset: Dataset, folder: Path) -> tuple[str, ...] | None:
        """Return the training images' classes in the order of their labels; None where there are none."""
        train = split_folder(dataset, "train", folder)
        return None if train is None else tuple(class_folders(train))

    def describe_missing(self, dataset: Dataset) -> str:
        """Return what a folder without this data set lacks, for an error."""
        return (
            "no class folders with images in train/" if dataset.kind == "files" else super().describe_missing(dataset)
        )
