"""A model that a ticket was applied to is saved, loaded, copied and released as the plain network that it was."""

import copy
import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import parametrize
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from sslticket import models
from sslticket.errors import BadInput
from sslticket.pruning import pruned_model
from sslticket.pruning.mask import Mask
from sslticket.pruning.prunable import prunable_weights
from sslticket.ticket import Ticket


class Attentive(nn.Module):
    """A network with an attention whose weights are no module's of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.inward = nn.Linear(8, 16)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.norm = nn.BatchNorm1d(16)

    def forward(self, images: Tensor) -> Tensor:
        seen = self.inward(images.flatten(1).unflatten(1, (-1, 8)))
        found: Tensor = self.norm(self.attention(seen, seen, seen, need_weights=False)[0].mean(1))
        return found


MAKE: dict[str, Callable[[], nn.Module]] = {
    "conv3": lambda: models.create_model("conv3", channels=1, image_size=8),
    "attention": Attentive,
}


def drawn(name: str, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return MAKE[name]()


def ticket(name: str, seed: int = 0, density: float = 0.2) -> Ticket:
    state = pruned_model.read_state(backbone := drawn(name))
    torch.manual_seed(seed)
    names = prunable_weights(backbone)
    whole = Mask.ones_like(state, names)
    mask = Mask.top({n: torch.rand_like(state[n]) for n in names}, keep=round(whole.total * density), within=whole)
    return Ticket.from_dense_weights(mask, state, level=1, recipe={"model": name}, provenance={})


def train(model: nn.Module, steps: int = 3) -> None:
    torch.manual_seed(5)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(4, 1, 8, 8)).square().mean().backward()
        optimizer.step()


@pytest.mark.parametrize("name", MAKE)
def test_a_trained_models_state_loads_in_the_plain_network_and_computes_the_same(name: str) -> None:
    found = ticket(name)
    model, plain = found.apply(drawn(name, 1)), drawn(name, 2)
    train(model)
    state = model.state_dict()
    assert list(state) == list(plain.state_dict())
    written = io.BytesIO()
    torch.save(state, written)
    written.seek(0)
    plain.load_state_dict(torch.load(written, weights_only=True), strict=True)
    images = torch.randn(3, 1, 8, 8)
    assert torch.equal(model.eval()(images), plain.eval()(images))
    for weight, layer in found.mask.items():
        assert not plain.state_dict()[weight][~layer].any()
        assert plain.state_dict()[weight][layer].all()
        assert not torch.equal(plain.state_dict()[weight], found.weights[weight]), "it was trained"


@pytest.mark.parametrize("name", MAKE)
@pytest.mark.parametrize("assign", [False, True])
def test_a_plain_networks_state_loads_in_an_applied_model_which_stays_sparse(name: str, assign: bool) -> None:
    found, plain = ticket(name), drawn(name, 3)
    model = found.apply(drawn(name, 1))
    before = {key: value.clone() for key, value in plain.state_dict().items()}
    model.load_state_dict(plain.state_dict(), strict=True, assign=assign)
    for weight, value in model.state_dict().items():
        expected = before[weight] * found.mask[weight] if weight in found.mask else before[weight]
        assert torch.equal(value, expected)
    assert all(torch.equal(value, before[key]) for key, value in plain.state_dict().items()), "the source is as it was"
    train(model)
    assert all(not model.state_dict()[weight][~layer].any() for weight, layer in found.mask.items())


def test_what_does_not_fit_is_named_as_the_plain_network_names_it() -> None:
    model, state = ticket("conv3").apply(drawn("conv3")), drawn("conv3").state_dict()
    first = next(iter(state))
    short = {name: value for name, value in state.items() if name != first} | {"odd": torch.zeros(1)}
    assert model.load_state_dict(short, strict=False) == ([first], ["odd"])
    with pytest.raises(RuntimeError, match=rf'Missing key\(s\) in state_dict: "{first}"'):
        model.load_state_dict(short)
    with pytest.raises(RuntimeError, match="size mismatch"):
        model.load_state_dict(state | {first: torch.zeros(2)})


def test_states_of_earlier_versions_with_the_names_of_parametrizations_load() -> None:
    model = ticket("conv3").apply(drawn("conv3", 1))
    old = {
        f"{name.removesuffix('weight')}parametrizations.weight.original"
        if name in prunable_weights(model)
        else name: value
        for name, value in model.state_dict().items()
    }
    other = ticket("conv3").apply(drawn("conv3", 2))
    train(other)
    assert sum("parametrizations" in name for name in old) == len(ticket("conv3").mask)
    other.load_state_dict(old, strict=True)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in other.state_dict().items())


def test_whoever_writes_to_a_state_dict_writes_to_the_model() -> None:
    """Moving averages of others are kept so."""
    model = ticket("conv3").apply(drawn("conv3", 1))
    kept = copy.deepcopy(model)
    train(model)
    for own, new in zip(kept.state_dict().values(), model.state_dict().values(), strict=True):
        own.copy_(new)
    images = torch.randn(2, 1, 8, 8)
    assert torch.equal(kept.eval()(images), model.eval()(images))
    asked = model.state_dict(keep_vars=True)
    assert all(isinstance(asked[name], nn.Parameter) for name in ticket("conv3").mask)


def test_an_optimiser_that_moves_pruned_weights_changes_no_saved_file() -> None:
    found = ticket("conv3")
    model = found.apply(drawn("conv3"))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)  # as one that orthogonalises whole updates
    for weight, layer in found.mask.items():
        assert torch.equal(model.state_dict()[weight] != 0, layer)


def test_averaged_copies_and_wrappers_speak_plain_names_below_their_own() -> None:
    found, plain = ticket("conv3"), drawn("conv3")
    model = found.apply(drawn("conv3", 1))
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.5))
    train(model)
    average.update_parameters(model)
    assert list(average.module.state_dict()) == list(plain.state_dict())
    assert set(average.state_dict()) == {"n_averaged", *(f"module.{name}" for name in plain.state_dict())}
    average.load_state_dict(average.state_dict())
    compiled: Any = torch.compile(model)
    assert list(compiled.state_dict()) == [f"_orig_mod.{name}" for name in plain.state_dict()]
    compiled.load_state_dict({f"_orig_mod.{name}": value for name, value in plain.state_dict().items()})
    weight, layer = next(iter(found.mask.items()))
    assert torch.equal(model.state_dict()[weight], plain.state_dict()[weight] * layer)


def test_distributed_wrappers_speak_plain_names(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("store")
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=0, world_size=1)
    try:
        model = DistributedDataParallel(ticket("attention").apply(drawn("attention")))
        train(model)
        names = [f"module.{name}" for name in drawn("attention").state_dict()]
        assert list(model.state_dict()) == names
        model.load_state_dict(dict(zip(names, drawn("attention", 4).state_dict().values(), strict=True)))
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize("name", MAKE)
def test_a_released_model_is_the_plain_network_again(name: str) -> None:
    found = ticket(name)
    model = found.apply(drawn(name, 1))
    train(model)
    copied, state = copy.deepcopy(model), {key: value.clone() for key, value in model.state_dict().items()}
    parameters = {id(parameter) for parameter in model.parameters()}
    images = torch.randn(2, 1, 8, 8)
    told = model.eval()(images)
    assert Ticket.remove(model) is model
    plain = drawn(name)
    assert [type(module) for module in model.modules()] == [type(module) for module in plain.modules()]
    assert list(model.state_dict()) == list(state) == list(dict(plain.state_dict()))
    assert [key for key, _ in model.named_parameters()] == [key for key, _ in plain.named_parameters()]
    assert {id(parameter) for parameter in model.parameters()} == parameters, "an optimiser goes on with them"
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert torch.equal(model(images), told)
    assert torch.equal(copied.eval()(images), told), "a copy keeps its mask"
    train(copied)
    assert all(not copied.state_dict()[weight][~layer].any() for weight, layer in found.mask.items())
    written = io.BytesIO()
    torch.save(model, written)  # a whole module, which torch refuses of parametrised ones
    written.seek(0)
    assert torch.equal(torch.load(written, weights_only=False)(images), told)
    again = ticket(name, seed=9)
    again.apply(model)
    assert torch.equal(pruned_model.current_mask(model)[next(iter(again.mask))], next(iter(again.mask.values())))
    assert list(model.state_dict()) == list(state)


def test_a_model_without_a_ticket_is_left_as_it_is_and_parametrizations_of_others_are_not_taken_away() -> None:
    plain = drawn("conv3")
    assert Ticket.remove(plain) is plain
    model = ticket("conv3").apply(drawn("conv3"))
    layer = next(module for module in model.modules() if parametrize.is_parametrized(module))
    parametrize.register_parametrization(layer, "weight", nn.Identity())
    with pytest.raises(BadInput, match="must have no parametrizations beside its mask"):
        Ticket.remove(model)


def test_a_second_ticket_takes_the_place_of_the_first() -> None:
    model = ticket("conv3").apply(drawn("conv3"))
    other = ticket("conv3", seed=3, density=0.5)
    other.apply(model)
    for weight, layer in other.mask.items():
        assert torch.equal(model.state_dict()[weight], other.weights[weight])
        assert torch.equal(model.state_dict()[weight] != 0, layer)


def test_a_ticket_is_one_short_line_wherever_it_is_shown() -> None:
    found = ticket("conv3")
    assert (found.density, found.survivors) == (found.mask.density, found.mask.survivors)
    line = f"<Ticket conv3, level 1, density {found.density:.4%}: {found.survivors:,} of {found.mask.total:,} weights>"
    assert repr(found) == str(found) == line
    assert repr([found]) == f"[{line}]"
    told = Ticket(found.mask, found.weights, 1, {"model": "a\x1b"}, {"dataset": "digits", "objective": "rotnet\n"})
    assert repr(told).startswith("<Ticket a\\x1b on digits by rotnet\\n, level 1, ")
    assert repr(Ticket(found.mask, found.weights, 1, {}, {})).startswith("<Ticket level 1, ")


def test_torchs_own_removal_leaves_a_plain_network_too() -> None:
    found = ticket("conv3")
    model = found.apply(drawn("conv3", 1))
    for module in list(model.modules()):
        if parametrize.is_parametrized(module):
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)
    assert set(model.state_dict()) == set(drawn("conv3").state_dict())
    model.load_state_dict(drawn("conv3", 2).state_dict())
    weight = next(iter(found.mask))
    assert torch.equal(model.state_dict()[weight], drawn("conv3", 2).state_dict()[weight]), "nothing is pruned any more"
