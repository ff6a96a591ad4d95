"""Iterative magnitude pruning with rewinding."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from sslticket.errors import BadInput
from sslticket.masking.criteria import Criterion, Magnitude
from sslticket.masking.mask import Mask, State, kept
from sslticket.search.base import Search, Stages, rewind_step
from sslticket.units import Clock, Span

if TYPE_CHECKING:
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
    scope: Literal["global", "layer"] = "global"
    criterion: Criterion = field(default_factory=Magnitude)

    def __post_init__(self) -> None:
        if self.levels < 1:
            raise BadInput(f"a search of {self.levels} levels finds nothing; give --levels at least 1")
        if not 0 < self.rate < 1:
            raise BadInput(f"a rate of {self.rate:g} prunes nothing or everything; give --rate between 0 and 1")
        Span.parse(self.rewind)

    def density(self, level: int) -> float:
        """Fraction of the prunable weights that the ticket of this level keeps."""
        return (1 - self.rate) ** level

    def stages(self, clock: Clock, total: int) -> Stages:
        """See the base class."""
        rewind = rewind_step(self.rewind, clock)
        counts = tuple(kept(total, self.density(level)) for level in range(self.levels + 1))
        if counts[-1] < 1:
            enough = sum(count >= 1 for count in counts) - 1
            raise BadInput(
                f"{self.levels} levels at rate {self.rate:g} leave none of {total:,} weights; "
                f"give --levels {enough} or less"
            )
        after = clock.total - rewind
        return Stages(rewind, tuple(rewind + after * level for level in range(self.levels + 1)), counts)

    def brought_within(self, clock: Clock) -> "IMP":
        """See the base class; W_k is then taken after a tenth of the training."""
        return self if clock.steps(Span.parse(self.rewind)) < clock.total else replace(self, rewind="10%")

    def tickets(self, lab: "Lab") -> Iterator["Ticket"]:
        """See the base class."""
        lab.reach_rewind_point()
        ticket = lab.found(0) or lab.keep(0, lab.dense_mask())
        yield ticket
        for level in range(1, self.levels + 1):
            ticket = lab.found(level) or lab.keep(level, self._prune(lab.train(ticket), level, ticket.mask))
            yield ticket

    def _prune(self, trained: State, level: int, mask: Mask) -> Mask:
        scores = self.criterion.scores(trained, list(mask))
        if self.scope == "layer":
            return Mask.top_per_layer(scores, density=self.density(level), within=mask)
        return Mask.top(scores, keep=kept(mask.total, self.density(level)), within=mask)
