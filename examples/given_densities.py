"""A search of one's own: iterative magnitude pruning to given densities, one ticket for each."""
# Run: python recipes/supervised_digits.py --search examples/given_densities.py:GivenDensities --densities 0.5 0.1

from collections.abc import Iterator
from dataclasses import dataclass

from sslticket.config.training import Clock
from sslticket.pruning.criteria import Magnitude
from sslticket.pruning.mask import Mask, num_kept
from sslticket.search.base import Runner, Search, Stages, rewind_step
from sslticket.ticket import Ticket


@dataclass(frozen=True, kw_only=True)
class GivenDensities(Search):
    """Train, keep the largest weights, rewind to W_k, and again.

    Attributes:
        densities: Fractions of the prunable weights that remain, in descending order.
        rewind: When in the dense training W_k is taken.
    """

    densities: tuple[float, ...] = (0.5, 0.2)
    rewind: str = "10%"

    def stages(self, clock: Clock, dense: Mask) -> Stages:
        """Count steps and survivors of each level."""
        rewind, kept = rewind_step(self.rewind, clock), [num_kept(dense.total, each) for each in (1.0, *self.densities)]
        return Stages(rewind, tuple(rewind + i * (clock.total_steps - rewind) for i in range(len(kept))), tuple(kept))

    def tickets(self, runner: Runner) -> Iterator[Ticket]:
        """Find the tickets, densest first."""
        runner.reach_rewind_point()
        yield (ticket := runner.load_ticket(0) or runner.save_ticket(0, runner.dense_mask()))
        for level, density in enumerate(self.densities, 1):
            if (found := runner.load_ticket(level)) is None:
                runner.train(ticket)
                scores, keep = runner.scores(Magnitude(), ticket.mask), num_kept(ticket.mask.total, density)
                found = runner.save_ticket(level, Mask.top(scores, keep=keep, within=ticket.mask))
            yield (ticket := found)
