"""Seeds: every stream of random numbers is derived from one seed and from what the stream is for.

Nothing here keeps state: a stream is a pure function of its seed and its path, so a resumed run, a run on more
processes and an uninterrupted run use the same numbers.
"""

import hashlib
from dataclasses import dataclass

import numpy as np


def derive_seed(seed: int, *path: str | int) -> int:
    """A 63-bit seed for the stream that `path` names, for instance `derive(seed, "order", epoch)`."""
    text = "/".join(map(str, (seed, *path)))
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()[:8]) >> 1


def seeded_generator(seed: int, *path: str | int) -> np.random.Generator:
    """A fresh numpy generator for the stream that `path` names."""
    return np.random.default_rng(derive_seed(seed, *path))


@dataclass(frozen=True)
class Seeds:
    """One seed for each thing that chance decides; `dataclasses.replace` varies one alone."""

    init: int
    order: int
    augment: int
    labels: int
    subset: int

    @classmethod
    def from_seed(cls, seed: int) -> "Seeds":
        """All five, derived from a recipe's or a protocol's one seed."""
        return cls(*(derive_seed(seed, name) for name in ("init", "order", "augment", "labels", "subset")))
