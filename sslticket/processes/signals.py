"""What ends a run from outside: Ctrl-C, and the signals by which a system asks a process to go."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

# SLURM's and LSF's warnings are the user's to choose among USR1 and USR2; HUP is a terminal that is closed.
STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP, signal.SIGXCPU)
REQUEUE_EXIT = 75
"""Exit code of a process that a signal has stopped and that goes on when it is started again, sysexits' EX_TEMPFAIL."""

_received: int | None = None
_activity: Callable[[], str] | None = None


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
    return f"{_stop_reason(number)}{f' {where}' if where else ''}; the same command goes on from what is finished"


def _stop_reason(number: int) -> str:
    return "interrupted" if number == signal.SIGINT else f"stopped by {signal.Signals(number).name}"


def has_default_handler(number: int) -> bool:
    """Whether a signal has its own meaning here; under nohup, for one, it is to be ignored."""
    return signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler)


@contextmanager
def raise_on_signals(*signals: int) -> Iterator[None]:
    """Inside this block the first of these signals is raised, as Stopped or KeyboardInterrupt; a second one kills."""
    global _received
    here = threading.current_thread() is threading.main_thread()  # no other may set handlers
    before = {number: signal.getsignal(number) for number in signals if here and has_default_handler(number)}

    def stop(number: int, frame: FrameType | None) -> None:
        global _received
        _received = number
        for each in before:
            signal.signal(each, signal.SIG_DFL)
        raise KeyboardInterrupt if number == signal.SIGINT else Stopped

    _received = None
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
