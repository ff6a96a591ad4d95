"""Image files decoded by Pillow, upright and in 8 bits."""

import numpy as np
from PIL import Image, ImageOps

FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "PPM", "TIFF")
"""What DALI decodes too, whatever a file is called."""

UNREADABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)
"""What Pillow raises for images that it cannot read; its own `UnidentifiedImageError` is an OSError."""


def upright(image: Image.Image) -> Image.Image:
    """An open image turned by its EXIF orientation; 16 bits of gray are scaled to 8, as DALI does it."""
    turned = ImageOps.exif_transpose(image)
    if turned.mode.startswith("I"):  # Pillow's own conversion would make every shade above 255 white
        turned = Image.fromarray(np.floor(np.asarray(turned) / 257 + 0.5).clip(0, 255).astype(np.uint8))
    return turned
