"""What a gate is: one that keeps a fixed mask, and what gates that learn theirs have in common."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

UNDECIDED = (0.05, 0.95)
"""A soft mask between these at the end of a round has neither removed its weight nor kept it; our bounds."""


class Gate(nn.Module):
    """Stands before one weight.

    Attributes:
        mask: 1 or 0 in the weight's shape; where it is 0 the weight is pruned for good.
    """

    mask: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        # Kept in the weight's own dtype: a bool would be converted again in every forward.
        self.register_buffer("mask", torch.ones_like(weight), persistent=False)


class HardGate(Gate):
    """Multiplies a weight by a fixed binary mask, so that pruned entries have no value and no gradient."""

    def forward(self, weight: Tensor) -> Tensor:
        """The weight with its pruned entries at exactly 0, same shape."""
        return weight * self.mask


class LearntGate(Gate, ABC):
    """Learns by its scores which entries of a weight to keep.

    In training the weight meets whatever lets gradients reach the scores; in evaluation it meets the binary mask that
    the scores stand for, so every measurement is one of the sparse network.

    Attributes:
        score: one number for each entry of the weight; a trained parameter.
        scale: what a binary mask is multiplied by in evaluation.
    """

    scale: float = 1.0

    def __init__(self, weight: Tensor, score: Tensor) -> None:
        super().__init__(weight)
        self.score = nn.Parameter(score)

    def forward(self, weight: Tensor) -> Tensor:
        """The weight as the network sees it, same shape."""
        return weight * (self.trained() if self.training else self.chosen() * self.scale)

    @abstractmethod
    def begin(self, progress: float, seed: int) -> None:
        """Make ready for one optimiser step.

        Args:
            progress: of the round, from 0 at its first step towards 1.
            seed: of whatever is drawn; the same in every process, another at every step and for every weight.
        """

    @abstractmethod
    def trained(self) -> Tensor:
        """The mask in training, in the weight's shape; gradients reach the scores."""

    @abstractmethod
    def chosen(self) -> Tensor:
        """The binary mask that the scores stand for now, bool in the weight's shape."""

    @abstractmethod
    def likely(self) -> Tensor:
        """How surely each entry is kept at the end of a round, in [0, 1]; the penalty of some searches sums this."""

    def penalty(self) -> Tensor:
        """The sum of the mask as it is penalised in training, a scalar; gradients reach the scores."""
        return self.likely().sum()

    @property
    def undecided(self) -> int:
        """Entries that the end of a round would leave neither removed nor kept."""
        low, high = UNDECIDED
        value = self.likely()
        return int(((value > low) & (value < high) & (self.mask > 0)).sum())
