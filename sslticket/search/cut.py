"""From a criterion's scores to a mask."""

from typing import TYPE_CHECKING

from sslticket.masking.criteria.base import Criterion, Scores
from sslticket.masking.mask import Mask
from sslticket.search.selection import Selection

if TYPE_CHECKING:
    from sslticket.search.lab import Lab


def cut(
    lab: "Lab",
    criterion: Criterion,
    selection: Selection,
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
        mask = selection.draw(scores, start + (level - start) * number / criterion.rounds, mask)
    return mask
