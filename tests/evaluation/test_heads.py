"""The classification layer as a part of the ticket, controls that keep weights, and controls of replicates."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from sslticket.config.recipe import Data
from sslticket.config.runtime import RuntimeConfig
from sslticket.config.training import SGD, TrainConfig
from sslticket.errors import BadInput
from sslticket.evaluation import tasks, trainer
from sslticket.evaluation.controls import get_control
from sslticket.evaluation.jobs import EvaluationPlan, evaluate_tasks
from sslticket.evaluation.protocols import Protocol
from sslticket.objectives.rotnet import RotNet
from sslticket.pruning import pruned_model
from sslticket.results.rows import row_error
from sslticket.search.imp import IMP
from sslticket.search.learned import EdgePopup
from sslticket.ticket import INITIAL_TICKET, Ticket
from sslticket.training.engine import Engine
from sslticket.training.network import MaskedNetwork
from sslticket.training.numerics import Numerics
from tests.runs import BATCH, REWIND, recipe, search

SHORT = Protocol(
    name="short", dataset="digits", training=TrainConfig(length="8it", batch_size=128, optimizer=SGD(lr=0.1))
)
ONE = IMP(levels=2, rate=0.5, rewind=f"{REWIND}it")


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return search(tmp_path_factory.mktemp("labels"), recipe(search=ONE)).run_dir.path


@pytest.fixture(scope="module")
def turns(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return search(tmp_path_factory.mktemp("turns"), recipe(RotNet(), search=ONE)).run_dir.path


def paths(*runs: Path, level: int = 1) -> list[Path]:
    return tasks.find_ticket_files(list(runs), tasks.Levels((level,)))


def heads(rows: list[tasks.EvalTask]) -> list[tuple[str, str]]:
    return [(task.control, task.head) for task in rows]


def measured(rows: list[tasks.EvalTask]) -> list[dict[str, object]]:
    return list(evaluate_tasks(rows, Engine.create(RuntimeConfig(), "fp32")))


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[MaskedNetwork, int, int]]:
    """The net, and first and last step, of every training under a protocol as it begins."""
    found: list[tuple[MaskedNetwork, int, int]] = []
    train = trainer.Evaluator.train_and_measure

    def watched(self: trainer.Evaluator, net: MaskedNetwork, eval_run: trainer.EvalRun) -> dict[str, object]:
        copy = eval_run.build_net()
        pruned_model.write_state(copy, pruned_model.read_state(net))
        found.append((copy, eval_run.start, eval_run.total_steps))
        return train(self, net, eval_run)

    monkeypatch.setattr(trainer.Evaluator, "train_and_measure", watched)
    return found


def head_weight(net: MaskedNetwork) -> torch.Tensor:
    """The weight of the classification layer, (classes, features)."""
    return net.heads.get_parameter("weight")


def test_by_default_the_head_is_the_tickets_own_on_its_task_and_new_elsewhere(labels: Path, turns: Path) -> None:
    assert heads(tasks.make_tasks(paths(labels), ["random", "reset"], [SHORT], [0])) == [
        *(("ticket", "own"), ("random", "new"), ("reset", "own"))
    ]
    assert heads(tasks.make_tasks(paths(turns), ["random"], [SHORT], [0])) == [("ticket", "new"), ("random", "new")]
    transfer = replace(SHORT, name="moved", dataset="mnist")
    half = replace(SHORT, name="half", half="a")
    for protocol in (transfer, half):
        assert heads(tasks.make_tasks(paths(labels), [], [protocol], [0])) == [("ticket", "new")]


def test_objectives_that_are_compared_are_also_scored_alike(labels: Path, turns: Path) -> None:
    rows = tasks.make_tasks(paths(labels, turns), ["random"], [SHORT], [0])
    assert heads(rows) == [
        *(("ticket", "own"), ("ticket", "new"), ("random", "new")),
        *(("ticket", "new"), ("random", "new")),
    ]
    assert len({task.row_file for task in rows}) == len(rows)
    alone = tasks.make_tasks(paths(labels, turns), [], [SHORT], [0], both_heads=False)
    assert heads(alone) == [("ticket", "own"), ("ticket", "new")]


def test_a_head_that_is_asked_for_and_not_there_is_refused(labels: Path, turns: Path) -> None:
    assert heads(tasks.make_tasks(paths(labels), [], [SHORT], [0], ["new"])) == [("ticket", "new")]
    with pytest.raises(BadInput, match=r"level-01\.safetensors holds no classification layer; give --head new"):
        tasks.make_tasks(paths(labels, turns), [], [SHORT], [0], ["own"])
    (task,) = tasks.make_tasks(paths(labels), [], [replace(SHORT, name="half", half="a")], [0], ["own"])
    assert measured([task])[0]["head"] == "own", "what is asked for is done where the classes are the same"


def test_a_head_of_other_classes_is_refused_before_anything_is_trained(labels: Path, tmp_path: Path) -> None:
    ticket = Ticket.load(paths(labels)[0])
    path = tmp_path / "run" / "tickets" / "level-01.safetensors"
    for head, came in (
        ({"weight": torch.zeros(5, 32), "bias": torch.zeros(5)}, {}),
        ({"weight": torch.zeros(10, 32)}, {}),
        (ticket.head, {"classes_hash": "of others"}),
    ):
        replace(ticket, head=head, provenance=ticket.provenance | came).save(path)
        rows = tasks.make_tasks([path], [], [SHORT], [0])
        with pytest.raises(BadInput, match=r"tells other classes than the 10 of digits; give --head new"):
            EvaluationPlan.build(rows, None, Numerics(precision="fp32"))


def test_tickets_that_do_not_tell_where_they_are_from_are_refused_in_a_line(labels: Path, tmp_path: Path) -> None:
    ticket = Ticket.load(paths(labels)[0])
    without: list[dict[str, Any]] = [{"recipe": {}}, {"recipe": {"data": {}}}, {"provenance": {}}]
    for lacking in without:
        replace(ticket, **lacking).save(tmp_path / "lone.safetensors")
        with pytest.raises(BadInput, match="does not tell where it is from"):
            tasks.make_tasks([tmp_path / "lone.safetensors"], [], [SHORT], [0])


def test_two_names_of_one_protocol_are_one_row(labels: Path) -> None:
    assert len(tasks.make_tasks(paths(labels), [], ["digits-demo", "digits-demo@0"], [0], ["own", "own"])) == 1


def test_shuffled_labels_and_fewer_classes_are_other_tasks(tmp_path: Path) -> None:
    shuffled = search(tmp_path, recipe(search=ONE, data=Data(dataset="digits", shuffle_labels=1.0))).run_dir.path
    classes = search(
        tmp_path, recipe(search=ONE, data=Data(dataset="digits", subset=0.5, subset_by="classes"))
    ).run_dir.path
    for run in (shuffled, classes):
        assert Ticket.load(paths(run)[0]).head, "it has one"
        assert heads(tasks.make_tasks(paths(run), [], [SHORT], [0])) == [("ticket", "new")]


@pytest.mark.parametrize(("classes", "shared"), [(10, True), (4, False)])
def test_a_list_of_classes_makes_another_task(classes: int, shared: bool) -> None:
    data = {"dataset": "digits", "half": None, "subset": 1.0, "subset_by": "samples", "subset_list": "few.txt"}
    header = {"recipe": {"data": data}, "head": ["weight"], "provenance": {"classes": classes}}
    assert tasks.found_on_same_task(header, SHORT) == shared


def test_what_is_trained_is_what_the_row_says(labels: Path, started: list[tuple[MaskedNetwork, int, int]]) -> None:
    ticket, initial = Ticket.load(paths(labels)[0]), Ticket.load(labels / INITIAL_TICKET)
    rows = measured(tasks.make_tasks(paths(labels), ["reset", "permuted"], [SHORT], [0], ["own", "new"]))
    assert [row_error(row) for row in rows] == [None] * 6
    dense = Ticket.load(labels / "tickets" / "level-00.safetensors")
    nets = {(row["control"], row["head"]): net for row, (net, _, _) in zip(rows, started, strict=True)}
    assert len(nets) == 6
    new = head_weight(nets["ticket", "new"])
    sources = {"ticket": (ticket, ticket), "reset": (initial, initial), "permuted": (dense, ticket)}
    for control, (weights, head) in sources.items():
        assert torch.equal(head_weight(nets[control, "own"]), head.head["weight"])
        assert torch.equal(head_weight(nets[control, "new"]), new), "one new head under one seed"
        state = pruned_model.read_state(nets[control, "own"].backbone)
        for name, mask in ticket.mask.items():
            alive = state[name] != 0
            assert torch.equal(state[name], weights.weights[name] * alive)
            if control != "permuted":
                assert torch.equal(alive, mask)
    placed = [pruned_model.read_state(nets["permuted", head].backbone) for head in ("own", "new")]
    survivors = [sum(int((state[name] != 0).sum()) for name in ticket.mask) for state in placed]
    assert survivors == [ticket.mask.survivors] * 2
    assert any(not torch.equal(placed[0][name] != 0, mask) for name, mask in ticket.mask.items())


def test_the_head_of_a_ticket_helps_on_its_own_task_at_once(labels: Path) -> None:
    """Kept and thrown away must differ, or the layer was not used."""
    rows = measured(tasks.make_tasks(paths(labels, level=2), [], [replace(SHORT, name="once")], [0], ["own", "new"]))
    assert rows[0]["loss"] != rows[1]["loss"]


def test_a_schedule_from_k_has_t_minus_k_steps(labels: Path, started: list[tuple[MaskedNetwork, int, int]]) -> None:
    both = [replace(SHORT, name="clock"), replace(SHORT, name="clock@k", start="k")]
    rows = measured(tasks.make_tasks(paths(labels), [], both, [0]))
    first = -(-REWIND * BATCH // 128)
    assert [(begins, stops) for _, begins, stops in started] == [(0, 8), (first, 8)]
    measured(tasks.make_tasks(paths(labels), ["reset"], both[1:], [0]))
    assert started[-1][1:] == (0, 8), "W_0 has seen nothing, so it starts at 0 on either clock"
    assert [(row["start"], row["steps"], row["samples"]) for row in rows] == [
        *(("0", 8, 8 * 128), ("k", 8 - first, (8 - first) * 128))
    ]
    assert rows[0]["protocol_hash"] != rows[1]["protocol_hash"]


def test_replicates_have_random_tickets_of_their_own_that_objectives_share(tmp_path: Path) -> None:
    runs = [
        search(tmp_path, recipe(objective, seed=seed, search=ONE)).run_dir.path
        for seed in (0, 1)
        for objective in (None, RotNet())
    ]
    rows = tasks.make_tasks(paths(*runs), ["random"], [SHORT], [0])
    written = [row for row in measured(rows) if row["control"] == "random"]
    assert [row["replicate"] for row in written] == [row["search_seed"] for row in written]
    losses = {(row["replicate"], row["loss"]) for row in written}
    assert len(written) == 4
    assert len(losses) == 2, "one a search seed, shared by both objectives"
    assert len({loss for _, loss in losses}) == 2


def test_a_control_row_that_all_replicates_shared_is_measured_anew(labels: Path) -> None:
    task = tasks.make_tasks(paths(labels), ["random"], [replace(SHORT, name="older")], [0])[1:]
    (row,) = measured(task)
    assert measured(task) == []
    task[0].row_file.write_text(json.dumps({key: value for key, value in row.items() if key != "replicate"}))
    (again,) = measured(task)
    assert (again["loss"], again["replicate"]) == (row["loss"], 0)


def test_a_row_under_other_settings_of_a_protocol_of_the_same_name_is_measured_anew(labels: Path) -> None:
    protocol = replace(SHORT, name="changed")
    assert len(measured(tasks.make_tasks(paths(labels), [], [protocol], [0]))) == 1
    longer = replace(protocol, training=replace(SHORT.training, length="9it"))
    (row,) = measured(tasks.make_tasks(paths(labels), [], [longer], [0]))
    assert row["steps"] == 9


def test_an_older_row_of_another_clock_is_not_taken_for_done(labels: Path) -> None:
    """Scores were of schedules that start at 0 before protocols had a clock; some have another now."""
    (task,) = tasks.make_tasks(paths(labels), [], [replace(SHORT, name="moved", start="k")], [0])
    (row,) = measured([task])
    old = {key: value for key, value in row.items() if key not in ("start", "protocol_hash")}
    task.row_file.write_text(json.dumps(old | {"steps": 8}))
    assert measured([task])[0]["start"] == "k"


def test_rows_of_another_precision_stay_and_are_told(labels: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = tasks.make_tasks(paths(labels), [], [replace(SHORT, name="precise")], [0])
    measured(rows)
    assert list(evaluate_tasks(rows, Engine.create(RuntimeConfig(), "bf16"))) == []
    assert "though not measured at bf16: 1 at fp32" in capsys.readouterr().err


def test_a_supermasks_controls_keep_what_it_keeps_of_its_classification_layer(
    tmp_path: Path, started: list[tuple[MaskedNetwork, int, int]]
) -> None:
    run = search(tmp_path, recipe(search=EdgePopup(density=0.25))).run_dir.path
    ticket, reset, permuted = measured(tasks.make_tasks(paths(run), ["reset", "permuted"], [SHORT], [0], ["own"]))
    kept = Ticket.load(paths(run)[0]).head["weight"] != 0
    assert 0 < kept.sum() < kept.numel()
    for net, _, _ in started:
        assert torch.equal(head_weight(net) != 0, kept)
    keys = ("top1", "loss")
    assert {key: ticket[key] for key in keys} == {key: reset[key] for key in keys}, "its weights are W_0"
    assert permuted["loss"] != ticket["loss"]


def test_what_does_not_hold_w_0_of_the_search_is_no_reset(labels: Path, turns: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(labels / "tickets", run / "tickets")
    for wrong_one in (labels / "tickets" / "level-00.safetensors", turns / INITIAL_TICKET):
        shutil.copy(wrong_one, run / INITIAL_TICKET)
        with pytest.raises(BadInput, match=r"does not hold W_0 of the search"):
            get_control("reset").weights(paths(run)[0])


def test_weights_that_a_search_has_not_kept_are_named(labels: Path, tmp_path: Path) -> None:
    lone = tmp_path / "run" / "tickets" / "level-01.safetensors"
    lone.parent.mkdir(parents=True)
    lone.write_bytes(paths(labels)[0].read_bytes())
    with pytest.raises(BadInput, match=r"control reset of .*level-01\.safetensors needs W_0"):
        get_control("reset").weights(lone)
    with pytest.raises(BadInput, match=r"needs the dense network of its search, level-00\.safetensors"):
        get_control("permuted").weights(lone)
    with pytest.raises(BadInput, match=r"needs W_0"):
        measured(tasks.make_tasks([lone], ["reset"], [SHORT], [0]))


def test_a_tickets_own_protocol_is_on_the_part_that_it_was_found_on(labels: Path, tmp_path: Path) -> None:
    ticket = Ticket.load(paths(labels)[0])
    path = tmp_path / "run" / "tickets" / "level-01.safetensors"
    data = ticket.recipe["data"] | {"dataset": "cifar10", "part": "few"}
    replace(ticket, recipe=ticket.recipe | {"data": data}).save(path)
    (own,) = tasks.make_tasks([path], [], ["own"], [0])
    assert (own.protocol.part, own.head) == ("few", "own")
    (other,) = tasks.make_tasks([path], [], ["own"], [0], None, "others")
    assert (other.protocol.part, other.head) == ("others", "new")
