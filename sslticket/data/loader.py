"""How images become batches: the sampler that chooses them, the batch, and the loader of small image sets.

Which images make up a global batch is a pure function of the seed and the step. Small image sets are kept whole on the
device as bytes and augmented there, one batch or several at a time.
"""

import copy
import math
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from sslticket.data.augment import PixelOp, View, ViewParams
from sslticket.data.augment_ops import TransformAndNormalize, copy_all_to_device, list_pixel_ops
from sslticket.data.manifest import Manifest
from sslticket.data.unreadable import UnreadableImages
from sslticket.errors import BadInput
from sslticket.seeds import derive_seed, seeded_generator

# Away from the CPU, up to so many batches are made together as long as their views hold no more numbers than this, 32
# MiB of float32: what a kernel does to a few small images takes less time than its launch. Not more batches, since the
# device soon has nothing to do while the host samples the numbers for many.
_MAX_BATCHES, _MAX_VALUES = 16, 2**23
# On a CPU so few numbers that they stay in its cache: batches of few small images then cost half as much.
_MAX_CPU_VALUES = 2**18
_BATCH_ALIGNMENT = 64  # bytes at a multiple of which a batch begins: elsewhere products may be summed in another order


@lru_cache(maxsize=4)
def _epoch_permutation(length: int, seed: int, epoch: int) -> np.ndarray:
    return seeded_generator(seed, "epoch", epoch).permutation(length)


class LabelledStream(NamedTuple):
    """The labelled stream of a set with two streams, as S4L has them (Zhai et al. 2019, https://arxiv.org/abs/1905.03670).

    Attributes:
        length: Rows at the beginning of the set that are labelled.
        batch_fraction: Fraction of every global batch that they fill.
    """

    length: int
    batch_fraction: float

    def samples_per_epoch(self, batch_size: int) -> int:
        """Count the samples of both streams that are seen while the labelled images are seen once."""
        return max(1, round(self.length * batch_size / self.labelled_per_batch(batch_size)))

    def labelled_per_batch(self, batch_size: int) -> int:
        """Count the labelled images in a global batch: always the same, at least one and not all."""
        return min(max(1, round(self.batch_fraction * batch_size)), batch_size - 1)


@dataclass(frozen=True)
class Sampler:
    """The endless stream of shuffled epochs, cut into global batches; batches may straddle two epochs.

    With a labelled stream there are two such streams, each with epochs of its own: the set's first rows, and the rows
    after them. Their images lie interleaved in a batch, so every process, and every micro-batch of its, has both.

    Attributes:
        num_images: Images in the training set.
        batch_size: Images in a global batch, all processes together.
        seed: Seed of the `order` stream.
        rank: Number of this process, from 0.
        world_size: Number of processes; must divide the batch.
        labelled: The labelled stream, where some rows are a stream of their own.
    """

    num_images: int
    batch_size: int
    seed: int
    rank: int = 0
    world_size: int = 1
    labelled: LabelledStream | None = None

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.batch_size % self.world_size:
            raise BadInput(
                f"--batch-size must be a multiple of the {self.world_size} processes that share it, got "
                f"{self.batch_size}; give --batch-size {max(1, self.batch_size // self.world_size) * self.world_size}"
            )

    @property
    def local_slice(self) -> slice:
        """The positions in the global batch that this process loads."""
        count = self.batch_size // self.world_size
        return slice(self.rank * count, (self.rank + 1) * count)

    def indices(self, step: int) -> np.ndarray:
        """Return the manifest rows of a global batch, (batch_size,) int64, the same for every rank and world size."""
        if len(self._streams) == 1:
            return self._streams[0].indices(step * self.batch_size, (step + 1) * self.batch_size)
        rows = np.empty(self.batch_size, np.int64)
        for stream in self._streams:
            rows[stream.positions] = stream.indices(step * len(stream.positions), (step + 1) * len(stream.positions))
        return rows

    def replacement(self, step: int, position: int, unreadable: Container[int]) -> int:
        """Return the row that replaces an unreadable one in a batch: the next of its stream that can be read.

        Raises:
            BadInput: If no image of the stream can be read.
        """
        stream = next(stream for stream in self._streams if position in stream.positions)
        start = step * len(stream.positions) + int(np.searchsorted(stream.positions, position))
        for sample in range(start + 1, start + 1 + 2 * stream.length):  # every row is within two epochs
            row = int(stream.indices(sample, sample + 1)[0])
            if row not in unreadable:
                return row
        raise BadInput(
            f"at least one of the {stream.length} images of a stream must be readable, got none; repair them"
        )

    @cached_property
    def _streams(self) -> tuple["_ShuffledStream", ...]:
        positions = np.arange(self.batch_size)
        if self.labelled is None:
            return (_ShuffledStream(0, self.num_images, self.seed, positions),)
        length, count = self.labelled.length, self.labelled.labelled_per_batch(self.batch_size)
        # Spread evenly: position i is labelled where i * fraction passes a whole number.
        is_labelled = (positions + 1) * count // self.batch_size > positions * count // self.batch_size
        return (
            _ShuffledStream(0, length, derive_seed(self.seed, "labelled"), np.flatnonzero(is_labelled)),
            _ShuffledStream(length, self.num_images - length, self.seed, np.flatnonzero(~is_labelled)),
        )


