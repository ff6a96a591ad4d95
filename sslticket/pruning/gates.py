"""Gates: modules that stand between one weight and the layer that uses it, with a fixed mask or one that is learned."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sslticket.pruning.mask import num_kept

UNDECIDED = (0.05, 0.95)
"""A soft mask between these at the end of a round has neither removed its weight nor kept it; our bounds."""


class Gate(nn.Module):
    """A module through which one weight passes before its layer uses it.

    Args:
        weight: The weight that the gate is for.

    Attributes:
        mask: A buffer of 1 and 0 in the weight's shape; where it is 0 the weight is pruned for good.
    """

    mask: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        # Kept in the weight's own dtype: a bool would be converted again in every forward.
        self.register_buffer("mask", torch.ones_like(weight), persistent=False)


class HardGate(Gate):
    """Multiplies a weight by a fixed binary mask, so that pruned entries have no value and no gradient."""

    def forward(self, weight: Tensor) -> Tensor:
        """The weight with its pruned entries at exactly 0, in its shape."""
        return weight * self.mask


class LearnedGate(Gate, ABC):
    """Learns by its scores which entries of a weight to keep.

    In training the weight is multiplied by `soft_mask`, through which gradients reach the scores; in evaluation by the
    binary `hard_mask`, so every measurement is one of the sparse network.

    Args:
        weight: The weight that the gate is for.
        score: The scores at the start, in the weight's shape.

    Attributes:
        score: One number for each entry of the weight; a trained parameter.
        scale: Factor of the binary mask in evaluation.
    """

    scale: float = 1.0

    def __init__(self, weight: Tensor, score: Tensor) -> None:
        super().__init__(weight)
        self.score = nn.Parameter(score)

    def forward(self, weight: Tensor) -> Tensor:
        """The weight as its layer uses it, in its shape."""
        return weight * (self.soft_mask() if self.training else self.hard_mask() * self.scale)

    @abstractmethod
    def on_step(self, progress: float, seed: int) -> None:
        """Prepare the gate for one optimiser step.

        Args:
            progress: Progress of the round, from 0 at its first step towards 1.
            seed: Seed of whatever is random; the same in every process, another at every step and for every weight.
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
        """Number of entries that the end of a round would leave neither removed nor kept."""
        low, high = UNDECIDED
        value = self.keep_prob()
        return int(((value > low) & (value < high) & (self.mask > 0)).sum())


