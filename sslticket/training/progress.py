"""Live progress of a training: what a person sees of it, and the trackers that get the same numbers.

On a terminal two lines are redrawn in place; elsewhere, and in the file of `--log-file`, each look is a line with its
time. Trackers are a small status file that `sslticket watch` reads, and those of `--log` (`training/trackers.py`).
"""

import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from sslticket.config.training import format_duration
from sslticket.escaping import escape_terminal
from sslticket.processes import signals
from sslticket.storage.files import process_exists, read_json, write_json
from sslticket.training.display import Lines, Look, Screen, Sink, Stage, TimeLeft, can_redraw


@dataclass(frozen=True, kw_only=True)
class ProgressUpdate:
    """The state of a training, about once a second.

    Attributes:
        task: What is trained, such as "level 2/5".
        step: Optimiser steps taken.
        steps: Optimiser steps of the whole training.
        samples: Source images seen in this training.
        rate: Source images a second since the last update.
        loss: Loss of the last step.
        lr: Learning rate of the last step.
        left: Seconds until the whole search or matrix of evaluations is done, by what was measured so far.
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
    """Follows one training; this class does nothing with what it gets. Only the first process has trackers."""

    def __init__(self, run: Path, name: str) -> None:
        """Called when the training begins.

        Args:
            run: The folder of the run that the training belongs to.
            name: Name of the training within the run, such as "search.level-01".
        """
        self.run, self.name = run, name

    def log_settings(self, values: Mapping[str, Any]) -> None:
        """Called once at the beginning: the recipe's fields and key, and which training of the run it is."""

    def log_progress(self, update: ProgressUpdate) -> None:
        """Called about once a second."""

    def log_metrics(self, samples: int, values: Mapping[str, float]) -> None:
        """Called with metrics by name, or with the accuracy "probe", after so many samples of this training."""

    def log_row(self, row: Mapping[str, Any], files: Sequence[Path]) -> None:
        """Called with each row that the training led to, once it is written.

        Args:
            row: The row.
            files: The row's file, and the ticket's where one was found.
        """

    def close(self) -> None:
        """Called when the rows of the training are written, or when it has ended in any other way."""


