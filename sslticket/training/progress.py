"""Live progress: on the terminal, and to whoever else listens."""

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType

from tqdm import tqdm
from tqdm.utils import disp_len, disp_trim

from sslticket.escaping import escape_terminal
from sslticket.processes import signals


@dataclass(frozen=True, kw_only=True)
class ProgressUpdate:
    """What a training shows at one moment.

    Attributes:
        task: what is trained, for a person.
        step: optimiser steps taken.
        steps: of the whole training.
        samples: source images seen in this training.
        rate: source images a second since the last look.
        loss: of the last step.
        lr: the learning rate of the last step.
        left: seconds until the whole search or matrix is done, at this rate.
    """

    task: str
    step: int
    steps: int
    samples: int
    rate: float
    loss: float
    lr: float
    left: float


class Tracker:
    """Is told what a training shows; does nothing with it."""

    def log_progress(self, look: ProgressUpdate) -> None:
        """About once a second."""

    def log_metrics(self, samples: int, values: Mapping[str, float]) -> None:
        """Metrics by name, or the accuracy of the probe, after so many samples of this training."""

    def close(self) -> None:
        """The training has ended, in whatever way."""


class _ProgressBar(tqdm):  # type: ignore[type-arg]  # it is generic for type checkers only
    """tqdm's bar with the loss at the left, and without what the terminal has no columns for.

    Attributes:
        task: what is trained.
        step: and where it is.
        loss: the latest.
        probed: the latest of the probe.
    """

    task, step, loss, probed = "", "", "", ""

    def __str__(self) -> str:
        """The line, at most as wide as the terminal."""
        told = dict(self.format_dict)
        # In the last column some terminals begin a new line.
        width = told["ncols"] - 1 if told["ncols"] else None
        for head in dict.fromkeys((self._prefix(self.task, self.probed), self._prefix(self.task, ""))):
            for tail in _BAR_FORMATS:
                told |= {"prefix": head, "ncols": None, "bar_format": tail.replace("{bar}", "")}
                least = disp_len(self.format_meter(**told)) + _MIN_BAR_WIDTH * ("{bar}" in tail)
                if width is None or least <= width:
                    return self.format_meter(**told | {"ncols": width, "bar_format": tail}).removeprefix(
                        ": "
                    )  # before any task
        assert width is not None
        rest = next((each for each in (self._prefix("", ""), self.loss) if disp_len(each) <= width), "")
        return f"{disp_trim(self.task, max(0, width - disp_len(rest) - 1))} {rest}".strip()

    def _prefix(self, task: str, probed: str) -> str:
        place = f"{task} {self.step}".strip()
        return ", ".join(filter(None, (place, self.loss, probed)))


_BAR_FORMATS = (
    "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_noinv_fmt}]",
    "{desc}: {percentage:3.0f}%|{bar}| [{elapsed}<{remaining}, {rate_noinv_fmt}]",
    "{desc}: {percentage:3.0f}%|{bar}| [{elapsed}<{remaining}]",
    "{desc}: {percentage:3.0f}% [<{remaining}]",
    "{desc}: {percentage:3.0f}%",
    "{desc}",
)
"""What follows the loss, as far as there is room. tqdm's own would turn a slow rate into seconds a sample."""
_MIN_BAR_WIDTH = 4  # columns of a bar that is worth being drawn


class Progress:
    """One bar over all the samples of a search or a matrix of evaluations; silent on all processes but the first."""

    def __init__(self, samples: int, *, done: int = 0, show: bool = True) -> None:
        # On a terminal the bar is redrawn in place; in a log file each redraw is a line, so one every half minute.
        interval = 0.2 if sys.stderr.isatty() else 30.0
        self._bar = _ProgressBar(
            total=samples,
            initial=done,
            unit=" samples",
            unit_scale=True,
            dynamic_ncols=True,
            mininterval=interval,
            maxinterval=max(interval, 10.0),
            disable=not show,
            file=sys.stderr,
        )
        self._task, self._steps = "", 0
        self._step, self._samples, self._batch, self._left = 0, 0, 0, samples - done
        self._fresh, self._since = 0, time.monotonic()
        self._listeners: tuple[Tracker, ...] = ()
        signals.set_activity(self._describe_position)

    @contextmanager
    def log_to(self, *listeners: Tracker) -> Iterator[None]:
        """Listeners to the training inside this block."""
        self._listeners = listeners
        try:
            yield
        finally:
            self._listeners = ()
            for listener in listeners:
                listener.close()

    def _describe_position(self) -> str:
        """Where the training is, for who stops it."""
        step = f" at step {self._step:,} of {self._steps:,}" if self._step else ""
        return f"in {self._task}{step}" if self._task else ""

    def start_task(self, name: str, steps: int) -> None:
        """Say what is being trained and over how many steps."""
        self._step = 0
        self._task, self._steps = escape_terminal(name), steps
        self._bar.task, self._bar.step, self._bar.loss, self._bar.probed = self._task, "", "", ""
        self._fresh, self._since = 0, time.monotonic()

    def set_remaining(self, samples: int) -> None:
        """So many samples are left now, whatever was left before: others may have done a part."""
        self._left = samples
        self._bar.total = self._bar.n + samples

    def advance(self, step: int, samples: int) -> None:
        """One step of `samples` images is done."""
        self._step, self._samples = step, step * samples
        self._fresh, self._left = self._fresh + samples, self._left - samples
        self._bar.step = f"step {step}/{self._steps}"
        self._bar.update(samples)

    def log_loss(self, value: float, lr: float) -> None:
        """The latest loss, and the learning rate with which it came."""
        self._bar.loss = f"loss {value:.4g}"
        if not self._listeners:
            return
        now = time.monotonic()
        rate = self._fresh / max(now - self._since, 1e-9)
        self._fresh, self._since = 0, now
        look = ProgressUpdate(
            task=self._task,
            step=self._step,
            steps=self._steps,
            samples=self._samples,
            rate=rate,
            loss=value,
            lr=lr,
            left=max(0, self._left) / max(rate, 1e-9),
        )
        for listener in self._listeners:
            listener.log_progress(look)

    def log_probe(self, accuracy: float) -> None:
        """The latest accuracy of the nearest-neighbour probe, a fraction."""
        self._bar.probed = f"nearest neighbours {accuracy:.1%}"
        self.log_metrics({"probe": accuracy})

    def log_metrics(self, values: Mapping[str, float]) -> None:
        """Metrics of the training as it stands; time that they took is no training's."""
        for listener in self._listeners:
            listener.log_metrics(self._samples, values)
        self._fresh, self._since = 0, time.monotonic()

    def note(self, text: str) -> None:
        """A line above the bar."""
        if not self._bar.disable:
            self._bar.write(escape_terminal(text), file=sys.stderr)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()
