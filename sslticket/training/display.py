"""What a person sees of progress: two lines on a terminal, lines with their times elsewhere, and the time that is left.

Time left is that of all that the command does, by what this run has measured of its levels. They get cheaper where
sparse steps do, and none is taken for cheaper before measured ones say so.
"""

import math
import sys
import time
from bisect import bisect_left
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from sslticket.config.runtime import RuntimeConfig
from sslticket.escaping import escape_terminal

if TYPE_CHECKING:  # rich takes a while, and few commands show a bar
    from rich.console import Console, RenderableType

_REDRAW_SECONDS, _LINE_SECONDS = 0.5, 30.0  # between two looks, on a terminal and as lines
_MIN_BAR_WIDTH = 10  # columns of a bar that is worth being drawn
_ENOUGH = 0.1  # of a stage: from there on its own speed counts


class Stage(NamedTuple):
    """A stretch of work at one density, such as the training that finds a level.

    Attributes:
        samples: Source images, at most.
        density: Of the network that is trained; None where it is not known before.
    """

    samples: int
    density: float | None = None


@dataclass
class _Measured:
    """What a stage has taken so far, in images and seconds."""

    samples: int = 0
    seconds: float = 0.0


@dataclass
class TimeLeft:
    """Measures stages as they are done, and says how long the rest takes.

    Seconds of an image are taken as a line over the densities of the stages that were measured. What is scored,
    measured and saved between stages takes as long as it last took; what comes before the first is done once.

    Attributes:
        stages: The stages, in their order; none where only the number of samples is known.
    """

    stages: Sequence[Stage]
    _ends: list[int] = field(init=False)
    _measured: list[_Measured] = field(init=False)
    _number: int | None = None
    _tick: float | None = None
    _pauses: float = 0.0
    _last_pauses: float = 0.0

    def __post_init__(self) -> None:
        self._ends = list(accumulate(stage.samples for stage in self.stages))
        self._measured = [_Measured() for _ in self.stages or (None,)]

    def know(self, stage: int, samples: int, seconds: float) -> None:
        """Takes what an earlier process has measured in a stage."""
        self._measured[stage] = _Measured(samples, seconds)

    def advance(self, left: int, samples: int, now: float) -> None:
        """Counts samples that have just been seen.

        Args:
            left: Samples that are left after them.
            samples: How many they are.
            now: The time, in seconds of any clock.
        """
        number = self._stage_at(self._total - left)
        if number != self._number:
            self._last_pauses = 0.0 if self._number is None else self._pauses
            self._number, self._pauses = number, 0.0
        if self._tick is not None:
            stage = self._measured[number]
            stage.samples, stage.seconds = stage.samples + samples, stage.seconds + now - self._tick
        self._tick = now

    def pause(self, now: float) -> None:
        """What has passed since the last sample was no training: something was measured, scored or saved."""
        if self._tick is not None:
            self._pauses += now - self._tick
        self._tick = now

    def seconds(self, left: int) -> float | None:
        """How long so many samples take; None before anything was measured.

        Args:
            left: Samples that are left.
        """
        if not any(each.samples for each in self._measured):
            return None
        if not self.stages:
            (only,) = self._measured
            return (only.seconds + self._pauses) / only.samples * max(0, left)
        here, found = self._stage_at(self._total - left + 1), 0.0
        for number in range(here, len(self.stages)):
            behind = self._total - self._ends[number]
            found += min(self.stages[number].samples, max(0, left - behind)) * self._pace(number)
        return found + self._last_pauses * (len(self.stages) - here)

    @property
    def _total(self) -> int:
        return self._ends[-1] if self._ends else 0

    def _stage_at(self, done: int) -> int:
        """The stage of the last of so many samples."""
        return min(bisect_left(self._ends, done), len(self._measured) - 1) if self._ends else 0

    def _pace(self, number: int) -> float:
        """Seconds of an image in a stage."""
        known = [
            (stage.density, each.seconds / each.samples, each.samples)
            for stage, each in zip(self.stages, self._measured, strict=True)
            if each.samples and each.samples >= _ENOUGH * stage.samples
        ]
        own, density = self._measured[number], self.stages[number].density
        if own.samples and (own.samples >= _ENOUGH * self.stages[number].samples or not known):
            return own.seconds / own.samples
        if not known:  # a stage has just begun, and nothing else is known
            return sum(each.seconds for each in self._measured) / sum(each.samples for each in self._measured)
        points = [(at, pace, count) for at, pace, count in known if at is not None]
        if density is None or len({at for at, *_ in points}) < 2:
            return known[-1][1]
        weight = sum(count for *_, count in points)
        middle = sum(count * at for at, _, count in points) / weight
        mean = sum(count * pace for _, pace, count in points) / weight
        slope = sum(count * (at - middle) * (pace - mean) for at, pace, count in points)
        slope /= sum(count * (at - middle) ** 2 for at, _, count in points)
        # No sparser stage is taken for slower, and at density 0 something is left to be done.
        return max(mean + max(0.0, slope) * (density - middle), 0.1 * min(pace for _, pace, _ in points))


