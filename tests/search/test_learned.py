"""Searches that learn their masks, end to end on digits."""

import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from sslticket.config.recipe import Data
from sslticket.config.runtime import RuntimeConfig
from sslticket.errors import BadInput
from sslticket.objectives.base import Objective
from sslticket.objectives.byol import BYOL
from sslticket.objectives.mocov2 import MoCoV2
from sslticket.objectives.rotnet import RotNet
from sslticket.objectives.supervised import Supervised
from sslticket.pruning import pruned_model
from sslticket.results.rows import row_error
from sslticket.search.base import Search
from sslticket.search.learned import ContinuousSparsification, EdgePopup, StochasticSparsification
from sslticket.search.plan import plan_search
from sslticket.search.runner import SearchRunner
from sslticket.ticket import Ticket
from sslticket.training import checkpoint
from sslticket.training.network import MaskedNetwork
from tests.runs import BATCH, REWIND, STEPS, recipe, search, tickets

TOTAL = 13_968  # prunable weights of conv3 on one channel
CS = ContinuousSparsification(rounds=3, rewind=f"{REWIND}it", initial_score=0.0, penalty=1e-6, final_temperature=20.0)
ISS = StochasticSparsification(rounds=3, rewind=f"{REWIND}it")
SEARCHES: dict[str, Search] = {
    "cs": CS,
    "cs-rewound": replace(CS, rewind_weights=True),
    "cs-released": replace(CS, divided=True, scaled_reset=False),
    "cs-frozen": replace(CS, rounds=1, frozen=True, score_optimizer="adam", score_lr=0.01),
    "iss": ISS,
    "supermask": StochasticSparsification(rounds=1, rewind="0it", frozen=True, score_lr=100.0, initial_score=0.0),
    "edge-popup": EdgePopup(density=0.3),
}


@pytest.mark.parametrize("kind", SEARCHES)
def test_any_of_them_finds_tickets_with_rotations(tmp_path: Path, kind: str) -> None:
    planned = search(tmp_path, recipe(RotNet(), search=SEARCHES[kind]))
    found = tickets(planned)
    assert found[0].mask.density == 1
    for ticket in found[1:]:
        assert 0 < ticket.mask.density < 1
        for name, value in ticket.weights.items():
            early = found[0].weights[name]
            mask = ticket.mask.layers.get(name)
            assert torch.equal(value, early if mask is None else early.where(mask, 0.0)), "W_k, whatever was learnt"
    rows = [json.loads(planned.run_dir.row_path(level).read_text()) for level in range(planned.levels + 1)]
    rewinds = kind in ("cs-rewound", "iss")
    k = 0 if kind in ("supermask", "edge-popup") else REWIND
    steps = [k, STEPS - k, *(STEPS - k if rewinds else STEPS for _ in found[2:])]
    assert [row["steps"] for row in rows] == steps
    spent = [BATCH * sum(steps[: level + 1]) for level in range(len(steps))]
    assert (
        [row["search_samples"] for row in rows]
        == spent
        == [planned.cumulative_samples(level) for level in range(len(found))]
    )
    assert rows[-1]["search_epochs"] == pytest.approx(spent[-1] / 1438)
    for row, ticket in zip(rows[1:], found[1:], strict=True):
        assert row["undecided"] == ticket.provenance["undecided"]
        assert 0 <= row["undecided"] <= TOTAL
        assert row_error(row) is None
    assert "undecided" not in rows[0]


def test_edge_popup_keeps_its_share_of_every_layer_of_the_initialisation(tmp_path: Path) -> None:
    dense, popped = tickets(search(tmp_path, recipe(search=EdgePopup(density=0.3))))
    assert [kept for kept, _ in popped.mask.layer_counts().values()] == [
        round(0.3 * 144),
        round(0.3 * 4608),
        round(0.3 * 9216),
    ]
    start = MaskedNetwork.build("conv3", Supervised(), channels=1, image_size=8, classes=10, seed=recipe().seeds.init)
    initial = pruned_model.read_state(start.backbone)
    assert all(torch.equal(dense.weights[name], value) for name, value in initial.items())


def test_rounds_of_continuous_sparsification_go_on_by_the_reset_rule(tmp_path: Path) -> None:
    """What is carried to the next round is min(beta_T s_T, s_0), and the ticket is [s_T > 0]."""
    which = recipe(search=replace(CS, initial_score=0.01, rounds=2))
    planned = plan_search(which, RuntimeConfig(), tmp_path)
    stopped_after(planned, 1)
    carried = load_file(planned.run_dir.continuation_path(1))
    assert not planned.run_dir.ticket_path(2).exists()
    search(tmp_path, which)
    for name, layer in tickets(planned)[1].mask.items():
        score = carried[f"scores/backbone.{name}.score"]
        assert score.max() <= 0.01 + 1e-9
        assert torch.equal(score > 0, layer)
        removed = score[~layer]
        # Before the reset, a score that fell below 0 in six steps was a twentieth of this.
        assert removed.numel() == 0 or removed.min() < -0.01
        assert carried[f"scores/backbone.{name}.mask"].all(), "none is removed for good: it may come back"


