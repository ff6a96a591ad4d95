"""Images inside tar files, read in place: which there are, and any of them without unpacking."""

import os
import tarfile
import weakref
from collections import deque
from collections.abc import Callable, Container, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import IO, NamedTuple, TypeVar

import numpy as np

from sslticket.data.datasets.folders import (
    IMAGE_SUFFIXES,
    Stamp,
    cached_arrays,
    is_hidden,
    is_image,
    join_names,
    path_below_root,
    split_names,
)
from sslticket.errors import BadInput, one_line

_TAR_BLOCK = 512
_TAR_SUFFIX = ".tar"
_COMPRESSED_SUFFIXES = (".tar.gz", ".tar.bz2", ".tar.xz", ".tgz", ".zip")  # from which nothing can be read in place
_ARCHIVE_SUFFIXES = (_TAR_SUFFIX, *_COMPRESSED_SUFFIXES)
_PREFETCHED_BATCHES = 2  # batches whose images are read while the one before them is decoded
_READER_THREADS = 16  # threads that read; they mostly wait for the file system

BatchT = TypeVar("BatchT")


class TarMember(NamedTuple):
    """A file in a tar file: its name, and where its bytes are."""

    name: str
    offset: int
    size: int


class TarContents(NamedTuple):
    """The images in a tar file, called "class/name" where they have a class, and the names of what is left out."""

    images: list[TarMember]
    left_out: list[str]


def list_tar(path: Path, *, classed: bool = True) -> TarContents:
    """The images in a tar file that is not compressed, and those in tar files within it, each of which is a class.

    They pass the filter and have the names that they have in class folders: "./" before a name, the folders above the
    class folders and an inner archive's own folder are no part of it.

    Args:
        path: Path of the archive.
        classed: Whether its images lie in class folders, if in any; where a list has their classes, they need not, and
            keep all the folders above them in their names.

    Raises:
        BadInput: If it cannot be read, is truncated, or is no tar file; naming the member, if which image it is, or of
            which class, is not clear.
    """
    try:
        # Unbuffered: only headers are read, a block each, far from one another.
        with path.open("rb", buffering=0) as file:
            outer, left_out = _list_open_tar(file, path)
            images = []
            for member in outer:
                if is_image(member.name):
                    images.append(member)
                    continue
                file.seek(member.offset)
                inner, others = _list_open_tar(file, path, member)
                images += [_name_in_class_folder(path, member, each) for each in inner]
                left_out += others
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror}") from error
    return TarContents(_in_class_folders(path, images) if classed else images, left_out)


