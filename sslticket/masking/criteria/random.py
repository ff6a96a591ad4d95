"""Chance: what any other criterion has to beat."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from sslticket.masking import gate
from sslticket.masking.criteria.base import Criterion, Scores, Subject
from sslticket.randomness import derive


@dataclass(frozen=True)
class Random(Criterion):
    """Uniform random numbers: every layer keeps about the same share; with `scope="layer"` exactly the same.

    The same in every round and level of a search, so that its masks nest.
    """

    def scores(self, subject: Subject, names: Sequence[str]) -> Scores:
        """See the base class."""
        stored = gate.stored(subject.backbone)
        return {
            # Of float32's 2^24 values a large network would have many twice, and ties go to the earlier weight.
            name: torch.rand(stored[name].shape, dtype=torch.float64, generator=drawn_from(subject.seed, name))
            for name in names
        }


def drawn_from(seed: int, name: str) -> torch.Generator:
    """Random numbers on the CPU, the same on every machine, of their own for each layer."""
    return torch.Generator().manual_seed(derive(seed, "random scores", name))
