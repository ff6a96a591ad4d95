"""Gates: modules that stand between one weight and the layer that uses it, with a fixed mask or one that is learned."""

import math
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


class LearnedGate(Gate, ABC):
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
        return weight * (self.soft_mask() if self.training else self.hard_mask() * self.scale)

    @abstractmethod
    def on_step(self, progress: float, seed: int) -> None:
        """Make ready for one optimiser step.

        Args:
            progress: of the round, from 0 at its first step towards 1.
            seed: of whatever is drawn; the same in every process, another at every step and for every weight.
        """

    @abstractmethod
    def soft_mask(self) -> Tensor:
        """The mask in training, in the weight's shape; gradients reach the scores."""

    @abstractmethod
    def hard_mask(self) -> Tensor:
        """The binary mask that the scores stand for now, bool in the weight's shape."""

    @abstractmethod
    def keep_prob(self) -> Tensor:
        """How surely each entry is kept at the end of a round, in [0, 1]; the penalty of some searches sums this."""

    def penalty(self) -> Tensor:
        """The sum of the mask as it is penalised in training, a scalar; gradients reach the scores."""
        return self.keep_prob().sum()

    @property
    def num_undecided(self) -> int:
        """Entries that the end of a round would leave neither removed nor kept."""
        low, high = UNDECIDED
        value = self.keep_prob()
        return int(((value > low) & (value < high) & (self.mask > 0)).sum())


class SoftGate(LearnedGate):
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

    def on_step(self, progress: float, seed: int) -> None:
        """See the base class; nothing is drawn."""
        if self._stairs is not None:
            # Steps of a round divide into stairs without a remainder only on paper: 3 / 10 * 10 is not 3.
            progress = math.floor(progress * self._stairs + 1e-9) / (self._stairs - 1)
        self.temperature.fill_(self._final**progress)

    def soft_mask(self) -> Tensor:
        """See the base class: sigma(beta s), divided or not."""
        soft = torch.sigmoid(self.temperature * self.score) * self.mask
        return soft if self.scale == 1 else soft * self.scale

    def penalty(self) -> Tensor:
        """The sum of the mask as it is now, a scalar: of the divided one where it is divided."""
        return self.soft_mask().sum()

    def hard_mask(self) -> Tensor:
        """See the base class: b(s)."""
        return (self.score > 0) & (self.mask > 0)

    def keep_prob(self) -> Tensor:
        """See the base class: sigma(beta_T s)."""
        return torch.sigmoid(self._final * self.score) * self.mask

    @torch.no_grad()
    def reset_scores(self, *, scaled: bool) -> None:
        """Make kept entries learnable again: s <- min(beta_T s, s_0) (Algorithm 3, step 4).

        Args:
            scaled: by beta_T; else min(s, s_0), which is what the released code comes to.
        """
        self.score.mul_(self._final if scaled else 1.0).clamp_(max=self._initial)


class StochasticGate(LearnedGate):
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

    def on_step(self, progress: float, seed: int) -> None:
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

    def soft_mask(self) -> Tensor:
        """See the base class: the mask drawn for this step, whose gradient is that of sigma(s)."""
        likely = self.keep_prob()
        return self.drawn + (likely - likely.detach())

    def hard_mask(self) -> Tensor:
        """See the base class: [sigma(s) > 0.5], which is [s > 0]."""
        return (self.score > 0) & (self.mask > 0)

    def keep_prob(self) -> Tensor:
        """See the base class: sigma(s)."""
        return torch.sigmoid(self.score) * self.mask

    @torch.no_grad()
    def surviving_entries(self) -> Tensor:
        """Entries that stay when those whose score fell below s_0 go for good (Algorithm 2, step 4), bool."""
        return (self.score >= self._initial) & (self.mask > 0)
