"""Resized images in tar files, as `sslticket data pack` writes them, for file systems slow with many small files.

OUT/pack.json                       dataset, settings and the hashes of the images that were packed
OUT/train/shard-00000.tar           WebDataset: <row>.jpg and <row>.cls (the label) for each image
OUT/train/shard-00000.idx           DALI's index of it
OUT/train/manifest.csv              the images in their own order: file, label, shard, offset, size
OUT/train/split.json                classes, shards with their lengths, and SHA-256 sums, which older ones lack; written
                                    last, so a split that has it is whole
OUT/eval/...
"""

import hashlib
import io
import os
import re
import tarfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from sslticket.data.datasets.base import Listing, Split
from sslticket.data.decode import DecodeError, decode_whole, image_reader, to_upright
from sslticket.data.manifest import Manifest
from sslticket.data.unreadable import log_unreadable
from sslticket.errors import BadInput, one_line
from sslticket.seeds import seeded_generator
from sslticket.storage.files import atomic_write, open_regular, read_bytes, read_json, remove_unfinished, write_json

SHARDS_FORMAT = 1
_MAX_JSON_BYTES = 1 << 26  # bytes of a file about a split: names of 22,000 classes, and 500 shards
_MAX_CSV_BYTES = 1 << 32  # of a list of images, which has 60 bytes a line
_TAR_HEADER_BYTES, _READ_BYTES = 512, 1 << 20
_SHARD_NAME = re.compile(r"shard-[0-9]{5,9}\.tar")
_SETTING_TYPES = {"dataset": str, "short_side": int, "quality": int, "shard_size": int, "images": dict}
_FIX_DAMAGE = "copy it again or pack again"
_CSV_COLUMNS = {"file": "object", "label": "int64", "shard": "int64", "offset": "int64", "size": "int64"}


def holds_shards(folder: Path, dataset: str) -> bool:
    """Whether a folder holds shards of this data set."""
    return (folder / "pack.json").is_file() and read_shard_settings(folder).get("dataset") == dataset


def read_shard_settings(folder: Path) -> dict[str, Any]:
    """Read what the shards in a folder were made of, and how.

    Raises:
        BadInput: If that cannot be read, or is of another version.
    """
    path = folder / "pack.json"
    content = _read_json_object(path)
    if content.get("format") != SHARDS_FORMAT:
        found = repr(content.get("format"))[:40]
        raise BadInput(f"the shards in {folder} must be of format {SHARDS_FORMAT}, got {found}; pack them again")
    if odd := [name for name, kind in _SETTING_TYPES.items() if type(content.get(name)) is not kind]:
        raise _damaged_error(path, f"it lacks its {odd[0]}")
    return content


def open_shards(folder: Path, split: Split) -> Listing | None:
    """List the images in a split's shards; None where no such split was packed.

    Every image lies within its shard, whose length is checked, and its label is that of a class. Whether the shards
    hold what they held, `find_shard_damage` finds, which reads them.

    Raises:
        BadInput: If the split was not packed to its end, a shard is missing or truncated, or a list is damaged.
    """
    root, settings = folder / split, read_shard_settings(folder)
    if split not in settings["images"]:
        return None
    if not (root / "split.json").is_file():
        raise BadInput(f"{root} must be packed to its end; give the same sslticket data pack command again")
    info = _read_split_json(root)
    paths = tuple(root / name for name in info["shards"])
    sizes = np.array(list(info["shards"].values()), np.int64)
    for path, expected in zip(paths, sizes.tolist(), strict=True):
        if (found := path.stat().st_size if path.is_file() else None) != expected:
            state = "is missing" if found is None else f"has {found:,} bytes, not {expected:,}"
            raise BadInput(f"shard {path} {state}; copy it again, or delete {root / 'split.json'} and pack again")
    frame = _read_manifest_csv(root / "manifest.csv", info)
    byte_ranges = frame[["shard", "offset", "size"]].to_numpy(np.int64)
    shard, offset, size = byte_ranges.T
    within = (shard >= 0) & (shard < len(paths)) & (offset >= _TAR_HEADER_BYTES) & (size >= 0)
    # Not their sum, which might be too large a number.
    within[within] = size[within] <= sizes[shard[within]] - offset[within]
    labels = frame["label"].to_numpy()
    for fits, what in ((within, "in no shard"), ((labels >= 0) & (labels < len(info["classes"])), "of no class")):
        if not fits.all():
            row = int(np.flatnonzero(~fits)[0])
            raise _damaged_error(root / "manifest.csv", f"line {row + 2} is of an image {what}")
    preprocessing = f"short side {settings['short_side']}, quality {settings['quality']}"
    return Listing(root, tuple(info["classes"]), list(frame["file"]), labels, paths, byte_ranges, preprocessing)


