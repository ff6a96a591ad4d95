"""What runs on each machine of a SLURM job: a recipe or a worker, by way of `accelerate launch` where it has processes.

    srun python -m sslticket.campaign.node recipes/rotnet_resnet50.py --subset 0.1 --out /shared/runs

What `accelerate launch` has to be told (which machine this is, where the first one listens) comes from SLURM's
variables. SLURM's signal goes to every process of a step, to launchers too, which would die of it, or end the processes
before these have saved their work: so accelerate's launcher runs in this process, which takes the signal and waits. It
ends with the exit code of the processes, of which the launcher alone makes 1.
"""

import os
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from sslticket.errors import BadInput
from sslticket.escaping import shell_quote
from sslticket.processes.signals import REQUEUE_EXIT, STOP_SIGNALS

_MAX_KILLS = 10
"""How often in a row a job goes back into the queue after a process of it was killed: one that always is must end."""
_WAIT_SECONDS = 120  # in which all machines of a job end after the first has
_FIRST_PORT, _PORTS = 20_000, 10_000  # below the ports that systems give by themselves
_USAGE = "usage: srun python -m sslticket.campaign.node [--processes N] [--grace SECONDS] (FILE.py | -m MODULE) ..."


@dataclass(frozen=True, kw_only=True)
class Node:
    """A machine of a job.

    Attributes:
        number: Its number among the job's machines, from 0.
        count: How many machines the job has.
        processes: Processes on each of them.
        threads: Threads of each process.
        leader: Name of machine 0.
        port: Port at which machine 0 listens.
    """

    number: int
    count: int
    processes: int
    threads: int
    leader: str
    port: int


