"""What a net needs to learn a mask beside its weights, or in place of them."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from sslticket.fit import Optimizer
from sslticket.masking.gates.base import LearntGate

PENALTY = "penalty"
"""Name of the loss term that makes masks sparse; it is no part of the loss that is watched and told."""


@dataclass(frozen=True, kw_only=True)
class Learning:
    """How masks are learnt.

    Attributes:
        gate: makes the gate of a weight.
        optimizer: of the scores; its learning rate follows the schedule of the weights' in proportion.
        penalty: lambda, the weight of the sum of all masks in the loss.
        frozen: weights and heads stay as they were drawn, and only scores are trained; the statistics of batch norm are
            estimated as always.
        masked_head: the classification layer is drawn and masked as every other layer is.
    """

    gate: Callable[[Tensor], LearntGate]
    optimizer: Optimizer
    penalty: float = 0.0
    frozen: bool = False
    masked_head: bool = False