def find_shard_damage(
    folder: Path, split: Split, stage: Callable[[str, int], Callable[[int], object]]
) -> list[str] | None:
    """Compare the content of a split's shards with their sums.

    Args:
        folder: Folder of the shards.
        split: A split that `open_shards` opens.
        stage: Called with what begins and how many bytes it has; returns what is called with how many are done.

    Returns:
        What is wrong, a line each; None where the split was packed without sums.
    """
    root = folder / split
    sums = _read_split_json(root).get("sums")
    if sums is None:
        return None
    found = []
    for name, expected in sums.items():
        advance = stage(f"{split}/{name}", (root / name).stat().st_size)
        if sha256_of(root / name, advance) != expected:
            found.append(f"{root / name} is not what was packed; copy it again, or pack again")
    return found


def sha256_of(path: Path, advance: Callable[[int], object] = lambda _: None) -> str:
    """Compute the SHA-256 sum of a file, 64 hexadecimal digits; `advance` is called with the number of bytes read."""
    digest = hashlib.sha256()
    with open_regular(path) as (file, _):
        while piece := file.read(_READ_BYTES):
            digest.update(piece)
            advance(len(piece))
    return digest.hexdigest()


def _read_split_json(root: Path) -> dict[str, Any]:
    """The content of split.json, checked to be complete and of the right types."""
    path = root / "split.json"
    info = _read_json_object(path)
    classes, shards, sums = info.get("classes"), info.get("shards"), info.get("sums")
    if not is_count(info.get("images")) or not isinstance(classes, list) or not isinstance(shards, dict):
        raise _damaged_error(path, "it lacks its images, classes or shards")
    if not all(isinstance(name, str) for name in classes) or len(set(classes)) < len(classes):
        raise _damaged_error(path, "its classes are not names, or one is there twice")
    if odd := [name for name, size in shards.items() if not _SHARD_NAME.fullmatch(name) or not is_count(size)]:
        raise _damaged_error(path, f"it has a shard {odd[0][:80]!r}")
    if sums is not None and (not isinstance(sums, dict) or sums.keys() != {"manifest.csv", *shards}):
        raise _damaged_error(path, "its sums are not those of its shards")
    return info


def _read_manifest_csv(path: Path, info: dict[str, Any]) -> pd.DataFrame:
    """The images in their own order."""
    try:
        content = read_bytes(path, _MAX_CSV_BYTES)
    except FileNotFoundError:
        raise BadInput(f"{path} is missing; copy it, or pack again") from None
    if info.get("sums") and hashlib.sha256(content).hexdigest() != info["sums"]["manifest.csv"]:
        raise _damaged_error(path, "it is not what was packed")
    try:
        frame = pd.read_csv(
            io.BytesIO(content),
            dtype=_CSV_COLUMNS,
            keep_default_na=False,
            encoding_errors="surrogateescape",
            lineterminator="\n",  # a name may hold a carriage return, which the writer does not quote
        )
    except (ValueError, OverflowError) as error:
        raise _damaged_error(path, one_line(error)) from None
    if list(frame) != list(_CSV_COLUMNS) or len(frame) != info["images"]:
        raise _damaged_error(path, f"it has {len(frame):,} lines of images, not {info['images']:,}")
    return frame


def is_count(value: object) -> bool:
    """Whether a value from JSON is a count."""
    return type(value) is int and 0 <= value < 1 << 60


def _read_json_object(path: Path) -> dict[str, Any]:
    content = read_json(path, most=_MAX_JSON_BYTES, fix=_FIX_DAMAGE)
    if not isinstance(content, dict):
        raise _damaged_error(path, "it must be a JSON object")
    return content