def test_stochastic_sparsification_removes_for_good_what_fell_and_keeps_the_other_scores(tmp_path: Path) -> None:
    which = recipe(search=replace(ISS, rounds=2))
    planned = plan_search(which, RuntimeConfig(), tmp_path)
    stopped_after(planned, 1)
    carried = load_file(planned.run_dir.continuation_path(1))
    second = tickets(search(tmp_path, which))[2].mask
    for name in second:
        score, mask = (carried[f"scores/backbone.{name}.{part}"] for part in ("score", "mask"))
        assert torch.equal(mask > 0, score >= 1)
        assert 0.1 < mask.mean() < 0.9
        assert score[mask > 0].max() > 1
        assert not (second[name] & (mask == 0)).any()


@pytest.mark.parametrize("sampled", [True, False])
def test_a_stochastic_ticket_is_drawn_or_likely(tmp_path: Path, sampled: bool) -> None:
    first = tickets(search(tmp_path, recipe(search=replace(ISS, rounds=1, sampled=sampled))))[1].mask
    share = first.density
    if sampled:
        assert 0.6 < share < 0.8, "about sigma(1)"
    else:
        assert share > 0.9, "few fall below 0 in six steps"


@pytest.mark.parametrize(
    ("kind", "objective"),
    [("cs", MoCoV2(queue=96)), ("iss", MoCoV2(queue=96)), ("cs-rewound", Supervised()), ("edge-popup", RotNet())],
    ids=["cs-mocov2", "iss-mocov2", "cs-rewound", "edge-popup"],
)
def test_a_search_cut_off_anywhere_ends_with_the_same_bytes(tmp_path: Path, kind: str, objective: Objective) -> None:
    which = recipe(objective, search=SEARCHES[kind], data=Data(dataset="digits", image_size=16))
    whole = search(tmp_path / "whole", which)
    paths = [whole.run_dir.ticket_path(level) for level in range(whole.levels + 1)]
    cut = plan_search(which, RuntimeConfig(), tmp_path / "cut")
    stopped_after(cut, whole.levels // 2)
    search(tmp_path / "cut", which)
    for level, path in enumerate(paths):
        assert cut.run_dir.ticket_path(level).read_bytes() == path.read_bytes(), f"level {level}"
    assert not list(whole.run_dir.path.glob("carried-*"))


def stopped_after(planned: Any, level: int) -> None:
    """A search whose process ends in the round after this level, just before its ticket would be written."""
    from sslticket.search.run_search import run_search

    class Killed(Exception):
        pass

    kept = SearchRunner.save_ticket

    def keep(self: SearchRunner, number: int, *words: Any, **named: Any) -> Any:
        if number > level:
            raise Killed
        return kept(self, number, *words, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SearchRunner, "save_ticket", keep)
        with pytest.raises(Killed) if level < planned.levels else nullcontext():
            run_search(planned, RuntimeConfig())


def test_a_net_that_is_gone_is_named_with_what_helps(tmp_path: Path) -> None:
    planned = search(tmp_path, recipe(search=CS))
    found = [ticket.hash for ticket in tickets(planned)]
    planned.run_dir.ticket_path(2).unlink()
    message = (
        r"carried-01.safetensors, from which level 1 is trained on, is gone; delete the tickets of level 1 and beyond"
    )
    with pytest.raises(BadInput, match=message):
        search(tmp_path, recipe(search=CS))
    planned.run_dir.ticket_path(1).unlink()
    assert [ticket.hash for ticket in tickets(search(tmp_path, recipe(search=CS)))] == found


@pytest.mark.parametrize("kind", ["cs", "edge-popup"])
def test_layers_that_may_not_be_pruned_have_no_scores(tmp_path: Path, kind: str) -> None:
    limited = replace(SEARCHES[kind], exclude=("features.0",))
    planned = plan_search(recipe(search=limited), RuntimeConfig(), tmp_path)
    stopped_after(planned, 1 if kind == "cs" else 2)
    ticket = Ticket.load(planned.run_dir.ticket_path(1))
    assert list(ticket.mask) == ["features.4.weight", "features.8.weight"]
    assert ticket.weights["features.0.weight"].all()
    if kind == "cs":
        scored = {name.rpartition(".")[0] for name in checkpoint.load_gate_scores(planned.run_dir.continuation_path(1))}
        assert scored == {f"backbone.{name}" for name in ticket.mask}


@pytest.mark.parametrize("kind", ["cs", "iss"])
def test_target_networks_search_too(tmp_path: Path, kind: str) -> None:
    which = recipe(
        BYOL(hidden=16, dim=8, momentum=0.9), search=SEARCHES[kind], data=Data(dataset="digits", image_size=16)
    )
    planned = plan_search(which, RuntimeConfig(), tmp_path)
    stopped_after(planned, 1)
    carried = checkpoint.load_gate_scores(planned.run_dir.continuation_path(1))
    for name in Ticket.load(planned.run_dir.ticket_path(1)).mask:
        own, target = (carried[f"{part}.{name}.score"] for part in ("backbone", "heads.momentum.backbone"))
        assert not torch.equal(own, target)
        own, target = (carried[f"{part}.{name}.mask"] for part in ("backbone", "heads.momentum.backbone"))
        assert torch.equal(own, target)
