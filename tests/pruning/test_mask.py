import pytest
import torch
from torch import Tensor, nn

from sslticket.errors import BadInput
from sslticket.pruning.mask import Mask, num_kept
from sslticket.pruning.prunable import prunable_weights


def ones(*sizes: int) -> Mask:
    return Mask({f"layer{number}": torch.ones(size, dtype=torch.bool) for number, size in enumerate(sizes)})


def bits(mask: Mask) -> list[list[int]]:
    return [layer.int().tolist() for layer in mask.values()]


def test_the_highest_scores_of_all_layers_together_are_kept() -> None:
    scores = {"layer0": torch.tensor([0.9, 0.1, 0.5]), "layer1": torch.tensor([0.2, 0.8])}
    assert bits(Mask.top(scores, keep=3, within=ones(3, 2))) == [[1, 0, 1], [0, 1]]


def test_ties_go_to_the_earlier_weight_and_the_count_is_exact() -> None:
    same = {"layer0": torch.ones(3), "layer1": torch.ones(4)}
    for keep in range(1, 8):
        mask = Mask.top(same, keep=keep, within=ones(3, 4))
        assert [bit for layer in bits(mask) for bit in layer] == [1] * keep + [0] * (7 - keep)
    some = {"layer0": torch.tensor([2.0, 1.0, 1.0, 0.0, 1.0, 3.0])}
    assert bits(Mask.top(some, keep=3, within=ones(6))) == [[1, 1, 0, 0, 0, 1]]


def test_what_was_pruned_stays_pruned_whatever_its_score() -> None:
    within = Mask({"layer0": torch.tensor([False, True, True, False])})
    scores = {"layer0": torch.tensor([9.0, 1.0, 0.0, 9.0])}
    assert bits(Mask.top(scores, keep=1, within=within)) == [[0, 1, 0, 0]]
    with pytest.raises(BadInput, match="must keep 1 to 2 weights, got 3"):
        Mask.top(scores, keep=3, within=within)


def test_masks_of_a_search_nest_with_counts_from_the_total() -> None:
    generator = torch.Generator().manual_seed(0)
    mask, total = ones(1000, 501), 1501
    for level in range(1, 20):
        scores = {name: torch.rand(len(layer), generator=generator) for name, layer in mask.items()}
        smaller = Mask.top(scores, keep=num_kept(total, 0.8**level), within=mask)
        assert smaller.is_subset_of(mask)
        assert smaller.survivors == round(total * 0.8**level)
        mask = smaller


def test_a_score_that_is_not_a_number_is_refused() -> None:
    with pytest.raises(BadInput, match="must be numbers to rank weights by, got NaN"):
        Mask.top({"layer0": torch.tensor([1.0, float("nan"), 2.0])}, keep=2, within=ones(3))


def test_prunable_are_convolutions_and_linear_weights_only() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2), nn.LayerNorm(2))
    assert prunable_weights(net) == ["0.weight", "3.weight"]


def half(scores: Tensor) -> list[int]:
    return Mask.top(
        {"a": scores}, keep=len(scores) // 2, within=Mask({"a": torch.ones(len(scores), dtype=torch.bool)})
    )["a"].tolist()


def test_double_precision_scores_are_ranked_in_double_precision() -> None:
    close = torch.tensor([1.0, 1.0 + 1e-12, 1.0, 1.0 + 1e-12], dtype=torch.float64)
    assert half(close) == [False, True, False, True]


def test_each_layer_keeps_its_minimum_and_the_total_is_exact() -> None:
    generator = torch.Generator().manual_seed(1)
    mask = ones(3, 50, 200)
    scores = {f"layer{place}": torch.rand(size, generator=generator) + place for place, size in enumerate((3, 50, 200))}
    assert list(Mask.top(scores, keep=40, within=mask).layer_counts().values()) == [(0, 3), (0, 50), (40, 200)]
    least = Mask.top(scores, keep=40, within=mask, at_least=5)
    assert list(least.layer_counts().values()) == [(3, 3), (5, 50), (32, 200)]
    for name, layer in least.items():
        kept_scores, lost = scores[name][layer], scores[name][~layer]
        assert not len(lost) or kept_scores.min() >= lost.max(), "the highest of each layer"
    assert Mask.top(scores, keep=13, within=mask, at_least=5).survivors == 13
    with pytest.raises(BadInput, match="at least 5 weights in each of 3 layers, got 12 in all"):
        Mask.top(scores, keep=12, within=mask, at_least=5)


def test_a_minimum_that_binds_nowhere_changes_nothing() -> None:
    generator = torch.Generator().manual_seed(2)
    scores = {"layer0": torch.rand(100, generator=generator), "layer1": torch.rand(80, generator=generator)}
    plain = Mask.top(scores, keep=60, within=ones(100, 80))
    assert Mask.top(scores, keep=60, within=ones(100, 80), at_least=5).equals(plain)


def test_a_minimum_brings_nothing_back() -> None:
    within = Mask({"layer0": torch.tensor([True, False, False]), "layer1": torch.tensor([True, True, True])})
    scores = {"layer0": torch.tensor([1.0, 9.0, 9.0]), "layer1": torch.tensor([2.0, 3.0, 4.0])}
    assert bits(Mask.top(scores, keep=3, within=within, at_least=2)) == [[1, 0, 0], [0, 1, 1]]


def test_a_mask_without_a_layer_says_so() -> None:
    with pytest.raises(BadInput, match=r"a mask must have a layer b, got 1 other layers: .* delete its file"):
        Mask({"a": torch.ones(2, dtype=torch.bool)}).restrict(["a", "b"])
