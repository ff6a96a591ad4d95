"""Sparse layers: the same outputs and gradients as dense kernels, of kept weights only, and nothing else changed."""

import copy
import pickle
import sys
import warnings

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

from sslticket import models
from sslticket.pruning import pruned_model, sparse_layers
from sslticket.pruning.mask import Mask
from sslticket.pruning.prunable import prunable_weights


def masked(net: nn.Module, density: float, dtype: torch.dtype = torch.float64) -> tuple[nn.Module, Mask]:
    """The network with a random mask on its prunable weights, 0 where they are pruned."""
    torch.manual_seed(0)
    net.to(dtype)
    weights = dict(net.named_parameters())
    masks = {name: torch.rand(weights[name].shape) < density for name in prunable_weights(net)}
    with torch.no_grad():
        for name, mask in masks.items():
            weights[name].mul_(mask)
    return net, Mask(masks)


def passes(net: nn.Module, x: Tensor) -> list[Tensor]:
    """Output, input's gradient and parameters' gradients of a loss whose gradient is random."""
    x = x.clone(memory_format=torch.preserve_format).requires_grad_()
    net.zero_grad()
    y = net(x)
    weight = torch.randn(y.shape, dtype=y.dtype, generator=torch.Generator().manual_seed(1))
    (y * weight).sum().backward()
    return [y.detach(), x.grad, *(parameter.grad for parameter in net.parameters())]


def difference(a: list[Tensor], b: list[Tensor]) -> float:
    """The largest difference, as a fraction of the largest value of its tensor."""
    return max(float((one - other).abs().max() / one.abs().max().clamp(min=1)) for one, other in zip(a, b, strict=True))


def zero_where_pruned(gradients: list[Tensor], net: nn.Module, masks: Mask) -> list[Tensor]:
    named = dict(zip((name for name, _ in net.named_parameters()), gradients[2:], strict=True))
    return gradients[:2] + [named[name] * masks[name] if name in masks else named[name] for name in named]


LAYERS = {
    "3x3": (nn.Conv2d(5, 8, 3, padding=1), (20, 5, 8, 8)),
    "stride 2": (nn.Conv2d(5, 8, 3, 2, padding=1, bias=False), (20, 5, 8, 8)),
    "1x1 of stride 2": (nn.Conv2d(5, 8, 1, 2), (3, 5, 8, 8)),
    "7x7 of stride 2": (nn.Conv2d(3, 4, 7, 2, padding=3), (2, 3, 20, 20)),
    "of 2 pixels": (nn.Conv2d(17, 16, 3, padding=1), (70, 17, 2, 2)),
    "of one channel": (nn.Conv2d(1, 6, 3, padding=1), (9, 1, 8, 8)),
    "dilated": (nn.Conv2d(3, 6, 5, padding=2, dilation=2), (9, 3, 14, 14)),
    "not square": (nn.Conv2d(3, 6, (3, 1), padding=(2, 0)), (9, 3, 14, 10)),
    "without border": (nn.Conv2d(3, 6, 3), (9, 3, 15, 13)),
    "linear": (nn.Linear(30, 20), (60, 30)),
    "linear of tokens": (nn.Linear(3, 20, bias=False), (6, 2, 3)),
}


@pytest.mark.parametrize("nhwc", [False, True], ids=["nchw", "nhwc"])
@pytest.mark.parametrize("kind", LAYERS)
def test_a_sparse_layer_is_the_dense_one_in_float64(kind: str, nhwc: bool) -> None:
    layer, shape = LAYERS[kind]
    net, masks = masked(nn.Sequential(copy.deepcopy(layer)), 0.3)
    x = torch.randn(shape, dtype=torch.float64)
    if nhwc:
        net = net.to(memory_format=torch.channels_last)
        x = x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x
    dense = zero_where_pruned(passes(net, x), net, masks)
    names = sparse_layers.sparse_candidates(net, masks)
    assert names == ["0.weight"]
    sparse_layers.use_sparse_layers(net, masks, names)
    assert "SparseProduct" in str(net(x).grad_fn)
    found = passes(net, x)
    assert difference(dense, found) < 1e-12
    assert [value.stride() for value in found[:2]] == [value.stride() for value in dense[:2]]
    assert not found[2][~masks["0.weight"]].any()


