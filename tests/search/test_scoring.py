"""Scores in a search: the net stays as it is, and the number of processes changes nothing."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from sslticket.config.recipe import Data, Recipe
from sslticket.config.runtime import RuntimeConfig
from sslticket.errors import BadInput
from sslticket.objectives.base import Objective, objective_of
from sslticket.objectives.byol import BYOL
from sslticket.objectives.mocov2 import MoCoV2
from sslticket.objectives.supervised import Supervised
from sslticket.objectives.swav import SwAV
from sslticket.objectives.vicreg import VICReg
from sslticket.pruning import pruned_model
from sslticket.pruning.criteria import (
    ERK,
    SNIP,
    Criterion,
    GradientCriterion,
    GraSP,
    Magnitude,
    Random,
    Scores,
    ScoringInput,
    SynFlow,
)
from sslticket.pruning.mask import Mask
from sslticket.pruning.prunable import prunable_weights
from sslticket.search.oneshot import OneShot
from sslticket.search.plan import plan_search
from sslticket.search.scoring import Scorer
from sslticket.training.engine import Engine
from sslticket.training.network import MaskedNetwork
from sslticket.training.progress import Progress
from tests.gloo import run_in_processes
from tests.runs import recipe

CRITERIA = [Magnitude(), SNIP(), GraSP(logit_temperature=1.0), SynFlow(), Random(), ERK()]


def built(which: Recipe, machine: RuntimeConfig | None = None) -> tuple[MaskedNetwork, Scorer, Mask]:
    """A net of the recipe, what scores it, and a mask of half of its weights."""
    machine = machine or RuntimeConfig()
    planned, bench = plan_search(which, machine, Path("nowhere")), Engine.create(machine, which.precision)
    size = planned.images.views[0].size
    net = MaskedNetwork.build(which.model, objective_of(which), channels=1, image_size=size, classes=10, seed=0)
    state = pruned_model.stored_state(net.backbone)
    whole = Mask.ones_like(state, prunable_weights(net.backbone))
    half = Mask.top({name: state[name].abs() for name in whole}, keep=whole.total // 2, within=whole)
    return net, Scorer(planned, bench, net, Progress(1, show=False)), half


def scored_by(criterion: Criterion, objective: Objective | None = None, **changes: Any) -> Recipe:
    search = OneShot(levels=1, rate=0.5, rewind="1it", criterion=criterion)
    return recipe(objective, search=search, data=Data(dataset="digits", image_size=8), **changes)


def everything(net: MaskedNetwork) -> list[Tensor]:
    tensors = [*net.parameters(), *net.buffers(), torch.get_rng_state()]
    return [tensor.detach().clone() for tensor in tensors]


@pytest.mark.parametrize("criterion", CRITERIA, ids=lambda each: type(each).__name__)
@pytest.mark.parametrize(
    "objective",
    [Supervised(), MoCoV2(queue=64), BYOL(hidden=16, dim=8), SwAV(hidden=16, dim=8, prototypes=12)],
    ids=lambda each: each.name,
)
def test_weights_statistics_queues_gradients_modes_and_random_numbers_stay(
    criterion: Criterion, objective: Objective
) -> None:
    net, scoring, half = built(scored_by(criterion, objective))
    net.heads.eval()
    torch.stack(list(net.backbone(torch.randn(4, 1, 8, 8)).square().sum()[None])).sum().backward()
    gradients = {name: value.grad.clone() for name, value in net.named_parameters() if value.grad is not None}
    before, modes = everything(net), [module.training for module in net.modules()]
    scores = scoring.scores(criterion, half, step=1)
    assert all(torch.equal(one, other) for one, other in zip(before, everything(net), strict=True))
    assert modes == [module.training for module in net.modules()]
    after = {name: value.grad for name, value in net.named_parameters() if value.grad is not None}
    assert gradients.keys() == after.keys()
    assert all(torch.equal(gradients[name], after[name]) for name in gradients)
    again = scoring.scores(criterion, half, step=1)
    assert all(torch.equal(scores[name], again[name]) for name in scores), "the same images and random numbers"
    if criterion.passes or isinstance(criterion, Magnitude | SynFlow):
        assert all(not scores[name][~layer].any() for name, layer in half.items()), "the mask was in force"


@dataclass(frozen=True)
class Failing(GradientCriterion):
    """Breaks off in the middle of a pass."""

    def scores(self, subject: ScoringInput, names: Sequence[str]) -> Scores:
        next(subject.losses(200.0))
        subject.backbone.eval()
        raise KeyboardInterrupt


def test_the_net_stays_as_it_is_where_scoring_breaks_off() -> None:
    net, scoring, half = built(scored_by(Magnitude()))
    before = everything(net)
    with pytest.raises(KeyboardInterrupt):
        scoring.scores(Failing(), half, step=1)
    assert all(torch.equal(one, other) for one, other in zip(before, everything(net), strict=True))
    assert net.backbone.training
    assert not net.heads._forward_hooks, "nothing divides logits any more"


def test_the_temperature_divides_logits() -> None:
    _, scoring, half = built(scored_by(SNIP()))
    by = {}

    @dataclass(frozen=True)
    class Looking(GradientCriterion):
        passes: ClassVar[int] = 2

        def scores(self, subject: ScoringInput, names: Sequence[str]) -> Scores:
            by.update({temperature: float(next(subject.losses(temperature)).detach()) for temperature in (1e6, 1.0)})
            return {name: torch.ones_like(layer, dtype=torch.float32) for name, layer in half.items()}

    scoring.scores(Looking(), half, step=1)
    assert by[1e6] == pytest.approx(2.302585, abs=1e-5), "log 10: all classes alike"
    assert abs(by[1.0] - by[1e6]) > 1e-3


def test_parts_of_a_batch_give_the_scores_of_the_whole() -> None:
    """LeNet has no batch norm, so a batch may be cut into any parts."""
    for criterion in (SNIP(), GraSP()):
        whole, parts = (
            built(scored_by(criterion, model="lenet300"), RuntimeConfig(accumulate=count)) for count in (1, 4)
        )
        expected, found = (scoring.scores(criterion, half, step=1) for _, scoring, half in (whole, parts))
        for name in expected:
            torch.testing.assert_close(
                found[name], expected[name], rtol=1e-3, atol=1e-4 * float(expected[name].abs().max())
            )


@dataclass(frozen=True)
class Says(Criterion):
    """Gives every weight the same score."""

    value: float = 0.0

    def scores(self, subject: ScoringInput, names: Sequence[str]) -> Scores:
        return {name: torch.full_like(pruned_model.stored_state(subject.backbone)[name], self.value) for name in names}


@dataclass(frozen=True)
class Uncounted(SNIP):
    """Looks at images once and says never."""

    passes: ClassVar[int] = 0


def test_scores_that_rank_nothing_and_looks_that_nobody_counts_are_refused() -> None:
    _, scoring, half = built(scored_by(SNIP()))
    with pytest.raises(BadInput, match="Says gives scores that are not finite"):
        scoring.scores(Says(float("nan")), half, step=1)
    with pytest.raises(BadInput, match="Says scores every weight 0"):
        scoring.scores(Says(0.0), half, step=1)
    with pytest.raises(BadInput, match="write passes = 1"):
        scoring.scores(Uncounted(), half, step=1)


@dataclass(frozen=True)
class Lossless(Supervised):
    """An objective that has nothing to learn on the first batches, as one that finds no triplets."""

    def loss(self, net: object, batch: object, progress: float) -> dict[str, Tensor]:
        return {"none": torch.zeros(())}


def test_an_objective_without_a_loss_on_a_batch_is_named() -> None:
    _, scoring, half = built(scored_by(SNIP(), Lossless()))
    with pytest.raises(BadInput, match="lossless has no loss on batch 1 of the scoring images"):
        scoring.scores(SNIP(), half, step=1)


BOTH = [(Supervised(), SNIP()), (Supervised(), GraSP()), (VICReg(hidden=12, dim=6), GraSP(logit_temperature=1.0))]


def scores_of_all() -> Iterator[Scores]:
    for objective, criterion in BOTH:
        for fit in (recipe().training, replace(recipe().training, ghost_batch=8)):
            _, scoring, half = built(scored_by(criterion, objective, training=fit))
            yield scoring.scores(criterion, half, step=1)


def process(rank: int, folder: str) -> None:
    torch.save(list(scores_of_all()), f"{folder}/{rank}")


def test_two_processes_give_the_scores_of_one_and_agree_to_the_bit(tmp_path: Path) -> None:
    """VICReg's loss looks at both processes' images, as batch norm does, so second derivatives go to the other one."""
    run_in_processes(process, tmp_path)
    first, second = (torch.load(tmp_path / str(rank)) for rank in range(2))
    for mine, theirs, alone in zip(first, second, scores_of_all(), strict=True):
        for name, expected in alone.items():
            assert torch.equal(mine[name], theirs[name])
            torch.testing.assert_close(mine[name], expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))