@dataclass(frozen=True, eq=False)
class _ShuffledStream:
    """Shuffled epochs of the rows from `first` on, which fill these positions of every batch."""

    first: int
    length: int
    seed: int
    positions: np.ndarray

    def indices(self, start: int, stop: int) -> np.ndarray:
        epoch, first = divmod(start, self.length)
        if first + stop - start <= self.length:
            return self.first + _epoch_permutation(self.length, self.seed, epoch)[first : first + stop - start]
        epochs, within = np.divmod(np.arange(start, stop), self.length)
        rows = np.empty(stop - start, np.int64)
        for epoch in range(int(epochs[0]), int(epochs[-1]) + 1):
            here = epochs == epoch
            rows[here] = self.first + _epoch_permutation(self.length, self.seed, epoch)[within[here]]
        return rows


class Batch(NamedTuple):
    """Some images, this process's slice of a global batch, on the training device.

    Attributes:
        views: One tensor for each view, (B, C, H, W) float32, normalised.
        labels: (B,) int64; -1 where the label is hidden.
        indices: Rows in the manifest, (B,) int64.
    """

    views: tuple[Tensor, ...]
    labels: Tensor
    indices: Tensor

    def chunk(self, count: int) -> Iterator["Batch"]:
        """Cut the batch into `count` micro-batches, for gradient accumulation."""
        if count == 1:
            yield self
            return
        views = zip(*(torch.chunk(view, count) for view in self.views), strict=True)
        for chunks in zip(views, self.labels.chunk(count), self.indices.chunk(count), strict=True):
            yield Batch(*chunks)


class Loader(Protocol):
    """A source of batches. Augmentation and order depend on seeds and steps alone, so any step can be started at."""

    @property
    def unreadable(self) -> Mapping[str, str]:
        """Images that could not be read, by path or name, and why."""

    def train(self, start: int, stop: int) -> Iterator[Batch]:
        """Yield this process's slice of the augmented global batches `start` to `stop - 1`."""

    def once(self) -> Iterator[Batch]:
        """Yield this process's part of one pass over the set in its own order; the last batch is short."""


