"""How a command writes and ends: safe output streams, one line for each error, and an exit code."""

import codecs
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from typing import Any, NoReturn, TextIO, cast

from sslticket import processes
from sslticket.errors import BadInput, Diverged, WriteError, out_of_memory_message, system_error_message
from sslticket.processes.signals import STOP_SIGNALS, exit_code, raise_on_signals, received_signal, stop_message


@contextmanager
def writable_streams() -> Iterator[None]:
    """Inside this block both are open and take every text, and the log forgives every disk.

    A letter that the terminal's encoding lacks is written as its number. What goes to standard error while a command
    works is lost where it cannot be written, as on a full disk; the work goes on. Of standard output that is an error.
    """
    _open_closed_streams()
    before = getattr(sys.stdout, "errors", None)
    _set_error_handler(sys.stdout, "sslticket")
    try:
        out, log = _NamedStream(sys.stdout, "standard output"), _NamedStream(sys.stderr)
        with redirect_stdout(cast(TextIO, out)), redirect_stderr(cast(TextIO, log)):
            yield
    finally:
        _set_error_handler(sys.stdout, before)
        for stream in (sys.stdout, sys.stderr):
            with suppress(ValueError):  # closed by whoever gave it
                flush_or_discard(stream)


def flush_or_discard(stream: TextIO) -> OSError | None:
    """Flush a stream; one that cannot be written leads nowhere from now on, and the error is returned.

    Otherwise Python would try again at its end, and tell of it.
    """
    try:
        stream.flush()
    except OSError as error:
        with suppress(OSError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
            stream.flush()
        return error
    return None


class _NamedStream:
    """A stream whose errors name it, or are forgiven; a reader who has had enough stays one."""

    def __init__(self, stream: TextIO, name: str = "") -> None:
        """Takes a stream, and the name by which its errors are raised; "" for none."""
        self._stream, self._name = stream, name

    def write(self, text: str) -> int:
        """As the stream does, if it can."""
        with self._named():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """As the stream does, if it can."""
        with self._named():
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            raise
        except OSError as error:
            if self._name:
                raise WriteError(error.errno, error.strerror, self._name) from error


def _open_closed_streams() -> None:
    """Streams that were closed, as by `>&-`, lead nowhere: else the next file that is opened would take their place."""
    if None not in (sys.stdin, sys.stdout, sys.stderr):
        return
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(number)
    sys.stdin = sys.stdin or open(0)  # noqa: SIM115  # for as long as the process lives
    sys.stdout = sys.stdout or open(1, "w")  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w")  # noqa: SIM115


def _set_error_handler(stream: TextIO, errors: str | None) -> None:
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None and errors is not None:
        reconfigure(errors=errors)


def _encode_unprintable(error: UnicodeError) -> tuple[str | bytes, int]:
    """Bytes of a file's name that were no text go out as they came in; other letters as their numbers."""
    try:
        return codecs.lookup_error("surrogateescape")(error)
    except UnicodeError:
        return codecs.lookup_error("backslashreplace")(error)


codecs.register_error("sslticket", _encode_unprintable)


def run_and_exit(command: Callable[[], None], place: str = "another place") -> NoReturn:
    """Run a command and leave: 0 done, 2 bad input or a refusal of the system, 3 diverged, 128 + n by signal n.

    Searches, evaluations and analyses that the signal of a time limit or of a preemption ends leave with 75, see
    `processes.signals.REQUEUE_EXIT`.

    Refusals are files and memory that the system does not give. Other errors are ours and traced. Of several launched
    processes, all end when one does, and where all meet the same error, the first tells it.

    Args:
        command: What the process is for.
        place: Where else it could write, with the flag if there is one; shown where a disk is full.
    """
    # Several launched processes have a thread that hears signals, even while an operation of all of them hangs.
    signals = STOP_SIGNALS if processes.world_size() == 1 else ()
    with writable_streams(), raise_on_signals(signal.SIGINT, *signals):
        logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
        try:
            processes.check_system()
            processes.rendezvous()
            _run_and_flush(command)
        except SystemExit as end:
            _exit_process(end.code if isinstance(end.code, int) else int(end.code is not None))
        except BaseException as error:
            _exit_with_error(error, place)
        _exit_process(0)


def _run_and_flush(command: Callable[[], None]) -> None:
    """Run a command until all that it prints is written."""
    try:
        command()
    except SystemExit as end:  # after --help
        if end.code:
            raise
    if refused := flush_or_discard(sys.stdout):
        raise refused


def _exit_with_error(error: BaseException, place: str) -> None:
    """Tell an error and leave; one of ours is raised again."""
    rank, number = processes.rank(), received_signal()
    if number is not None or isinstance(error, KeyboardInterrupt):
        number = number or signal.SIGINT
        if rank:
            processes.wait_for_peer_error()
        print(stop_message(number), file=sys.stderr)
        _exit_process(exit_code(number), "it was interrupted")
    if isinstance(error, BrokenPipeError):  # the reader, such as `head`, has had enough
        flush_or_discard(sys.stdout)
        flush_or_discard(sys.stderr)
        _exit_process(141, "nobody reads what it writes")
    if isinstance(error, (BadInput, Diverged)):
        if rank:
            processes.wait_for_peer_error()
        _print_error(str(error))
        _exit_process(2 if isinstance(error, BadInput) else 3, str(error))
    if message := out_of_memory_message(error) or system_error_message(error, place):
        if rank:
            processes.wait_for_peer_error()
        _print_error(message)
        _exit_process(2, message)
    if processes.world_size() == 1:
        raise error
    processes.wait_for_peer_error(5.0)  # operations of all fail where one has gone
    traceback.print_exc()
    message = f"it ended with {type(error).__name__}, an error of ours, and all others end with it"
    fix = "please report it with the traceback above; the same command goes on from what is finished"
    _print_error(f"{message}; {fix}")
    _exit_process(1, message)


def _print_error(message: str) -> None:
    rank = processes.rank()
    print(f"error in process {rank}: {message}" if rank else f"error: {message}", file=sys.stderr, flush=True)


def _exit_process(code: int, message: str = "") -> NoReturn:
    if code == 0:
        processes.final_barrier()  # the first must not be gone while others still hear from it
    processes.announce_exit(code, message)
    if processes.world_size() > 1:
        # Past what libraries do at an end: threads of a process group may wait there for processes that are gone.
        flush_or_discard(sys.stdout)
        flush_or_discard(sys.stderr)
        os._exit(code)
    sys.exit(code)
