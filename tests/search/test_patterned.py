"""Searches within N:M patterns, from the recipe to rows, controls, resuming and the network that is deployed."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.sparse import SparseSemiStructuredTensor, SparseSemiStructuredTensorCUTLASS

from sslticket import models
from sslticket.cli.inspect_commands import describe_ticket
from sslticket.config.runtime import RuntimeConfig
from sslticket.config.training import SGD, TrainConfig
from sslticket.evaluation import controls, tasks
from sslticket.evaluation.controls import Control, Random
from sslticket.evaluation.jobs import EvaluationPlan, evaluate_tasks
from sslticket.evaluation.protocols import Protocol
from sslticket.pruning.criteria import SNIP, Criterion, GraSP, Magnitude
from sslticket.pruning.mask import Mask
from sslticket.pruning.pattern import Pattern
from sslticket.results.rows import CONTROLS as CONTROLS_IN_REPORTS
from sslticket.results.rows import row_error
from sslticket.search.imp import IMP
from sslticket.search.oneshot import OneShot
from sslticket.search.plan import plan_search
from sslticket.ticket import Ticket
from sslticket.training.engine import Engine
from tests.runs import recipe, search, tickets

TOTAL = 13_824  # weights of conv3 behind its first layer
ONE_OF_FOUR = Pattern(1, 4)
SHORT = Protocol(
    name="short", dataset="digits", training=TrainConfig(length="6it", batch_size=64, optimizer=SGD(lr=0.1))
)


@pytest.fixture
def broken() -> Iterator[type[Control]]:
    """A control of one's own, of random masks that keep to no pattern."""

    class Broken(Control):
        name = "broken"

        def mask(self, ticket: Ticket, *, seed: int, natural: Mask | None) -> Mask:
            return Random().mask(Ticket(ticket.mask, {}, 0, {}, {}), seed=seed, natural=natural)

    yield Broken
    controls._by_name.pop("broken", None)
    CONTROLS_IN_REPORTS.pop("broken")


def imp(**changes: Any) -> IMP:
    settings: dict[str, Any] = {"levels": 3, "rate": 0.5, "rewind": "2it", "pattern": "1:4"}
    return IMP(**settings | changes)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return search(tmp_path_factory.mktemp("runs"), recipe(search=imp())).run_dir.path


