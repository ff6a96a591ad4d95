"""What searches that rank weights by a criterion have in common."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from sslticket.errors import BadInput
from sslticket.fit import Fit
from sslticket.masking.criteria.base import Criterion
from sslticket.masking.criteria.magnitude import Magnitude
from sslticket.masking.mask import Mask
from sslticket.search.base import Search
from sslticket.search.selection import Selection
from sslticket.units import Span

if TYPE_CHECKING:
    from sslticket.objectives.base import Objective


@dataclass(frozen=True, kw_only=True)
class Ranked(Search):
    """Levels of exact densities, each of which keeps the weights with the highest scores.

    Attributes:
        levels: number of sparse tickets.
        rate: fraction of the weights that each has less than the one before; its density is (1 - rate)^level.
        linear_rate: the same for linear layers, which are then ranked apart from convolutions; None for one rate.
        rewind: when in the dense training W_k is taken ("0it", "3ep", "3840000samples", or "15%" of it).
        scope: rank all weights together, or each layer's on their own.
        min_per_layer: weights that stay in each layer, or all where it has fewer.
        criterion: by what weights are ranked.
    """

    levels: int = 30
    rate: float = 0.2
    linear_rate: float | None = None
    rewind: str = "1ep"
    scope: Literal["global", "layer"] = "global"
    min_per_layer: int = 0
    criterion: Criterion = field(default_factory=Magnitude)

    def __post_init__(self) -> None:
        if self.levels < 1:
            raise BadInput(f"a search of {self.levels} levels finds nothing; give --levels at least 1")
        Span.parse(self.rewind)
        _ = self.selection  # which checks the rates

    @property
    def selection(self) -> Selection:
        """How many weights each level keeps."""
        return Selection(
            rate=self.rate, linear_rate=self.linear_rate, scope=self.scope, min_per_layer=self.min_per_layer
        )

    def check(self, fit: Fit, objective: "Objective") -> None:
        """See the base class."""
        self.criterion.check(self.scope, objective.logits)

    def counts(self, dense: Mask) -> tuple[int, ...]:
        """Weights that the ticket of each level keeps.

        Raises:
            BadInput: if a level cannot be reached.
        """
        self.selection.check(dense, self.levels)
        return tuple(self.selection.kept(dense, level) for level in range(self.levels + 1))
