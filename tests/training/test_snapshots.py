"""Trainings that are stopped at any step go on from there: the same bits, rows and images as if they never had been."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from sslticket.analysis.base import run_analysis
from sslticket.analysis.endpoints import make_analysis_tasks
from sslticket.analysis.trained_weights import Stability
from sslticket.config.recipe import Recipe
from sslticket.config.runtime import RuntimeConfig
from sslticket.config.training import SGD, TrainConfig
from sslticket.errors import BadInput
from sslticket.evaluation.jobs import evaluate_tasks
from sslticket.evaluation.protocols import Protocol
from sslticket.evaluation.tasks import Levels, find_ticket_files, make_tasks
from sslticket.objectives.dino import DINO
from sslticket.objectives.mocov2 import MoCoV2
from sslticket.processes import signals
from sslticket.pruning.criteria import SNIP
from sslticket.search.imp import IMP
from sslticket.search.learned import ContinuousSparsification
from sslticket.search.plan import plan_search
from sslticket.search.run_search import run_search
from sslticket.storage import tensorfile
from sslticket.ticket import Ticket
from sslticket.training import snapshots
from sslticket.training.engine import Engine
from sslticket.training.loop import TrainingLoop
from sslticket.training.progress import Progress
from sslticket.training.snapshots import SNAPSHOT_FOLDER
from tests.runs import REWIND, recipe, search
from tests.search.test_killed import files, told
from tests.together.test_together import ROOT, free_port

AT = f"{REWIND}it"
LEVELS = IMP(levels=2, rate=0.5, rewind=AT)
SEARCHES = {
    "imp": recipe(search=LEVELS),
    "mocov2-rate": recipe(MoCoV2(dim=16, queue=64), search=replace(LEVELS, levels=1, retrain="rate")),
    "dino": recipe(
        DINO(hidden=16, bottleneck=8, outputs=16, frozen_for=0.5), search=replace(LEVELS, levels=1), momentum=False
    ),
    "continuous": recipe(search=ContinuousSparsification(rounds=2, rewind=AT, score_lr=2.0)),
    "early-bird-snip": recipe(
        search=replace(
            LEVELS,
            early_bird=0.9,
            early_bird_window=2,
            early_bird_every="1it",
            criterion=SNIP(score_images=32),
        )
    ),
}


class Killed(BaseException):
    """No clean-up of ours knows it, as none knows SIGKILL."""


@contextmanager
def after_steps(count: int, act: Callable[[], None]) -> Iterator[None]:
    """Does something in a step, the one of this number from now on."""
    real, taken = TrainingLoop._run_step, 0

    def step(loop: TrainingLoop, *given: Any) -> torch.Tensor:
        nonlocal taken
        taken += 1
        if taken == count:
            act()
        return real(loop, *given)

    TrainingLoop._run_step = step  # type: ignore[method-assign]
    try:
        yield
    finally:
        TrainingLoop._run_step = real  # type: ignore[method-assign]


def stopped_every(steps: int, work: Callable[[], object]) -> int:
    """Does work that is stopped by SIGUSR1 whenever it has taken so many steps, and begun again; returns how often."""
    for stops in range(100):
        try:
            with (
                signals.raise_on_signals(signal.SIGUSR1),
                after_steps(steps, lambda: os.kill(os.getpid(), signal.SIGUSR1)),
            ):
                work()
        except signals.Stopped:
            continue
        return stops
    raise AssertionError("it never came to its end")


@pytest.mark.parametrize("which", SEARCHES.values(), ids=SEARCHES)
def test_a_search_that_is_stopped_again_and_again_ends_as_one_that_never_was(tmp_path: Path, which: Recipe) -> None:
    search(tmp_path / "whole", which)
    assert stopped_every(3, lambda: search(tmp_path / "stopped", which)) >= 2
    assert told(tmp_path / "stopped") == told(tmp_path / "whole")
    assert files(tmp_path / "stopped") == files(tmp_path / "whole"), "tickets, and no snapshot is left"


SHORT = Protocol(
    name="short", dataset="digits", training=TrainConfig(length="8it", batch_size=64, optimizer=SGD(lr=0.1))
)


def scores(run: Path) -> object:
    asked = make_tasks(find_ticket_files([run], Levels((1,))), ["adjusted"], [SHORT], [0])
    return list(evaluate_tasks(asked, Engine.create(RuntimeConfig(), "fp32")))


def stabilities(run: Path) -> object:
    asked = make_analysis_tasks(find_ticket_files([run], Levels((1,))), [], [SHORT], [0], ["new"])
    return list(run_analysis(Stability(), asked, Engine.create(RuntimeConfig(), "fp32")))


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return search(tmp_path_factory.mktemp("runs"), recipe(search=replace(LEVELS, levels=1))).run_dir.path


@pytest.mark.parametrize("measure", [scores, stabilities])
def test_rows_of_work_that_is_stopped_again_and_again_are_those_of_work_that_never_was(
    found: Path, tmp_path: Path, measure: Callable[[Path], object]
) -> None:
    whole, stopped = (shutil.copytree(found, tmp_path / name / found.name) for name in ("whole", "stopped"))
    measure(whole)
    assert stopped_every(5, lambda: measure(stopped)) >= 3
    assert told(stopped.parent) == told(whole.parent)
    assert not (stopped / SNAPSHOT_FOLDER).exists()


def kept(out: Path) -> list[Path]:
    return sorted(out.glob(f"*/{SNAPSHOT_FOLDER}/*"))


def kill(out: Path, step: int, monkeypatch: pytest.MonkeyPatch, which: Recipe | None = None) -> None:
    """A search that keeps a snapshot after every step, and is killed in one of them."""

    def die() -> None:
        raise Killed

    machine = RuntimeConfig(snapshot_every=1e-9)
    with monkeypatch.context() as patched, after_steps(step, die):
        patched.setattr(snapshots, "_MAX_SHARE", 1e9)  # a few steps take too short for any share of them
        patched.setattr(snapshots._Writer, "is_busy", False)
        planned = plan_search(which or recipe(search=LEVELS), machine, out)
        with pytest.raises(Killed):
            run_search(planned, machine)


@pytest.fixture
def notes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    heard: list[str] = []
    monkeypatch.setattr(Progress, "note", lambda progress, text: heard.append(text))
    return heard


def test_after_a_kill_it_goes_on_from_the_last_of_two_snapshots_or_from_the_one_before_a_damaged_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, notes: list[str]
) -> None:
    search(tmp_path / "whole", recipe(search=LEVELS))
    kill(tmp_path / "killed", REWIND + 4, monkeypatch)  # after step 5 of the dense network's 6, which began at 2
    assert [path.name for path in kept(tmp_path / "killed")] == [
        f"search.level-01.step-{step:010d}.safetensors" for step in (4, 5)
    ]
    kill(tmp_path / "killed", 1, monkeypatch)
    assert notes[-1] == "goes on from the snapshot at step 5"
    last = kept(tmp_path / "killed")[-1]
    last.write_bytes(last.read_bytes()[:-7])
    search(tmp_path / "killed", recipe(search=LEVELS))
    assert any(note.startswith(f"left out {last.name}, an earlier one is looked for: ") for note in notes)
    assert "goes on from the snapshot at step 4" in notes
    assert told(tmp_path / "killed") == told(tmp_path / "whole")
    assert files(tmp_path / "killed") == files(tmp_path / "whole")


def test_a_snapshot_of_another_training_is_left_out_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, notes: list[str]
) -> None:
    search(tmp_path / "whole", recipe(search=LEVELS))
    for seed, out in enumerate(("own", "foreign")):
        kill(tmp_path / out, REWIND + 3, monkeypatch, recipe(search=LEVELS, seed=seed))
    for path in kept(tmp_path / "foreign"):
        shutil.copy(path, kept(tmp_path / "own")[0].parent)
    search(tmp_path / "own", recipe(search=LEVELS))
    assert [note for note in notes if note.startswith("left out")] == [
        f"left out {path.name}: it is of another recipe" for path in reversed(kept(tmp_path / "foreign"))
    ]
    assert files(tmp_path / "own") == files(tmp_path / "whole")


@pytest.mark.parametrize("fault", [OSError(28, "No space left on device"), ValueError("a mask that is no bytes")])
def test_a_snapshot_that_cannot_be_written_costs_the_snapshot_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, notes: list[str], fault: Exception
) -> None:
    write = tensorfile.write_tensor_file

    def full(path: Path, *given: Any) -> None:
        if SNAPSHOT_FOLDER in path.parts:
            raise fault
        write(path, *given)

    monkeypatch.setattr(tensorfile, "write_tensor_file", full)
    kill(tmp_path / "killed", REWIND + 3, monkeypatch)
    assert any("no snapshot was kept: " in note and str(fault.args[-1]) in note for note in notes)


@pytest.mark.parametrize("minutes", [-1.0, float("inf"), float("nan")])
def test_minutes_that_are_none_are_refused(minutes: float) -> None:
    with pytest.raises(BadInput, match=r"--snapshot-every must be a finite number of minutes, .*; give 10"):
        RuntimeConfig(snapshot_every=minutes)


TOGETHER = {
    "ghosts": replace(
        recipe(search=replace(LEVELS, levels=1)),
        training=TrainConfig(length="6it", batch_size=24, ghost_batch=4, optimizer=SGD(lr=0.05)),
    )
}
"""With batch norm over ghost batches each process has running statistics of its own."""


def seen_images(out: Path, which: Recipe) -> dict[str, list[list[int]]]:
    """Does a search, and returns which images each of its steps saw in this process."""
    seen: dict[str, list[list[int]]] = {}
    real = TrainingLoop._run_step

    def step(loop: TrainingLoop, batch: Any, number: int, progress: float) -> torch.Tensor:
        seen.setdefault(f"{loop._seed}.{number}", []).append(batch.indices.tolist())
        return real(loop, batch, number, progress)

    TrainingLoop._run_step = step  # type: ignore[method-assign]
    try:
        search(out, which)
    except signals.Stopped:
        pass
    finally:
        TrainingLoop._run_step = real  # type: ignore[method-assign]
    return seen


@pytest.mark.slow
def test_two_processes_go_on_with_the_same_bits_and_one_goes_on_after_two_with_the_same_images(tmp_path: Path) -> None:
    command = (
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        "--master-port",
        str(free_port()),
    )
    done = subprocess.run(
        [*command, "tests/training/stopped_together.py", str(tmp_path)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    by_rank = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    for name, which in TOGETHER.items():
        whole = told(tmp_path / "whole" / name)
        assert told(tmp_path / "stopped" / name) == whole
        assert files(tmp_path / "stopped" / name) == files(tmp_path / "whole" / name)
        assert kept(tmp_path / "left" / name), "one process takes over here"
        seen = seen_images(tmp_path / "left" / name, which)
        assert seen, "something was left to be trained"
        for step, batches in seen.items():
            shares = [told_by[name][step] for told_by in by_rank]
            assert batches == [[image for share in shares for image in share[0]]], step
        for one, other in zip(
            *(sorted((tmp_path / how / name).glob("*/tickets/*")) for how in ("whole", "left")), strict=True
        ):
            ours, theirs = Ticket.load(one), Ticket.load(other)
            differ = sum(int((ours.mask[layer] ^ theirs.mask[layer]).sum()) for layer in ours.mask)
            assert differ <= 0.002 * ours.mask.total, name
        (row,) = [row for file, row in told(tmp_path / "left" / name).items() if file == "search.level-01.jsonl"]
        assert row["device"] == f"2 x {row['device'].partition('; ')[2]}; {row['device'].partition('; ')[2]}"
        assert {**row, "device": ""}.keys() == whole["search.level-01.jsonl"].keys()