@pytest.mark.parametrize("name", ["resnet20", "conv6", "lenet300"])
def test_a_sparse_network_is_the_dense_one_in_float64(name: str) -> None:
    torch.manual_seed(0)
    net, masks = masked(models.create_model(name, image_size=16), 0.1)
    x = torch.randn(12, 3, 16, 16, dtype=torch.float64)
    dense = zero_where_pruned(passes(net, x), net, masks)
    names = sparse_layers.sparse_candidates(net, masks)
    assert names == list(masks)
    sparse_layers.use_sparse_layers(net, masks, names)
    assert sparse_layers.sparse_layers(net) == names
    assert difference(dense, passes(net, x)) < 1e-12


def test_the_layers_are_the_networks_own_again_when_it_ends() -> None:
    net, masks = masked(models.create_model("conv3", channels=1, image_size=8), 0.2, torch.float32)
    x = torch.randn(5, 1, 8, 8)
    before = passes(net, x)
    keys, parameters = list(net.state_dict()), list(net.parameters())
    sparse_layers.use_sparse_layers(net, masks, masks)
    assert list(net.state_dict()) == keys
    assert all(one is other for one, other in zip(net.parameters(), parameters, strict=True))
    twice = [passes(net, x) for _ in range(2)]
    assert all(torch.equal(one, other) for one, other in zip(*twice, strict=True))
    sparse_layers.stop_sparse_layers(net)
    assert sparse_layers.sparse_layers(net) == []
    assert all(torch.equal(one, other) for one, other in zip(passes(net, x), before, strict=True))


def test_gradients_of_micro_batches_add_up() -> None:
    net, masks = masked(nn.Sequential(nn.Conv2d(4, 6, 3, padding=1)), 0.3)
    x = torch.randn(8, 4, 6, 6, dtype=torch.float64)
    sparse_layers.use_sparse_layers(net, masks, masks)
    whole = passes(net, x)[2:]
    net.zero_grad()
    weight = torch.randn(8, 6, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for part, factor in zip(x.chunk(4), weight.chunk(4), strict=True):
        (net(part) * factor).sum().backward()
    assert difference(whole, [parameter.grad for parameter in net.parameters()]) < 1e-12


def test_a_copy_of_a_sparse_network_has_weights_of_its_own() -> None:
    net, masks = masked(nn.Sequential(nn.Linear(6, 5)), 0.5)
    sparse_layers.use_sparse_layers(net, masks, masks)
    other = copy.deepcopy(net)
    with torch.no_grad():
        other[0].weight.zero_()
        other[0].bias.zero_()
    x = torch.randn(4, 6, dtype=torch.float64)
    assert not other(x).any()
    assert net(x).abs().sum() > 0


def test_copies_and_their_original_do_not_touch_each_others_memory() -> None:
    net, masks = masked(nn.Sequential(nn.Conv2d(4, 6, 3, padding=1, bias=False)), 0.3)
    sparse_layers.use_sparse_layers(net, masks, masks)
    x = torch.randn(5, 4, 6, 6, dtype=torch.float64, requires_grad=True)
    y = net(x).sum()
    expected = torch.autograd.grad(y, x, retain_graph=True)[0]
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        with torch.no_grad():
            other[0].weight.mul_(2)
        assert torch.equal(2 * net(x), other(x))
        assert torch.equal(torch.autograd.grad(y, x, retain_graph=True)[0], expected)


def test_derivatives_that_are_asked_for_alone_are_no_part_of_the_weights_gradients() -> None:
    """As adversarial training, saliency and gradient penalties of users' objectives ask for them."""
    net, masks = masked(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Flatten(), nn.Linear(64, 5)), 0.3)
    x = torch.randn(6, 3, 4, 4, dtype=torch.float64)

    def found(*, second: bool) -> list[Tensor]:
        net.zero_grad()
        given = x.clone().requires_grad_()
        value = net(given).square().sum()
        (slope,) = torch.autograd.grad(value, given, create_graph=second, retain_graph=True)
        (own,) = torch.autograd.grad(value, net[0].weight, create_graph=second, retain_graph=True)
        own = own * masks["0.weight"]
        loss = slope.square().sum() + own.square().sum() if second else net(x + 0.1 * slope.sign()).sum()
        loss.backward()
        gradients = [each.grad for each in net.parameters() if each.grad is not None]
        return zero_where_pruned([slope.detach(), own.detach(), *gradients], net, masks)

    for second in (False, True):
        dense = found(second=second)
        sparse_layers.use_sparse_layers(net, masks, masks)
        assert difference(dense, found(second=second)) < 1e-12
        sparse_layers.stop_sparse_layers(net)


