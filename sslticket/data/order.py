"""Which images make up a global batch: a pure function of the seed and the step."""

from collections.abc import Container
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np

from sslticket.errors import BadInput
from sslticket.randomness import derive, generator


@lru_cache(maxsize=4)
def _permutation(length: int, seed: int, epoch: int) -> np.ndarray:
    return generator(seed, "epoch", epoch).permutation(length)


class Labelled(NamedTuple):
    """The labelled stream of a set with two: the set's first `length` rows, which fill `share` of every batch."""

    length: int
    share: float

    def epoch(self, batch_size: int) -> int:
        """Samples of both streams that are seen while the labelled images are seen once."""
        return max(1, round(self.length * batch_size / self.places(batch_size)))

    def places(self, batch_size: int) -> int:
        """Labelled images in a global batch: a fixed count, at least one and not all."""
        return min(max(1, round(self.share * batch_size)), batch_size - 1)


@dataclass(frozen=True)
class Order:
    """The endless stream of shuffled epochs, cut into global batches; batches may straddle two epochs.

    With a labelled stream there are two such streams, each with epochs of its own: the set's first rows, and the rows
    after them. Their images lie interleaved in a batch, so every process, and every part of its share, has both.

    Attributes:
        length: images in the training set.
        batch_size: images in a global batch, all processes together.
        seed: of the `order` stream.
        rank: this process's number, from 0.
        world: number of processes; must divide the batch.
        labelled: where some rows are a stream of their own.
    """

    length: int
    batch_size: int
    seed: int
    rank: int = 0
    world: int = 1
    labelled: Labelled | None = None

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.batch_size % self.world:
            raise BadInput(
                f"a global batch of {self.batch_size} cannot be shared by {self.world} processes; "
                f"give --batch-size a multiple of {self.world}"
            )

    @property
    def share(self) -> slice:
        """The places in the global batch that this process loads."""
        each = self.batch_size // self.world
        return slice(self.rank * each, (self.rank + 1) * each)

    def rows(self, step: int) -> np.ndarray:
        """Manifest rows of global batch `step`, (batch_size,) int64, the same for every rank and world size."""
        rows = np.empty(self.batch_size, np.int64)
        for stream in self._streams:
            rows[stream.places] = stream.rows(step * len(stream.places), (step + 1) * len(stream.places))
        return rows

    def stand_in(self, step: int, place: int, bad: Container[int]) -> int:
        """The row that takes a bad row's place in a batch: the next of its stream that is not bad."""
        stream = next(stream for stream in self._streams if place in stream.places)
        within = step * len(stream.places) + int(np.searchsorted(stream.places, place))
        for later in range(within + 1, within + 1 + 2 * stream.length):  # every row is within two epochs
            row = int(stream.rows(later, later + 1)[0])
            if row not in bad:
                return row
        raise BadInput(f"none of the {stream.length} images of one stream can be read; repair them")

    @cached_property
    def _streams(self) -> tuple["_Stream", ...]:
        every = np.arange(self.batch_size)
        if self.labelled is None:
            return (_Stream(0, self.length, self.seed, every),)
        first, of_batch = self.labelled.length, self.labelled.places(self.batch_size)
        # Spread evenly: place i is labelled where i * share passes a whole number.
        is_first = (every + 1) * of_batch // self.batch_size > every * of_batch // self.batch_size
        return (
            _Stream(0, first, derive(self.seed, "labelled"), np.flatnonzero(is_first)),
            _Stream(first, self.length - first, self.seed, np.flatnonzero(~is_first)),
        )


@dataclass(frozen=True, eq=False)
class _Stream:
    """Shuffled epochs of the rows from `first` on, which fill these places of every batch."""

    first: int
    length: int
    seed: int
    places: np.ndarray

    def rows(self, start: int, stop: int) -> np.ndarray:
        epochs, within = np.divmod(np.arange(start, stop), self.length)
        rows = np.empty(stop - start, np.int64)
        for epoch in range(int(epochs[0]), int(epochs[-1]) + 1):
            here = epochs == epoch
            rows[here] = self.first + _permutation(self.length, self.seed, epoch)[within[here]]
        return rows
