"""Iterative Stochastic Sparsification, and supermasks as its single round with frozen weights."""

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from torch import nn

from sslticket.fit import Fit
from sslticket.masking import gate
from sslticket.masking.gates.stochastic import StochasticGate
from sslticket.masking.mask import Mask
from sslticket.randomness import derive
from sslticket.search.learnt import Rounds, ScoreOptimizer, score_optimizer
from sslticket.training.learning import Learning
from sslticket.units import Clock

if TYPE_CHECKING:
    from sslticket.training.net import Net


@dataclass(frozen=True, kw_only=True)
class StochasticSparsification(Rounds):
    """Learn with what probability each weight is kept (Savarese et al. 2019, Algorithm 2, after Zhou et al. 2019).

    Between rounds, weights whose score has fallen below s_0 go for good, the others keep their scores, and training
    starts again from W_k. One round with frozen weights is the supermask of Zhou et al.

    Attributes:
        rounds: trainings, each of which gives a ticket (30 in section 4.1).
        rewind: when in the first round W_k is taken ("2ep", "780it", "100000samples", or "15%" of it).
        initial_score: s_0, with which every score starts; the lower, the sparser.
        penalty: lambda, the weight of the sum of the probabilities in the loss.
        score_optimizer: of the scores: "same" as the weights', SGD with momentum 0.9, or Adam; never with weight decay.
        score_lr: the scores' learning rate, which follows the schedule in proportion; None for that of the weights.
        sampled: a ticket's mask is drawn from the probabilities, as in Algorithm 2; else weights likelier kept than not
            are kept.
        frozen: train scores only; weights and heads stay as they were drawn.
        masked_head: with frozen weights, the classification layer is drawn Xavier-normal with biases of 0 and masked
            like every other layer (section 4.1 after Zhou et al. 2019, whose Conv-6 has a mask on all of them).
    """

    rounds: int = 30
    rewind: str = "2ep"
    initial_score: float = 1.0
    penalty: float = 1e-8
    score_optimizer: ScoreOptimizer = "sgd"
    score_lr: float | None = 20.0
    sampled: bool = True

    @property
    def rewinds(self) -> bool:
        """See the base class: always."""
        return True

    def learning(self, fit: Fit, clock: Clock) -> Learning:
        """See the base class."""
        chosen = score_optimizer(self.score_optimizer, self.score_lr, fit)
        make = partial(StochasticGate, initial=self.initial_score)
        return Learning(
            gate=make,
            optimizer=chosen,
            penalty=self.penalty,
            frozen=self.frozen,
            masked_head=bool(self.masked_head),
        )

    def mask(self, net: "Net", seed: int) -> Mask:
        """See the base class: m ~ Bernoulli(sigma(s_T)), or [sigma(s_T) > 0.5]."""
        layers = {}
        for name, one in gate.learnt(net.backbone).items():
            assert isinstance(one, StochasticGate), "the net was built with this search's gates"
            layers[name] = (one.sample(derive(seed, name)) if self.sampled else one.chosen()).cpu()
        return Mask(layers)

    def reset(self, net: "Net") -> None:
        """See the base class; what is removed from the backbone is removed from momentum encoders too."""
        gate.set_mask_everywhere(net, _survivors(net.backbone))
        if net.head_gates:
            gate.set_mask(net.heads, _survivors(net.heads))


def _survivors(module: nn.Module) -> Mask:
    layers = {}
    for name, one in gate.learnt(module).items():
        assert isinstance(one, StochasticGate), "the net was built with this search's gates"
        layers[name] = one.survivors().cpu()
    return Mask(layers)
