"""How a command ends: one clear line and an exit code."""

import logging
import os
import sys
from collections.abc import Callable
from typing import NoReturn

from sslticket.errors import BadInput, Diverged, out_of_memory


def finish(command: Callable[[], None]) -> NoReturn:
    """Run a command and leave: 0 done, 2 bad input or too little memory, 3 diverged, 130 interrupted.

    Other errors are ours and traced.
    """
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    try:
        command()
    except (BadInput, Diverged) as error:
        _say(error)
        sys.exit(2 if isinstance(error, BadInput) else 3)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from the last finished level", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # the reader, such as `head`, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except Exception as error:
        if (told := out_of_memory(error)) is None:
            raise
        _say(told)
        sys.exit(2)
    sys.exit(0)


def _say(error: object) -> None:
    rank = os.environ.get("RANK", "0")
    print(f"error: {error}" if rank == "0" else f"error in process {rank}: {error}", file=sys.stderr, flush=True)
