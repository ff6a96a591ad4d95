"""Images innermost: sparse layers and batch norm hand batches on in one layout, and compute what torch's own do."""

import copy
from collections.abc import Callable

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from sslticket.models.paper_networks import BasicBlock, ResNet
from sslticket.pruning import sparse_layers
from sslticket.pruning.innermost import is_innermost, to_innermost, use_innermost_norms
from sslticket.pruning.mask import Mask
from sslticket.pruning.prunable import prunable_weights


def narrow() -> nn.Module:
    torch.manual_seed(0)
    return ResNet(1, BasicBlock, (1, 1), (4, 8), small_images=True).double()


def digits(count: int) -> Tensor:
    return torch.tensor(load_digits().images[:count, None]) / 16


def pair(density: float) -> tuple[nn.Module, nn.Module, Mask]:
    """A network under a random mask, and the same with images innermost."""
    net = narrow()
    weights = dict(net.named_parameters())
    masks = Mask({name: torch.rand(weights[name].shape) < density for name in prunable_weights(net)})
    with torch.no_grad():
        for name, mask in masks.items():
            weights[name].mul_(mask)
    other = copy.deepcopy(net)
    sparse_layers.use_sparse_layers(other, masks, masks, images_innermost=True)
    return net, other, masks


def passes(net: nn.Module, x: Tensor, masks: Mask) -> dict[str, Tensor]:
    """Output, gradients of input and of kept weights, and buffers after a pass."""
    x = x.clone().requires_grad_()
    y = net(x)
    (y * torch.randn(y.shape, dtype=y.dtype, generator=torch.Generator().manual_seed(1))).sum().backward()
    gradients = {name: parameter.grad * masks.get(name, 1) for name, parameter in net.named_parameters()}
    return {"output": y.detach(), "input": x.grad, **gradients, **dict(net.named_buffers())}


@pytest.mark.parametrize("count", [16, 24, 64, 20, 300], ids=lambda count: f"{count} images")
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_a_network_with_images_innermost_is_the_dense_one_in_float64(training: bool, count: int) -> None:
    net, other, masks = pair(0.6)
    seen: list[bool] = []
    other.layer2.register_forward_hook(lambda _, given, output: seen.extend(map(is_innermost, (*given, output))))
    expected = passes(net.train(training), digits(count), masks)
    found = passes(other.train(training), digits(count), masks)
    for name, value in expected.items():
        assert (value - found[name]).abs().max() < 1e-12 * max(1.0, float(value.abs().max())), name
    # Whole vectors of images, as many as stay in registers; a last batch, or a large one, goes on as before.
    assert seen == [count not in (20, 300)] * 2


def test_layouts_of_others_in_between_change_nothing() -> None:
    net, other, masks = pair(0.6)
    for each in (net, other):
        each.layer1.append(nn.Sequential(nn.MaxPool2d(3, 1, 1), nn.Conv2d(4, 4, 1, groups=2).double()))
        each.layer1[-1][1].load_state_dict(net.layer1[-1][1].state_dict())
    expected, found = (passes(each, digits(32), masks) for each in (net, other))
    for name, value in expected.items():
        assert (value - found[name]).abs().max() < 1e-12 * max(1.0, float(value.abs().max())), name


def test_no_layer_keeps_the_layout_when_it_ends() -> None:
    net, other, _ = pair(0.6)
    names = list(other.state_dict())
    sparse_layers.stop_sparse_layers(other)
    assert list(other.state_dict()) == names
    assert not any("forward" in vars(module) for module in other.modules())
    assert torch.equal(net(digits(32)), other(digits(32)))


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_second_derivatives_are_those_of_torch(training: bool) -> None:
    def curvature(norm: nn.Module, x: Tensor) -> list[Tensor]:
        slope = torch.autograd.grad(norm(x).pow(3).sum(), [x, norm.weight], create_graph=True)
        return list(torch.autograd.grad(sum(each.pow(2).sum() for each in slope), [x, norm.weight, norm.bias]))

    torch.manual_seed(0)
    net = nn.Sequential(nn.BatchNorm2d(3)).double().train(training)
    net[0].running_mean.uniform_(), net[0].running_var.uniform_(0.5, 2)
    other = copy.deepcopy(net)
    use_innermost_norms(other)
    x = torch.randn(8, 3, 4, 4, dtype=torch.float64)
    innermost = to_innermost(x).requires_grad_()
    assert "Norm" in type(other[0](innermost).grad_fn).__name__
    for one, two in zip(curvature(net[0], x.requires_grad_()), curvature(other[0], innermost), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "change",
    [lambda norm: setattr(norm, "momentum", None), lambda norm: setattr(norm, "running_mean", None), nn.Module.float],
    ids=["cumulative statistics", "no statistics", "other numbers"],
)
def test_what_a_norm_does_otherwise_is_its_own(change: Callable[[nn.Module], object]) -> None:
    net = nn.Sequential(nn.BatchNorm2d(3)).double()
    change(net[0])
    net[0].running_var = net[0].running_var if net[0].running_mean is not None else None
    other = copy.deepcopy(net)
    use_innermost_norms(other)
    x = torch.randn(8, 3, 4, 4, dtype=net[0].weight.dtype)
    assert torch.equal(net(x), other(x))
    torch.testing.assert_close(net(x), other(to_innermost(x)))
