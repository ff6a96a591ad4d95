"""The gate of supermasks and Iterative Stochastic Sparsification: a coin for each weight."""

import torch
from torch import Tensor

from sslticket.masking.gates.base import LearntGate


class StochasticGate(LearntGate):
    """Multiplies a weight by m ~ Bernoulli(sigma(s)) in training (Zhou et al. 2019) and [sigma(s) > 0.5] in evaluation.

    Coins are thrown once for an optimiser step: all processes, accumulated parts and views of it share a mask, so that
    two views of an image are seen by one network. The gradient of m goes straight through to sigma(s).

    Args:
        weight: that it is for.
        initial: s_0, the score of every entry.
    """

    drawn: Tensor

    def __init__(self, weight: Tensor, *, initial: float) -> None:
        super().__init__(weight, torch.full_like(weight, initial))
        self._initial = initial
        self.register_buffer("drawn", torch.ones_like(weight), persistent=False)

    def begin(self, progress: float, seed: int) -> None:
        """See the base class: coins are thrown."""
        self.drawn.copy_(self.sample(seed))

    @torch.no_grad()
    def sample(self, seed: int) -> Tensor:
        """A mask m ~ Bernoulli(sigma(s)), bool in the weight's shape."""
        device = self.score.device
        generator = torch.Generator(device).manual_seed(seed)
        # Drawn in the order of rows whatever the memory layout: that may not change which weights are kept.
        coins = torch.rand(self.score.shape, generator=generator, device=device, dtype=self.score.dtype)
        return (coins < torch.sigmoid(self.score)) & (self.mask > 0)

    def trained(self) -> Tensor:
        """See the base class: the mask drawn for this step, whose gradient is that of sigma(s)."""
        likely = self.likely()
        return self.drawn + (likely - likely.detach())

    def chosen(self) -> Tensor:
        """See the base class: [sigma(s) > 0.5], which is [s > 0]."""
        return (self.score > 0) & (self.mask > 0)

    def likely(self) -> Tensor:
        """See the base class: sigma(s)."""
        return torch.sigmoid(self.score) * self.mask

    @torch.no_grad()
    def survivors(self) -> Tensor:
        """Entries that stay when those whose score fell below s_0 go for good (Algorithm 2, step 4), bool."""
        return (self.score >= self._initial) & (self.mask > 0)
