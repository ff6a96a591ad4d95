"""Operations on batches of pixels: brightness, contrast, saturation, hue, noise, blur and rotation, each with its own parameters per image.

Everywhere, pixels are (B, C, H, W) float32 of 0 to 255, C being 3 or, for gray images, 1; the numbers that belong to each image are float32 tensors of B on the same device. The meaning of each function is that of torchvision.transforms.v2.functional on float images. Many operations have two halves: one that computes parameters on the host, and one that uses them on the device.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

_LUMA_WEIGHTS = (0.2989, 0.587, 0.114)  # ITU-R 601, in torchvision's digits


def adjust_brightness(pixels: Tensor, factor: Tensor) -> Tensor:
    """Times the factor."""
    return pixels.mul_(per_image(factor)).clamp_(0, 255)


def adjust_contrast(pixels: Tensor, factor: Tensor) -> Tensor:
    """Away from (factor > 1) or towards the image's mean luma."""
    scale = per_image(factor)
    mean = pixels.mean(dim=(2, 3), keepdim=True)
    if pixels.shape[1] == 3:
        mean = _to_luma(mean)
    return pixels.mul_(scale).add_(mean * (1 - scale)).clamp_(0, 255)


def adjust_saturation(pixels: Tensor, factor: Tensor) -> Tensor:
    """Away from (factor > 1) or towards the pixel's luma; gray images stay as they are."""
    if pixels.shape[1] == 1:
        return pixels
    scale = per_image(factor)
    gray = _to_luma(pixels).mul_(1 - scale)
    return pixels.mul_(scale).add_(gray).clamp_(0, 255)


def color_blend_params(factors: np.ndarray, which: np.ndarray, on: np.ndarray, channels: int) -> np.ndarray:
    """What `blended` is told of one of the three for each image.

    Args:
        factors: of brightness, contrast and saturation, (3 or more, B) float32.
        which: the one of them that an image gets, (B,).
        on: whether it gets any, (B,) bool.
        channels: of the images.

    Returns:
        (5, B) float32: the factors of the image, of its mean luma and of its luma, and the ends of the range.
    """
    if channels == 1:
        on = on & (which != 2)
    factor = np.where(on, factors[which, np.arange(len(which))], np.float32(1))
    mean, luma = (np.where(on & (which == number), 1 - factor, np.float32(0)) for number in (1, 2))
    low, high = np.where(on, 0, -np.inf), np.where(on, 255, np.inf)
    return np.stack((factor, mean, luma, low, high)).astype(np.float32)


def adjust_one_of_three(pixels: Tensor, numbers: Tensor) -> Tensor:
    """`brightness`, `contrast`, `saturation` or none of them, another for each image, in equal operations for all.

    To the bit what they make of an image: every term that is not an image's own is an exact 0 for it.

    Args:
        pixels: see above.
        numbers: (5, B), see `blend`.
    """
    factor, of_mean, of_luma, low, high = map(per_image, numbers.unbind())
    mean, luma = pixels.mean(dim=(2, 3), keepdim=True), pixels
    if pixels.shape[1] == 3:
        mean, luma = _to_luma(mean), _to_luma(pixels)
    added = torch.mul(luma, of_luma).addcmul_(mean, of_mean)
    return torch.clamp(pixels.mul_(factor).add_(added), low, high, out=pixels)


def to_grayscale(pixels: Tensor) -> Tensor:
    """All channels become the luma; gray images stay as they are."""
    return pixels if pixels.shape[1] == 1 else pixels.copy_(_to_luma(pixels))


def solarize_above(pixels: Tensor, threshold: float) -> Tensor:
    """Shades from the threshold on become 255 - shade."""
    # By arithmetic, since a select by a mask of booleans takes ten times as long on a CPU.
    bright = torch.ge(pixels, threshold, out=torch.empty_like(pixels))
    return pixels.add_(torch.rsub(pixels, 255, alpha=2).mul_(bright))


def hue_params(turns: np.ndarray) -> tuple[np.ndarray, ...]:
    """What `hue` is told of turns of the colour circle, (B,), positive from red to green.

    A turn by a third sends red to green, green to blue, blue to red; that leaves at most a sixth to turn.
    """
    thirds = np.rint(3 * turns).astype(np.int64)
    sixths = (6 * turns - 2 * thirds).astype(np.float32)
    return (sixths, (np.arange(3) - thirds[:, None]) % 3) if thirds.any() else (sixths,)


def adjust_hue(pixels: Tensor, sixths: Tensor, source: Tensor | None = None) -> Tensor:
    """Turns the hue, saturation and value (HSV) kept; gray images stay as they are.

    Args:
        pixels: see above.
        sixths: (B,), what is left to turn, in sixths of the colour circle, from -1 to 1.
        source: (B, 3) int64, the channel that becomes red, green and blue before that; None where all stay.
    """
    if pixels.shape[1] == 1:
        return pixels
    if source is not None:
        pixels.copy_(pixels.gather(1, source[:, :, None, None].expand_as(pixels)))
    # Against the hue, a channel is a triangle wave of slope +-(high - low) a sixth, cut off at low and high. Uncut, it
    # is 2 * channel - middle, and it rises where the channel before is above the channel after. No turn by a sixth or
    # less takes it over an uncut peak and back into what is left of the wave. So no hue is ever computed.
    low, middle, high = _sorted_channels(pixels)
    step = (high - low).mul_(per_image(sixths))
    red, green, blue = pixels.unbind(1)
    moved = torch.stack((blue - green, red - blue, green - red), dim=1)
    moved.sign_().mul_(step).add_(pixels, alpha=2).sub_(middle)
    return torch.clamp(moved, low, high, out=pixels)


