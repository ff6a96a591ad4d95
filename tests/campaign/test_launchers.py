"""Jobs of SLURM where no SLURM is: what is asked for, what is refused, the scripts, and what runs on each machine."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from sslticket.campaign.launch import (
    SlurmSettings,
    check_slurm,
    describe_jobs,
    job_name,
    launch_slurm,
    print_scripts,
    queued_jobs,
)
from sslticket.campaign.node import Node, find_node, launch_arguments, run_program
from sslticket.cli.commands import run_command
from sslticket.errors import BadInput
from sslticket.processes.signals import REQUEUE_EXIT

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "sslticket", "sweep", "lowshot", "--out", "my runs", "--worker"]


@pytest.mark.parametrize(
    ("written", "minutes"),
    [
        *[("90", 90), ("90:30", 91), ("4:00:00", 240), ("0:00:01", 1)],
        *[("1-12", 2160), ("1-12:30", 2190), ("2-0:0:0", 2880), ("0-1:00:30", 61)],
    ],
)
def test_a_time_limit_is_read_as_slurm_reads_it(written: str, minutes: int) -> None:
    assert SlurmSettings(time=written).minutes() == minutes


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"time": "4h"}, "--time must be a time as SLURM writes it, got '4h'; give minutes such as 90"),
        ({"time": "0"}, "--time must be a minute or more, got '0'"),
        ({"nodes": 0}, "--nodes must be a whole number from 1, got 0"),
        ({"gpus_per_node": -1}, "--gpus-per-node must be a whole number from 0, got -1"),
        ({"mem": "64 G"}, "--mem must be one word as sbatch takes it, got '64 G'"),
        ({"slurm": ("qos=",)}, "--slurm must be KEY=VALUE as sbatch --KEY=VALUE takes it, got 'qos='"),
        ({"slurm": ("ntasks=4",)}, "other options of sbatch than ntasks: each machine has one task"),
        ({"slurm": ("--time=4",)}, "other options of sbatch than time: give --time"),
        ({"setup": ("a\nb",)}, "--setup must be given as single lines"),
        ({"time": "2", "signal_seconds": 120}, "--signal-seconds must be from 1 and below the time limit, got 120"),
    ],
    ids=str,
)
def test_settings_that_no_job_can_have_are_refused(given: dict[str, object], told: str) -> None:
    with pytest.raises(BadInput) as refused:
        SlurmSettings(**given)
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)


def test_the_signal_leaves_a_short_job_most_of_its_time() -> None:
    assert [SlurmSettings(time=time).warning() for time in (None, "24:00:00", "10", "2")] == [120, 120, 120, 24]
    assert SlurmSettings(time="2", signal_seconds=60).warning() == 60


@pytest.mark.parametrize("more", [[], ["--dry-run"]], ids=str)
def test_what_only_jobs_can_have_is_refused_without_them(tmp_path: Path, more: list[str]) -> None:
    words = ["sweep", "lowshot_digits", "--out", str(tmp_path / "out"), "--time", "10", "--gpus-per-node", "1", *more]
    with pytest.raises(BadInput, match=r"^--gpus-per-node, --time must go with --launch slurm or --launch print, got"):
        run_command(words)
    run_command([*words, "--dry-run", "--launch", "print"])
    assert not list(tmp_path.iterdir())


def test_without_slurm_one_line_says_so_and_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for attempt in (
        lambda: check_slurm(SlurmSettings()),
        lambda: launch_slurm(COMMAND, tmp_path / "out", workers=2, pieces=2, settings=SlurmSettings()),
    ):
        with pytest.raises(BadInput, match=r"needs SLURM's sbatch, which is not on this machine.*--launch print"):
            attempt()
    assert queued_jobs(tmp_path / "out") == ()
    assert describe_jobs(tmp_path / "out") == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="no folder in memory here")
def test_a_folder_in_the_memory_of_one_machine_is_no_place_for_a_campaign() -> None:
    with pytest.raises(BadInput, match="--out must be a folder that all machines see, got /dev/shm/runs"):
        launch_slurm(COMMAND, Path("/dev/shm/runs"), workers=2, pieces=2, settings=SlurmSettings())


def test_two_campaigns_have_jobs_of_different_names(tmp_path: Path) -> None:
    first, second = tmp_path / "a" / "low shot", tmp_path / "b" / "low shot"
    assert job_name(first) != job_name(second)
    assert job_name(first).startswith("sslticket-low-shot-")


def test_printed_scripts_are_whole_and_nothing_else_is_touched(tmp_path: Path) -> None:
    settings = SlurmSettings(
        partition="gpu",
        nodes=2,
        gpus_per_node=4,
        cpus_per_task=16,
        time="4:00:00",
        slurm=("qos=long", "exclusive"),
        setup=(". .venv/bin/activate",),
        max_running=3,
    )
    out = tmp_path / "my runs"
    lines = print_scripts(COMMAND, out, workers=8, pieces=5, settings=settings)
    folder = out / ".campaign" / "scripts"
    assert [path.name for path in sorted(out.rglob("*")) if path.is_file()] == ["commands.txt", "workers.sbatch"]
    assert all(str(folder / name) in line for name, line in zip(("workers.sbatch", "commands.txt"), lines, strict=True))
    script = (folder / "workers.sbatch").read_text()
    for asked in (
        *("array=0-4%3", "partition=gpu", "nodes=2", "ntasks-per-node=1", "gpus-per-node=4", "cpus-per-task=16"),
        *("time=4:00:00", "signal=USR1@120", "requeue", "open-mode=append", "qos=long", "exclusive"),
        f"job-name={job_name(out)}",
    ):
        assert f"#SBATCH --{asked}\n" in script
    launched = script.replace(" \\\n ", "")
    assert ". .venv/bin/activate\nsrun --cpus-per-task=16 --kill-on-bad-exit=0 --wait=120 " in launched
    assert (
        " python -m sslticket.campaign.node --processes 4 --grace 100 "
        "-m sslticket sweep lowshot --out 'my runs' --worker\n"
    ) in launched
    subprocess.run(["bash", "-n", folder / "workers.sbatch"], check=True)
    commands = (folder / "commands.txt").read_text().splitlines()
    assert (
        commands
        == [f"cd {Path.cwd()} && . .venv/bin/activate && python -m sslticket sweep lowshot --out 'my runs' --worker"]
        * 5
    )


@pytest.mark.parametrize(("given", "threads"), [(None, "1"), ("3", "3")], ids=["unset", "set"])
def test_a_printed_command_of_a_cpu_worker_has_one_thread_unless_told_otherwise(
    given: str | None, threads: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [sys.executable, "-c", "import os; print(os.environ['OMP_NUM_THREADS'])"]
    print_scripts(command, tmp_path, workers=1, pieces=1, settings=SlurmSettings())
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if given:
        monkeypatch.setenv("OMP_NUM_THREADS", given)
    script = tmp_path / ".campaign" / "scripts" / "commands.txt"
    assert subprocess.run(["sh", script], check=True, capture_output=True, text=True).stdout == f"{threads}\n"


def run_script(folder: Path, script: Path, code: int) -> int:
    """How often a printed script puts its job back into the queue where its worker ends with a code."""
    asked = folder / "asked"
    asked.unlink(missing_ok=True)
    for name, text in {"srun": f"exit {code}", "scontrol": f'echo "$@" >>{asked}'}.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    variables = {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}", "SLURM_JOB_ID": "77"}
    done = subprocess.run(["bash", script], env=os.environ | variables, check=False)
    assert done.returncode == code
    words = asked.read_text().splitlines() if asked.exists() else []
    assert words == ["requeue 77"] * len(words)
    return len(words)


def test_a_stopped_worker_goes_back_into_the_queue_and_a_killed_one_ten_times_in_a_row(tmp_path: Path) -> None:
    print_scripts(COMMAND, tmp_path, workers=1, pieces=1, settings=SlurmSettings())
    script, programs = tmp_path / ".campaign" / "scripts" / "workers.sbatch", tmp_path / "bin"
    programs.mkdir()
    assert [run_script(programs, script, code) for code in (0, 2, 3, REQUEUE_EXIT, 1)] == [0, 0, 0, 1, 1]
    assert [run_script(programs, script, 137) for _ in range(10)] == [1] * 9 + [0]
    assert [run_script(programs, script, code) for code in (REQUEUE_EXIT, 137)] == [1, 1]


def test_a_machine_of_a_job_knows_its_place_from_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "scontrol").write_text('#!/bin/sh\n[ "$*" = "show hostnames m[7-8]" ] && echo m7 && echo m8\n')
    (tmp_path / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    told = {"SLURM_STEP_NUM_NODES": "2", "SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NODELIST": "m[7-8]"}
    told |= {"SLURM_NODEID": "1", "SLURM_JOB_ID": "12345", "SLURM_CPUS_ON_NODE": "16", "SLURM_GPUS_ON_NODE": "4"}
    node = find_node(told)
    assert node == Node(number=1, count=2, processes=4, threads=4, leader="m7", port=22345)
    words = " ".join(launch_arguments(node))
    assert "--num_machines 2 --num_processes 8 --machine_rank 1" in words
    assert words.endswith("--main_process_ip m7 --main_process_port 22345")
    assert find_node(told | {"SLURM_RESTART_COUNT": "2"}).port != node.port
    with pytest.raises(BadInput, match=r"8 tasks on 2 machines.*--ntasks-per-node=1"):
        find_node(told | {"SLURM_STEP_NUM_TASKS": "8"})


def test_outside_slurm_a_machine_is_alone() -> None:
    node = find_node({"OMP_NUM_THREADS": "3"})
    assert (node.number, node.count, node.processes, node.threads) == (0, 1, 1, 3)


def test_a_program_ends_with_its_own_code(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import os, signal, sys\nsys.exit(int(sys.argv[1])) if sys.argv[1:] else os.kill(os.getpid(), 9)\n"
    )
    codes = [run_program([str(program), *words], find_node({})) for words in (["0"], ["2"], [str(REQUEUE_EXIT)], [])]
    assert codes == [0, 2, REQUEUE_EXIT, 137]


WORKER = """
import os, signal, sys, time
def leave(number, frame):
    time.sleep(float(sys.argv[1]))
    print("saved " + os.environ.get("RANK", "") + "\\n", end="", flush=True)  # in one write
    os._exit(75)
