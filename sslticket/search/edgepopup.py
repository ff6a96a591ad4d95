"""Edge-popup: the highest scores of each layer, over weights that are never trained."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from sslticket.errors import BadInput
from sslticket.fit import Fit
from sslticket.masking import gate
from sslticket.masking.gates.topk import TopKGate, many
from sslticket.masking.mask import Mask
from sslticket.plain import ADDED
from sslticket.search.base import Search, Stages
from sslticket.search.learnt import ScoreOptimizer, check_rate, mask_head, report, score_optimizer
from sslticket.training.learning import Learning
from sslticket.units import Clock

if TYPE_CHECKING:
    from sslticket.search.lab import Lab
    from sslticket.ticket import Ticket


@dataclass(frozen=True, kw_only=True)
class EdgePopup(Search):
    """Learn which weights of an untrained network to keep, so many in every layer (Ramanujan et al. 2020).

    One training, one ticket. Its weights are W_0, since none is ever trained.

    Attributes:
        density: fraction of each layer's weights that is kept (about half does best in the paper).
        score_optimizer: of the scores: "same" as the weights', SGD with momentum 0.9, or Adam; never with weight decay.
        score_lr: the scores' learning rate, which follows the schedule in proportion (0.1 in the paper's code); None
            for that of the weights, which has no other use here.
        masked_head: the classification layer is drawn Xavier-normal with biases of 0 and masked like every other layer.
    """

    density: float = 0.5
    score_optimizer: ScoreOptimizer = "sgd"
    score_lr: float | None = 0.1
    masked_head: bool | None = field(default=None, metadata=ADDED)

    def __post_init__(self) -> None:
        if not 0 < self.density < 1:
            raise BadInput(f"a density of {self.density:g} leaves nothing to choose; give --density between 0 and 1")
        check_rate(self.score_lr)
        mask_head(self, frozen=True)

    def stages(self, clock: Clock, dense: Mask) -> Stages:
        """See the base class."""
        count = sum(many(layer.numel(), self.density) for layer in dense.values())
        return Stages(0, (0, clock.total), (dense.total, count))

    def brought_within(self, clock: Clock) -> "EdgePopup":
        """See the base class; W_0 is within every training."""
        return self

    def learning(self, fit: Fit, clock: Clock) -> Learning:
        """See the base class."""
        chosen = score_optimizer(self.score_optimizer, self.score_lr, fit)
        make = partial(TopKGate, density=self.density)
        return Learning(gate=make, optimizer=chosen, frozen=True, masked_head=bool(self.masked_head))

    def tickets(self, lab: "Lab") -> Iterator["Ticket"]:
        """See the base class."""
        lab.reach_rewind_point()
        dense = lab.found(0) or lab.keep(0, lab.dense_mask())
        yield dense
        yield lab.found(1) or self._popped(lab, dense)

    def _popped(self, lab: "Lab", dense: "Ticket") -> "Ticket":
        lab.train(dense)
        mask = Mask({name: one.chosen().cpu() for name, one in gate.learnt(lab.net.backbone).items()})
        return lab.keep(1, mask, told=report(lab, mask, 1, "a higher --density"))
