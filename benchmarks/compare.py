"""Ours against the alternative, in turn and in one run: a ratio survives a busy machine, a figure does not."""

import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

Figures = dict[str, list[float]]

_ENOUGH, _FEWEST = 45.0, 3  # seconds, rounds


@dataclass(frozen=True)
class Line:
    """One line of the table; `met` is None where there is no target or nothing was measured."""

    what: str
    ours: str
    other: str = ""
    ratio: str = ""
    target: str = ""
    met: bool | None = None


def in_turn(contenders: dict[str, Callable[[], float]], repeats: int, *, warm: int = 1) -> Figures:
    """What each contender returns in rounds A B C, A B C, ..., after `warm` rounds that don't count.

    `repeats` rounds, or fewer where a slow or busy machine needs longer than `_ENOUGH` for them.
    """
    figures: Figures = {name: [] for name in contenders}
    began = time.monotonic()
    for number in range(-warm, repeats):
        if number >= _FEWEST and time.monotonic() - began > _ENOUGH:
            break
        for name, contender in contenders.items():
            figure = contender()
            if number >= 0:
                figures[name].append(figure)
    return figures


def seconds(work: Callable[[], object]) -> Callable[[], float]:
    """A contender whose figure is the seconds that the work takes."""

    def measured() -> float:
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

    return measured


def rate(start: Callable[[], Iterable[object]], batch_size: int) -> Callable[[], float]:
    """A contender whose figure is images a second over all batches; workers may be kept running from round to round.

    From the start, not from the first batch: when that arrives, other workers have nearly finished further ones.
    """

    def measured() -> float:
        began = time.perf_counter()
        count = sum(1 for _ in start())
        return count * batch_size / (time.perf_counter() - began)

    return measured


def middle(figures: Figures, name: str) -> float:
    """The median figure of a contender."""
    return statistics.median(figures[name])


def ratio(figures: Figures, above: str, below: str) -> float:
    """The median over the rounds of one contender's figure divided by another's in the same round."""
    return statistics.median(a / b for a, b in zip(figures[above], figures[below], strict=True))


def text(lines: list[Line]) -> str:
    """The lines as one aligned table."""
    verdict = {True: "yes", False: "no", None: ""}
    rows: list[tuple[str, ...]] = [("what", "ours", "alternative", "ratio", "target", "met")]
    rows += [(line.what, line.ours, line.other, line.ratio, line.target, verdict[line.met]) for line in lines]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rows.insert(1, tuple("-" * width for width in widths))
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
