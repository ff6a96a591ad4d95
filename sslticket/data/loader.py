"""How images become batches: the sampler that chooses them, the batch that the training loop sees, and the loader of small image sets.

Which images make up a global batch is a pure function of the seed and the step. Small image sets are kept whole on the device as bytes and augmented there, one batch or several at a time.
"""

import math
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from sslticket.data.augment import View, ViewParams
from sslticket.data.augment_apply import PixelOp, TransformAndNormalize, copy_all_to_device, list_pixel_ops
from sslticket.data.manifest import Manifest
from sslticket.data.unreadable import UnreadableImages
from sslticket.errors import BadInput
from sslticket.seeds import derive_seed, seeded_generator


@lru_cache(maxsize=4)
def _epoch_permutation(length: int, seed: int, epoch: int) -> np.ndarray:
    return seeded_generator(seed, "epoch", epoch).permutation(length)


class LabelledStream(NamedTuple):
    """The labelled stream of a set with two: the set's first `length` rows, which fill `batch_fraction` of every batch."""

    length: int
    batch_fraction: float

    def samples_per_epoch(self, batch_size: int) -> int:
        """Samples of both streams that are seen while the labelled images are seen once."""
        return max(1, round(self.length * batch_size / self.labelled_per_batch(batch_size)))

    def labelled_per_batch(self, batch_size: int) -> int:
        """Labelled images in a global batch: a fixed count, at least one and not all."""
        return min(max(1, round(self.batch_fraction * batch_size)), batch_size - 1)


@dataclass(frozen=True)
class Sampler:
    """The endless stream of shuffled epochs, cut into global batches; batches may straddle two epochs.

    With a labelled stream there are two such streams, each with epochs of its own: the set's first rows, and the rows
    after them. Their images lie interleaved in a batch, so every process, and every part of its share, has both.

    Attributes:
        num_images: images in the training set.
        batch_size: images in a global batch, all processes together.
        seed: of the `order` stream.
        rank: this process's number, from 0.
        world_size: number of processes; must divide the batch.
        labelled: where some rows are a stream of their own.
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
                f"a global batch of {self.batch_size} cannot be shared by {self.world_size} processes; "
                f"give --batch-size a multiple of {self.world_size}"
            )

    @property
    def local_slice(self) -> slice:
        """The places in the global batch that this process loads."""
        each = self.batch_size // self.world_size
        return slice(self.rank * each, (self.rank + 1) * each)

    def indices(self, step: int) -> np.ndarray:
        """Manifest rows of global batch `step`, (batch_size,) int64, the same for every rank and world size."""
        rows = np.empty(self.batch_size, np.int64)
        for stream in self._streams:
            rows[stream.positions] = stream.indices(step * len(stream.positions), (step + 1) * len(stream.positions))
        return rows

    def replacement(self, step: int, place: int, bad: Container[int]) -> int:
        """The row that takes a bad row's place in a batch: the next of its stream that is not bad."""
        stream = next(stream for stream in self._streams if place in stream.positions)
        within = step * len(stream.positions) + int(np.searchsorted(stream.positions, place))
        for later in range(within + 1, within + 1 + 2 * stream.length):  # every row is within two epochs
            row = int(stream.indices(later, later + 1)[0])
            if row not in bad:
                return row
        raise BadInput(f"none of the {stream.length} images of one stream can be read; repair them")

    @cached_property
    def _streams(self) -> tuple["_ShuffledStream", ...]:
        every = np.arange(self.batch_size)
        if self.labelled is None:
            return (_ShuffledStream(0, self.num_images, self.seed, every),)
        first, of_batch = self.labelled.length, self.labelled.labelled_per_batch(self.batch_size)
        # Spread evenly: place i is labelled where i * share passes a whole number.
        is_first = (every + 1) * of_batch // self.batch_size > every * of_batch // self.batch_size
        return (
            _ShuffledStream(0, first, derive_seed(self.seed, "labelled"), np.flatnonzero(is_first)),
            _ShuffledStream(first, self.num_images - first, self.seed, np.flatnonzero(~is_first)),
        )


@dataclass(frozen=True, eq=False)
class _ShuffledStream:
    """Shuffled epochs of the rows from `first` on, which fill these places of every batch."""

    first: int
    length: int
    seed: int
    positions: np.ndarray

    def indices(self, start: int, stop: int) -> np.ndarray:
        epochs, within = np.divmod(np.arange(start, stop), self.length)
        rows = np.empty(stop - start, np.int64)
        for epoch in range(int(epochs[0]), int(epochs[-1]) + 1):
            here = epochs == epoch
            rows[here] = self.first + _epoch_permutation(self.length, self.seed, epoch)[within[here]]
        return rows


