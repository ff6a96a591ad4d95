"""How many weights each level keeps, and the mask that follows from a criterion's scores."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from torch import Tensor

from sslticket.errors import BadInput
from sslticket.pruning.criteria import Criterion, Scores
from sslticket.pruning.mask import Mask, num_kept


class LayerGroup(NamedTuple):
    """Layers with a pruning rate of their own.

    Attributes:
        kind: What the layers are: "", "convolution" or "linear".
        rate: Fraction of the remaining weights pruned at each level.
        mask: The mask of the layers.
    """

    kind: str
    rate: float
    mask: Mask


@dataclass(frozen=True, kw_only=True)
class SparsitySchedule:
    """Exact numbers of survivors for levels that each prune the same fraction.

    Attributes:
        rate: Fraction of the remaining weights pruned at each level.
        linear_rate: The same for linear layers, which are then ranked apart from convolutions; None for one rate.
        scope: Rank all weights of a rate together, or each layer's on their own.
        min_per_layer: Weights that stay in each layer, or all where it has fewer.
    """

    rate: float
    linear_rate: float | None = None
    scope: Literal["global", "layer"] = "global"
    min_per_layer: int = 0

    def __post_init__(self) -> None:
        for flag, rate in (("--rate", self.rate), ("--linear-rate", self.linear_rate)):
            if rate is not None and not 0 < rate < 1:
                raise BadInput(f"{flag} must be in (0, 1), got {rate:g}; give a fraction such as {flag} 0.2")
        if self.min_per_layer < 0:
            raise BadInput(f"--min-per-layer must be at least 0, got {self.min_per_layer}; give 0 or more")

    def num_kept(self, dense: Mask, level: float) -> int:
        """Number of weights that the ticket of a level keeps, of those that may be pruned."""
        return sum(keep for _, keep in self._ranked_together(dense, level))

    def select(self, scores: Mapping[str, Tensor], level: float, within: Mask) -> Mask:
        """The mask of a level, or of a round between two levels: the highest scores among the survivors of a mask.

        Args:
            scores: The score of each weight, by the names and in the shapes of the mask.
            level: The level whose number of weights is kept; densities fall exponentially between levels.
            within: The mask that is pruned further.
        """
        at_least = 0 if self.scope == "layer" else self.min_per_layer
        selected: dict[str, Tensor] = {}
        for layers, keep in self._ranked_together(within, level):
            selected |= Mask.top(scores, keep=keep, within=layers, at_least=at_least).layers
        return Mask(selected).restrict(within)

    def survivors(self, dense: Mask, levels: int) -> tuple[int, ...]:
        """Number of weights that the ticket of each level keeps, the dense network's first.

        Raises:
            BadInput: If a level would leave no weight, or fewer than each layer has to keep; naming the last that can.
        """
        for group in self._groups(dense):
            counts = [num_kept(group.mask.total, (1 - group.rate) ** level) for level in range(levels + 1)]
            kind = f"{group.kind} weights".strip()
            if counts[-1] < 1:
                raise BadInput(
                    f"every level must keep a weight, and {levels} levels at rate {group.rate:g} leave none of "
                    f"{group.mask.total:,} {kind}; give {_last_level_fix(counts, 1)}"
                )
            needed = sum(min(self.min_per_layer, layer.numel()) for layer in group.mask.values())
            if self.scope == "global" and counts[-1] < needed:
                fits = counts[-1] // len(group.mask)
                less = f", or --min-per-layer {fits} or less" if fits else ""
                raise BadInput(
                    f"level {levels} keeps {counts[-1]:,} of {group.mask.total:,} {kind}, and --min-per-layer "
                    f"{self.min_per_layer} needs {needed:,} in {len(group.mask)} layers; give "
                    f"{_last_level_fix(counts, needed)}{less}"
                )
        return tuple(self.num_kept(dense, level) for level in range(levels + 1))

    def _groups(self, mask: Mask) -> list[LayerGroup]:
        if self.linear_rate is None:
            return [LayerGroup("", self.rate, mask)]
        linear = [name for name, layer in mask.items() if layer.dim() == 2]
        convolutions = [name for name in mask if name not in linear]
        if not (linear and convolutions):
            lacking = "convolution" if linear else "linear layer"
            raise BadInput(f"--linear-rate is for networks of both kinds, and no {lacking} may be pruned; leave it out")
        return [
            LayerGroup("convolution", self.rate, mask.restrict(convolutions)),
            LayerGroup("linear", self.linear_rate, mask.restrict(linear)),
        ]

    def _ranked_together(self, mask: Mask, level: float) -> Iterator[tuple[Mask, int]]:
        """Layers that are ranked together, and how many of their weights a level keeps, computed from their total."""
        for group in self._groups(mask):
            density = (1 - group.rate) ** level
            if self.scope == "global":
                yield group.mask, num_kept(group.mask.total, density)
                continue
            for name in group.mask:
                layer = group.mask.restrict([name])
                # A layer that is ranked alone is never emptied: no other could make up for it.
                least = max(1, self.min_per_layer)
                yield layer, min(layer.total, max(least, num_kept(layer.total, density)))


def prune_to_level(
    scores: Callable[[Criterion, Mask], Scores],
    criterion: Criterion,
    schedule: SparsitySchedule,
    mask: Mask,
    *,
    start: int,
    level: int,
    first: Scores | None = None,
) -> Mask:
    """Prunes a mask to a level by a criterion's scores, in as many rounds as the criterion asks for.

    Rounds are fractions of a level, so densities fall exponentially: from dense, after round e of E to density^(e / E).

    Args:
        scores: Returns a criterion's scores of the network's weights as they stand, under a mask.
        criterion: The criterion, which scores in every round the weights that are left.
        schedule: How many weights are left at a level, and among which they are ranked.
        mask: The mask that is pruned.
        start: The level of that mask.
        level: The level of the mask that is returned.
        first: The scores under `mask`, where they are known.

    Raises:
        BadInput: If the scores cannot rank weights.
    """
    for number in range(1, criterion.rounds + 1):
        found = first if number == 1 and first is not None else scores(criterion, mask)
        mask = schedule.select(found, start + (level - start) * number / criterion.rounds, mask)
    return mask


def _last_level_fix(counts: list[int], needed: int) -> str:
    """What to give for all levels to keep so many weights; each level keeps fewer than the one before."""
    last = sum(count >= needed for count in counts) - 1
    return f"--levels {last} or less" if last else "a smaller rate"
