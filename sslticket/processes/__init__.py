"""The processes that a launcher started for one command: they meet before anything else, and end together."""

import os
import sys
import time
from typing import TYPE_CHECKING

from sslticket.errors import BadInput

if TYPE_CHECKING:
    from sslticket.processes.watchdog import Watchdog

_REQUIRED_VARIABLES = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
_MAX_PORT = 65_535
# What MPI sets for each of its processes, which accelerate on a CPU takes for WORLD_SIZE.
_MPI_VARIABLES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")

# What others set for each process that they start; they may well be meant to work alone, as in a step that evaluates.
_OTHER_LAUNCHERS = ("SLURM_STEP_NUM_TASKS", "PALS_SIZE", "FLUX_JOB_SIZE", "JSM_NAMESPACE_SIZE", *_MPI_VARIABLES)

_watchdog: "Watchdog | None" = None


def rank() -> int:
    """The number of this process, from 0; a single one is 0, whatever its environment says."""
    value = os.environ.get("RANK", "0")
    return int(value) if world_size() > 1 and value.isdecimal() else 0


def world_size() -> int:
    """How many processes the launcher started, on all machines together; 1 where it says nothing that `check` takes."""
    value = os.environ.get("WORLD_SIZE", "1")
    return max(1, int(value)) if value.isdecimal() else 1


def local_world_size() -> int:
    """How many of them are on this machine; a single one is alone, whatever its environment says."""
    value = os.environ.get("LOCAL_WORLD_SIZE", "1")
    return max(1, int(value)) if world_size() > 1 and value.isdecimal() else 1


def usable_cores() -> int:
    """How many of the machine's processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_system() -> None:
    """Whether the system is one on which trainings can be stopped, and folders shared by several processes.

    Raises:
        BadInput: If it is Windows, naming what to do.
    """
    if sys.platform == "win32":
        raise BadInput("sslticket runs on Linux and macOS, not on Windows itself; install it in WSL, which is a Linux")


def separate_launch_note() -> str:
    """Where another launcher started several processes that know nothing of each other: that, and the fix; else ""."""
    for name in _OTHER_LAUNCHERS if world_size() == 1 else ():
        value = os.environ.get(name, "1")
        if value.isdecimal() and int(value) > 1:
            return (
                f"{name}={value} means {value} processes, each of which works alone; start them with accelerate "
                "launch or torchrun"
            )
    return ""


def check_launch() -> None:
    """Whether the environment is one that a launcher of several processes makes, or that of a single process.

    Raises:
        BadInput: If it is not, naming the launcher to take.
    """
    given = os.environ
    # Launched for more than one process, but on CPUs, accelerate leaves these two behind and starts a single one.
    if "WORLD_SIZE" not in given and {"ACCELERATE_USE_CPU", "MASTER_ADDR"} <= given.keys():
        raise BadInput(
            "accelerate launch was asked for several processes and starts a single one, as it does on CPUs; give "
            "torchrun --nproc-per-node N in place of accelerate launch, or --num_processes 1 (and unset MASTER_ADDR)"
        )
    value = given.get("WORLD_SIZE", "1")
    if not value.isdecimal() or int(value) < 1:
        raise BadInput(
            f"WORLD_SIZE must be a number of processes from 1, got {value!r}; start several with torchrun, or "
            "unset it for one"
        )
    if world_size() > 1 and (lacking := [name for name in _REQUIRED_VARIABLES if not given.get(name)]):
        raise BadInput(
            f"WORLD_SIZE is {world_size()}, and {', '.join(lacking)} {'is' if len(lacking) == 1 else 'are'} "
            "not set, so they cannot meet; start them with accelerate launch or torchrun, or unset WORLD_SIZE for a "
            "single process"
        )
    if world_size() > 1:
        _check_launch_numbers()
    for name in _MPI_VARIABLES if "WORLD_SIZE" not in given else ():
        if given.get(name, "1") not in ("0", "1"):
            raise BadInput(
                f"{name}={given[name]} means processes that MPI started, which cannot meet; start them with "
                f"accelerate launch or torchrun, or unset {name} for a single process"
            )


def _check_launch_numbers() -> None:
    """Whether what a launcher says in numbers can be.

    Raises:
        BadInput: If one cannot be, naming the variable.
    """
    ends = {
        "RANK": (0, world_size() - 1),
        "LOCAL_RANK": (0, world_size() - 1),
        "LOCAL_WORLD_SIZE": (1, world_size()),
        "MASTER_PORT": (1, _MAX_PORT),
    }
    for name, (low, high) in ends.items():
        value = os.environ.get(name)
        if value is not None and not (value.isdecimal() and low <= int(value) <= high):
            raise BadInput(
                f"{name} must be a number from {low} to {high} in one of {world_size()} processes, got {value!r}; "
                "start them with accelerate launch or torchrun, or unset WORLD_SIZE for a single process"
            )


def rendezvous() -> None:
    """Find the other processes, and from now on end when one of them ends before its work is done.

    Raises:
        BadInput: If they do not meet.
    """
    global _watchdog
    check_launch()
    if world_size() > 1:
        from sslticket.processes.watchdog import Watchdog

        _watchdog = Watchdog(rank(), world_size())
        _watchdog.start()
        _watchdog.all_connected.wait()  # whoever does not come ends all that wait


def set_patience(seconds: float) -> None:
    """After how long without a sign of life a process is given up; at first it is five minutes."""
    if _watchdog is not None:
        _watchdog.patience = seconds


def barrier() -> None:
    """Wait until all processes have come here, however long one works alone before; who is gone ends that."""
    if _watchdog is not None:
        _watchdog.barrier()


def final_barrier() -> None:
    """The last `assemble`: whoever leaves while this process has not come so far leaves it alone at its work."""
    if _watchdog is not None:
        _watchdog.is_done = True
        _watchdog.barrier()


def wait_for_peer_error(seconds: float = 1.0) -> None:
    """Wait before an error is printed; where it only echoes another process's end, this process ends here, silent."""
    if _watchdog is not None:
        time.sleep(seconds)


def announce_exit(code: int, message: str = "") -> None:
    """Tell the others that this process ends now.

    Args:
        code: Exit code of this process; where it is not 0 the others end with it too.
        message: What it has printed about its end, in one line.
    """
    if _watchdog is not None:
        _watchdog.announce_exit(code, message)
