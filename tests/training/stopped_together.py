"""Searches in several processes, one of which gets a signal.

    torchrun --nproc-per-node 2 tests/training/stopped_together.py FOLDER

Each is done whole, then stopped and gone on with, and then stopped and left. Each process writes FOLDER/<rank>.json:
the images that it saw in each step of the whole one.
"""

import json
import os
import signal
import sys
from pathlib import Path

import torch

from sslticket import processes
from sslticket.cli.exit_status import run_and_exit
from sslticket.processes import signals
from sslticket.training import snapshots
from tests.runs import search
from tests.training.test_snapshots import TOGETHER, after_steps, seen_images


def _signal_in_one(rank: int) -> None:
    if processes.rank() == rank:
        os.kill(os.getpid(), signal.SIGUSR1)


def _stop(out: Path, name: str, rank: int, steps: int) -> bool:
    """Whether all left, once one of them got the signal in one of its steps."""
    try:
        with after_steps(steps, lambda: _signal_in_one(rank)):
            search(out, TOGETHER[name])
    except signals.Stopped:
        return True
    return False


def _all(folder: Path) -> None:
    snapshots._FIRST_AGREEMENT = 1  # these trainings are over before others ask for the first time
    seen = {}
    for name, which in TOGETHER.items():
        seen[name] = seen_images(folder / "whole" / name, which)
        assert _stop(folder / "stopped" / name, name, 1, 3), "process 1 was asked"
        assert _stop(folder / "stopped" / name, name, 0, 2), "and process 0, when both had begun again"
        search(folder / "stopped" / name, which)
        assert _stop(folder / "left" / name, name, 1, 3)
    (folder / f"{processes.rank()}.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    torch.set_num_threads(1)
    run_and_exit(lambda: _all(Path(sys.argv[1])))
