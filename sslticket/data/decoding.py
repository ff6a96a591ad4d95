"""Image files decoded whole by Pillow, upright and in 8 bits: what an image shows, and whether it is one at all."""

import io
import warnings
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from sslticket.data.reading import opened, why
from sslticket.errors import is_out_of_memory, one_line

FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "PPM", "TIFF")
"""What an image may be, whatever its file is called."""

MOST_PIXELS = 89_478_485
"""Above it Pillow, whose `Image.MAX_IMAGE_PIXELS` it is, suspects a decompression bomb: 256 MiB of RGB."""

_ORIENTATION = 0x0112
_TURNS = {
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


class Unreadable(ValueError):
    """An image that cannot be read; says why, in a line."""

    def __init__(self, reason: str, *, lasting: bool = True) -> None:
        """`lasting` where the image's bytes are why, not the file system that holds them."""
        super().__init__(reason)
        self.lasting = lasting


def whole(source: Path | bytes | BinaryIO) -> Image.Image:
    """An image of a file, of its bytes or of an open file, decoded to its last row, and not turned.

    Raises:
        Unreadable: if it is none, damaged or cut off, or has too many pixels.
    """
    try:
        if isinstance(source, Path):
            with opened(source) as file:
                return _loaded(file)
        return _loaded(io.BytesIO(source) if isinstance(source, bytes) else source)
    except OSError as error:
        if error.strerror is None or is_out_of_memory(error):
            raise
        raise Unreadable(why(error), lasting=False) from error


def _loaded(file: BinaryIO) -> Image.Image:
    try:
        image = Image.open(file, formats=FORMATS)
        if image.width * image.height > MOST_PIXELS:
            raise Unreadable(f"its {image.width:,} x {image.height:,} pixels are more than {MOST_PIXELS:,}")
        image.load()
    except Unreadable:
        raise
    except UnidentifiedImageError as error:
        raise Unreadable(_unknown(file)) from error
    except Exception as error:  # a damaged file makes Pillow's parsers fail in many ways, and they do nothing else here
        if is_out_of_memory(error) or (isinstance(error, OSError) and error.strerror):
            raise
        raise Unreadable(one_line(error)) from error
    return image


def _unknown(file: BinaryIO) -> str:
    """What a file is that is no image of ours."""
    file.seek(0)
    start = file.read(16)
    if not start:
        return "the file is empty"
    if start.startswith((b"GIF87a", b"GIF89a")):
        return "a GIF, which is not read; convert it to PNG"
    if start[4:8] == b"ftyp":
        return "a HEIC, AVIF or film, which is not read; convert it to JPEG or PNG"
    return "not an image, or damaged at its start"


def orientation(image: Image.Image) -> int:
    """How an image lies, 1 to 8 as in EXIF; 1 where nothing tells it, or what tells it is damaged."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # the picture is whole all the same
        return 1
    return value if isinstance(value, int) and value in _TURNS else 1


def upright(image: Image.Image) -> Image.Image:
    """A whole image turned by its EXIF orientation; 16 bits of gray are scaled to 8, as DALI does it."""
    turn = orientation(image)
    turned = image if turn == 1 else image.transpose(_TURNS[turn])
    if turned.mode.startswith("I"):  # Pillow's own conversion would make every shade above 255 white
        turned = Image.fromarray(np.floor(np.asarray(turned) / 257 + 0.5).clip(0, 255).astype(np.uint8))
    return turned


def as_ppm(source: Path | bytes, mode: str) -> bytes:
    """What an image shows as the simplest file that holds it; `mode` is "RGB" or "L".

    Raises:
        Unreadable: as `whole`.
    """
    pixels = upright(whole(source)).convert(mode)
    head = f"{'P6' if mode == 'RGB' else 'P5'} {pixels.width} {pixels.height} 255\n"
    return head.encode() + pixels.tobytes()