class MemoryLoader:
    """A `Loader` of images in memory."""

    def __init__(
        self,
        images: np.ndarray,
        manifest: Manifest,
        views: tuple[View, ...],
        sampler: Sampler,
        *,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        augment_seed: int,
        device: torch.device,
        channels_last: bool,
        unreadable: UnreadableImages,
    ) -> None:
        """Copy the images to the device; for the arguments see `source.make_loader`.

        Args:
            images: The whole split's pixels, (N, H, W, C) uint8.
            manifest: The images to use.
            views: What is made of each image.
            sampler: The sampler of the manifest's rows.
            mean: Mean by channel, pixels from 0 to 1.
            std: Standard deviation by channel, pixels from 0 to 1.
            augment_seed: Seed of the `augment` stream.
            device: Where the batches are wanted.
            channels_last: Memory format of the batches.
            unreadable: Images that could not be read.
        """
        assert sampler.num_images == len(manifest), "the sampler is of another set of images"
        self._sampler, self._seed, self._unreadable, self._device = sampler, augment_seed, unreadable, device
        self._labels = torch.tensor(manifest.labels).to(device)
        # Only the subset's images go to the device, and only once, however many views are cut from them.
        pixels = torch.from_numpy(images[manifest.array_indices]).to(device).permute(0, 3, 1, 2).contiguous()
        self._views, self._channels, self._merged = views, pixels.shape[1], _merges_batches(device)
        self._groups = list[_ViewGroup]()
        for view in dict.fromkeys(views):
            positions = [position for position, other in enumerate(views) if other == view]
            cropper = _ResizedCropper(view, pixels) if view.crop == "resized" else _SquareCropper(view, pixels)
            for some in [positions] if self._merged else [[position] for position in positions]:
                self._groups.append(_ViewGroup(view, some, cropper))
        self._transform = TransformAndNormalize.from_mean_std(mean, std, device)
        self._format = torch.channels_last if channels_last else torch.contiguous_format

    def reseeded(self, sampler: Sampler, augment_seed: int, *, channels_last: bool) -> "MemoryLoader":
        """Return a loader of the same images and views with another order and augmentation; they share the images."""
        assert sampler.num_images == self._sampler.num_images, "the sampler is of another set of images"
        other = copy.copy(self)
        other._sampler, other._seed = sampler, augment_seed
        other._format = torch.channels_last if channels_last else torch.contiguous_format
        return other

    @property
    def unreadable(self) -> Mapping[str, str]:
        """Images that could not be read, by path, and why."""
        return self._unreadable

    def train(self, start: int, stop: int) -> Iterator[Batch]:
        """Yield this process's slice of the augmented global batches `start` to `stop - 1`."""
        local, count = self._sampler.local_slice, 1
        # An image looks the same whichever others are made with it.
        values = [(local.stop - local.start) * self._channels * view.size**2 for view in self._views]
        if self._merged or not any(4 * each % _BATCH_ALIGNMENT for each in values):
            most = _MAX_VALUES if self._merged else _MAX_CPU_VALUES
            count = min(_MAX_BATCHES, max(1, most // sum(values)))
        for first in range(start, stop, count):
            steps = range(first, min(first + count, stop))
            rows = [self._sampler.indices(step)[local] for step in steps]
            yield from self._batches(rows, self._sampler.batch_size, local, steps)

    def once(self) -> Iterator[Batch]:
        """Yield this process's part of one pass over the set, in order; the last batch is short."""
        rows = np.arange(self._sampler.rank, self._sampler.num_images, self._sampler.world_size)
        size = self._sampler.batch_size // self._sampler.world_size
        for number, chunk in enumerate(np.split(rows, range(size, len(rows), size))):
            if len(chunk):
                yield from self._batches([chunk], len(chunk), slice(None), [f"once {number}"])

    def _batches(self, rows: list[np.ndarray], count: int, local: slice, steps: Sequence[int | str]) -> Iterator[Batch]:
        """Batches of these rows, as many in each; random numbers are sampled for `count` images a step and sliced."""
        sampled = [self._sample_group(group, count, local, steps) for group in self._groups]
        all_rows = rows[0] if len(rows) == 1 else np.concatenate(rows)
        arrays = [all_rows, *(array for params in sampled for array in params.arrays)]
        index, *copied = copy_all_to_device(arrays, self._device)
        tensors, labels = iter(copied), self._labels[index]
        views: dict[int, Sequence[Tensor]] = {}
        for group, params in zip(self._groups, sampled, strict=True):
            chunks = _equal_chunks(self._make_group(group, params, index, tensors), len(group.positions) * len(steps))
            views |= {
                position: chunks[number * len(steps) : (number + 1) * len(steps)]
                for number, position in enumerate(group.positions)
            }
        by_step = zip(_equal_chunks(labels, len(steps)), _equal_chunks(index, len(steps)), strict=True)
        for step, (own_labels, own_rows) in enumerate(by_step):
            yield Batch(tuple(views[position][step] for position in range(len(views))), own_labels, own_rows)

    def _sample_group(
        self, group: "_ViewGroup", count: int, local: slice, steps: Sequence[int | str]
    ) -> "_GroupParams":
        """The random numbers of equal views of the batches: all of the first view, then all of the second."""
        view = group.view
        sampled = [view.sample(count, self._seed, step, position) for position in group.positions for step in steps]
        params = ViewParams.concatenate([each.slice_batch(local) for each in sampled])
        shape = (len(params.flip), self._channels, view.size, view.size)
        ops = list_pixel_ops(view, params, shape, merged=True) if self._merged else []  # else each chunk has its own
        return _GroupParams(params, group.cropper.crop_params(params), ops)

    def _make_group(
        self, group: "_ViewGroup", params: "_GroupParams", index: Tensor, tensors: Iterator[Tensor]
    ) -> Tensor:
        index = index if len(group.positions) == 1 else index.repeat(len(group.positions))
        crops = group.cropper(index, *(next(tensors) for _ in params.crop_params))
        if params.ops:
            return self._transform.apply_ops(crops, params.ops, tensors).contiguous(memory_format=self._format)
        return self._transform(crops.contiguous(memory_format=self._format), group.view, params.params)


def _merges_batches(device: torch.device) -> bool:
    """Whether equal views, and several batches, are made at once there; a CPU works best on what fits its cache."""
    return device.type != "cpu"


class _ViewGroup(NamedTuple):
    """Views that are made together: they are equal, and differ in the numbers that are sampled for them."""

    view: View
    positions: list[int]  # among all views
    cropper: "_SquareCropper | _ResizedCropper"


def _equal_chunks(values: Tensor, count: int) -> Sequence[Tensor]:
    return (values,) if count == 1 else values.chunk(count)


class _GroupParams(NamedTuple):
    """What the host knows of a group of views before anything is on the device."""

    params: ViewParams
    crop_params: tuple[np.ndarray, ...]
    ops: list[PixelOp]

    @property
    def arrays(self) -> list[np.ndarray]:
        return [*self.crop_params, *(array for op in self.ops for array in op.arrays)]


class _SquareCropper:
    """Cuts "center" and "pad" crops."""

    def __init__(self, view: View, pixels: Tensor) -> None:
        """Prepare the whole set's bytes, (N, C, H, W)."""
        self._view = view
        self._height, self._width = view.resized_shape(*pixels.shape[2:])
        if pixels.shape[2:] != (self._height, self._width):
            resize = partial(F.interpolate, size=(self._height, self._width), mode="bilinear", antialias=True)
            # In chunks, as the whole set in float32 might not fit.
            chunks = torch.split(pixels, 1024)
            pixels = torch.cat([resize(chunk.float()).round_().to(torch.uint8) for chunk in chunks])
        pad = view.pad if view.crop == "pad" else 0
        self._margins = [pad + max(0, math.ceil((view.size - side) / 2) - pad) for side in (self._height, self._width)]
        top, left = self._margins
        padded = F.pad(pixels, (left, left, top, top)).contiguous()
        # Every window of every image, (N, tops, lefts, C, size, size), without a copy.
        self._windows = padded.unfold(2, view.size, 1).unfold(3, view.size, 1).permute(0, 2, 3, 1, 4, 5)
        # On a CPU a crop is copied by the row: these are all runs of `size` bytes, whichever byte they begin at.
        _, channels, height, self._width_padded = padded.shape
        self._image_bytes = channels * height * self._width_padded
        self._runs = padded.as_strided((padded.numel() - view.size + 1, view.size), (1, 1)) if padded.is_cpu else None
        rows = np.arange(channels)[:, None] * height + np.arange(view.size)
        self._row_starts = (rows * self._width_padded).ravel()

    def crop_params(self, params: ViewParams) -> tuple[np.ndarray, ...]:
        """Return top and left of the windows, and where images are mirrored at all, which."""
        window = self._view.square_crop_windows(self._height, self._width, params)
        top, left = (first + margin for first, margin in zip((window.top, window.left), self._margins, strict=True))
        return (top, left, params.flip) if self._view.flip else (top, left)

    def __call__(self, index: Tensor, top: Tensor, left: Tensor, flip: Tensor | None = None) -> Tensor:
        """Return bytes, (B, C, size, size)."""
        if self._runs is not None:
            return self._copy_rows(self._runs, index.numpy(), top.numpy(), left.numpy(), flip)
        crops = self._windows[index, top, left]
        if flip is not None:
            crops = torch.where(flip[:, None, None, None], crops.flip(3), crops)
        # With the strides of `_copy_rows`: of one channel they might be those of channels-last, with other kernels.
        return crops.flatten().view(crops.shape)

    def _copy_rows(
        self, runs: Tensor, index: np.ndarray, top: np.ndarray, left: np.ndarray, flip: Tensor | None
    ) -> Tensor:
        """Do the same on a CPU, where a gather takes as long for each byte as this does for a row of them."""
        first = index * self._image_bytes + top * self._width_padded + left
        starts = torch.from_numpy((first[:, None] + self._row_starts).ravel())
        size = self._view.size
        crops = runs.index_select(0, starts).view(len(index), -1, size, size)
        if flip is not None:
            mirrored = flip.numpy()
            array = crops.numpy()
            array[mirrored] = array[mirrored][..., ::-1]
        return crops


class _ResizedCropper:
    """Cuts "resized" crops: each is two small matrix products, with the triangle filter that antialiases."""

    def __init__(self, view: View, pixels: Tensor) -> None:
        """Keep the whole set's bytes, (N, C, H, W)."""
        self._view, self._pixels = view, pixels

    def crop_params(self, params: ViewParams) -> tuple[np.ndarray, ...]:
        """Return `_resampling_params` of the windows' rows, then of their columns, (2, 5, B) float32."""
        height, width = (np.full(len(params.flip), side) for side in self._pixels.shape[2:])
        window, size = self._view.resized_crop_windows(height, width, params), self._view.size
        rows = _resampling_params(window.top, window.height, np.zeros_like(params.flip), size)
        return (np.stack((rows, _resampling_params(window.left, window.width, params.flip, size))),)

    def __call__(self, index: Tensor, lines: Tensor) -> Tensor:
        """Return whole numbers from 0 to 255 as float32, (B, C, size, size)."""
        sides, size = self._pixels.shape[2:], self._view.size
        if sides[0] == sides[1]:
            down, across = _triangle_weights(lines.transpose(0, 1).flatten(1), sides[0], size).chunk(2)
        else:
            down, across = (_triangle_weights(line, side, size) for line, side in zip(lines, sides, strict=True))
        return (down[:, None] @ self._pixels[index].float() @ across.mT[:, None]).round_()


def _resampling_params(start: np.ndarray, length: np.ndarray, flip: np.ndarray, size: int) -> np.ndarray:
    """Compute what `_triangle_weights` needs of windows along one direction.

    Args:
        start: First pixel of the window, (B,).
        length: Pixels of the window, (B,).
        flip: Whether it is mirrored, (B,) bool.
        size: Output pixels.

    Returns:
        (5, B) float32: start, length, the scale of a window to its output, the first output pixel's centre and the
            direction of the next one's, in output pixels.
    """
    scale = length.astype(np.float32) / np.float32(size)
    first, direction = np.where(flip, size - 0.5, 0.5), np.where(flip, -1, 1)
    return np.stack((start, length, scale, first, direction)).astype(np.float32)


def _triangle_weights(params: Tensor, side: int, size: int) -> Tensor:
    """Compute weights that resize pixels `start` to `start + length` of a line of `side` to `size`, (B, size, side).

    The filter is PIL's and DALI's bilinear one: a triangle as wide as two output pixels when shrinking, else as two
    input pixels, cut off at the window's ends.
    """
    start, length, scale, first, direction = params[:, :, None, None].unbind()
    pixel = torch.arange(0.5, side, device=params.device) - start  # from the window's start to the pixel's centre
    centre = (first + torch.arange(float(size), device=params.device)[:, None] * direction) * scale
    weights = (1 - (pixel - centre).abs() / scale.clamp(min=1)).clamp(min=0)
    weights *= (pixel > 0) & (pixel < length)
    return weights / weights.sum(2, keepdim=True)
