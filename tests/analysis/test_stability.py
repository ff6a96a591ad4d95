"""Distances and angles by hand, and the stabilities of tickets that a real search found."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sslticket.analysis.base import run_analysis
from sslticket.analysis.endpoints import EndpointStore, find_targets, load_subnetwork, make_analysis_tasks
from sslticket.analysis.trained_weights import Stability, weight_distance
from sslticket.config.runtime import RuntimeConfig
from sslticket.config.training import SGD, TrainConfig
from sslticket.errors import BadInput
from sslticket.evaluation.jobs import evaluate_tasks
from sslticket.evaluation.protocols import Protocol
from sslticket.evaluation.tasks import EvalTask, Levels, find_ticket_files, make_tasks
from sslticket.evaluation.trainer import SplitCache
from sslticket.pruning.mask import Mask
from sslticket.results.rows import row_error
from sslticket.results.work_queue import WorkQueue
from sslticket.search.imp import IMP
from sslticket.ticket import Ticket
from sslticket.training.engine import Engine
from sslticket.training.numerics import Numerics
from sslticket.training.progress import Progress
from tests.runs import recipe, search

SHORT = Protocol(
    name="short", dataset="digits", training=TrainConfig(length="8it", batch_size=64, optimizer=SGD(lr=0.1)), start="k"
)
WHOLE = replace(SHORT, name="short@0", start="0")
ROW_KEYS = ("order_distance", "order_angle", "pruning_distance", "pruning_angle", "top1", "dense_top1")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return search(tmp_path_factory.mktemp("runs")).run_dir.path


@pytest.fixture
def run(found: Path, tmp_path: Path) -> Path:
    return shutil.copytree(found, tmp_path / found.name)


def engine() -> Engine:
    return Engine.create(RuntimeConfig(), "fp32")


def at(run: Path, *levels: int) -> list[Path]:
    return find_ticket_files([run], Levels(levels))


def test_distance_and_angle_are_those_of_the_surviving_weights() -> None:
    mask = Mask({"a": torch.tensor([True, True, False]), "b": torch.tensor([[True]])})
    one = {"a": torch.tensor([3.0, 0.0, 9.0]), "b": torch.tensor([[4.0]]), "norm": torch.tensor([1.0])}
    other = {"a": torch.tensor([0.0, 5.0, -9.0]), "b": torch.tensor([[0.0]]), "norm": torch.tensor([8.0])}
    assert weight_distance(one, other, mask) == pytest.approx((math.sqrt(50), 90.0), abs=1e-12)
    half = {"a": torch.tensor([1.5, 0.0, 1.0]), "b": torch.tensor([[2.0]])}
    assert weight_distance(one, half, mask) == pytest.approx((2.5, 0.0), abs=1e-12)
    against = {"a": torch.tensor([-3.0, 0.0, 9.0]), "b": torch.tensor([[-4.0]])}
    assert weight_distance(one, against, mask) == pytest.approx((10.0, 180.0), abs=1e-12)
    sixty = {"a": torch.tensor([1.0, 0.0, 0.0]), "b": torch.tensor([[math.sqrt(3)]])}
    along = {"a": torch.tensor([1.0, 0.0, 0.0]), "b": torch.tensor([[0.0]])}
    assert weight_distance(sixty, along, mask).angle == pytest.approx(60.0, abs=1e-5)
    assert weight_distance(one, one, mask) == (0.0, 0.0), "arccos of a rounded cosine would be off"


def test_a_tiny_angle_keeps_its_digits() -> None:
    mask = Mask({"a": torch.ones(2, dtype=torch.bool)})
    near = {"a": torch.tensor([1.0, 1e-9])}
    assert weight_distance({"a": torch.tensor([1.0, 0.0])}, near, mask).angle == pytest.approx(
        math.degrees(1e-9), rel=1e-6
    )


def test_rows_tell_both_stabilities_of_a_ticket_and_of_the_random_subnetwork(run: Path) -> None:
    rows = list(Stability().rows(at(run, 0, 2), SHORT, [0], engine(), controls=["local"]))
    by = {(row["level"], row["control"]): row for row in rows}
    assert by.keys() == {(0, "ticket"), (0, "local"), (2, "ticket"), (2, "local")}
    for row in rows:
        assert row["kind"] == "stability"
        assert row["rewind_samples"] == 2 * 32
        assert row["order_distance"] > 0
        assert 0 < row["order_angle"] < 180
    whole, sparse, random = by[0, "ticket"], by[2, "ticket"], by[2, "local"]
    # The dense network is its own subnetwork, and a mask of ones has no random one beside it.
    assert (whole["pruning_distance"], whole["pruning_angle"]) == (0, 0)
    assert {key: by[0, "local"][key] for key in ROW_KEYS} == {key: whole[key] for key in ROW_KEYS}
    assert min(sparse["pruning_distance"], random["pruning_distance"]) > 0
    assert sparse["order_distance"] != random["order_distance"]
    assert sparse["dense_top1"] == random["dense_top1"] == whole["dense_top1"]
    # W_k after 64 samples is step 1 of a protocol with batches of 64: 7 of 8 steps are left, for each of 3 trainings.
    assert (sparse["steps"], sparse["samples"]) == (3 * 7, 3 * 7 * 64)
    assert (whole["steps"], whole["samples"]) == (2 * 7, 2 * 7 * 64)
    written = [json.loads(path.read_text()) for path in (run / "rows").glob("*.stability*.jsonl")]
    assert sorted(map(str, written)) == sorted(map(str, rows))
    assert list(Stability().rows(at(run, 0, 2), SHORT, [0], engine(), controls=["local"])) == []


def test_trainings_are_shared_and_the_same_when_repeated(run: Path) -> None:
    """Two orders of each subnetwork and one of the dense network; deleted ones are trained again, to the same bits."""
    (row,) = Stability().rows(at(run, 2), SHORT, [0], engine())
    kept = {path: path.read_bytes() for path in (run / "endpoints").iterdir()}
    assert len(kept) == 3
    list(Stability().rows(at(run, 2), SHORT, [0], engine(), controls=["local"]))
    list(Stability().rows(at(run, 3), SHORT, [0], engine()))
    assert len(list((run / "endpoints").iterdir())) == 3 + 2 + 2
    shutil.rmtree(run / "endpoints")
    next((run / "rows").glob("level-02.stability.*")).unlink()
    (again,) = Stability().rows(at(run, 2), SHORT, [0], engine())
    assert {key: again[key] for key in ROW_KEYS} == {key: row[key] for key in ROW_KEYS}


def test_each_clock_has_trainings_and_rows_of_its_own(run: Path) -> None:
    (late,) = run_analysis(Stability(), make_analysis_tasks(at(run, 2), [], [SHORT], [0], ["new"]), engine())
    endpoints = {path.name for path in (run / "endpoints").iterdir()}
    # What earlier versions, which knew no other clock, called them.
    dense, ticket = (Ticket.load(path).hash for path in at(run, 0, 2))
    assert endpoints == {
        f"{which}.ticket.short.seed0.order{order}.fp32.safetensors"
        for which, order in ((ticket, 0), (ticket, 1), (dense, 0))
    }
    (whole,) = run_analysis(Stability(), make_analysis_tasks(at(run, 2), [], [WHOLE], [0], ["new"]), engine())
    assert (late["steps"], whole["steps"]) == (3 * 7, 3 * 8)
    assert {key for key in ROW_KEYS if late[key] == whole[key]} <= {"top1", "dense_top1"}
    assert [(row["protocol"], row["start"]) for row in (late, whole)] == [("short", "k"), ("short@0", "0")]
    assert len({row["protocol_hash"] for row in (late, whole)}) == 2
    assert {path.name for path in (run / "endpoints").iterdir()} - endpoints == {
        end.replace(".fp32.", ".fp32.start0.") for end in endpoints
    }
    assert [row_error(row) for row in (late, whole)] == [None, None]


def test_rows_of_earlier_versions_are_of_trainings_from_the_rewind_point(run: Path) -> None:
    list(Stability().rows(at(run, 2), SHORT, [0], engine()))
    (file,) = (run / "rows").glob("*.stability.*")
    old = {
        name: value for name, value in json.loads(file.read_text()).items() if name not in ("start", "protocol_hash")
    }
    file.write_text(json.dumps(old))
    assert list(Stability().rows(at(run, 2), SHORT, [0], engine())) == []
    (row,) = Stability().rows(at(run, 2), replace(WHOLE, name="short"), [0], engine())
    assert (row["start"], row["steps"]) == ("0", 3 * 8)


def test_orders_share_head_and_mask_and_end_elsewhere(run: Path) -> None:
    (path,) = at(run, 2)
    split_cache = SplitCache(None)
    (target,) = find_targets([EvalTask(path, "local", SHORT, 3)], split_cache, Numerics(precision="fp32"), dense=True)
    assert target.dense_training is not None
    with Progress(0, show=False) as progress:
        endpoints = EndpointStore(split_cache, engine(), progress)
        trainings = (target.training, target.training_in_order(1), target.dense_training)
        heads = [endpoints.eval_run(training).build_net().heads.state_dict() for training in trainings]
        assert all(torch.equal(head["weight"], heads[0]["weight"]) for head in heads)
        queue = WorkQueue(list, endpoints, endpoints.engine, progress)
        assert [queue.attempt(training) for training in trainings] == [[], [], []]
        one, other, _ = (endpoints.read(training).backbone for training in trainings)
    dense, random = Ticket.load(path.with_name("level-00.safetensors")), load_subnetwork(target.task)
    assert random.mask.layer_counts() == Ticket.load(path).mask.layer_counts()
    assert not random.mask.equals(Ticket.load(path).mask)
    for name, layer in random.mask.items():
        assert torch.equal(random.weights[name], dense.weights[name] * layer), "weights of W_k, drawn anew nowhere"
        assert not one[name][~layer].any()
        assert not torch.equal(one[name], other[name])


def test_from_the_initialisation_in_the_first_order_it_is_the_evaluations_training(tmp_path: Path) -> None:
    run = search(tmp_path, recipe(search=IMP(levels=1, rate=0.5, rewind="0it"))).run_dir.path
    # Step 0 is the rewind point, so both clocks are one.
    (score,) = evaluate_tasks(make_tasks(at(run, 1), (), [SHORT], [0]), engine())
    list(Stability().rows(at(run, 1), SHORT, [0], engine()))
    split_cache = SplitCache(None)
    (target,) = find_targets(
        [EvalTask(at(run, 1)[0], "ticket", SHORT, 0, "own")], split_cache, Numerics(precision="fp32"), dense=False
    )
    with Progress(0, show=False) as progress:
        told = EndpointStore(split_cache, engine(), progress).measurements(target.training)
    keys = ("top1", "top5", "loss", "steps", "samples", "data_hash")
    assert {key: told[key] for key in keys} == {key: score[key] for key in keys}


def test_what_cannot_be_analysed_is_named_before_anything_is_trained(run: Path, tmp_path: Path) -> None:
    early = replace(SHORT, name="early", training=replace(SHORT.training, length="1it"))
    with pytest.raises(
        BadInput, match=r"level-02.* rewound to 64 samples is at step 1 of early, which has 1 steps; give .*early@0"
    ):
        list(Stability().rows(at(run, 2), early, [0], engine()))
    with pytest.raises(
        BadInput, match="protocol short is for conv6 or resnet20, not for conv3; give --protocol digits"
    ):
        list(Stability().rows(at(run, 2), replace(SHORT, models=("conv6", "resnet20")), [0], engine()))
    with pytest.raises(BadInput, match="unknown control of an analysis 'random'; known: local"):
        list(Stability().rows(at(run, 2), SHORT, [0], engine(), controls=["random"]))
    lone = tmp_path / "lone" / "level-02.safetensors"
    lone.parent.mkdir()
    shutil.copy(at(run, 2)[0], lone)
    with pytest.raises(BadInput, match=r"needs the dense network of its search, level-00\.safetensors, beside it"):
        list(Stability().rows([lone], SHORT, [0], engine()))
    other = search(tmp_path, recipe(seed=1)).run_dir.path
    shutil.copy(other / "tickets" / "level-00.safetensors", lone.parent)
    with pytest.raises(BadInput, match=r"does not start from the W_k of .*: features\.0\.\w+ differs"):
        list(Stability().rows([lone], SHORT, [0], engine()))
    assert not list(tmp_path.rglob("endpoints"))


def test_a_cached_endpoint_of_other_images_or_a_damaged_one_is_refused(run: Path) -> None:
    halved = replace(SHORT, half="a")
    list(Stability().rows(at(run, 2), halved, [0], engine()))
    next((run / "rows").glob("*.stability.*")).unlink()
    other = replace(SHORT, half="b")
    with pytest.raises(BadInput, match="is of other images; delete it and run the same command again"):
        list(Stability().rows(at(run, 2), other, [0], engine()))
    for path in (run / "endpoints").iterdir():
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BadInput, match=r"no whole safetensors file .*; delete it and run the same command again"):
        list(Stability().rows(at(run, 2), other, [0], engine()))


def test_subnetworks_of_one_task_keep_the_classification_layer_of_w_k(run: Path) -> None:
    rows = list(Stability().rows(at(run, 2), SHORT, [0], engine(), controls=["local"]))
    assert [(row["control"], row["head"], row.get("replicate")) for row in rows] == [
        *(("ticket", "own", None), ("local", "own", 0))
    ]
    assert [row_error(row) for row in rows] == [None, None]
    task = EvalTask(at(run, 2)[0], "local", SHORT, 0, "own")
    ticket, random = Ticket.load(task.path), load_subnetwork(task)
    assert torch.equal(random.head["weight"], ticket.head["weight"])


def test_replicates_have_random_subnetworks_of_their_own(tmp_path: Path) -> None:
    """Two searches whose tickets keep as many weights of each layer: masks of the random ones must still differ."""
    masks = []
    for seed in (0, 1):
        which = recipe(seed=seed, search=IMP(levels=1, rate=0.5, rewind="1it", scope="layer"))
        run = search(tmp_path, which).run_dir.path
        masks.append(load_subnetwork(EvalTask(at(run, 1)[0], "local", SHORT, 0)).mask)
    assert masks[0].layer_counts() == masks[1].layer_counts()
    assert not masks[0].equals(masks[1])
