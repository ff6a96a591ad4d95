"""How many weights each level keeps, among which they are ranked, and the mask that follows from scores."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from torch import Tensor

from sslticket.errors import BadInput
from sslticket.pruning.criteria import Criterion, Scores
from sslticket.pruning.mask import Mask, num_kept

if TYPE_CHECKING:
    from sslticket.search.runner import SearchRunner


class LayerGroup(NamedTuple):
    """Layers with a rate of their own.

    Attributes:
        kind: they are, for a person: "", "convolution" or "linear".
        rate: fraction of the remaining weights pruned at each level.
        mask: of the layers.
    """

    kind: str
    rate: float
    mask: Mask

    def num_kept(self, level: float) -> int:
        """Weights that remain after so many prunings, computed from the total; a fraction of one prunes less."""
        return num_kept(self.mask.total, (1 - self.rate) ** level)


@dataclass(frozen=True, kw_only=True)
class SparsitySchedule:
    """Exact counts for rates that repeat.

    Attributes:
        rate: fraction of the remaining weights pruned at each level.
        linear_rate: the same for linear layers, which are then ranked apart from convolutions; None for one rate.
        scope: rank all weights of a rate together, or each layer's on their own.
        min_per_layer: so many weights stay in each layer, or all where it has fewer.
    """

    rate: float
    linear_rate: float | None = None
    scope: Literal["global", "layer"] = "global"
    min_per_layer: int = 0

    def __post_init__(self) -> None:
        for flag, rate in (("--rate", self.rate), ("--linear-rate", self.linear_rate)):
            if rate is not None and not 0 < rate < 1:
                raise BadInput(f"a rate of {rate:g} prunes nothing or everything; give {flag} between 0 and 1")
        if self.min_per_layer < 0:
            raise BadInput(f"no layer can keep {self.min_per_layer} weights; give --min-per-layer 0 or more")

    def num_kept(self, dense: Mask, level: int) -> int:
        """Weights that a ticket of this level keeps, of those that may be pruned."""
        return sum(
            self._num_kept_of(layers, part, level)
            for part in self._groups(dense)
            for layers in self._ranked_together(part)
        )

    def select(self, scores: Mapping[str, Tensor], level: float, within: Mask) -> Mask:
        """The mask of a level, or of a round between two: those with the highest scores among the survivors of one."""
        at_least = 0 if self.scope == "layer" else self.min_per_layer
        drawn: dict[str, Tensor] = {}
        for part in self._groups(within):
            for layers in self._ranked_together(part):
                keep = self._num_kept_of(layers, part, level)
                drawn |= Mask.top(scores, keep=keep, within=layers, at_least=at_least).layers
        return Mask(drawn).restrict(within)

    def check(self, dense: Mask, levels: int) -> None:
        """Whether every level can be reached.

        Raises:
            BadInput: if a level would leave no weight, or fewer than each layer has to keep; naming the last that can.
        """
        for part in self._groups(dense):
            counts, kind = [part.num_kept(level) for level in range(levels + 1)], f"{part.kind} weights".strip()
            if counts[-1] < 1:
                raise BadInput(
                    f"{levels} levels at rate {part.rate:g} leave none of {part.mask.total:,} {kind}; "
                    f"give {_last_level_fix(counts, 1)}"
                )
            needed = sum(min(self.min_per_layer, layer.numel()) for layer in part.mask.values())
            if self.scope == "global" and counts[-1] < needed:
                fits = counts[-1] // len(part.mask)
                less = f", or --min-per-layer {fits} or less" if fits else ""
                raise BadInput(
                    f"level {levels} keeps {counts[-1]:,} of {part.mask.total:,} {kind}, and --min-per-layer "
                    f"{self.min_per_layer} needs {needed:,} in {len(part.mask)} layers; give "
                    f"{_last_level_fix(counts, needed)}{less}"
                )

    def _num_kept_of(self, layers: Mask, part: LayerGroup, level: float) -> int:
        if self.scope == "global":
            return part.num_kept(level)
        # A layer that is ranked alone is never emptied: no other could make up for it.
        least = max(1, self.min_per_layer)
        return min(layers.total, max(least, num_kept(layers.total, (1 - part.rate) ** level)))

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

    def _ranked_together(self, part: LayerGroup) -> Iterator[Mask]:
        """The layers of a part that are ranked together."""
        if self.scope == "global":
            yield part.mask
        else:
            yield from (part.mask.restrict([name]) for name in part.mask)


def _last_level_fix(counts: list[int], needed: int) -> str:
    """What to give for all levels to keep so many; each keeps less than the one before."""
    last = sum(count >= needed for count in counts) - 1
    return f"--levels {last} or less" if last else "a smaller rate"


def prune_to_level(
    lab: "SearchRunner",
    criterion: Criterion,
    selection: SparsitySchedule,
    mask: Mask,
    *,
    start: int,
    level: int,
    first: Scores | None = None,
) -> Mask:
    """The mask of a level by a criterion's scores of the lab's net as it stands, in as many rounds as it asks for.

    Rounds are fractions of a level, so densities fall exponentially: from dense, after round e of E to density^(e / E).

    Args:
        lab: holds the net.
        criterion: scores in every round the weights that are left, with the mask so far in force.
        selection: how many weights are left at a level, and among which they are ranked.
        mask: from which is pruned.
        start: its level.
        level: of the mask that is drawn.
        first: the scores under `mask`, where they are known.

    Raises:
        BadInput: if the scores cannot rank weights.
    """
    for number in range(1, criterion.rounds + 1):
        scores = first if number == 1 and first is not None else lab.scores(criterion, mask)
        mask = selection.select(scores, start + (level - start) * number / criterion.rounds, mask)
    return mask
