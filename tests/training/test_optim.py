"""Optimisers, against their definitions by hand."""

import copy

import pytest
import timm
import torch
from lightly.utils import lars as lightly
from timm.optim import param_groups_layer_decay
from torch import nn

from sslticket.config.training import LARS, SGD, Adam, AdamW, Optimizer, RMSprop
from sslticket.errors import BadInput
from sslticket.objectives.supervised import Supervised
from sslticket.training.network import MaskedNetwork
from sslticket.training.optim import build_network_optimizer, build_optimizer


def moved(spec: LARS | RMSprop | Adam, weight: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    parameter = nn.Parameter(weight.clone())
    frozen = nn.Parameter(weight.clone(), requires_grad=False)
    chosen = build_optimizer(spec, [parameter, frozen])
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
    chosen = build_optimizer(spec, [nn.Parameter(weight), parameter := nn.Parameter(bias.clone())])
    parameter.grad = gradient[0].clone()
    chosen.step()
    torch.testing.assert_close(parameter.detach(), bias - 0.5 * gradient[0])


def test_biases_may_have_a_share_of_the_rate_under_lars() -> None:
    groups = build_optimizer(
        LARS(lr=1.6, bias_lr=0.0384), [nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2))]
    )
    assert [group.get("lr_scale", 1.0) for group in groups.param_groups] == pytest.approx([1.0, 0.024])


def weights() -> list[nn.Parameter]:
    """Two layers with biases, a layer of zeros, and one that never gets a gradient but of zeros."""
    numbers = torch.Generator().manual_seed(0)
    shapes = [(8, 3, 3, 3), (8,), (4, 8), (4,), (5, 5), (5, 6)]
    drawn = [nn.Parameter(torch.randn(shape, generator=numbers)) for shape in shapes]
    drawn[0] = nn.Parameter(drawn[0].detach().contiguous(memory_format=torch.channels_last))
    with torch.no_grad():
        drawn[4].zero_()
    return drawn


def gradients(parameters: list[nn.Parameter], step: int) -> None:
    numbers = torch.Generator().manual_seed(step + 1)
    for parameter in parameters:
        parameter.grad = torch.randn(parameter.shape, generator=numbers)
    parameters[5].grad = torch.zeros_like(parameters[5])
    if step == 0:
        parameters[2].grad = None


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("decay", [0.0, 1e-6, 0.1])
def test_lars_is_lightlys_to_the_bit_and_keeps_the_same(momentum: float, decay: float) -> None:
    ours, theirs = weights(), weights()
    chosen = build_optimizer(LARS(lr=0.3, momentum=momentum, weight_decay=decay, trust=0.01), ours)
    flat = [parameter for parameter in theirs if parameter.dim() <= 1]
    groups = [
        {"params": [parameter for parameter in theirs if parameter.dim() > 1]},
        {"params": flat, "weight_decay": 0.0},
    ]
    reference = lightly.LARS(groups, lr=0.3, momentum=momentum, weight_decay=decay, trust_coefficient=0.01)
    for step in range(4):
        gradients(ours, step)
        gradients(theirs, step)
        chosen.step(), reference.step()
        for mine, other in zip(ours, theirs, strict=True):
            assert torch.equal(mine, other)
    kept, expected = chosen.state_dict()["state"], reference.state_dict()["state"]
    assert kept.keys() == expected.keys()
    for number, state in expected.items():
        assert kept[number].keys() == state.keys()
        assert all(torch.equal(kept[number][name], state[name]) for name in state)


def test_lars_goes_on_from_what_lightlys_had_kept() -> None:
    ours, theirs = weights(), weights()
    groups = [{"params": [theirs[0], theirs[2], theirs[4], theirs[5]]}, {"params": [theirs[1], theirs[3]]}]
    reference = lightly.LARS(groups, lr=0.3, momentum=0.9, weight_decay=0.1)
    reference.param_groups[1]["weight_decay"] = 0.0
    for step in range(2):
        gradients(theirs, step)
        reference.step()
    with torch.no_grad():
        for mine, other in zip(ours, theirs, strict=True):
            mine.copy_(other)
    chosen = build_optimizer(LARS(lr=0.3, weight_decay=0.1), ours)
    state = copy.deepcopy(reference.state_dict()["state"])
    chosen.load_state_dict({"state": state, "param_groups": chosen.state_dict()["param_groups"]})
    gradients(ours, 2)
    gradients(theirs, 2)
    chosen.step(), reference.step()
    assert all(torch.equal(mine, other) for mine, other in zip(ours, theirs, strict=True))


def test_what_lars_keeps_lies_in_memory_as_the_weights_do() -> None:
    ours = weights()
    chosen = build_optimizer(LARS(lr=0.3), ours)
    gradients(ours, 1)
    chosen.step()
    assert not ours[0].is_contiguous()
    assert all(chosen.state[one]["momentum_buffer"].stride() == one.stride() for one in ours)


def test_a_step_that_loss_scaling_skips_leaves_lars_as_it_was() -> None:
    ours = weights()
    before = [parameter.detach().clone() for parameter in ours]
    chosen = build_optimizer(LARS(lr=0.3), ours)
    scaler = torch.amp.GradScaler("cpu", init_scale=1.0)
    gradients(ours, 1)
    assert ours[1].grad is not None
    ours[1].grad[3] = torch.inf
    scaler.scale(torch.zeros(()))
    scaler.step(chosen)
    scaler.update()
    assert all(torch.equal(mine, other) for mine, other in zip(ours, before, strict=True))
    assert not chosen.state


