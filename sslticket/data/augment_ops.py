"""Transforms applied to batches of pixels, on whatever device they are; the same arithmetic for every loader.

First come the operations. Everywhere, pixels are (B, C, H, W) float32 of 0 to 255, C being 3 or, for gray images, 1;
the parameters of each image are float32 tensors of B on the same device; and where nothing else is said, what comes
back is the tensor that was given. The meaning of each is that of torchvision.transforms.v2.functional on float images.

Then come the transforms of a view as a whole. torch applies them after the crop, and not DALI: DALI's hue is not
torchvision's, its operations have one order for all images of a batch, and the loader of images in memory needs them
too. What was sampled for a batch becomes `PixelOp`s on the host, whose arrays go to the device in one copy, so that
nothing is looked up on the device and the host waits for nothing.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from types import ModuleType

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from sslticket.data.augment import PixelOp, View, ViewParams
from sslticket.errors import one_line

_LUMA_WEIGHTS = (0.2989, 0.587, 0.114)  # ITU-R BT.601, in torchvision's digits
_ALIGNMENT = 16  # bytes; an array in a buffer starts at a multiple, so that it can be viewed as whatever it holds
# On a CPU, images are worked on in chunks that stay in a core's cache, large images alone; measured. In numbers:
_CHUNK_VALUES, _LARGE_IMAGE = 2**19, 2**15
# Images of fewer numbers (those of 52 pixels a side have as many) are no reason to import numba, which takes half a
# second. By image and not by batch, so that an image looks the same whichever others are with it.
_COMPILED_FROM = 2**13


def adjust_brightness(pixels: Tensor, factor: Tensor) -> Tensor:
    """Multiply by the factor."""
    return pixels.mul_(per_image(factor)).clamp_(0, 255)


def adjust_contrast(pixels: Tensor, factor: Tensor) -> Tensor:
    """Move away from (factor > 1) or towards the image's mean luma."""
    scale = per_image(factor)
    mean = pixels.mean(dim=(2, 3), keepdim=True)
    if pixels.shape[1] == 3:
        mean = _to_luma(mean)
    return pixels.mul_(scale).add_(mean * (1 - scale)).clamp_(0, 255)


def adjust_saturation(pixels: Tensor, factor: Tensor) -> Tensor:
    """Move away from (factor > 1) or towards the pixel's luma; gray images stay as they are."""
    if pixels.shape[1] == 1:
        return pixels
    scale = per_image(factor)
    gray = _to_luma(pixels).mul_(1 - scale)
    return pixels.mul_(scale).add_(gray).clamp_(0, 255)


def blend(pixels: Tensor, params: Tensor) -> Tensor:
    """Adjust brightness, contrast, saturation or none of them, another for each image, in equal operations for all.

    The result is to the bit that of the functions above: every term that is not an image's own is an exact 0 for it.

    Args:
        pixels: Images, (B, C, H, W).
        params: (5, B): the factors of the image, of its mean luma and of its luma, and the ends of the range.
    """
    factor, mean_factor, luma_factor, low, high = map(per_image, params.unbind())
    mean, luma = pixels.mean(dim=(2, 3), keepdim=True), pixels
    if pixels.shape[1] == 3:
        mean, luma = _to_luma(mean), _to_luma(pixels)
    added = torch.mul(luma, luma_factor).addcmul_(mean, mean_factor)
    return torch.clamp(pixels.mul_(factor).add_(added), low, high, out=pixels)


def to_grayscale(pixels: Tensor) -> Tensor:
    """Set all channels to the luma; gray images stay as they are."""
    return pixels if pixels.shape[1] == 1 else pixels.copy_(_to_luma(pixels))


def solarize(pixels: Tensor, threshold: Tensor) -> Tensor:
    """Turn shades from the threshold on into 255 - shade."""
    # By arithmetic, since a select by a mask of booleans takes ten times as long on a CPU.
    bright = torch.ge(pixels, per_image(threshold), out=torch.empty_like(pixels))
    return pixels.add_(torch.rsub(pixels, 255, alpha=2).mul_(bright))


