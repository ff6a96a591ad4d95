"""Scores by which weights are kept; a criterion only scores, `Mask.top` selects."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor


class Criterion(ABC):
    """A way to score weights; a frozen dataclass of hyper-parameters."""

    @abstractmethod
    def scores(self, trained: Mapping[str, Tensor], names: Sequence[str]) -> dict[str, Tensor]:
        """A score for every weight of the named tensors, in their shapes; the highest are kept.

        Args:
            trained: the backbone's parameters and buffers at the end of a training, under clean names.
            names: of the prunable weights.
        """


@dataclass(frozen=True)
class Magnitude(Criterion):
    """|w| of the trained weights (Han et al. 2015; Frankle & Carbin 2019)."""

    def scores(self, trained: Mapping[str, Tensor], names: Sequence[str]) -> dict[str, Tensor]:
        """See the base class."""
        return {name: trained[name].abs() for name in names}
