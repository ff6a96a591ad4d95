"""Barlow Twins and VICReg: their losses by definition."""

import copy
import math
from typing import Any, cast

import pytest
import torch
from lightly.loss import VICRegLoss
from torch import Tensor, nn

from sslticket.data.augment import View
from sslticket.data.loader import Batch
from sslticket.errors import BadInput
from sslticket.objectives.barlowtwins import BarlowTwins
from sslticket.objectives.base import Objective
from sslticket.objectives.vicreg import VICReg
from sslticket.pruning import pruned_model
from sslticket.training.network import MaskedNetwork

BOTH = [BarlowTwins(hidden=12, dim=6, redundancy=0.1), VICReg(hidden=12, dim=6)]
IDS = ["barlowtwins", "vicreg"]


class Embeddings(nn.Module):
    """Views of shape (B, D, 1, 1) are the projections themselves."""

    def __init__(self, objective: Objective) -> None:
        super().__init__()
        self.backbone = nn.Flatten()
        self.heads = objective.heads(self.backbone, 4, 10)
        cast(Any, self.heads).projection = nn.Identity()


def batch(count: int, step: int = 0, shape: tuple[int, int, int] = (1, 8, 8)) -> Batch:
    generator = torch.Generator().manual_seed(step)
    views = tuple(torch.randn(count, *shape, generator=generator) for _ in range(2))
    return Batch(views, torch.full((count,), -1), torch.arange(count))


def build(objective: Objective, model: str = "conv3", seed: int = 0) -> MaskedNetwork:
    return MaskedNetwork.build(model, objective, channels=1, image_size=8, classes=10, seed=seed)


def train(net: nn.Module, start: int, stop: int) -> list[Tensor]:
    """Plain SGD; the loss of every step."""
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    losses = []
    for step in range(start, stop):
        optimizer.zero_grad()
        (loss,) = net(batch(8, step), step / 10).values()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return losses


def embedded(data: Batch) -> list[list[list[float]]]:
    return [view.flatten(1).double().tolist() for view in data.views]


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def test_barlow_twins_brings_the_cross_correlation_to_the_identity() -> None:
    data, dims = batch(7, shape=(3, 1, 1)), range(3)
    columns = []
    for view in embedded(data):
        standard = []
        for column in zip(*view, strict=True):
            centre = mean(list(column))
            spread = math.sqrt(mean([(value - centre) ** 2 for value in column]) + 1e-5)
            standard.append([(value - centre) / spread for value in column])
        columns.append(standard)
    correlation = [
        [mean([a * b for a, b in zip(columns[0][i], columns[1][j], strict=True)]) for j in dims] for i in dims
    ]
    on = sum((1 - correlation[i][i]) ** 2 for i in dims)
    off = sum(correlation[i][j] ** 2 for i in dims for j in dims if i != j)
    objective = BarlowTwins(dim=3, redundancy=0.3)
    (loss,) = objective.loss(Embeddings(objective), data, 0.0).values()
    assert loss.item() == pytest.approx(on + 0.3 * off, rel=1e-5)


def test_vicreg_weighs_invariance_variance_and_covariance() -> None:
    data, count, dims = batch(6, shape=(4, 1, 1)), 6, range(4)
    scaled = data._replace(views=tuple(0.5 * view for view in data.views))  # so that some deviations are below 1
    one, other = embedded(scaled)
    invariance = mean([(a - b) ** 2 for x, y in zip(one, other, strict=True) for a, b in zip(x, y, strict=True)])
    variance, covariance = 0.0, 0.0
    for view in (one, other):
        centred = [[value - mean(list(column)) for value in column] for column in zip(*view, strict=True)]
        matrix = [
            [sum(a * b for a, b in zip(centred[i], centred[j], strict=True)) / (count - 1) for j in dims] for i in dims
        ]
        variance += mean([max(0.0, 1 - math.sqrt(matrix[i][i] + 1e-4)) for i in dims]) / 2
        covariance += sum(matrix[i][j] ** 2 for i in dims for j in dims if i != j) / 4
    assert min(invariance, variance, covariance) > 0.01, "each term must count"
    objective = VICReg(dim=4, invariance=3.0, variance=5.0, covariance=7.0)
    (loss,) = objective.loss(Embeddings(objective), scaled, 0.0).values()
    assert loss.item() == pytest.approx(3 * invariance + 5 * variance + 7 * covariance, rel=1e-5)


