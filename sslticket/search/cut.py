"""From a criterion's scores to a mask."""

from typing import TYPE_CHECKING, Literal

from sslticket.masking.criteria.base import Criterion, Scores
from sslticket.masking.mask import Mask, kept

if TYPE_CHECKING:
    from sslticket.search.lab import Lab

Scope = Literal["global", "layer"]


def cut(
    lab: "Lab", criterion: Criterion, mask: Mask, *, density: float, scope: Scope, first: Scores | None = None
) -> Mask:
    """What a criterion keeps of a mask in the lab's net as it stands, in as many rounds as it asks for.

    After round e of E the fraction d0 of the weights that the mask keeps has become d0 (density / d0)^(e / E).

    Args:
        lab: holds the net.
        criterion: scores in every round the weights that are left, with the mask so far in force.
        mask: from which is pruned.
        density: fraction of all weights that remain; each layer's, where the scope is "layer".
        scope: rank all weights together, or each layer's on their own.
        first: the scores under `mask`, where they are known.

    Raises:
        BadInput: if the scores cannot rank weights.
    """
    start = mask.density
    for number in range(1, criterion.rounds + 1):
        scores = first if number == 1 and first is not None else lab.scores(criterion, mask)
        # The last round's density is not computed, for a rounding might cost a weight.
        share = density if number == criterion.rounds else start * (density / start) ** (number / criterion.rounds)
        mask = _selected(scores, mask, share, scope)
    return mask


def _selected(scores: Scores, mask: Mask, density: float, scope: Scope) -> Mask:
    if scope == "layer":
        return Mask.top_per_layer(scores, density=density, within=mask)
    return Mask.top(scores, keep=kept(mask.total, density), within=mask)
