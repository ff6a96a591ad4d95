"""One-shot pruning: at the rewind point, before any further training, or at the end of one."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING, Literal

from sslticket.masking.criteria.base import Criterion, Scores
from sslticket.masking.criteria.magnitude import Magnitude
from sslticket.search.base import Search, Stages, check_rungs, rewind_step, survivors
from sslticket.search.cut import Scope, cut
from sslticket.units import Clock, Span

if TYPE_CHECKING:
    from sslticket.masking.mask import Mask
    from sslticket.objectives.base import Objective
    from sslticket.search.lab import Lab
    from sslticket.ticket import Ticket


@dataclass(frozen=True, kw_only=True)
class OneShot(Search):
    """Cut every level's mask from the dense network in one go; tickets have W_k (Frankle et al. 2019, figure 8).

    Densities are those of `IMP` with the same levels and rate. Magnitudes at the end of training are one-shot pruning
    with rewinding; SNIP, GraSP and SynFlow at the start, with `rewind="0it"`, are those papers' pruning at
    initialisation.

    Attributes:
        levels: number of sparse tickets.
        rate: fraction of the weights that each has less than the one before; its density is (1 - rate)^level.
        rewind: when in the dense training W_k is taken ("0it", "3ep", "3840000samples", or "15%" of it).
        scope: rank all weights together, or each layer's on their own.
        scored: the network whose weights are scored: at W_k ("start"), or at the end of the dense training.
        criterion: by what weights are ranked.
    """

    levels: int = 30
    rate: float = 0.2
    rewind: str = "1ep"
    scope: Scope = "global"
    scored: Literal["start", "end"] = "end"
    criterion: Criterion = field(default_factory=Magnitude)

    def __post_init__(self) -> None:
        check_rungs(self.levels, self.rate)
        Span.parse(self.rewind)

    def density(self, level: int) -> float:
        """Fraction of the prunable weights that the ticket of this level keeps."""
        return (1 - self.rate) ** level

    def stages(self, clock: Clock, total: int) -> Stages:
        """See the base class; all sparse tickets come from the one dense training, or from its part up to W_k."""
        rewind = rewind_step(clock, self.rewind)
        trained = rewind if self.scored == "start" else clock.total
        return Stages(rewind, (trained,), survivors(total, self.levels, self.rate))

    def check(self, objective: "Objective") -> None:
        """See the base class."""
        self.criterion.check(self.scope, objective.logits)

    def scoring_samples(self, level: int, batch_size: int, classes: int) -> int:
        """See the base class; each level needs the scores once."""
        return self.criterion.samples(batch_size, classes) if level else 0

    def brought_within(self, clock: Clock) -> "OneShot":
        """See the base class; W_k is then taken after a tenth of the training."""
        return self if clock.steps(Span.parse(self.rewind)) < clock.total else replace(self, rewind="10%")

    def tickets(self, lab: "Lab") -> Iterator["Ticket"]:
        """See the base class."""
        lab.reach_rewind_point()
        dense = lab.found(0) or lab.keep(0, lab.dense_mask())
        yield dense

        @cache
        def first() -> Scores:
            """Of the dense network, the same for all levels; nothing is trained before they are asked for."""
            if self.scored == "start":
                lab.rewind()
            else:
                lab.train(dense)
            return lab.scores(self.criterion, dense.mask)

        for level in range(1, self.levels + 1):
            yield lab.found(level) or lab.keep(level, self._cut(lab, dense, level, first()))

    def _cut(self, lab: "Lab", dense: "Ticket", level: int, first: Scores) -> "Mask":
        return cut(lab, self.criterion, dense.mask, density=self.density(level), scope=self.scope, first=first)
