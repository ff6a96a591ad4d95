"""The built-in transforms on a CPU, compiled by numba: each goes over an image once, where torch takes many turns.

A kernel changes pixels in place, (B, C, H, W) float32 of 0 to 255 and contiguous, C being 3 or, for gray images, 1. It
is given what the host sampled for the B images, and leaves those alone that are not `on`. What it computes is what the
function of `augment_ops` computes that has the transform's meaning, but for the rounding of float32. No sum is taken in
another order on another processor, and no image depends on the others. The kernels hold no lock of Python, so threads
work side by side.

This file alone imports numba here; `augment_ops` imports it where there are large images to transform.
"""

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from sslticket.data.augment import (
    Blur,
    Grayscale,
    HSVNoise,
    Jitter,
    Rotate,
    Solarize,
    Transform,
    TransformParams,
    hue_params,
)
from sslticket.storage.files import save_if_possible

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]
Bools = NDArray[np.bool_]

_ZERO, _ONE, _WHITE = np.float32(0), np.float32(1), np.float32(255)
_RED, _GREEN, _BLUE = np.float32(0.2989), np.float32(0.587), np.float32(0.114)  # as `augment_ops` weighs them
_TINY = np.finfo(np.float32).tiny
_BRIGHTNESS, _CONTRAST, _SATURATION = range(3)  # as `Jitter` numbers them in `order`; 3 is the hue


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function as machine code, which is kept on disk from its first use on."""
    compiled: Callable[..., Any] = save_if_possible(numba.njit(cache=True, nogil=True, error_model="numpy")(function))
    return compiled


@_compiled
def _shade(value: Any) -> Any:
    return min(max(value, _ZERO), _WHITE)


@_compiled
def _brighten(image: Floats, factor: float) -> None:
    pixels = image.reshape(-1)
    for at in range(pixels.size):
        pixels[at] = _shade(pixels[at] * factor)


@_compiled
def _mean(plane: Floats) -> float:
    """The mean of one channel: column by column, which is vectorised, and then of the columns."""
    columns, total = np.zeros(plane.shape[1], np.float32), 0.0
    for line in range(plane.shape[0]):
        for at in range(plane.shape[1]):
            columns[at] += plane[line, at]
    for at in range(plane.shape[1]):
        total += columns[at]
    return total / plane.size


@_compiled
def _change_contrast(image: Floats, factor: float) -> None:
    mean = np.float32(_mean(image[0]))
    if len(image) == 3:
        mean = _RED * mean + _GREEN * np.float32(_mean(image[1])) + _BLUE * np.float32(_mean(image[2]))
    pixels, added = image.reshape(-1), mean * (_ONE - factor)
    for at in range(pixels.size):
        pixels[at] = _shade(pixels[at] * factor + added)


@_compiled
def _saturate(image: Floats, factor: float) -> None:
    red, green, blue = image[0].reshape(-1), image[1].reshape(-1), image[2].reshape(-1)
    for at in range(red.size):
        added = (_RED * red[at] + _GREEN * green[at] + _BLUE * blue[at]) * (_ONE - factor)
        red[at] = _shade(red[at] * factor + added)
        green[at] = _shade(green[at] * factor + added)
        blue[at] = _shade(blue[at] * factor + added)


@_compiled
def _turned(own: Any, before: Any, after: Any, middle: Any, step: Any) -> Any:
    """A channel after its hue was turned, not yet cut off; see `augment_ops.adjust_hue`."""
    return own + own - middle + (step if before > after else (-step if before < after else _ZERO))


@_compiled
def _one_of(zeroth: Any, first: Any, second: Any, number: int) -> Any:
    """The chosen value, without asking where it lies, which would keep a loop from being vectorised."""
    return zeroth if number == 0 else (first if number == 1 else second)


@_compiled
def _turn_hue(image: Floats, sixths: float, first: int) -> None:
    """See `augment_ops.adjust_hue`; `first` is the channel that becomes red before that."""
    reds, greens, blues = image[0].reshape(-1), image[1].reshape(-1), image[2].reshape(-1)
    for at in range(reds.size):
        red = _one_of(reds[at], greens[at], blues[at], first)
        green = _one_of(greens[at], blues[at], reds[at], first)
        blue = _one_of(blues[at], reds[at], greens[at], first)
        low, high = min(red, min(green, blue)), max(red, max(green, blue))
        middle = max(min(red, green), min(max(red, green), blue))
        step = (high - low) * sixths
        reds[at] = min(max(_turned(red, blue, green, middle, step), low), high)
        greens[at] = min(max(_turned(green, red, blue, middle, step), low), high)
        blues[at] = min(max(_turned(blue, green, red, middle, step), low), high)


@_compiled
def _jitter(pixels: Floats, on: Bools, order: Integers, used: Bools, factors: Floats, first: Integers) -> None:
    for number in range(len(pixels)):
        image = pixels[number]
        for turn in range(4 if on[number] else 0):
            kind = order[number, turn]
            if not used[kind]:
                continue
            factor = factors[kind, number]
            if kind == _BRIGHTNESS:
                _brighten(image, factor)
            elif kind == _CONTRAST:
                _change_contrast(image, factor)
            elif len(image) == 3:  # a gray image has neither
                if kind == _SATURATION:
                    _saturate(image, factor)
                else:
                    _turn_hue(image, factor, first[number])


@_compiled
def _to_gray(pixels: Floats, on: Bools) -> None:
    for number in range(len(pixels) if pixels.shape[1] == 3 else 0):
        if not on[number]:
            continue
        image = pixels[number]
        red, green, blue = image[0].reshape(-1), image[1].reshape(-1), image[2].reshape(-1)
        for at in range(red.size):
            luma = _RED * red[at] + _GREEN * green[at] + _BLUE * blue[at]
            red[at] = luma
            green[at] = luma
            blue[at] = luma


@_compiled
def _solarize(pixels: Floats, on: Bools, threshold: float) -> None:
    for number in range(len(pixels)):
        if on[number]:
            image = pixels[number].reshape(-1)
            for at in range(image.size):
                image[at] = _WHITE - image[at] if image[at] >= threshold else image[at]


@_compiled
def _change(values: Floats, power: float, factor: float, shift: float) -> None:
    """Make `values ** power * factor + shift` of values from 0 to 1, cut off at 0 and 1.

    A power is 2 to the power times the logarithm, both by the polynomials of float32's accuracy that processors lack:
    the logarithm of a mantissa between sqrt(1/2) and sqrt(2) as the series of the area tangent, and the series of the
    exponential function between -1/2 and 1/2.
    """
    bits = values.view(np.int32)
    for at in range(values.size):
        is_positive = values[at] > _ZERO
        exponent = (bits[at] - np.int32(0x3F3504F3)) >> np.int32(23)
        bits[at] -= exponent << np.int32(23)
        tangent = (values[at] - _ONE) / (values[at] + _ONE)
        square = tangent * tangent
        series = np.float32(0.5770780163555854) + square * (
            np.float32(0.4121985831111324) + square * np.float32(0.3205988979753252)
        )
        series = np.float32(2.8853900817779268) + square * (np.float32(0.9617966939259756) + square * series)
        log = min(max((np.float32(exponent) + tangent * series) * power, np.float32(-126)), np.float32(126))
        whole = np.floor(log + np.float32(0.5))
        rest = log - whole
        series = np.float32(0.0013333558146428443) + rest * (
            np.float32(0.00015403530393381608) + rest * np.float32(1.525273380405984e-05)
        )
        series = np.float32(0.05550410866482158) + rest * (np.float32(0.009618129107628477) + rest * series)
        series = np.float32(0.6931471805599453) + rest * (np.float32(0.2402265069591007) + rest * series)
        bits[at] = (np.int32(whole) + np.int32(127)) << np.int32(23)
        result = values[at] * (_ONE + rest * series) if is_positive else _ZERO
        values[at] = min(max(result * factor + shift, _ZERO), _ONE)


@_compiled
def _add_hsv_noise(
    pixels: Floats, on: Bools, power: Floats, factor: Floats, shift: Floats, sixths: Floats, first: Integers
) -> None:
    saturation, value = np.empty(pixels.shape[3], np.float32), np.empty(pixels.shape[3], np.float32)
    for number in range(len(pixels)):
        if not on[number]:
            continue
        image, sixth, red_from = pixels[number], sixths[number], first[number]
        for line in range(pixels.shape[2]):
            if len(image) == 1:
                gray = image[0, line]
                for at in range(gray.size):
                    value[at] = gray[at] / _WHITE
                _change(value, power[number, 1], factor[number, 1], shift[number, 1])
                for at in range(gray.size):
                    gray[at] = value[at] * _WHITE
                continue
            reds, greens, blues = image[0, line], image[1, line], image[2, line]
            for at in range(value.size):
                low, high = min(reds[at], min(greens[at], blues[at])), max(reds[at], max(greens[at], blues[at]))
                saturation[at] = (high - low) / max(high, _TINY)
                value[at] = high / _WHITE
            _change(saturation, power[number, 0], factor[number, 0], shift[number, 0])
            _change(value, power[number, 1], factor[number, 1], shift[number, 1])
            for at in range(value.size):
                red, green, blue = reds[at], greens[at], blues[at]
                # By definition gray has red's hue, which shows once it is given a saturation.
                red += _ONE if red == green and green == blue else _ZERO
                red, green, blue = (
                    _one_of(red, green, blue, red_from),
                    _one_of(green, blue, red, red_from),
                    _one_of(blue, red, green, red_from),
                )
                low, high = min(red, min(green, blue)), max(red, max(green, blue))
                middle = max(min(red, green), min(max(red, green), blue))
                step, white = (high - low) * sixth, value[at] * _WHITE
                depth = white * saturation[at]
                scale, lowest = depth / (high - low), white - depth
                red, green, blue = (
                    min(max(_turned(red, blue, green, middle, step), low), high),
                    min(max(_turned(green, red, blue, middle, step), low), high),
                    min(max(_turned(blue, green, red, middle, step), low), high),
                )
                reds[at] = (red - low) * scale + lowest
                greens[at] = (green - low) * scale + lowest
                blues[at] = (blue - low) * scale + lowest


@_compiled
def _add_neighbours(total: Floats, before: Floats, after: Floats, weight: float) -> None:
    for at in range(total.size):
        total[at] += (before[at] + after[at]) * weight


@_compiled
def _blur(pixels: Floats, on: Bools, across: Floats, down: Floats) -> None:
    height, width = pixels.shape[2:]
    plane = np.empty((height, width), np.float32)
    for number in range(len(pixels)):
        if not on[number]:
            continue
        # The weights end in zeros where another image's blur is wider.
        wide, tall = np.count_nonzero(across[number]) - 1, np.count_nonzero(down[number]) - 1
        padded = np.empty(width + 2 * wide, np.float32)
        for channel in range(pixels.shape[1]):
            image = pixels[number, channel]
            for line in range(height):
                padded[wide : wide + width] = image[line]
                for away in range(1, wide + 1):
                    padded[wide - away] = image[line, away]
                    padded[wide + width - 1 + away] = image[line, width - 1 - away]
                blurred = plane[line]
                for at in range(width):
                    blurred[at] = image[line, at] * across[number, 0]
                for away in range(1, wide + 1):
                    before, after = padded[wide - away :][:width], padded[wide + away :][:width]
                    _add_neighbours(blurred, before, after, across[number, away])
            for line in range(height):
                for at in range(width):
                    image[line, at] = plane[line, at] * down[number, 0]
                for away in range(1, tall + 1):
                    below = line + away if line + away < height else 2 * height - 2 - line - away
                    _add_neighbours(image[line], plane[abs(line - away)], plane[below], down[number, away])


@_compiled
def _rotate(pixels: Floats, on: Bools, columns: Floats, rows: Floats) -> None:
    height, width = pixels.shape[2:]
    # A frame of black, so that nothing has to be asked of a place beyond the border.
    framed = np.zeros((pixels.shape[1], height + 3, width + 3), np.float32)
    step = np.int32(width + 3)
    place, right, below = np.empty(width, np.int32), np.empty(width, np.float32), np.empty(width, np.float32)
    half = np.float32(0.5)
    for number in range(len(pixels)):
        if not on[number]:
            continue
        framed[:, 1 : height + 1, 1 : width + 1] = pixels[number]
        for line in range(height):
            for at in range(width):
                across = ((columns[0, number, at] + rows[0, number, line] + _ONE) * np.float32(width) - _ONE) * half
                down = ((columns[1, number, at] + rows[1, number, line] + _ONE) * np.float32(height) - _ONE) * half
                across = min(max(across, -_ONE), np.float32(width)) + _ONE
                down = min(max(down, -_ONE), np.float32(height)) + _ONE
                place[at] = np.int32(down) * step + np.int32(across)
                right[at], below[at] = across - np.floor(across), down - np.floor(down)
            for channel in range(pixels.shape[1]):
                shades, turned = framed[channel].reshape(-1), pixels[number, channel, line]
                nexts, belows, lasts = shades[1:], shades[step:], shades[step + 1 :]
                for at in range(width):
                    corner = np.uint32(place[at])
                    upper = shades[corner] + (nexts[corner] - shades[corner]) * right[at]
                    lower = belows[corner] + (lasts[corner] - belows[corner]) * right[at]
                    turned[at] = upper + (lower - upper) * below[at]


@_compiled
def _planes_from_pixels(source: np.ndarray, target: Floats) -> None:
    """(H, W, 3) to (3, H, W)."""
    for line in range(source.shape[0]):
        pixels = source[line].reshape(-1)
        for channel in range(3):
            plane = target[channel, line]
            for at in range(plane.size):
                plane[at] = pixels[3 * at + channel]


@_compiled
def _pixels_from_planes(source: Floats, target: Floats) -> None:
    """(3, H, W) to (H, W, 3)."""
    for line in range(target.shape[0]):
        pixels, red, green, blue = target[line].reshape(-1), source[0, line], source[1, line], source[2, line]
        for at in range(red.size):
            pixels[3 * at] = red[at]
            pixels[3 * at + 1] = green[at]
            pixels[3 * at + 2] = blue[at]


def copy_pixels(source: np.ndarray, target: Floats) -> None:
    """Copy pixels of any real type, (B, C, H, W) in any memory format, in this thread alone."""
    for one, other in zip(source, target, strict=True):
        ours, theirs = (image.transpose(1, 2, 0) for image in (one, other))  # (H, W, C), as channels-last images lie
        if len(one) == 3 and ours.flags.c_contiguous and other.flags.c_contiguous:
            _planes_from_pixels(ours, other)
        elif len(one) == 3 and one.flags.c_contiguous and theirs.flags.c_contiguous:
            _pixels_from_planes(one, theirs)
        else:
            np.copyto(other, one)


@_compiled
def normalize(pixels: Floats, mean: Floats, scale: Floats) -> None:
    """Make `(pixel - mean) * scale` of every pixel, to the bit as torch does.

    Args:
        pixels: Images, (B, C, H, W), overwritten.
        mean: Mean by channel, (C,).
        scale: Factor by channel, (C,).
    """
    for number in range(len(pixels)):
        for channel in range(len(mean)):
            plane = pixels[number, channel].reshape(-1)
            for at in range(plane.size):
                plane[at] = (plane[at] - mean[channel]) * scale[channel]


def _hue(turns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What is left to turn, in sixths of the circle, and the channel that becomes red before that, (B,) each."""
    sixths, *source = hue_params(turns)
    return sixths, np.ascontiguousarray(source[0][:, 0]) if source else np.zeros(len(turns), np.int64)


