"""What a search leaves beside masks and weights: the head, W_0, and rows that say whose numbers they tell."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from sslticket.config.recipe import Data
from sslticket.errors import BadInput
from sslticket.objectives.base import objective_of
from sslticket.objectives.rotnet import RotNet
from sslticket.objectives.s4l import S4LRotation
from sslticket.objectives.supervised import Supervised
from sslticket.pruning import pruned_model
from sslticket.pruning.prunable import magnitude_statistics
from sslticket.results.rows import row_error
from sslticket.search.base import Search
from sslticket.search.imp import IMP
from sslticket.search.learned import ContinuousSparsification, EdgePopup, StochasticSparsification
from sslticket.search.oneshot import OneShot
from sslticket.search.plan import SearchPlan
from sslticket.ticket import Ticket
from sslticket.training import checkpoint
from sslticket.training.network import MaskedNetwork
from tests.runs import BATCH, REWIND, recipe, search, tickets

CONTINUOUS = ContinuousSparsification(rounds=1, rewind="0it", final_temperature=500.0, score_lr=2.0, frozen=True)
STOCHASTIC = StochasticSparsification(rounds=1, rewind="0it", initial_score=0.0, score_lr=100.0, frozen=True)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> SearchPlan:
    return search(tmp_path_factory.mktemp("runs"))


def rows(planned: SearchPlan) -> list[dict[str, object]]:
    return [json.loads(planned.run_dir.row_path(level).read_text()) for level in range(planned.levels + 1)]


def drawn(planned: SearchPlan) -> MaskedNetwork:
    """The net of a search at its very start."""
    which = planned.recipe
    return MaskedNetwork.build(
        "conv3", objective_of(which), channels=1, image_size=8, classes=10, seed=which.seeds.init
    )


def test_every_ticket_holds_the_classification_layer_of_w_k(found: SearchPlan) -> None:
    early = checkpoint.load_network(found.run_dir.rewind_path)
    for ticket in tickets(found):
        assert ticket.head.keys() == {"weight", "bias"}
        for name, value in ticket.head.items():
            assert torch.equal(value, early[f"heads.{name}"])
    start = dict(drawn(found).heads.named_parameters())
    assert not torch.equal(tickets(found)[1].head["weight"], start["weight"]), "it has trained for k steps"


def test_objectives_without_classes_keep_no_head_and_s4l_that_of_the_labels(tmp_path: Path) -> None:
    first = IMP(levels=1, rate=0.5, rewind=f"{REWIND}it")
    assert tickets(search(tmp_path, recipe(RotNet(), search=first)))[1].head == {}
    both = search(tmp_path, recipe(S4LRotation(), search=first, data=Data(dataset="digits", labels=0.5)))
    early = checkpoint.load_network(both.run_dir.rewind_path)
    assert torch.equal(tickets(both)[1].head["weight"], early["heads.labels.weight"])


def test_tickets_that_go_on_from_trained_weights_have_the_trained_head(tmp_path: Path) -> None:
    planned = search(tmp_path, recipe(search=IMP(levels=2, rate=0.5, rewind=f"{REWIND}it", retrain="finetune")))
    dense, first, second = tickets(planned)
    assert not torch.equal(dense.head["weight"], first.head["weight"])
    assert not torch.equal(first.head["weight"], second.head["weight"])
    # What the ticket holds is what its training goes on from.
    for level in (1, 2):
        planned.run_dir.ticket_path(level).unlink()
    again = search(tmp_path, planned.recipe)
    assert tickets(again)[2].hash == second.hash


def test_w_0_is_kept_with_its_head(found: SearchPlan) -> None:
    initial, net = Ticket.load(found.run_dir.initial_path), drawn(found)
    for name, value in pruned_model.read_state(net.backbone).items():
        assert torch.equal(initial.weights[name], value)
    assert torch.equal(initial.head["weight"], net.heads.weight)  # type: ignore[arg-type]
    assert (initial.mask.density, initial.provenance["weights"]) == (1.0, "initial")
    assert initial.provenance["rewind_samples"] == 0


def test_an_applied_head_is_the_tickets_and_a_wrong_one_is_refused_before_anything_is_loaded(found: SearchPlan) -> None:
    ticket, net = tickets(found)[2], drawn(found)
    before = pruned_model.read_state(net.backbone)
    for head, message in ((nn.Linear(32, 7), "weight.*10.*weight.*7"), (nn.Identity(), "leave head out")):
        with pytest.raises(BadInput, match=message):
            ticket.apply(net.backbone, head)
        assert all(torch.equal(value, before[name]) for name, value in pruned_model.read_state(net.backbone).items())
    ticket.apply(net.backbone, net.heads)
    assert torch.equal(net.heads.weight, ticket.head["weight"])  # type: ignore[arg-type]
    lone = Ticket(ticket.mask, ticket.weights, 2, ticket.recipe, ticket.provenance)
    with pytest.raises(BadInput, match="holds no classification layer"):
        lone.apply(net.backbone, net.heads)


def test_a_level_row_says_which_network_its_metrics_are_of(found: SearchPlan) -> None:
    told = rows(found)
    assert [row_error(row) for row in told] == [None] * 4
    assert "trained_level" not in told[0]
    assert [row["trained_level"] for row in told[1:]] == [0, 1, 2]
    assert [row["trained_density"] for row in told[1:]] == [row["density"] for row in told[:-1]]


def test_the_console_says_whose_scores_it_shows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    search(tmp_path)
    lines = [line for line in capsys.readouterr().err.replace("\r", "\n").splitlines() if "level 2:" in line]
    assert any("density 25.000%, found by training at density 50.000%: loss" in line for line in lines), lines


def test_metrics_of_a_learnt_mask_are_those_of_the_binary_network(tmp_path: Path) -> None:
    told = rows(search(tmp_path, recipe(search=EdgePopup(density=0.25))))
    assert told[1]["trained_density"] == pytest.approx(0.25, abs=0.001)


@pytest.mark.parametrize(
    "kind", [EdgePopup(density=0.25), CONTINUOUS, STOCHASTIC], ids=lambda kind: type(kind).__name__
)
def test_a_supermask_masks_the_classification_layer_and_trains_nothing_of_it(tmp_path: Path, kind: Search) -> None:
    """Savarese et al. 2019, section 4.1, after Zhou et al. 2019: every layer of Conv-6 has a mask."""
    planned = search(tmp_path, recipe(search=kind))
    early = checkpoint.load_network(planned.run_dir.rewind_path)
    weight, bias = early["heads.weight"], early["heads.bias"]
    assert not bias.any()
    assert weight.std() == pytest.approx((2 / (32 + 10)) ** 0.5, rel=0.15), "Xavier-normal"
    ticket = tickets(planned)[1]
    kept = ticket.head["weight"] != 0
    assert 0 < kept.sum() < kept.numel()
    assert torch.equal(ticket.head["weight"], weight * kept)
    assert (ticket.provenance["head_kept"], ticket.provenance["head_total"]) == (int(kept.sum()), 320)
    # Whoever trains the ticket on with its own layer trains what is left of it.
    net = MaskedNetwork.build("conv3", Supervised(), channels=1, image_size=8, classes=10, seed=3)
    ticket.apply(net.backbone, net.heads)
    net.heads(torch.ones(2, 32)).sum().backward()
    (gradient,) = (value.grad for name, value in net.heads.named_parameters() if "weight" in name)
    assert gradient is not None
    assert torch.equal(gradient != 0, kept)


def test_a_mask_over_the_head_is_in_the_key_and_only_for_weights_that_are_not_trained() -> None:
    trained, frozen = (recipe(search=replace(CONTINUOUS, frozen=each, masked_head=None)) for each in (False, True))
    assert "masked_head" not in trained.to_dict()["search"]
    assert frozen.to_dict()["search"]["masked_head"] is True
    assert frozen.key != recipe(search=replace(CONTINUOUS, masked_head=False)).key
    with pytest.raises(BadInput, match="--masked-head is for weights that are never trained"):
        replace(CONTINUOUS, frozen=False, masked_head=True)


def test_one_shot_tickets_were_all_found_by_the_dense_training(tmp_path: Path) -> None:
    planned = search(tmp_path, recipe(search=OneShot(levels=2, rate=0.5, rewind=f"{REWIND}it")))
    assert [row["search_forward_images"] for row in rows(planned)] == [BATCH * REWIND, BATCH * 6, BATCH * 6]


def test_natural_zeros_of_the_searchs_own_dense_network_are_a_row(tmp_path: Path) -> None:
    planned = search(tmp_path, recipe(RotNet(), search=IMP(levels=1, rate=0.5, rewind="1it", retrain="rate")))
    row = json.loads(planned.run_dir.magnitudes_path.read_text())
    assert row_error(row) is None
    assert (row["kind"], row["protocol"], row["level"], row["objective"]) == ("magnitudes", "search", 0, "rotnet")
    # With learning rate rewinding the ticket of level 1 holds the dense network's trained weights.
    first = tickets(planned)[1]
    kept = magnitude_statistics(first.weights, list(first.mask))
    assert sum(row["counts"]) + row["zeros"] == first.mask.total
    assert row["bins"][-1] == kept["bins"][-1], "the largest weights survive"
