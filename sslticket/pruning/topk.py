"""The gate of edge-popup: the highest scores of a layer."""

import math

import torch
from torch import Tensor, nn

from sslticket.pruning.gates import LearnedGate
from sslticket.pruning.mask import num_kept


def num_kept_in_layer(size: int, density: float) -> int:
    """How many of a layer's weights are kept, at least one."""
    return max(1, num_kept(size, density))


class TopKGate(LearnedGate):
    """Keeps the entries of a weight with the highest |s|, a fixed share of them (Ramanujan et al. 2020, section 3.2).

    The mask's gradient goes straight through to |s|, whether an entry is kept or not, so that one that is not may come
    up. Scores are drawn as the paper's code draws them, uniformly within 1 / sqrt(fan-in), from torch's generator.

    Args:
        weight: that it is for.
        density: the share that is kept; round(size * density) entries, at least one.
    """

    drawn: Tensor

    def __init__(self, weight: Tensor, *, density: float) -> None:
        scores = torch.empty_like(weight)
        nn.init.kaiming_uniform_(scores, a=math.sqrt(5))
        super().__init__(weight, scores)
        self._keep = num_kept_in_layer(weight.numel(), density)
        self.register_buffer("drawn", torch.ones_like(weight), persistent=False)

    def on_step(self, progress: float, seed: int) -> None:
        """See the base class; nothing is drawn, but the highest are found once for all views and parts of the step."""
        self.drawn.copy_(self.hard_mask())

    def soft_mask(self) -> Tensor:
        """See the base class: the binary mask, whose gradient is that of |s|."""
        size = self.score.abs() * self.mask
        return self.drawn + (size - size.detach())

    @torch.no_grad()
    def hard_mask(self) -> Tensor:
        """See the base class; ties go to the earlier entry."""
        size = self.score.abs().where(self.mask > 0, -1.0).flatten()
        threshold = size.topk(self._keep, sorted=False).values.min()
        above, tied = size > threshold, size == threshold
        earliest = tied & (tied.cumsum(0) <= self._keep - above.sum())
        return (above | earliest).view(self.score.shape) & (self.mask > 0)

    def keep_prob(self) -> Tensor:
        """See the base class: 1 or 0, there is no doubt."""
        return self.hard_mask().to(self.score.dtype)
