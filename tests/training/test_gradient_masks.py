"""Masks that multiply gradients once a step: the networks are, bit for bit, those of masks in each forward pass."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from sslticket import models
from sslticket.config.recipe import Recipe
from sslticket.config.runtime import RuntimeConfig
from sslticket.config.training import LARS, SGD, Adam, AdamW, Optimizer, RMSprop, TrainConfig
from sslticket.data.loader import Batch
from sslticket.objectives.base import Network, Objective
from sslticket.objectives.byol import BYOL
from sslticket.objectives.supervised import Supervised
from sslticket.pruning import pruned_model
from sslticket.pruning.criteria import SNIP, GraSP, SynFlow
from sslticket.pruning.mask import Mask, StateDict
from sslticket.pruning.prunable import prunable_weights
from sslticket.search.oneshot import OneShot
from sslticket.training.engine import Engine
from sslticket.training.network import MaskedNetwork
from sslticket.training.progress import Progress
from sslticket.training.trial import Kernels, computing_with
from tests.gloo import run_in_processes
from tests.runs import recipe, search, tickets

LENGTH, BATCH = 9, 16


def multiply_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on networks are built with masks that are products in the forward pass."""
    monkeypatch.setattr(pruned_model, "attach_masks", pruned_model.attach_gates)


class Numbers:
    """Random 8x8 "images" with labels, or a process's share of them: for arithmetic only."""

    unreadable: dict[str, str] = {}  # noqa: RUF012

    def __init__(self, rank: int = 0, count: int = 1) -> None:
        self.share = slice(rank * BATCH // count, (rank + 1) * BATCH // count)

    def train(self, start: int, stop: int) -> Iterator[Batch]:
        for step in range(start, stop):
            generator = torch.Generator().manual_seed(step)
            images = torch.randn(BATCH, 3, 8, 8, generator=generator)[self.share]
            label = torch.randint(10, (BATCH,), generator=generator)[self.share]
            yield Batch((images,), label, torch.arange(BATCH)[self.share])


def random_mask(backbone: nn.Module) -> Mask:
    """About a third of the weights."""
    stored, generator = pruned_model.stored_state(backbone), torch.Generator().manual_seed(1)
    names = prunable_weights(backbone)
    return Mask({name: torch.rand(stored[name].shape, generator=generator) < 0.3 for name in names})


def trained(
    bench: Engine,
    fit: TrainConfig,
    objective: Objective | None = None,
    loader: Numbers | None = None,
    *,
    sparse: bool = False,
) -> MaskedNetwork:
    net = MaskedNetwork.build("conv3", objective or Supervised(), channels=3, image_size=8, classes=10, seed=3)
    mask = random_mask(net.backbone)
    pruned_model.set_mask_everywhere(net, mask)
    kernels = Kernels(sparse=tuple(mask), layers=len(mask)) if sparse else Kernels()
    with bench.prepare(net) as wrapped, computing_with(kernels, net):
        loop = bench.make_loop(
            net, wrapped, loader or Numbers(), fit, set_size=40, seed=0, progress=Progress(0, show=False)
        )
        loop.run(0, 4)
        loop.run(4, LENGTH)
    return net


def assert_same(one: StateDict, other: StateDict) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


@dataclass(frozen=True)
class Overflows(Supervised):
    """Its gradient is beyond every float in two steps, where loss scaling leaves the network as it is."""

    def loss(self, net: Network, batch: Batch, progress: float) -> dict[str, Tensor]:
        value = super().loss(net, batch, progress)["labels"]
        return {"labels": value * (1e38 if round(progress * LENGTH) in (0, 5) else 1)}


class Turning(torch.optim.SGD):
    """Moves every entry of a matrix by all of its gradient, as optimisers do that orthogonalise their steps."""

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for weight in group["params"]:
                weight.add_(weight.grad.sum() + weight.grad, alpha=-float(group["lr"]))


@dataclass(frozen=True, kw_only=True)
class Turns(Optimizer):
    """An optimiser of a user's.

    Attributes:
        lr: The learning rate.
    """

    lr: float = 1e-4

    def build(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        return Turning(parameters, lr=self.lr)


@dataclass(frozen=True)
class Shakes(Supervised):
    """A user's objective that writes to the weights after each step."""

    @torch.no_grad()
    def after_step(self, net: Network, progress: float) -> None:
        for weight in pruned_model.stored_weights(net.backbone, prunable_weights(net.backbone)).values():
            weight.add_(1e-3)


CASES: dict[str, tuple[Optimizer, dict[str, object], dict[str, object]]] = {
    "sgd": (SGD(lr=0.05, nesterov=True, weight_decay=1e-2), {}, {}),
    "adam, clipped": (Adam(lr=1e-3, weight_decay=1e-2), {"clip": 0.5}, {}),
    "adamw": (AdamW(lr=1e-3, weight_decay=0.5, last_weight_decay=1.0), {}, {}),
    "lars": (LARS(lr=0.1), {}, {}),
    "rmsprop, channels-last": (RMSprop(lr=1e-3, momentum=0.9), {}, {"channels_last": True}),
    "sgd, accumulated, clipped": (SGD(lr=0.05), {"clip": 0.1, "ghost_batch": 4}, {"accumulate": 4}),
}


@pytest.mark.parametrize("case", CASES)
def test_a_step_is_that_of_masks_in_the_forward_pass(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    optimizer, training, machine = CASES[case]
    bench = Engine.create(RuntimeConfig(**machine), "bf16" if case == "sgd" else "fp32")
    fit = TrainConfig(length=f"{LENGTH}it", batch_size=BATCH, optimizer=optimizer, **training)
    gradients = trained(bench, fit)
    multiply_weights(monkeypatch)
    products = trained(bench, fit)
    assert_same(pruned_model.read_state(gradients), pruned_model.read_state(products))
    mask, stored = random_mask(gradients.backbone), pruned_model.stored_state(gradients.backbone)
    assert all(not stored[name][~layer].any() and stored[name][layer].all() for name, layer in mask.items())
    assert len(pruned_model.fixed_masks(gradients)) == len(mask) > len(pruned_model.fixed_masks(products)) == 0


def assert_close(one: StateDict, other: StateDict) -> None:
    """As two orders of sums leave a short training, and with the same zeros.

    The gradient of a bias before batch norm is 0 but for rounding, which Adam makes as large as any other.
    """
    assert one.keys() == other.keys()
    for name, value in one.items():
        if not name.endswith("weight"):
            continue
        torch.testing.assert_close(value, other[name], rtol=1e-3, atol=1e-5, msg=name)
        assert torch.equal(value == 0, other[name] == 0), name


@pytest.mark.parametrize("case", CASES)
def test_trainings_with_sparse_layers_are_those_of_dense_ones(case: str) -> None:
    optimizer, training, machine = CASES[case]
    bench = Engine.create(RuntimeConfig(**machine), "fp32")
    fit = TrainConfig(length=f"{LENGTH}it", batch_size=BATCH, optimizer=optimizer, **training)
    dense, sparse = (pruned_model.read_state(trained(bench, fit, sparse=each)) for each in (False, True))
    assert_close(sparse, dense)
    assert any(not torch.equal(sparse[name], dense[name]) for name in dense), "other kernels"


def test_sparse_layers_skip_the_steps_that_loss_scaling_skips() -> None:
    bench = Engine.create(RuntimeConfig(), "fp32")
    bench.accelerator.scaler = torch.amp.GradScaler("cpu")
    fit = TrainConfig(length=f"{LENGTH}it", batch_size=BATCH, optimizer=SGD(lr=0.05))
    dense, sparse = (pruned_model.read_state(trained(bench, fit, Overflows(), sparse=each)) for each in (False, True))
    assert bench.accelerator.scaler.get_scale() == 2.0**14
    assert_close(sparse, dense)


@pytest.mark.parametrize("clip", [None, 0.5], ids=["", "clipped"])
def test_steps_that_loss_scaling_skips_are_the_same_ones(clip: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Engine.create(RuntimeConfig(), "fp32")
    bench.accelerator.scaler = torch.amp.GradScaler("cpu")
    fit = TrainConfig(length=f"{LENGTH}it", batch_size=BATCH, optimizer=SGD(lr=0.05), clip=clip)
    gradients, scale = trained(bench, fit, Overflows()), bench.accelerator.scaler.get_scale()
    assert scale == 2.0**14, "two steps overflow"
    multiply_weights(monkeypatch)
    assert_same(pruned_model.read_state(gradients), pruned_model.read_state(trained(bench, fit, Overflows())))
    assert bench.accelerator.scaler.get_scale() == scale


def test_what_a_users_optimiser_or_objective_moves_does_not_act(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Engine.create(RuntimeConfig(), "fp32")
    fits = [TrainConfig(length=f"{LENGTH}it", batch_size=BATCH, optimizer=each) for each in (Turns(), SGD(lr=0.05))]
    gradients = [trained(bench, fit, objective) for fit, objective in zip(fits, (Supervised(), Shakes()), strict=True)]
    for net in gradients:
        stored = pruned_model.stored_state(net.backbone)
        assert all(not stored[name][~layer].any() for name, layer in random_mask(net.backbone).items())
    multiply_weights(monkeypatch)
    for net, fit, objective in zip(gradients, fits, (Supervised(), Shakes()), strict=True):
        assert_same(pruned_model.read_state(net), pruned_model.read_state(trained(bench, fit, objective)))


SEARCHES: dict[str, Recipe] = {
    "momentum encoder": recipe(BYOL(hidden=16, dim=8)),
    "snip": recipe(search=OneShot(levels=2, rate=0.5, rewind="2it", criterion=SNIP(score_images=32))),
    "grasp": recipe(search=OneShot(levels=1, rate=0.5, rewind="2it", scored="start", criterion=GraSP(score_images=32))),
    "synflow": recipe(search=OneShot(levels=1, rate=0.9, rewind="2it", scored="start", criterion=SynFlow(rounds=3))),
}


@pytest.mark.parametrize("name", SEARCHES)
def test_searches_leave_the_tickets_of_masks_in_the_forward_pass(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = tickets(search(tmp_path / "gradients", SEARCHES[name]))
    multiply_weights(monkeypatch)
    theirs = tickets(search(tmp_path / "products", SEARCHES[name]))
    assert [ticket.hash for ticket in found] == [ticket.hash for ticket in theirs]
    assert found[-1].density < 0.6


def test_scores_under_a_mask_have_no_gradient_where_it_prunes() -> None:
    net = MaskedNetwork.build("conv3", Supervised(), channels=3, image_size=8, classes=10, seed=3)
    mask, (batch,) = random_mask(net.backbone), Numbers().train(0, 1)
    pruned_model.set_mask_everywhere(net, mask)
    weights = pruned_model.stored_weights(net.backbone, list(mask))
    with pruned_model.masked_autograd(net):
        loss = net(batch, 0.0)["labels"]
        first = torch.autograd.grad(loss, list(weights.values()), create_graph=True)
        second = torch.autograd.grad(sum(one.square().sum() for one in first), list(weights.values()))
    for name, *both in zip(weights, first, second, strict=True):
        assert all(not gradient[~mask[name]].any() and gradient[mask[name]].any() for gradient in both)
    assert torch.autograd.grad(net(batch, 0.0)["labels"], weights["features.0.weight"])[0][
        ~mask["features.0.weight"]
    ].any()


def _process(rank: int, folder: str) -> None:
    fit = TrainConfig(length=f"{LENGTH}it", batch_size=BATCH, optimizer=SGD(lr=0.05), clip=0.5, ghost_batch=4)
    bench = Engine.create(RuntimeConfig(accumulate=2), "fp32")
    found = [pruned_model.read_state(trained(bench, fit, loader=Numbers(rank, 2)))]
    with pytest.MonkeyPatch.context() as patch:
        multiply_weights(patch)
        found.append(pruned_model.read_state(trained(bench, fit, loader=Numbers(rank, 2))))
    found.append(pruned_model.read_state(trained(bench, fit, loader=Numbers(rank, 2), sparse=True)))
    torch.save(found, f"{folder}/{rank}")


@pytest.mark.slow
def test_several_processes_learn_what_they_learn_with_masks_in_the_forward_pass(tmp_path: Path) -> None:
    run_in_processes(_process, tmp_path)
    gradients, products, sparse = torch.load(tmp_path / "0")
    assert_same(gradients, products)
    assert_close(sparse, gradients)
    # Batch norm's statistics are each process's own.
    for own, theirs in zip((gradients, sparse), torch.load(tmp_path / "1")[::2], strict=True):
        assert all(torch.equal(own[name], theirs[name]) for name in own if "running" not in name)


def test_an_optimiser_numbers_weights_as_it_did_when_masks_were_gates() -> None:
    """Snapshots of earlier versions hold its state by these numbers."""
    nets = models.create_model("conv3", channels=1, image_size=8), nn.TransformerEncoderLayer(8, 2, 16)
    for beside in nets:
        gated = copy.deepcopy(beside)
        pruned_model.attach_masks(beside, prunable_weights(beside))
        pruned_model.attach_gates(gated, prunable_weights(gated))
        names = {id(value): name for name, value in beside.named_parameters()}
        numbered = [names[id(value)] for value in pruned_model.parameters_in_order(beside)]
        assert numbered == [pruned_model.plain_name(name) for name, _ in gated.named_parameters()]
        assert sorted(numbered) == sorted(names.values())
        assert numbered != list(names.values())
