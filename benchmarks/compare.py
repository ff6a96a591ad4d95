"""Ours against the alternatives: each in a process of its own, in turn, by the processor's time.

A contender is a function that prepares all that need not be timed and returns the work of one round. It runs in a child
of its own, so that none profits from another's memory, allocator, threads or modules. What a round took is the time of
the processor in all threads and children of that process: other work on the machine changes it little. A ratio is the
median over the rounds, each of which has every contender once.
"""

import dataclasses
import multiprocessing
import resource
import statistics
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Literal

Work = Callable[[], object]
Prepare = Callable[[], Work]
Kind = Literal["faster", "smaller", "more", "of", "alone"]

_ENOUGH, _FEWEST = 40.0, 3  # seconds of the processor that all rounds of one comparison may take, rounds


fewer_rounds: int | None = None
"""So many rounds at most, none of them to warm up, for a look at what the lines are; None for those of each topic."""


class NotHere(Exception):
    """Says what this machine lacks for a comparison."""


@dataclass(frozen=True)
class Turn:
    """One round of one contender.

    Attributes:
        seconds: The processor's time in all threads and in children that ended.
        system: The part of it that was spent in the kernel.
        faults: Pages that the kernel had to provide.
        told: What the work returned.
    """

    seconds: float
    system: float
    faults: int
    told: Any = None


@dataclass(frozen=True)
class Timed:
    """What a work returns that took its own time, since not all of it counts."""

    seconds: float
    told: Any = None


Turns = dict[str, list[Turn]]
Figure = Callable[[Turn], float]


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of the table.

    Attributes:
        what: What is measured.
        ours: Our median; None where nothing was measured.
        other: The alternative's median.
        unit: The unit of both.
        than: The alternative, in words.
        kind: What the ratio is: "faster" and "smaller" are the alternative's figure divided by ours, "more" and "of"
            ours divided by the alternative's; with "alone" there is none, and the target is for our own figure.
        ratio: The median of the ratio over the rounds.
        low: The least ratio of a round.
        high: The greatest ratio of a round.
        rounds: Rounds that count.
        target: What the ratio, or our own figure, must reach.
        met: Whether it does; None without a target or measurement.
        note: What is to be known of the figures, or why there are none.
    """

    what: str
    ours: float | None = None
    other: float | None = None
    unit: str = ""
    than: str = ""
    kind: Kind = "alone"
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    rounds: int = 0
    target: float | None = None
    met: bool | None = None
    note: str = ""


def in_turn(contenders: Mapping[str, Prepare], rounds: int, *, warm: int = 1, enough: float = _ENOUGH) -> Turns:
    """What each contender takes in rounds A B C, A B C, ..., after `warm` rounds that don't count.

    Args:
        contenders: What prepares each of them, in its own process.
        rounds: Rounds that count.
        warm: Rounds before them.
        enough: Seconds of the processor after which no further round is begun, where three have been.
    """
    turns: Turns = {name: [] for name in contenders}
    spent = 0.0
    rounds, warm = (rounds, warm) if fewer_rounds is None else (min(rounds, fewer_rounds), 0)
    with ExitStack() as children:
        ask = {name: children.enter_context(_child(name, prepare)) for name, prepare in contenders.items()}
        for number in range(-warm, rounds):
            if number >= _FEWEST and spent > enough:
                break
            for name, once in ask.items():
                turn = once()
                spent += turn.seconds
                if number >= 0:
                    turns[name].append(turn)
    return turns


@contextmanager
def _child(name: str, prepare: Prepare) -> Iterator[Callable[[], Turn]]:
    """A process in which the contender is prepared, and what asks it for one round."""
    forked = multiprocessing.get_context("fork")
    here, there = forked.Pipe()
    process = forked.Process(target=_serve, args=(prepare, there))
    process.start()
    there.close()

    def answer() -> Any:
        try:
            found = here.recv()
        except EOFError:
            process.join()
            raise RuntimeError(f"the process of {name!r} ended with code {process.exitcode}") from None
        if isinstance(found, NotHere):
            raise found
        if isinstance(found, str):
            raise RuntimeError(f"{name!r} failed:\n{found}")
        return found

    def once() -> Turn:
        here.send("go")
        turn: Turn = answer()
        return turn

    try:
        answer()
        yield once
    finally:
        here.close()
        process.join(10)
        if process.is_alive():
            process.kill()
            process.join()


def _serve(prepare: Prepare, asked: Connection) -> None:
    try:
        work = prepare()
        asked.send(None)
        before = _usage()
        while True:
            try:
                asked.recv()
            except EOFError:
                return
            told = work()
            # From the end of the last round: what its threads went on with, such as batches ahead, belongs to this one.
            seconds, system, faults = (now - then for now, then in zip(_usage(), before, strict=True))
            before = _usage()
            if isinstance(told, Timed):
                seconds, told = told.seconds, told.told
            asked.send(Turn(seconds, system, int(faults), told))
    except NotHere as lacking:
        asked.send(lacking)
    except BaseException:
        asked.send(traceback.format_exc())


def _usage() -> tuple[float, float, int]:
    """Seconds of the processor with those of ended children, the kernel's part of them, and pages that it provided."""
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = time.process_time() + children.ru_utime + children.ru_stime
    return seconds, own.ru_stime + children.ru_stime, own.ru_minflt + children.ru_minflt


