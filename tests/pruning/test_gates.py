"""Gates that learn their masks: values, gradients and what evaluation shows."""

import copy
import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from sslticket.errors import BadInput
from sslticket.pruning import pruned_model
from sslticket.pruning.gates import LearnedGate, SoftGate, StochasticGate, TopKGate
from sslticket.pruning.mask import Mask
from sslticket.pruning.prunable import prunable_weights

soft = partial(SoftGate, initial=0.3, final_temperature=100.0, stairs=None, divided=False)
KINDS: dict[str, Callable[[Tensor], LearnedGate]] = {
    "soft": soft,
    "divided": partial(SoftGate, initial=0.3, final_temperature=100.0, stairs=None, divided=True),
    "stochastic": partial(StochasticGate, initial=0.3),
    "topk": partial(TopKGate, density=0.4),
}


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def filled(make: Callable[[Tensor], LearnedGate], scores: list[float]) -> LearnedGate:
    """A gate of one row of weights, in double precision."""
    one = make(torch.zeros(1, len(scores), dtype=torch.float64))
    with torch.no_grad():
        one.score.copy_(torch.tensor(scores, dtype=torch.float64))
    return one.train()


def row(*values: float) -> Tensor:
    return torch.tensor([values], dtype=torch.float64)


def network(make: Callable[[Tensor], LearnedGate]) -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3))
    pruned_model.attach_gates(net, prunable_weights(net), make)
    for one in pruned_model.learned_gates(net).values():
        nn.init.normal_(one.score)
        one.on_step(0.5, 7)
    return net


@pytest.mark.parametrize("divided", [False, True])
def test_a_soft_mask_and_its_gradients_are_those_of_the_formula(divided: bool) -> None:
    make = partial(SoftGate, initial=0.3, final_temperature=100.0, stairs=None, divided=divided)
    scores, weights, inflow = [0.4, -0.2, 0.0], [1.5, -2.0, 0.5], [0.7, 0.1, -3.0]
    one, weight = filled(make, scores), row(*weights).requires_grad_()
    one.on_step(0.25, 0)
    beta, scale = 100**0.25, 1 / sigmoid(0.3) if divided else 1.0
    out = one(weight)
    ((out * row(*inflow)).sum() + 0.01 * one.penalty()).backward()
    for number, (s, w, g) in enumerate(zip(scores, weights, inflow, strict=True)):
        m = sigmoid(beta * s)
        assert out[0, number].item() == pytest.approx(scale * m * w, abs=1e-12)
        assert weight.grad is not None
        assert one.score.grad is not None
        assert weight.grad[0, number].item() == pytest.approx(scale * m * g, abs=1e-12)
        assert one.score.grad[0, number].item() == pytest.approx(scale * beta * m * (1 - m) * (g * w + 0.01), abs=1e-12)
    one.eval()
    assert one(row(*weights))[0].tolist() == pytest.approx([scale * 1.5, 0, 0]), "b(0) is 0"


