"""How a command ends: one clear line and an exit code."""

import logging
import os
import sys
import traceback
from collections.abc import Callable
from typing import NoReturn

from sslticket import processes
from sslticket.errors import BadInput, Diverged, out_of_memory


def finish(command: Callable[[], None]) -> NoReturn:
    """Run a command and leave: 0 done, 2 bad input or too little memory, 3 diverged, 130 interrupted.

    Other errors are ours and traced. Of several launched processes, all end when one does, and where all meet the same
    error, the first tells it.
    """
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    rank = processes.rank()
    try:
        processes.meet()
        command()
    except (BadInput, Diverged) as error:
        if rank:
            processes.wait_for_word()
        print(f"error in process {rank}: {error}" if rank else f"error: {error}", file=sys.stderr, flush=True)
        _leave(2 if isinstance(error, BadInput) else 3, str(error))
    except SystemExit as end:  # after --help
        _leave(end.code if isinstance(end.code, int) else int(end.code is not None))
    except KeyboardInterrupt:
        if rank:
            processes.wait_for_word()
        print("interrupted; the same command goes on from the last finished level", file=sys.stderr)
        _leave(130, "it was interrupted")
    except BrokenPipeError:  # the reader, such as `head`, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        _leave(141, "nobody reads what it writes")
    except Exception as error:
        if told := out_of_memory(error):
            print(f"error in process {rank}: {told}" if rank else f"error: {told}", file=sys.stderr, flush=True)
            _leave(2, told)
        if processes.world() == 1:
            raise
        processes.wait_for_word(5.0)  # operations of all fail where one has gone
        traceback.print_exc()
        told = f"it ended with {type(error).__name__}, an error of ours, and all others end with it"
        fix = "please report it with the traceback above; the same command goes on from what is finished"
        print(f"error in process {rank}: {told}; {fix}", file=sys.stderr, flush=True)
        _leave(1, told)
    _leave(0)


def _leave(code: int, told: str = "") -> NoReturn:
    if code == 0:
        processes.assemble_to_end()  # the first must not be gone while others still hear from it
    processes.leave(code, told)
    if processes.world() > 1:
        # Past what libraries do at an end: threads of a process group may wait there for processes that are gone.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
