"""When the mask that a level would draw has settled: early-bird tickets (You et al. 2020, section 3)."""

from collections import deque
from collections.abc import Callable

import numpy as np

from sslticket.config.training import Clock, Span
from sslticket.errors import BadInput
from sslticket.pruning.mask import Mask


def mask_distance(one: Mask, other: Mask) -> float:
    """Share of the survivors of one mask that do not survive in the other, which keeps as many: 0 equal, 1 disjoint.

    You et al. take the Hamming distance over all channels. Over all weights that would be small for any two sparse
    masks: at a density of 1% no two differ in more than 2% of the weights.
    """
    alone = sum(int(np.count_nonzero(one[name].numpy() & ~other[name].numpy())) for name in one)
    return alone / one.survivors


def mask_check_steps(every: Span, clock: Clock, start: int, stop: int) -> list[int]:
    """The steps between these two after which to look: multiples of the interval, so not counted from the start."""
    interval = max(1, clock.steps(every))
    return list(range((start // interval + 1) * interval, stop, interval))


class EarlyBird:
    """Looks at the mask that would be drawn, again and again while a level is trained."""

    def __init__(self, draw: Callable[[], Mask], *, bound: float, window: int, every: Span) -> None:
        """Nothing is drawn yet.

        Args:
            draw: the mask as it would be drawn now; has to leave net and random numbers as they are.
            bound: of the distance.
            window: looks back with which the mask is compared.
            every: between two looks.
        """
        self._draw, self._bound, self._window, self._every = draw, bound, window, every
        self._before: deque[Mask] = deque(maxlen=window)

    def check_steps(self, clock: Clock, start: int, stop: int) -> list[int]:
        """The steps between these two after which to look."""
        return mask_check_steps(self._every, clock, start, stop)

    def has_converged(self) -> bool:
        """Whether the mask of now is nearer than the bound to those of each of the last `window` looks."""
        mask = self._draw()
        near = all(mask_distance(mask, before) < self._bound for before in self._before)
        settled = near and len(self._before) == self._window
        self._before.append(mask)
        return settled


def check_early_bird(bound: float | None, window: int, every: str) -> None:
    """Whether looks can be taken so.

    Raises:
        BadInput: naming the flag to change.
    """
    if bound is not None and not 0 < bound < 1:
        raise BadInput(f"a mask distance lies between 0 and 1, so none is bound by {bound:g}; give --settled in (0, 1)")
    if window < 1:
        raise BadInput(f"a mask is compared with earlier ones, not with {window}; give --settled-window 1 or more")
    if not Span.parse(every).amount:
        raise BadInput(f"no training lies between looks {every} apart; give --settled-every above 0")