def _run_jitter(pixels: Floats, jitter: Jitter, params: TransformParams) -> None:
    used = np.array([jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue]) != 0
    sixths, first = _hue(params["hue"])
    factors = np.stack((params["brightness"], params["contrast"], params["saturation"], sixths))
    _jitter(pixels, params["on"], params["order"], used, factors, first)


def _run_hsv_noise(pixels: Floats, noise: HSVNoise, params: TransformParams) -> None:
    _add_hsv_noise(pixels, params["on"], params["power"], params["factor"], params["shift"], *_hue(params["hue"]))


def _run_blur(pixels: Floats, blur: Blur, params: TransformParams) -> None:
    across, down = map(np.ascontiguousarray, blur.device_params(params, *pixels.shape[2:]))
    _blur(pixels, params["on"], across, down)


def _run_rotate(pixels: Floats, rotate: Rotate, params: TransformParams) -> None:
    _rotate(pixels, params["on"], *rotate.device_params(params, *pixels.shape[2:]))


KERNELS: dict[type[Transform], Callable[[Floats, Any, TransformParams], None]] = {
    Jitter: _run_jitter,
    HSVNoise: _run_hsv_noise,
    Blur: _run_blur,
    Rotate: _run_rotate,
    Grayscale: lambda pixels, _, params: _to_gray(pixels, params["on"]),
    Solarize: lambda pixels, solarize, params: _solarize(pixels, params["on"], np.float32(solarize.threshold)),
}
"""What changes the pixels of B images, (B, C, H, W), in place, by the class of the transform and its random numbers."""
