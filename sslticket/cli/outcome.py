"""How a command ends: one clear line and an exit code."""

import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable
from typing import NoReturn

from sslticket import processes
from sslticket.cli import streams
from sslticket.errors import BadInput, Diverged, out_of_memory, outside
from sslticket.processes import stopping


def finish(command: Callable[[], None], place: str = "another place") -> NoReturn:
    """Run a command and leave: 0 done, 2 bad input or a refusal of the system, 3 diverged, 128 + n by signal n.

    Refusals are files and memory that the system does not give. Other errors are ours and traced. Of several launched
    processes, all end when one does, and where all meet the same error, the first tells it.

    Args:
        command: what is done.
        place: where else it could write, with the flag if there is one.
    """
    # Several launched processes have a thread that hears signals, even while an operation of all of them hangs.
    signals = stopping.SIGNALS if processes.world() == 1 else ()
    with streams.ready(), stopping.heard(signal.SIGINT, *signals):
        logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
        try:
            processes.meet()
            _do(command)
        except SystemExit as end:
            _leave(end.code if isinstance(end.code, int) else int(end.code is not None))
        except BaseException as error:
            _end_with(error, place)
        _leave(0)


def _do(command: Callable[[], None]) -> None:
    """Run a command until all that it prints is written."""
    try:
        command()
    except SystemExit as end:  # after --help
        if end.code:
            raise
    if refused := streams.drained(sys.stdout):
        raise refused


def _end_with(error: BaseException, place: str) -> None:
    """Tell an error and leave; one of ours is raised again."""
    rank, number = processes.rank(), stopping.asked()
    if number is not None or isinstance(error, KeyboardInterrupt):
        number = number or signal.SIGINT
        if rank:
            processes.wait_for_word()
        print(stopping.line(number), file=sys.stderr)
        _leave(128 + number, "it was interrupted")
    if isinstance(error, BrokenPipeError):  # the reader, such as `head`, has had enough
        streams.drained(sys.stdout)
        streams.drained(sys.stderr)
        _leave(141, "nobody reads what it writes")
    if isinstance(error, (BadInput, Diverged)):
        if rank:
            processes.wait_for_word()
        _tell(str(error))
        _leave(2 if isinstance(error, BadInput) else 3, str(error))
    if told := out_of_memory(error) or outside(error, place):
        if rank:
            processes.wait_for_word()
        _tell(told)
        _leave(2, told)
    if processes.world() == 1:
        raise error
    processes.wait_for_word(5.0)  # operations of all fail where one has gone
    traceback.print_exc()
    told = f"it ended with {type(error).__name__}, an error of ours, and all others end with it"
    _tell(f"{told}; please report it with the traceback above; the same command goes on from what is finished")
    _leave(1, told)


def _tell(told: str) -> None:
    rank = processes.rank()
    print(f"error in process {rank}: {told}" if rank else f"error: {told}", file=sys.stderr, flush=True)


def _leave(code: int, told: str = "") -> NoReturn:
    if code == 0:
        processes.assemble_to_end()  # the first must not be gone while others still hear from it
    processes.leave(code, told)
    if processes.world() > 1:
        # Past what libraries do at an end: threads of a process group may wait there for processes that are gone.
        streams.drained(sys.stdout)
        streams.drained(sys.stderr)
        os._exit(code)
    sys.exit(code)