class Standardised(nn.Conv2d):
    """A convolution that does otherwise where torch lets it."""

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return super()._conv_forward(x, weight - weight.mean(), bias)


def test_layers_that_do_otherwise_are_left_alone() -> None:
    net, masks = masked(nn.Sequential(Standardised(4, 4, 3), nn.Linear(6, 5), nn.Linear(6, 5)), 0.2)
    net[1].forward = lambda x: x
    assert sparse_layers.sparse_candidates(net, masks) == ["2.weight"]


class ByKeyword(nn.Module):
    """A network that names what it gives a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(300, 200)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(input=x)


def test_a_layer_whose_input_is_named_is_left_out_of_the_trial_and_computes() -> None:
    net, masks = masked(ByKeyword(), 0.1, torch.float32)
    x = torch.randn(4, 300)
    assert sparse_layers.faster_sparse_layers(net, masks, x) == []
    dense = net(x)
    sparse_layers.use_sparse_layers(net, masks, masks)
    torch.testing.assert_close(net(x), dense)


def test_under_autocast_a_sparse_layer_computes_in_float32() -> None:
    net, masks = masked(nn.Sequential(nn.Linear(40, 30)), 0.2, torch.float32)
    x = torch.randn(9, 40)
    with torch.autocast("cpu", torch.bfloat16):
        dense = net(x)
        sparse_layers.use_sparse_layers(net, masks, masks)
        found = net(x.bfloat16())
    assert (dense.dtype, found.dtype) == (torch.bfloat16, torch.float32)
    assert torch.allclose(found, dense.float(), atol=0.02)
    found.sum().backward()
    assert net[0].weight.grad.dtype is torch.float32


def test_what_kernels_cannot_do_stays_dense() -> None:
    layers = nn.Sequential(
        nn.Conv2d(4, 4, 3, groups=2), nn.Conv2d(4, 4, 3, padding="same"), nn.Conv2d(4, 4, 3, padding_mode="reflect"),
        nn.Conv2d(4, 4, 3, stride=3), nn.Conv2d(32, 4, 1), nn.Linear(4, 4),
    )  # fmt: skip
    net, masks = masked(layers, 0.9)
    assert sparse_layers.sparse_candidates(net, masks) == []
    net, masks = masked(nn.Sequential(nn.Conv2d(2, 3, 3, 2, padding=1)), 0.3)
    sparse_layers.use_sparse_layers(net, masks, masks)
    odd = torch.randn(2, 2, 7, 7, dtype=torch.float64)  # an odd side at stride 2: the layer's own forward
    assert torch.equal(net(odd), F.conv2d(odd, net[0].weight, net[0].bias, 2, 1))


def test_without_numba_layers_stay_dense_and_one_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    net, masks = masked(nn.Sequential(nn.Linear(6, 5)), 0.1)
    monkeypatch.setitem(sys.modules, "sslticket.pruning.sparse_kernels", None)
    sparse_layers.kernels.cache_clear()
    sparse_layers.can_compute.cache_clear()
    try:
        with pytest.warns(UserWarning, match="layers stay dense, since numba cannot be used"):
            assert sparse_layers.sparse_candidates(net, masks) == []
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert sparse_layers.sparse_candidates(net, masks) == []
        sparse_layers.use_sparse_layers(net, masks, masks)  # as a run that was begun elsewhere has it
        x = torch.randn(4, 6, dtype=torch.float64)
        assert torch.equal(net(x), F.linear(x, net[0].weight, net[0].bias))
    finally:
        sparse_layers.kernels.cache_clear()
        sparse_layers.can_compute.cache_clear()


def test_kernels_that_cannot_be_compiled_are_known_before_a_layer_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    net, masks = masked(nn.Sequential(nn.Linear(6, 5)), 0.1, torch.float32)

    def fail(*_: object) -> None:
        raise OSError("no space\nleft on device")

    monkeypatch.setattr(sparse_layers.kernels(), "forward", fail)
    sparse_layers.can_compute.cache_clear()
    try:
        with pytest.warns(UserWarning, match="layers stay dense, since numba cannot be used: no space left on device"):
            assert sparse_layers.faster_sparse_layers(net, masks, torch.randn(4, 6)) == []
    finally:
        sparse_layers.can_compute.cache_clear()


@pytest.mark.parametrize("name", [None, "generic"])
def test_code_is_not_kept_under_a_name_that_machines_with_other_vectors_share(
    name: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = sparse_layers.kernels()
    monkeypatch.setattr(compiled.numba.config, "CPU_NAME", name)
    monkeypatch.setattr(compiled.numba.config, "CPU_FEATURES", None)
    kept = compiled._compiled(compiled.sgd_step.py_func)._cache
    assert (type(kept).__name__ == "NullCache") == (name is not None)


def test_the_trial_leaves_the_network_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    net, masks = masked(models.create_model("conv3", channels=1, image_size=8), 0.2, torch.float32)
    net.train()
    before = copy.deepcopy(net.state_dict())
    images = torch.randn(6, 1, 8, 8)
    state = torch.get_rng_state()
    clock = iter(range(10**6))
    # A clock of whole seconds that the sparse forward does not read: each layer takes as long either way.
    monkeypatch.setattr(sparse_layers, "process_time", lambda: next(clock))
    assert sparse_layers.faster_sparse_layers(net, masks, images) == []
    monkeypatch.setattr(sparse_layers, "MIN_GAIN", 0.5)
    assert sparse_layers.faster_sparse_layers(net, masks, images) == list(masks)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in net.parameters())
    assert sparse_layers.sparse_layers(net) == []


def trained_mask(*, sparse: bool = False, backwards: bool = False, dtype: torch.dtype = torch.float32) -> Mask:
    """The mask that magnitude keeps after a short training on digits under another."""
    torch.manual_seed(3)
    net, masks = masked(models.create_model("conv3", channels=1, image_size=8), 0.5, torch.float32)
    head = nn.Linear(32, 10)
    net, head = net.to(dtype), head.to(dtype)
    if sparse:
        sparse_layers.use_sparse_layers(net, masks, masks)
    digits = load_digits()
    x, y = torch.tensor(digits.images, dtype=dtype)[:, None] / 16, torch.tensor(digits.target)
    weights = dict(net.named_parameters())
    steps = torch.optim.SGD([*net.parameters(), *head.parameters()], lr=0.1, momentum=0.9)
    for step in range(60):
        part = torch.arange(step * 32 % 1600, step * 32 % 1600 + 32)
        part = part.flip(0) if backwards else part
        steps.zero_grad()
        F.cross_entropy(head(net(x[part])), y[part]).backward()
        for name, mask in masks.items():
            weights[name].grad.mul_(mask)
        steps.step()
    scores = {name: weights[name].detach().abs() for name in masks}
    return Mask.top(scores, keep=masks.survivors // 2, within=masks)


def overlap(a: Mask, b: Mask) -> float:
    return sum(int((a[name] & b[name]).sum()) for name in a) / a.survivors


def test_masks_of_a_float32_training_overlap_as_those_of_two_orders_of_sums_do() -> None:
    exact, dense, sparse = trained_mask(dtype=torch.float64), trained_mask(), trained_mask(sparse=True)
    backwards = trained_mask(backwards=True)  # the same images, summed in another order
    assert overlap(dense, sparse) >= overlap(dense, backwards) - 0.02
    assert overlap(exact, sparse) >= min(overlap(exact, dense), overlap(exact, backwards))


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_steps_of_kept_weights_are_those_of_sgd(momentum: float, nesterov: bool) -> None:
    weights = []
    for sparse in (False, True):
        torch.manual_seed(0)
        net, masks = masked(nn.Sequential(nn.Conv2d(4, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 5, 3)), 0.3)
        settings = {"lr": 0.1, "momentum": momentum, "weight_decay": 0.01, "nesterov": nesterov and momentum > 0}
        optimizer = torch.optim.SGD(net.parameters(), **settings, fused=True)
        if sparse:
            sparse_layers.use_sparse_layers(net, masks, masks)
        named = dict(net.named_parameters())
        for number in range(4):
            optimizer.zero_grad()
            x = torch.randn(3, 4, 7, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(number))
            net(x).square().mean().backward()
            for name, mask in masks.items():
                if not pruned_model.is_masked_gradient(named[name]):
                    assert not sparse
                    named[name].grad.mul_(mask)
            sparse_layers.step_kept_weights(sparse_layers.layers_in_use(net), optimizer)
            assert (named["0.weight"].grad is None) == sparse
            optimizer.step()
        state = optimizer.state_dict()
        assert sorted(state["state"]) == ([0, 1, 2, 3] if momentum else [])
        weights.append(
            [*net.parameters(), *(state["state"][number]["momentum_buffer"] for number in sorted(state["state"]))]
        )
    assert difference(*([value.detach() for value in each] for each in weights)) < 1e-12


def test_weights_that_the_optimiser_has_not_stay_and_hooks_of_steps_see_gradients() -> None:
    net, masks = masked(nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 4)), 0.5)
    sparse_layers.use_sparse_layers(net, masks, masks)
    first, second = net[0].weight, net[1].weight
    before = first.detach().clone()
    optimizer = torch.optim.SGD([second], lr=1.0)
    net(torch.randn(4, 6, dtype=torch.float64)).sum().backward()
    gradient = second.grad
    assert list(sparse_layers.step_kept_weights(sparse_layers.layers_in_use(net), optimizer).items()) == [
        (second, gradient)
    ]
    assert torch.equal(first, before)
    second.grad = gradient
    optimizer.register_step_pre_hook(lambda *_: None)
    assert sparse_layers.step_kept_weights(sparse_layers.layers_in_use(net), optimizer) == {}


def test_a_gradient_that_others_wrote_to_is_masked_and_left_to_the_optimiser() -> None:
    net, masks = masked(nn.Sequential(nn.Linear(6, 5)), 0.3)
    weight = net[0].weight
    sparse_layers.use_sparse_layers(net, masks, masks)
    x = torch.randn(4, 6, dtype=torch.float64)
    net(x).sum().backward()
    expected = weight.grad.clone()
    assert pruned_model.is_masked_gradient(weight)
    weight.grad.add_(1)
    assert not pruned_model.is_masked_gradient(weight)
    sparse_layers.step_kept_weights(sparse_layers.layers_in_use(net), torch.optim.SGD(net.parameters(), lr=1.0))
    assert weight.grad is not None
    weight.grad = None
    net(x).sum().backward()  # into the same memory, of which nothing is left
    assert torch.equal(weight.grad, expected)
