"""Small image sets, kept whole on the device as bytes and augmented there a batch at a time."""

import math
from collections.abc import Iterator, Mapping
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from sslticket.data.bad import BadImages
from sslticket.data.loader import Batch
from sslticket.data.manifest import Manifest
from sslticket.data.order import Order
from sslticket.data.painting import Finish
from sslticket.data.views import Draws, View


class ResidentLoader:
    """A `Loader` of images in memory."""

    def __init__(
        self,
        images: np.ndarray,
        manifest: Manifest,
        views: tuple[View, ...],
        order: Order,
        *,
        colours: tuple[tuple[float, ...], tuple[float, ...]],
        augment_seed: int,
        device: torch.device,
        channels_last: bool,
        bad: BadImages,
    ) -> None:
        """See `opening.loader`; `colours` are mean and standard deviation by channel, pixels from 0 to 1."""
        assert order.length == len(manifest), "the order is of another set of images"
        self._order, self._seed, self._bad, self._device = order, augment_seed, bad, device
        self._labels = torch.tensor(manifest.labels).to(device)
        # Only the subset's images go to the device, and only once, however many views are cut from them.
        pixels = torch.from_numpy(images[manifest.items]).to(device).permute(0, 3, 1, 2).contiguous()
        self._cutters = tuple(_cutter(view, pixels) for view in views)
        self._finish = Finish.of(*colours, device)
        self._format = torch.channels_last if channels_last else torch.contiguous_format

    @property
    def bad(self) -> Mapping[str, str]:
        """Images that could not be read, by path, and why."""
        return self._bad

    def train(self, start: int, stop: int) -> Iterator[Batch]:
        """This process's share of the augmented global batches `start` to `stop - 1`."""
        for step in range(start, stop):
            share = self._order.share
            yield self._batch(self._order.rows(step)[share], self._order.batch_size, share, step)

    def once(self) -> Iterator[Batch]:
        """This process's share of one pass over the set, in order; the last batch is short."""
        rows = np.arange(self._order.rank, self._order.length, self._order.world)
        each = self._order.batch_size // self._order.world
        for number, part in enumerate(np.split(rows, range(each, len(rows), each))):
            if len(part):
                yield self._batch(part, len(part), slice(None), f"once {number}")

    def _batch(self, rows: np.ndarray, drawn: int, share: slice, step: int | str) -> Batch:
        index = torch.from_numpy(rows).to(self._device)
        views = []
        for number, cutter in enumerate(self._cutters):
            draws = cutter.view.draw(drawn, self._seed, step, number).part(share)
            pixels = cutter(index, draws).contiguous(memory_format=self._format)
            views.append(self._finish(pixels, cutter.view, draws))
        return Batch(tuple(views), self._labels[index], index)


class _SquareCutter:
    """Cuts "center" and "pad" crops.

    Attributes:
        view: what it cuts.
    """

    def __init__(self, view: View, pixels: Tensor) -> None:
        """Takes the whole set's bytes, (N, C, H, W)."""
        self.view = view
        self._height, self._width = view.short_side(*pixels.shape[2:])
        pixels = _resized(pixels, self._height, self._width)
        pad = view.pad if view.crop == "pad" else 0
        self._margins = [pad + max(0, math.ceil((view.size - side) / 2) - pad) for side in (self._height, self._width)]
        top, left = self._margins
        padded = F.pad(pixels, (left, left, top, top))
        # Every window of every image, (N, tops, lefts, C, size, size), without a copy.
        self._windows = padded.unfold(2, view.size, 1).unfold(3, view.size, 1).permute(0, 2, 3, 1, 4, 5)

    def __call__(self, index: Tensor, draws: Draws) -> Tensor:
        """Bytes, (B, C, size, size)."""
        window = self.view.square_crop(self._height, self._width, draws)
        top, left = (
            torch.from_numpy(first + margin).to(index.device)
            for first, margin in zip((window.top, window.left), self._margins, strict=True)
        )
        crops = self._windows[index, top, left]
        if not self.view.flip:
            return crops
        flip = torch.from_numpy(draws.flip).to(index.device)
        return torch.where(flip[:, None, None, None], crops.flip(3), crops)


class _ResizedCutter:
    """Cuts "resized" crops: each is two small matrix products, with the triangle filter that antialiases.

    Attributes:
        view: what it cuts.
    """

    def __init__(self, view: View, pixels: Tensor) -> None:
        """Takes the whole set's bytes, (N, C, H, W)."""
        self.view, self._pixels = view, pixels

    def __call__(self, index: Tensor, draws: Draws) -> Tensor:
        """Whole numbers from 0 to 255 as float32, (B, C, size, size)."""
        height, width = (np.full(len(index), side) for side in self._pixels.shape[2:])
        window = self.view.resized_crop(height, width, draws)
        top, left, tall, wide = (torch.from_numpy(side).to(index.device) for side in window)
        down = _triangle(top, tall, self._pixels.shape[2], self.view.size)
        across = _triangle(left, wide, self._pixels.shape[3], self.view.size)
        flip = torch.from_numpy(draws.flip).to(index.device)
        across = torch.where(flip[:, None, None], across.flip(1), across)
        return (down[:, None] @ self._pixels[index].float() @ across.mT[:, None]).round_()


def _cutter(view: View, pixels: Tensor) -> _SquareCutter | _ResizedCutter:
    return _ResizedCutter(view, pixels) if view.crop == "resized" else _SquareCutter(view, pixels)


def _triangle(start: Tensor, length: Tensor, side: int, size: int) -> Tensor:
    """Weights that resize pixels `start` to `start + length` of a line of `side` to `size`, (B, size, side).

    The filter is PIL's and DALI's bilinear one: a triangle as wide as two output pixels when shrinking, else as two
    input pixels, cut off at the window's ends.
    """
    scale = (length / size)[:, None, None]
    place = torch.arange(side, device=start.device) - start[:, None, None]
    centre = (torch.arange(size, device=start.device)[:, None] + 0.5) * scale
    weights = (1 - (place + 0.5 - centre).abs() / scale.clamp(min=1)).clamp(min=0)
    weights *= (place >= 0) & (place < length[:, None, None])
    return weights / weights.sum(2, keepdim=True)


def _resized(pixels: Tensor, height: int, width: int) -> Tensor:
    """The whole set at another size, in bytes."""
    if pixels.shape[2:] == (height, width):
        return pixels
    resize = partial(F.interpolate, size=(height, width), mode="bilinear", antialias=True)
    # In parts, as the whole set in float32 might not fit.
    return torch.cat([resize(part.float()).round_().to(torch.uint8) for part in torch.split(pixels, 1024)])
