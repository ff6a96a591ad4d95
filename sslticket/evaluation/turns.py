"""Work that several processes share, done to its end: what others have in hand is waited for, and taken over."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from sslticket.training.progress import Progress

Work = TypeVar("Work")
Row = dict[str, Any]
_WAIT = 2.0  # seconds between looks at what other processes have finished


def in_turns(
    left: Callable[[], Sequence[Work]],
    do: Callable[[Work], Sequence[Row] | None],
    progress: Progress,
    *,
    samples: Callable[[Sequence[Work]], int],
    rows: Callable[[Sequence[Work]], int],
) -> Iterator[Row]:
    """Do all that is left, and yield its rows.

    Args:
        left: what is not done yet, by whomever.
        do: does a piece of it; None where another process has it in hand.
        progress: is told what remains.
        samples: that some pieces will see.
        rows: that some pieces will fill.
    """
    works, waited = left(), False
    while works:
        idle = True
        for number, work in enumerate(works):
            progress.remaining(samples(works[number:]))
            done = do(work)
            idle = idle and done is None
            yield from done or ()
        works = left()
        if works and idle:
            if not waited:
                progress.note(f"waiting for other processes, which have {rows(works)} of these rows in hand")
            waited = True
            time.sleep(_WAIT)
