"""What ends a run from outside: Ctrl-C, and the signals by which a system asks a process to go.

While a network is trained, the first signal is only remembered: whoever trains comes to the end of a step, keeps a
snapshot and leaves. Everywhere else, and where a second one comes, a signal ends the process at once.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NamedTuple, NoReturn

# SLURM's and LSF's warnings are the user's to choose among USR1 and USR2; HUP is a terminal that is closed.
STOP_SIGNALS = tuple(
    getattr(signal, name)
    for name in ("SIGTERM", "SIGUSR1", "SIGUSR2", "SIGHUP", "SIGXCPU")
    if hasattr(signal, name)  # on Windows the first alone
)
REQUEUE_SIGNALS = tuple(number for number in STOP_SIGNALS if number.name != "SIGHUP")
"""Those of a time limit or a preemption: nobody has changed their mind about the work."""
REQUEUE_EXIT = 75
"""The exit code of work that such a signal has ended and that the same command goes on with: EX_TEMPFAIL of
sysexits.h, "the user is invited to retry the operation". A scheduler can be told to start the job again at it."""
_ECHO_SECONDS = 2.0  # in which Ctrl-C again is the same one, of which a launcher has told too
_GRACE_SECONDS = 30.0  # the same of other signals: a warning, then a preemption; and SLURM kills no sooner by default

_received: int | None = None
_activity: Callable[[], str] | None = None
_kept = False  # whether what was in training is in a snapshot


class _Request(NamedTuple):
    """A signal that was put off.

    Attributes:
        number: The signal.
        time: When it came, by the monotonic clock.
    """

    number: int
    time: float


_putting_off = False
_request: _Request | None = None
_obeyed = False  # whether this process is leaving by a request


class Stopped(BaseException):
    """A signal has asked this process to end; as with KeyboardInterrupt, nothing is wrong with what it did."""


def set_activity(describe: Callable[[], str] | None) -> None:
    """What this process does from now on, to be asked when it is stopped: "in level 2 at step 120", or ""."""
    global _activity
    _activity = describe


def received_signal() -> int | None:
    """The signal that has asked this process to end; libraries may have made another error of what it raised."""
    return _received


def stop_message(number: int) -> str:
    """What is said at the end by a signal."""
    where = _activity() if _activity else ""
    onward = "there" if _kept else "what is finished"
    return f"{_stop_reason(number)}{f' {where}' if where else ''}; the same command goes on from {onward}"


def exit_code(number: int) -> int:
    """The code with which a signal ends this process: `REQUEUE_EXIT`, or 128 + its number.

    Ctrl-C and a closed terminal are a person's decision, and where no work has begun none can go on.
    """
    return REQUEUE_EXIT if number in REQUEUE_SIGNALS and _activity is not None else 128 + number


def _stop_reason(number: int) -> str:
    return "interrupted" if number == signal.SIGINT else f"stopped by {signal.Signals(number).name}"


@contextmanager
def put_off() -> Iterator[None]:
    """Inside this block the first signal is only remembered; one that nobody has obeyed is sent again at the end."""
    global _putting_off, _request, _received, _kept, _obeyed
    _putting_off, _request, _received, _kept, _obeyed = True, None, None, False, False
    try:
        yield
    finally:
        _putting_off = False
        request, _request = _request, None
        if request is not None and _received is None:
            os.kill(os.getpid(), request.number)


def put_off_signal(number: int) -> bool:
    """Whether a signal that has just come ends nothing by itself; called by what hears signals.

    Whoever trains obeys the first. Others that come soon after it are the same request, and so are those that come
    while this process leaves; a second Ctrl-C is a person who does not want to wait.
    """
    global _request
    if _obeyed:
        return number != signal.SIGINT
    if not _putting_off or _received is not None:
        return False
    if _request is None:
        _request = _Request(number, time.monotonic())
        return True
    grace = _ECHO_SECONDS if number == signal.SIGINT else _GRACE_SECONDS
    return time.monotonic() - _request.time < grace


def requested_signal() -> int | None:
    """The signal that was put off; None where there is none."""
    return None if _request is None else _request.number


def obey(number: int, *, kept: bool) -> NoReturn:
    """Leaves by a signal that was put off, in this process or in another of the run.

    Args:
        number: The signal.
        kept: Whether a snapshot holds what was in training.

    Raises:
        KeyboardInterrupt: By Ctrl-C.
        Stopped: By any other signal.
    """
    global _received, _kept, _obeyed
    _received, _kept, _obeyed = number, kept, True
    raise KeyboardInterrupt if number == signal.SIGINT else Stopped


def has_default_handler(number: int) -> bool:
    """Whether a signal has its own meaning here; under nohup, for one, it is to be ignored."""
    return signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler)


@contextmanager
def raise_on_signals(*signals: int) -> Iterator[None]:
    """Inside this block the first of these signals is raised, as Stopped or KeyboardInterrupt; a second one kills.

    One that is put off is not raised.
    """
    global _received, _kept, _obeyed
    here = threading.current_thread() is threading.main_thread()  # no other may set handlers
    before = {number: signal.getsignal(number) for number in signals if here and has_default_handler(number)}

    def stop(number: int, frame: FrameType | None) -> None:
        global _received
        if put_off_signal(number):
            return
        _received = number
        for each in before:
            signal.signal(each, signal.SIG_DFL)
        raise KeyboardInterrupt if number == signal.SIGINT else Stopped

    _received, _kept, _obeyed = None, False, False
    for number in before:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def quiet_exit_during_imports() -> Iterator[None]:
    """A signal while a command's libraries are imported, which takes seconds: one line, and nothing was begun.

    An exception would be shown as a traceback, or lost in code that is no longer Python's. A notebook's or a shell's
    own way to interrupt stays.
    """
    shell = hasattr(sys, "ps1") or sys.flags.interactive or "IPython" in sys.modules
    if shell or threading.current_thread() is not threading.main_thread() or not _interrupts_by_default():
        yield
        return
    before = {
        number: signal.signal(number, _exit_before_start)
        for number in (signal.SIGINT, *STOP_SIGNALS)
        if has_default_handler(number)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupts_by_default() -> bool:
    return signal.getsignal(signal.SIGINT) is signal.default_int_handler


def _exit_before_start(number: int, frame: FrameType | None) -> None:
    if os.environ.get("WORLD_SIZE", "1") == "1" or os.environ.get("RANK") == "0":
        os.write(2, f"{_stop_reason(number)} before anything was begun\n".encode())
    os._exit(128 + number)
