"""What a search is."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sslticket.errors import BadInput
from sslticket.masking.mask import kept
from sslticket.units import Clock, Span

if TYPE_CHECKING:  # the lab trains, and so imports torch's whole family
    from sslticket.objectives.base import Objective
    from sslticket.search.lab import Lab
    from sslticket.ticket import Ticket


@dataclass(frozen=True)
class Stages:
    """What a search will do, known before it starts.

    Attributes:
        rewind: optimiser step at whose end W_k is taken.
        steps: optimiser steps of the dense training, and of each training after it.
        kept: weights that remain in the ticket of each level; the first is the dense network.
    """

    rewind: int
    steps: tuple[int, ...]
    kept: tuple[int, ...]

    def cost(self, level: int) -> int:
        """Optimiser steps that the search has taken when it knows the ticket of this level."""
        return self.rewind if level == 0 else sum(self.steps[:level])


class Search(ABC):
    """A way to find tickets; a frozen dataclass of hyper-parameters."""

    @abstractmethod
    def stages(self, clock: Clock, total: int) -> Stages:
        """The plan for one training's clock and `total` prunable weights.

        Raises:
            BadInput: if the search cannot be done: W_k beyond the end, or a level that leaves no weight.
        """

    def check(self, objective: "Objective") -> None:  # noqa: B027  # not every search asks for something
        """Whether it can find tickets with this objective.

        Raises:
            BadInput: naming the flag to change.
        """

    def scoring_samples(self, level: int, batch_size: int, classes: int) -> int:
        """Images looked at for scores alone when the ticket of this level is known, counted each time."""
        return 0

    @abstractmethod
    def brought_within(self, clock: Clock) -> "Search":
        """The same search with W_k moved into a training that ends before it; for trials on a laptop."""

    @abstractmethod
    def tickets(self, lab: "Lab") -> Iterator["Ticket"]:
        """The tickets, densest first; what the lab already has is not trained again."""


def rewind_step(clock: Clock, rewind: str) -> int:
    """The optimiser step at whose end W_k is taken.

    Raises:
        BadInput: if the training does not go beyond it.
    """
    step = clock.steps(Span.parse(rewind))
    if step >= clock.total:
        raise BadInput(
            f"a length of {clock.length} is {clock.total:,} steps, not longer than the rewind point of "
            f"{rewind}, {step:,} steps; give a longer --length or an earlier --rewind, such as --rewind 10%"
        )
    return step


def survivors(total: int, levels: int, rate: float) -> tuple[int, ...]:
    """Of `total` weights those that remain at each level, level 0 first, where each prunes `rate` of what remains.

    Raises:
        BadInput: if the last levels keep none.
    """
    counts = tuple(kept(total, (1 - rate) ** level) for level in range(levels + 1))
    if counts[-1] < 1:
        enough = sum(count >= 1 for count in counts) - 1
        raise BadInput(
            f"{levels} levels at rate {rate:g} leave none of {total:,} weights; give --levels {enough} or less"
        )
    return counts


def check_rungs(levels: int, rate: float) -> None:
    """Whether this many levels of this rate prune something and not everything.

    Raises:
        BadInput: naming the flag to change.
    """
    if levels < 1:
        raise BadInput(f"a search of {levels} levels finds nothing; give --levels at least 1")
    if not 0 < rate < 1:
        raise BadInput(f"a rate of {rate:g} prunes nothing or everything; give --rate between 0 and 1")
