"""Live progress of a training: the progress bar, and trackers that get the same numbers.

Trackers are a small status file that `sslticket watch` reads, TensorBoard, and those of users (`--tracker`).
"""

import os
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from tqdm import tqdm
from tqdm.utils import disp_len, disp_trim

from sslticket.errors import BadInput
from sslticket.escaping import escape_terminal
from sslticket.processes import signals
from sslticket.storage.files import process_exists, read_json, write_json


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
        left: Seconds until the whole search or matrix of evaluations is done, at this rate.
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

    def log_progress(self, update: ProgressUpdate) -> None:
        """Called about once a second."""

    def log_metrics(self, samples: int, values: Mapping[str, float]) -> None:
        """Called with metrics by name, or with the accuracy "probe", after so many samples of this training."""

    def close(self) -> None:
        """Called when the training has ended, in whatever way."""


class _ProgressBar(tqdm):  # type: ignore[type-arg]  # it is generic for type checkers only
    """The bar of tqdm with the loss at the left, and without what the terminal has no columns for.

    Attributes:
        task: What is trained.
        step: Where that training is.
        loss: The latest loss.
        probed: The latest accuracy of the probe.
    """

    task, step, loss, probed = "", "", "", ""

    def __str__(self) -> str:
        """The line, at most as wide as the terminal."""
        values = dict(self.format_dict)
        # In the last column some terminals begin a new line.
        width = values["ncols"] - 1 if values["ncols"] else None
        for head in dict.fromkeys((self._prefix(self.task, self.probed), self._prefix(self.task, ""))):
            for tail in _BAR_FORMATS:
                values |= {"prefix": head, "ncols": None, "bar_format": tail.replace("{bar}", "")}
                least = disp_len(self.format_meter(**values)) + _MIN_BAR_WIDTH * ("{bar}" in tail)
                if width is None or least <= width:
                    return self.format_meter(**values | {"ncols": width, "bar_format": tail}).removeprefix(
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
        # On a terminal and in a notebook the bar is redrawn in place; in a log file each time is a line.
        interval = 0.2 if sys.stderr.isatty() or "ipykernel" in sys.modules else 30.0
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
        self._trackers: tuple[Tracker, ...] = ()
        signals.set_activity(self._describe_position)

    @contextmanager
    def log_to(self, *trackers: Tracker) -> Iterator[None]:
        """Sends what is logged inside this block to trackers, too, and closes them at its end."""
        self._trackers = trackers
        try:
            yield
        finally:
            self._trackers = ()
            for tracker in trackers:
                tracker.close()

    def _describe_position(self) -> str:
        """Where the training is, for the message when it is stopped."""
        step = f" at step {self._step:,} of {self._steps:,}" if self._step else ""
        return f"in {self._task}{step}" if self._task else ""

    def start_task(self, name: str, steps: int) -> None:
        """Shows what is trained now and over how many steps."""
        self._step = 0
        self._task, self._steps = escape_terminal(name), steps
        self._bar.task, self._bar.step, self._bar.loss, self._bar.probed = self._task, "", "", ""
        self._fresh, self._since = 0, time.monotonic()

    def set_remaining(self, samples: int) -> None:
        """Sets how many samples are left, whatever was left before: other processes may have done some."""
        self._left = samples
        self._bar.total = self._bar.n + samples

    def advance(self, step: int, samples: int) -> None:
        """Counts one step of `samples` images."""
        self._step, self._samples = step, step * samples
        self._fresh, self._left = self._fresh + samples, self._left - samples
        self._bar.step = f"step {step}/{self._steps}"
        self._bar.update(samples)

    def skip(self, steps: int, samples: int) -> None:
        """Counts steps of the task, of `samples` images together, that an earlier process has taken."""
        self._step, self._left = steps, self._left - samples
        self._bar.step = f"step {steps}/{self._steps}"
        self._bar.n += samples
        if not self._bar.disable:  # they tell nothing of this process's speed
            self._bar.initial += samples
            self._bar.last_print_n += samples

    def log_loss(self, value: float, lr: float) -> None:
        """Shows the latest loss; trackers get it with the learning rate."""
        self._bar.loss = f"loss {value:.4g}"
        if not self._trackers:
            return
        now = time.monotonic()
        rate = self._fresh / max(now - self._since, 1e-9)
        self._fresh, self._since = 0, now
        update = ProgressUpdate(
            task=self._task,
            step=self._step,
            steps=self._steps,
            samples=self._samples,
            rate=rate,
            loss=value,
            lr=lr,
            left=max(0, self._left) / max(rate, 1e-9),
        )
        for tracker in self._trackers:
            tracker.log_progress(update)

    def log_probe(self, accuracy: float) -> None:
        """Shows the latest accuracy of the nearest-neighbour probe, a fraction."""
        self._bar.probed = f"nearest neighbours {accuracy:.1%}"
        self.log_metrics({"probe": accuracy})

    def log_metrics(self, values: Mapping[str, float]) -> None:
        """Sends metrics to the trackers; the time that they took does not count as training."""
        for tracker in self._trackers:
            tracker.log_metrics(self._samples, values)
        self._fresh, self._since = 0, time.monotonic()

    def note(self, text: str) -> None:
        """Prints a line above the bar."""
        if not self._bar.disable:
            self._bar.write(escape_terminal(text), file=sys.stderr)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()


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


class TensorBoardTracker(Tracker):
    """Writes TensorBoard's event files of one training: each value against the samples seen."""

    def __init__(self, run: Path, name: str) -> None:
        """Makes the folder.

        Raises:
            BadInput: If the package is not installed.
        """
        super().__init__(run, name)
        self._writer = tensorboard_writer_class()(str(run / "tensorboard" / name))

    def log_progress(self, update: ProgressUpdate) -> None:
        """See the base class."""
        for name, value in {"loss": update.loss, "lr": update.lr, "samples a second": update.rate}.items():
            self._writer.add_scalar(name, value, update.samples)

    def log_metrics(self, samples: int, values: Mapping[str, float]) -> None:
        """See the base class."""
        for name, value in values.items():
            self._writer.add_scalar(name if name == "probe" else f"metrics/{name}", value, samples)

    def close(self) -> None:
        """See the base class."""
        self._writer.close()


def tensorboard_writer_class() -> Any:
    """Torch's class that writes event files; imported here, for it takes a second and few runs need it.

    Raises:
        BadInput: If TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as missing:
        raise BadInput(
            f"--tensorboard needs a package that cannot be imported ({' '.join(str(missing).split())}); "
            "pip install 'sslticket[tensorboard]' or leave the flag out"
        ) from missing
    return SummaryWriter