def _damaged_error(path: Path, why: str) -> BadInput:
    return BadInput(f"{path} is damaged ({why}); {_FIX_DAMAGE}")


_MAX_SHARDS = 500  # of a split; a loader keeps them all open, and 1,024 open files are what a process may have
_SUFFIXES = {"JPEG": "jpg", "MPO": "jpg", "PNG": "png", "BMP": "bmp", "WEBP": "webp", "PPM": "ppm", "TIFF": "tif"}
_MAX_INDEX_BYTES = 1 << 32
_INDEX_LINE = re.compile(rb"\S+ ([0-9]{1,15}) ([0-9]{1,15}) ")  # suffix, offset and size of an image
_SHUFFLE_SEED = 0  # of the order of images in the shards: those who read them one after the other need a mixture


@dataclass(frozen=True, kw_only=True)
class ShardSettings:
    """How images are packed.

    Attributes:
        short_side: What longer short sides are shrunk to, in pixels; other images are taken as they are.
        quality: Quality of the JPEGs that shrunk images become, 1 to 100.
        shard_size: Images in a tar file.
    """

    short_side: int
    quality: int = 95
    shard_size: int = 10_000

    def __post_init__(self) -> None:
        if self.short_side < 1:
            raise BadInput(f"--short-side must be at least 1 pixel, got {self.short_side}; give --short-side 256")
        if not 1 <= self.quality <= 100:
            raise BadInput(f"--quality must be from 1 to 100, got {self.quality}; give --quality 95")
        if self.shard_size < 1:
            raise BadInput(f"--shard-size must be at least 1 image, got {self.shard_size}; give --shard-size 10000")


def start_shards(manifests: Iterable[Manifest], out: Path, settings: ShardSettings) -> None:
    """Check the folder and note there what is packed, before anything else is written.

    Args:
        manifests: The images of each split.
        out: Folder of the shards.
        settings: How images are packed.

    Raises:
        BadInput: If the folder holds other files, or shards of other images or settings; or there are too many shards.
    """
    hashes, dataset = {}, ""
    for manifest in manifests:
        hashes[manifest.split], dataset = manifest.hash, manifest.dataset
        if len(manifest) > _MAX_SHARDS * settings.shard_size:
            raise BadInput(
                f"{len(manifest):,} images must make at most {_MAX_SHARDS} shards, got --shard-size "
                f"{settings.shard_size}; give at least --shard-size {-(-len(manifest) // _MAX_SHARDS)}"
            )
    content = {"format": SHARDS_FORMAT, "dataset": dataset, **vars(settings), "images": hashes}
    if (out / "pack.json").is_file():
        if read_shard_settings(out) != content:
            raise BadInput(f"{out} holds shards of other images or with other settings; give another folder")
        remove_unfinished(out)
        return
    # A packing that was killed at its very start leaves an unfinished pack.json.
    if out.exists() and (not out.is_dir() or any(not file.match(".pack.json.*.part") for file in out.iterdir())):
        raise BadInput(f"{out} must be new, empty or hold shards of sslticket, got other files; give another folder")
    write_json(out / "pack.json", content)


