"""Evaluation and analyses on the pretend accelerator: the rows are the CPU's."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sslticket.analysis.connectivity import Connectivity
from sslticket.analysis.trained_weights import Magnitudes, Stability
from sslticket.config.training import SGD, TrainConfig
from sslticket.evaluation import controls
from sslticket.evaluation.jobs import evaluate_tasks
from sslticket.evaluation.protocols import Protocol
from sslticket.evaluation.tasks import Levels, find_ticket_files, make_tasks
from sslticket.search.plan import plan_search
from sslticket.search.run_search import run_search
from sslticket.training.engine import Engine
from tests.device import cases
from tests.device.conftest import Device

SHORT = Protocol(
    name="short", dataset="digits", training=TrainConfig(length="6it", batch_size=48, optimizer=SGD(lr=0.1))
)
GROWING = replace(SHORT, name="growing", early_sizes=(("3it", 6),), label_smoothing=0.1)
OWN = ("seconds", "device", "commit", "time", "host", "started", "finished")  # of where and when it was computed

Rows = Callable[[list[Path], Engine], Iterator[dict[str, Any]]]

MEASURES: dict[str, Rows] = {
    "scores": lambda paths, bench: evaluate_tasks(
        make_tasks(paths[1:], ["random", "local", "adjusted"], [SHORT], [0]), bench
    ),
    "growing": lambda paths, bench: evaluate_tasks(make_tasks(paths[1:], [], [GROWING], [0]), bench),
    "stability": lambda paths, bench: Stability().rows(paths[1:], SHORT, [0], bench, controls=("local",)),
    "connectivity": lambda paths, bench: Connectivity(points=3).rows(paths[1:], SHORT, [0], bench),
    "magnitudes": lambda paths, bench: Magnitudes().rows(paths[:1], SHORT, [0], bench),
}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Path:
    planned = plan_search(
        cases.recipe("rotnet", search=cases.imp(levels=1)), cases.MACHINE, tmp_path_factory.mktemp("searched")
    )
    run_search(planned, cases.MACHINE)
    return planned.run_dir.path


def measured(found: Path, out: Path, rows: Rows) -> list[dict[str, Any]]:
    copied = shutil.copytree(found, out / found.name)
    told = rows(find_ticket_files([copied], Levels((0, 1))), Engine.create(cases.MACHINE, "fp32"))
    return [{name: value for name, value in row.items() if name not in OWN} for row in told]


@pytest.mark.parametrize("what", MEASURES)
def test_every_measure_gives_the_rows_of_the_cpu(
    found: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: Device, what: str
) -> None:
    # Six steps take no weight to zero: so that the adjusted control has less to choose from, small is zero enough.
    monkeypatch.setattr(controls, "MACHINE_PRECISION", 0.05)
    expected = measured(found, tmp_path / "cpu", MEASURES[what])
    assert expected
    assert all(0.1 < row.get("natural_density", 0.5) < 0.9 for row in expected if row["kind"] == "score")
    with device():
        assert measured(found, tmp_path / "there", MEASURES[what]) == expected


@pytest.mark.parametrize("protocol", [SHORT, GROWING], ids=lambda protocol: protocol.name)
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_scores_in_half_precision_are_measured(
    found: Path, tmp_path: Path, device: Device, precision: Any, protocol: Protocol
) -> None:
    paths = find_ticket_files([shutil.copytree(found, tmp_path / found.name)], Levels((1,)))
    with device():
        (row,) = evaluate_tasks(make_tasks(paths, [], [protocol], [0]), Engine.create(cases.MACHINE, precision))
    assert 0 <= row["top1"] <= 1
    assert row["device"] == "a pretend accelerator"
