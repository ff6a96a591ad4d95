"""Trackers of a training: the small status file that `sslticket watch` reads, and TensorBoard."""

import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sslticket.errors import BadInput
from sslticket.storage.files import process_exists, read_json, write_json
from sslticket.training.progress import ProgressUpdate, Tracker

STATUS_FOLDER = ".status"
_MAX_STATUS_BYTES = 1 << 16  # bytes of a file
_MAX_NUMBER = 1e15  # of any number in it
SILENT_AFTER = 120.0  # seconds without a word after which a process on another machine is taken for dead


@dataclass(frozen=True, kw_only=True)
class Status:
    """One moment of a training.

    Attributes:
        task: what is trained, for a person.
        step: optimiser steps taken.
        steps: of the whole training.
        rate: source images a second.
        loss: the latest.
        probe: the latest accuracy of the nearest-neighbour probe, a fraction; None where there is none.
        left: seconds until everything that the process was asked for is done; None where that cannot be told.
        host: the machine.
        pid: the process.
        time: of writing, seconds since 1970.
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
        """Renew the file."""
        write_json(path, asdict(self))

    @property
    def silent_seconds(self) -> float | None:
        """Seconds since a process that has died, or gives no sign of life, wrote this; None for one at work."""
        age = time.time() - self.time
        dead = age > SILENT_AFTER if self.host != socket.gethostname() else not process_exists(self.pid)
        return max(0.0, age) if dead else None


def read_statuses(folder: Path) -> list[Status]:
    """What the processes that work in a run's folder wrote last, in the order of their names.

    Damaged files are left out: the next word of their process mends them.
    """
    return [told for _, told in _valid_statuses(folder)]


def remove_dead_statuses(folder: Path) -> None:
    """Delete what processes that are gone left in a run's folder; for one that takes up their work."""
    for path, told in _valid_statuses(folder):
        if told.silent_seconds is not None:
            path.unlink(missing_ok=True)


def own_status_file(folder: Path) -> Path:
    """The status file of this process in a run's folder."""
    return folder / STATUS_FOLDER / f"{socket.gethostname()}.{os.getpid()}.json"


def _valid_statuses(folder: Path) -> Iterator[tuple[Path, Status]]:
    for path in sorted((folder / STATUS_FOLDER).glob("*.json")):
        try:
            # A loss that is no number is written too.
            told = read_json(path, most=_MAX_STATUS_BYTES, finite=False)
        except (OSError, ValueError):
            continue
        if (
            isinstance(told, dict)
            and told.keys() == _FIELD_TYPES.keys()
            and all(map(_is_valid_field, told, told.values()))
        ):
            yield path, Status(**told)


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
"""Of a status, in the order in which it is written."""


def _is_valid_field(name: str, value: object) -> bool:
    """Whether it is of a field's type, and a number that can be shown; a loss may be none."""
    if type(value) not in _FIELD_TYPES[name]:
        return False
    return not isinstance(value, _NUMBER) or abs(value) <= _MAX_NUMBER or name == "loss"


_STATUS_SECONDS = 3.0  # seconds between two words: each flushes a file to disk


class StatusFileTracker(Tracker):
    """Keeps the status file of this process in a run's folder; the file goes when the training ends."""

    def __init__(self, folder: Path) -> None:
        """Deletes the files of processes that are gone."""
        remove_dead_statuses(folder)
        self._path, self._last = own_status_file(folder), -_STATUS_SECONDS
        self._probe: float | None = None

    def log_progress(self, look: ProgressUpdate) -> None:
        """See the base class."""
        if time.monotonic() - self._last < _STATUS_SECONDS:
            return
        self._last = time.monotonic()
        now = Status(
            task=look.task,
            step=look.step,
            steps=look.steps,
            rate=look.rate,
            loss=look.loss,
            probe=self._probe,
            left=look.left,
            host=socket.gethostname(),
            pid=os.getpid(),
            time=time.time(),
        )
        with suppress(OSError):  # a disk that is full may have room again before there is anything to keep
            now.write(self._path)

    def log_metrics(self, samples: int, values: Mapping[str, float]) -> None:
        """See the base class."""
        self._probe = values.get("probe", self._probe)

    def close(self) -> None:
        """See the base class."""
        with suppress(OSError):
            self._path.unlink(missing_ok=True)


class TensorBoardTracker(Tracker):
    """Writes TensorBoard's event files of one training: each value against the samples seen."""

    def __init__(self, folder: Path) -> None:
        """Makes the folder.

        Raises:
            BadInput: if the package is not installed.
        """
        self._writer = tensorboard_writer_class()(str(folder))

    def log_progress(self, look: ProgressUpdate) -> None:
        """See the base class."""
        for name, value in {"loss": look.loss, "lr": look.lr, "samples a second": look.rate}.items():
            self._writer.add_scalar(name, value, look.samples)

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
        BadInput: if TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as missing:
        raise BadInput(
            f"--tensorboard needs a package that cannot be imported ({' '.join(str(missing).split())}); "
            "pip install 'sslticket[tensorboard]' or leave the flag out"
        ) from missing
    return SummaryWriter
