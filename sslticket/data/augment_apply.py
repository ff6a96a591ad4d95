"""Applies the transforms of a view to a batch of pixels on whatever device the batch is on, with the same arithmetic for every loader.

This is done by torch after the crop and not inside DALI: DALI's hue is not torchvision's, its operations have one order for all images of a batch, and the loader of images in memory needs them too. What was sampled for a batch becomes a list of `PixelOp`s on the host, whose arrays go to the device in one copy, so that nothing is looked up on the device and nobody waits.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sslticket.data import pixel_ops
from sslticket.data.augment import (
    Blur,
    Grayscale,
    HSVNoise,
    Jitter,
    Rotate,
    Solarize,
    Transform,
    TransformParams,
    View,
    ViewParams,
)
from sslticket.data.pixel_ops import blur_params, gaussian_blur, rotate, rotation_params

_ALIGNMENT = 16  # bytes; an array in a buffer starts at a multiple, so that it can be viewed as whatever it holds


def copy_to_device(values: np.ndarray | Tensor, device: torch.device) -> Tensor:
    """The values on the device; the host does not wait for the copy, nor for what the device does before it.

    Only a copy from pinned memory is really asynchronous on CUDA. Nobody has to keep that memory: torch's allocator of
    pinned memory notes an event for each copy from it, and hands it out again only once the event has passed.

    Args:
        values: on the host; on a CPU the result shares its memory.
        device: where they are wanted.
    """
    host = torch.from_numpy(values) if isinstance(values, np.ndarray) else values
    if device.type == "cuda" and host.is_cpu:
        host = host.pin_memory()
    return host.to(device, non_blocking=True)


def copy_all_to_device(arrays: Sequence[np.ndarray], device: torch.device) -> list[Tensor]:
    """The arrays on the device, of the same types and shapes, in a single copy; a copy costs more than its bytes.

    Args:
        arrays: of any types that torch has; on a CPU the results share their memory.
        device: where they are wanted.
    """
    if device.type == "cpu":
        return [torch.from_numpy(array) for array in arrays]
    starts = np.cumsum([0, *(-(-array.nbytes // _ALIGNMENT) * _ALIGNMENT for array in arrays)])
    buffer = torch.empty(int(starts[-1]), dtype=torch.uint8, pin_memory=device.type == "cuda")
    for start, array in zip(starts, arrays, strict=False):
        place = buffer.numpy()[start : start + array.nbytes]
        place.view(array.dtype).reshape(array.shape)[...] = array
    there = buffer.to(device, non_blocking=True)  # see `to_device`
    return [
        there[start : start + array.nbytes].view(_torch_dtype(array.dtype)).view(array.shape)
        for start, array in zip(starts.tolist(), arrays, strict=False)
    ]


def _torch_dtype(kind: np.dtype) -> torch.dtype:
    return torch.from_numpy(np.empty(0, kind)).dtype


# On a CPU, images are worked on in parts that stay in a core's cache, large images alone; measured. In numbers:
_CHUNK_VALUES, _LARGE_IMAGE = 2**19, 2**15


class PixelOp(NamedTuple):
    """One change to some or all images of a batch.

    Attributes:
        function: of (B, C, H, W) pixels, which it may overwrite, and the numbers.
        params: of the B images that are changed.
        rows: which images of the batch these are, int64; None for all.
    """

    function: Callable[..., Tensor]
    params: tuple[np.ndarray, ...] = ()
    rows: np.ndarray | None = None

    @property
    def arrays(self) -> tuple[np.ndarray, ...]:
        """What must be where the pixels are."""
        return self.params if self.rows is None else (self.rows, *self.params)


@dataclass(frozen=True)
class TransformAndNormalize:
    """What happens to a crop last: the view's effects, then normalisation.

    Attributes:
        mean, scale: (C, 1, 1) float32; a pixel of 0 to 255 becomes (pixel - mean) * scale.
    """

    mean: Tensor
    scale: Tensor

    @classmethod
    def from_mean_std(
        cls, mean: tuple[float, ...], std: tuple[float, ...], device: torch.device
    ) -> "TransformAndNormalize":
        """From mean and standard deviation by channel, pixels from 0 to 1."""
        # In float32 from the start, and multiplied, as DALI does it, so that both loaders agree to the bit.
        shades = (255 * np.array(mean), 1 / (255 * np.array(std)))
        return cls(*(torch.tensor(values, dtype=torch.float32, device=device).view(-1, 1, 1) for values in shades))

    def __call__(self, pixels: Tensor, view: View, draws: ViewParams) -> Tensor:
        """Pixels of 0 to 255, (B, C, H, W) of any real dtype -> float32 of the same shape and memory format."""
        if not view.effects:
            return torch.sub(pixels, self.mean).mul_(self.scale)
        if pixels.is_cpu:
            return _apply_in_chunks(pixels.float(), draws, view, lambda planes: planes.sub_(self.mean).mul_(self.scale))
        wanted = list_pixel_ops(view, draws, pixels.shape, at_once=True)
        numbers = copy_all_to_device([array for stroke in wanted for array in stroke.arrays], pixels.device)
        return self.apply_ops(pixels, wanted, iter(numbers))

    def apply_ops(self, pixels: Tensor, wanted: Sequence[PixelOp], numbers: Iterator[Tensor]) -> Tensor:
        """The same with strokes whose arrays are there already, in their order; the whole batch at once."""
        planes = _run_pixel_ops(pixels.float().contiguous(), wanted, numbers).sub_(self.mean).mul_(self.scale)
        same = planes.stride() == pixels.stride()
        return planes if same else torch.empty_like(pixels, dtype=torch.float32).copy_(planes)


def apply_transforms(pixels: Tensor, view: View, draws: ViewParams) -> Tensor:
    """The view's effects, one after the other, without normalisation.

    Args:
        pixels: (B, C, H, W) float32 of 0 to 255, C 3 or 1; changed in place.
        view: with the effects.
        draws: of these B images.

    Returns:
        `pixels`, still of 0 to 255.
    """
    return _apply_in_chunks(pixels, draws, view, lambda planes: planes)


def list_pixel_ops(view: View, draws: ViewParams, shape: Sequence[int], *, at_once: bool) -> list[PixelOp]:
    """What a view's effects do to a batch; a change of no image is none.

    Args:
        view: with the effects.
        draws: of the batch's B images.
        shape: of the batch, (B, C, H, W).
        at_once: few operations on the whole batch, as a GPU likes it, instead of many on few images each, as a CPU
            does. The results are the same to the bit.
    """
    found: list[PixelOp] = []
    for effect, drawn in zip(view.effects, draws.transforms, strict=True):
        if isinstance(effect, Jitter):
            found += _jitter_ops_merged(effect, drawn, shape[1]) if at_once else _jitter_ops_by_turn(effect, drawn)
        else:
            found += _op_on_subset(drawn["on"], drawn, partial(_transform_op, effect, shape))
    return found


def _apply_in_chunks(pixels: Tensor, draws: ViewParams, view: View, last: Callable[[Tensor], Tensor]) -> Tensor:
    at_once = 1 if pixels[0].numel() > _LARGE_IMAGE else _CHUNK_VALUES // pixels[0].numel()
    with _single_threaded():
        for rows in (slice(start, start + at_once) for start in range(0, len(pixels), at_once)):
            part = pixels[rows]
            wanted = list_pixel_ops(view, draws.slice_batch(rows), part.shape, at_once=False)
            numbers = copy_all_to_device([array for stroke in wanted for array in stroke.arrays], pixels.device)
            # Channel by channel, as nearly every effect works.
            part.copy_(last(_run_pixel_ops(part.contiguous(), wanted, iter(numbers))))
    return pixels


@contextmanager
def _single_threaded() -> Iterator[None]:
    # Work this fine is not worth sharing out, and where the cores are busy decoding, torch's threads would spend many
    # times as long waiting for each other as they save.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _run_pixel_ops(pixels: Tensor, wanted: Sequence[PixelOp], numbers: Iterator[Tensor]) -> Tensor:
    """One stroke after the other, with their arrays in their order; `pixels` may be overwritten."""
    for stroke in wanted:
        if stroke.rows is None:
            changed = stroke.function(pixels, *(next(numbers) for _ in stroke.params))
            # On a CPU, memory that is in the cache is better than fresh memory.
            pixels = pixels.copy_(changed) if pixels.is_cpu and changed is not pixels else changed
        else:
            # Which images these are was known on the host: nothing has to be counted on the device.
            index = next(numbers)
            some = stroke.function(pixels.index_select(0, index), *(next(numbers) for _ in stroke.params))
            pixels.index_copy_(0, index, some)
    return pixels


def _op_on_subset(
    on: np.ndarray, drawn: TransformParams, stroke: Callable[[TransformParams], PixelOp]
) -> list[PixelOp]:
    """The stroke for these of the images, (B,) bool, the others left alone."""
    rows = np.flatnonzero(on)
    if len(rows) == len(on):
        return [stroke(drawn)]
    return [stroke({name: values[rows] for name, values in drawn.items()})._replace(rows=rows)] if len(rows) else []


def _transform_op(effect: Transform, shape: Sequence[int], drawn: TransformParams) -> PixelOp:
    """All images with one effect."""
    height, width = shape[2:]
    match effect:
        case Rotate():
            return PixelOp(rotate, rotation_params(drawn["angle"], height, width))
        case HSVNoise():
            powers = (drawn["power"], drawn["factor"], drawn["shift"])
            return PixelOp(pixel_ops.add_hsv_noise, (*powers, *pixel_ops.hue_params(drawn["hue"])))
        case Grayscale():
            return PixelOp(pixel_ops.to_grayscale)
        case Blur():
            return PixelOp(gaussian_blur, blur_params(drawn["sigma"], effect.kernel, height, width))
        case Solarize():
            return PixelOp(partial(pixel_ops.solarize_above, threshold=effect.threshold))
    raise AssertionError(f"{type(effect).__name__} cannot be painted")


_JITTER_OPS: dict[str, Callable[..., Tensor]] = {  # in the order that `Jitter` numbers them
    "brightness": pixel_ops.adjust_brightness,
    "contrast": pixel_ops.adjust_contrast,
    "saturation": pixel_ops.adjust_saturation,
    "hue": pixel_ops.adjust_hue,
}
_HUE_INDEX = list(_JITTER_OPS).index("hue")


def _jitter_ops_by_turn(effect: Jitter, drawn: TransformParams) -> list[PixelOp]:
    found: list[PixelOp] = []
    for turn in drawn["order"].T:
        for number, name in enumerate(_JITTER_OPS):
            if getattr(effect, name):
                found += _op_on_subset(drawn["on"] & (turn == number), drawn, partial(_jitter_op, name))
    return found


def _jitter_op(name: str, drawn: TransformParams) -> PixelOp:
    return PixelOp(_JITTER_OPS[name], pixel_ops.hue_params(drawn[name]) if name == "hue" else (drawn[name],))


def _jitter_ops_merged(effect: Jitter, drawn: TransformParams, channels: int) -> list[PixelOp]:
    """Up to three blends, the hue of all images, and up to three blends again.

    An image has three blends in all, in its own order, some before its hue and the others after. What it does not have
    at a place is a blend or a turn that changes no bit.
    """
    order = drawn["order"]
    turns = np.arange(order.shape[1])
    of_hue = (order == _HUE_INDEX).argmax(axis=1)[:, None] if effect.hue else len(turns)
    wanted = drawn["on"][:, None] & np.isin(order, [n for n, name in enumerate(_JITTER_OPS) if getattr(effect, name)])
    found = _merged_blends(drawn, wanted & (turns < of_hue), channels)
    if effect.hue:
        found.append(
            PixelOp(pixel_ops.adjust_hue, pixel_ops.hue_params(np.where(drawn["on"], drawn["hue"], np.float32(0))))
        )
    return found + _merged_blends(drawn, wanted & (turns > of_hue), channels)


def _merged_blends(drawn: TransformParams, wanted: np.ndarray, channels: int) -> list[PixelOp]:
    """The blends of these turns, (B, 4) bool: each image's first together, then each image's second, and so on."""
    factors = np.stack([drawn[name] for name in _JITTER_OPS])
    found, place = [], wanted.cumsum(axis=1)
    for number in range(1, int(place.max(initial=0)) + 1):
        here = wanted & (place == number)
        which = drawn["order"][np.arange(len(here)), here.argmax(axis=1)]
        found.append(
            PixelOp(
                pixel_ops.adjust_one_of_three,
                (pixel_ops.color_blend_params(factors, which, here.any(axis=1), channels),),
            )
        )
    return found
