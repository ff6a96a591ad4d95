"""Effects that look at a pixel's neighbours: blur and rotation.

As in `colours`: pixels are (B, C, H, W) float32, numbers of each image are numpy arrays of B, and the meaning is that
of torchvision.transforms.v2.functional on float images.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

_NEGLIGIBLE = 1e-5  # of the middle weight; less is left out, together less than a hundredth of a shade


def blurred(pixels: Tensor, sigma: np.ndarray, kernel: int) -> Tensor:
    """Gaussian blur, mirrored at the borders (the outermost pixels are not repeated).

    Args:
        pixels: see above.
        sigma: (B,), standard deviations in pixels.
        kernel: pixels that each output pixel is made of along a line; odd. Where mirroring would need pixels beyond
            the far border, the largest kernel that does without is taken: 2 * side - 1.
    """
    for dim in (3, 2):
        pixels = _blurred_along(pixels, dim, _gaussian(sigma, min(kernel // 2, pixels.shape[dim] - 1)))
    return pixels


def rotated(pixels: Tensor, degrees: np.ndarray) -> Tensor:
    """Turned counter-clockwise about the centre on the same canvas; bilinear, black where nothing was.

    Args:
        pixels: see above.
        degrees: (B,).
    """
    height, width = pixels.shape[2:]
    angle = np.radians(degrees)[:, None]
    cos, sin = np.cos(angle), np.sin(angle)
    # From the centre, in pixels, to the right and down; the grid counts half a canvas as 1.
    across, down = (np.arange(side) - (side - 1) / 2 for side in (width, height))
    by_column = np.stack((cos * across * 2 / width, sin * across * 2 / height))
    by_row = np.stack((-sin * down * 2 / width, cos * down * 2 / height))
    columns, rows = (torch.from_numpy(part.astype(np.float32)).to(pixels.device) for part in (by_column, by_row))
    grid = pixels.new_empty((len(pixels), height, width, 2))
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


def _blurred_along(pixels: Tensor, dim: int, weights: np.ndarray) -> Tensor:
    # Sums of shifted copies: on a CPU twice as fast as a convolution, and a narrow blur costs less than a wide one.
    radius, side = weights.shape[1] - 1, pixels.shape[dim]
    padded = F.pad(pixels, (radius, radius, 0, 0) if dim == 3 else (0, 0, radius, radius), mode="reflect")
    taps = torch.from_numpy(weights.astype(np.float32)).to(pixels.device)[:, :, None, None, None]
    total = pixels * taps[:, 0]
    pair = torch.empty_like(pixels)
    for away in range(1, radius + 1):
        before, after = padded.narrow(dim, radius - away, side), padded.narrow(dim, radius + away, side)
        total.addcmul_(torch.add(before, after, out=pair), taps[:, away])
    return total