class Progress:
    """How far a search or a matrix of evaluations is; shown by the first process alone.

    Attributes:
        about: What tells the task that is trained from others, for trackers; its density is shown.
    """

    def __init__(
        self,
        samples: int,
        *,
        done: int = 0,
        show: bool = True,
        log_file: Path | None = None,
        stages: Sequence[Stage] = (),
    ) -> None:
        """Begins to count.

        Args:
            samples: All that there is to see.
            done: Those of them that are seen already.
            show: Whether standard error shows it.
            log_file: File that gets it, too.
            stages: The trainings that the samples belong to, in their order, where that is known.
        """
        bar = os.environ.get("TQDM_DISABLE", "").lower() in ("", "0", "false")  # which users know from other tools
        self._sinks: list[Sink] = []
        if show:
            self._sinks.append(Screen() if bar and can_redraw() else Lines(looks=bar))
        if log_file is not None:
            self._sinks.append(Lines(log_file))
        self._shown = [time.monotonic()] * len(self._sinks)
        self.about: Mapping[str, Any] = {}
        self._task, self._steps, self._loss, self._probed = "", 0, "", ""
        self._step, self._samples, self._total = 0, 0, samples
        self._left_samples = samples - done
        self._fresh, self._since, self._rate = 0, time.monotonic(), 0.0
        self._time_left = TimeLeft(stages)
        self._trackers: tuple[Tracker, ...] = ()
        self._open: tuple[Tracker, ...] = ()
        signals.set_activity(self._describe_position)

    @contextmanager
    def log_to(self, *trackers: Tracker) -> Iterator[None]:
        """Sends what is logged inside this block to trackers, too; they wait for `log_rows` after it."""
        self._close_trackers()
        self._trackers = self._open = trackers
        try:
            yield
        except BaseException:
            self._close_trackers()
            raise
        finally:
            self._trackers = ()

    @property
    def has_open_trackers(self) -> bool:
        """Whether trackers of a training wait for its rows."""
        return bool(self._open)

    def log_rows(self, rows: Mapping[Path, Mapping[str, Any]], *files: Path) -> None:
        """Sends the trackers of the training that has ended its rows, and closes them.

        Args:
            rows: The rows by their files.
            *files: What else the training left, such as a ticket.
        """
        for path, row in rows.items():
            for tracker in self._open:
                tracker.log_row(row, [path, *files])
        self._close_trackers()

    def _close_trackers(self) -> None:
        trackers, self._open, self._trackers = self._open, (), ()
        for tracker in trackers:
            tracker.close()

    def _describe_position(self) -> str:
        """Where the training is, for the message when it is stopped."""
        step = f" at step {self._step:,} of {self._steps:,}" if self._step else ""
        return f"in {self._task}{step}" if self._task else ""

    def _look(self) -> Look:
        """How far it is now."""
        density, rate = self.about.get("density"), self._rate
        seconds = self._time_left.seconds(self._left_samples) if self._left_samples > 0 else None
        return Look(
            share=min(1.0, max(0.0, 1 - self._left_samples / self._total)) if self._total else 1.0,
            task=f"{self._task}, density {density:.1%}" if isinstance(density, float) else self._task,
            step=f"step {self._step:,}/{self._steps:,}" if self._step else "",
            loss=self._loss,
            probe=self._probed,
            rate=f"{rate:,.0f} images/s" if rate >= 10 else f"{rate:.2g} images/s" if rate else "",
            left="" if seconds is None else f"{format_duration(seconds)} left",
        )

    def start_task(self, name: str, steps: int, about: Mapping[str, Any] | None = None) -> None:
        """Shows what is trained now and over how many steps.

        Args:
            name: What a person reads.
            steps: Optimiser steps.
            about: What tells it from others: level, density, control, protocol, seed.
        """
        self._step, self._loss, self._probed = 0, "", ""
        self._task, self._steps, self.about = escape_terminal(name), steps, about or {}
        self._fresh, self._since = 0, time.monotonic()
        self._time_left.pause(self._since)
        self._show()

    def set_remaining(self, samples: int) -> None:
        """Sets how many samples are left, whatever was left before: other processes may have done some."""
        done = self._total - self._left_samples
        self._left_samples, self._total = samples, done + samples

    def know(self, stage: int, samples: int, seconds: float) -> None:
        """Takes what an earlier process has measured in a stage, for the time that is left."""
        self._time_left.know(stage, samples, seconds)

    def advance(self, step: int, samples: int) -> None:
        """Counts one step of `samples` images."""
        self._step, self._samples = step, step * samples
        self._fresh, self._left_samples = self._fresh + samples, self._left_samples - samples
        if self._sinks or self._trackers:
            now = time.monotonic()
            self._time_left.advance(self._left_samples, samples, now)
            self._show(now)

    def skip(self, steps: int, samples: int) -> None:
        """Counts steps of the task, of `samples` images together, that an earlier process has taken."""
        self._step, self._left_samples = steps, self._left_samples - samples

    def _show(self, now: float | None = None) -> None:
        """Shows how far it is wherever that was last shown long ago."""
        now = time.monotonic() if now is None else now
        for place, sink in enumerate(self._sinks):
            if now - self._shown[place] >= sink.interval:
                self._shown[place] = now
                sink.show(self._look())

    def log_loss(self, value: float, lr: float) -> None:
        """Shows the latest loss; trackers get it with the learning rate."""
        self._loss = f"loss {value:.4g}"
        now = time.monotonic()
        self._rate = rate = self._fresh / max(now - self._since, 1e-9)
        self._fresh, self._since = 0, now
        if not self._trackers:
            return
        left = self._time_left.seconds(self._left_samples)
        update = ProgressUpdate(
            task=self._task,
            step=self._step,
            steps=self._steps,
            samples=self._samples,
            rate=rate,
            loss=value,
            lr=lr,
            left=max(0, self._left_samples) / max(rate, 1e-9) if left is None else left,
        )
        for tracker in self._trackers:
            tracker.log_progress(update)

    def log_probe(self, accuracy: float) -> None:
        """Shows the latest accuracy of the nearest-neighbour probe, a fraction."""
        self._probed = f"nearest neighbours {accuracy:.1%}"
        self.log_metrics({"probe": accuracy})

    def log_metrics(self, values: Mapping[str, float]) -> None:
        """Sends metrics to the trackers; the time that they took does not count as training."""
        for tracker in self._trackers:
            tracker.log_metrics(self._samples, values)
        self._fresh, self._since = 0, time.monotonic()
        self._time_left.pause(self._since)

    def note(self, text: str) -> None:
        """Prints a line that stays."""
        for sink in self._sinks:
            sink.note(escape_terminal(text))

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close_trackers()
        for sink in self._sinks:
            sink.close()


STATUS_FOLDER = ".status"
_MAX_STATUS_BYTES, _MAX_NUMBER = 1 << 16, 1e15
SILENT_AFTER = 120.0  # seconds without a new status file after which a process on another machine is taken for dead


