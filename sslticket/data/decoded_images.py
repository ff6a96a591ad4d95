"""Views cut out of decoded images on the host: bytes that torch resizes, and what is made of them for the network.

A batch is first what it is made of, then decoded images, then views. Several threads cut, each images of its own.
"""

import os
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from sslticket.data.augment import View, ViewParams
from sslticket.data.augment_ops import TransformAndNormalize, copy_to_device


class BatchSpec(NamedTuple):
    """What one batch is made of.

    Attributes:
        rows: Rows in the manifest, (B,) int64, handed through.
        params: The random numbers of each view.
        kept: The whole images that need no decoding, (H, W, C) uint8, by position in the batch.
        paths: Paths of the files of all other images, in their order.
        encoded: Each of those files' bytes, uint8, where they are not to be read from `paths`.
        kept_alive: What some of the paths lead to; held until the batch is there.
    """

    rows: np.ndarray
    params: tuple[ViewParams, ...]
    kept: Mapping[int, np.ndarray] = {}
    paths: Sequence[str] = ()
    encoded: list[np.ndarray] | None = None
    kept_alive: tuple[object, ...] = ()

    @property
    def missing(self) -> np.ndarray:
        """Positions in the batch of the images that are decoded, (M,) int64."""
        return np.array([position for position in range(len(self.rows)) if position not in self.kept], np.int64)

    @property
    def inputs(self) -> list[np.ndarray]:
        """What the pipeline is given for each image that it decodes: its bytes, or those of its path, uint8."""
        if self.encoded is not None:
            return self.encoded
        return [np.frombuffer(os.fsencode(path), np.uint8) for path in self.paths]


class Cut(NamedTuple):
    """Where a view lies in an image, in pixels of the image as it is after the view's `resize`.

    Attributes:
        top: First row; below 0 where the view reaches beyond the image, into black.
        left: First column, likewise.
        height: Rows.
        width: Columns.
        flip: Whether it is mirrored left to right.
    """

    top: int
    left: int
    height: int
    width: int
    flip: bool


def place_cuts(view: View, sizes: np.ndarray, params: ViewParams) -> list[Cut]:
    """Place a view in images.

    Args:
        view: The view.
        sizes: Height and width of the B images, (B, 2) int64.
        params: The random numbers of the B images.
    """
    if view.crop == "resized":
        window = view.resized_crop_windows(sizes[:, 0], sizes[:, 1], params)
        top, left, tall, wide = (side.tolist() for side in window)
        return list(map(Cut, top, left, tall, wide, params.flip.tolist()))
    cuts = []
    for row, (height, width) in enumerate(sizes.tolist()):
        own = params.slice_batch(slice(row, row + 1))
        top, left, tall, wide = (
            int(side[0]) for side in view.square_crop_windows(*view.resized_shape(height, width), own)
        )
        cuts.append(Cut(top, left, tall, wide, bool(own.flip[0])))
    return cuts


def cut_view(image: Tensor, view: View, cut: Cut) -> Tensor:
    """Cut a view out of an image: bytes become bytes, resized by torch as torchvision does it.

    Args:
        image: (H, W, C) uint8: the image, or for a "resized" crop whatever part of it `cut` is relative to.
        view: The view.
        cut: Where it lies.

    Returns:
        (C, size, size) uint8, which may share the memory of `image`.
    """
    pixels, (top, left, height, width, flip) = image.permute(2, 0, 1), cut
    if view.crop == "resized":
        pixels = _resize(pixels[:, top : top + height, left : left + width], view.size, view.size)
    else:
        pixels = _resize(pixels, *view.resized_shape(*pixels.shape[1:]))
        inside = pixels[:, max(top, 0) : max(top + height, 0), max(left, 0) : max(left + width, 0)]
        if inside.shape[1:] != (height, width):
            above, before = min(max(-top, 0), height), min(max(-left, 0), width)
            below, after = height - above - inside.shape[1], width - before - inside.shape[2]
            inside = F.pad(inside, (before, after, above, below))
        pixels = inside
    return pixels.flip(2) if flip else pixels


def _resize(pixels: Tensor, height: int, width: int) -> Tensor:
    if pixels.shape[1:] == (height, width):
        return pixels
    return F.interpolate(pixels[None], size=(height, width), mode="bilinear", antialias=True)[0]


class PixelWriter:
    """Writes bytes into a batch of float32, normalised or as they are; one thread does an image, and others may others.

    numpy does it, since torch would share out work as small as this among threads of its own.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Take mean and standard deviation by channel, of pixels from 0 to 1."""
        # In float32 from the start, and multiplied, as `TransformAndNormalize` does it.
        self._mean = (255 * np.array(mean)).astype(np.float32)
        self._scale = (1 / (255 * np.array(std))).astype(np.float32)

    def write(self, crop: Tensor, out: Tensor, *, normalise: bool) -> None:
        """Write a crop, (C, S, S) uint8, to `out`, (C, S, S) float32 on the host with any strides."""
        given, target = crop.numpy(), out.numpy()
        channels, height, width = given.shape
        if channels > 1 and not target.flags.c_contiguous:
            # Channels last: rows of pixels whose channels alternate, and so do their means.
            target = target.transpose(1, 2, 0)
            for channel in range(channels):
                target[..., channel] = given[channel]
            lines = target.reshape(height, width * channels)
            mean, scale = (np.tile(values, width) for values in (self._mean, self._scale))
        else:
            target[...] = given
            lines, mean, scale = target, self._mean[:, None, None], self._scale[:, None, None]
        if normalise:
            np.subtract(lines, mean, out=lines)
            np.multiply(lines, scale, out=lines)


