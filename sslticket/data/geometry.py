"""Effects that look at a pixel's neighbours: blur and rotation.

As in `colours`: pixels are (B, C, H, W) float32, and the meaning is that of torchvision.transforms.v2.functional on
float images. Each effect has two halves: one that makes its numbers on the host, and one that uses them on the device.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

_NEGLIGIBLE = 1e-5  # of the middle weight; less is left out, together less than a hundredth of a shade


def tapped(sigma: np.ndarray, kernel: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """What `blurred` is told of standard deviations in pixels, (B,).

    Args:
        sigma: see above.
        kernel: pixels that each output pixel is made of along a line; odd. Where mirroring would need pixels beyond
            the far border, the largest kernel that does without is taken: 2 * side - 1.
        height: of the images.
        width: of the images.
    """
    across, down = (_gaussian(sigma, min(kernel // 2, side - 1)).astype(np.float32) for side in (width, height))
    return across, down


def blurred(pixels: Tensor, across: Tensor, down: Tensor) -> Tensor:
    """Gaussian blur, mirrored at the borders (the outermost pixels are not repeated).

    Args:
        pixels: see above.
        across: weights of the middle and of the neighbours to one side, (B, up to radius + 1), along a row.
        down: the same along a column.
    """
    for dim, weights in ((3, across), (2, down)):
        pixels = _blurred_along(pixels, dim, weights)
    return pixels


def gridded(degrees: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """What `rotated` is told of angles, (B,): the part of each output pixel's place that depends on its column or row.

    Returns:
        (2, B, width) and (2, B, height), to the right and down from the centre; half a canvas counts as 1.
    """
    angle = np.radians(degrees)[:, None]
    cos, sin = np.cos(angle), np.sin(angle)
    across, down = (np.arange(side) - (side - 1) / 2 for side in (width, height))
    by_column = np.stack((cos * across * 2 / width, sin * across * 2 / height))
    by_row = np.stack((-sin * down * 2 / width, cos * down * 2 / height))
    return by_column.astype(np.float32), by_row.astype(np.float32)


def rotated(pixels: Tensor, columns: Tensor, rows: Tensor) -> Tensor:
    """Turned counter-clockwise about the centre on the same canvas; bilinear, black where nothing was.

    Args:
        pixels: see above.
        columns: (2, B, W), see `gridded`.
        rows: (2, B, H).
    """
    grid = pixels.new_empty((len(pixels), *pixels.shape[2:], 2))
    for axis in range(2):
        torch.add(columns[axis][:, None], rows[axis][:, :, None], out=grid[..., axis])
    return F.grid_sample(pixels, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _gaussian(sigma: np.ndarray, radius: int) -> np.ndarray:
    """Weights of the middle and of the neighbours to one side, (B, up to radius + 1); with both sides they sum to 1."""
    weights = np.exp(-0.5 * (np.arange(radius + 1) / sigma.astype(np.float64)[:, None]) ** 2)
    # By image and not by batch, so that an image looks the same whichever others are blurred with it.
    weights[weights < _NEGLIGIBLE] = 0
    weights /= 2 * weights.sum(axis=1, keepdims=True) - weights[:, :1]
    return weights[:, weights.any(axis=0)]


def _blurred_along(pixels: Tensor, dim: int, weights: Tensor) -> Tensor:
    # Sums of shifted copies: on a CPU twice as fast as a convolution, and a narrow blur costs less than a wide one.
    radius, side = weights.shape[1] - 1, pixels.shape[dim]
    padded = F.pad(pixels, (radius, radius, 0, 0) if dim == 3 else (0, 0, radius, radius), mode="reflect")
    taps = weights[:, :, None, None, None]
    total = pixels * taps[:, 0]
    pair = torch.empty_like(pixels)
    for away in range(1, radius + 1):
        before, after = padded.narrow(dim, radius - away, side), padded.narrow(dim, radius + away, side)
        total.addcmul_(torch.add(before, after, out=pair), taps[:, away])
    return total