class SoftGate(LearnedGate):
    """Multiplies a weight by sigma(beta s) in training and by b(s) = [s > 0] in evaluation (Savarese et al. 2019).

    The temperature beta rises from 1 by powers of the final one: beta_T ** progress (Continuous Sparsification, section
    4.1, https://arxiv.org/abs/1912.04427).

    Args:
        weight: The weight that the gate is for.
        initial: Score s_0 of every entry at the start.
        final_temperature: Temperature beta_T at the end of a round.
        stairs: Number of equal steps in which the temperature rises, the last of them at beta_T; None for a little at
            every optimiser step.
        divided: Whether the mask is divided by sigma(s_0), as in the released code: at first the network is the plain
            one.
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
        """Set the temperature; nothing is random. See the base class."""
        if self._stairs is not None:
            # Steps of a round divide into stairs without a remainder only on paper: 3 / 10 * 10 is not 3.
            progress = math.floor(progress * self._stairs + 1e-9) / (self._stairs - 1)
        self.temperature.fill_(self._final**progress)

    def soft_mask(self) -> Tensor:
        """Sigma(beta s), divided by sigma(s_0) or not. See the base class."""
        soft = torch.sigmoid(self.temperature * self.score) * self.mask
        return soft if self.scale == 1 else soft * self.scale

    def penalty(self) -> Tensor:
        """The sum of the mask as it is now, a scalar: of the divided one where it is divided."""
        return self.soft_mask().sum()

    def hard_mask(self) -> Tensor:
        """The entries with b(s) = 1. See the base class."""
        return (self.score > 0) & (self.mask > 0)

    def keep_prob(self) -> Tensor:
        """Sigma(beta_T s). See the base class."""
        return torch.sigmoid(self._final * self.score) * self.mask

    @torch.no_grad()
    def reset_scores(self, *, scaled: bool) -> None:
        """Make kept entries learnable again: s <- min(beta_T s, s_0) (Algorithm 3, step 4).

        Args:
            scaled: Whether scores are multiplied by beta_T; else min(s, s_0), which is what the released code comes to.
        """
        self.score.mul_(self._final if scaled else 1.0).clamp_(max=self._initial)


class StochasticGate(LearnedGate):
    """Multiplies a weight by m ~ Bernoulli(sigma(s)) in training and by [sigma(s) > 0.5] in evaluation.

    The mask is sampled once for an optimiser step: all processes, accumulated micro-batches and views of it share a
    mask, so that two views of an image pass through one network. The gradient of m goes straight through to sigma(s)
    (Zhou et al. 2019, https://arxiv.org/abs/1905.01067).

    Args:
        weight: The weight that the gate is for.
        initial: Score s_0 of every entry at the start.

    Attributes:
        step_mask: The mask that was sampled for this step, a buffer in the weight's shape.
    """

    step_mask: Tensor

    def __init__(self, weight: Tensor, *, initial: float) -> None:
        super().__init__(weight, torch.full_like(weight, initial))
        self._initial = initial
        self.register_buffer("step_mask", torch.ones_like(weight), persistent=False)

    def on_step(self, progress: float, seed: int) -> None:
        """Sample the step's mask. See the base class."""
        self.step_mask.copy_(self.sample(seed))

    @torch.no_grad()
    def sample(self, seed: int) -> Tensor:
        """A mask m ~ Bernoulli(sigma(s)), bool in the weight's shape."""
        device = self.score.device
        generator = torch.Generator(device).manual_seed(seed)
        # In the order of rows whatever the memory layout: that may not change which weights are kept.
        uniform = torch.rand(self.score.shape, generator=generator, device=device, dtype=self.score.dtype)
        return (uniform < torch.sigmoid(self.score)) & (self.mask > 0)

    def soft_mask(self) -> Tensor:
        """The mask sampled for this step, whose gradient is that of sigma(s). See the base class."""
        probability = self.keep_prob()
        return self.step_mask + (probability - probability.detach())

    def hard_mask(self) -> Tensor:
        """The entries with sigma(s) > 0.5, which is s > 0. See the base class."""
        return (self.score > 0) & (self.mask > 0)

    def keep_prob(self) -> Tensor:
        """Sigma(s). See the base class."""
        return torch.sigmoid(self.score) * self.mask

    @torch.no_grad()
    def surviving_entries(self) -> Tensor:
        """Entries that stay when those whose score fell below s_0 go for good (Algorithm 2, step 4), bool."""
        return (self.score >= self._initial) & (self.mask > 0)


class TopKGate(LearnedGate):
    """Keeps a fixed fraction of the entries of a weight, those with the highest |s| (edge-popup).

    The mask's gradient goes straight through to |s|, whether an entry is kept or not, so that one that is not may come
    up. Scores are initialised as in the authors' code, uniformly within 1 / sqrt(fan-in), from torch's generator
    (Ramanujan et al. 2020, section 3.2, https://arxiv.org/abs/1911.13299).

    Args:
        weight: The weight that the gate is for.
        density: Fraction that is kept; round(size * density) entries, at least one.

    Attributes:
        step_mask: The binary mask of this step, a buffer in the weight's shape.
    """

    step_mask: Tensor

    def __init__(self, weight: Tensor, *, density: float) -> None:
        scores = torch.empty_like(weight)
        nn.init.kaiming_uniform_(scores, a=math.sqrt(5))
        super().__init__(weight, scores)
        self._keep = num_kept_in_layer(weight.numel(), density)
        self.register_buffer("step_mask", torch.ones_like(weight), persistent=False)

    def on_step(self, progress: float, seed: int) -> None:
        """Find the highest scores once for all views and micro-batches of the step. See the base class."""
        self.step_mask.copy_(self.hard_mask())

    def soft_mask(self) -> Tensor:
        """The binary mask, whose gradient is that of |s|. See the base class."""
        size = self.score.abs() * self.mask
        return self.step_mask + (size - size.detach())

    @torch.no_grad()
    def hard_mask(self) -> Tensor:
        """The entries with the highest |s|; ties go to the earlier entry. See the base class."""
        size = self.score.abs().where(self.mask > 0, -1.0).flatten()
        threshold = size.topk(self._keep, sorted=False).values.min()
        above, tied = size > threshold, size == threshold
        earliest = tied & (tied.cumsum(0) <= self._keep - above.sum())
        return (above | earliest).view(self.score.shape) & (self.mask > 0)

    def keep_prob(self) -> Tensor:
        """1 or 0, since there is no doubt. See the base class."""
        return self.hard_mask().to(self.score.dtype)


def num_kept_in_layer(size: int, density: float) -> int:
    """Number of a layer's weights that `TopKGate` keeps, at least one."""
    return max(1, num_kept(size, density))


class GateSettings(ABC):
    """Settings from which `MaskTraining` makes the gate of each weight; a frozen dataclass of hyper-parameters."""

    @abstractmethod
    def build(self, weight: Tensor, initial_score: float) -> LearnedGate:
        """The gate of one weight.

        Args:
            weight: The weight that the gate is for.
            initial_score: Score of every entry at the start, for gates whose scores start alike.
        """


@dataclass(frozen=True)
class SigmoidMask(GateSettings):
    """A mask sigma(beta s) whose temperature beta rises at every step; see `SoftGate`.

    Attributes:
        final_temperature: Temperature beta_T at the end of a round (200 in Savarese et al. 2019, section 4.1).
    """

    final_temperature: float = 200.0

    def build(self, weight: Tensor, initial_score: float) -> LearnedGate:
        """See the base class."""
        temperature = self.final_temperature
        return SoftGate(weight, initial=initial_score, final_temperature=temperature, stairs=None, divided=False)


@dataclass(frozen=True)
class BernoulliMask(GateSettings):
    """A mask that is sampled at every step; see `StochasticGate`."""

    def build(self, weight: Tensor, initial_score: float) -> LearnedGate:
        """See the base class."""
        return StochasticGate(weight, initial=initial_score)


@dataclass(frozen=True)
class TopKMask(GateSettings):
    """A mask of the highest scores of each layer, which start at random; see `TopKGate`.

    Attributes:
        density: Fraction of each layer's weights that is kept (about half does best in Ramanujan et al. 2020).
    """

    density: float = 0.5

    def build(self, weight: Tensor, initial_score: float) -> LearnedGate:
        """See the base class."""
        return TopKGate(weight, density=self.density)
