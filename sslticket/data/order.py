"""Which images make up a global batch: a pure function of the seed and the step."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from sslticket.errors import BadInput
from sslticket.randomness import generator


@lru_cache(maxsize=4)
def _permutation(length: int, seed: int, epoch: int) -> np.ndarray:
    return generator(seed, "epoch", epoch).permutation(length)


@dataclass(frozen=True)
class Order:
    """The endless stream of shuffled epochs, cut into global batches; batches may straddle two epochs.

    Attributes:
        length: images in the training set.
        batch_size: images in a global batch, all processes together.
        seed: of the `order` stream.
        rank: this process's number, from 0.
        world: number of processes; must divide the batch.
    """

    length: int
    batch_size: int
    seed: int
    rank: int = 0
    world: int = 1

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
        places = np.arange(step * self.batch_size, (step + 1) * self.batch_size)
        epochs, within = np.divmod(places, self.length)
        rows = np.empty_like(places)
        for epoch in range(int(epochs[0]), int(epochs[-1]) + 1):
            here = epochs == epoch
            rows[here] = _permutation(self.length, self.seed, epoch)[within[here]]
        return rows
