"""Who listens to a training: a small status file for `sslticket watch`, and TensorBoard."""

import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from sslticket.errors import BadInput
from sslticket.status import Status, forget_dead, own
from sslticket.training.progress import Listener, Look

_EVERY = 3.0  # seconds between two words: each flushes a file to disk


class StatusFile(Listener):
    """Keeps the status file of this process in a run's folder; the file goes when the training ends."""

    def __init__(self, folder: Path) -> None:
        """Deletes the files of processes that are gone."""
        forget_dead(folder)
        self._path, self._last = own(folder), -_EVERY
        self._probe: float | None = None

    def look(self, look: Look) -> None:
        """See the base class."""
        if time.monotonic() - self._last < _EVERY:
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

    def measured(self, samples: int, values: Mapping[str, float]) -> None:
        """See the base class."""
        self._probe = values.get("probe", self._probe)

    def close(self) -> None:
        """See the base class."""
        with suppress(OSError):
            self._path.unlink(missing_ok=True)


class TensorBoard(Listener):
    """Writes TensorBoard's event files of one training: each value against the samples seen."""

    def __init__(self, folder: Path) -> None:
        """Makes the folder.

        Raises:
            BadInput: if the package is not installed.
        """
        self._writer = writer()(str(folder))

    def look(self, look: Look) -> None:
        """See the base class."""
        for name, value in {"loss": look.loss, "lr": look.lr, "samples a second": look.rate}.items():
            self._writer.add_scalar(name, value, look.samples)

    def measured(self, samples: int, values: Mapping[str, float]) -> None:
        """See the base class."""
        for name, value in values.items():
            self._writer.add_scalar(name if name == "probe" else f"metrics/{name}", value, samples)

    def close(self) -> None:
        """See the base class."""
        self._writer.close()


def writer() -> Any:
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
