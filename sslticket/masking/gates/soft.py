"""The gate of Continuous Sparsification: a sigmoid that is heated until it is a step."""

import math

import torch
from torch import Tensor

from sslticket.masking.gates.base import LearntGate


class SoftGate(LearntGate):
    """Multiplies a weight by sigma(beta s) in training and by b(s) = [s > 0] in evaluation (Savarese et al. 2019).

    The temperature beta rises from 1 by powers of the final one: beta_T ** progress (section 4.1).

    Args:
        weight: that it is for.
        initial: s_0, the score of every entry.
        final_temperature: beta_T.
        stairs: the temperature rises in so many steps of equal length, the last of them at beta_T, in place of a little
            at every optimiser step.
        divided: the mask is divided by sigma(s_0), as in the released code: at first the network is the plain one.
    """

    temperature: Tensor

    def __init__(
        self, weight: Tensor, *, initial: float, final_temperature: float, stairs: int | None, divided: bool
    ) -> None:
        super().__init__(weight, torch.full_like(weight, initial))
        # A tensor, since compiled code would be compiled anew for every other number.
        self.register_buffer("temperature", torch.ones((), dtype=weight.dtype), persistent=False)
        self._initial, self._final, self._stairs = initial, final_temperature, stairs
        self.scale = 1 + math.exp(-initial) if divided else 1.0

    def begin(self, progress: float, seed: int) -> None:
        """See the base class; nothing is drawn."""
        if self._stairs is not None:
            # Steps of a round divide into stairs without a remainder only on paper: 3 / 10 * 10 is not 3.
            progress = math.floor(progress * self._stairs + 1e-9) / (self._stairs - 1)
        self.temperature.fill_(self._final**progress)

    def trained(self) -> Tensor:
        """See the base class: sigma(beta s), divided or not."""
        soft = torch.sigmoid(self.temperature * self.score) * self.mask
        return soft if self.scale == 1 else soft * self.scale

    def penalty(self) -> Tensor:
        """The sum of the mask as it is now, a scalar: of the divided one where it is divided."""
        return self.trained().sum()

    def chosen(self) -> Tensor:
        """See the base class: b(s)."""
        return (self.score > 0) & (self.mask > 0)

    def likely(self) -> Tensor:
        """See the base class: sigma(beta_T s)."""
        return torch.sigmoid(self._final * self.score) * self.mask

    @torch.no_grad()
    def reset(self, *, scaled: bool) -> None:
        """Make kept entries learnable again: s <- min(beta_T s, s_0) (Algorithm 3, step 4).

        Args:
            scaled: by beta_T; else min(s, s_0), which is what the released code comes to.
        """
        self.score.mul_(self._final if scaled else 1.0).clamp_(max=self._initial)
