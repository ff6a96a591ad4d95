"""Workers of a campaign as jobs of SLURM: submitted through submitit, or written down as scripts for others to submit.

Every element of a job array is one worker, on one machine or several (`sslticket.campaign.node`). SLURM's signal comes
some time before the time limit and at a preemption; the worker saves its work and leaves with a code by which the job
puts itself back into the queue, as often as it takes. Its lines for that are the same in a script and in what submitit
submits. Workers are all alike, so a second submission only adds those that are missing.
"""

import math
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from sslticket.campaign import node
from sslticket.errors import BadInput, one_line, unknown_name
from sslticket.escaping import escape_terminal, safe_filename, shell_quote
from sslticket.storage.files import atomic_write, read_json, write_json

_TIMES = re.compile(r"(?:(\d+)-(\d+)(?::(\d+))?(?::(\d+))?)|(?:(\d+)(?::(\d+))?(?::(\d+))?)")
_LOCAL_FILE_SYSTEMS = ("tmpfs", "ramfs", "devtmpfs")
_REFUSED_OPTIONS = {
    **dict.fromkeys(
        ("array", "chdir", "error", "job-name", "open-mode", "output", "requeue", "wrap"), "it is set here"
    ),
    **dict.fromkeys(("ntasks", "ntasks-per-node"), "each machine has one task, which starts its processes"),
    **{name: f"give --{name}" for name in ("account", "partition", "nodes", "gpus-per-node", "time", "mem")},
    **{name: f"give --{name}" for name in ("cpus-per-task", "constraint")},
    "signal": "give --signal-seconds",
}
"""Options of sbatch that --slurm does not take, and why."""


@dataclass(frozen=True, kw_only=True)
class SlurmSettings:
    """What the jobs of a campaign ask SLURM for.

    Attributes:
        account: Account that the time is charged to.
        partition: Partition of the jobs.
        nodes: Machines of each worker; several work on one training together.
        gpus_per_node: GPUs on each machine; each has a process of the worker.
        cpus_per_task: Cores on each machine.
        mem: Memory on each machine, such as 64G.
        time: Time limit of a job as SLURM writes it: 90 (minutes), 4:00:00 or 1-12; one that was not enough goes on.
        constraint: Features that the machines must have.
        slurm: Further options of sbatch, such as qos=long exclusive exclude=n7.
        setup: Lines of shell before the worker, such as '. .venv/bin/activate'.
        max_running: Jobs that may run at the same time.
        signal_seconds: Seconds before the time limit at which a worker saves its work; None for 120, or a fifth of a
            shorter limit.
    """

    account: str | None = None
    partition: str | None = None
    nodes: int = 1
    gpus_per_node: int = 0
    cpus_per_task: int | None = None
    mem: str | None = None
    time: str | None = None
    constraint: str | None = None
    slurm: tuple[str, ...] = ()
    setup: tuple[str, ...] = ()
    max_running: int | None = None
    signal_seconds: int | None = None

    def __post_init__(self) -> None:
        for name, least in {"nodes": 1, "gpus_per_node": 0, "cpus_per_task": 1, "max_running": 1}.items():
            value, flag = getattr(self, name), f"--{name.replace('_', '-')}"
            if value is not None and value < least:
                raise BadInput(f"{flag} must be a whole number from {least}, got {value}")
        for name in ("account", "partition", "mem", "constraint"):
            if (text := getattr(self, name)) is not None and not re.fullmatch(r"[\w.,:&|()\[\]*-]+", text):
                raise BadInput(f"--{name} must be one word as sbatch takes it, got {text!r}")
        if any("\n" in line for line in self.setup):
            raise BadInput(
                "--setup must be given as single lines, got a line break; give several lines as several words"
            )
        self.options()
        limit = self.minutes()
        if self.signal_seconds is not None and not 1 <= self.signal_seconds < 60 * (limit or math.inf):
            raise BadInput(
                f"--signal-seconds must be from 1 and below the time limit, got {self.signal_seconds}; it is when, "
                "before the limit, a worker saves its work"
            )

    def minutes(self) -> int | None:
        """The time limit; None where the partition's is taken.

        Raises:
            BadInput: If SLURM has no such time.
        """
        if self.time is None:
            return None
        found = _TIMES.fullmatch(self.time)
        if not found:
            raise BadInput(
                f"--time must be a time as SLURM writes it, got {self.time!r}; give minutes such as 90, hours such as "
                "4:00:00 or days and hours such as 1-12"
            )
        days, hours, minutes, seconds, *words = found.groups()
        if words[0] is not None:
            short = words[2] is None  # minutes[:seconds], else hours:minutes:seconds
            hours, minutes, seconds = (None, words[0], words[1]) if short else (words[0], words[1], words[2])
        total = 1440 * int(days or 0) + 60 * int(hours or 0) + int(minutes or 0) + math.ceil(int(seconds or 0) / 60)
        if total < 1:
            raise BadInput(f"--time must be a minute or more, got {self.time!r}; give minutes such as 90")
        return total

    def warning(self) -> int:
        """Seconds before the time limit at which SLURM's signal comes."""
        return self.signal_seconds or min(120, 12 * (self.minutes() or 60))

    def options(self) -> dict[str, str | bool]:
        """The further options of sbatch, True for one without a value.

        Raises:
            BadInput: If one cannot be given.
        """
        found: dict[str, str | bool] = {}
        for word in self.slurm:
            name, is_set, value = word.lstrip("-").partition("=")
            name = name.replace("_", "-")
            if not re.fullmatch(r"[a-z][a-z0-9-]+", name) or not value.isprintable() or (is_set and not value):
                raise BadInput(f"--slurm must be KEY=VALUE as sbatch --KEY=VALUE takes it, got {word!r}")
            if name in _REFUSED_OPTIONS:
                raise BadInput(f"--slurm must be other options of sbatch than {name}: {_REFUSED_OPTIONS[name]}")
            found[name] = value if is_set else True
        return found


