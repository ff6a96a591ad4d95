"""What a process is doing, in a small file that it renews every few seconds; `sslticket watch` reads it."""

import os
import socket
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from sslticket.files import read_json, runs, write_json

FOLDER = ".status"
_LONGEST = 1 << 16  # bytes of a file
_MOST = 1e15  # of any number in it
SILENT = 120.0  # seconds without a word after which a process on another machine is taken for dead


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
    def silent(self) -> float | None:
        """Seconds since a process that has died, or gives no sign of life, wrote this; None for one at work."""
        age = time.time() - self.time
        dead = age > SILENT if self.host != socket.gethostname() else not runs(self.pid)
        return max(0.0, age) if dead else None


def read(folder: Path) -> list[Status]:
    """What the processes that work in a run's folder wrote last, in the order of their names.

    Damaged files are left out: the next word of their process mends them.
    """
    return [told for _, told in _files(folder)]


def forget_dead(folder: Path) -> None:
    """Delete what processes that are gone left in a run's folder; for one that takes up their work."""
    for path, told in _files(folder):
        if told.silent is not None:
            path.unlink(missing_ok=True)


def own(folder: Path) -> Path:
    """The status file of this process in a run's folder."""
    return folder / FOLDER / f"{socket.gethostname()}.{os.getpid()}.json"


def _files(folder: Path) -> Iterator[tuple[Path, Status]]:
    for path in sorted((folder / FOLDER).glob("*.json")):
        try:
            # A loss that is no number is written too.
            told = read_json(path, most=_LONGEST, finite=False)
        except (OSError, ValueError):
            continue
        if isinstance(told, dict) and told.keys() == _KINDS.keys() and all(map(_fits, told, told.values())):
            yield path, Status(**told)


_NUMBER = (int, float)
_KINDS: dict[str, tuple[type, ...]] = {
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


def _fits(name: str, value: object) -> bool:
    """Whether it is of a field's type, and a number that can be shown; a loss may be none."""
    if type(value) not in _KINDS[name]:
        return False
    return not isinstance(value, _NUMBER) or abs(value) <= _MOST or name == "loss"
