"""Image files to normalised crops through NVIDIA DALI, on CPU or GPU; the only module that knows DALI."""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from sslticket.data.painting import Finish
from sslticket.data.views import TRIES, Draws, View
from sslticket.errors import BadInput

try:
    from nvidia.dali import Pipeline, fn, types
    from nvidia.dali import math as dali_math
except ImportError as missing:
    raise BadInput(
        f"image files are read through NVIDIA DALI, which cannot be imported ({' '.join(str(missing).split())}); "
        "pip install nvidia-dali-cuda130"
    ) from missing

Node = Any  # DALI has no types

# The fields of `Draws` that a crop looks at.
_DRAWN = {"resized": ("area", "ratio", "place", "flip"), "pad": ("place", "flip"), "center": ("flip",)}


class Feed(NamedTuple):
    """What one batch is made of."""

    paths: list[str]
    rows: np.ndarray  # (B,) int64, handed through
    draws: tuple[Draws, ...]  # one per view
    encoded: list[np.ndarray] | None = None  # each file's bytes, uint8, where they are not to be read from `paths`
    lent: tuple[object, ...] = ()  # what some of the paths lead to; held until the batch is there

    @property
    def raw(self) -> list[np.ndarray]:
        """What the pipeline is given for each image: its bytes, or its path's."""
        return [path_bytes(path) for path in self.paths] if self.encoded is None else self.encoded


