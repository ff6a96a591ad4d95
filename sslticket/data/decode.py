"""Image files read and decoded whole by Pillow, upright and in 8 bits.

This says what an image shows, whether it can be read at all, and whether DALI shows the same. Small images in class
folders are decoded once and kept as one array in the cache folder.
"""

import errno
import hashlib
import io
import os
import stat
import struct
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from enum import IntEnum
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

import numpy as np
import PIL
from PIL import Image, ImageOps, UnidentifiedImageError

from sslticket.data.datasets.base import Listing
from sslticket.data.manifest import Manifest
from sslticket.data.tar import TarReader
from sslticket.errors import BadInput, is_out_of_memory, one_line
from sslticket.storage.files import NONBLOCKING, atomic_write, cache_folder, file_lock, read_json, write_json

Decoder = Literal["dali", "torchvision"]
"""What makes pixels of image files while a network is trained."""


def choose_decoder(asked: Decoder | None, device_type: str) -> Decoder:
    """Return what decodes image files: what is asked for, else DALI where it is installed, else torchvision on a CPU.

    On a GPU torchvision is for who asks for it alone: it decodes on the host, several times slower.

    Args:
        asked: The `--decoder` that was given; None for none.
        device_type: Type of the device that the images are for, "cpu" or "cuda".

    Raises:
        BadInput: If it is DALI, which is not installed.
    """
    if asked == "torchvision":
        return asked
    with suppress(ImportError):  # where the package `nvidia` itself cannot be imported
        if find_spec("nvidia") is not None and find_spec("nvidia.dali") is not None:
            return "dali"
    if asked is None and device_type == "cpu":
        return "torchvision"
    raise BadInput(
        "NVIDIA DALI must be installed to decode images for a GPU, and is not; type: pip install 'sslticket[cuda13]' "
        "(cuda12 for a driver of CUDA 12), or give --decoder torchvision to decode on the host, slower"
    )


MAX_FILE_BYTES = 2**28
"""Bytes of a file that are held in memory: no image needs more, and a file with holes may claim anything."""


def open_regular_file(path: Path) -> BinaryIO:
    """Open a regular file to be read; nothing else is even touched, since a pipe waits for ever and a device may act.

    Raises:
        OSError: If it is no regular file, or cannot be opened.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "it is no regular file")
    file = os.fdopen(os.open(path, os.O_RDONLY | NONBLOCKING), "rb")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):  # another came in its place meanwhile
        file.close()
        raise OSError(errno.EINVAL, "it is no regular file")
    return file


def os_error_reason(error: OSError) -> str:
    """Say why a file cannot be read, in the system's words.

    Raises:
        OSError: The error itself, where this process has too many open files: that is no fault of the file.
    """
    if error.errno in (errno.EMFILE, errno.ENFILE):
        raise error
    return error.strerror or str(error)


def image_reader(manifest: Manifest) -> Callable[[int], bytes]:
    """Make a function that reads the file of a row's image; of a very long one the first bytes.

    Where a file cannot be read, it returns no bytes.
    """
    if manifest.archives:
        archives, byte_ranges = TarReader(manifest.archives), manifest.byte_ranges
        return lambda row: archives.read(*byte_ranges[row].tolist()).tobytes()

    def read(row: int) -> bytes:
        try:
            with open_regular_file(manifest.image_path(row)) as file:
                return file.read(MAX_FILE_BYTES)
        except OSError:
            return b""

    return read


IMAGE_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "PPM", "TIFF")
"""Formats that an image may have, whatever its file is called."""

MAX_PIXELS = 89_478_485
"""Limit above which Pillow, whose `Image.MAX_IMAGE_PIXELS` it is, suspects a decompression bomb: 256 MiB of RGB."""

_EXIF_ORIENTATION = 0x0112
_TRANSPOSES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# What Pillow warns of, odd metadata and large images, is no fault of the picture, or is refused below.
warnings.filterwarnings("ignore", module=r"PIL\.")


class DecodeError(ValueError):
    """An image cannot be read; the message says why, in a line.

    Attributes:
        permanent: The image's bytes are why, and not the file system that holds them.
    """

    def __init__(self, reason: str, *, permanent: bool = True) -> None:
        super().__init__(reason)
        self.permanent = permanent


def decode_whole(source: Path | bytes | BinaryIO) -> Image.Image:
    """Decode the image of a file, of its bytes or of an open file to its last row, and do not turn it.

    Raises:
        DecodeError: If it is no image, damaged or cut off, or has too many pixels.
    """
    try:
        if isinstance(source, Path):
            with open_regular_file(source) as file:
                return _load_image(file)
        return _load_image(io.BytesIO(source) if isinstance(source, bytes) else source)
    except OSError as error:
        if error.strerror is None or is_out_of_memory(error):
            raise
        raise DecodeError(os_error_reason(error), permanent=False) from error


def _load_image(file: BinaryIO) -> Image.Image:
    try:
        image = Image.open(file, formats=IMAGE_FORMATS)
        if image.width * image.height > MAX_PIXELS:
            raise DecodeError(f"its {image.width:,} x {image.height:,} pixels are more than {MAX_PIXELS:,}")
        image.load()
    except DecodeError:
        raise
    except UnidentifiedImageError as error:
        raise DecodeError(_describe_non_image(file)) from error
    except Exception as error:  # a damaged file makes Pillow's parsers fail in many ways, and they do nothing else here
        if is_out_of_memory(error) or (isinstance(error, OSError) and error.strerror):
            raise
        raise DecodeError(one_line(error)) from error
    return image


def _describe_non_image(file: BinaryIO) -> str:
    """What a file is that is no image that can be read."""
    file.seek(0)
    start = file.read(16)
    if not start:
        return "the file is empty"
    if start.startswith((b"GIF87a", b"GIF89a")):
        return "a GIF, which is not read; convert it to PNG"
    if start[4:8] == b"ftyp":
        return "a HEIC, AVIF or film, which is not read; convert it to JPEG or PNG"
    return "not an image, or damaged at its start"


def exif_orientation(image: Image.Image) -> int:
    """Return the EXIF orientation of an image, 1 to 8; 1 where it has none, or a damaged one."""
    try:
        value = image.getexif().get(_EXIF_ORIENTATION, 1)
    except Exception:  # the picture is whole all the same
        return 1
    return value if isinstance(value, int) and value in _TRANSPOSES else 1


def to_upright(image: Image.Image) -> Image.Image:
    """Turn a whole image by its EXIF orientation; 16 bits of gray are scaled to 8, as DALI does it."""
    turn = exif_orientation(image)
    turned = image if turn == 1 else image.transpose(_TRANSPOSES[turn])
    if turned.mode.startswith("I"):  # Pillow's own conversion would make every shade above 255 white
        turned = Image.fromarray(np.floor(np.asarray(turned) / 257 + 0.5).clip(0, 255).astype(np.uint8))
    return turned


def to_ppm(source: Path | bytes, mode: str) -> bytes:
    """Encode what an image shows as the simplest file that holds it; `mode` is "RGB" or "L".

    Raises:
        DecodeError: As in `decode_whole`.
    """
    pixels = to_upright(decode_whole(source)).convert(mode)
    head = f"{'P6' if mode == 'RGB' else 'P5'} {pixels.width} {pixels.height} 255\n"
    return head.encode() + pixels.tobytes()


VERDICT_RULES = f"1 {PIL.__version__}"
"""Version of verdicts: a number that changes with the rules below, and Pillow's version."""