def find_node(environment: Mapping[str, str], processes: int | None = None) -> Node:
    """This machine, as SLURM's variables tell it; outside SLURM it is alone.

    Args:
        environment: Variables of the environment.
        processes: Processes on each machine; None for one on each GPU, or a single one without GPUs.

    Raises:
        BadInput: If srun started several tasks on a machine.
    """
    count = int(environment.get("SLURM_STEP_NUM_NODES", "1"))
    tasks = int(environment.get("SLURM_STEP_NUM_TASKS", str(count)))
    if tasks != count:
        raise BadInput(
            f"srun started {tasks} tasks on {count} machine{'s' * (count > 1)}, and each task starts all processes "
            "of a machine; give --ntasks-per-node=1"
        )
    if processes is None:
        processes = max(1, int(environment.get("SLURM_GPUS_ON_NODE", "0")))
    cores = environment.get("SLURM_CPUS_PER_TASK") or environment.get("SLURM_CPUS_ON_NODE") or str(os.cpu_count() or 1)
    turn = int(environment.get("SLURM_JOB_ID", "0")) + 37 * int(environment.get("SLURM_RESTART_COUNT", "0"))
    return Node(
        number=int(environment.get("SLURM_NODEID", "0")),
        count=count,
        processes=processes,
        threads=max(1, int(environment.get("OMP_NUM_THREADS") or int(cores) // processes)),
        leader=_first_host(environment["SLURM_STEP_NODELIST"]) if count > 1 else "localhost",
        port=_FIRST_PORT + turn % _PORTS,
    )


def _first_host(nodes: str) -> str:
    """The first of "n[1-3],m7", which SLURM itself writes out."""
    listed = subprocess.run(["scontrol", "show", "hostnames", nodes], check=True, capture_output=True, text=True)
    return listed.stdout.split()[0]


def launch_arguments(node: Node) -> list[str]:
    """What `accelerate launch` is given before the program.

    `--multi_gpu` is accelerate's word for torch's launcher of several processes. It is right on CPUs, too, where all
    that accelerate offers under another name is a single process, or MPI.
    """
    return [
        *("--multi_gpu", "--gpu_ids", "all", "--mixed_precision", "no", "--dynamo_backend", "no"),
        *("--num_machines", str(node.count), "--num_processes", str(node.count * node.processes)),
        *("--machine_rank", str(node.number), "--num_cpu_threads_per_process", str(node.threads)),
        *("--main_process_ip", node.leader, "--main_process_port", str(node.port)),
    ]


def run_program(program: Sequence[str], node: Node, grace: float | None = None) -> int:
    """Runs a program in all of this machine's processes until they have ended.

    Args:
        program: Arguments of Python: a file, or -m and a module, and their own arguments.
        node: This machine.
        grace: Seconds after a signal in which the processes have to end; then they are killed. None for any time.

    Returns:
        0 for a good end of all, REQUEUE_EXIT where a signal stopped them and they go on when started again, else the
            highest code of any, which is 128 + n where signal n killed it.
    """
    received: list[int] = []

    def note_signal(number: int, frame: object) -> None:
        if not received and grace is not None:
            timer = threading.Timer(grace, _kill_children)
            timer.daemon = True
            timer.start()
        received.append(number)

    before = {number: signal.signal(number, note_signal) for number in STOP_SIGNALS}
    try:
        code = _run_alone(program, node) if node.count * node.processes == 1 else _run_launcher(program, node)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if received and (code == 1 or code > 128):  # a signal while it started, or killed after the grace
        return REQUEUE_EXIT
    return code


def _run_alone(program: Sequence[str], node: Node) -> int:
    environment = {"OMP_NUM_THREADS": str(node.threads)} | os.environ
    code = subprocess.Popen([sys.executable, *program], env=environment).wait()
    return 128 - code if code < 0 else code


def _run_launcher(program: Sequence[str], node: Node) -> int:
    """`accelerate launch` in this process."""
    # The launcher's own answer to signals, which is to end its processes at once, is kept for Ctrl-C.
    os.environ["PET_SIGNALS_TO_HANDLE"] = "SIGINT"
    from accelerate.commands.launch import launch_command, launch_command_parser
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    try:
        launch_command(launch_command_parser().parse_args([*launch_arguments(node), *program]))
    except ChildFailedError as error:
        codes = [128 - each.exitcode if each.exitcode < 0 else each.exitcode for each in error.failures.values()]
        return REQUEUE_EXIT if REQUEUE_EXIT in codes else max(codes)
    except Exception:  # such as a machine that never came
        traceback.print_exc()
        return 1
    return 0


def run_job(program: Sequence[str], processes: int | None, grace: float) -> NoReturn:
    """What submitit calls on each machine; ends with the exit code of the processes.

    Args:
        program: As `run_program` takes it.
        processes: As `find_node` takes them.
        grace: As `run_program` takes it.
    """
    sys.exit(run_program(program, find_node(os.environ, processes), grace))


def _kill_children() -> None:
    """Kills what this process has started, and what that has started."""
    import psutil

    for child in psutil.Process().children(recursive=True):
        child.kill()


def srun_arguments(cores: int | None) -> list[str]:
    """What srun is given in a job's script, beside the command.

    Args:
        cores: Cores on each machine; None for what SLURM gives. Since 22.05 srun does not ask the job for them.
    """
    asked = [f"--cpus-per-task={cores}"] if cores else []
    return [*asked, "--kill-on-bad-exit=0", f"--wait={_WAIT_SECONDS}"]


def requeue_lines(folder: Path) -> list[str]:
    """The lines of a job's script after srun: whether the job goes back into the queue.

    Args:
        folder: Where it is counted how often in a row a process was killed.
    """
    return [
        "code=$?",
        f'kills={shell_quote(str(folder))}/"$SLURM_JOB_ID".kills',
        f"# {REQUEUE_EXIT}: a signal has stopped the worker, which has saved its work and goes on from there.",
        f'if [ "$code" -eq {REQUEUE_EXIT} ]; then',
        '  rm -f "$kills"',
        '  scontrol requeue "$SLURM_JOB_ID"',
        f"# 1, or more than 128: a process of it was killed or a machine is gone; {_MAX_KILLS} times in a row at most.",
        'elif [ "$code" -eq 1 ] || [ "$code" -gt 128 ]; then',
        '  echo "$code" >>"$kills"',
        f'  [ "$(wc -l <"$kills")" -gt {_MAX_KILLS} ] || scontrol requeue "$SLURM_JOB_ID"',
        "fi",
        'exit "$code"',
    ]


def main(arguments: Sequence[str]) -> int:
    """The command; returns its exit code."""
    words, settings = list(arguments), {"--processes": "", "--grace": ""}
    try:
        while words and words[0] in settings:
            name, settings[words[0]] = words[0], words[1] if len(words) > 1 else ""
            if not (settings[name].isdecimal() and int(settings[name]) > 0):
                raise BadInput(f"{name} must be a whole number from 1, got {settings[name]!r}; {_USAGE}")
            del words[:2]
        if not words or words == ["-m"] or (words[0].startswith("-") and words[0] != "-m"):
            raise BadInput(f"give a recipe's file, or -m and a module; {_USAGE}")
        node = find_node(os.environ, int(settings["--processes"]) if settings["--processes"] else None)
    except BadInput as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return run_program(words, node, float(settings["--grace"]) if settings["--grace"] else None)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