def test_tickets_rows_and_recipe_tell_the_pattern_from_its_density_on(run: Path) -> None:
    found = [Ticket.load(path) for path in sorted((run / "tickets").glob("level-*"))]
    assert [ticket.survivors for ticket in found] == [TOTAL, TOTAL // 2, TOTAL // 4, TOTAL // 8]
    assert [ticket.pattern for ticket in found] == [None, None, ONE_OF_FOUR, ONE_OF_FOUR]
    assert ONE_OF_FOUR.is_full(found[2].mask)
    rows = [json.loads((run / "rows" / f"search.level-{level:02d}.jsonl").read_text()) for level in range(4)]
    assert [row_error(row) for row in rows] == [None] * 4
    assert [row.get("pattern") for row in rows] == [None, None, "1:4", "1:4"]
    for row in rows:
        assert (row["within"], row["settings"]["pattern"]) == ("without features.0", "1:4")
    words = describe_ticket(found[2], "here", 1)
    assert "1:4 along the inputs" in words
    assert "features.0.weight" in words
    assert "the search was asked for 1:4, for which this mask is too dense" in describe_ticket(found[1], "here", 1)
    other = Ticket(found[2].mask, found[2].weights, 1, recipe(search=imp(pattern="2:4")).to_dict(), found[2].provenance)
    assert "1:4 along the inputs; the search was asked for 2:4\n" in describe_ticket(other, "here", 1)


def test_a_search_that_was_stopped_goes_on_to_the_same_tickets(run: Path, tmp_path: Path) -> None:
    planned = search(tmp_path, recipe(search=imp()))
    first = [ticket.hash for ticket in tickets(planned)]
    for level in (2, 3):
        planned.run_dir.ticket_path(level).unlink()
    assert [ticket.hash for ticket in tickets(search(tmp_path, recipe(search=imp())))] == first
    assert first == [Ticket.load(path).hash for path in sorted((run / "tickets").glob("level-*"))]


def test_layers_that_are_left_dense_are_in_the_key_and_without_a_pattern_no_key_moves(tmp_path: Path) -> None:
    given, own = (
        plan_search(recipe(search=imp(**which)), RuntimeConfig(), tmp_path)
        for which in ({"exclude": ("features.0",)}, {})
    )
    assert given.recipe == own.recipe
    assert (given.notes, own.notes) == (
        (),
        ("layers that the pattern cannot be laid on stay dense, as by --exclude: features.0",),
    )
    assert "pattern" not in recipe().to_dict()["search"]
    assert recipe(search=imp(pattern="2:4")).key != recipe(search=imp()).key != recipe(search=imp(pattern=None)).key


@pytest.mark.parametrize("criterion", [Magnitude(), SNIP(score_images=32), GraSP(score_images=32)])
def test_pruning_in_one_shot_at_the_start_keeps_to_the_pattern(criterion: Criterion, tmp_path: Path) -> None:
    which = OneShot(levels=1, rate=0.5, rewind="0it", scored="start", criterion=criterion, pattern="2:4")
    assert Pattern(2, 4).is_full(tickets(search(tmp_path, recipe(search=which)))[1].mask)


def test_random_tickets_are_of_the_pattern_and_shared_by_it_alone(
    run: Path, tmp_path: Path, broken: type[Control]
) -> None:
    free = search(tmp_path, recipe(search=imp(pattern=None, exclude=("features.0",)))).run_dir.path
    paths = tasks.find_ticket_files([run, free], tasks.Levels((1, 2)))
    asked = tasks.make_tasks(paths, ["random", broken], [SHORT], [0])
    plan = EvaluationPlan.build(asked, None, Engine.create(RuntimeConfig(), "fp32").numerics)
    trained = {(job.control, *(task.row_file.parent.parent.name for task in job.tasks)) for job in plan.jobs()}
    # Level 1 is not of the pattern yet: one random ticket is enough for both runs.
    assert ("random", run.name, free.name) in trained or ("random", free.name, run.name) in trained
    assert {("random", run.name), ("random", free.name)} <= trained
    rows = list(evaluate_tasks(asked, Engine.create(RuntimeConfig(), "fp32"), show_progress=False))
    assert [row_error(row) for row in rows] == [None] * len(rows)
    told = {(row["run"], row["level"], row["control"]): row.get("pattern") for row in rows}
    assert {key[2]: value for key, value in told.items() if key[:2] == (run.name, 2)} == {
        "ticket": "1:4",
        "random": "1:4",
        "broken": "none",
    }
    assert {value for key, value in told.items() if key[:2] != (run.name, 2)} == {None}
    top1 = {(row["run"], row["level"]): row["top1"] for row in rows if row["control"] == "random"}
    assert top1[run.name, 1] == top1[free.name, 1]


def test_an_applied_ticket_has_the_layout_that_torch_compresses(tmp_path: Path) -> None:
    which = recipe(model="conv6", search=imp(levels=1, pattern="2:4"))
    ticket = tickets(search(tmp_path, which))[1]
    net = Ticket.remove(ticket.apply(models.create_model("conv6", channels=1, image_size=8)))
    weight = net.get_parameter(name := next(name for name, layer in ticket.mask.items() if layer.dim() == 2)).detach()
    # What `to_sparse_semi_structured` asks of a matrix, but for the CUDA device: its own conversion runs anywhere.
    rows, columns = weight.shape
    shape = SparseSemiStructuredTensorCUTLASS._DTYPE_SHAPE_CONSTRAINTS[torch.float16]
    assert (rows % shape.sparse_min_rows, columns % shape.sparse_min_cols) == (0, 0), name
    from torch.sparse._semi_structured_conversions import (
        sparse_semi_structured_from_dense_cutlass,
        sparse_semi_structured_to_dense_cutlass,
    )

    half = weight.half()
    packed, places = sparse_semi_structured_from_dense_cutlass(half)
    assert packed.shape == (rows, columns // 2)
    assert torch.equal(sparse_semi_structured_to_dense_cutlass(packed, places), half)
    assert issubclass(SparseSemiStructuredTensorCUTLASS, SparseSemiStructuredTensor)