class DecodedBatch(NamedTuple):
    """The images of a batch.

    Attributes:
        batch: What the batch is made of.
        images: Images by position, (H, W, C) uint8: whole, or the part that all views of an image lie in.
        cuts: Where each view lies in the whole image of each position; none as long as that is not known.
        parts: Whether of images that were not kept only the part is there.
    """

    batch: BatchSpec
    images: dict[int, Tensor]
    cuts: list[list[Cut]]
    parts: bool

    def place(self, views: Sequence[View], sizes: np.ndarray) -> None:
        """Place the views; images that are not there yet have the height and width that are known of their rows."""
        own = [
            self.images[position].shape[:2] if position in self.images else sizes[row]
            for position, row in enumerate(self.batch.rows)
        ]
        for view, params in zip(views, self.batch.params, strict=True):
            self.cuts.append(place_cuts(view, np.array(own, np.int64), params))

    def bounds(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the smallest windows that hold all views of these images: top and left, height and width, (P, 2)."""
        windows = np.array([[cuts[position][:4] for position in positions] for cuts in self.cuts], np.int32)
        start = windows[..., :2].min(axis=0)
        return start, (windows[..., :2] + windows[..., 2:]).max(axis=0) - start

    def cuts_within(self, position: int) -> list[Cut]:
        """Return where each view of an image lies in what of it is there."""
        cuts = [cuts[position] for cuts in self.cuts]
        if not self.parts or position in self.batch.kept:
            return cuts
        if len(cuts) == 1:
            return [cuts[0]._replace(top=0, left=0)]
        top, left = min(cut.top for cut in cuts), min(cut.left for cut in cuts)
        return [cut._replace(top=cut.top - top, left=cut.left - left) for cut in cuts]


_ROWS_AT_ONCE = 8  # images that a thread cuts views out of before it takes others


class ViewCutter:
    """Cuts the views of batches out of their images, transforms and normalises them."""

    def __init__(
        self,
        views: Sequence[View],
        mean: tuple[float, ...],
        std: tuple[float, ...],
        device: torch.device,
        pool: ThreadPoolExecutor,
        *,
        channels_last: bool,
    ) -> None:
        """Prepare; for the arguments see `FileDecoder`.

        Args:
            views: What is cut from each image.
            mean: Mean by channel.
            std: Standard deviation by channel.
            device: Where the views are wanted.
            pool: Threads that cut.
            channels_last: Memory format of the views.
        """
        self._views, self._device, self._pool, self._channels = views, device, pool, len(mean)
        self._format = torch.channels_last if channels_last else torch.contiguous_format
        self._transform, self._writer = TransformAndNormalize.from_mean_std(mean, std, device), PixelWriter(mean, std)
        # To another device go bytes, a quarter of what they become there.
        self._dtype = torch.float32 if device.type == "cpu" else torch.uint8
        self._in_threads = [device.type == "cpu" and self._transform.runs_in_threads(view) for view in views]

    def begin(self, decoded: DecodedBatch, keep: Callable[[int, np.ndarray], None] | None) -> "CutBatch":
        """Begin to cut the views of a batch.

        Args:
            decoded: The batch.
            keep: Takes the row and the pixels of each image that was decoded.
        """
        count = len(decoded.batch.rows)
        shapes = [(count, self._channels, view.size, view.size) for view in self._views]
        views = [torch.empty(shape, dtype=self._dtype, memory_format=self._format) for shape in shapes]
        chunks = (range(first, min(first + _ROWS_AT_ONCE, count)) for first in range(0, count, _ROWS_AT_ONCE))
        cutting = [self._pool.submit(self._cut, decoded, positions, views, keep) for positions in chunks]
        return CutBatch(decoded, views, cutting)

    def _cut(
        self,
        decoded: DecodedBatch,
        positions: range,
        views: list[Tensor],
        keep: Callable[[int, np.ndarray], None] | None,
    ) -> None:
        for position in positions:
            image = decoded.images[position]
            for number, (view, cut) in enumerate(zip(self._views, decoded.cuts_within(position), strict=True)):
                crop, out = cut_view(image, view, cut), views[number][position]
                if self._dtype == torch.uint8:
                    out.numpy()[...] = crop.numpy()
                elif self._in_threads[number]:
                    own = decoded.batch.params[number].slice_batch(slice(position, position + 1))
                    self._transform.write(crop[None], out[None], view, own)
                else:
                    self._writer.write(crop, out, normalise=not view.transforms)
            if keep is not None and position not in decoded.batch.kept:
                keep(int(decoded.batch.rows[position]), image.numpy())

    def finish(self, batch: "CutBatch") -> tuple[tuple[Tensor, ...], np.ndarray]:
        """Wait until a batch's views are cut, and return them, (B, C, H, W) float32 each, with its rows, (B,) int64."""
        for done in batch.cutting:
            done.result()
        found = []
        for number, (view, pixels) in enumerate(zip(self._views, batch.views, strict=True)):
            own = batch.decoded.batch.params[number]
            if self._dtype == torch.uint8:
                found.append(self._transform(copy_to_device(pixels, self._device), view, own))
                continue
            if view.transforms and not self._in_threads[number]:
                self._transform.write(pixels, pixels, view, own)
            found.append(pixels)
        return tuple(found), batch.decoded.batch.rows


class CutBatch(NamedTuple):
    """A batch whose views are being cut.

    Attributes:
        decoded: Its images.
        views: Memory of the views, which threads fill.
        cutting: What they have yet to do.
    """

    decoded: DecodedBatch
    views: list[Tensor]
    cutting: list[Future[None]]


class HostParts(NamedTuple):
    """What decoding on the host is given by its loader, which has it for as long as it lives.

    Attributes:
        pool: Threads that cut views out of images.
        sizes: Height and width of every image of the manifest, (N, 2) int32; 0 until they are known.
        keep: Takes the row of each image that was decoded, and the image whole; None where nothing is kept.
    """

    pool: ThreadPoolExecutor
    sizes: np.ndarray
    keep: Callable[[int, np.ndarray], None] | None = None


@dataclass(frozen=True)
class FileDecoder(ABC):
    """How image files become tensors.

    Attributes:
        views: What is cut from each image.
        mean: Mean by channel, pixels from 0 to 1.
        std: Standard deviation by channel, pixels from 0 to 1.
        device: Where the tensors are wanted.
        threads: Threads for reading and decoding.
        channels_last: Memory format of the tensors.
        encoded: Whether a batch spec holds the images' bytes; else they are read from its paths.
    """

    views: tuple[View, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    device: torch.device
    threads: int
    channels_last: bool = False
    encoded: bool = False

    @abstractmethod
    def run(
        self, get_batch: Callable[[int], BatchSpec], count: int, largest: int, parts: HostParts
    ) -> Iterator[tuple[tuple[Tensor, ...], np.ndarray]]:
        """Yield the views, (B, C, H, W) float32 each, and rows, (B,) int64, of the batches 0 to `count - 1`.

        Args:
            get_batch: What a batch is made of; called ahead of time, and each may be of another size.
            count: Number of batches.
            largest: Images in the largest batch.
            parts: What decoding on the host needs.

        Raises:
            RuntimeError: At the first batch that has an image which cannot be read.
        """

    @abstractmethod
    def refused(self, inputs: Sequence[np.ndarray]) -> list[int]:
        """Find the positions of those images that are not decoded, among the `inputs` of a batch spec."""

    @abstractmethod
    def peek_sizes(self, inputs: Sequence[np.ndarray]) -> np.ndarray:
        """Return height and width of images, upright, (N, 2), which are among the `inputs` of a batch spec.

        Raises:
            RuntimeError: If one of them has none.
        """

    @property
    @abstractmethod
    def rules(self) -> str:
        """What decides which pixels an image has, besides its bytes: the decoder's name and version."""

    @property
    def decodes_on_gpu(self) -> bool:
        """Whether a GPU decodes the images, and then makes the views."""
        return False


class Decoding(Protocol):
    """Decodes on the host, a batch ahead: whole images, or the part that all views of an image lie in."""

    def start(self, batch: BatchSpec) -> DecodedBatch:
        """Begin to decode what of a batch is not kept, one batch at a time.

        Raises:
            RuntimeError: If one of the images has no size.
        """

    def finish(self, decoded: DecodedBatch) -> DecodedBatch:
        """Wait for what was begun last.

        Raises:
            RuntimeError: If one of the images cannot be read.
        """


def cut_decoded(
    decoding: Decoding, decoder: FileDecoder, get_batch: Callable[[int], BatchSpec], count: int, parts: HostParts
) -> Iterator[tuple[tuple[Tensor, ...], np.ndarray]]:
    """Yield batches whose images the host decodes, and whose views are cut from them; see `FileDecoder.run`."""
    cutting, failure = deque[CutBatch](), None
    cutter = ViewCutter(
        decoder.views, decoder.mean, decoder.std, decoder.device, parts.pool, channels_last=decoder.channels_last
    )
    started = decoding.start(get_batch(0)) if count else None
    for number in range(count + 1):
        # While the batch before is used, this one is cut and the next one is decoded.
        try:
            if started is not None:
                decoded, started = decoding.finish(started), None
                cutting.append(cutter.begin(decoded, parts.keep))
                if number + 1 < count:
                    started = decoding.start(get_batch(number + 1))
        except RuntimeError as error:
            failure, started = error, None
        while cutting and (len(cutting) > 1 or started is None):
            yield cutter.finish(cutting.popleft())
        if failure is not None:
            raise failure
