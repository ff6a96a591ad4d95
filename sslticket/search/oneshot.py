"""One-shot pruning: at the rewind point, before any further training, or at the end of one."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Literal

from sslticket.config.training import Clock
from sslticket.errors import BadInput
from sslticket.pruning.criteria import Scores, prune_to_level
from sslticket.pruning.mask import Mask
from sslticket.search.base import Runner, SearchCost, Stages, rewind_step
from sslticket.search.imp import RankedSearch
from sslticket.ticket import Ticket


@dataclass(frozen=True, kw_only=True)
class OneShot(RankedSearch):
    """Prune every level's mask from the dense network in one go; tickets have W_k. docs/criteria.md describes more.

    Densities are those of `IMP` with the same levels and rates. Magnitudes at the end are one-shot pruning with
    rewinding (Frankle et al. 2019, figure 8, https://arxiv.org/abs/1903.01611); other criteria at the start, with
    `rewind="0it"`, are pruning at initialisation (Lee et al. 2019, https://arxiv.org/abs/1810.02340).

    Attributes:
        scored: The network whose weights are scored: at W_k ("start"), or at the end of the dense training ("end").
    """

    scored: Literal["start", "end"] = "end"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scored not in ("start", "end"):
            raise BadInput(f"--scored must be start or end, got {self.scored!r}; give one of them")

    def stages(self, clock: Clock, dense: Mask) -> Stages:
        """See the base class; all sparse tickets come from the one dense training, or from its part up to W_k."""
        rewind = rewind_step(self.rewind, clock)
        trained = rewind if self.scored == "start" else clock.total_steps
        return Stages(rewind, (rewind, *[trained] * self.levels), self.schedule.survivors(dense, self.levels))

    def scoring_samples(self, level: int, clock: Clock, classes: int) -> int:
        """See the base class; no level needs the scores of another."""
        return self.criterion.num_images(clock.batch_size, classes) if level else 0

    def tickets(self, runner: Runner) -> Iterator[Ticket]:
        """See the base class."""
        runner.reach_rewind_point()
        dense = runner.load_ticket(0) or runner.save_ticket(0, runner.dense_mask())
        yield dense
        early = runner.cost

        @cache
        def first() -> tuple[Scores, SearchCost]:
            """Scores of the dense network, and what they cost: for all levels, and not before one asks for them."""
            runner.cost = early
            if self.scored == "end":
                runner.train(dense)
            else:
                runner.rewind()
            return runner.scores(self.criterion, dense.mask), runner.cost

        for level in range(1, self.levels + 1):
            ticket = runner.load_ticket(level)
            if ticket is None:
                scores, runner.cost = first()  # what other levels' rounds cost is no part of this level's
                if level > 1:
                    runner.forget_measurements()  # the first level's row has them
                mask = prune_to_level(
                    runner.scores, self.criterion, self.schedule, dense.mask, start=0, level=level, first=scores
                )
                ticket = runner.save_ticket(level, mask)
            yield ticket
