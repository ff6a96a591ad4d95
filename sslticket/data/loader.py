"""What the training loop sees of the data: batches, whichever loader makes them."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple, Protocol

import torch
from torch import Tensor


class Batch(NamedTuple):
    """Some images, this process's share of a global batch, on the training device."""

    views: tuple[Tensor, ...]  # each (B, C, H, W) float32, normalised
    label: Tensor  # (B,) int64, -1 = label hidden
    row: Tensor  # (B,) int64, row in the manifest

    def chunks(self, count: int) -> Iterator["Batch"]:
        """The batch in `count` parts, for gradient accumulation."""
        parts = [torch.chunk(view, count) for view in self.views]
        for views, label, row in zip(
            zip(*parts, strict=True), self.label.chunk(count), self.row.chunk(count), strict=True
        ):
            yield Batch(views, label, row)


class Loader(Protocol):
    """A source of batches. Augmentation and order depend on seeds and steps alone, so any step can be started at."""

    @property
    def bad(self) -> Mapping[str, str]:
        """Images that could not be read, by path or name, and why."""

    def train(self, start: int, stop: int) -> Iterator[Batch]:
        """This process's share of the augmented global batches `start` to `stop - 1`."""

    def once(self) -> Iterator[Batch]:
        """This process's share of one pass over the set in its own order, every image once; the last batch is short."""