def adjust_hue(pixels: Tensor, sixths: Tensor, source: Tensor | None = None) -> Tensor:
    """Turn the hue and keep saturation and value (HSV); gray images stay as they are.

    Args:
        pixels: Images, (B, C, H, W).
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
    """Change S and V, from 0 to 1, to `x ** power * factor + shift`, cut off at 0 and 1, and turn the hue.

    Args:
        pixels: Images, (B, C, H, W); of gray images, V alone is changed.
        power: (B, 2), for S and V, as the next two.
        factor: (B, 2).
        shift: (B, 2).
        sixths: (B,), as in `adjust_hue`.
        source: (B, 3), as in `adjust_hue`.
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


def gaussian_blur(pixels: Tensor, across: Tensor, down: Tensor) -> Tensor:
    """Blur, mirrored at the borders without the outermost pixels repeated; returns a new tensor.

    Args:
        pixels: Images, (B, C, H, W).
        across: Weights of the middle and of the neighbours to one side, (B, up to radius + 1), along a row.
        down: The same along a column.
    """
    for dim, weights in ((3, across), (2, down)):
        # Sums of shifted copies: on a CPU twice as fast as a convolution, and a narrow blur costs less than a wide one.
        radius, side = weights.shape[1] - 1, pixels.shape[dim]
        padded = F.pad(pixels, (radius, radius, 0, 0) if dim == 3 else (0, 0, radius, radius), mode="reflect")
        taps = weights[:, :, None, None, None]
        total, pair = pixels * taps[:, 0], torch.empty_like(pixels)
        for away in range(1, radius + 1):
            before, after = padded.narrow(dim, radius - away, side), padded.narrow(dim, radius + away, side)
            total.addcmul_(torch.add(before, after, out=pair), taps[:, away])
        pixels = total
    return pixels