def add_hsv_noise(
    pixels: Tensor, power: Tensor, factor: Tensor, shift: Tensor, sixths: Tensor, source: Tensor | None = None
) -> Tensor:
    """S and V, from 0 to 1, become `x ** power * factor + shift`, cut off at 0 and 1; the hue turns.

    Args:
        pixels: see above; of gray images, V alone is changed.
        power: (B, 2), for S and V, as the next two.
        factor: (B, 2).
        shift: (B, 2).
        sixths: (B,), as in `hue`.
        source: (B, 3), as in `hue`.
    """

    def changed(values: Tensor, which: int) -> Tensor:
        exponent, scale, offset = (per_image(numbers[:, which]) for numbers in (power, factor, shift))
        # A power by way of the logarithm, which is twice as fast; 0 becomes 0 by way of minus infinity.
        return values.log2_().mul_(exponent).exp2_().mul_(scale).add_(offset).clamp_(0, 1)

    if pixels.shape[1] == 1:
        return changed(pixels.div_(255), 1).mul_(255)
    low, _, high = _sorted_channels(pixels)
    spread = high - low
    saturated = changed(spread / high.clamp(min=torch.finfo(torch.float32).tiny), 0)
    value = changed(high / 255, 1).mul_(255)
    # By definition gray has red's hue, which shows once it is given a saturation.
    gray = torch.eq(spread, 0, out=torch.empty_like(spread))
    pixels[:, :1].add_(gray)
    adjust_hue(pixels, sixths, source)
    depth = value * saturated
    return pixels.sub_(low).mul_(depth / spread.add_(gray)).add_(value.sub_(depth))


def per_image(numbers: Tensor) -> Tensor:
    """One number for each image, (B,) -> (B, 1, 1, 1)."""
    return numbers.view(-1, 1, 1, 1)


def _to_luma(pixels: Tensor) -> Tensor:
    red, green, blue = (pixels[:, channel, None] for channel in range(3))
    return torch.mul(red, _LUMA_WEIGHTS[0]).add_(green, alpha=_LUMA_WEIGHTS[1]).add_(blue, alpha=_LUMA_WEIGHTS[2])


def _sorted_channels(pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The smallest, middle and largest of a pixel's three channels, (B, 1, H, W) each."""
    red, green, blue = (pixels[:, channel, None] for channel in range(3))
    low, high = torch.minimum(red, green), torch.maximum(red, green)
    middle = torch.minimum(high, blue)
    torch.maximum(high, blue, out=high)
    torch.maximum(middle, low, out=middle)
    torch.minimum(low, blue, out=low)
    return low, middle, high


_NEGLIGIBLE_WEIGHT = 1e-5  # of the middle weight; less is left out, together less than a hundredth of a shade


def blur_params(sigma: np.ndarray, kernel: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """What `blurred` is told of standard deviations in pixels, (B,).

    Args:
        sigma: see above.
        kernel: pixels that each output pixel is made of along a line; odd. Where mirroring would need pixels beyond
            the far border, the largest kernel that does without is taken: 2 * side - 1.
        height: of the images.
        width: of the images.
    """
    across, down = (_gaussian_weights(sigma, min(kernel // 2, side - 1)).astype(np.float32) for side in (width, height))
    return across, down


def gaussian_blur(pixels: Tensor, across: Tensor, down: Tensor) -> Tensor:
    """Gaussian blur, mirrored at the borders (the outermost pixels are not repeated).

    Args:
        pixels: see above.
        across: weights of the middle and of the neighbours to one side, (B, up to radius + 1), along a row.
        down: the same along a column.
    """
    for dim, weights in ((3, across), (2, down)):
        pixels = _blur_along(pixels, dim, weights)
    return pixels


def rotation_params(degrees: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
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


def rotate(pixels: Tensor, columns: Tensor, rows: Tensor) -> Tensor:
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


def _gaussian_weights(sigma: np.ndarray, radius: int) -> np.ndarray:
    """Weights of the middle and of the neighbours to one side, (B, up to radius + 1); with both sides they sum to 1."""
    weights = np.exp(-0.5 * (np.arange(radius + 1) / sigma.astype(np.float64)[:, None]) ** 2)
    # By image and not by batch, so that an image looks the same whichever others are blurred with it.
    weights[weights < _NEGLIGIBLE_WEIGHT] = 0
    weights /= 2 * weights.sum(axis=1, keepdims=True) - weights[:, :1]
    return weights[:, weights.any(axis=0)]


def _blur_along(pixels: Tensor, dim: int, weights: Tensor) -> Tensor:
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
