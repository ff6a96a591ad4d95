"""A level ends when the mask that it would draw has converged, and nothing else changes."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from sslticket.config.runtime import RuntimeConfig
from sslticket.config.training import Clock, Span
from sslticket.errors import BadInput
from sslticket.pruning import pruned_model
from sslticket.pruning.criteria import Criterion, ScoringInput
from sslticket.pruning.mask import Mask
from sslticket.search.base import EarlyBird, mask_distance
from sslticket.search.imp import IMP
from sslticket.search.plan import SearchPlan, plan_search
from sslticket.search.run_search import run_search
from tests.runs import BATCH, REWIND, STEPS, recipe, search, tickets

EARLY = IMP(levels=3, rate=0.5, rewind=f"{REWIND}it", early_bird=0.1, early_bird_window=1, early_bird_every="1it")


@dataclass(frozen=True)
class Constant(Criterion):
    """Keeps the last weights whatever they are, so its mask has converged from the start."""

    def scores(self, subject: ScoringInput, names: Sequence[str]) -> dict[str, torch.Tensor]:
        shapes = {name: weight.shape for name, weight in pruned_model.stored_state(subject.backbone).items()}
        return {name: torch.arange(shapes[name].numel()).view(shapes[name]).float() for name in names}


def rows(planned: SearchPlan) -> list[dict[str, object]]:
    return [json.loads(planned.run_dir.row_path(level).read_text()) for level in range(planned.levels + 1)]


def mask(*alive: int) -> Mask:
    return Mask({"a": torch.tensor([place in alive for place in range(6)]), "b": torch.ones(2, dtype=torch.bool)})


def test_mask_distance_is_the_fraction_of_survivors_that_differ() -> None:
    assert mask_distance(mask(0, 1), mask(0, 1)) == 0
    assert mask_distance(mask(0, 1), mask(1, 2)) == pytest.approx(1 / 4)
    assert mask_distance(mask(0, 1), mask(2, 3)) == pytest.approx(2 / 4)


def test_a_mask_has_converged_when_it_is_near_all_masks_of_the_window() -> None:
    drawn = iter([(0, 1), (0, 2), (0, 1), (0, 1), (0, 2), (0, 2), (0, 2)])
    early_bird = EarlyBird(lambda: mask(*next(drawn)), threshold=0.2, window=2, every=Span.parse("1it"))
    # Neighbours that differ are a quarter apart; the fourth mask is near the third, but not near the second.
    assert [early_bird.has_converged() for _ in range(7)] == [False, False, False, False, False, False, True]


@pytest.mark.parametrize("window", [1, 2])
def test_a_constant_mask_stops_each_level_after_window_and_one_looks(tmp_path: Path, window: int) -> None:
    planned = search(tmp_path, recipe(search=replace(EARLY, criterion=Constant(), early_bird_window=window)))
    used, found = window + 1, rows(planned)
    assert [row["steps"] for row in found] == [REWIND, used, used, used]
    assert [row["samples"] for row in found] == [BATCH * REWIND, *[BATCH * used] * 3]
    assert [row["saved_samples"] for row in found] == [0, *[BATCH * (STEPS - REWIND - used)] * 3]
    spent = [BATCH * (REWIND + level * used) for level in range(4)]
    assert [row["search_samples"] for row in found] == spent
    assert [ticket.provenance["search_samples"] for ticket in tickets(planned)] == spent


def test_a_level_that_ends_early_is_the_training_cut_there(tmp_path: Path) -> None:
    usual = recipe()
    cut = tickets(search(tmp_path, replace(usual, training=replace(usual.training, length=f"{REWIND + 2}it"))))
    # Every mask is nearer than this bound to every other.
    early = search(tmp_path, recipe(search=replace(EARLY, early_bird=0.999999)))
    assert [row["steps"] for row in rows(early)] == [REWIND, 2, 2, 2]
    for one, other in zip(tickets(early), cut, strict=True):
        assert one.mask.equals(other.mask)
        assert all(torch.equal(one.weights[name], value) for name, value in other.weights.items())


def test_masks_that_move_are_trained_to_the_end(tmp_path: Path) -> None:
    plain = search(tmp_path, recipe(search=IMP(levels=3, rate=0.5, rewind=f"{REWIND}it")))
    moving = search(tmp_path, recipe(search=replace(EARLY, early_bird=1e-6)))
    assert [row["saved_samples"] for row in rows(moving)] == [0] * 4
    for one, other in zip(tickets(moving), tickets(plain), strict=True):
        assert one.mask.equals(other.mask), "looking on changes nothing"


@pytest.mark.parametrize("lost", [1, 3])
def test_a_search_that_is_taken_up_again_stops_where_it_stopped(tmp_path: Path, lost: int) -> None:
    which = recipe(search=replace(EARLY, early_bird=0.999999))
    planned = search(tmp_path, which)
    folder = planned.run_dir
    before = [folder.ticket_path(level).read_bytes() for level in range(4)]
    for level in range(lost, 4):
        folder.ticket_path(level).unlink()
    search(tmp_path, which)
    assert [folder.ticket_path(level).read_bytes() for level in range(4)] == before


def test_a_probe_sees_the_end_of_a_level_that_ends_early(tmp_path: Path) -> None:
    machine = RuntimeConfig(probe="3it")
    planned = plan_search(recipe(search=replace(EARLY, early_bird=0.999999)), machine, tmp_path)
    run_search(planned, machine)
    assert [list(row["probe"]) for row in rows(planned)] == [["2"], *[["3", "4"]] * 3]  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("settings", "answer"),
    [
        ({"early_bird": 0.0}, r"--early-bird must be in \(0, 1\), got 0; give"),
        ({"early_bird": 1.0}, r"--early-bird must be in \(0, 1\), got 1; give"),
        ({"early_bird_window": 0}, "--early-bird-window must be at least 1, got 0; give 1"),
        ({"early_bird_every": "0it"}, "--early-bird-every must be above 0, got 0it; give"),
        ({"early_bird_every": "often"}, "--early-bird-every must be like 90ep"),
    ],
)
def test_early_bird_settings_out_of_range_are_refused(settings: dict[str, float], answer: str) -> None:
    with pytest.raises(BadInput, match=answer):
        IMP(**settings)  # type: ignore[arg-type]


def test_a_level_too_short_for_its_window_is_refused_and_a_trial_compares_more_often() -> None:
    clock = Clock(Span.parse("40it"), 16, 1000)
    dense = Mask({"a": torch.ones(1000, dtype=torch.bool)})
    rule = IMP(levels=2, rewind="4it", early_bird=0.1, early_bird_every="10it")
    with pytest.raises(
        BadInput, match="--early-bird-window 5 needs at least 6 masks a level, got 3, 10it apart; give a"
    ):
        rule.stages(clock, dense)
    assert rule.rewound_within(clock) == replace(rule, early_bird_every="1%")
    assert rule.rewound_within(clock).stages(clock, dense).rewind == 4
    assert replace(rule, early_bird_every="5it").rewound_within(clock) == replace(rule, early_bird_every="5it")