@dataclass(frozen=True, kw_only=True)
class Status:
    """The state of a training at one moment, as its status file holds it.

    Attributes:
        task: What is trained, such as "level 2/5".
        step: Optimiser steps taken.
        steps: Optimiser steps of the whole training.
        rate: Source images a second.
        loss: The latest loss.
        probe: The latest accuracy of the nearest-neighbour probe, a fraction; None where there is none.
        left: Seconds until everything that the process was asked for is done; None where that is not known.
        host: Name of the machine.
        pid: Number of the process.
        time: Time of writing, in seconds since 1970.
    """

    task: str
    step: int
    steps: int
    rate: float
    loss: float
    probe: float | None
    left: float | None
    host: str
    pid: int
    time: float

    def write(self, path: Path) -> None:
        """Writes the file, in place of an earlier one."""
        write_json(path, asdict(self))

    @property
    def silent_seconds(self) -> float | None:
        """Seconds since a process that has died, or gives no sign of life, wrote this; None for one that works."""
        age = time.time() - self.time
        dead = age > SILENT_AFTER if self.host != socket.gethostname() else not process_exists(self.pid)
        return max(0.0, age) if dead else None


def read_statuses(folder: Path) -> list[Status]:
    """The last status of each process that works in a run's folder, in the order of their names.

    Damaged files are left out: their processes write new ones.
    """
    return [status for _, status in _valid_statuses(folder)]


def remove_dead_statuses(folder: Path) -> None:
    """Deletes the status files of processes that are gone from a run's folder."""
    for path, status in _valid_statuses(folder):
        if status.silent_seconds is not None:
            path.unlink(missing_ok=True)


def own_status_file(folder: Path) -> Path:
    """Path of the status file of this process in a run's folder."""
    return folder / STATUS_FOLDER / f"{socket.gethostname()}.{os.getpid()}.json"


def _valid_statuses(folder: Path) -> Iterator[tuple[Path, Status]]:
    for path in sorted((folder / STATUS_FOLDER).glob("*.json")):
        try:
            # A loss that is no number is written too.
            found = read_json(path, most=_MAX_STATUS_BYTES, finite=False)
        except (OSError, ValueError):
            continue
        if (
            isinstance(found, dict)
            and found.keys() == _FIELD_TYPES.keys()
            and all(map(_is_valid_field, found, found.values()))
        ):
            yield path, Status(**found)


_NUMBER = (int, float)
_FIELD_TYPES: dict[str, tuple[type, ...]] = {
    "task": (str,),
    "step": (int,),
    "steps": (int,),
    "rate": _NUMBER,
    "loss": _NUMBER,
    "probe": (*_NUMBER, type(None)),
    "left": (*_NUMBER, type(None)),
    "host": (str,),
    "pid": (int,),
    "time": _NUMBER,
}
"""The types of a status's fields, in the order in which they are written."""


def _is_valid_field(name: str, value: object) -> bool:
    """Whether a value is of its field's type, and a number that can be shown; a loss may be NaN or infinite."""
    if type(value) not in _FIELD_TYPES[name]:
        return False
    return not isinstance(value, _NUMBER) or abs(value) <= _MAX_NUMBER or name == "loss"


_STATUS_SECONDS = 3.0  # between two versions of a status file: each flushes a file to disk


class StatusFileTracker(Tracker):
    """Keeps the status file of this process in a run's folder; the file goes when the training ends."""

    def __init__(self, run: Path, name: str) -> None:
        """Deletes the files of processes that are gone."""
        super().__init__(run, name)
        remove_dead_statuses(run)
        self._path, self._last = own_status_file(run), -_STATUS_SECONDS
        self._probe: float | None = None

    def log_progress(self, update: ProgressUpdate) -> None:
        """See the base class."""
        if time.monotonic() - self._last < _STATUS_SECONDS:
            return
        self._last = time.monotonic()
        fields = {name: getattr(update, name) for name in ("task", "step", "steps", "rate", "loss", "left")}
        status = Status(**fields, probe=self._probe, host=socket.gethostname(), pid=os.getpid(), time=time.time())
        with suppress(OSError):  # a disk that is full may have room again before there is anything to keep
            status.write(self._path)

    def log_metrics(self, samples: int, values: Mapping[str, float]) -> None:
        """See the base class."""
        self._probe = values.get("probe", self._probe)

    def close(self) -> None:
        """See the base class."""
        with suppress(OSError):
            self._path.unlink(missing_ok=True)