@dataclass(frozen=True, kw_only=True)
class QueuedJob:
    """A worker that waits or runs.

    Attributes:
        job: Its number, such as "1234_0".
        state: SLURM's word for what it does, such as PENDING or RUNNING.
        reason: Why it waits, in SLURM's word, such as Priority or BeginTime.
        nodes: The machines on which it runs; "" while it waits.
        elapsed: For how long it has run, such as "1-02:03:04".
    """

    job: str
    state: str
    reason: str
    nodes: str
    elapsed: str


def check_slurm(settings: SlurmSettings, workers: int = 1) -> None:
    """Whether this machine's SLURM would take the jobs; nothing is submitted.

    Args:
        settings: What SLURM is asked for.
        workers: How many jobs there are to be.

    Raises:
        BadInput: If there is no SLURM, or it refuses such a job, with what it says.
    """
    _ask("sbatch", "--version")
    partitions = dict(line.split("|")[:2] for line in _ask("sinfo", "-h", "-o", "%R|%l").splitlines())
    for name in (settings.partition or "").split(",") if settings.partition else ():
        if name not in partitions:
            raise unknown_name("partition", name, partitions)
        limit = partitions[name]
        most = SlurmSettings(time=limit).minutes() if limit[0].isdecimal() else None
        if most is not None and (settings.minutes() or 0) > most:
            raise BadInput(f"--time must be at most {limit} in the partition {name}, got {settings.time}")
    accounts = _try("sacctmgr", "-nP", "show", "account", "format=account").split() if settings.account else []
    if accounts and settings.account not in accounts:
        raise unknown_name("account", str(settings.account), accounts)
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder, "test.sbatch")
        asked = _options(settings, array=f"0-{workers - 1}")
        script.write_text("\n".join(["#!/bin/bash", *_directives(asked), "true", ""]), encoding="utf-8")
        _ask("sbatch", "--test-only", str(script))


def _ask(*command: str) -> str:
    """What a program of SLURM answers.

    Raises:
        BadInput: If it is not there, does not answer, or refuses.
    """
    if shutil.which(command[0]) is None:
        raise BadInput(
            f"--launch slurm needs SLURM's {command[0]}, which is not on this machine; run it where jobs are submitted "
            "from, or give --launch print for scripts to submit there"
        )
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    except subprocess.TimeoutExpired:
        raise BadInput(f"SLURM does not answer: {command[0]} took two minutes; try again when it does") from None
    if done.returncode:
        lines = [re.sub(r"^(\w+: )?(error: |allocation failure: )?", "", line) for line in done.stderr.splitlines()]
        said = escape_terminal("; ".join(dict.fromkeys(line for line in lines if not line.startswith("Try "))))
        if "--test-only" not in command:
            raise BadInput(f"SLURM does not answer {command[0]}: {said}; try again when it does")
        fix = "give fewer --workers" if "array" in said else "sinfo -o '%P %l %D %c %m %G %f' lists what it has"
        raise BadInput(f"SLURM refuses such a job: {said}; {fix}")
    return done.stdout


