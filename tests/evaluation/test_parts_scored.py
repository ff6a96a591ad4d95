"""Rows tell which images were trained on and measured, and none is taken for one about others."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sslticket.analysis.base import AnalysisPlan, run_analysis
from sslticket.analysis.trained_weights import Magnitudes
from sslticket.cli import commands
from sslticket.config.runtime import RuntimeConfig
from sslticket.config.training import SGD, TrainConfig
from sslticket.data.source import open_split
from sslticket.errors import BadInput
from sslticket.evaluation import tasks
from sslticket.evaluation.jobs import evaluate_tasks
from sslticket.evaluation.protocols import Protocol
from sslticket.evaluation.tasks import EvalTask
from sslticket.evaluation.trainer import Splits
from sslticket.results.rows import row_error
from sslticket.ticket import Ticket
from sslticket.training.engine import Engine
from sslticket.training.numerics import Numerics
from tests.digits import write_digits
from tests.runs import search

FIT = TrainConfig(length="4it", batch_size=32, optimizer=SGD(lr=0.1))
DIGITS = Protocol(name="short", dataset="digits", training=FIT)
PART = Protocol(name="small", dataset="mnist", training=FIT, image_size=8, part="4 a class")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return search(tmp_path_factory.mktemp("runs")).run_dir.path


@pytest.fixture
def run(found: Path, tmp_path: Path) -> Path:
    return shutil.copytree(found, tmp_path / "runs" / found.name)


def rows_of(run: Path, protocol: Protocol, *controls: str) -> list[EvalTask]:
    return tasks.make_tasks(tasks.find_ticket_files([run], tasks.Levels((2,))), controls, [protocol], [0])


def measured(wanted: list[EvalTask], root: Path | None = None) -> list[dict[str, Any]]:
    return list(evaluate_tasks(wanted, Engine.create(RuntimeConfig(data_root=root), "fp32")))


def test_scores_tell_both_splits_and_the_set_that_the_ticket_was_found_on(run: Path) -> None:
    (row,) = measured(rows_of(run, replace(DIGITS, half="b")))
    train, held_out = (open_split("digits", split).manifest for split in ("train", "eval"))
    assert (row["eval_hash"], row["source_hash"]) == (held_out.hash, train.hash)
    assert row["data_hash"] not in (held_out.hash, train.hash), "that of the half"
    assert (row["source"], row["target"]) == ("digits", "digitsb")
    assert row_error(row) is None


def test_a_row_about_an_older_ticket_tells_no_whole_set_even_where_it_shares_a_training(run: Path) -> None:
    older = run.with_name("older")
    shutil.copytree(run, older)
    for path in (older / "tickets").iterdir():
        ticket = Ticket.load(path)
        came = {name: value for name, value in ticket.provenance.items() if not name.endswith("s_hash")}
        came.pop("source_hash")
        replace(ticket, provenance=came).save(path)
    measured(rows_of(run, DIGITS, "random"))
    (first, second) = measured(rows_of(run, DIGITS, "random") + rows_of(older, DIGITS, "random"))
    assert [row["control"] for row in (first, second)] == ["ticket", "random"]
    assert second["eval_hash"] == first["eval_hash"]
    assert "source_hash" not in {**first, **second}


def test_a_part_is_the_target_and_its_rows_lie_beside_those_of_the_whole(run: Path, tmp_path: Path) -> None:
    root = write_digits(tmp_path / "few", train=4, val=2)
    (row,) = measured(rows_of(run, PART), root)
    assert (row["target"], row["protocol"], row["source"]) == ("mnist[4 a class]", "small", "digits")
    assert row_error(row) is None
    names = sorted(path.name for path in run.glob("rows/level-*"))
    assert names == ["level-02.ticket.small-4-a-class.seed0.jsonl"]
    assert rows_of(run, replace(PART, part=None))[0].row_file.name == "level-02.ticket.small.seed0.jsonl"
    with pytest.raises(BadInput, match=r"40 training images of 10 classes, and officially 60,000 of 10; .*--part NAME"):
        Splits.open(replace(PART, part=None), root)
    with pytest.raises(BadInput, match="digits is whole"):
        Splits.open(replace(DIGITS, part="most"), None)
    assert len(Splits.open(replace(PART, half="a"), root).training.manifest) == 20


def test_a_row_about_other_images_is_not_taken_for_done(run: Path, tmp_path: Path) -> None:
    few, more = write_digits(tmp_path / "few", train=4, val=2), write_digits(tmp_path / "more", train=5, val=2)
    (row,) = measured(rows_of(run, PART), few)
    file = rows_of(run, PART)[0].row_file
    with pytest.raises(BadInput, match=rf"{file.name} was measured on other images of mnist\[4 a class\], .*--part"):
        measured(rows_of(run, PART), more)
    assert json.loads(file.read_text()) == row
    assert measured(rows_of(run, PART), few) == []
    assert measured(rows_of(run, PART), tmp_path / "gone") == [], "what is measured needs no images any more"


def test_an_analysis_looks_at_the_images_likewise(run: Path, tmp_path: Path) -> None:
    few, more = write_digits(tmp_path / "few", train=4, val=2), write_digits(tmp_path / "more", train=5, val=2)
    long = replace(PART, training=replace(FIT, length="8it"))
    (row,) = run_analysis(Magnitudes(), rows_of(run, long), Engine.create(RuntimeConfig(data_root=few), "fp32"))
    assert (row["target"], row["protocol"]) == ("mnist[4 a class]", "small")
    with pytest.raises(BadInput, match="was measured on other images"):
        AnalysisPlan.build(Magnitudes(), rows_of(run, long), more, Numerics(precision="fp32"))
    with pytest.raises(BadInput, match="--part NAME"):
        AnalysisPlan.build(Magnitudes(), rows_of(run, replace(long, part=None)), few, Numerics(precision="fp32"))


@pytest.mark.parametrize("command", [["evaluate"], ["analyse", "magnitudes"]])
def test_the_commands_take_the_part_that_recipes_take(
    run: Path, tmp_path: Path, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    few = write_digits(tmp_path / "few", train=4, val=2)
    words = [*command, run, "--protocol", "fashion_mnist-demo", "--data-root", few, "--dry-run", "--levels", 0]
    with pytest.raises(BadInput, match=r"fashion_mnist in .* has 40 training images .*--part NAME"):
        commands.run_command([*map(str, words)])
    with pytest.raises(BadInput, match=r"--part must be .*, got .* for fashion_mnist"):
        commands.run_command([*map(str, words), "--part", "a/b"])
    commands.run_command([*map(str, words), "--part", "4 digits a class"])
    assert "fashion_mnist-demo" in capsys.readouterr().out
