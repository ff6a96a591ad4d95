"""Rows of evaluations and analyses that were killed after every file are those of ones that never were."""

import json
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sslticket.analysis.base import run_analysis
from sslticket.analysis.endpoints import make_analysis_tasks
from sslticket.analysis.trained_weights import Magnitudes, Stability
from sslticket.config.runtime import RuntimeConfig
from sslticket.config.training import SGD, TrainConfig
from sslticket.evaluation.jobs import evaluate_tasks
from sslticket.evaluation.protocols import Protocol
from sslticket.evaluation.tasks import Levels, find_ticket_files, make_tasks
from sslticket.training.engine import Engine
from tests.runs import search

SHORT = Protocol(
    name="short", dataset="digits", training=TrainConfig(length="8it", batch_size=64, optimizer=SGD(lr=0.1))
)
GONE = f"{socket.gethostname()}.{2**30}.part"  # no system has so many processes


class Killed(BaseException):
    """No clean-up of ours knows it, as none knows SIGKILL."""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return search(tmp_path_factory.mktemp("runs")).run_dir.path


def engine() -> Engine:
    return Engine.create(RuntimeConfig(), "fp32")


def scores(run: Path) -> object:
    return list(
        evaluate_tasks(
            make_tasks(find_ticket_files([run], Levels((0, 2))), ["random", "adjusted"], [SHORT], [0]), engine()
        )
    )


def stabilities(run: Path) -> object:
    asked = make_analysis_tasks(find_ticket_files([run], Levels((1, 2))), ["local"], [SHORT], [0], ["new"])
    return list(run_analysis(Stability(), asked, engine()))


def sizes(run: Path) -> object:
    return list(
        run_analysis(
            Magnitudes(),
            make_analysis_tasks(find_ticket_files([run], Levels((0,))), [], [SHORT], [0], ["new"]),
            engine(),
        )
    )


def told(run: Path) -> dict[str, dict[str, Any]]:
    rows = {path.name: json.loads(path.read_text()) for path in run.glob("rows/*.jsonl")}
    return {name: {key: value for key, value in row.items() if key != "seconds"} for name, row in rows.items()}


@pytest.mark.slow
@pytest.mark.parametrize("measure", [scores, stabilities, sizes])
def test_rows_that_were_killed_after_every_file_are_those_that_never_were(
    found: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, measure: Callable[[Path], object]
) -> None:
    whole, killed = (shutil.copytree(found, tmp_path / name / found.name) for name in ("whole", "killed"))
    measure(whole)
    replace, kills = Path.replace, 0

    def last_act(self: Path, target: Path) -> Path:
        known = target.exists()
        replace(self, target)
        if known or ".status" in target.parts:
            return target
        raise Killed

    for _ in range(30):
        with monkeypatch.context() as patched:
            patched.setattr(Path, "replace", last_act)
            try:
                measure(killed)
            except Killed:
                kills += 1
            else:
                break
    assert kills > 1
    assert told(killed) == told(whole)


def test_what_killed_processes_left_of_rows_that_are_there_goes(found: Path, tmp_path: Path) -> None:
    run = shutil.copytree(found, tmp_path / found.name)
    sizes(run)
    (row,) = run.glob("rows/*magnitudes.short*.jsonl")
    before = {path.name for path in run.rglob("*")}
    (row.parent / f".{row.name}.claim").write_text(socket.gethostname())
    (row.parent / f".{row.name}.{GONE}").write_text("half")
    sizes(run)
    assert {path.name for path in run.rglob("*")} == before
