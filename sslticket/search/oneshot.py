"""One-shot pruning: at the rewind point, before any further training, or at the end of one."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Literal

from sslticket.config.training import Clock, Span
from sslticket.errors import BadInput
from sslticket.pruning.criteria import Scores
from sslticket.pruning.mask import Mask
from sslticket.pruning.schedule import prune_to_level
from sslticket.search.base import Stages, rewind_step
from sslticket.search.imp import RankedSearch

if TYPE_CHECKING:
    from sslticket.search.record import SearchCost
    from sslticket.search.runner import SearchRunner
    from sslticket.ticket import Ticket


@dataclass(frozen=True, kw_only=True)
class OneShot(RankedSearch):
    """Cut every level's mask from the dense network in one go; tickets have W_k. docs/criteria.md tells more.

    Densities are those of `IMP` with the same levels and rates. Magnitudes at the end are one-shot pruning with
    rewinding (Frankle et al. 2019, figure 8); other criteria at the start, with `rewind="0it"`, are pruning at
    initialisation (Lee et al. 2019).

    Attributes:
        levels: number of sparse tickets.
        rate: fraction of its weights that each lacks of the one before: the density is (1 - rate)^level.
        linear_rate: the same for linear layers, which are then ranked apart from convolutions; None for one rate.
        rewind: when in the dense training W_k is taken ("0it", "3ep", "3840000samples", or "15%" of it).
        scope: rank all weights together, or each layer's on their own.
        min_per_layer: weights that stay in each layer, or all where it has fewer.
        scored: the network whose weights are scored: at W_k ("start"), or at the end of the dense training ("end").
        criterion: by what weights are ranked.
    """

    scored: Literal["start", "end"] = "end"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scored not in ("start", "end"):
            raise BadInput(f"no network is scored at {self.scored!r}; give --scored start or end")

    def stages(self, clock: Clock, dense: Mask) -> Stages:
        """See the base class; all sparse tickets come from the one dense training, or from its part up to W_k."""
        rewind = rewind_step(self.rewind, clock)
        trained = rewind if self.scored == "start" else clock.total_steps
        return Stages(rewind, (rewind, *[trained] * self.levels), self.survivors_per_level(dense))

    def scoring_samples(self, level: int, clock: Clock, classes: int) -> int:
        """See the base class; no level needs the scores of another."""
        return self.criterion.num_images(clock.batch_size, classes) if level else 0

    def shortened_for_trial(self, clock: Clock) -> "OneShot":
        """See the base class; W_k is then taken after a tenth of the training."""
        return self if clock.steps(Span.parse(self.rewind)) < clock.total_steps else replace(self, rewind="10%")

    def tickets(self, lab: "SearchRunner") -> Iterator["Ticket"]:
        """See the base class."""
        lab.reach_rewind_point()
        dense = lab.load_ticket(0) or lab.save_ticket(0, lab.dense_mask())
        yield dense
        early = lab.cost

        @cache
        def first() -> "tuple[Scores, SearchCost]":
            """Scores of the dense network, and what they cost: for all levels, and not before one asks for them."""
            lab.cost = early
            if self.scored == "end":
                lab.train(dense)
            else:
                lab.rewind()
            return lab.scores(self.criterion, dense.mask), lab.cost

        for level in range(1, self.levels + 1):
            yield lab.load_ticket(level) or lab.save_ticket(level, self._prune(lab, dense.mask, level, *first()))

    def _prune(self, lab: "SearchRunner", dense: Mask, level: int, first: Scores, spent: "SearchCost") -> Mask:
        lab.cost = spent  # what other levels' rounds cost is no part of this one's
        if level > 1:
            lab.forget_measurements()  # by the first level's row, also where another process has found that one
        return prune_to_level(lab, self.criterion, self.schedule, dense, start=0, level=level, first=first)
