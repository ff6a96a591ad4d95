"""Small images in class folders, decoded once and kept as one array."""

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from sslticket.data.decoding import Unreadable, upright, whole
from sslticket.data.folders import Listing
from sslticket.data.judging import RULES
from sslticket.data.listings import cache_folder
from sslticket.errors import BadInput
from sslticket.files import locked, read_json, write_json, written_whole

_NOTES = 1 << 30  # bytes of the notes about images that cannot be read, a line each


def packed(images: Listing, size: int, channels: int) -> tuple[np.ndarray, dict[str, str]]:
    """Small images decoded once and kept as one array in the cache folder.

    Other sizes than `size` are scaled and cropped to it. EXIF orientation is applied.

    Args:
        images: what to decode.
        size: side of the square images, in pixels.
        channels: 3 for RGB, 1 for gray.

    Returns:
        The readable images in the listing's order, (N, size, size, channels) uint8, read from the disk as needed; and
        why each of the others could not be read, by relative path.

    Raises:
        BadInput: if not one image can be read, or the cache folder cannot be written.
    """
    place = cache_folder() / "packed" / f"{_key(images, size, channels)}.npy"
    notes = place.with_suffix(".json")
    shape = (size, size, channels)
    if (there := _there(images, shape, place, notes)) is None:
        with locked(place):  # one process decodes, for those beside it too
            if (there := _there(images, shape, place, notes)) is None:
                _pack(images, size, channels, place, notes)
                there = _there(images, shape, place, notes)
    if there is None:
        raise BadInput(f"{place} is not what was written there; look at the disk, or set SSLTICKET_CACHE to another")
    return there


def _there(
    images: Listing, shape: tuple[int, int, int], place: Path, notes: Path
) -> tuple[np.ndarray, dict[str, str]] | None:
    """What was packed before; None where it was not, or is damaged: it is only a copy."""
    try:
        pixels, bad = np.load(place, mmap_mode="r", allow_pickle=False), read_json(notes, most=_NOTES)
    except Exception:  # a damaged array can raise nearly anything
        return None
    told = isinstance(bad, dict) and all(isinstance(reason, str) for reason in bad.values())
    fits = told and bad.keys() <= set(images.files) and isinstance(pixels, np.ndarray) and pixels.dtype == np.uint8
    return (pixels, bad) if fits and pixels.shape == (len(images.files) - len(bad), *shape) else None


def _pack(images: Listing, size: int, channels: int, place: Path, notes: Path) -> None:
    pixels, bad = _decoded(images, size, channels)
    if len(bad) == len(images.files):
        name, reason = next(iter(bad.items()))
        raise BadInput(f"none of the {len(bad)} images in {images.root} can be read; the first, {name}: {reason}")
    try:
        write_json(notes, bad)
        with written_whole(place) as temporary, temporary.open("wb") as file:
            np.save(file, pixels)
    except OSError as error:
        raise BadInput(
            f"cannot keep the packed images in {place.parent}: {error.strerror}; set SSLTICKET_CACHE to a folder "
            "that can be written"
        ) from error


def _key(images: Listing, size: int, channels: int) -> str:
    digest = hashlib.sha256(f"{size} {channels} {RULES}\n".encode())
    for file in images.files:
        try:
            status = (images.root / file).stat()
            line = f"{file} {status.st_size} {status.st_mtime_ns}\n"
        except OSError:
            line = f"{file} unreadable\n"
        digest.update(line.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:16]


def _decoded(images: Listing, size: int, channels: int) -> tuple[np.ndarray, dict[str, str]]:
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        paths = [images.root / file for file in images.files]
        outcomes = list(pool.map(partial(_decode, size=size, mode="RGB" if channels == 3 else "L"), paths))
    bad = {file: outcome for file, outcome in zip(images.files, outcomes, strict=True) if isinstance(outcome, str)}
    pixels = [outcome for outcome in outcomes if not isinstance(outcome, str)]
    shape = (len(pixels), size, size, channels)
    return (np.stack(pixels) if pixels else np.empty(shape, np.uint8)).reshape(shape), bad


def _decode(path: Path, size: int, mode: str) -> np.ndarray | str:
    """The pixels, or why there are none."""
    try:
        pixels = upright(whole(path)).convert(mode)
    except Unreadable as error:
        return str(error)
    if pixels.size != (size, size):
        pixels = ImageOps.fit(pixels, (size, size), Image.Resampling.BILINEAR)
    return np.asarray(pixels)
