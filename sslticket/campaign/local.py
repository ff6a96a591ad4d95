"""Workers on this machine: as many processes as it has GPUs or cores, watched until the campaign has ended."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from sslticket import processes
from sslticket.campaign.state import PARENT_VARIABLE as PARENT_VARIABLE
from sslticket.campaign.state import CampaignFolder
from sslticket.config import flags
from sslticket.config.runtime import RuntimeConfig
from sslticket.errors import BadInput
from sslticket.processes import signals

_MAX_STARTS = 4
"""Times that one worker is started: what kills it each time would kill it again."""
_REFUSED = 2
_ENDS = (0, _REFUSED)
"""Codes of workers that found nothing more to do, or that bad input ended."""
_ASKED_TO_LEAVE = (signals.REQUEUE_EXIT, *(128 + number for number in (signal.SIGINT, *signals.STOP_SIGNALS)))
_POLL_SECONDS = 0.5
_STOP_SECONDS = 60.0
"""Seconds that workers have to leave when they are asked to, snapshots included."""


@dataclass
class _Slot:
    """A place for a worker.

    Attributes:
        number: Which one.
        device: The GPU that its workers see; None for a CPU.
        process: The worker; None where it has ended.
        starts: How many workers it has had.
        printed: Bytes in its log before this worker began.
    """

    number: int
    device: str | None
    process: "subprocess.Popen[bytes] | None" = None
    starts: int = 0
    printed: int = 0


def worker_command(
    words: Sequence[str], folder: CampaignFolder, runtime: RuntimeConfig, precision: str | None
) -> list[str]:
    """The command that starts a worker with the settings of this process, once the campaign has begun.

    A worker takes the cells that the campaign was begun with, so that the file of the sweep may be edited meanwhile.

    Args:
        words: The words after `sslticket`, such as ["sweep", "/x/lowshot.py"].
        folder: The folder of the campaign.
        runtime: The settings.
        precision: Precision of the passes where a recipe leaves it open; None for the device's own.
    """
    usual = RuntimeConfig()
    if words[0] == "sweep" and folder.kept_file.is_file():
        words = ["sweep", str(folder.kept_file.absolute()), *words[2:]]
    command = [sys.executable, "-m", "sslticket", *words, "--out", str(folder.out.absolute()), "--worker"]
    command += [] if precision is None else [f"--precision={precision}"]
    for setting in flags.settings_of(runtime):
        value = getattr(runtime, setting.field.name)
        if value != getattr(usual, setting.field.name) and value is not None:
            command += flags.words_of({setting.dest: value.absolute() if isinstance(value, Path) else value})
    return command


@contextmanager
def worker_threads() -> Iterator[None]:
    """Inside this block this process has as many threads as a worker on a CPU: a plan's speeds are those of workers."""
    import torch

    before = torch.get_num_threads()
    if not visible_devices() and not os.environ.get("OMP_NUM_THREADS"):
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def visible_devices() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    given = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    count = torch.cuda.device_count()
    return given[:count] if given else [str(number) for number in range(count)]


def count_workers(devices: Sequence[str], workers: int | None, per_device: int) -> int:
    """How many workers there are: as asked for, or as many as there are GPUs, or cores where there is none.

    Raises:
        BadInput: If a number is below 1, or several a device are asked for and there is no device.
    """
    if per_device < 1 or (workers is not None and workers < 1):
        given = workers if per_device >= 1 else per_device
        raise BadInput(
            f"--workers and --per-device must be at least 1, got {given}; leave it out for the machine's own"
        )
    if per_device > 1 and not devices:
        raise BadInput(f"--per-device needs a GPU, and there is none here, got {per_device}; give --workers")
    return workers or per_device * len(devices) or processes.usable_cores()


