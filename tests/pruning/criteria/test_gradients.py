"""SNIP and GraSP against numbers by hand and an explicit Hessian."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from sslticket.errors import BadInput
from sslticket.pruning import pruned_model
from sslticket.pruning.criteria import SNIP, GraSP
from sslticket.pruning.mask import Mask
from tests.pruning.criteria.scoring_inputs import linear, ones, subject


def test_snip_is_the_size_of_weight_times_gradient_summed_over_batches_first() -> None:
    """y = 2a - b: on (1, 3) with target 1 the error is -2, on (2, 1) with target 0 it is 3.

    Gradients of the halved squares are -2 (1, 3) and 3 (2, 1); their sum is (4, -3), not the (8, 9) of their sizes.
    """
    net = linear([[2.0, -1.0]])
    batches = [([1.0, 3.0], 1.0), ([2.0, 1.0], 0.0)]

    def losses(temperature: float) -> Iterator[Tensor]:
        for given, target in batches:
            yield (net(torch.tensor(given, dtype=torch.float64)) - target).square().sum() / 2

    scores = SNIP().scores(subject(net, losses), ["0.weight"])
    assert scores["0.weight"].tolist() == [[8.0, 3.0]]


def curved(seed: int) -> tuple[nn.Sequential, list[tuple[Tensor, Tensor]]]:
    """A network with curvature in all weights, and two batches of images and classes."""
    generator = torch.Generator().manual_seed(seed)
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3, bias=False)).double()
    for parameter in net.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    drawn = [torch.randn(5, 3, generator=generator, dtype=torch.float64) for _ in range(2)]
    return net, [(images, torch.arange(5) % 3) for images in drawn]


def loss_of(logits: Tensor, label: Tensor, temperature: float) -> Tensor:
    return nn.functional.cross_entropy(logits / temperature, label)


def explicit(
    net: nn.Sequential, batches: list[tuple[Tensor, Tensor]], temperature: float, names: list[str]
) -> tuple[Tensor, Tensor]:
    """Gradient and Hessian of the summed loss with respect to these weights, flattened, without gates."""
    stored = {name: value.clone() for name, value in pruned_model.stored_state(net).items()}
    sizes = [stored[name].numel() for name in names]

    def total(flat: Tensor) -> Tensor:
        parts = {name: part.view_as(stored[name]) for name, part in zip(names, flat.split(sizes), strict=True)}
        state = stored | parts
        hidden = [torch.tanh(images @ state["0.weight"].T + state["0.bias"]) for images, _ in batches]
        return torch.stack(
            [
                loss_of(features @ state["2.weight"].T, label, temperature)
                for features, (_, label) in zip(hidden, batches, strict=True)
            ]
        ).sum()

    flat = torch.cat([stored[name].flatten() for name in names])
    return (
        torch.autograd.functional.jacobian(total, flat),
        torch.autograd.functional.hessian(total, flat),
    )


@pytest.mark.parametrize("temperature", [200.0, 1.0])
@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "masked"])
def test_grasp_is_weight_times_hessian_times_gradient_over_the_sum_of_all(temperature: float, sparse: bool) -> None:
    net, batches = curved(0)

    def losses(by: float) -> Iterator[Tensor]:
        for images, label in batches:
            yield loss_of(net(images), label, by)

    inputs, mask = subject(net, losses), ones(net)
    if sparse:
        mask = Mask({name: torch.arange(layer.numel()).view_as(layer) % 3 > 0 for name, layer in mask.items()})
        pruned_model.set_mask(net, mask)
    names = ["0.weight", "2.weight"]
    gradient, hessian = explicit(net, batches, temperature, names)
    alive = torch.cat([mask[name].flatten() for name in names]).double()
    weights = torch.cat([pruned_model.stored_state(net)[name].flatten() for name in names])
    expected = weights * (hessian @ (gradient * alive))
    scores = GraSP(logit_temperature=temperature).scores(inputs, names)
    found = torch.cat([scores[name].flatten() for name in names])
    torch.testing.assert_close(found, expected / expected.sum().abs(), rtol=1e-9, atol=1e-12)
    assert (found < 0).any(), "else the sign would not be tested"
    assert (found > 0).any()


def test_removing_what_grasp_scores_lowest_leaves_more_gradient_than_removing_the_highest() -> None:
    net, batches = curved(1)

    def losses(by: float) -> Iterator[Tensor]:
        for images, label in batches:
            yield loss_of(net(images), label, by)

    inputs, dense = subject(net, losses), ones(net)
    start = pruned_model.read_state(net)
    scores = GraSP().scores(inputs, list(dense))
    norms = []
    for sign in (1, -1):
        pruned_model.write_state(net, start)
        mask = Mask.top({name: sign * score for name, score in scores.items()}, keep=dense.total - 3, within=dense)
        pruned_model.set_mask(net, mask)
        gradient = torch.autograd.grad(torch.stack(list(losses(200.0))).sum(), list(net.parameters()))
        norms.append(sum(float(part.square().sum()) for part in gradient))
    assert norms[0] > 1.2 * norms[1]


def test_a_weight_without_influence_has_score_0_and_pruned_ones_pass_nothing_on() -> None:
    net = linear([[1.0, 2.0], [3.0, -4.0]], [[0.0, 1.0]])
    images = torch.tensor([[1.0, 1.0], [2.0, 0.5]], dtype=torch.float64)
    inputs = subject(net, lambda temperature: iter([net(images).square().sum()]))
    scores = SNIP().scores(inputs, ["0.weight", "2.weight"])
    assert scores["0.weight"][0].tolist() == [0.0, 0.0], "the first hidden unit leads nowhere"
    assert scores["0.weight"][1].min() > 0


def test_settings_that_cannot_be_are_refused_in_one_line() -> None:
    with pytest.raises(BadInput, match="--score-images must be at least 1, got 0"):
        SNIP(score_images=0)
    with pytest.raises(BadInput, match="--logit-temperature must be above 0, got 0"):
        GraSP(logit_temperature=0.0)
    with pytest.raises(BadInput, match=r"give --logit-temperature 1$"):
        GraSP().check("global", has_logits=False)
    GraSP(logit_temperature=1.0).check("global", has_logits=False)


def test_scoring_images_are_ten_a_class_in_whole_batches() -> None:
    assert SNIP().num_batches(128, 10) == 1
    assert SNIP().num_batches(128, 1000) == 79
    assert SNIP(score_images=129).num_batches(128, 10) == 2
    assert SNIP(score_images=129).num_images(128, 10) == 256
    assert GraSP(score_images=128).num_images(128, 10) == 256, "GraSP goes over them twice"
