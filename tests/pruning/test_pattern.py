from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from sslticket import models
from sslticket.errors import BadInput
from sslticket.evaluation import CONTROLS
from sslticket.evaluation.controls import get_control, make_control
from sslticket.pruning import pruned_model
from sslticket.pruning.criteria import ERK, Criterion, Magnitude, Random, ScoringInput, SynFlow, prune_to_level
from sslticket.pruning.mask import Mask, SparsitySchedule
from sslticket.pruning.pattern import Pattern, full_pattern, kept_patterns
from sslticket.pruning.prunable import prunable_weights
from sslticket.search.imp import IMP
from sslticket.ticket import Ticket

TWO_OF_FOUR = Pattern(2, 4)


def ones(**shapes: tuple[int, ...]) -> Mask:
    return Mask({name: torch.ones(shape, dtype=torch.bool) for name, shape in shapes.items()})


def test_of_each_group_along_the_inputs_of_a_linear_layer_the_highest_are_kept_and_ties_go_to_the_earlier() -> None:
    scores = {
        "a": torch.tensor([[1.0, 3.0, 2.0, 4.0, 5.0, 5.0, 5.0, 5.0], [0.0, 0.0, 0.0, 1.0, -1.0, -4.0, -3.0, -2.0]])
    }
    mask = Mask.top(scores, keep=8, within=ones(a=(2, 8)), pattern=TWO_OF_FOUR)
    assert mask["a"].int().tolist() == [[0, 1, 0, 1, 1, 1, 0, 0], [1, 0, 0, 1, 1, 0, 0, 1]]


def test_groups_of_a_convolution_lie_along_its_input_channels_at_one_place_of_the_kernel() -> None:
    # One output, four inputs, a kernel of 1 x 2: highest are inputs 0 and 2 at the left, 1 and 3 at the right.
    scores = {"a": torch.tensor([[[[4.0, 1.0]], [[1.0, 9.0]], [[3.0, 2.0]], [[2.0, 8.0]]]])}
    mask = Mask.top(scores, keep=4, within=ones(a=(1, 4, 1, 2)), pattern=TWO_OF_FOUR)
    assert mask["a"].int().tolist() == [[[[1, 0]], [[0, 1]], [[1, 0]], [[0, 1]]]]


def test_masks_are_those_of_torchs_own_sparsifier() -> None:
    from torch.ao.pruning import WeightNormSparsifier

    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(16, 8, bias=False))
    weight = net[0].weight.detach().clone()
    theirs = WeightNormSparsifier(sparsity_level=1.0, sparse_block_shape=(1, 4), zeros_per_block=2)
    theirs.prepare(net, [{"tensor_fqn": "0.weight"}])
    theirs.step()
    theirs.squash_mask()
    ours = Mask.top({"a": weight.abs()}, keep=64, within=ones(a=(8, 16)), pattern=TWO_OF_FOUR)
    assert torch.equal(net[0].weight != 0, ours["a"])


def test_a_sparser_mask_takes_the_highest_of_those_that_the_pattern_allows() -> None:
    scores = {"a": torch.tensor([[9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0]])}
    kept = [Mask.top(scores, keep=keep, within=ones(a=(1, 8)), pattern=TWO_OF_FOUR) for keep in (3, 2)]
    assert [mask["a"].int().tolist() for mask in kept] == [[[1, 1, 0, 0, 1, 0, 0, 0]], [[1, 1, 0, 0, 0, 0, 0, 0]]]


def test_a_denser_mask_keeps_the_highest_of_each_group_in_any_case_so_that_it_can_be_pruned_to_the_pattern() -> None:
    scores = {"a": torch.tensor([[9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0]])}
    denser = Mask.top(scores, keep=6, within=ones(a=(1, 8)), pattern=TWO_OF_FOUR)
    assert denser["a"].int().tolist() == [[1, 1, 1, 1, 1, 1, 0, 0]]
    turned = {"a": -scores["a"]}  # other scores later find two of each group there
    later = Mask.top(turned, keep=4, within=denser, pattern=TWO_OF_FOUR)
    assert later["a"].int().tolist() == [[0, 0, 1, 1, 1, 1, 0, 0]]


def test_a_score_that_is_not_a_number_is_refused_within_a_pattern() -> None:
    for place in range(4):
        scores = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
        scores[0, place] = float("nan")
        with pytest.raises(BadInput, match="must be numbers to rank weights by, got NaN"):
            Mask.top({"a": scores}, keep=2, within=ones(a=(1, 4)), pattern=TWO_OF_FOUR)


