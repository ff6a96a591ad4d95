"""A gate of one's own: the hard concrete mask of Louizos et al. 2018, section 2.2, https://arxiv.org/abs/1712.01312.

Run       sslticket run supervised_digits --search MaskTraining --gate examples/hard_concrete.py:HardConcrete
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from sslticket.pruning.gates import GateSettings, LearnedGate, StochasticGate


class HardConcreteGate(StochasticGate):
    """A stretched sigmoid of noise and score, cut to [0, 1]; beta = 2/3, gamma = -0.1, zeta = 1.1 (section 4)."""

    noise = torch.zeros(())

    def on_step(self, progress: float, seed: int) -> None:
        """Sample the noise of this step."""
        generator = torch.Generator(self.score.device).manual_seed(seed)
        self.noise = torch.rand(self.score.shape, generator=generator, device=self.score.device).logit(1e-6)

    def soft_mask(self) -> Tensor:
        """See the base class."""
        return (torch.sigmoid((self.noise + self.score) * 1.5) * 1.2 - 0.1).clamp(0, 1) * self.mask

    def keep_prob(self) -> Tensor:
        """The probability that the mask is not 0 (equation 12)."""
        return torch.sigmoid(self.score + 1.6) * self.mask


@dataclass(frozen=True)
class HardConcrete(GateSettings):
    """Makes a `HardConcreteGate` for each weight."""

    def build(self, weight: Tensor, initial_score: float) -> LearnedGate:
        """See the base class."""
        return HardConcreteGate(weight, initial=initial_score)