def _list_open_tar(file: IO[bytes], path: Path, within: TarMember | None = None) -> TarContents:
    """List the images and the archives in the archive that starts at the position of `file`."""
    where = f"{path}, in {within.name}," if within else f"{path}"
    entries, end = [], 0
    try:
        # Names are what was stored, whatever the locale.
        with tarfile.open(fileobj=file, mode="r:", encoding="utf-8", errors="surrogateescape") as archive:
            for entry in archive:
                end = entry.offset_data + -(-entry.size // _TAR_BLOCK) * _TAR_BLOCK
                entries.append(entry)
    except tarfile.TarError as error:
        raise BadInput(
            f"{where} is truncated, damaged or no tar file ({one_line(error)}); download it again"
        ) from error
    # tarfile takes a header that is cut off or damaged for the end; the real end is a block of zeros.
    file.seek(end)
    if not entries or file.read(_TAR_BLOCK) != bytes(_TAR_BLOCK):
        raise BadInput(f"{where} breaks off after {len(entries)} files; download it again")
    found, left_out, folders = dict[str, TarMember](), [], dict[str, None]()
    for entry in entries:
        name = path_below_root(entry.name)
        own = entry.name.rpartition("/")[2] if name is None else name
        if entry.isdir():
            folders[f"{name}/"] = None
        elif not (is_image(own) or (own.lower().endswith(_ARCHIVE_SUFFIXES) and not is_hidden(own))):
            left_out.append(f"{within.name}/{entry.name}" if within else entry.name)
        elif fault := _member_fault(entry, name, found, within):
            raise BadInput(f"{where} has {entry.name!r}, {fault}")
        else:
            assert name is not None, "a fault otherwise"
            found[name] = TarMember(name, entry.offset_data, entry.size)
    if within and not any(is_image(name) for name in found):
        raise BadInput(f"{where} has no images; pack the archive anew without it, or with the images of that class")
    full = {name[: end + 1] for name in found for end, letter in enumerate(name) if letter == "/"}
    empty = [name for name in folders if name not in full and not is_hidden(name[:-1])] if found else []
    return TarContents(list(found.values()), [*left_out, *empty])


def _member_fault(entry: tarfile.TarInfo, name: str | None, found: Container[str], within: TarMember | None) -> str:
    """Return why an image or an archive cannot be taken as it is, and what to do; "" where it can."""
    if name is None:
        return "which leads out of the archive; pack it anew with paths below the images' folder"
    if name in found:
        return "twice; pack it anew with one of them"
    if entry.issym() or entry.islnk():
        return "a link; pack it anew with the images themselves (tar --dereference --hard-dereference)"
    if not entry.isreg() or entry.issparse():
        return "which is no regular file; pack it anew with the images themselves, and without tar --sparse"
    if name.lower().endswith(_COMPRESSED_SUFFIXES):
        return "a compressed archive, in which no image can be read in place; unpack it, or pack it anew as .tar"
    if within and name.lower().endswith(_TAR_SUFFIX):
        return "an archive in an archive in an archive; unpack it, or pack it anew beside the others"
    return ""


def _name_in_class_folder(path: Path, archive: TarMember, image: TarMember) -> TarMember:
    """Return an image in the archive of a class, called as if in the class's folder."""
    folder = archive.name[: -len(_TAR_SUFFIX)]
    *above, name = image.name.split("/")
    if above and above[-1] != folder.rpartition("/")[2]:
        raise BadInput(
            f"{path}, in {archive.name}, has {image.name!r}, whose folder is not that of the class; pack it anew"
        )
    return image._replace(name=f"{folder}/{name}")


def _in_class_folders(path: Path, images: Sequence[TarMember]) -> list[TarMember]:
    """Return the images without the folders above their class folders, if those are the same for all of them."""
    named, above = dict[str, TarMember](), set[tuple[str, ...]]()
    for member in images:
        parts = member.name.split("/")
        name = "/".join(parts[-2:])
        above.add((*parts[:-2], "") if len(parts) > 1 else ())
        if len(above) > 1 or name in named:
            first = images[0].name if len(above) > 1 else name
            raise BadInput(
                f"{path} has {member.name!r} and {first!r}, "
                + ("which are one image" if name in named else "which do not both lie in a class's folder")
                + "; pack it anew with one folder, or archive, per class"
            )
        named[name] = member._replace(name=name)
    return list(named.values())


def list_archives(
    paths: Sequence[Path], *, classed: bool = True
) -> tuple[list[tuple[int, TarMember]], tuple[str, ...]]:
    """List the images in archives, each with its archive's number, and what else they hold; see `list_tar`.

    The list of each archive is kept in the cache folder until the archive changes.
    """
    each = [_cached_members(path, classed) for path in paths]
    images = [(number, member) for number, one in enumerate(each) for member in one.images]
    return images, tuple(name for one in each for name in one.left_out)


def _cached_members(archive: Path, classed: bool) -> TarContents:
    """Return the archive's images, from the cache if they were listed before.

    Raises:
        BadInput: If there are none, or as `list_tar`.
    """

    def make() -> dict[str, np.ndarray]:
        images, left_out = list_tar(archive, classed=classed)
        if not images:
            raise BadInput(f"no images in {archive}; its members need names with {' '.join(IMAGE_SUFFIXES)}")
        names, offsets, sizes = zip(*images, strict=True)
        return {
            "names": join_names(names),
            "places": np.array([offsets, sizes], np.int64),
            "left_out": join_names(left_out),
        }

    stamp = Stamp.of_paths([archive])
    arrays = cached_arrays(archive, stamp if classed else Stamp(f"{stamp.text}\nas stored", stamp.latest), make)
    images = [TarMember(*each) for each in zip(split_names(arrays["names"]), *arrays["places"].tolist(), strict=True)]
    return TarContents(images, split_names(arrays["left_out"]))


class TarReader:
    """Reads images out of tar files, several at a time."""

    def __init__(self, paths: Sequence[Path]) -> None:
        """Opens nothing yet."""
        self._paths, self._files = paths, dict[int, int]()
        self._pool, self._lock = ThreadPoolExecutor(_READER_THREADS), Lock()
        weakref.finalize(self, _close_files, self._files)

    def read(self, archive: int, offset: int, size: int) -> np.ndarray:
        """Read the bytes of an image, (size,) uint8; fewer where the file is shorter or cannot be read."""
        try:
            with self._lock:
                if archive not in self._files:
                    self._files[archive] = os.open(self._paths[archive], os.O_RDONLY)
            content = os.pread(self._files[archive], size, offset)
        except OSError:
            content = b""
        return np.frombuffer(content, np.uint8)

    def prefetch(
        self, feed: Callable[[int], BatchT], byte_ranges: Callable[[BatchT], np.ndarray], batches: int
    ) -> Callable[[int], tuple[BatchT, list[np.ndarray]]]:
        """Return a function like `feed` that also returns the bytes of a batch's images, read ahead.

        Args:
            feed: Function that returns the specification of a batch.
            byte_ranges: Function that returns a batch's images as (B, 3) int64: archive, offset and size.
            batches: Number of batches; they are asked for in order.
        """
        pending: deque[tuple[BatchT, list[Future[np.ndarray]]]] = deque()

        def read(batch: int) -> tuple[BatchT, list[np.ndarray]]:
            while len(pending) <= _PREFETCHED_BATCHES and (later := batch + len(pending)) < batches:
                plan = feed(later)
                pending.append(
                    (plan, [self._pool.submit(self.read, *map(int, byte_range)) for byte_range in byte_ranges(plan)])
                )
            plan, futures = pending.popleft()
            return plan, [future.result() for future in futures]

        return read


def _close_files(files: Mapping[int, int]) -> None:
    for file in files.values():
        os.close(file)
