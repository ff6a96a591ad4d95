"""The verdict on an image: whether it can be read, and whether DALI shows what Pillow does."""

import struct
from enum import IntEnum
from pathlib import Path
from typing import BinaryIO, NamedTuple

import PIL
from PIL import Image

from sslticket.data.decoding import Unreadable, orientation, whole

RULES = f"1 {PIL.__version__}"
"""What verdicts depend on beside the image: a number that changes with the rules below, and Pillow's version."""


class Kind(IntEnum):
    """How an image is to be read."""

    UNKNOWN = 0
    GOOD = 1  # DALI shows what Pillow shows
    PILLOW = 2  # DALI might show something else, or nothing
    BAD = 3  # it cannot be read


class Verdict(NamedTuple):
    """How an image is to be read.

    Attributes:
        kind: how.
        reason: why not, where it cannot be.
        lasting: it is about the image's bytes, not about a file that cannot be opened today.
    """

    kind: Kind
    reason: str = ""
    lasting: bool = True


def judge(source: Path | bytes | BinaryIO) -> Verdict:
    """The verdict on an image, which depends on its bytes alone: what a full decode by Pillow makes of it."""
    try:
        image = whole(source)
    except Unreadable as error:
        return Verdict(Kind.BAD, str(error), error.lasting)
    return Verdict(Kind.GOOD if _plain(image) else Kind.PILLOW)


def _plain(image: Image.Image) -> bool:
    """Whether DALI is sure to show the same picture.

    Of the kinds listed here it does, even where they are damaged and Pillow reads them, as both use the same libraries.
    Others, such as CMYK without Adobe's marker, 16 bits, several sorts of TIFF, and EXIF that is not as it should be,
    it shows otherwise, or refuses, or dies of.
    """
    turn = orientation(image)
    if image.format in ("JPEG", "MPO"):
        told = [data for name, data in getattr(image, "applist", ()) if name == "APP1" and data.startswith(b"Exif")]
        seen = _simple_orientation(told[0]) if told else 1
        return image.mode in ("L", "RGB") and len(told) <= 1 and turn == seen
    modes = {"PNG": ("1", "L", "LA", "P", "RGB", "RGBA"), "WEBP": ("RGB", "RGBA")}
    return image.mode in modes.get(str(image.format), ()) and turn == 1 and "exif" not in image.info


def _simple_orientation(exif: bytes) -> int | None:
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
    entries = [struct.unpack_from(f"{order}HHIH", block, start + 2 + 12 * place) for place in range(count)]
    found = [entry for entry in entries if entry[0] == 0x0112]
    if not found:
        return 1
    ((_, kind, values, value), *more) = found
    if more or (kind, values) != (3, 1):  # one short number
        return None
    return value if 1 <= value <= 8 else 1
