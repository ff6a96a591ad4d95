"""How several processes end: one that is gone ends all, and one line says which it was and what to do."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.digits import write_digits
from tests.together.test_together import ROOT, free_port

ENDLESS = ("recipes/supervised_digits.py", "--batch-size", "24", "--length", "100000it", "--rewind", "2it")
TRIAL = ("recipes/supervised_digits.py", "--batch-size", "24", "--length", "6it", "--levels", "1")
AGAIN = "run the same command again: what is finished stays, and it goes on from there"


def environment(**variables: str) -> dict[str, str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return os.environ | {"PATH": path, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)} | variables


def launcher(processes: int, *words: object) -> subprocess.Popen[str]:
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes))
    return subprocess.Popen(
        [*torchrun, "--master-port", str(free_port()), *map(str, words)],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def own_lines(text: str) -> list[str]:
    """Ours begin with "error"; the launcher's do not."""
    return [line for line in text.splitlines() if line.startswith("error")]


def at_work(folder: Path, started: subprocess.Popen[str]) -> dict[int, psutil.Process]:
    """The processes of a launched search by their rank, once it trains its first level."""
    late = time.monotonic() + 120
    while not list(folder.glob("*/tickets/level-00.safetensors")):
        assert started.poll() is None, started.communicate()[1][-2000:]
        assert time.monotonic() < late
        time.sleep(0.1)
    workers = psutil.Process(started.pid).children()
    return {int(worker.environ()["RANK"]): worker for worker in workers if "RANK" in worker.environ()}


@pytest.mark.slow
@pytest.mark.parametrize(("processes", "killed"), [(2, 1), (3, 0)])
def test_a_killed_process_ends_all_and_is_named(tmp_path: Path, processes: int, killed: int) -> None:
    started = launcher(processes, *ENDLESS, "--out", tmp_path)
    workers = at_work(tmp_path, started)
    assert sorted(workers) == list(range(processes))
    workers[killed].send_signal(signal.SIGKILL)
    _, errors = started.communicate(timeout=60)
    assert started.returncode == 1
    (line,) = own_lines(errors)
    assert re.fullmatch(rf"error: process {killed} on \S+ has ended without a word, .*; {AGAIN}", line)
    assert "RuntimeError" not in errors, "nobody's broken connections are told"
    assert not any(worker.is_running() for worker in workers.values())


@pytest.mark.slow
def test_a_process_that_hangs_is_given_up(tmp_path: Path) -> None:
    started = launcher(2, *ENDLESS, "--timeout", "0.1", "--out", tmp_path)
    workers = at_work(tmp_path, started)
    workers[1].suspend()
    workers[0].wait(timeout=60)
    workers[1].kill()  # which the launcher would do after half a minute
    _, errors = started.communicate(timeout=60)
    assert started.returncode == 1
    (line,) = own_lines(errors)
    assert re.fullmatch(rf"error: process 1 on \S+ has given no sign of life for 0.1 minutes; .*; {AGAIN}", line)


def by_rank(processes: int, script: str) -> tuple[int, str]:
    """A shell script in each process, which may look at its RANK; the launcher's exit code, and what was told."""
    started = launcher(processes, "--no-python", "bash", "-c", script)
    _, errors = started.communicate(timeout=120)
    return started.returncode, errors


@pytest.fixture
def folder_recipe(tmp_path: Path) -> Callable[[str], str]:
    """A search in images of one's own; ends in what follows --data-root."""
    words = " ".join(
        (sys.executable, *TRIAL, "--dataset", "folder", "--image-size", "8", "--out", str(tmp_path / "out"))
    )
    return lambda root: f"exec {words} --data-root {root}"


@pytest.mark.slow
def test_processes_that_see_other_images_all_end_and_it_is_said_who_sees_what(
    tmp_path: Path, folder_recipe: Callable[[str], str]
) -> None:
    for rank, images in enumerate((6, 6, 5)):
        write_digits(tmp_path / str(rank) / "digits", train=images)
    code, errors = by_rank(3, folder_recipe(f"{tmp_path}/$RANK/digits"))
    assert code == 1
    (line,) = own_lines(errors)
    told = r"sees {} training images with the hash [0-9a-f]{{16}}"
    told = rf"error: process 2 {told.format(50)}, and process 0 {told.format(60)}; --data-root must show the same .*"
    assert re.fullmatch(told, line)
    assert errors.count("exitcode  : 2 ") == 3, "all end with the code of bad input"
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_process_that_finds_no_images_ends_those_that_do(tmp_path: Path, folder_recipe: Callable[[str], str]) -> None:
    write_digits(tmp_path / "0", train=6)
    (tmp_path / "1").mkdir()
    code, errors = by_rank(2, folder_recipe(f"{tmp_path}/$RANK"))
    assert code == 1
    (line,) = own_lines(errors)
    assert line.startswith("error in process 1: no images of folder found")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_what_all_processes_find_wrong_is_told_once(tmp_path: Path, folder_recipe: Callable[[str], str]) -> None:
    code, errors = by_rank(3, folder_recipe(f"{tmp_path}/nowhere"))
    assert code == 1
    (line,) = own_lines(errors)
    assert line.startswith("error: no images of folder found")


@pytest.mark.slow
def test_processes_with_other_flags_are_told_apart(tmp_path: Path) -> None:
    words = " ".join((sys.executable, *TRIAL, "--out", str(tmp_path / "out")))
    code, errors = by_rank(2, f"exec {words} --seed $RANK")
    assert code == 1
    assert own_lines(errors) == [
        "error: process 1 has --seed 1, and process 0 has --seed 0; give the same flags to every process"
    ]


@pytest.mark.slow
@pytest.mark.parametrize("idle", [0, 1])
def test_a_process_that_has_nothing_to_do_ends_those_that_have(tmp_path: Path, idle: int) -> None:
    words = " ".join((sys.executable, *TRIAL, "--out", str(tmp_path / "out")))
    code, errors = by_rank(2, f"[ $RANK = {idle} ] && exec {words} --dry-run; exec {words}")
    assert code == 1
    (line,) = own_lines(errors)
    told = rf"error: process {idle} on \S+ has nothing to do, and others have; .*; give the same flags to every process"
    assert re.fullmatch(told, line)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["flags", "file"])
def test_a_launcher_that_starts_one_process_in_place_of_two_is_found_out(tmp_path: Path, how: str) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(
        "compute_environment: LOCAL_MACHINE\ndistributed_type: MULTI_CPU\nnum_machines: 1\nnum_processes: 2\n"
        "machine_rank: 0\nmixed_precision: 'no'\nuse_cpu: true\n"
    )
    given = ["--cpu", "--num_processes", "2"] if how == "flags" else ["--config_file", str(file)]
    done = subprocess.run(
        ["accelerate", "launch", *given, *TRIAL, "--out", str(tmp_path / "out")],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    (line,) = own_lines(done.stderr)
    assert line.startswith("error: accelerate launch was asked for several processes and starts a single one")
    assert not (tmp_path / "out").exists()
