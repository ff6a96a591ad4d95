"""Which trainings fill which rows, what is reused, and what is shared between processes."""

import json
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sslticket.config.recipe import Data
from sslticket.config.runtime import RuntimeConfig
from sslticket.config.training import SGD, TrainConfig
from sslticket.errors import BadInput
from sslticket.evaluation import tasks
from sslticket.evaluation.controls import NaturalMask
from sslticket.evaluation.jobs import EvaluationPlan, NaturalJob, evaluate_tasks
from sslticket.evaluation.protocols import Protocol
from sslticket.evaluation.tasks import EvalTask
from sslticket.pruning.mask import Mask
from sslticket.results.rows import row_error
from sslticket.results.throughput import Throughput
from sslticket.results.work_queue import describe_queue
from sslticket.search.imp import IMP
from sslticket.ticket import Ticket
from sslticket.training.engine import Engine
from sslticket.training.numerics import Numerics
from tests.runs import recipe, search

SHORT = Protocol(
    name="short", dataset="digits", training=TrainConfig(length="4it", batch_size=32, optimizer=SGD(lr=0.1))
)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two searches of three levels on digits, which differ in their rewind point and share their seed."""
    out = tmp_path_factory.mktemp("runs")
    for rewind in ("2it", "3it"):
        search(out, recipe(search=IMP(levels=3, rate=0.5, rewind=rewind)))
    return out


@pytest.fixture
def runs(found: Path, tmp_path: Path) -> Path:
    return shutil.copytree(found, tmp_path / "runs")


def rows_of(
    runs: Path, *controls: str, levels: tuple[int, ...] = (0, 2), seeds: tuple[int, ...] = (0,)
) -> list[EvalTask]:
    return tasks.make_tasks(tasks.find_ticket_files([runs], tasks.Levels(levels)), controls, [SHORT], seeds)


def measured(rows: list[EvalTask]) -> list[dict[str, Any]]:
    return list(evaluate_tasks(rows, Engine.create(RuntimeConfig(), "fp32")))


def trainings(rows: list[EvalTask]) -> Counter[str]:
    return Counter(
        getattr(each, "control", "natural")
        for each in EvaluationPlan.build(rows, None, Numerics(precision="fp32")).jobs()
        if each.samples
    )


def test_what_owes_nothing_to_a_ticket_is_trained_once(runs: Path) -> None:
    """Two runs, levels 0 and 2: a random ticket a level; preserved and local ones need none of their own when dense."""
    rows = rows_of(runs, "random", "preserved", "local")
    assert len(rows) == 2 * 2 * 4
    assert trainings(rows) == {"ticket": 4, "random": 2, "preserved": 2, "local": 2}
    written = measured(rows)
    assert len(written) == len(rows)
    assert [row_error(row) for row in written] == [None] * len(rows)
    seconds = Counter(row["seconds"] for row in written if row["control"] == "random" and row["level"] == 2)
    assert list(seconds.values()) == [2], "both rows are of one training"
    dense = [row for row in written if row["level"] == 0 and row["control"] != "ticket"]
    assert len({(row["top1"], row["loss"], row["seconds"]) for row in dense}) == 1
    assert {(row["run"], row["search_seed"], row["control"]) for row in dense} == {
        (run.name, seed, control)
        for run, seed in (
            (each, json.loads((each / "recipe.json").read_text())["recipe"]["seed"]) for each in runs.iterdir()
        )
        for control in ("random", "preserved", "local")
    }
    assert measured(rows) == []


def test_a_row_of_another_run_is_reused_in_a_later_invocation(runs: Path) -> None:
    first, second = sorted(runs.iterdir())
    (row,) = (row for row in measured(rows_of(first, "random", levels=(2,))) if row["control"] == "random")
    both = rows_of(runs, "random", levels=(2,))
    assert trainings(both) == {"ticket": 1}
    again = [row for row in measured(both) if row["control"] == "random"]
    assert [each["run"] for each in again] == [second.name]
    own = {"run", "ticket_hash", "recipe", "settings", "rewind_samples", "search_samples"}
    assert {name: value for name, value in again[0].items() if name not in own} == {
        name: value for name, value in row.items() if name not in own
    }
    assert row_error(again[0]) is None


def test_the_natural_mask_is_found_once_and_what_it_leaves_equal_is_trained_once(runs: Path) -> None:
    rows = rows_of(runs, "adjusted", levels=(0, 1, 2, 3))
    assert trainings(rows) == {"ticket": 8, "adjusted": 4, "natural": 1}
    file = next(
        each
        for each in EvaluationPlan.build(rows, None, Numerics(precision="fp32")).jobs()
        if isinstance(each, NaturalJob)
    ).file
    assert file.name == "conv3.short.seed0.search0.safetensors"
    (row, *_) = measured(rows_of(next(runs.iterdir()), "adjusted", levels=(1,)))
    (made,) = runs.rglob("natural/*.safetensors")
    assert row["density"] == pytest.approx(0.5, abs=1e-4)
    # Made by hand of 30% of the weights: above it, at levels 0 and 1, one training serves all.
    ticket = Ticket.load(next(runs.rglob("level-00.safetensors")))
    whole = NaturalMask.load(made)
    mask = Mask.top(
        {name: ticket.weights[name].abs() for name in ticket.mask}, keep=4190, within=Mask(dict(ticket.mask))
    )
    replace(whole, mask=mask).save(made)
    for old in runs.rglob("*.adjusted.*.jsonl"):
        old.unlink()
    assert trainings(rows)["adjusted"] == 3
    densities = {
        row["level"]: (row["density"], row["control_density"], row["natural_density"])
        for row in measured(rows)
        if row["control"] == "adjusted"
    }
    share = 4190 / 13_968
    assert densities[0] == (1, share, share)
    assert densities[1] == pytest.approx((0.5, share, share), abs=1e-4)
    assert densities[2] == pytest.approx((0.25, 0.25, share), abs=1e-4)
    assert len(list(runs.rglob("natural/*.safetensors"))) == 1


def test_a_natural_mask_of_other_images_is_refused(runs: Path) -> None:
    rows = rows_of(runs, "adjusted", levels=(2,))
    measured(rows)
    (made,) = runs.rglob("natural/*.safetensors")
    whole = NaturalMask.load(made)
    replace(whole, provenance=whole.provenance | {"data_hash": "0" * 16}).save(made)
    for old in runs.rglob("*.adjusted.*.jsonl"):
        old.unlink()
    with pytest.raises(BadInput, match=r"conv3\.short\.seed0\.search0\.safetensors is of other images; delete it"):
        measured(rows)


def test_the_outlook_counts_and_times_what_is_left_and_writes_nothing(runs: Path) -> None:
    rows = rows_of(runs, "random", "adjusted")
    before = sorted(runs.rglob("*"))

    def text(device: str) -> str:
        plan = EvaluationPlan.build(rows, None, Numerics(precision="fp32"))
        throughput = Throughput([task.run for task in rows], device, lambda name: 8)
        return describe_queue(plan.groups(), plan.jobs(), throughput)

    device = Engine.create(RuntimeConfig(), "fp32").device_name
    lines = [" ".join(line.split()) for line in text(device).splitlines()]
    assert lines[1] == "short ticket, own head 4 0 4 4 512 unknown"
    assert lines[4] == "short dense, for natural zeros 0 0 1 4 128 unknown"
    assert lines[5] == "12 rows, 0 done"
    assert lines[7] == "4 rows share the training of another"
    assert sorted(runs.rglob("*")) == before
    measured(rows_of(runs, levels=(0,)))
    for row in runs.rglob("level-00.ticket.*.jsonl"):
        content = json.loads(row.read_text())
        row.write_text(json.dumps(content | {"seconds": 1.28, "samples": 128}))  # 100 images a second
    lines = [" ".join(line.split()) for line in text(device).splitlines()]
    assert lines[1] == "short ticket, own head 4 2 2 4 256 about 3 s"
    assert "unknown" in text("another device")


@pytest.mark.slow
def test_two_commands_at_once_share_the_rows(runs: Path) -> None:
    words = ["evaluate", str(runs), "--protocol", "digits-demo", "--levels", "1-2", "--controls", "random", "adjusted"]
    command = [sys.executable, "-m", "sslticket", *words, "--seeds", "0"]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    printed = [process.communicate(timeout=250) for process in both]
    assert [process.returncode for process in both] == [0, 0], printed
    counts = [int(out.split()[0]) for out, _ in printed]
    assert sum(counts) == 2 * 2 * 3, "each row was written by exactly one"
    assert len(list(runs.rglob("level-*.jsonl"))) == 12
    assert len(list(runs.rglob("natural/*.safetensors"))) == 1
    assert not list(runs.rglob("*.claim"))
    assert not list(runs.rglob(".status/*"))


@pytest.mark.data
def test_grey_tickets_on_colour_targets_and_back(
    few_cifar: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "cifar10").symlink_to(few_cifar)
    monkeypatch.setenv("SSLTICKET_DATA", str(tmp_path / "data"))
    search(tmp_path / "runs", recipe())
    search(tmp_path / "runs", recipe(data=Data(dataset="cifar10", part="6 each", image_size=16)))
    target = replace(SHORT, name="colour", dataset="cifar10", part="6 each", image_size=8)
    paths = tasks.find_ticket_files([tmp_path / "runs"], tasks.Levels((1,)))
    written = measured(tasks.make_tasks(paths, ["random"], [SHORT, target], [0]))
    scores = {(row["source"], row["target"], row["control"]): row["loss"] for row in written}
    assert len(scores) == len(set(scores.values())) == 8, "a random ticket has its own ticket's channels"
    lenet = search(tmp_path / "others", recipe(model="lenet300")).run_dir.path
    rows = tasks.make_tasks(tasks.find_ticket_files([lenet]), [], [replace(target, image_size=16)], [0])
    with pytest.raises(
        BadInput, match=r"was found on images of 8 pixels, and colour shows 16: fc1\.weight of lenet300"
    ):
        measured(rows)
