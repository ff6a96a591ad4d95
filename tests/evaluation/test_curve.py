"""Top-1 on the way of a protocol's training: `sslticket evaluate --curve`."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sslticket.config.runtime import RuntimeConfig
from sslticket.config.training import SGD, TrainConfig
from sslticket.errors import BadInput
from sslticket.evaluation import tasks
from sslticket.evaluation.jobs import evaluate_tasks
from sslticket.evaluation.protocols import Protocol
from sslticket.results import table
from sslticket.results.rows import row_error
from sslticket.training.engine import Engine
from tests.runs import BATCH, REWIND, search

IMAGES = 1438  # of digits, that are trained on
SHORT = Protocol(
    name="short", dataset="digits", training=TrainConfig(length="30it", batch_size=128, optimizer=SGD(lr=0.1))
)
SAME = ("top1", "top5", "loss", "samples", "steps", "forward_images", "backward_images")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return search(tmp_path_factory.mktemp("runs")).run_dir.path


def scored(run: Path, curve: str | None, protocol: Protocol = SHORT) -> list[dict[str, Any]]:
    paths = tasks.find_ticket_files([run], tasks.Levels((1,)))
    chosen = tasks.make_tasks(paths, [], [protocol], [0], ["new"], curve=curve)
    return list(evaluate_tasks(chosen, Engine.create(RuntimeConfig(), "fp32")))


def test_a_curve_changes_no_bit_of_the_result_and_ends_with_it(run: Path) -> None:
    (plain,) = scored(run, None)
    (row,) = scored(run, "1ep")
    assert row_error(row) is None
    assert {name: row[name] for name in SAME} == {name: plain[name] for name in SAME}
    # An epoch of 1,438 images ends in step 12, two of them in step 23, and the training in step 30.
    samples = [steps * 128 for steps in (12, 23, 30)]
    assert [point[:2] for point in row["curve"]] == [[seen, seen / IMAGES] for seen in samples]
    assert row["curve"][-1][2] == row["top1"]
    assert row["curve"][0][2] < row["top1"], "it learns"
    assert row["curve_every"] == "1ep"
    assert scored(run, "1ep") == scored(run, None) == [], "what is measured is not measured again"
    (finer,) = scored(run, "10it")
    assert [point[0] for point in finer["curve"]] == [10 * 128, 20 * 128, 30 * 128]
    assert finer["top1"] == plain["top1"]


def test_a_curve_from_the_rewind_point_begins_there_on_the_schedule(run: Path) -> None:
    protocol = replace(SHORT, name="rewound", start="k")
    start = -(-REWIND * BATCH // 128)
    (row,) = scored(run, "50%", protocol)
    assert [point[0] for point in row["curve"]] == [15 * 128, 30 * 128]
    assert row["samples"] == (30 - start) * 128


def test_each_measurement_of_a_curve_is_a_line_for_drawing(run: Path) -> None:
    scored(run, "10it")
    frame = table.read_rows([run])
    points = table.curve_rows(frame)
    own = points[(points["protocol"] == "short") & (points["curve_every"] == "10it")]
    assert list(own["samples_seen"]) == [1280, 2560, 3840]
    assert own["epoch"].iloc[0] == pytest.approx(1280 / IMAGES)
    assert own["top1"].iloc[-1] == frame.loc[frame["protocol"] == "short", "top1"].iloc[0]
    assert set(own["kind"]) == {"curve"}
    levels = frame[frame["kind"] == "level"]
    assert table.curve_rows(levels).empty


@pytest.mark.parametrize("curve", ["0ep", "5", "ten"])
def test_an_interval_that_is_no_length_is_refused(run: Path, curve: str) -> None:
    message = "--curve must be" if curve == "0ep" else "--curve must be like"
    with pytest.raises(BadInput, match=re.escape(message)):
        scored(run, curve)
