"""Brightness, contrast, saturation, hue and what else changes a pixel's colour, in place.

Everywhere, pixels are (B, C, H, W) float32 of 0 to 255, C being 3 or, for gray images, 1; the numbers that belong to
each image are float32 tensors of B on the same device. What comes back is the tensor that was given. The meaning of
each function is that of torchvision.transforms.v2.functional on float images.
"""

import numpy as np
import torch
from torch import Tensor

_LUMA = (0.2989, 0.587, 0.114)  # ITU-R 601, in torchvision's digits


def brightness(pixels: Tensor, factor: Tensor) -> Tensor:
    """Times the factor."""
    return pixels.mul_(each(factor)).clamp_(0, 255)


def contrast(pixels: Tensor, factor: Tensor) -> Tensor:
    """Away from (factor > 1) or towards the image's mean luma."""
    scale = each(factor)
    mean = pixels.mean(dim=(2, 3), keepdim=True)
    if pixels.shape[1] == 3:
        mean = _luma(mean)
    return pixels.mul_(scale).add_(mean * (1 - scale)).clamp_(0, 255)


def saturation(pixels: Tensor, factor: Tensor) -> Tensor:
    """Away from (factor > 1) or towards the pixel's luma; gray images stay as they are."""
    if pixels.shape[1] == 1:
        return pixels
    scale = each(factor)
    gray = _luma(pixels).mul_(1 - scale)
    return pixels.mul_(scale).add_(gray).clamp_(0, 255)


def blend(factors: np.ndarray, which: np.ndarray, on: np.ndarray, channels: int) -> np.ndarray:
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


def blended(pixels: Tensor, numbers: Tensor) -> Tensor:
    """`brightness`, `contrast`, `saturation` or none of them, another for each image, in equal operations for all.

    To the bit what they make of an image: every term that is not an image's own is an exact 0 for it.

    Args:
        pixels: see above.
        numbers: (5, B), see `blend`.
    """
    factor, of_mean, of_luma, low, high = map(each, numbers.unbind())
    mean, luma = pixels.mean(dim=(2, 3), keepdim=True), pixels
    if pixels.shape[1] == 3:
        mean, luma = _luma(mean), _luma(pixels)
    added = torch.mul(luma, of_luma).addcmul_(mean, of_mean)
    return torch.clamp(pixels.mul_(factor).add_(added), low, high, out=pixels)


def grayscale(pixels: Tensor) -> Tensor:
    """All channels become the luma; gray images stay as they are."""
    return pixels if pixels.shape[1] == 1 else pixels.copy_(_luma(pixels))


def solarize(pixels: Tensor, threshold: float) -> Tensor:
    """Shades from the threshold on become 255 - shade."""
    # By arithmetic, since a select by a mask of booleans takes ten times as long on a CPU.
    bright = torch.ge(pixels, threshold, out=torch.empty_like(pixels))
    return pixels.add_(torch.rsub(pixels, 255, alpha=2).mul_(bright))


def turned(turns: np.ndarray) -> tuple[np.ndarray, ...]:
    """What `hue` is told of turns of the colour circle, (B,), positive from red to green.

    A turn by a third sends red to green, green to blue, blue to red; that leaves at most a sixth to turn.
    """
    thirds = np.rint(3 * turns).astype(np.int64)
    sixths = (6 * turns - 2 * thirds).astype(np.float32)
    return (sixths, (np.arange(3) - thirds[:, None]) % 3) if thirds.any() else (sixths,)


def hue(pixels: Tensor, sixths: Tensor, source: Tensor | None = None) -> Tensor:
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
    low, middle, high = _sorted(pixels)
    step = (high - low).mul_(each(sixths))
    red, green, blue = pixels.unbind(1)
    moved = torch.stack((blue - green, red - blue, green - red), dim=1)
    moved.sign_().mul_(step).add_(pixels, alpha=2).sub_(middle)
    return torch.clamp(moved, low, high, out=pixels)


def hsv_noise(
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
        exponent, scale, offset = (each(numbers[:, which]) for numbers in (power, factor, shift))
        # A power by way of the logarithm, which is twice as fast; 0 becomes 0 by way of minus infinity.
        return values.log2_().mul_(exponent).exp2_().mul_(scale).add_(offset).clamp_(0, 1)

    if pixels.shape[1] == 1:
        return changed(pixels.div_(255), 1).mul_(255)
    low, _, high = _sorted(pixels)
    spread = high - low
    saturated = changed(spread / high.clamp(min=torch.finfo(torch.float32).tiny), 0)
    value = changed(high / 255, 1).mul_(255)
    # By definition gray has red's hue, which shows once it is given a saturation.
    gray = torch.eq(spread, 0, out=torch.empty_like(spread))
    pixels[:, :1].add_(gray)
    hue(pixels, sixths, source)
    depth = value * saturated
    return pixels.sub_(low).mul_(depth / spread.add_(gray)).add_(value.sub_(depth))


def each(numbers: Tensor) -> Tensor:
    """One number for each image, (B,) -> (B, 1, 1, 1)."""
    return numbers.view(-1, 1, 1, 1)


def _luma(pixels: Tensor) -> Tensor:
    red, green, blue = (pixels[:, channel, None] for channel in range(3))
    return torch.mul(red, _LUMA[0]).add_(green, alpha=_LUMA[1]).add_(blue, alpha=_LUMA[2])


def _sorted(pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The smallest, middle and largest of a pixel's three channels, (B, 1, H, W) each."""
    red, green, blue = (pixels[:, channel, None] for channel in range(3))
    low, high = torch.minimum(red, green), torch.maximum(red, green)
    middle = torch.minimum(high, blue)
    torch.maximum(high, blue, out=high)
    torch.maximum(middle, low, out=middle)
    torch.minimum(low, blue, out=low)
    return low, middle, high
