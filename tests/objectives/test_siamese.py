"""BYOL and SimSiam: their losses by definition, where no gradient may flow, and the target network."""

import copy
import math
from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F
from lightly.models.modules.heads import ProjectionHead
from torch import Tensor, nn

from sslticket.data.augment import View
from sslticket.data.loader import Batch
from sslticket.errors import BadInput
from sslticket.objectives.base import Objective
from sslticket.objectives.byol import BYOL
from sslticket.objectives.simsiam import SimSiam
from sslticket.pruning import pruned_model
from sslticket.pruning.mask import Mask
from sslticket.pruning.prunable import prunable_weights
from sslticket.training.network import MaskedNetwork

BOTH = [BYOL(hidden=12, dim=6, momentum=0.9), SimSiam(dim=8, predictor=4)]
IDS = ["byol", "simsiam"]
LENGTH = 10


def batch(count: int, step: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(step)
    views = tuple(torch.randn(count, 1, 8, 8, generator=generator) for _ in range(2))
    return Batch(views, torch.full((count,), -1), torch.arange(count))


def build(objective: Objective, model: str = "lenet300", seed: int = 0) -> tuple[MaskedNetwork, Any]:
    """A net, and its heads."""
    net = MaskedNetwork.build(model, objective, channels=1, image_size=8, classes=10, seed=seed)
    return net, cast(Any, net.heads)


def train(net: MaskedNetwork, start: int, stop: int) -> list[Tensor]:
    """Plain SGD; the loss of every step."""
    parameters = [parameter for parameter in net.parameters() if parameter.requires_grad]
    losses = []
    for step in range(start, stop):
        (loss,) = net(batch(4, step), step / LENGTH).values()
        for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            parameter.data.sub_(0.1 * gradient)
        net.objective.after_step(net, step / LENGTH)
        losses.append(loss.detach())
    return losses


def unit(values: Tensor) -> Tensor:
    return F.normalize(values.detach().double(), dim=1)


def test_byol_is_the_squared_distance_of_unit_vectors_both_ways() -> None:
    net, heads = build(BOTH[0])
    train(net, 0, 2)
    data, rows = batch(5, 9), torch.zeros(5, dtype=torch.float64)
    for one, other in (data.views, data.views[::-1]):
        predicted = unit(heads.prediction(heads.projection(net.backbone(one))))
        target = unit(heads.momentum.projection(heads.momentum.backbone(other)))
        rows += (predicted - target).square().sum(dim=1)
    assert net(data, 0.0)["prediction"].item() == pytest.approx(rows.mean().item(), rel=1e-5)


def test_simsiam_is_minus_the_mean_cosine_both_ways() -> None:
    net, heads = build(BOTH[1])
    train(net, 0, 2)
    data, rows = batch(5, 9), torch.zeros(5, dtype=torch.float64)
    projections = [heads.projection(net.backbone(view)) for view in data.views]
    for one, other in (projections, projections[::-1]):
        rows -= (unit(heads.prediction(one)) * unit(other)).sum(dim=1) / 2
    assert net(data, 0.0)["prediction"].item() == pytest.approx(rows.mean().item(), rel=1e-5)


@pytest.mark.parametrize("objective", BOTH, ids=IDS)
def test_the_loss_in_the_metrics_is_that_of_each_image(objective: Objective) -> None:
    net, _ = build(objective)
    train(net, 0, 3)
    net.eval()
    data = batch(5, 9)
    with torch.no_grad():
        whole = objective.metrics(net, data)["loss"]
        for row in range(5):
            alone = Batch(tuple(view[[row]] for view in data.views), data.labels[[row]], data.indices[[row]])
            assert net(alone, 0.0)["prediction"].item() == pytest.approx(whole[row].item(), rel=1e-4)


@pytest.mark.parametrize("objective", BOTH, ids=IDS)
def test_no_gradient_flows_through_the_target(objective: Objective) -> None:
    """With predictions that do not depend on the image, only the target could carry a gradient to the projection."""
    net, heads = build(objective)
    last = heads.prediction.layers[-1]
    nn.init.zeros_(last.weight), nn.init.uniform_(last.bias)
    (loss,) = net(batch(6), 0.0).values()
    loss.backward()
    assert last.bias.grad.abs().min() > 0
    for module in (net.backbone, heads.projection):
        assert all(parameter.grad.count_nonzero() == 0 for parameter in module.parameters())


@pytest.mark.parametrize("objective", BOTH, ids=IDS)
def test_predicting_the_target_exactly_has_the_collapsed_loss(objective: Objective) -> None:
    net, heads = build(objective)
    for module in list(heads.modules()):
        if isinstance(module, ProjectionHead):
            module.layers = nn.Sequential(Constant())
    (loss,) = net(batch(4), 0.0).values()
    assert loss.item() == pytest.approx(objective.collapsed_loss(4), abs=1e-6)


class Constant(nn.Module):
    """The same embedding for all images."""

    def forward(self, features: Tensor) -> Tensor:
        return torch.arange(1.0, 4.0).repeat(len(features), 1)


def test_the_target_network_is_the_moving_average_of_the_weights() -> None:
    net, heads = build(BOTH[0], "resnet20")
    expected = [weight.double() for weight in heads.momentum.parameters()]
    assert not any(weight.requires_grad for weight in heads.momentum.parameters())
    for step in range(LENGTH):
        train(net, step, step + 1)
        keep = 1 - 0.1 * (math.cos(math.pi * step / LENGTH) + 1) / 2
        theirs = (*net.backbone.parameters(), *heads.projection.parameters())
        expected = [
            keep * mine + (1 - keep) * new.detach().double() for mine, new in zip(expected, theirs, strict=True)
        ]
    for mine, value in zip(heads.momentum.parameters(), expected, strict=True):
        torch.testing.assert_close(mine.double(), value, rtol=1e-5, atol=1e-6)
    before = copy.deepcopy(heads.momentum.state_dict())
    net.objective.after_step(net, 1.0)
    assert all(torch.equal(value, before[name]) for name, value in heads.momentum.state_dict().items())


def test_the_target_network_has_batch_statistics_of_its_own() -> None:
    net, heads = build(BOTH[0], "resnet20")
    train(net, 0, 3)
    theirs = dict(net.backbone.named_buffers())
    for name, mine in heads.momentum.backbone.named_buffers():
        if name.endswith("num_batches_tracked"):
            assert mine == theirs[name] == 6, "two views a step"
        if name.endswith("running_mean"):
            assert not torch.equal(mine, theirs[name]), name


@pytest.mark.parametrize("objective", BOTH, ids=IDS)
def test_every_trained_parameter_gets_a_gradient(objective: Objective) -> None:
    net, _ = build(objective, "resnet20")
    (loss,) = net(batch(4), 0.0).values()
    loss.backward()
    for name, parameter in net.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name


@pytest.mark.parametrize("objective", BOTH, ids=IDS)
def test_metrics_are_per_image_and_change_nothing(objective: Objective) -> None:
    net, _ = build(objective, "resnet20")
    train(net, 0, 2)
    net.eval()
    before = copy.deepcopy(dict(net.named_buffers()) | net.state_dict())
    with torch.no_grad():
        metrics = objective.metrics(net, batch(5, 9))
    assert {value.shape for value in metrics.values()} == {(5,)}
    for name, value in (dict(net.named_buffers()) | net.state_dict()).items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("objective", BOTH, ids=IDS)
def test_a_net_written_from_another_goes_on_as_that_one_does(objective: Objective) -> None:
    (first, _), (second, _) = build(objective, "resnet20"), build(objective, "resnet20", seed=1)
    train(first, 0, 3)
    pruned_model.write_state(second, pruned_model.read_state(first))
    for one, other in zip(train(first, 3, 6), train(second, 3, 6), strict=True):
        assert torch.equal(one, other)


def test_a_mask_falls_on_the_target_network_and_stays() -> None:
    net, _ = build(BOTH[0], "conv3")
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


@pytest.mark.parametrize("objective", BOTH, ids=IDS)
def test_a_single_image_is_refused(objective: Objective) -> None:
    with pytest.raises(BadInput, match="must get at least 2 images at a time, got 1; give a larger --batch-size"):
        objective.check(1, 2)
    objective.check(2, 2)


def test_byol_blurs_one_view_and_solarises_the_other() -> None:
    one, other = BYOL().views(View(size=224, crop="resized", flip=True))
    named = [{type(effect).__name__: effect.probability for effect in view.transforms} for view in (one, other)]
    assert named[0] == {"Jitter": 0.8, "Grayscale": 0.2, "Blur": 1.0}
    assert named[1] == {"Jitter": 0.8, "Grayscale": 0.2, "Blur": 0.1, "Solarize": 0.2}
    assert one.scale == other.scale == (0.08, 1.0)
