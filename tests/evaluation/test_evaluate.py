import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sslticket import models
from sslticket.cli.inspect_commands import describe_ticket
from sslticket.config.recipe import Data
from sslticket.config.runtime import RuntimeConfig
from sslticket.config.training import SGD, TrainConfig
from sslticket.data.loader import Sampler
from sslticket.errors import BadInput
from sslticket.evaluation import protocols, tasks
from sslticket.evaluation.jobs import evaluate_tasks
from sslticket.evaluation.protocols import CIFAR10, IMAGENET, Protocol
from sslticket.evaluation.trainer import Splits
from sslticket.objectives.rotnet import RotNet
from sslticket.objectives.supervised import Supervised
from sslticket.pruning import pruned_model
from sslticket.pruning.mask import Mask
from sslticket.pruning.prunable import prunable_weights
from sslticket.results.rows import row_error
from sslticket.search.imp import IMP
from sslticket.seeds import Seeds, derive_seed
from sslticket.storage.files import write_row
from sslticket.ticket import Ticket
from sslticket.training.engine import Engine
from sslticket.training.network import MaskedNetwork
from tests.runs import BATCH, REWIND, recipe, search

SHORT = Protocol(
    name="short", dataset="digits", training=TrainConfig(length="60it", batch_size=128, optimizer=SGD(lr=0.1))
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return search(tmp_path_factory.mktemp("runs"), recipe(RotNet())).run_dir.path


def measured(run: Path, controls: list[str], seeds: list[int], levels: list[int]) -> list[dict[str, object]]:
    paths = tasks.find_ticket_files([run], tasks.Levels(tuple(levels)))
    return list(
        evaluate_tasks(tasks.make_tasks(paths, controls, [SHORT], seeds), Engine.create(RuntimeConfig(), "fp32"))
    )


def test_a_ticket_found_without_labels_learns_them_under_the_protocol(run: Path) -> None:
    (row,) = measured(run, [], [0], [1])
    assert row_error(row) is None, "a row that the report refuses"
    assert row["top1"] > 0.8, "chance is 0.1; this is 0.93 to 0.96"  # type: ignore[operator]
    assert row["objective"] == "rotnet"
    assert (row["search"], row["rewind_samples"]) == ("IMP", REWIND * BATCH)
    assert row["settings"]["rewind"] == f"{REWIND}it"  # type: ignore[index]
    assert (row["steps"], row["samples"]) == (60, 60 * 128)
    assert row["density"] == pytest.approx(0.5, abs=1e-4)


def test_done_rows_are_not_measured_again_unless_the_ticket_is_another(run: Path) -> None:
    first = measured(run, ["random"], [3], [2])
    assert [row["control"] for row in first] == ["ticket", "random"]
    assert measured(run, ["random"], [3], [2]) == []
    path = run / "rows" / "level-02.ticket.short.seed3.jsonl"
    row = json.loads(path.read_text())
    write_row(path, row | {"ticket_hash": "of an earlier file"})
    (again,) = measured(run, ["random"], [3], [2])
    assert {name: again[name] for name in ("top1", "loss")} == {name: row[name] for name in ("top1", "loss")}
    path.write_text(path.read_text()[:20])
    with pytest.raises(BadInput, match=r"is damaged \(no JSON: .*; delete it"):
        measured(run, ["random"], [3], [2])
    path.unlink()


def test_the_same_random_ticket_stands_beside_every_objective(run: Path, tmp_path: Path) -> None:
    """A random ticket depends on density and seeds only, not on the ticket it mirrors."""
    other = search(tmp_path, recipe()).run_dir.path
    rows = [
        row for folder in (run, other) for row in measured(folder, ["random"], [0], [3]) if row["control"] != "ticket"
    ]
    assert len(rows) == 2
    assert rows[0]["top1"] == rows[1]["top1"]
    assert rows[0]["loss"] == rows[1]["loss"]


def test_rows_tell_how_much_of_their_own_mask_lies_on_a_path(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A ticket of which each layer has weights that do not meet, and its controls, of which some do."""
    layers = {
        "features.0.weight": (16, 1, 3, 3),
        "features.4.weight": (32, 16, 3, 3),
        "features.8.weight": (32, 32, 3, 3),
    }
    found = search(tmp_path, recipe(search=IMP(levels=1, rate=0.5, rewind="2it")))
    path = found.run_dir.ticket_path(1)
    ticket = Ticket.load(path)
    mask = {name: torch.zeros(shape, dtype=torch.bool) for name, shape in layers.items()}
    mask["features.0.weight"][0] = True
    mask["features.4.weight"][0, 1:] = True  # of all channels but the one that the first layer fills
    mask["features.8.weight"][:, 0] = True
    weights = pruned_model.read_state(
        MaskedNetwork.build("conv3", Supervised(), channels=1, image_size=8, classes=10, seed=0).backbone
    )
    cut = Ticket.from_dense_weights(Mask(mask), weights, level=1, recipe=ticket.recipe, provenance=ticket.provenance)
    cut.save(path)
    rows = {row["control"]: row for row in measured(path.parents[1], ["preserved", "local", "random"], [0], [1])}
    said = capsys.readouterr().err
    assert rows["ticket"]["effective_density"] == rows["preserved"]["effective_density"] == 0
    assert rows["ticket"]["density"] == cut.mask.density
    for kind in ("ticket", "preserved"):
        assert said.count(f"level-01 {kind}: no path leads from the image to the features; its score is chance") == 1
    for kind in ("local", "random"):
        assert 0 < rows[kind]["effective_density"] <= cut.mask.density  # type: ignore[operator]
        assert f"level-01 {kind}: no path" not in said
    assert all(row_error(row) is None for row in rows.values())


def test_tickets_of_networks_that_no_mask_thins_are_refused_in_a_line(tmp_path: Path) -> None:
    """Such as earlier versions found."""
    backbone = models.create_model("test_nfnet", channels=3, image_size=64)
    state = pruned_model.read_state(backbone)
    described = recipe(model="test_nfnet", data=Data(dataset="digits", image_size=64, channels=3)).to_dict()
    found = search(tmp_path, recipe(search=IMP(levels=1, rate=0.5, rewind="2it")))
    path, mask = found.run_dir.ticket_path(1), Mask.ones_like(state, prunable_weights(backbone))
    came = Ticket.load(path).provenance
    Ticket.from_dense_weights(mask, state, level=1, recipe=described, provenance=came).save(path)
    with pytest.raises(BadInput, match="is no sparse network: masks do not act in test_nfnet") as refusal:
        measured(path.parents[1], [], [0], [1])
    assert "\n" not in str(refusal.value)
    assert "masks do not act in test_nfnet" in describe_ticket(Ticket.load(path), "there", 1)


def test_protocols_are_the_papers() -> None:
    assert IMAGENET.training_for("alexnet").batch_size == 4096
    assert IMAGENET.training_for("resnet50").batch_size == 1536
    schedule = IMAGENET.training_for("resnet50").schedule(1_281_167)
    assert [round(schedule.lr_at(epoch * 1_281_167 + 1), 10) for epoch in (0, 49, 50, 65, 80)] == [
        *(0.1, 0.1, 0.01, 0.001, 0.0001)
    ]
    assert CIFAR10.training.clock(50_000).total_steps == -(-160 * 50_000 // 512)
    assert protocols.find_protocol("imagenet-trial").training.clock(1_281_167).total_steps == 6
    with pytest.raises(BadInput, match="did you mean cifar10"):
        protocols.find_protocol("cifar")


def test_a_protocol_may_train_on_one_half_and_measures_on_every_evaluation_image(run: Path) -> None:
    on_half = replace(SHORT, name="half", half="b", training=replace(SHORT.training, length="2ep"))
    splits = Splits.open(on_half, None)
    assert (len(splits.training.manifest), len(splits.evaluation.manifest)) == (717, 359)
    (row,) = evaluate_tasks(
        tasks.make_tasks(tasks.find_ticket_files([run], tasks.Levels((1,))), [], [on_half], [0]),
        Engine.create(RuntimeConfig(), "fp32"),
    )
    assert row_error(row) is None
    assert row["target"] == "digitsb"
    assert row["data_hash"] == splits.training.manifest.hash
    assert row["steps"] == -(-2 * 717 // 128)
    assert (protocols.find_protocol("cifar10b").half, protocols.find_protocol("cifar10b").training) == (
        "b",
        CIFAR10.training,
    )


def test_tickets_are_found_below_folders_and_bad_places_are_named(run: Path, tmp_path: Path) -> None:
    assert [path.stem for path in tasks.find_ticket_files([run.parent], tasks.Levels((0, 2)))] == [
        "level-00",
        "level-02",
    ]
    lone = run / "tickets" / "level-03.safetensors"
    assert tasks.find_ticket_files([lone, run], tasks.Levels((3,))) == [lone]
    with pytest.raises(BadInput, match="nothing at"):
        tasks.find_ticket_files([tmp_path / "nowhere"])
    with pytest.raises(BadInput, match="holds no tickets"):
        tasks.find_ticket_files([tmp_path])
    with pytest.raises(BadInput, match="no ticket has one of the levels 9"):
        tasks.find_ticket_files([run], tasks.Levels((9,)))


def test_levels_are_those_up_to_the_sixth_and_every_third_unless_said_otherwise(tmp_path: Path) -> None:
    for level in range(31):
        path = tmp_path / "run" / "tickets" / f"level-{level:02d}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    usual = [*range(7), 9, 12, 15, 18, 21, 24, 27, 30]
    assert [int(path.stem[-2:]) for path in tasks.find_ticket_files([tmp_path], tasks.DEFAULT_LEVELS)] == usual
    assert tasks.levels_left_out([tmp_path], tasks.DEFAULT_LEVELS) == sorted(set(range(31)) - set(usual))
    assert len(tasks.find_ticket_files([tmp_path])) == 31
    assert tasks.find_ticket_files([path.parent / "level-08.safetensors"], tasks.DEFAULT_LEVELS), (
        "a ticket that is named is taken"
    )


def test_a_seed_decides_head_order_augmentation_and_random_weights(run: Path) -> None:
    rows = measured(run, ["random"], [0, 1], [2])
    assert len({row["loss"] for row in rows}) == 4
    first, second = (Seeds.from_seed(derive_seed(seed, "evaluation")) for seed in (0, 1))
    nets = [
        MaskedNetwork.build("conv3", Supervised(), channels=1, image_size=8, classes=10, seed=seeds.init)
        for seeds in (first, second)
    ]
    for ours, theirs in zip(*(net.heads.parameters() for net in nets), strict=True):
        assert not torch.equal(ours, theirs)
    one, other = (Sampler(100, 32, seeds.order).indices(0) for seeds in (first, second))
    assert not np.array_equal(one, other)
    assert len({*vars(first).values(), *vars(second).values()}) == 10


def test_replicates_of_a_search_differ_in_weights_and_share_their_family(run: Path, tmp_path: Path) -> None:
    other = search(tmp_path, recipe(RotNet(), seed=1)).run_dir.path
    ours, theirs = (Ticket.load(folder / "tickets" / "level-01.safetensors") for folder in (run, other))
    assert not ours.mask.equals(theirs.mask)
    assert ours.record.family == theirs.record.family
    assert (ours.recipe["seed"], theirs.recipe["seed"]) == (0, 1)


def test_a_ticket_for_other_images_is_refused(run: Path, test_data: Path) -> None:
    fashion = replace(SHORT, name="grey", dataset="cifar10")
    matrix = tasks.make_tasks(tasks.find_ticket_files([run], tasks.Levels((1,))), [], [fashion], [0])
    bench = Engine.create(RuntimeConfig(data_root=test_data / "nowhere"), "fp32")
    with pytest.raises(BadInput, match="no images of cifar10 found"):
        next(evaluate_tasks(matrix, bench))


def test_weights_of_a_random_ticket_are_not_the_searchs_own(run: Path) -> None:
    """The trap: under a seed that the search had too, 'drawn anew' would be the search's own W_0."""
    weights = [
        pruned_model.read_state(
            MaskedNetwork.build("conv3", Supervised(), channels=1, image_size=8, classes=10, seed=seeds.init).backbone
        )
        for seeds in (Seeds.from_seed(0), Seeds.from_seed(derive_seed(0, "evaluation")))
    ]
    assert not torch.equal(weights[0]["features.0.weight"], weights[1]["features.0.weight"])
