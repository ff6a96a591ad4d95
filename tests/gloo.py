"""A function of a test in several real processes that exchange tensors through gloo."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import distributed as dist


def run_in_processes(function: Callable[[int, str], None], folder: Path, processes: int = 2) -> None:
    """Call `function(rank, folder)` in every process of a group, with one thread each.

    An exception of any of them is raised here, with its traceback.
    """
    torch.multiprocessing.spawn(_process, (function, str(folder), processes), nprocs=processes)  # type: ignore[attr-defined]


def _process(rank: int, function: Callable[[int, str], None], folder: str, processes: int) -> None:
    torch.set_num_threads(1)
    launched = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
    os.environ |= {name: str(value) for name, value in launched.items()}
    meeting = f"file://{folder}/meeting"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=processes)
    function(rank, folder)
    dist.barrier()  # none is gone while another still hears from it
    # Past the interpreter's end, as `sslticket` ends its processes too: where a backward pass has communicated, threads
    # of gloo outlive `destroy_process_group`. Two of many runs ended there with SIGABRT, after all of their work:
    # "terminate called without an active exception" is what C++ says of a thread that Python unwinds at its end.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
