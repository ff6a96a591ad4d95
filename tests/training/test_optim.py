"""Optimisers, against their definitions by hand."""

import pytest
import torch
from torch import nn

from sslticket.fit import LARS, Adam, RMSprop
from sslticket.training.optim import optimizer


def moved(spec: LARS | RMSprop | Adam, weight: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    parameter = nn.Parameter(weight.clone())
    frozen = nn.Parameter(weight.clone(), requires_grad=False)
    chosen = optimizer(spec, [parameter, frozen])
    parameter.grad = gradient.clone()
    chosen.step()
    assert torch.equal(frozen, weight)
    return parameter.detach()


def test_lars_scales_weights_by_their_norms_and_leaves_biases_alone() -> None:
    spec = LARS(lr=0.5, momentum=0.0, weight_decay=0.1, trust=0.02)
    weight, gradient = torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, 2.0]])
    rate = 0.5 * 0.02 * 5 / (2 + 0.1 * 5)
    torch.testing.assert_close(moved(spec, weight, gradient), weight - rate * (gradient + 0.1 * weight))
    bias = weight[0]
    chosen = optimizer(spec, [nn.Parameter(weight), parameter := nn.Parameter(bias.clone())])
    parameter.grad = gradient[0].clone()
    chosen.step()
    torch.testing.assert_close(parameter.detach(), bias - 0.5 * gradient[0])


def test_biases_may_have_a_share_of_the_rate_under_lars() -> None:
    groups = optimizer(LARS(lr=1.6, bias_lr=0.0384), [nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2))])
    assert [group.get("share", 1.0) for group in groups.param_groups] == pytest.approx([1.0, 0.024])


def test_rmsprop_divides_by_the_running_root() -> None:
    weight, gradient = torch.tensor([1.0, -2.0]), torch.tensor([0.5, 3.0])
    expected = weight - 0.01 * gradient / (0.1 * gradient**2).sqrt()
    got = moved(RMSprop(lr=0.01, alpha=0.9), weight, gradient)
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-6)


def test_a_pruned_weight_stays_where_it_is_under_lars() -> None:
    weight, gradient = torch.tensor([[0.0, 4.0]]), torch.tensor([[0.0, 2.0]])
    assert moved(LARS(lr=0.5), weight, gradient)[0, 0] == pytest.approx(0.0, abs=0)
