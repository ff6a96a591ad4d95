"""A contact sheet: pictures in rows and columns, with headings."""

import textwrap
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

_FONT, _GAP = 14, 8  # pixels
_JUDGED = 96  # pixels: the side from which a picture can be judged by eye
_LETTERS = 16  # of a row's label in one line


def draw(columns: Mapping[str, np.ndarray], labels: Sequence[str], width: int) -> Image.Image:
    """Draw one row an image and one column a kind of picture, all on one scale.

    Small pictures are enlarged by a whole number, pixel by pixel; large ones are shrunk if the sheet would else be too
    wide.

    Args:
        columns: by heading, (N, H, W, C) uint8 with 1 or 3 channels; sizes may differ between columns.
        labels: of the N rows.
        width: of the sheet, at most, in pixels; headings are never cut.

    Returns:
        The sheet, RGB on white.
    """
    font = ImageFont.load_default(_FONT)
    names = ["\n".join(textwrap.wrap(label, _LETTERS)) for label in labels]
    measure = ImageDraw.Draw(Image.new("L", (1, 1)))
    first = round(max(measure.multiline_textbbox((0, 0), name, font)[2] for name in names)) + 2 * _GAP
    sides = {name: pictures.shape[2] for name, pictures in columns.items()}

    def widths(scale: float) -> list[int]:
        return [max(_scaled(side, scale), round(font.getlength(name))) + _GAP for name, side in sides.items()]

    largest = max(max(pictures.shape[1:3]) for pictures in columns.values())
    scale = next((scale for scale in _scales(largest) if first + sum(widths(scale)) <= width), 0.05)
    heading, row = _FONT + 2 * _GAP, max(_scaled(largest, scale), 2 * _FONT) + _GAP
    image = Image.new("RGB", (first + sum(widths(scale)), heading + row * len(labels)), "white")
    text = ImageDraw.Draw(image)
    for number, name in enumerate(names):
        text.multiline_text((_GAP, heading + row * number), name, "black", font)
    left = first
    for (name, pictures), wide in zip(columns.items(), widths(scale), strict=True):
        text.text((left, _GAP), name, "black", font)
        for number, pixels in enumerate(pictures):
            image.paste(_picture(pixels, scale), (left, heading + row * number))
        left += wide
    return image


def _scales(largest: int) -> Iterator[float]:
    """From the scale at which the largest picture can be judged down, whole numbers first, then hundredths."""
    yield from range(max(1, -(-_JUDGED // largest)), 0, -1)
    yield from (percent / 100 for percent in range(99, 5, -1))


def _scaled(side: int, scale: float) -> int:
    return max(1, round(side * scale))


def _picture(pixels: np.ndarray, scale: float) -> Image.Image:
    """One picture, (H, W, C) bytes."""
    picture = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    size = _scaled(picture.width, scale), _scaled(picture.height, scale)
    return picture.resize(size, Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.LANCZOS)