def test_temperature_rises_at_every_step_or_by_the_epoch() -> None:
    one = filled(soft, [1.0])
    stairs = filled(partial(SoftGate, initial=0.0, final_temperature=100.0, stairs=5, divided=False), [1.0])
    for step in range(10):
        one.on_step(step / 10, 0)
        stairs.on_step(step / 10, 0)
        assert one.get_buffer("temperature").item() == pytest.approx(100 ** (step / 10))
        assert stairs.get_buffer("temperature").item() == pytest.approx(100 ** ((step // 2) / 4))


@pytest.mark.parametrize(("scaled", "expected"), [(True, [0.3, 0.1, -20.0]), (False, [0.3, 0.001, -0.2])])
def test_the_reset_frees_what_is_kept_and_leaves_what_is_removed(scaled: bool, expected: list[float]) -> None:
    """min(beta_T s_T, s_0) with beta_T = 100 and s_0 = 0.3, which leaves 0.001 undecided; and min(s_T, s_0)."""
    one = filled(soft, [0.5, 0.001, -0.2])
    assert isinstance(one, SoftGate)
    assert one.num_undecided == 1
    one.reset_scores(scaled=scaled)
    assert one.score[0].tolist() == pytest.approx(expected)


def test_coins_fall_with_the_probability_that_the_scores_say_and_once_a_step() -> None:
    one = filled(partial(StochasticGate, initial=1.0), [1.0] * 40_000)
    weight = torch.ones(1, 40_000, dtype=torch.float64)
    one.on_step(0.0, 1)
    first = one(weight)
    assert torch.equal(one(weight), first), "both views of a step"
    assert first.unique().tolist() == [0, 1]
    # Five standard deviations of the mean of so many coins.
    assert first.mean().item() == pytest.approx(sigmoid(1.0), abs=5 * 0.5 / 200)
    one.on_step(0.1, 2)
    assert 0.3 < (one(weight) != first).double().mean() < 0.5, "2 p (1 - p) of them"
    one.on_step(0.2, 1)
    assert torch.equal(one(weight), first), "a function of the seed"


def test_a_coin_s_gradient_goes_straight_through_to_its_probability() -> None:
    scores, weights, inflow = [1.0, -0.5, 0.2, 2.0], [1.5, -2.0, 0.5, 1.0], [0.7, 0.1, -3.0, 2.0]
    one = filled(partial(StochasticGate, initial=1.0), scores)
    one.mask[0, 3] = 0
    weight = row(*weights).requires_grad_()
    one.on_step(0.0, 3)
    drawn = one.get_buffer("step_mask")[0].tolist()
    ((one(weight) * row(*inflow)).sum() + 0.01 * one.penalty()).backward()
    slopes = [sigmoid(s) * (1 - sigmoid(s)) for s in scores]
    want = [p * (g * w + 0.01) for p, g, w in zip(slopes, inflow, weights, strict=True)]
    assert one.score.grad is not None
    assert weight.grad is not None
    assert one.score.grad[0].tolist() == pytest.approx([*want[:3], 0.0], abs=1e-12), (
        "what is pruned for good learns nothing"
    )
    assert weight.grad[0].tolist() == pytest.approx([m * g for m, g in zip(drawn, inflow, strict=True)])
    assert drawn[3] == 0
    assert one.eval().hard_mask()[0].tolist() == [True, False, True, False]


def test_scores_that_fell_below_the_first_go_for_good() -> None:
    one = filled(partial(StochasticGate, initial=1.0), [1.0, 0.999, 3.0, 2.0])
    one.mask[0, 3] = 0
    assert isinstance(one, StochasticGate)
    assert one.surviving_entries()[0].tolist() == [True, False, True, False]


def test_exactly_so_many_of_the_largest_scores_are_kept_and_ties_go_to_the_earlier() -> None:
    one = filled(partial(TopKGate, density=0.5), [0.1, -0.9, 0.5, 0.5, -0.5, 0.2])
    assert one.hard_mask()[0].tolist() == [False, True, True, True, False, False]
    with torch.no_grad():
        one.score.fill_(-0.5)
    assert one.hard_mask()[0].tolist() == [True] * 3 + [False] * 3
    for density, keep in ((0.001, 1), (0.34, 2), (0.99, 6)):
        assert filled(partial(TopKGate, density=density), [0.0] * 6).hard_mask().sum() == keep
    many = torch.randn(999, generator=torch.Generator().manual_seed(0)).round(decimals=1)
    one = filled(partial(TopKGate, density=0.3), many.tolist())
    best = Mask.top({"": one.score.abs()}, keep=300, within=Mask({"": torch.ones(1, 999, dtype=torch.bool)}))
    assert torch.equal(one.hard_mask(), best[""]), "as exact as the function that selects for every other search"


def test_kept_or_not_every_score_gets_the_gradient_of_its_size() -> None:
    one, weights, inflow = filled(partial(TopKGate, density=0.5), [0.1, -0.9]), [1.5, -2.0], [0.7, 0.1]
    one.on_step(0.0, 0)
    out = one(row(*weights))
    assert out[0].tolist() == [0.0, -2.0]
    (out * row(*inflow)).sum().backward()
    assert one.score.grad is not None
    assert one.score.grad[0].tolist() == pytest.approx([0.7 * 1.5, -(0.1 * -2.0)])


@pytest.mark.parametrize("kind", KINDS)
def test_evaluation_shows_the_network_that_the_mask_leaves(kind: str) -> None:
    net = network(KINDS[kind]).eval()
    plain = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)).eval()
    state, gates = pruned_model.read_state(net), pruned_model.learned_gates(net)
    plain.load_state_dict(
        {
            name: value * gates[name].hard_mask() * gates[name].scale if name in gates else value
            for name, value in state.items()
        }
    )
    images = torch.randn(5, 1, 4, 4)
    torch.testing.assert_close(net(images), plain(images), rtol=1e-5, atol=1e-6)
    assert not torch.allclose(net.train()(images), plain.train()(images)) or kind == "topk"


@pytest.mark.parametrize("kind", KINDS)
def test_a_backbone_s_state_is_its_weights_and_scores_are_kept_beside_it(kind: str) -> None:
    net, other = network(KINDS[kind]), network(KINDS[kind])
    before = {name: value.clone() for name, value in pruned_model.stored_state(net).items()}
    assert set(before) == {
        *(f"0.{part}" for part in ("weight", "bias")),
        *(f"4.{part}" for part in ("weight", "bias")),
    } | {f"1.{part}" for part in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")}
    assert all(torch.equal(pruned_model.read_state(net)[name], value) for name, value in before.items()), (
        "raw, whatever the mask"
    )
    for one in pruned_model.learned_gates(other).values():
        nn.init.normal_(one.score)
    closed = Mask(
        {
            name: torch.rand(value.shape) < 0.5
            for name, value in before.items()
            if name in pruned_model.learned_gates(net)
        }
    )
    pruned_model.set_mask(net, closed)
    pruned_model.write_state(other, pruned_model.read_state(net))
    pruned_model.write_gate_scores(other, pruned_model.gate_scores(net))
    images = torch.randn(5, 1, 4, 4)
    assert torch.equal(other.eval()(images), net.eval()(images))
    assert pruned_model.current_mask(other).equals(closed)
    assert list(pruned_model.gate_scores(net)) == [
        f"{name}.{part}" for name in ("0.weight", "4.weight") for part in ("score", "mask")
    ]
    with pytest.raises(BadInput, match="must have 0 tensors, got 4"):
        pruned_model.write_gate_scores(nn.Linear(2, 2), pruned_model.gate_scores(net))


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_pruned_for_good_stays_pruned_whatever_its_score(kind: str) -> None:
    net = network(KINDS[kind])
    closed = Mask(
        {name: torch.zeros_like(one.score, dtype=torch.bool) for name, one in pruned_model.learned_gates(net).items()}
    )
    pruned_model.set_mask(net, closed)
    for one in pruned_model.learned_gates(net).values():
        one.on_step(0.5, 0)
    images = torch.randn(5, 1, 4, 4)
    for mode in (True, False):
        net.train(mode)
        assert not net[0].weight.any()
        net(images).sum().backward()
    for one in pruned_model.learned_gates(net).values():
        assert one.score.grad is not None
        assert not one.score.grad.any()
        assert one.num_undecided == 0


def test_copies_have_scores_of_their_own() -> None:
    net = network(soft)
    twin = copy.deepcopy(net)
    with torch.no_grad():
        pruned_model.learned_gates(twin)["0.weight"].score.zero_()
    assert pruned_model.learned_gates(net)["0.weight"].score.all()


def test_a_gate_whose_hard_mask_is_of_numbers_is_refused_when_it_is_made() -> None:
    class Half(SoftGate):
        def hard_mask(self) -> Tensor:
            return torch.sigmoid(self.score)

    make = partial(Half, initial=0.3, final_temperature=100.0, stairs=None, divided=False)
    with pytest.raises(BadInput, match=r"Half.hard_mask must return a mask of torch.bool, got torch.float32; compare"):
        pruned_model.attach_gates(nn.Linear(2, 2), ["weight"], make)