@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize("pattern", ["2:4", "1:4", "3:8"])
def test_levels_nest_with_exact_counts_and_keep_to_the_pattern_from_its_density_on(pattern: str, scope: str) -> None:
    generator = torch.Generator().manual_seed(0)
    asked = Pattern.parse(pattern)
    schedule = SparsitySchedule(rate=0.2, scope=scope, min_per_layer=4, pattern=asked)  # type: ignore[arg-type]
    mask = dense = ones(a=(8, 16, 3, 3), b=(4, 32), c=(16, 8, 1, 1))
    counts = schedule.survivors(dense, 12)
    for level in range(1, 13):
        # Some layers and some groups of a layer have much lower scores, as those of trained networks have.
        scores = {
            name: torch.rand(layer.shape, generator=generator) ** (1 + 3 * number)
            * torch.rand(len(layer), generator=generator).view(-1, *[1] * (layer.dim() - 1))
            for number, (name, layer) in enumerate(mask.items())
        }
        smaller = schedule.select(scores, level, mask)
        assert smaller.is_subset_of(mask)
        assert smaller.survivors == counts[level]
        assert min(kept for kept, _ in smaller.layer_counts().values()) >= 4
        assert asked.holds(smaller) == (0.8**level <= asked.kept / asked.size)
        mask = smaller


def test_a_level_of_the_patterns_density_is_full() -> None:
    scores = {"a": torch.rand(8, 16, generator=torch.Generator().manual_seed(1))}
    schedule = SparsitySchedule(rate=0.5, pattern=Pattern(1, 4))
    dense = ones(a=(8, 16))
    half, quarter = schedule.select(scores, 1, dense), schedule.select(scores, 2, dense)
    assert (half.survivors, quarter.survivors) == (64, 32)
    assert (full_pattern(quarter), full_pattern(half)) == (Pattern(1, 4), None)


def test_a_minimum_is_held_as_far_as_the_pattern_lets_a_layer() -> None:
    dense = ones(a=(1, 8), b=(8, 64))
    for scope in ("global", "layer"):
        schedule = SparsitySchedule(rate=0.9, scope=scope, min_per_layer=100, pattern=TWO_OF_FOUR)  # type: ignore[arg-type]
        if scope == "global":
            with pytest.raises(BadInput, match=r"--min-per-layer 100 needs 104 in 2 layers"):
                schedule.survivors(dense, 1)
            continue
        scores = {name: torch.rand(layer.shape) for name, layer in dense.items()}
        mask = schedule.select(scores, 1, dense)
        assert mask.layer_counts() == {"a": (4, 8), "b": (100, 512)}
        assert TWO_OF_FOUR.holds(mask)


@pytest.mark.parametrize("text", ["4:2", "2:2", "0:4", "2", "2:4:8", "02:4", "a:b", "1:2000", " 2:4", "2:4\n", ""])
def test_what_is_no_pattern_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(BadInput, match=r"^--pattern must be N:M with N below M .*such as 2:4, or leave it out$"):
        IMP(pattern=text)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.depthwise = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, groups=8)
        self.grouped, self.up = nn.Conv2d(8, 16, 1, groups=2), nn.ConvTranspose2d(16, 8, 2)
        self.attention, self.fc = nn.MultiheadAttention(8, 2), nn.Linear(8, 6)


def test_layers_that_the_pattern_cannot_be_laid_on_stay_dense_and_are_named() -> None:
    net, search = Net(), IMP(pattern="2:4", exclude=("fc",))
    fitting = ["grouped.weight", "attention.in_proj_weight", "attention.out_proj.weight"]
    assert search.prunable_layers(net) == fitting
    named = search.with_dense_layers_named(net)
    assert named.exclude == ("fc", "stem", "depthwise", "up")
    assert named.prunable_layers(net) == fitting
    assert named.with_dense_layers_named(net) == named
    assert IMP(exclude=named.exclude).prunable_layers(net) == fitting, "what others are compared with"
    with pytest.raises(BadInput, match="needs layers whose inputs 5 divides, and of the 7 that may be pruned none"):
        IMP(pattern="2:5").prunable_layers(net)


def network() -> nn.Module:
    torch.manual_seed(0)
    return models.create_model("conv3", channels=3, image_size=8)


@pytest.mark.parametrize("criterion", [Magnitude(), Random(), ERK(), SynFlow(rounds=7)])
def test_each_criterion_prunes_to_the_pattern(criterion: Criterion) -> None:
    net = network()
    names = IMP(pattern="2:4").prunable_layers(net)
    dense = Mask.ones_like(pruned_model.stored_state(net), names)
    pruned_model.attach_gates(net, dense)

    def scores(which: Criterion, mask: Mask) -> Mapping[str, Tensor]:
        pruned_model.set_mask(net, mask)
        nothing: Callable[..., object] = lambda *_: iter(())  # noqa: E731
        inputs = ScoringInput(net, 3, 8, seed=3, losses=nothing, mean_over_processes=lambda each: each)  # type: ignore[arg-type]
        return which.scores(inputs, names)

    schedule = SparsitySchedule(rate=0.5, pattern=TWO_OF_FOUR)
    half = prune_to_level(scores, criterion, schedule, dense, start=0, level=1)  # type: ignore[arg-type]
    assert TWO_OF_FOUR.is_full(half)
    tenth = prune_to_level(scores, criterion, schedule, half, start=1, level=3)  # type: ignore[arg-type]
    assert tenth.is_subset_of(half)
    assert tenth.survivors == round(dense.total / 8)


