"""What searches that learn their masks take, and what they refuse."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from sslticket.config.training import LARS, SGD, Adam, Clock, Span, TrainConfig
from sslticket.errors import BadInput
from sslticket.objectives.supervised import Supervised
from sslticket.pruning import pruned_model
from sslticket.pruning.gates import SoftGate
from sslticket.pruning.mask import Mask
from sslticket.search.learned import ContinuousSparsification, EdgePopup, StochasticSparsification, report_undecided
from sslticket.training.network import MaskedNetwork
from tests.runs import recipe, search

CLOCK = Clock(Span.parse("40it"), 16, 1000)
DENSE = Mask({"a": torch.ones(5, 9, dtype=torch.bool), "b": torch.ones(1, 2, dtype=torch.bool)})
CS = ContinuousSparsification(rounds=3, rewind="2it", final_temperature=20.0)
ISS = StochasticSparsification(rounds=3, rewind="2it")


def test_a_temperature_by_the_epoch_has_as_many_stairs_as_epochs() -> None:
    by_epoch = replace(CS, anneal="epoch", rewind="0it")
    fit = TrainConfig(length="3ep", batch_size=32, optimizer=SGD(lr=0.1))
    learning = by_epoch.mask_learning(fit, fit.clock(96))
    one = learning.gate(torch.zeros(1, 1))
    assert isinstance(one, SoftGate)
    seen = []
    for step in range(9):
        one.on_step(step / 9, 0)
        seen.append(one.temperature.item())
    assert seen == pytest.approx([1.0] * 3 + [20**0.5] * 3 + [20.0] * 3)
    with pytest.raises(BadInput, match=r"must have at least 2, got 2it; give --anneal step"):
        by_epoch.stages(TrainConfig(length="2it", batch_size=32, optimizer=SGD(lr=0.1)).clock(96), DENSE)


def test_scores_have_an_optimiser_of_their_own_without_weight_decay() -> None:
    fit = TrainConfig(length="10it", batch_size=32, optimizer=SGD(lr=0.1, weight_decay=1e-4, nesterov=True))
    clock = fit.clock(100)
    assert CS.mask_learning(fit, clock).optimizer == SGD(lr=0.1, weight_decay=0.0, nesterov=True)
    assert ISS.mask_learning(fit, clock).optimizer == SGD(lr=20.0, weight_decay=0.0)
    assert replace(CS, score_optimizer="adam", score_lr=3e-4).mask_learning(fit, clock).optimizer == Adam(
        lr=3e-4, weight_decay=0.0
    )
    with pytest.raises(BadInput, match="LARS cannot train scores; give --score-optimizer sgd or adam"):
        CS.mask_learning(replace(fit, optimizer=LARS(lr=1.0)), clock)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ContinuousSparsification(final_temperature=1.0), "--final-temperature must be finite and above 1"),
        (
            lambda: ContinuousSparsification(final_temperature=float("nan")),
            "--final-temperature must be finite and above 1",
        ),
        (lambda: ContinuousSparsification(rounds=0), "--rounds must be at least 1, got 0"),
        (lambda: StochasticSparsification(penalty=-1e-8), "--penalty must be finite and at least 0, got -1e-08"),
        (lambda: StochasticSparsification(initial_score=1e3), "--initial-score must be from -50 to 50, got 1000"),
        (lambda: StochasticSparsification(score_lr=0.0), "--score-lr must be finite and above 0"),
        (lambda: EdgePopup(score_lr=-1.0), "--score-lr must be finite and above 0"),
        (lambda: EdgePopup(density=1.0), r"--density must be in \(0, 1\)"),
        (lambda: EdgePopup(density=0.0), r"--density must be in \(0, 1\)"),
        (lambda: ContinuousSparsification(rewind="soon"), "--rewind must be like 90ep"),
        (
            lambda: ContinuousSparsification(rewind="2ep").stages(CLOCK, DENSE),
            "must lie before the end of a training .* got 2ep",
        ),
    ],
)
def test_what_cannot_be_searched_is_refused_before_anything_starts(make: Any, message: str) -> None:
    with pytest.raises(BadInput, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_a_trial_brings_the_rewind_point_within_and_counts_its_rounds() -> None:
    for which in (ContinuousSparsification(rounds=3), StochasticSparsification(rounds=3)):
        assert which.rewound_within(CLOCK).stages(CLOCK, DENSE).rewind == 4
    assert ContinuousSparsification(rounds=3, rewind="10%").stages(CLOCK, DENSE).cumulative_steps == (4, 40, 80, 120)
    rewound = ContinuousSparsification(rounds=3, rewind="10%", rewind_weights=True)
    assert rewound.stages(CLOCK, DENSE).cumulative_steps == (4, 40, 76, 112)
    popped = EdgePopup(density=0.2).rewound_within(CLOCK).stages(CLOCK, DENSE)
    assert (popped.cumulative_steps, popped.survivors) == ((0, 40), (47, 10)), (
        "9 of the first layer, and 1 of the second"
    )


def test_a_mask_that_keeps_nothing_ends_the_search_and_what_is_undecided_is_told(tmp_path: Path) -> None:
    with pytest.raises(
        BadInput,
        match=r"level 1 must keep a weight, and keeps none of 13,968 weights; give a higher --initial-score or a lower",
    ):
        search(tmp_path, recipe(search=replace(CS, initial_score=-1.0)))
    net = MaskedNetwork.build(
        "conv3",
        Supervised(),
        channels=1,
        image_size=8,
        classes=10,
        seed=0,
        mask_learning=CS.mask_learning(recipe().training, CLOCK),
    )
    gates = pruned_model.learned_gates(net.backbone)
    with torch.no_grad():
        for one in gates.values():
            one.score.fill_(1.0)
        gates["features.4.weight"].score.view(-1)[:7] = 1e-3
    notes: list[str] = []
    runner = cast(Any, SimpleNamespace(network=net, note=notes.append))
    assert report_undecided(runner, CS.final_mask(net, 0), 2, "a higher --initial-score") == {"undecided": 7}
    assert notes == ["level 2: 7 of 13,968 weights are neither kept nor removed for sure"]