class Batch(NamedTuple):
    """Some images, this process's share of a global batch, on the training device."""

    views: tuple[Tensor, ...]  # each (B, C, H, W) float32, normalised
    labels: Tensor  # (B,) int64, -1 = label hidden
    indices: Tensor  # (B,) int64, row in the manifest

    def chunk(self, count: int) -> Iterator["Batch"]:
        """The batch in `count` parts, for gradient accumulation."""
        parts = [torch.chunk(view, count) for view in self.views]
        for views, label, row in zip(
            zip(*parts, strict=True), self.labels.chunk(count), self.indices.chunk(count), strict=True
        ):
            yield Batch(views, label, row)


class Loader(Protocol):
    """A source of batches. Augmentation and order depend on seeds and steps alone, so any step can be started at."""

    @property
    def unreadable(self) -> Mapping[str, str]:
        """Images that could not be read, by path or name, and why."""

    def train(self, start: int, stop: int) -> Iterator[Batch]:
        """This process's share of the augmented global batches `start` to `stop - 1`."""

    def once(self) -> Iterator[Batch]:
        """This process's share of one pass over the set in its own order, every image once; the last batch is short."""


# Away from the CPU, up to so many batches are made together as long as their views hold no more numbers than this, 32
# MiB of float32: what a kernel does to a few small images takes less time than its launch. Not more batches, since the
# device soon has nothing to do while the host draws the numbers for many.
_MAX_BATCHES, _MAX_VALUES = 16, 2**23


