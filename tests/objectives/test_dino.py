"""DINO: its loss by definition, the teacher and its centre."""

import math
from dataclasses import replace
from typing import Any, cast

import pytest
import torch

from sslticket.objectives.dino import DINO
from sslticket.objectives.multiview import cosine_momentum
from sslticket.pruning import pruned_model
from sslticket.pruning.mask import Mask
from sslticket.pruning.prunable import prunable_weights
from tests.objectives.multicrop import BOTH, batch, build, sgd, train, waiting


@pytest.mark.parametrize(("progress", "temperature"), [(0.0, 0.04), (0.1, 0.055), (0.2, 0.07), (1.0, 0.07)])
def test_dino_predicts_the_centred_and_sharpened_teacher_from_the_other_views(
    progress: float, temperature: float
) -> None:
    objective = DINO(hidden=12, bottleneck=6, outputs=9, teacher_temperature=0.07, teacher_rise=0.2, momentum=0.5)
    net, data = build(objective).eval(), batch(7)
    heads = cast(Any, net.heads)
    with torch.no_grad():
        for values in (*heads.student.parameters(), *heads.momentum.projection.parameters(), heads.centre):
            values.normal_(std=0.3, generator=torch.Generator().manual_seed(len(values)))
        centre = heads.centre.double()
        seen = [heads.momentum(view).double() for view in data.views[:2]]
        outputs = [heads.student(net.backbone(view)).double() for view in data.views]
    rows = []
    for image in range(7):
        terms = []
        for number, teacher in enumerate(seen):
            weights = [math.exp(float(value) / temperature) for value in teacher[image] - centre]
            for other, student in enumerate(outputs):
                if other != number:
                    guesses = [math.exp(float(value) / 0.1) for value in student[image]]
                    terms.append(
                        -sum(
                            w / sum(weights) * math.log(g / sum(guesses)) for w, g in zip(weights, guesses, strict=True)
                        )
                    )
        assert len(terms) == 2 * 4
        rows.append(sum(terms) / len(terms))
    (loss,) = objective.loss(net, data, progress).values()
    assert loss.item() == pytest.approx(sum(rows) / 7, rel=1e-5)


def test_the_length_of_a_direction_means_nothing_and_equal_outputs_are_the_collapse() -> None:
    objective = DINO(hidden=12, bottleneck=6, outputs=9)
    net, data = build(objective), batch(6)
    (before,) = objective.loss(net, data, 0.0).values()
    with torch.no_grad():
        waiting(net).held.mul_(torch.rand(9, 1) + 0.5)
    (after,) = objective.loss(net, data, 0.0).values()
    assert after.item() == pytest.approx(before.item(), rel=1e-5)
    with torch.no_grad():
        waiting(net).held.copy_(waiting(net).held[:1].clone().expand(9, -1))
    (collapsed,) = objective.loss(net, data, 0.0).values()
    assert collapsed.item() == pytest.approx(objective.collapsed_loss(6), rel=1e-6)
    assert abs(before.item() - collapsed.item()) > 1e-3


def test_the_centre_moves_once_a_step_to_the_mean_of_all_parts() -> None:
    objective = DINO(hidden=12, bottleneck=6, outputs=9, centring=0.8)
    net = build(objective)
    heads = cast(Any, net.heads)
    centre = torch.zeros(9)
    for step in range(3):
        outputs = []
        for part in batch(8, step).chunk(2):
            outputs += [heads.teacher(part.views[:2])]
            objective.loss(net, part, 0.0)
            torch.testing.assert_close(heads.centre, centre, rtol=0, atol=0)
        objective.after_step(net, 0.0)
        centre = 0.8 * centre + 0.2 * torch.cat(outputs).mean(dim=0)
        torch.testing.assert_close(heads.centre, centre, rtol=1e-6, atol=1e-7)
        centre = heads.centre.clone()


def test_the_teacher_follows_more_and_more_slowly_and_has_no_gradient() -> None:
    net = build(replace(cast(DINO, BOTH[1]), frozen_for=1.0))
    heads = cast(Any, net.heads)
    teacher = list(heads.momentum.parameters())
    expected = [weight.double() for weight in teacher]
    optimiser = sgd(net)
    for step, momentum in ((0, 0.9), (5, 0.95)):
        train(net, step, step + 1, optimiser)
        theirs = (*net.backbone.parameters(), *heads.student.parameters())
        expected = [
            momentum * mine + (1 - momentum) * other.detach().double()
            for mine, other in zip(expected, theirs, strict=True)
        ]
        for mine, value in zip(teacher, expected, strict=True):
            torch.testing.assert_close(mine.double(), value, rtol=1e-5, atol=1e-6)
    assert all(weight.grad is None and not weight.requires_grad for weight in teacher)


def test_the_teacher_of_a_frozen_layer_is_the_frozen_layer() -> None:
    net = build(BOTH[1])
    teacher = cast(Any, net.heads).momentum.projection.directions
    drawn = teacher().clone()
    train(net, 0, 3)
    assert torch.equal(teacher(), drawn)
    train(net, 3, 4)
    torch.testing.assert_close(teacher(), drawn.lerp(waiting(net)(), 1 - cosine_momentum(0.9, 0.3)))
    assert not torch.allclose(teacher(), drawn, atol=1e-5)


def test_the_loss_among_the_metrics_is_the_loss_and_entropy_is_that_of_the_targets() -> None:
    objective = BOTH[1]
    net, data = build(objective), batch(5, 9, sizes=(16, 16))
    train(net, 0, 5)
    net.eval()
    with torch.no_grad():
        metrics = objective.metrics(net, data)
        (loss,) = objective.loss(net, data, 1.0).values()
        assert metrics["loss"].mean().item() == pytest.approx(loss.item(), rel=1e-5)
        cast(Any, net.heads).momentum.projection.directions.weight.copy_(torch.ones(9, 6))
        cast(Any, net.heads).centre.zero_()
        uniform = objective.metrics(net, data)["target entropy"]
    torch.testing.assert_close(uniform, torch.full((5,), math.log(9)))
    assert metrics["target entropy"].max() < math.log(9) - 1e-3


def test_a_mask_falls_on_the_teacher_and_stays() -> None:
    net = build(BOTH[1])
    train(net, 0, 2)
    names, stored = prunable_weights(net.backbone), pruned_model.stored_state(net.backbone)
    mask = Mask({name: (torch.rand_like(stored[name]) < 0.3) for name in names})
    pruned_model.set_mask_everywhere(net, mask)
    before = pruned_model.read_state(net)
    train(net, 2, 5)
    state = pruned_model.read_state(net)
    for name in names:
        for copied in (f"backbone.{name}", f"heads.momentum.backbone.{name}"):
            assert torch.equal(state[copied] != 0, mask[name]), copied
            assert not torch.equal(state[copied], before[copied]), copied