def _try(*command: str) -> str:
    """What a program of SLURM answers; "" where it does not."""
    try:
        return _ask(*command)
    except BadInput:
        return ""


def _check_shared(out: Path) -> None:
    """Whether other machines may see a folder.

    Raises:
        BadInput: If it lies in this machine's memory.
    """
    there = next(each for each in (out.absolute(), *out.absolute().parents) if each.exists()).resolve()
    try:
        lines = Path("/proc/mounts").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    mounts = {line.split()[1]: line.split()[2] for line in lines}
    kind = next((mounts[str(each)] for each in (there, *there.parents) if str(each) in mounts), "")
    if kind in _LOCAL_FILE_SYSTEMS:
        raise BadInput(
            f"--out must be a folder that all machines see, got {out}, which is in the memory of this one ({kind}); "
            "give one on the cluster's file system"
        )


def job_name(out: Path) -> str:
    """The name of a campaign's jobs, by which the queue is asked for them."""
    return f"sslticket-{safe_filename(out.name)}-{sha256(os.fsencode(out.resolve())).hexdigest()[:6]}"


def queued_jobs(out: Path) -> tuple[QueuedJob, ...]:
    """The workers of a campaign that wait or run, of whichever submission; () where no SLURM answers."""
    words = ("squeue", "-h", "-r", "-u", str(os.getuid()), "-n", job_name(out), "-o", "%i|%T|%r|%N|%M")
    found = [line.strip().split("|") for line in _try(*words).splitlines()] if shutil.which("squeue") else []
    return tuple(
        QueuedJob(job=job, state=state, reason="" if reason == "None" else reason, nodes=nodes, elapsed=elapsed)
        for job, state, reason, nodes, elapsed in found
        if state != "COMPLETING"
    )


def describe_jobs(out: Path) -> list[str]:
    """What the workers of a campaign do, one line each, for a person; nothing where no SLURM answers."""
    return [
        f"job {each.job} {each.state.lower()}"
        + (f" on {each.nodes} for {each.elapsed}" if each.nodes else f" ({each.reason})" if each.reason else "")
        for each in queued_jobs(out)
    ]


def _options(settings: SlurmSettings, **more: str) -> dict[str, str | int | bool]:
    """The options of sbatch by name, True for one without a value."""
    asked = {
        "account": settings.account,
        "partition": settings.partition,
        "nodes": settings.nodes,
        "ntasks-per-node": 1,
        "gpus-per-node": settings.gpus_per_node or None,
        "cpus-per-task": settings.cpus_per_task,
        "mem": settings.mem,
        "time": settings.time,
        "constraint": settings.constraint,
        "signal": f"USR1@{settings.warning()}",
        "requeue": True,
        "open-mode": "append",
        **settings.options(),
        **more,
    }
    return {name: value for name, value in asked.items() if value is not None}


def _directives(options: Mapping[str, str | int | bool]) -> list[str]:
    """The lines of a script that ask SLURM for something."""
    return [
        f"#SBATCH --{name}" if value is True else f"#SBATCH --{name}={shell_quote(str(value))}"
        for name, value in options.items()
    ]


