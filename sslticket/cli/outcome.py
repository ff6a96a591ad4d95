"""How a command ends: one clear line and an exit code."""

import logging
import os
import sys
from collections.abc import Callable
from typing import NoReturn

from sslticket.errors import BadInput, Diverged


def finish(command: Callable[[], None]) -> NoReturn:
    """Run a command and leave: 0 done, 2 bad input, 3 diverged, 130 interrupted; other errors are ours and traced."""
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    try:
        command()
    except (BadInput, Diverged) as error:
        rank = os.environ.get("RANK", "0")
        print(f"error: {error}" if rank == "0" else f"error in process {rank}: {error}", file=sys.stderr, flush=True)
        sys.exit(2 if isinstance(error, BadInput) else 3)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from the last finished level", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # the reader, such as `head`, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    sys.exit(0)
