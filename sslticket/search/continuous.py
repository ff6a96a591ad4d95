"""Continuous Sparsification."""

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

from sslticket.errors import BadInput
from sslticket.fit import Fit
from sslticket.masking import gate
from sslticket.masking.gates.soft import SoftGate
from sslticket.masking.mask import Mask
from sslticket.search.base import Stages
from sslticket.search.learnt import Rounds, ScoreOptimizer, score_optimizer
from sslticket.training.learning import Learning
from sslticket.units import Clock

if TYPE_CHECKING:
    from sslticket.training.net import Net


@dataclass(frozen=True, kw_only=True)
class ContinuousSparsification(Rounds):
    """Learn a mask sigma(beta s) while beta rises, and take [s > 0] (Savarese et al. 2019, Algorithm 3).

    Masks of later rounds need not lie within those of earlier ones: a score may rise above 0 again.

    Attributes:
        rounds: trainings, each of which gives a ticket (at most 5 in section 4).
        rewind: when in the first round W_k is taken ("2ep", "780it", "100000samples", or "15%" of it).
        rewind_weights: start every later round from W_k, and not from the weights at the end of the last.
        final_temperature: beta_T; beta rises to it from 1 exponentially in every round.
        initial_score: s_0, with which every score starts; the lower, the sparser.
        penalty: lambda, the weight of the sum of the soft mask in the loss.
        score_optimizer: of the scores: "same" as the weights', SGD with momentum 0.9, or Adam; never with weight decay.
        score_lr: the scores' learning rate, which follows the schedule in proportion; None for that of the weights.
        anneal: raise beta at every step, as the paper, or every epoch, as the released code.
        divided: divide the mask by sigma(s_0), as the released code.
        scaled_reset: multiply scores by beta_T before the next round, as the paper; the released code does not.
        frozen: train scores only; weights and heads stay as they were drawn.
        masked_head: with frozen weights, the classification layer is drawn Xavier-normal with biases of 0 and masked
            like every other layer (section 4.1 after Zhou et al. 2019, whose Conv-6 has a mask on all of them).
    """

    rounds: int = 5
    rewind: str = "2ep"
    rewind_weights: bool = False
    final_temperature: float = 200.0
    initial_score: float = 0.0
    penalty: float = 1e-8
    score_optimizer: ScoreOptimizer = "same"
    score_lr: float | None = None
    anneal: Literal["step", "epoch"] = "step"
    divided: bool = False
    scaled_reset: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 < self.final_temperature < math.inf:
            raise BadInput(
                f"a final temperature of {self.final_temperature:g} does not rise from 1; "
                "give --final-temperature above 1, such as 200"
            )

    @property
    def rewinds(self) -> bool:
        """See the base class."""
        return self.rewind_weights

    def stages(self, clock: Clock, dense: Mask) -> Stages:
        """See the base class."""
        stages = super().stages(clock, dense)
        if self.anneal == "epoch" and _epochs(clock) < 2:
            raise BadInput(
                f"a temperature that rises once an epoch never does in a round of {clock.length}; "
                "give --anneal step or a longer --length"
            )
        return stages

    def learning(self, fit: Fit, clock: Clock) -> Learning:
        """See the base class."""
        make = partial(
            SoftGate,
            initial=self.initial_score,
            final_temperature=self.final_temperature,
            stairs=_epochs(clock) if self.anneal == "epoch" else None,
            divided=self.divided,
        )
        chosen = score_optimizer(self.score_optimizer, self.score_lr, fit)
        return Learning(
            gate=make,
            optimizer=chosen,
            penalty=self.penalty,
            frozen=self.frozen,
            masked_head=bool(self.masked_head),
        )

    def mask(self, net: "Net", seed: int) -> Mask:
        """See the base class: b(s_T)."""
        return Mask({name: one.chosen().cpu() for name, one in gate.learnt(net.backbone).items()})

    def reset(self, net: "Net") -> None:
        """See the base class: s <- min(beta_T s_T, s_0), in momentum encoders too."""
        for one in gate.learnt(net).values():
            assert isinstance(one, SoftGate), "the net was built with this search's gates"
            one.reset(scaled=self.scaled_reset)


def _epochs(clock: Clock) -> int:
    """Of a whole training, the last begun one too."""
    return math.ceil(clock.total * clock.batch_size / clock.set_size - 1e-6)