def _grace(settings: SlurmSettings) -> int:
    """Seconds after the signal when a worker is given up, early enough for the job to go back into the queue."""
    return max(1, settings.warning() - min(20, settings.warning() // 3))


def launch_slurm(
    command: Sequence[str], out: Path, *, workers: int | None, pieces: int, settings: SlurmSettings
) -> list[str]:
    """Submits workers through submitit, as many as are missing beside those that wait or run.

    Args:
        command: The command of a worker: Python, and its arguments.
        out: Folder of the campaign, on a file system that all machines see.
        workers: How many there are to be; None for as many as may run.
        pieces: Pieces of work that are not done, more workers than which make no sense.
        settings: What SLURM is asked for.

    Returns:
        What was submitted, in lines for a person.

    Raises:
        BadInput: If there is no SLURM, or it refuses such jobs.
    """
    _check_shared(out)
    wanted = min(pieces, workers or settings.max_running or pieces)
    check_slurm(settings, max(1, wanted))
    there = queued_jobs(out)
    held = [each for each in there if "held" in each.reason.lower()]
    lines = [f"job {each.job} is held ({each.reason}): scontrol release {each.job}" for each in held]
    missing = wanted - (len(there) - len(held))
    if missing < 1:
        return [*lines, f"{len(there) - len(held)} workers wait or run, and {wanted} are wanted: nothing was submitted"]
    job = _submit(command[1:], out, missing, settings)
    record = out / ".campaign" / "jobs.json"
    known = read_json(record)["jobs"] if record.exists() else []
    write_json(record, {"jobs": [*known, {"job": job, "workers": missing}]})
    others = f" beside {len(there) - len(held)} that wait or run" if len(there) > len(held) else ""
    return [
        *lines,
        f"submitted job {job}: {missing} worker{'s' * (missing > 1)}{others}; logs are in {record.parent / 'jobs'}",
    ]


def _submit(program: Sequence[str], out: Path, workers: int, settings: SlurmSettings) -> str:
    """The number of a job, of as many elements as there are to be workers, that runs a program of Python."""
    import submitit

    folder = out.absolute() / ".campaign" / "jobs"
    folder.mkdir(parents=True, exist_ok=True)
    executor = submitit.SlurmExecutor(folder)
    own = ("nodes", "ntasks-per-node")  # submitit wants to know these, too
    options = {name: value for name, value in _options(settings).items() if name not in own}
    executor.update_parameters(
        job_name=job_name(out),
        time=None,  # the user's words are among the options
        nodes=settings.nodes,
        ntasks_per_node=1,
        array_parallelism=settings.max_running or workers,
        setup=list(settings.setup),
        teardown=node.requeue_lines(folder),
        srun_args=node.srun_arguments(settings.cpus_per_task),
        stderr_to_stdout=True,
        wckey=None,
        additional_parameters=options,
    )
    # A job that is submitted from within another must not take that one's cores and tasks for its own.
    outer = [name for name in os.environ if name.startswith("SLURM_") and "SLURM_JOB_ID" in os.environ]
    hidden = {name: os.environ.pop(name) for name in outer if name != "SLURM_CONF"}
    try:
        jobs = executor.map_array(
            node.run_job,
            [list(program)] * workers,
            [settings.gpus_per_node or None] * workers,
            [_grace(settings)] * workers,
        )
    except submitit.core.utils.UncompletedJobError as error:
        raise BadInput(f"SLURM refuses the jobs: {one_line(error)}") from error
    finally:
        os.environ.update(hidden)
    return str(jobs[0].job_id).partition("_")[0]


def print_scripts(
    command: Sequence[str], out: Path, *, workers: int | None, pieces: int, settings: SlurmSettings
) -> list[str]:
    """Writes what others can submit or start: a script for sbatch, and a list of commands for machines without SLURM.

    Args:
        command: The command of a worker: Python, and its arguments.
        out: Folder of the campaign.
        workers: How many there are to be; None for as many as may run.
        pieces: Pieces of work that are not done, more workers than which make no sense.
        settings: What SLURM is asked for.

    Returns:
        What was written, in lines for a person.
    """
    folder = out.absolute() / ".campaign" / "scripts"
    count = max(1, min(pieces, workers or settings.max_running or pieces))
    running = f"%{settings.max_running}" if settings.max_running else ""
    log = f"{folder}/".replace("%", "%%") + "%A_%a.log"
    options = _options(settings, array=f"0-{count - 1}{running}", output=log, chdir=str(Path.cwd()))
    python = "python" if settings.setup else command[0]
    program = " ".join(map(shell_quote, command[1:]))
    processes = f"--processes {settings.gpus_per_node} " if settings.gpus_per_node else ""
    script = [
        "#!/bin/bash",
        f"# {count} worker{'s' * (count > 1)} of the campaign in {escape_terminal(str(out))}.",
        "# All are alike: each takes pieces of work until none is left.",
        f"#SBATCH --job-name={job_name(out)}",
        *_directives(options),
        "",
        *settings.setup,
        f"srun {' '.join(node.srun_arguments(settings.cpus_per_task))} \\",
        f"  {shell_quote(python)} -m sslticket.campaign.node {processes}--grace {_grace(settings)} \\",
        f"  {program}",
        *node.requeue_lines(folder),
    ]
    threads = "" if settings.gpus_per_node else 'OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" '  # as --launch local has it
    started = f"{threads}{shell_quote(python)} {program}"
    line = " && ".join([f"cd {shell_quote(str(Path.cwd()))}", *settings.setup, started])
    files = {folder / "workers.sbatch": script, folder / "commands.txt": [line] * count}
    for path, lines in files.items():
        with atomic_write(path) as temporary:
            temporary.write_text("\n".join([*lines, ""]), encoding="utf-8")
    return [
        f"wrote {folder / 'workers.sbatch'}: sbatch takes it",
        f"wrote {folder / 'commands.txt'}: each line starts a worker on a machine without SLURM",
    ]
