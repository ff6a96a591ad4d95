"""Erdos-Renyi-kernel: random weights in layers whose densities follow from their shapes (Evci et al. 2020)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from sslticket.errors import BadInput
from sslticket.masking import gate
from sslticket.masking.criteria.base import Criterion, Scores, Subject
from sslticket.masking.criteria.random import drawn_from


@dataclass(frozen=True)
class ERK(Criterion):
    """Layers of densities min(1, e (in + out + kh + kw) / (in out kh kw)), e such that the total is met.

    (Mocanu et al. 2018; with kernels Evci et al. 2020, section 3.) Which weights of a layer remain is
    chance. A weight's score is its layer's fraction over its own random rank q, evenly spaced in (0, 1): the scores
    above any threshold t are those of rank below fraction / t, a share min(1, fraction / t) of the layer. So one global
    selection finds e = 1 / t, caps what would be more than all of a layer, and keeps the exact total.
    """

    def check(self, scope: str, logits: bool) -> None:
        """See the base class; layers that are ranked on their own would all have the same density."""
        if scope == "layer":
            raise BadInput("ERK gives each layer a density of its own; give --scope global, or Random() for equal ones")

    def scores(self, subject: Subject, names: Sequence[str]) -> Scores:
        """See the base class."""
        stored = gate.stored(subject.backbone)
        return {name: _scores(stored[name].shape, drawn_from(subject.seed, name)) for name in names}


def _scores(shape: torch.Size, generator: torch.Generator) -> torch.Tensor:
    count = shape.numel()
    rank = (torch.randperm(count, generator=generator).double() + 0.5) / count
    return (sum(shape) / count / rank).view(shape)
