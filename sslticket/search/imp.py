"""Iterative magnitude pruning with rewinding."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from sslticket.masking.criteria.base import Criterion
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
class IMP(Search):
    """Train, prune the smallest weights, rewind to W_k, and again (Frankle et al. 2019, Algorithm 1).

    Attributes:
        levels: how many times to prune.
        rate: fraction of the remaining weights pruned each time.
        rewind: when in the dense training W_k is taken ("3ep", "500it", "3840000samples", or "15%" of it).
        scope: rank all weights together, or each layer's on their own.
        criterion: by what weights are ranked.
    """

    levels: int = 30
    rate: float = 0.2
    rewind: str = "1ep"
    scope: Scope = "global"
    criterion: Criterion = field(default_factory=Magnitude)

    def __post_init__(self) -> None:
        check_rungs(self.levels, self.rate)
        Span.parse(self.rewind)

    def density(self, level: int) -> float:
        """Fraction of the prunable weights that the ticket of this level keeps."""
        return (1 - self.rate) ** level

    def stages(self, clock: Clock, total: int) -> Stages:
        """See the base class."""
        rewind = rewind_step(clock, self.rewind)
        counts = survivors(total, self.levels, self.rate)
        return Stages(rewind, (clock.total, *[clock.total - rewind] * (self.levels - 1)), counts)

    def check(self, objective: "Objective") -> None:
        """See the base class."""
        self.criterion.check(self.scope, objective.logits)

    def scoring_samples(self, level: int, batch_size: int, classes: int) -> int:
        """See the base class; every level scores anew."""
        return level * self.criterion.samples(batch_size, classes)

    def brought_within(self, clock: Clock) -> "IMP":
        """See the base class; W_k is then taken after a tenth of the training."""
        return self if clock.steps(Span.parse(self.rewind)) < clock.total else replace(self, rewind="10%")

    def tickets(self, lab: "Lab") -> Iterator["Ticket"]:
        """See the base class."""
        lab.reach_rewind_point()
        ticket = lab.found(0) or lab.keep(0, lab.dense_mask())
        yield ticket
        for level in range(1, self.levels + 1):
            ticket = lab.found(level) or lab.keep(level, self._prune(lab, ticket, level))
            yield ticket

    def _prune(self, lab: "Lab", ticket: "Ticket", level: int) -> "Mask":
        lab.train(ticket)
        return cut(lab, self.criterion, ticket.mask, density=self.density(level), scope=self.scope)