def test_rmsprop_takes_all_tensors_at_once_to_the_bit() -> None:
    ours, theirs = weights(), weights()
    chosen = build_optimizer(RMSprop(lr=0.01, momentum=0.5, weight_decay=0.1), ours)
    reference = torch.optim.RMSprop(theirs, lr=0.01, momentum=0.5, weight_decay=0.1, foreach=False)
    for step in range(4):
        gradients(ours, step)
        gradients(theirs, step)
        chosen.step(), reference.step()
        assert all(torch.equal(mine, other) for mine, other in zip(ours, theirs, strict=True))


def test_rmsprop_divides_by_the_running_root() -> None:
    weight, gradient = torch.tensor([1.0, -2.0]), torch.tensor([0.5, 3.0])
    expected = weight - 0.01 * gradient / (0.1 * gradient**2).sqrt()
    got = moved(RMSprop(lr=0.01, alpha=0.9), weight, gradient)
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-6)


def test_a_pruned_weight_stays_where_it_is_under_lars() -> None:
    weight, gradient = torch.tensor([[0.0, 4.0]]), torch.tensor([[0.0, 2.0]])
    assert moved(LARS(lr=0.5), weight, gradient)[0, 0] == pytest.approx(0.0, abs=0)


def network(model: str = "test_vit") -> MaskedNetwork:
    return MaskedNetwork.build(model, Supervised(), channels=3, image_size=32, classes=10, seed=0)


def test_adamw_shrinks_a_weight_by_rate_times_decay_whatever_its_gradient() -> None:
    """The first step of Adam is the rate in the gradient's direction; the L2 penalty of Adam would vanish in it."""
    weight, gradient = torch.tensor([[3.0, -4.0, 2.0]]), torch.tensor([[1e-3, -50.0, 0.0]])
    expected = weight * (1 - 0.1 * 0.05) - 0.1 * gradient.sign()
    torch.testing.assert_close(moved(AdamW(lr=0.1), weight, gradient), expected, rtol=1e-4, atol=0)
    vector = moved(AdamW(lr=0.1), weight[0], gradient[0])
    torch.testing.assert_close(vector, weight[0] - 0.1 * gradient[0].sign(), rtol=1e-4, atol=0)


@pytest.mark.parametrize(
    ("spare", "spared"),
    [
        ("nothing", set()),
        ("vectors", {"bias", "norm"}),
        ("tokens", {"bias", "norm", "backbone.cls_token", "backbone.pos_embed"}),
    ],
)
def test_adamw_is_torch_s_on_what_decays_and_on_what_is_spared(spare: str, spared: set[str]) -> None:
    ours, theirs = network(), network()
    chosen = build_network_optimizer(ours, AdamW(lr=0.01, weight_decay=0.3, spare=spare))  # type: ignore[arg-type]
    plain, decayed = [], []
    for name, parameter in theirs.named_parameters():
        (plain if any(word in name for word in spared) else decayed).append(parameter)
    reference = torch.optim.AdamW(
        [{"params": decayed}, {"params": plain, "weight_decay": 0.0}], lr=0.01, weight_decay=0.3, fused=True
    )
    for step in range(3):
        numbers = torch.Generator().manual_seed(step)
        for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            one.grad = torch.randn(one.shape, generator=numbers)
            other.grad = one.grad.clone()
        chosen.step()
        reference.step()
    assert all(map(torch.equal, ours.parameters(), theirs.parameters()))


@pytest.mark.parametrize("model", ["test_vit", "test_convnext"])
@pytest.mark.parametrize("spec", [AdamW(lr=0.1), SGD(lr=0.1)], ids=["adamw", "sgd"])
def test_rates_by_layer_are_those_that_timm_gives_the_whole_network(model: str, spec: Optimizer) -> None:
    net = network(model)
    chosen = build_network_optimizer(net, spec, layer_decay=0.5)
    whole = timm.create_model(model, num_classes=10, **({"img_size": 32} if "vit" in model else {}))
    names = {id(parameter): name for name, parameter in whole.named_parameters()}
    groups = param_groups_layer_decay(whole, layer_decay=0.5)
    expected = {names[id(each)]: group["lr_scale"] for group in groups for each in group["params"]}
    ours = {id(each): group["lr_scale"] for group in chosen.param_groups for each in group["params"]}
    got = {name: ours[id(parameter)] for name, parameter in net.backbone.named_parameters()}
    heads = {name: scale for name, scale in expected.items() if name not in got}
    assert {name: scale for name, scale in expected.items() if name in got} == got
    assert set(heads.values()) == {1.0} == {ours[id(each)] for each in net.heads.parameters()}
    assert len(set(got.values())) > 3, "as many rates as layers"
    assert sum(len(group["params"]) for group in chosen.param_groups) == len(list(net.parameters()))


def test_a_network_that_does_not_know_its_layers_has_one_rate() -> None:
    with pytest.raises(BadInput, match=r"--layer-decay must .* does not; give a --model of timm") as told:
        build_network_optimizer(network("conv3"), AdamW(lr=0.1), layer_decay=0.5)
    assert "\n" not in str(told.value)


def test_the_weight_decay_moves_along_half_a_cosine() -> None:
    """DINO's official one; by hand at the ends, in the middle and at a third."""
    spec = AdamW(lr=1e-3, weight_decay=0.04, last_weight_decay=0.4)
    assert [spec.decay_at(at) for at in (0, 1 / 3, 0.5, 1)] == pytest.approx([0.04, 0.13, 0.22, 0.4])
    assert AdamW(lr=1e-3).decay_at(0.7) == 0.05
    assert spec.at_end() == AdamW(lr=1e-3, weight_decay=0.4)
    with pytest.raises(BadInput, match="--last-weight-decay must be at least 0, got -1"):
        AdamW(lr=1e-3, last_weight_decay=-1)