class Look(NamedTuple):
    """How far it is at one moment, in words; "" for what there is nothing to say of.

    Attributes:
        share: The fraction of all samples that is done.
        task: What is trained, and at which density.
        step: Where that training is.
        loss: The latest loss.
        probe: The latest accuracy of the probe.
        rate: How fast it goes.
        left: When all is done.
    """

    share: float
    task: str
    step: str
    loss: str
    probe: str
    rate: str
    left: str


class Sink(Protocol):
    """Where progress is shown.

    Attributes:
        interval: Seconds between two looks.
    """

    interval: float

    def show(self, look: Look) -> None:
        """Shows how far it is."""

    def note(self, text: str) -> None:
        """Shows a line that stays."""

    def close(self) -> None:
        """Shows no more."""


class Screen:
    """Two lines of a terminal, or of a notebook's cell, that are drawn in place below the notes."""

    interval = _REDRAW_SECONDS

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        # Widgets draw in a notebook; anything else is a terminal, whatever variables say.
        self._console = (
            Console() if _in_notebook() else Console(file=sys.stderr, force_terminal=True, force_jupyter=False)
        )
        self._live = Live(console=self._console, auto_refresh=False, redirect_stdout=False, transient=True)

    def show(self, look: Look) -> None:
        """See `Sink`."""
        if not self._live.is_started:
            self._live.start()
            self._console.show_cursor(True)  # a process that is killed leaves it as it is
        self._live.update(screen_lines(look, self._console), refresh=True)

    def note(self, text: str) -> None:
        """See `Sink`."""
        self._console.print(text, markup=False, highlight=False, emoji=False, soft_wrap=True)

    def close(self) -> None:
        """See `Sink`."""
        self._live.stop()


class Lines:
    """Lines with the time, in a log or where standard error is no terminal."""

    interval = _LINE_SECONDS

    def __init__(self, file: Path | None = None, *, looks: bool = True) -> None:
        """Takes where they go.

        Args:
            file: File to which they are appended; None for standard error.
            looks: Whether there are more than notes.
        """
        self._file = file
        if not looks:
            self.interval = math.inf

    def show(self, look: Look) -> None:
        """See `Sink`."""
        told = [look.task, look.step, look.loss, look.probe, look.rate]
        self.note(", ".join(filter(None, [*told, f"{look.share:.0%} of all", look.left])))

    def note(self, text: str) -> None:
        """See `Sink`."""
        stamp = time.strftime("%Y-%m-%d %H:%M:%S")
        lines = "".join(f"{stamp} {line}\n" for line in text.splitlines())
        if self._file is None:
            print(lines, end="", file=sys.stderr, flush=True)
            return
        with suppress(OSError), self._file.open("a", encoding="utf-8") as stream:  # the work goes on without a log
            stream.write(lines)

    def close(self) -> None:
        """See `Sink`."""


def tell(text: str, runtime: RuntimeConfig) -> None:
    """Says something before there is progress: on standard error, and in the log."""
    if not runtime.quiet:
        print(escape_terminal(text), file=sys.stderr, flush=True)
    if runtime.log_file is not None:
        Lines(runtime.log_file).note(escape_terminal(text))


def screen_lines(look: Look, console: "Console") -> "RenderableType":
    """What a terminal shows: the training in one line, and below it a bar over all that the command does.

    Args:
        look: How far it is.
        console: The terminal, whose width decides what there is room for; the loss stays longest.
    """
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    width = max(1, console.width - 1)  # in the last column some terminals begin a new line
    task, facts = look.task, [look.step, look.loss, look.probe]
    # The probe goes first, then the end of the task's name, then the step.
    for least, dropped in ((len(task), 2), (min(len(task), _MIN_BAR_WIDTH), 0)):
        if least + 2 + len(", ".join(filter(None, facts))) > width:
            facts[dropped] = ""
    told = ", ".join(filter(None, facts))
    first = Text(task)
    first.truncate(max(0, width - len(told) - 2), overflow="ellipsis")
    line = Text(", " if first.plain and told else "").join([first, Text(told, style="bold")])
    line.truncate(width, overflow="crop")
    pieces = [f"{look.share:4.0%}", look.rate, look.left]
    while len(pieces) > 1 and len("  ".join(filter(None, pieces))) + _MIN_BAR_WIDTH + 1 > width:
        pieces.pop(1)
    tail = "  ".join(filter(None, pieces))
    grid = Table.grid(padding=(0, 1, 0, 0))
    if (bar := width - len(tail) - 1) >= _MIN_BAR_WIDTH:
        grid.add_row(ProgressBar(total=1.0, completed=look.share, width=bar), Text(tail))
    else:
        grid.add_row(Text(tail[:width]))
    whole = Table.grid()
    whole.add_row(line)
    whole.add_row(grid)
    return whole


def can_redraw() -> bool:
    """Whether standard error is a terminal, or a notebook has the widgets that draw in place."""
    if not _in_notebook():
        return sys.stderr.isatty()
    with suppress(ImportError):
        import ipywidgets  # noqa: F401

        return True
    return False


def _in_notebook() -> bool:
    """Whether a notebook's kernel runs this; libraries may import one where none is."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return hasattr(shell, "kernel")