def write_shards(
    manifest: Manifest, out: Path, settings: ShardSettings, advance: Callable[[int], object]
) -> dict[str, str]:
    """Write the shards of a split; those that are there are kept, so an interrupted packing goes on.

    Args:
        manifest: The split's images, as files or in archives.
        out: Folder of the shards, after `start_shards`.
        settings: How images are packed.
        advance: Called with the number of images done.

    Returns:
        The images that could not be read, and why; they are packed as they are, so that every subset stays the same.

    Raises:
        BadInput: If the disk is full or the folder cannot be written.
    """
    root = out / manifest.split
    if (root / "split.json").is_file() and open_shards(out, "train" if manifest.split == "train" else "eval"):
        advance(len(manifest))
        return {}
    order = seeded_generator(_SHUFFLE_SEED, "shards").permutation(len(manifest)).tolist()
    shards, unreadable, locations = dict[str, int](), dict[str, str](), dict[int, tuple[int, int, int]]()
    try:
        for number, rows in enumerate(_row_chunks(order, settings.shard_size)):
            path = root / f"shard-{number:05d}.tar"
            if not (path.is_file() and path.with_suffix(".idx").is_file()):
                unreadable |= _write_shard(manifest, rows, path, settings)
            shards[path.name] = path.stat().st_size
            for row, (offset, size) in zip(rows, _read_index(path, len(rows)), strict=True):
                locations[row] = (number, offset, size)
            advance(len(rows))
        frame = pd.DataFrame([locations[row] for row in range(len(order))], columns=["shard", "offset", "size"])
        frame = pd.concat([manifest.frame[["file", "label"]], frame], axis=1)
        with atomic_write(root / "manifest.csv") as temporary:
            frame.to_csv(temporary, index=False, errors="surrogateescape")
        sums = {name: sha256_of(root / name) for name in ("manifest.csv", *shards)}
        split = {"images": len(manifest), "classes": list(manifest.classes), "shards": shards, "sums": sums}
        write_json(root / "split.json", split)
    except OSError as error:
        raise BadInput(
            f"cannot write shards to {root}: {error.strerror}; the same command goes on from there"
        ) from error
    return unreadable


def _row_chunks(rows: list[int], size: int) -> list[list[int]]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def _write_shard(manifest: Manifest, rows: list[int], path: Path, settings: ShardSettings) -> dict[str, str]:
    """Write one tar file and its index; returns the images that could not be read."""
    unreadable, lines = {}, []
    threads = os.cpu_count() or 1
    with ThreadPoolExecutor(threads) as pool, atomic_write(path) as temporary:
        read = image_reader(manifest)
        with tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as archive:
            # A few at a time: a whole shard's images need not be in memory at once.
            for some in _row_chunks(rows, 16 * threads):
                for row, (content, suffix, reason) in zip(
                    some, pool.map(lambda row: _shrink(read(row), settings), some), strict=True
                ):
                    if reason:
                        unreadable[str(manifest.image_path(row))] = reason
                    label = str(manifest.labels[row]).encode()
                    files = {f"{row:09d}.{suffix}": content, f"{row:09d}.cls": label}
                    lines.append(" ".join(_add_to_tar(archive, *file) for file in files.items()))
    with atomic_write(path.with_suffix(".idx")) as temporary:
        temporary.write_text("\n".join([f"v1.2 {len(lines)}", *lines, ""]))
    log_unreadable(unreadable)
    return unreadable


def _add_to_tar(archive: tarfile.TarFile, name: str, content: bytes) -> str:
    """Put a file into the archive; returns its part of a line of DALI's index: suffix, offset, size and name."""
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    header = archive.offset
    archive.addfile(entry, io.BytesIO(content))
    return f"{name.partition('.')[2]} {header + tarfile.BLOCKSIZE} {len(content)} {name}"


def _read_index(path: Path, images: int) -> list[tuple[int, int]]:
    """Offset and size of every image in a shard, from its index."""
    index = path.with_suffix(".idx")
    lines = read_bytes(index, _MAX_INDEX_BYTES).split(b"\n")[1:-1]
    found = [_INDEX_LINE.match(line) for line in lines]
    if len(lines) != images or None in found:
        raise BadInput(f"{index} is damaged; delete it and {path.name}, and give the same command again")
    return [(int(match[1]), int(match[2])) for match in found if match]


def _shrink(content: bytes, settings: ShardSettings) -> tuple[bytes, str, str]:
    """The image to pack, its suffix, and why it could not be read, "" if it could."""
    try:
        image = decode_whole(content)
    except DecodeError as error:
        return content, "jpg", str(error)
    if min(image.size) <= settings.short_side:
        return content, _SUFFIXES[str(image.format)], ""
    pixels = to_upright(image)
    pixels = pixels if pixels.mode in ("L", "RGB") else pixels.convert("RGB")
    scale = settings.short_side / min(pixels.size)
    width, height = (max(settings.short_side, round(side * scale)) for side in pixels.size)
    written = io.BytesIO()
    pixels.resize((width, height), Image.Resampling.BICUBIC).save(written, "JPEG", quality=settings.quality)
    return written.getvalue(), "jpg", ""