def launch_local(
    command: Sequence[str],
    folder: CampaignFolder,
    *,
    workers: int | None = None,
    per_device: int = 1,
    show: Callable[[], None] = lambda: None,
) -> None:
    """Starts workers, and starts one that dies again, until all have ended.

    Args:
        command: The command that starts a worker.
        folder: The folder of the campaign.
        workers: How many; None for as many as there are GPUs, or cores where there is none.
        per_device: Workers that share a GPU.
        show: Is called again and again, to show how far the campaign is.

    Raises:
        BadInput: See `count_workers`.
    """
    devices = visible_devices()
    count = count_workers(devices, workers, per_device)
    slots = [_Slot(number, devices[number % len(devices)] if devices else None) for number in range(count)]
    signals.set_activity(lambda: "while its workers were at work")
    try:
        for slot in slots:
            _start(slot, command, folder)
        while any(slot.process for slot in slots):
            for slot in slots:
                if slot.process is not None and (code := slot.process.poll()) is not None:
                    _note_end(slot, code, folder)
                    slot.process = None
                    if code not in _ENDS and slot.starts < _MAX_STARTS:
                        _start(slot, command, folder)
            show()
            time.sleep(_POLL_SECONDS)
    finally:
        _stop([slot.process for slot in slots if slot.process is not None])


def _start(slot: _Slot, command: Sequence[str], folder: CampaignFolder) -> None:
    environment = {**os.environ, PARENT_VARIABLE: str(os.getpid())}
    if slot.device is None:
        environment.setdefault("OMP_NUM_THREADS", "1")
    else:
        environment["CUDA_VISIBLE_DEVICES"] = slot.device
    log = folder.log_file(slot.number)
    log.parent.mkdir(parents=True, exist_ok=True)
    slot.starts += 1
    with log.open("ab") as output:
        slot.printed = output.seek(0, os.SEEK_END)
        # A group of its own: Ctrl-C at the terminal reaches this process, which asks the workers to leave.
        slot.process = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environment,
            start_new_session=True,
        )


def _note_end(slot: _Slot, code: int, folder: CampaignFolder) -> None:
    """Writes down what a worker died of, beside the piece that it had in hand."""
    assert slot.process is not None, "it has just ended"
    worker = folder.worker(slot.process.pid)
    folder.forget_worker(slot.process.pid)
    log = folder.log_file(slot.number)
    if code == _REFUSED and (said := _last_words(log, slot.printed)).startswith("error"):
        # Bad input, which it would meet again. A worker that leaves with this code says nothing of the kind.
        folder.record_failure(f"it ended for good; it said last: {said} ({log})", what=f"worker {slot.number}")
        return
    if code in _ENDS or code in _ASKED_TO_LEAVE:
        return
    said = _last_words(log, slot.printed)
    why = f"its worker ended with code {code}; " + (
        f"it said last: {said} ({log})" if said else f"it said nothing ({log})"
    )
    if code < 0:
        name = signal.Signals(-code).name if -code in set(map(int, signal.Signals)) else str(-code)
        memory = ", as the system does where memory runs out" if -code == signal.SIGKILL else ""
        why = f"its worker was killed by {name}{memory}"
    if worker is not None and worker.piece:
        is_cell = not worker.files
        folder.record_failure(
            why,
            what=worker.doing,
            cell=worker.piece if is_cell else None,
            files=[Path(file) for file in worker.files],
            died=True,
        )
    else:
        folder.record_failure(why, what=f"worker {slot.number}", died=True)


def _last_words(log: Path, start: int) -> str:
    """The last line that a worker printed, whose log began at a byte; "" for none."""
    with suppress(OSError), log.open("rb") as file:
        file.seek(max(start, log.stat().st_size - 2**16))
        told = [line.strip() for line in file.read().decode("utf-8", "replace").splitlines() if line.strip()]
        return told[-1][:300] if told else ""
    return ""


def _stop(workers: "Sequence[subprocess.Popen[bytes]]") -> None:
    """Asks workers to leave, which keep snapshots, and kills those that do not.

    A signal that came here may have come to them, too, as SLURM's does: the same one again is taken for its echo.
    """
    number = signals.received_signal()
    for worker in workers:
        with suppress(OSError):
            worker.send_signal(signal.SIGTERM if number in (None, signal.SIGINT) else number)
    late = time.monotonic() + _STOP_SECONDS
    for worker in workers:
        try:
            worker.wait(max(0.1, late - time.monotonic()))
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()


def leave_with_parent() -> None:
    """Makes this process leave when the one that started it is gone, however that ended."""
    parent = os.environ.get(PARENT_VARIABLE, "")
    if not parent.isdecimal():
        return

    def watch() -> None:
        while os.getppid() == int(parent):
            time.sleep(1.0)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
