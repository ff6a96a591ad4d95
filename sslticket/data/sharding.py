"""Packing a data set into shards of resized images, for file systems that are slow with many small files."""

import io
import os
import re
import tarfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from PIL import Image

from sslticket.data.bad import name_bad
from sslticket.data.decoding import Unreadable, upright, whole
from sslticket.data.manifest import Manifest
from sslticket.data.reading import reader
from sslticket.data.shards import FORMAT, open_pack, read_settings, sum_of
from sslticket.errors import BadInput
from sslticket.files import read_bytes, sweep, write_json, written_whole
from sslticket.randomness import generator

_MOST_SHARDS = 500  # of a split; a loader keeps them all open, and 1,024 open files are what a process may have
_SUFFIX = {"JPEG": "jpg", "MPO": "jpg", "PNG": "png", "BMP": "bmp", "WEBP": "webp", "PPM": "ppm", "TIFF": "tif"}
_LONGEST_INDEX = 1 << 32  # bytes
_PLACE = re.compile(rb"\S+ ([0-9]{1,15}) ([0-9]{1,15}) ")  # a line of an index: suffix, offset and size of an image
_SHUFFLED = 0  # seed of the order of the images in the shards: those who read them one after the other need a mixture


@dataclass(frozen=True, kw_only=True)
class Packing:
    """How images are packed.

    Attributes:
        short_side: what longer short sides are shrunk to, in pixels; other images are taken as they are.
        quality: of the JPEGs that shrunk images become, 1 to 100.
        shard_size: images in a tar file.
    """

    short_side: int
    quality: int = 95
    shard_size: int = 10_000

    def __post_init__(self) -> None:
        if self.short_side < 1:
            raise BadInput(f"a short side of {self.short_side} pixels is too small; give --short-side at least 1")
        if not 1 <= self.quality <= 100:
            raise BadInput(f"a JPEG quality of {self.quality} cannot be; give --quality from 1 to 100")
        if self.shard_size < 1:
            raise BadInput(f"a shard of {self.shard_size} images holds nothing; give --shard-size at least 1")


def begin(manifests: Iterable[Manifest], out: Path, how: Packing) -> None:
    """Check the folder and note there what is packed, before anything else is written.

    Raises:
        BadInput: if the folder holds other files, or shards of other images or settings; or there are too many shards.
    """
    hashes, dataset = {}, ""
    for manifest in manifests:
        hashes[manifest.split], dataset = manifest.hash, manifest.dataset
        if len(manifest) > _MOST_SHARDS * how.shard_size:
            raise BadInput(
                f"{len(manifest):,} images make more than {_MOST_SHARDS} shards of {how.shard_size:,}; give "
                f"--shard-size at least {-(-len(manifest) // _MOST_SHARDS)}"
            )
    settings = {"format": FORMAT, "dataset": dataset, **vars(how), "images": hashes}
    if (out / "pack.json").is_file():
        if read_settings(out) != settings:
            raise BadInput(f"{out} holds shards of other images or with other settings; give another folder")
        sweep(out)
        return
    # A packing that was killed at its very start leaves an unfinished pack.json.
    if out.exists() and (not out.is_dir() or any(not file.match(".pack.json.*.part") for file in out.iterdir())):
        raise BadInput(f"{out} is there and holds no shards of sslticket; give a new or an empty folder")
    write_json(out / "pack.json", settings)