def rotate(pixels: Tensor, columns: Tensor, rows: Tensor) -> Tensor:
    """Turn counter-clockwise about the centre, bilinear, black where nothing was; returns a new tensor.

    Args:
        pixels: Images, (B, C, H, W).
        columns: (2, B, W), as `transforms.Rotate.device_params` gives them.
        rows: (2, B, H), likewise.
    """
    grid = pixels.new_empty((len(pixels), *pixels.shape[2:], 2))
    for axis in range(2):
        torch.add(columns[axis][:, None], rows[axis][:, :, None], out=grid[..., axis])
    return F.grid_sample(pixels, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def per_image(numbers: Tensor) -> Tensor:
    """View one number for each image, (B,), as (B, 1, 1, 1)."""
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


def copy_to_device(values: np.ndarray | Tensor, device: torch.device) -> Tensor:
    """Copy values to the device; the host waits neither for the copy nor for what the device does before it.

    Only a copy from pinned memory is really asynchronous on CUDA. Nobody has to keep that memory: torch's allocator of
    pinned memory notes an event for each copy from it, and hands it out again only once the event has passed.

    Args:
        values: Values on the host; on a CPU the result shares its memory.
        device: Where they are wanted.
    """
    host = torch.from_numpy(values) if isinstance(values, np.ndarray) else values
    if device.type == "cuda" and host.is_cpu:
        host = host.pin_memory()
    return host.to(device, non_blocking=True)


def copy_all_to_device(arrays: Sequence[np.ndarray], device: torch.device) -> list[Tensor]:
    """Copy arrays to the device, types and shapes kept, in a single copy; a copy costs more than its bytes.

    Args:
        arrays: Arrays of any types that torch has; on a CPU the results share their memory.
        device: Where they are wanted.
    """
    if device.type == "cpu":
        return [torch.from_numpy(array) for array in arrays]
    starts = np.cumsum([0, *(-(-array.nbytes // _ALIGNMENT) * _ALIGNMENT for array in arrays)])
    buffer = torch.empty(int(starts[-1]), dtype=torch.uint8, pin_memory=device.type == "cuda")
    for start, array in zip(starts, arrays, strict=False):
        slot = buffer.numpy()[start : start + array.nbytes]
        slot.view(array.dtype).reshape(array.shape)[...] = array
    copied = buffer.to(device, non_blocking=True)  # see `copy_to_device`
    return [
        copied[start : start + array.nbytes].view(torch.from_numpy(np.empty(0, array.dtype)).dtype).view(array.shape)
        for start, array in zip(starts.tolist(), arrays, strict=False)
    ]


@dataclass(frozen=True)
class TransformAndNormalize:
    """The last step for a crop: the transforms of the view, then normalisation.

    Attributes:
        mean: Mean by channel in shades of 0 to 255, (C, 1, 1) float32.
        scale: (C, 1, 1) float32; a pixel of 0 to 255 becomes (pixel - mean) * scale.
    """

    mean: Tensor
    scale: Tensor

    @classmethod
    def from_mean_std(
        cls, mean: tuple[float, ...], std: tuple[float, ...], device: torch.device
    ) -> "TransformAndNormalize":
        """Make it from mean and standard deviation by channel, of pixels from 0 to 1."""
        # In float32 from the start, and multiplied, as DALI does it, so that both loaders agree to the bit.
        shades = (255 * np.array(mean), 1 / (255 * np.array(std)))
        return cls(*(torch.tensor(values, dtype=torch.float32, device=device).view(-1, 1, 1) for values in shades))

    def __call__(self, pixels: Tensor, view: View, params: ViewParams) -> Tensor:
        """Pixels of 0 to 255, (B, C, H, W) of any real dtype -> float32 of the same shape and memory format."""
        if view.transforms and not pixels.is_cpu:
            ops = list_pixel_ops(view, params, pixels.shape, merged=True)
            arrays = copy_all_to_device([array for op in ops for array in op.arrays], pixels.device)
            return self.apply_ops(pixels, ops, iter(arrays))
        out = torch.empty_like(pixels, dtype=torch.float32)
        self.write(pixels, out, view, params)
        return out

    def write(self, crops: Tensor, out: Tensor, view: View, params: ViewParams) -> None:
        """Do the same into memory that is there, on a CPU; see `runs_in_threads`.

        Args:
            crops: Pixels of 0 to 255, (B, C, H, W) of any real dtype, in any memory format.
            out: Where they go, (B, C, H, W) float32, in any memory format; it may be part of a batch, or `crops`.
            view: The view that the crops are of.
            params: The random numbers of these B images.
        """
        if view.transforms:
            _transform_in_chunks(crops, out, view, params, self)
        else:
            out.copy_(crops).sub_(self.mean).mul_(self.scale)

    def runs_in_threads(self, view: View) -> bool:
        """Whether threads may `write` side by side, each images of its own: torch's number of threads is for all."""
        return bool(view.transforms) and _all_compiled(view, _kernels_for(len(self.mean) * view.size**2))

    def apply_ops(self, pixels: Tensor, ops: Sequence[PixelOp], arrays: Iterator[Tensor]) -> Tensor:
        """Do the same to a whole batch with operations whose arrays are on the device already, in their order."""
        planes = _run_pixel_ops(pixels.float().contiguous(), ops, arrays).sub_(self.mean).mul_(self.scale)
        same = planes.stride() == pixels.stride()
        return planes if same else torch.empty_like(pixels, dtype=torch.float32).copy_(planes)


def apply_transforms(pixels: Tensor, view: View, params: ViewParams) -> Tensor:
    """Apply the transforms of a view, one after the other, without normalisation.

    Args:
        pixels: (B, C, H, W) float32 of 0 to 255, C 3 or 1; changed in place.
        view: The view whose transforms they are.
        params: The random numbers of these B images.

    Returns:
        `pixels`, still of 0 to 255.
    """
    _transform_in_chunks(pixels, pixels, view, params, None)
    return pixels


def list_pixel_ops(view: View, params: ViewParams, shape: Sequence[int], *, merged: bool) -> list[PixelOp]:
    """List the operations that a view's transforms are for a batch of a shape; see `Transform.pixel_ops`."""
    pairs = zip(view.transforms, params.transforms, strict=True)
    return [op for transform, own in pairs for op in transform.pixel_ops(own, shape, merged=merged)]


def _transform_in_chunks(
    crops: Tensor, out: Tensor, view: View, params: ViewParams, finish: TransformAndNormalize | None
) -> None:
    """Write transformed crops into `out`, (B, C, H, W) each, normalised by `finish` where there is one."""
    values = out[:1].numel()
    kernels, count = _kernels_for(values), 1 if values > _LARGE_IMAGE else _CHUNK_VALUES // max(values, 1)
    # Work this fine is not worth sharing out, and where the cores are busy decoding, torch's threads would spend many
    # times as long waiting for each other as they save.
    threads = torch.get_num_threads()
    alone = threads > 1 and not _all_compiled(view, kernels)
    if alone:
        torch.set_num_threads(1)
    try:
        for rows in (slice(start, start + count) for start in range(0, len(out), count)):
            # Channel by channel, as nearly every operation works.
            chunk = out[rows]
            planes = chunk if chunk.is_contiguous() else torch.empty(chunk.shape)
            _copy_pixels(crops[rows], planes, kernels)
            for transform, own in zip(view.transforms, params.slice_batch(rows).transforms, strict=True):
                if kernels is not None and type(transform) in kernels.KERNELS:
                    kernels.KERNELS[type(transform)](planes.numpy(), transform, own)
                else:
                    ops = transform.pixel_ops(own, planes.shape, merged=False)
                    arrays = copy_all_to_device([array for op in ops for array in op.arrays], planes.device)
                    planes = _run_pixel_ops(planes, ops, iter(arrays))
            if finish is not None and kernels is not None:
                kernels.normalize(planes.numpy(), finish.mean.numpy().ravel(), finish.scale.numpy().ravel())
            elif finish is not None:
                planes.sub_(finish.mean).mul_(finish.scale)
            _copy_pixels(planes, chunk, kernels)
    finally:
        if alone:
            torch.set_num_threads(threads)


def _copy_pixels(source: Tensor, target: Tensor, kernels: ModuleType | None) -> None:
    """Copy pixels, (B, C, H, W), unless they are there already."""
    if source.data_ptr() == target.data_ptr() and source.stride() == target.stride():
        return
    if kernels is None:
        target.copy_(source)
    else:
        kernels.copy_pixels(source.numpy(), target.numpy())


@cache
def _kernels() -> ModuleType | None:
    """The compiled transforms; None, said once, where there is no numba that can compile and keep them."""
    try:
        return import_module("sslticket.data.transform_kernels")
    except Exception as error:  # whatever an incomplete installation raises
        why = one_line(error)
    print(f"note: images are transformed by torch, several times as slowly, as numba failed ({why})", file=sys.stderr)
    return None


def _kernels_for(values: int) -> ModuleType | None:
    """The compiled transforms for images of so many numbers; None for small ones, for which numba is not imported."""
    return _kernels() if values >= _COMPILED_FROM else None


def _all_compiled(view: View, kernels: ModuleType | None) -> bool:
    return kernels is not None and all(type(transform) in kernels.KERNELS for transform in view.transforms)


def _run_pixel_ops(pixels: Tensor, ops: Sequence[PixelOp], arrays: Iterator[Tensor]) -> Tensor:
    """One operation after the other, with their arrays in their order; `pixels` may be overwritten."""
    for op in ops:
        function = globals()[op.function] if isinstance(op.function, str) else op.function
        if op.rows is None:
            changed = function(pixels, *(next(arrays) for _ in op.params))
            # On a CPU, memory that is in the cache is better than fresh memory.
            pixels = pixels.copy_(changed) if pixels.is_cpu and changed is not pixels else changed
        else:
            # Which images these are was known on the host: nothing has to be counted on the device.
            index = next(arrays)
            some = function(pixels.index_select(0, index), *(next(arrays) for _ in op.params))
            pixels.index_copy_(0, index, some)
    return pixels