class MemoryLoader:
    """A `Loader` of images in memory."""

    def __init__(
        self,
        images: np.ndarray,
        manifest: Manifest,
        views: tuple[View, ...],
        order: Sampler,
        *,
        colours: tuple[tuple[float, ...], tuple[float, ...]],
        augment_seed: int,
        device: torch.device,
        channels_last: bool,
        bad: UnreadableImages,
    ) -> None:
        """See `opening.loader`; `colours` are mean and standard deviation by channel, pixels from 0 to 1."""
        assert order.num_images == len(manifest), "the order is of another set of images"
        self._sampler, self._seed, self._unreadable, self._device = order, augment_seed, bad, device
        self._labels = torch.tensor(manifest.labels).to(device)
        # Only the subset's images go to the device, and only once, however many views are cut from them.
        pixels = torch.from_numpy(images[manifest.array_indices]).to(device).permute(0, 3, 1, 2).contiguous()
        self._views, self._channels, self._merged = views, pixels.shape[1], _merges_batches(device)
        self._groups = list(_group_views(views, pixels, self._merged))
        self._transform = TransformAndNormalize.from_mean_std(*colours, device)
        self._format = torch.channels_last if channels_last else torch.contiguous_format

    @property
    def unreadable(self) -> Mapping[str, str]:
        """Images that could not be read, by path, and why."""
        return self._unreadable

    def train(self, start: int, stop: int) -> Iterator[Batch]:
        """This process's share of the augmented global batches `start` to `stop - 1`."""
        share, at_once = self._sampler.local_slice, self._batches_at_once
        for first in range(start, stop, at_once):
            steps = range(first, min(first + at_once, stop))
            rows = [self._sampler.indices(step)[share] for step in steps]
            yield from self._batches(rows, self._sampler.batch_size, share, steps)

    def once(self) -> Iterator[Batch]:
        """This process's share of one pass over the set, in order; the last batch is short."""
        rows = np.arange(self._sampler.rank, self._sampler.num_images, self._sampler.world_size)
        each = self._sampler.batch_size // self._sampler.world_size
        for number, part in enumerate(np.split(rows, range(each, len(rows), each))):
            if len(part):
                yield from self._batches([part], len(part), slice(None), [f"once {number}"])

    @property
    def _batches_at_once(self) -> int:
        """Batches that are made together; an image looks the same whichever others are made with it."""
        if not self._merged:
            return 1
        images = self._sampler.batch_size // self._sampler.world_size
        numbers = images * self._channels * sum(view.size**2 for view in self._views)
        return min(_MAX_BATCHES, max(1, _MAX_VALUES // numbers))

    def _batches(self, rows: list[np.ndarray], drawn: int, share: slice, steps: Sequence[int | str]) -> Iterator[Batch]:
        """Batches of these rows, as many in each, whose random numbers are a share of those drawn for each step."""
        jobs = [self._sample_group(sort, drawn, share, steps) for sort in self._groups]
        wanted = rows[0] if len(rows) == 1 else np.concatenate(rows)
        arrays = [wanted, *(array for job in jobs for array in job.arrays)]
        index, *there = copy_all_to_device(arrays, self._device)
        numbers, labels = iter(there), self._labels[index]
        made: dict[int, Sequence[Tensor]] = {}
        for sort, job in zip(self._groups, jobs, strict=True):
            parts = _equal_chunks(self._make_group(sort, job, index, numbers), len(sort.positions) * len(steps))
            made |= {place: parts[n * len(steps) : (n + 1) * len(steps)] for n, place in enumerate(sort.positions)}
        for step, (label, row) in enumerate(
            zip(_equal_chunks(labels, len(steps)), _equal_chunks(index, len(steps)), strict=True)
        ):
            yield Batch(tuple(made[place][step] for place in range(len(made))), label, row)

    def _sample_group(self, sort: "_ViewGroup", drawn: int, share: slice, steps: Sequence[int | str]) -> "_GroupParams":
        """Equal views of the batches: all of the first view, then all of the second."""
        view = sort.view
        draws = ViewParams.concatenate(
            [
                view.sample(drawn, self._seed, step, place).slice_batch(share)
                for place in sort.positions
                for step in steps
            ]
        )
        shape = (len(draws.flip), self._channels, view.size, view.size)
        wanted = list_pixel_ops(view, draws, shape, at_once=True) if self._merged else []  # else each part has its own
        return _GroupParams(draws, sort.cropper.crop_params(draws), wanted)

    def _make_group(self, sort: "_ViewGroup", job: "_GroupParams", index: Tensor, numbers: Iterator[Tensor]) -> Tensor:
        index = index if len(sort.positions) == 1 else index.repeat(len(sort.positions))
        crops = sort.cropper(index, *(next(numbers) for _ in job.crop_params))
        if job.ops:
            return self._transform.apply_ops(crops, job.ops, numbers).contiguous(memory_format=self._format)
        return self._transform(crops.contiguous(memory_format=self._format), sort.view, job.params)


def _merges_batches(device: torch.device) -> bool:
    """Whether equal views, and several batches, are made at once there; a CPU works best on what fits its cache."""
    return device.type != "cpu"


class _ViewGroup(NamedTuple):
    """Views that are made together: they are equal, and differ in the numbers that are drawn for them."""

    view: View
    positions: list[int]  # among all views
    cropper: "_SquareCropper | _ResizedCropper"


def _group_views(views: tuple[View, ...], pixels: Tensor, bulk: bool) -> Iterator[_ViewGroup]:
    for view in dict.fromkeys(views):
        places, cutter = [place for place, one in enumerate(views) if one == view], _make_cropper(view, pixels)
        yield from (_ViewGroup(view, some, cutter) for some in ([places] if bulk else [[place] for place in places]))


def _equal_chunks(values: Tensor, count: int) -> Sequence[Tensor]:
    """The values cut into so many equal parts."""
    return (values,) if count == 1 else values.chunk(count)


class _GroupParams(NamedTuple):
    """What the host knows of them before anything is on the device."""

    params: ViewParams
    crop_params: tuple[np.ndarray, ...]  # what the cutter needs
    ops: list[PixelOp]

    @property
    def arrays(self) -> list[np.ndarray]:
        return [*self.crop_params, *(array for stroke in self.ops for array in stroke.arrays)]


class _SquareCropper:
    """Cuts "center" and "pad" crops."""

    def __init__(self, view: View, pixels: Tensor) -> None:
        """Takes the whole set's bytes, (N, C, H, W)."""
        self._view = view
        self._height, self._width = view.resized_shape(*pixels.shape[2:])
        pixels = _resize_all(pixels, self._height, self._width)
        pad = view.pad if view.crop == "pad" else 0
        self._margins = [pad + max(0, math.ceil((view.size - side) / 2) - pad) for side in (self._height, self._width)]
        top, left = self._margins
        padded = F.pad(pixels, (left, left, top, top))
        # Every window of every image, (N, tops, lefts, C, size, size), without a copy.
        self._windows = padded.unfold(2, view.size, 1).unfold(3, view.size, 1).permute(0, 2, 3, 1, 4, 5)

    def crop_params(self, draws: ViewParams) -> tuple[np.ndarray, ...]:
        """Top and left of the windows, and where images are mirrored at all, which."""
        window = self._view.square_crop_windows(self._height, self._width, draws)
        top, left = (first + margin for first, margin in zip((window.top, window.left), self._margins, strict=True))
        return (top, left, draws.flip) if self._view.flip else (top, left)

    def __call__(self, index: Tensor, top: Tensor, left: Tensor, flip: Tensor | None = None) -> Tensor:
        """Bytes, (B, C, size, size)."""
        crops = self._windows[index, top, left]
        return crops if flip is None else torch.where(flip[:, None, None, None], crops.flip(3), crops)


class _ResizedCropper:
    """Cuts "resized" crops: each is two small matrix products, with the triangle filter that antialiases."""

    def __init__(self, view: View, pixels: Tensor) -> None:
        """Takes the whole set's bytes, (N, C, H, W)."""
        self._view, self._pixels = view, pixels

    def crop_params(self, draws: ViewParams) -> tuple[np.ndarray, ...]:
        """The lines of the windows' rows, then those of their columns, see `_line`; (2, 5, B) float32."""
        height, width = (np.full(len(draws.flip), side) for side in self._pixels.shape[2:])
        window, size = self._view.resized_crop_windows(height, width, draws), self._view.size
        rows = _resampling_params(window.top, window.height, np.zeros_like(draws.flip), size)
        return (np.stack((rows, _resampling_params(window.left, window.width, draws.flip, size))),)

    def __call__(self, index: Tensor, lines: Tensor) -> Tensor:
        """Whole numbers from 0 to 255 as float32, (B, C, size, size)."""
        sides, size = self._pixels.shape[2:], self._view.size
        if sides[0] == sides[1]:
            down, across = _triangle_weights(lines.transpose(0, 1).flatten(1), sides[0], size).chunk(2)
        else:
            down, across = (_triangle_weights(line, side, size) for line, side in zip(lines, sides, strict=True))
        return (down[:, None] @ self._pixels[index].float() @ across.mT[:, None]).round_()


def _make_cropper(view: View, pixels: Tensor) -> _SquareCropper | _ResizedCropper:
    return _ResizedCropper(view, pixels) if view.crop == "resized" else _SquareCropper(view, pixels)


def _resampling_params(start: np.ndarray, length: np.ndarray, flip: np.ndarray, size: int) -> np.ndarray:
    """What `_triangle` is told of windows along one direction.

    Args:
        start: first pixel of the window, (B,).
        length: pixels of the window, (B,).
        flip: whether it is mirrored, (B,) bool.
        size: output pixels.

    Returns:
        (5, B) float32: start, length, the scale of a window to its output, the first output pixel's centre and the way
        to the next one's in output pixels.
    """
    scale = length.astype(np.float32) / np.float32(size)
    first, way = np.where(flip, size - 0.5, 0.5), np.where(flip, -1, 1)
    return np.stack((start, length, scale, first, way)).astype(np.float32)


def _triangle_weights(line: Tensor, side: int, size: int) -> Tensor:
    """Weights that resize pixels `start` to `start + length` of a line of `side` to `size`, (B, size, side).

    The filter is PIL's and DALI's bilinear one: a triangle as wide as two output pixels when shrinking, else as two
    input pixels, cut off at the window's ends.
    """
    start, length, scale, first, way = line[:, :, None, None].unbind()
    place = torch.arange(0.5, side, device=line.device) - start  # from the window's start to the pixel's centre
    centre = (first + torch.arange(float(size), device=line.device)[:, None] * way) * scale
    weights = (1 - (place - centre).abs() / scale.clamp(min=1)).clamp(min=0)
    weights *= (place > 0) & (place < length)
    return weights / weights.sum(2, keepdim=True)


def _resize_all(pixels: Tensor, height: int, width: int) -> Tensor:
    """The whole set at another size, in bytes."""
    if pixels.shape[2:] == (height, width):
        return pixels
    resize = partial(F.interpolate, size=(height, width), mode="bilinear", antialias=True)
    # In parts, as the whole set in float32 might not fit.
    return torch.cat([resize(part.float()).round_().to(torch.uint8) for part in torch.split(pixels, 1024)])