@pytest.mark.parametrize("dim", [2, 9, 48])
def test_vicreg_is_lightlys_to_the_bit_in_value_and_gradient(dim: int) -> None:
    ours = [view.requires_grad_() for view in batch(20, shape=(dim, 1, 1)).views]
    theirs = [one.detach().clone().requires_grad_() for one in ours]
    objective = VICReg(dim=dim, invariance=3.0, variance=5.0, covariance=7.0)
    data = Batch(tuple(ours), torch.zeros(20), torch.arange(20))
    (loss,) = objective.loss(Embeddings(objective), data, 0.0).values()
    expected = VICRegLoss(3.0, 5.0, 7.0, eps=1e-4)(*(one.flatten(1) for one in theirs))
    loss.backward(), expected.backward()
    assert torch.equal(loss, expected)
    assert all(torch.equal(one.grad, other.grad) for one, other in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("objective", BOTH, ids=IDS)
def test_a_constant_embedding_has_the_collapsed_loss(objective: Objective) -> None:
    collapsed = objective.collapsed_loss(8)
    assert collapsed is not None
    for constant in (torch.ones(8, 6, 1, 1), torch.randn(6, 1, 1).expand(8, 6, 1, 1)):
        data = Batch((constant,) * 2, torch.zeros(8), torch.arange(8))
        (loss,) = objective.loss(Embeddings(objective), data, 0.0).values()
        assert loss.item() == pytest.approx(collapsed, rel=1e-5)
    (loss,) = objective.loss(Embeddings(objective), batch(8, shape=(6, 1, 1)), 0.0).values()
    assert abs(loss.item() - collapsed) > 0.1


@pytest.mark.parametrize("objective", BOTH, ids=IDS)
def test_metrics_are_per_image_and_change_nothing(objective: Objective) -> None:
    net = build(objective)
    train(net, 0, 2)
    net.eval()
    before = copy.deepcopy(dict(net.named_buffers()) | net.state_dict())
    with torch.no_grad():
        metrics = objective.metrics(net, batch(5, 9))
    assert {value.shape for value in metrics.values()} == {(5,)}
    for name, value in (dict(net.named_buffers()) | net.state_dict()).items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("objective", BOTH, ids=IDS)
def test_every_parameter_gets_a_gradient_and_a_written_net_goes_on_alike(objective: Objective) -> None:
    first, second = build(objective), build(objective, seed=1)
    (loss,) = first(batch(6), 0.0).values()
    loss.backward()
    assert all(parameter.grad is not None for parameter in first.parameters())
    train(first, 0, 3)
    pruned_model.write_state(second, pruned_model.read_state(first))
    for one, other in zip(train(first, 3, 6), train(second, 3, 6), strict=True):
        assert torch.equal(one, other)


def test_one_image_is_refused() -> None:
    with pytest.raises(BadInput, match="barlowtwins must get at least 2 images at a time, got 1"):
        BarlowTwins().check(1, 2)
    with pytest.raises(BadInput, match="vicreg must get at least 2 images at a time"):
        VICReg().check(1, 2)
    BarlowTwins().check(2, 2), VICReg().check(2, 2)


def test_the_published_views() -> None:
    standard = View(size=224, crop="resized", flip=True)
    one, other = BarlowTwins().views(standard)
    assert [(type(effect).__name__, effect.probability) for effect in one.transforms] == [
        ("Jitter", 0.8),
        ("Grayscale", 0.2),
        ("Blur", 1.0),
    ]
    assert [(type(effect).__name__, effect.probability) for effect in other.transforms] == [
        ("Jitter", 0.8),
        ("Grayscale", 0.2),
        ("Blur", 0.1),
        ("Solarize", 0.2),
    ]
    one, other = VICReg().views(standard)
    assert one == other
    assert [effect.probability for effect in one.transforms] == [0.8, 0.2, 0.5, 0.1]