signal.signal(signal.SIGUSR1, leave)
print("begun\\n", end="", flush=True)  # in one write
while True:
    time.sleep(0.1)
"""


def stop_as_slurm_does(words: list[str], begun: int) -> tuple[int, str]:
    """The exit code and the output of a machine's processes, all of which get SIGUSR1 once so many have begun."""
    command = [sys.executable, "-m", "sslticket.campaign.node", *words]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as started:
        assert started.stdout is not None
        lines = [started.stdout.readline() for _ in range(begun)]
        for process in [psutil.Process(started.pid), *psutil.Process(started.pid).children(recursive=True)]:
            process.send_signal(signal.SIGUSR1)
        assert lines == ["begun\n"] * begun
        printed = started.stdout.read()
        return started.wait(), printed


def test_the_signal_of_slurm_lets_a_worker_save_and_leave(tmp_path: Path) -> None:
    (tmp_path / "worker.py").write_text(WORKER)
    code, printed = stop_as_slurm_does(["--grace", "60", str(tmp_path / "worker.py"), "0.5"], 1)
    assert (code, printed) == (REQUEUE_EXIT, "saved \n")


def test_a_worker_that_takes_too_long_to_save_is_killed_before_the_time_limit(tmp_path: Path) -> None:
    (tmp_path / "worker.py").write_text(WORKER)
    began = time.monotonic()
    code, printed = stop_as_slurm_does(["--grace", "1", str(tmp_path / "worker.py"), "600"], 1)
    assert (code, printed) == (REQUEUE_EXIT, "")
    assert time.monotonic() - began < 60


def test_launched_processes_all_save_and_their_code_is_not_lost(tmp_path: Path) -> None:
    (tmp_path / "worker.py").write_text(WORKER)
    code, printed = stop_as_slurm_does(["--processes", "2", str(tmp_path / "worker.py"), "0.5"], 2)
    assert code == REQUEUE_EXIT
    assert sorted(printed.splitlines()) == ["saved 0", "saved 1"]


@pytest.mark.parametrize(
    "words", [[], ["-m"], ["--processes", "0", "a.py"], ["--grace"], ["--nodes", "2", "a.py"]], ids=str
)
def test_a_machine_without_a_program_says_how_to_give_one(words: list[str]) -> None:
    command = [sys.executable, "-m", "sslticket.campaign.node", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert shutil.which("srun") is None or "srun" in done.stderr