@pytest.fixture
def ticket() -> Ticket:
    net = network()
    state, names = pruned_model.read_state(net), prunable_weights(net)[1:]
    scores = {name: torch.rand_like(state[name]) + 1 / (1 + number) for number, name in enumerate(names)}
    mask = Mask.top(scores, keep=5000, within=Mask.ones_like(state, names), pattern=TWO_OF_FOUR)
    recipe = {"search": {"is": "IMP", "pattern": "2:4", "exclude": ["features.0"]}}
    return Ticket.from_dense_weights(mask, state, level=4, recipe=recipe, provenance={"objective": "rotnet"})


@pytest.mark.parametrize("kind", sorted({*CONTROLS.names()}))
def test_every_control_of_a_ticket_of_a_pattern_keeps_to_it(ticket: Ticket, kind: str) -> None:
    assert ticket.pattern == TWO_OF_FOUR
    natural = Mask(
        {
            name: torch.rand(layer.shape, generator=torch.Generator().manual_seed(2)) < 0.9
            for name, layer in ticket.mask.items()
        }
    )
    drawn = [
        make_control(ticket, get_control(kind), initial=ticket.weights, seed=seed, natural=natural).mask
        for seed in (7, 7, 8)
    ]
    assert drawn[0].survivors == 5000
    assert TWO_OF_FOUR.holds(drawn[0])
    assert drawn[0].equals(drawn[1])
    assert drawn[0].equals(drawn[2]) == (kind in ("preserved", "reset"))
    if kind == "local":
        assert drawn[0].layer_counts() == ticket.mask.layer_counts()
    if kind == "adjusted":
        assert drawn[0].is_subset_of(natural)


def test_the_random_mask_of_a_full_pattern_has_each_weight_equally_often(ticket: Ticket) -> None:
    full = Mask(
        TWO_OF_FOUR.best(
            {name: torch.rand(layer.shape) for name, layer in ticket.mask.items()},
            Mask.ones_like(ticket.mask, list(ticket.mask)),
        )
    )
    found = Ticket(full, ticket.weights, 1, ticket.recipe, ticket.provenance)
    drawn = make_control(found, get_control("random"), initial=ticket.weights, seed=1).mask
    assert TWO_OF_FOUR.is_full(drawn)
    name = max(drawn, key=lambda each: drawn[each].numel())
    share = torch.stack([drawn[name].transpose(1, -1).reshape(-1, 4)[:, place].double().mean() for place in range(4)])
    groups = drawn[name].numel() / 4
    assert bool(((share - 0.5).abs() < 4 * (0.25 / groups) ** 0.5).all())


def test_natural_zeros_leave_the_adjusted_control_sparser_within_the_pattern(ticket: Ticket) -> None:
    natural = Mask({name: torch.zeros_like(layer) for name, layer in ticket.mask.items()})
    for layer in natural.values():
        layer[:, :4] = True  # of each group of these all, of all others none
    drawn = make_control(ticket, get_control("adjusted"), initial=ticket.weights, seed=7, natural=natural).mask
    assert TWO_OF_FOUR.holds(drawn)
    assert drawn.is_subset_of(natural)
    assert drawn.survivors == min(5000, natural.survivors // 2)


def test_a_denser_level_has_no_pattern_yet_and_plain_controls(ticket: Ticket) -> None:
    denser = Mask.ones_like(ticket.mask, list(ticket.mask))
    found = Ticket(denser, ticket.weights, 0, ticket.recipe, ticket.provenance)
    assert found.pattern is None


def test_patterns_that_a_mask_keeps_to_are_read_off_it() -> None:
    one_of_four = torch.tensor([[1, 0, 0, 0, 0, 0, 0, 1]]).bool().repeat(2, 1)
    assert kept_patterns({"a": one_of_four}) == {"1:4": []}
    loose = torch.tensor([[1, 1, 1, 0, 0, 0, 0, 1]]).bool()
    assert kept_patterns({"a": loose}) == {"4:8": []}
    assert kept_patterns({"a": one_of_four, "stem": torch.ones(2, 3, 1, 1).bool()}) == {"1:4": ["stem"]}
    assert kept_patterns({"a": torch.ones(2, 8).bool()}) == {}


def test_a_pattern_in_a_strangers_ticket_is_checked(ticket: Ticket, tmp_path: Path) -> None:
    for value in (7, None, ["2:4"]):
        found = Ticket(ticket.mask, ticket.weights, 1, {"search": {"pattern": value}}, {})
        assert found.pattern is None
    with pytest.raises(BadInput, match="--pattern must be N:M"):
        _ = Ticket(ticket.mask, ticket.weights, 1, {"search": {"pattern": "0:0"}}, {}).pattern