def timed(work: Callable[[], object]) -> Timed:
    """Do the work; its time alone counts, not what was done before it in the same round."""
    began = time.process_time()
    told = work()
    return Timed(time.process_time() - began, told)


def of_seconds(turn: Turn) -> float:
    """The figure that a comparison is about by default: the processor's time."""
    return turn.seconds


def told(turn: Turn) -> float:
    """The figure that the work returned."""
    return float(turn.told)


def middle(turns: Turns, name: str, figure: Figure = of_seconds) -> float:
    """The median figure of a contender."""
    return statistics.median(figure(turn) for turn in turns[name])


def compared(
    turns: Turns,
    what: str,
    than: str,
    *,
    ours: str = "ours",
    other: str,
    kind: Kind = "faster",
    target: float | None = None,
    unit: str = "ms",
    per: float = 1.0,
    figure: Figure = of_seconds,
    note: str = "",
) -> Line:
    """The line of ours against one alternative.

    Args:
        turns: What was measured.
        what: What it is of.
        than: The alternative, in words.
        ours: The contender that is ours.
        other: The contender that is the alternative.
        kind: What the ratio is; see `Line`.
        target: What the ratio must reach: at least for "faster" and "smaller", at most for "more" and "of".
        unit: The unit that is shown: "ms" and "us" are made of seconds, others are the figure's own.
        per: What a round's figure is divided by, such as its images or steps.
        figure: What is compared.
        note: What is to be known of the figures.
    """
    pairs = [(figure(a), figure(b)) for a, b in zip(turns[ours], turns[other], strict=True)]
    upwards = kind in ("faster", "smaller")
    ratios = [b / a if upwards else a / b for a, b in pairs]
    ratio, scale = statistics.median(ratios), _SCALES.get(unit, 1.0) / per
    return Line(
        what=what,
        ours=scale * statistics.median(a for a, _ in pairs),
        other=scale * statistics.median(b for _, b in pairs),
        unit=unit,
        than=than,
        kind=kind,
        ratio=ratio,
        low=min(ratios),
        high=max(ratios),
        rounds=len(ratios),
        target=target,
        met=None if target is None else (ratio >= target if upwards else ratio <= target),
        note=note,
    )


_SCALES = {"ms": 1e3, "us": 1e6}


def alone(
    turns: Turns,
    what: str,
    *,
    ours: str = "ours",
    target: float | None = None,
    unit: str = "s",
    per: float = 1.0,
    figure: Figure = of_seconds,
    note: str = "",
) -> Line:
    """The line of a figure of ours that stands beside no alternative; the target is the most that it may be."""
    scale = _SCALES.get(unit, 1.0) / per
    figures = [scale * figure(turn) for turn in turns[ours]]
    value = statistics.median(figures)
    return Line(
        what=what,
        ours=value,
        unit=unit,
        low=min(figures),
        high=max(figures),
        rounds=len(figures),
        target=target,
        met=None if target is None else value <= target,
        note=note,
    )


def not_measured(what: str, reason: object) -> Line:
    """The line of what this machine cannot measure."""
    return Line(what=what, note=f"not measured: {reason}")


def cells(line: Line) -> tuple[str, ...]:
    """A line as it is shown: what, ours, the alternative, the ratio with its spread, the target, whether it is met."""
    if line.ours is None:
        return (line.what, line.note, "", "", "", "")
    ours, verdict = f"{number(line.ours)} {line.unit}", {True: "yes", False: "**no**", None: ""}[line.met]
    what = f"{line.what} ({line.note})" if line.note else line.what
    if line.kind == "alone" or line.ratio is None or line.low is None or line.high is None or line.other is None:
        spread = f"{number(line.low or 0)} to {number(line.high or 0)}" if line.rounds > 1 else ""
        target = "" if line.target is None else f"<= {number(line.target)} {line.unit}"
        return (what, ours, line.than, spread, target, verdict)
    ratio = f"{_shown(line.kind, line.ratio)} ({_bare(line.kind, line.low)} to {_bare(line.kind, line.high)})"
    sign = ">=" if line.kind in ("faster", "smaller") else "<="
    target = "" if line.target is None else f"{sign} {_bare(line.kind, line.target)}"
    return (what, ours, f"{number(line.other)} {line.unit} {line.than}", ratio, target, verdict)


def _shown(kind: Kind, ratio: float) -> str:
    return _bare(kind, ratio) + {"faster": " faster", "smaller": " smaller", "more": " more", "of": ""}.get(kind, "")


def _bare(kind: Kind, ratio: float) -> str:
    if kind == "more":
        return f"{ratio - 1:+.1%}"
    return f"{ratio:.2f}x" if ratio < 100 else f"{ratio:.0f}x"


def number(value: float) -> str:
    """A figure with three digits that matter."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.2f}" if abs(value) >= 10 else f"{value:.3g}"


def text(lines: list[Line]) -> str:
    """The lines as one aligned table."""
    rows = [("what", "ours", "alternative", "ratio (spread)", "target", "met"), *map(cells, lines)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rows.insert(1, tuple("-" * width for width in widths))
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def as_row(line: Line) -> dict[str, Any]:
    """A line as a JSON row, without what is not there."""
    return {name: value for name, value in dataclasses.asdict(line).items() if value not in (None, "")}


def from_row(row: Mapping[str, Any]) -> Line:
    """The line of a JSON row; what else the row has is left out."""
    names = {field.name for field in dataclasses.fields(Line)}
    return Line(**{name: value for name, value in row.items() if name in names})