def pack(manifest: Manifest, out: Path, how: Packing, advance: Callable[[int], object]) -> dict[str, str]:
    """Write the shards of a split; those that are there are kept, so an interrupted packing goes on.

    Args:
        manifest: the split's images, as files or in archives.
        out: the folder, after `begin`.
        how: size, quality, and images in a shard.
        advance: called with the number of images done.

    Returns:
        The images that could not be read, and why; they are packed as they are, so that every subset stays the same.

    Raises:
        BadInput: if the disk is full or the folder cannot be written.
    """
    root = out / manifest.split
    if (root / "split.json").is_file() and open_pack(out, "train" if manifest.split == "train" else "eval"):
        advance(len(manifest))
        return {}
    order = generator(_SHUFFLED, "shards").permutation(len(manifest)).tolist()
    shards, bad, places = dict[str, int](), dict[str, str](), dict[int, tuple[int, int, int]]()
    try:
        for number, rows in enumerate(_parts(order, how.shard_size)):
            path = root / f"shard-{number:05d}.tar"
            if not (path.is_file() and path.with_suffix(".idx").is_file()):
                bad |= _write_shard(manifest, rows, path, how)
            shards[path.name] = path.stat().st_size
            for row, (offset, size) in zip(rows, _index(path, len(rows)), strict=True):
                places[row] = (number, offset, size)
            advance(len(rows))
        frame = pd.DataFrame([places[row] for row in range(len(order))], columns=["shard", "offset", "size"])
        frame = pd.concat([manifest.frame[["file", "label"]], frame], axis=1)
        with written_whole(root / "manifest.csv") as temporary:
            frame.to_csv(temporary, index=False, errors="surrogateescape")
        sums = {name: sum_of(root / name) for name in ("manifest.csv", *shards)}
        about = {"images": len(manifest), "classes": list(manifest.classes), "shards": shards, "sums": sums}
        write_json(root / "split.json", about)
    except OSError as error:
        raise BadInput(
            f"cannot write shards to {root}: {error.strerror}; the same command goes on from there"
        ) from error
    return bad


def _parts(rows: list[int], size: int) -> list[list[int]]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def _write_shard(manifest: Manifest, rows: list[int], path: Path, how: Packing) -> dict[str, str]:
    """One tar file and its index; returns the images that could not be read."""
    bad, lines = {}, []
    threads = os.cpu_count() or 1
    with ThreadPoolExecutor(threads) as pool, written_whole(path) as temporary:
        read = reader(manifest)

        def shrunk(row: int) -> tuple[bytes, str, str]:
            return _shrunk(read(row), how)

        with tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as archive:
            # A few at a time: a whole shard's images need not be in memory at once.
            for some in _parts(rows, 16 * threads):
                for row, (content, suffix, reason) in zip(some, pool.map(shrunk, some), strict=True):
                    if reason:
                        bad[str(manifest.path(row))] = reason
                    label = str(manifest.labels[row]).encode()
                    parts = [_add(archive, f"{row:09d}.{suffix}", content), _add(archive, f"{row:09d}.cls", label)]
                    lines.append(" ".join(parts))
    with written_whole(path.with_suffix(".idx")) as temporary:
        temporary.write_text("\n".join([f"v1.2 {len(lines)}", *lines, ""]))
    name_bad(bad)
    return bad


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> str:
    """Put a file into the archive; returns its part of a line of DALI's index: suffix, offset, size and name."""
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    header = archive.offset
    archive.addfile(entry, io.BytesIO(content))
    return f"{name.partition('.')[2]} {header + tarfile.BLOCKSIZE} {len(content)} {name}"


def _index(path: Path, images: int) -> list[tuple[int, int]]:
    """Offset and size of every image in a shard, from its index."""
    index = path.with_suffix(".idx")
    lines = read_bytes(index, _LONGEST_INDEX).split(b"\n")[1:-1]
    found = [_PLACE.match(line) for line in lines]
    if len(lines) != images or None in found:
        raise BadInput(f"{index} is damaged; delete it and {path.name}, and give the same command again")
    return [(int(match[1]), int(match[2])) for match in found if match]


def _shrunk(content: bytes, how: Packing) -> tuple[bytes, str, str]:
    """The image to pack, its suffix, and why it could not be read, "" if it could."""
    try:
        image = whole(content)
    except Unreadable as error:
        return content, "jpg", str(error)
    if min(image.size) <= how.short_side:
        return content, _SUFFIX[str(image.format)], ""
    pixels = upright(image)
    pixels = pixels if pixels.mode in ("L", "RGB") else pixels.convert("RGB")
    scale = how.short_side / min(pixels.size)
    width, height = (max(how.short_side, round(side * scale)) for side in pixels.size)
    written = io.BytesIO()
    pixels.resize((width, height), Image.Resampling.BICUBIC).save(written, "JPEG", quality=how.quality)
    return written.getvalue(), "jpg", ""