class ImageKind(IntEnum):
    """How an image is to be read."""

    UNKNOWN = 0
    GOOD = 1  # DALI shows what Pillow shows
    PILLOW = 2  # DALI might show something else, or nothing
    UNREADABLE = 3  # it cannot be read


class Verdict(NamedTuple):
    """The result of the one full decode of an image.

    Attributes:
        kind: How the image is to be read.
        reason: Why it cannot be read, where that is so.
        permanent: The image's bytes are why, and not a file that cannot be opened today.
    """

    kind: ImageKind
    reason: str = ""
    permanent: bool = True


def judge_image(source: Path | bytes | BinaryIO) -> Verdict:
    """Decode an image in full by Pillow; the verdict depends on its bytes alone."""
    try:
        image = decode_whole(source)
    except DecodeError as error:
        return Verdict(ImageKind.UNREADABLE, str(error), error.permanent)
    return Verdict(ImageKind.GOOD if _dali_agrees(image) else ImageKind.PILLOW)


def _dali_agrees(image: Image.Image) -> bool:
    """Whether DALI is sure to show the same picture.

    Of the kinds listed here it does, even where they are damaged and Pillow reads them, as both use the same libraries.
    Others, such as CMYK without Adobe's marker, 16 bits, several sorts of TIFF, and EXIF that is not as it should be,
    it shows otherwise, or refuses, or dies of.
    """
    turn = exif_orientation(image)
    if image.format in ("JPEG", "MPO"):
        blocks = [data for name, data in getattr(image, "applist", ()) if name == "APP1" and data.startswith(b"Exif")]
        seen_by_dali = _single_exif_orientation(blocks[0]) if blocks else 1
        return image.mode in ("L", "RGB") and len(blocks) <= 1 and turn == seen_by_dali
    modes = {"PNG": ("1", "L", "LA", "P", "RGB", "RGBA"), "WEBP": ("RGB", "RGBA")}
    return image.mode in modes.get(str(image.format), ()) and turn == 1 and "exif" not in image.info


def _single_exif_orientation(exif: bytes) -> int | None:
    """The orientation in the one EXIF block of a JPEG; None where the block is not plainly in order."""
    head, block = exif[:6], exif[6:]
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(block[:4])
    if head != b"Exif\0\0" or order is None or len(block) < 10:
        return None
    (start,) = struct.unpack_from(f"{order}I", block, 4)
    if start + 2 > len(block):
        return None
    (count,) = struct.unpack_from(f"{order}H", block, start)
    if start + 2 + 12 * count > len(block):
        return None
    entries = [struct.unpack_from(f"{order}HHIH", block, start + 2 + 12 * number) for number in range(count)]
    found = [entry for entry in entries if entry[0] == 0x0112]
    if not found:
        return 1
    ((_, kind, values, value), *more) = found
    if more or (kind, values) != (3, 1):  # one short number
        return None
    return value if 1 <= value <= 8 else 1