@dataclass(frozen=True)
class Decoder:
    """How image files become tensors.

    Attributes:
        views: what to cut from each image.
        mean, std: by channel, pixels from 0 to 1.
        device: where the tensors are wanted; on a CUDA device the JPEGs are decoded there too.
        threads: for reading and decoding.
        channels_last: memory format of the tensors.
        encoded: the feed holds the images' bytes; else they are read from its paths.
    """

    views: tuple[View, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    device: torch.device
    threads: int
    channels_last: bool = False
    encoded: bool = False

    def run(
        self, feed: Callable[[int], Feed], count: int, largest: int
    ) -> Iterator[tuple[tuple[Tensor, ...], np.ndarray]]:
        """The views, (B, C, H, W) float32 each, and rows, (B,) int64, of `feed(0)` to `feed(count - 1)`.

        Args:
            feed: called ahead of time; each may be of another size.
            count: of batches.
            largest: images in the largest batch.

        Raises:
            RuntimeError: at the first batch that has an image which cannot be read.
        """
        pipe, supply = self._pipeline(largest, 2), _Supply(self.views, feed, count)
        with pipe:
            given, row, *numbers = fn.external_source(
                source=supply,
                num_outputs=2 + sum(len(_DRAWN[view.crop]) for view in self.views),
                batch=True,
                batch_info=True,
            )
            pipe.set_outputs(row, *self._graph(self._bytes(given), iter(numbers)))
        finish, lent = Finish.of(self.mean, self.std, self.device), _Lent()
        for _ in range(count):
            # The host waits for DALI here, which is two batches ahead, and not for what torch has still to do.
            rows, *views = pipe.run()
            pixels = lent.taken([from_dlpack(batch.as_tensor()) for batch in views], self.device)
            if self.channels_last:
                pixels = [each.permute(0, 3, 1, 2) for each in pixels]
            yield (
                tuple(
                    finish(each, view, draws) if view.effects else each
                    for each, view, draws in zip(pixels, self.views, supply.ahead.popleft().draws, strict=True)
                ),
                np.array(rows.as_tensor()),
            )

    def refused(self, raw: Sequence[np.ndarray]) -> list[int]:
        """The places of those images that DALI does not decode, of what a feed's `raw` holds."""
        found, left = [], list(range(len(raw)))
        while left:
            pipe = self._pipeline(1, 1)
            with pipe:
                given = self._bytes(fn.external_source(source=[[raw[place]] for place in left], batch=True))
                # Like the real pipeline: a file whose size can be told may still be undecodable.
                pipe.set_outputs(fn.peek_image_shape(given), fn.decoders.image(given, device=self._decoding))
            while left:
                place = left.pop(0)
                try:
                    pipe.run()
                except RuntimeError:
                    found.append(place)
                    break
        return found

    def _bytes(self, given: Node) -> Node:
        return given if self.encoded else fn.io.file.read(given)

    @property
    def _decoding(self) -> str:
        return "mixed" if self.device.type == "cuda" else "cpu"

    def _pipeline(self, batch_size: int, queue: int) -> Pipeline:
        number = None
        if self.device.type == "cuda":
            number = torch.cuda.current_device() if self.device.index is None else self.device.index
        return Pipeline(batch_size, self.threads, number, prefetch_queue_depth=queue)

    def _graph(self, raw: Node, numbers: Iterator[Node]) -> Iterator[Node]:
        """One output per view; an image is decoded once, and only the part that is needed where there is one view."""
        shape = fn.peek_image_shape(raw)[0:2]
        kind = types.RGB if len(self.mean) == 3 else types.GRAY
        decode = {"device": self._decoding, "output_type": kind}
        part = len(self.views) == 1 and self.views[0].crop == "resized"
        whole = None if part else fn.decoders.image(raw, **decode)
        for view in self.views:
            drawn = {name: next(numbers) for name in _DRAWN[view.crop]}
            if view.crop == "resized":
                start, size = resized_window(view, shape, drawn["area"], drawn["ratio"], drawn["place"])
                window = {"start": start, "shape": size, "axes": [0, 1]}
                image = fn.decoders.image_slice(raw, **decode, **window) if part else fn.slice(whole, **window)
                image = fn.resize(image, size=[view.size, view.size])
            else:
                image, resized = whole, shape
                if view.resize is not None:
                    resized = view.resize * shape // dali_math.min(shape[0], shape[1])
                    image = fn.resize(image, size=fn.cast(resized, dtype=types.FLOAT))
                image = fn.slice(
                    image,
                    start=square_start(view, resized, drawn.get("place")),
                    shape=[view.size, view.size],
                    axes=[0, 1],
                    out_of_bounds_policy="pad",
                )
            # With effects to come, pixels stay as they are: normalising is the last thing that happens to them.
            mean, std = ([0.0], [1.0]) if view.effects else (_shades(self.mean), _shades(self.std))
            layout = "HWC" if self.channels_last else "CHW"
            yield fn.crop_mirror_normalize(image, mirror=drawn["flip"], mean=mean, std=std, output_layout=layout)


class _Lent:
    """Batches in DALI's memory on CUDA, kept until torch has copied them.

    The exchange without a copy orders DALI's work before torch's, but nothing orders torch's before DALI's next: once
    Python forgets a batch, DALI's own stream may write the next one into its memory, while kernels that read it wait in
    torch's stream, since the host does not wait for them. `Tensor.record_stream` is no help: it does nothing for memory
    that is not torch's own allocator's. So torch copies a batch, which takes a thousandth of a training step, and the
    batch is forgotten after an event that follows the copy.
    """

    def __init__(self) -> None:
        self._kept: deque[tuple[torch.cuda.Event, list[Tensor]]] = deque()

    def taken(self, batch: list[Tensor], device: torch.device) -> list[Tensor]:
        """The tensors of one batch on the device, in torch's own memory there; on a CPU they stay where they are."""
        if device.type != "cuda":
            return [tensor.to(device) for tensor in batch]
        while self._kept and self._kept[0][0].query():  # type: ignore[no-untyped-call]
            self._kept.popleft()
        copies, copied = [tensor.clone() for tensor in batch], torch.cuda.Event()  # type: ignore[no-untyped-call]
        copied.record(torch.cuda.current_stream(device))
        self._kept.append((copied, batch))
        return copies


def resized_window(view: View, shape: Node, area: Node, ratio: Node, place: Node) -> tuple[Node, Node]:
    """`View.resized_crop` in DALI's arithmetic.

    Args:
        view: the view.
        shape: (2,) height and width of the image.
        area: (TRIES,) float32, as in `Draws`.
        ratio: (TRIES,) float32, as in `Draws`.
        place: (2,) float32, as in `Draws`.

    Returns:
        Top and left, height and width: (2,) int32 each.
    """
    sides = fn.cast(shape, dtype=types.FLOAT)
    height, width = sides[0], sides[1]
    pixels = area * (height * width)
    tall, wide = (dali_math.floor(dali_math.sqrt(side) + 0.5) for side in (pixels / ratio, pixels * ratio))
    fits = (tall >= 1.0) & (tall <= height) & (wide >= 1.0) & (wide <= width)
    turns = fits * types.Constant(np.arange(TRIES, 0, -1, dtype=np.int32))
    highest = fn.reductions.max(turns, axes=[0])
    first = fits & (turns == highest)
    any_fits = highest > 0
    none_fits = 1 - any_fits
    size = fn.stack(*(fn.reductions.sum(first * side, axes=[0]) for side in (tall, wide)))
    tallest, widest = (dali_math.floor(side + 0.5) for side in (width / view.ratio[0], height * view.ratio[1]))
    size += none_fits * fn.stack(dali_math.min(height, tallest), dali_math.min(width, widest))
    # In double precision, as numpy multiplies it: a place of nearly 1 must not be rounded up to the far end.
    exact = fn.cast(place, dtype=types.FLOAT64)
    start = dali_math.floor((exact * any_fits + 0.5 * none_fits) * (shape - size + 1))
    return fn.cast(start, dtype=types.INT32), fn.cast(size, dtype=types.INT32)


def square_start(view: View, shape: Node, place: Node | None) -> Node:
    """Top and left of `View.square_crop` in DALI's arithmetic, (2,) int32, for an image of `shape` (2,) int64."""
    pad = view.pad if view.crop == "pad" else 0
    spare, missing = dali_math.max(shape + (2 * pad - view.size), 0), dali_math.max(view.size - 2 * pad - shape, 0)
    middle = spare // 2 + (spare - 4 * (spare // 4) == 3)
    first = middle if place is None else dali_math.floor(fn.cast(place, dtype=types.FLOAT64) * (spare + 1))
    return fn.cast(first - pad - missing // 2, dtype=types.INT32)


@dataclass(frozen=True)
class _Supply:
    """The source of a pipeline: a batch's paths, rows and random numbers, by the pipeline's own count of batches.

    Attributes:
        ahead: the batches that the pipeline has asked for and not yet delivered, oldest first.
    """

    views: tuple[View, ...]
    feed: Callable[[int], Feed]
    count: int
    ahead: deque[Feed] = field(default_factory=deque)

    def __call__(self, info: Node) -> list[Any]:
        if info.iteration >= self.count:
            raise StopIteration
        feed = self.feed(info.iteration)
        self.ahead.append(feed)
        arrays: list[Any] = [feed.raw, feed.rows]
        for view, draws in zip(self.views, feed.draws, strict=True):
            arrays += [_as_dali_takes_it(getattr(draws, name)) for name in _DRAWN[view.crop]]
        return arrays


def _shades(values: tuple[float, ...]) -> list[float]:
    return [255 * value for value in values]


def _as_dali_takes_it(numbers: np.ndarray) -> np.ndarray:
    return numbers.astype(np.int32) if numbers.dtype == bool else numbers


def path_bytes(path: str) -> np.ndarray:
    """A path as DALI takes it, uint8."""
    return np.frombuffer(os.fsencode(path), np.uint8)
