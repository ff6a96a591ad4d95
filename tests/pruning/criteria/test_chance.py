"""Random scores and the layer densities that follow from shapes."""

import pytest
import torch
from torch import nn

from sslticket import models
from sslticket.errors import BadInput
from sslticket.pruning.criteria import ERK, Random
from tests.pruning.criteria.scoring_inputs import cut_down, subject


def erk_densities(shapes: dict[str, torch.Size], density: float) -> dict[str, float]:
    """As published: raw fractions scaled to meet the total; layers that would be beyond dense become dense, again."""
    raw = {name: sum(shape) / shape.numel() for name, shape in shapes.items()}
    total = sum(shape.numel() for shape in shapes.values())
    dense: set[str] = set()
    while True:
        left = density * total - sum(shapes[name].numel() for name in dense)
        scale = left / sum(sum(shapes[name]) for name in shapes if name not in dense)
        beyond = {name for name in shapes if name not in dense and scale * raw[name] > 1}
        if not beyond:
            return {name: 1.0 if name in dense else scale * raw[name] for name in shapes}
        dense |= beyond


@pytest.mark.parametrize("density", [0.5, 0.1, 0.02])
def test_layers_have_the_published_densities_to_the_weight(density: float) -> None:
    net = models.create_model("resnet20", image_size=32)
    mask = cut_down(subject(net, channels=3, size=32), ERK(), density)
    expected = erk_densities({name: layer.shape for name, layer in mask.items()}, density)
    assert mask.survivors == round(mask.total * density)
    for name, (kept, size) in mask.layer_counts().items():
        assert abs(kept - expected[name] * size) <= 1, name
    assert (max(expected.values()) == 1) == (density > 0.02), "dense layers are part of the test"


def test_which_weights_of_a_layer_remain_is_chance_of_the_seed() -> None:
    masks = [cut_down(subject(net(), seed=seed), ERK(), 0.5) for seed in (0, 0, 1)]
    assert masks[0].equals(masks[1])
    assert not masks[0].equals(masks[2])
    assert masks[0].layer_counts() == masks[2].layer_counts()


def net() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.Flatten(), nn.Linear(32, 100), nn.Linear(100, 100))


def test_random_scores_keep_the_same_share_of_every_layer_and_masks_nest() -> None:
    inputs = subject(net())
    sparse, sparser = (cut_down(inputs, Random(), density) for density in (0.3, 0.1))
    assert sparser.is_subset_of(sparse)
    assert sparse.survivors == round(sparse.total * 0.3)
    for kept, size in sparse.layer_counts().values():
        assert abs(kept - 0.3 * size) < 4 * (0.21 * size) ** 0.5, "four standard deviations"
    exact = cut_down(inputs, Random(), 0.3, scope="layer")
    assert all(kept == round(0.3 * size) for kept, size in exact.layer_counts().values())


def test_layers_of_one_shape_have_different_random_masks() -> None:
    twins = nn.Sequential(nn.Flatten(), nn.Linear(50, 50), nn.Linear(50, 50))
    mask = cut_down(subject(twins), Random(), 0.5)
    assert 0.3 < float((mask["1.weight"] & mask["2.weight"]).float().mean()) * 2 < 0.7


def test_erk_refuses_to_be_ranked_layer_by_layer() -> None:
    with pytest.raises(BadInput, match="must be global for ERK"):
        ERK().check("layer", has_logits=True)