_MAX_NOTES_BYTES = 1 << 30  # bytes of the notes about images that cannot be read, a line each


def cached_image_array(images: Listing, size: int, channels: int) -> tuple[np.ndarray, dict[str, str]]:
    """Decode small images once and keep them as one array in the cache folder.

    Other sizes than `size` are scaled and cropped to it. EXIF orientation is applied.

    Args:
        images: The images to decode.
        size: Side of the square images, in pixels.
        channels: 3 for RGB, 1 for gray.

    Returns:
        The readable images in the listing's order, (N, size, size, channels) uint8, read from the disk as needed; and
            why each of the others could not be read, by relative path.

    Raises:
        BadInput: If not one image can be read, or the cache folder cannot be written.
    """
    path = cache_folder() / "packed" / f"{_image_array_key(images, size, channels)}.npy"
    notes = path.with_suffix(".json")
    shape = (size, size, channels)
    if (cached := _load_cached_array(images, shape, path, notes)) is None:
        with file_lock(path):  # one process decodes, for those beside it too
            if (cached := _load_cached_array(images, shape, path, notes)) is None:
                _write_image_array(images, size, channels, path, notes)
                cached = _load_cached_array(images, shape, path, notes)
    if cached is None:
        raise BadInput(
            f"{path} must be what was just written there, got something else; check the disk, or set "
            "SSLTICKET_CACHE to a folder on another"
        )
    return cached


def _load_cached_array(
    images: Listing, shape: tuple[int, int, int], path: Path, notes: Path
) -> tuple[np.ndarray, dict[str, str]] | None:
    """The array of an earlier run, and why images are not in it; None where it is missing or damaged."""
    try:
        pixels, reasons = np.load(path, mmap_mode="r", allow_pickle=False), read_json(notes, most=_MAX_NOTES_BYTES)
    except Exception:  # a damaged array can raise nearly anything
        return None
    valid = isinstance(reasons, dict) and all(isinstance(reason, str) for reason in reasons.values())
    fits = valid and reasons.keys() <= set(images.files) and isinstance(pixels, np.ndarray) and pixels.dtype == np.uint8
    return (pixels, reasons) if fits and pixels.shape == (len(images.files) - len(reasons), *shape) else None


def _write_image_array(images: Listing, size: int, channels: int, path: Path, notes: Path) -> None:
    pixels, reasons = _decode_all(images, size, channels)
    if len(reasons) == len(images.files):
        name, reason = next(iter(reasons.items()))
        raise BadInput(
            f"at least one image in {images.root} must be readable, got none of {len(reasons)}; the first, {name}: "
            f"{reason}; repair them"
        )
    try:
        write_json(notes, reasons)
        with atomic_write(path) as temporary, temporary.open("wb") as file:
            np.save(file, pixels)
    except OSError as error:
        raise BadInput(
            f"cannot keep the packed images in {path.parent}: {error.strerror}; set SSLTICKET_CACHE to a folder "
            "that can be written"
        ) from error


def _image_array_key(images: Listing, size: int, channels: int) -> str:
    digest = hashlib.sha256(f"{size} {channels} {VERDICT_RULES}\n".encode())
    root = os.fspath(images.root)
    for file in images.files:  # paths as text: of 60,000 files the objects would take longer than asking for them
        try:
            status = os.stat(f"{root}/{file}")  # noqa: PTH116  # see above
            line = f"{file} {status.st_size} {status.st_mtime_ns}\n"
        except OSError:
            line = f"{file} unreadable\n"
        digest.update(line.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:16]


def _decode_all(images: Listing, size: int, channels: int) -> tuple[np.ndarray, dict[str, str]]:
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        paths = [images.root / file for file in images.files]
        outcomes = list(pool.map(partial(_decode_to_size, size=size, mode="RGB" if channels == 3 else "L"), paths))
    reasons = {file: outcome for file, outcome in zip(images.files, outcomes, strict=True) if isinstance(outcome, str)}
    pixels = [outcome for outcome in outcomes if not isinstance(outcome, str)]
    shape = (len(pixels), size, size, channels)
    return (np.stack(pixels) if pixels else np.empty(shape, np.uint8)).reshape(shape), reasons


def _decode_to_size(path: Path, size: int, mode: str) -> np.ndarray | str:
    """The pixels, (size, size) or (size, size, 3) uint8, or why there are none."""
    try:
        pixels = to_upright(decode_whole(path)).convert(mode)
    except DecodeError as error:
        return str(error)
    if pixels.size != (size, size):
        pixels = ImageOps.fit(pixels, (size, size), Image.Resampling.BILINEAR)
    return np.asarray(pixels)
