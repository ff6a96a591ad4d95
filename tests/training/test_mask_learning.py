"""Training a mask beside the weights: against a plain implementation, and whatever cuts a training in parts."""

import copy
import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslticket import models
from sslticket.config.runtime import RuntimeConfig
from sslticket.config.training import SGD, Adam, TrainConfig
from sslticket.data.loader import Batch
from sslticket.objectives.base import Objective
from sslticket.objectives.byol import BYOL
from sslticket.objectives.mocov2 import MoCoV2
from sslticket.objectives.multiview import MomentumEncoder
from sslticket.objectives.supervised import Supervised
from sslticket.pruning import pruned_model
from sslticket.pruning.gates import SoftGate, StochasticGate, TopKGate
from sslticket.training import checkpoint
from sslticket.training.engine import Engine
from sslticket.training.loop import TrainingLoop
from sslticket.training.network import MaskedNetwork, MaskLearning
from sslticket.training.optim import build_network_optimizer
from sslticket.training.progress import Progress
from tests.gloo import run_in_processes

BATCH, LENGTH, LAMBDA, FINAL, S0 = 8, 6, 1e-3, 50.0, 0.25  # s_0 the same number in float32
soft = partial(SoftGate, initial=S0, final_temperature=FINAL, stairs=None, divided=False)
CS = MaskLearning(gate=soft, optimizer=SGD(lr=0.1, weight_decay=0.0), penalty=LAMBDA)
ISS = MaskLearning(gate=partial(StochasticGate, initial=1.0), optimizer=SGD(lr=20.0, weight_decay=0.0), penalty=LAMBDA)
POPUP = MaskLearning(gate=partial(TopKGate, density=0.5), optimizer=Adam(lr=0.01, weight_decay=0.0), frozen=True)
LEARNING = {"cs": CS, "iss": ISS, "popup": POPUP}


class Numbers:
    """Random "images" with labels: for arithmetic only."""

    unreadable: dict[str, str] = {}  # noqa: RUF012

    def __init__(self, dtype: torch.dtype = torch.float32, views: int = 1) -> None:
        self.dtype, self.views = dtype, views

    def train(self, start: int, stop: int) -> Iterator[Batch]:
        for step in range(start, stop):
            noise = torch.Generator().manual_seed(step)
            images = [torch.randn(BATCH, 1, 8, 8, generator=noise, dtype=self.dtype) for _ in range(self.views)]
            yield Batch(tuple(images), torch.randint(10, (BATCH,), generator=noise), torch.arange(BATCH))

    def once(self) -> Iterator[Batch]:
        return self.train(0, 1)


def build(learning: MaskLearning, model: str = "lenet300", objective: Objective | None = None) -> MaskedNetwork:
    return MaskedNetwork.build(
        model, objective or Supervised(), channels=1, image_size=8, classes=10, seed=3, mask_learning=learning
    )


def loop(
    bench: Engine, net: MaskedNetwork, wrapped: nn.Module, numbers: Numbers, spec: SGD | Adam | None = None
) -> TrainingLoop:
    fit = TrainConfig(
        length=f"{LENGTH}it", batch_size=BATCH, optimizer=spec or SGD(lr=0.05, nesterov=True), drops=("3it",)
    )
    return bench.make_loop(net, wrapped, numbers, fit, set_size=40, seed=0, progress=Progress(0, show=False))


def trained(net: MaskedNetwork, numbers: Numbers | None = None, steps: int = LENGTH, **machine: object) -> TrainingLoop:
    bench = Engine.create(RuntimeConfig(**machine), "fp32")  # type: ignore[arg-type]
    with bench.prepare(net) as wrapped:
        training = loop(bench, net, wrapped, numbers or Numbers())
        training.run(0, steps)
    return training


def state(net: MaskedNetwork) -> dict[str, Tensor]:
    return {
        name: value.clone() for name, value in (pruned_model.read_state(net) | pruned_model.gate_scores(net)).items()
    }


@pytest.mark.parametrize("divided", [False, True])
@pytest.mark.parametrize("start", [0, 4])
def test_continuous_sparsification_is_its_algorithm_in_double_precision(divided: bool, start: int) -> None:
    """Two steps of Algorithm 3 with momentum and a drop of the rate, on a plain net that knows no gates."""
    learning = MaskLearning(
        gate=partial(soft, divided=divided), optimizer=SGD(lr=0.4, momentum=0.5, weight_decay=0.0), penalty=LAMBDA
    )
    net = build(learning).double()
    plain = models.create_model("lenet300", channels=1, image_size=8).double()
    weights = {name: value.requires_grad_() for name, value in pruned_model.read_state(net).items()}
    names = list(pruned_model.learned_gates(net.backbone))
    scores = {name: torch.full_like(weights[f"backbone.{name}"], S0, requires_grad=True) for name in names}
    momenta = {name: torch.zeros_like(value) for name, value in (weights | scores).items()}
    bench = Engine.create(RuntimeConfig(), "fp32")
    with bench.prepare(net) as wrapped:
        training = loop(bench, net, wrapped, Numbers(torch.float64), SGD(lr=0.05, weight_decay=0.1))
        training.mask_start = start
        for step, batch in zip(range(start, start + 2), Numbers(torch.float64).train(start, start + 2), strict=True):
            beta, scale = FINAL ** ((step - start) / (LENGTH - start)), 1 + math.exp(-S0) if divided else 1.0
            masks = {name: scale / (1 + torch.exp(-beta * score)) for name, score in scores.items()}
            own = {name.removeprefix("backbone."): value for name, value in weights.items() if "backbone" in name}
            features = torch.func.functional_call(
                plain, own | {name: own[name] * masks[name] for name in names}, batch.views[0]
            )
            task = F.cross_entropy(F.linear(features, weights["heads.weight"], weights["heads.bias"]), batch.labels)
            loss = task + LAMBDA * torch.stack([mask.sum() for mask in masks.values()]).sum()
            for one in pruned_model.learned_gates(net).values():
                one.on_step((step - start) / (LENGTH - start), 0)
            assert sum(net(batch, 0.0).values()).item() == pytest.approx(loss.item(), abs=1e-10)
            loss.backward()
            drop = 1.0 if step < 3 else 0.1
            with torch.no_grad():
                for group, lr, momentum, decay in ((weights, 0.05, 0.9, 0.1), (scores, 0.4, 0.5, 0.0)):
                    for name, value in group.items():
                        assert value.grad is not None
                        momenta[name].mul_(momentum).add_(value.grad + decay * value)
                        value -= drop * lr * momenta[name]
                        value.grad = None
            training.run(step, step + 1)
            assert training.loss == pytest.approx(task.item(), rel=1e-6), "the loss that is told is the task's"
            for name, value in pruned_model.read_state(net).items():
                torch.testing.assert_close(value, weights[name].detach(), rtol=0, atol=1e-10)
            for name, one in pruned_model.learned_gates(net.backbone).items():
                torch.testing.assert_close(one.score.detach(), scores[name].detach(), rtol=0, atol=1e-10)


@pytest.mark.parametrize("kind", LEARNING)
def test_parts_of_a_batch_share_a_mask_and_are_penalised_once(kind: str) -> None:
    whole, parts = build(LEARNING[kind]), build(LEARNING[kind])
    trained(whole)
    trained(parts, accumulate=4)
    for name, value in state(whole).items():
        torch.testing.assert_close(state(parts)[name], value, rtol=1e-4, atol=1e-5)


def one_of_two(rank: int, folder: str) -> None:
    for kind, learning in LEARNING.items():
        net = build(learning)
        steps(net, nn.parallel.DistributedDataParallel(net), slice(4 * rank, 4 * rank + 4))
        torch.save(state(net), f"{folder}/{kind}-{rank}")


def steps(net: MaskedNetwork, wrapped: nn.Module, rows: slice) -> None:
    """Three steps in the loop's order on these rows of each batch."""
    chosen = build_network_optimizer(net, SGD(lr=0.05))
    for step, batch in zip(range(3), Numbers().train(0, 3), strict=True):
        for number, one in enumerate(pruned_model.learned_gates(net).values()):
            one.on_step(step / 3, 10 * step + number)
        part = Batch((batch.views[0][rows],), batch.labels[rows], batch.indices[rows])
        chosen.zero_grad()
        torch.stack(list(wrapped(part, step / 3).values())).sum().backward()
        chosen.step()


def test_two_processes_learn_the_mask_that_one_learns_from_the_joined_batch(tmp_path: Path) -> None:
    run_in_processes(one_of_two, tmp_path)
    for kind, learning in LEARNING.items():
        net = build(learning)
        before = state(net)
        steps(net, net, slice(None))
        mine, theirs = (torch.load(tmp_path / f"{kind}-{rank}") for rank in range(2))
        for name, value in state(net).items():
            torch.testing.assert_close(mine[name], value, rtol=1e-4, atol=1e-5)
            assert torch.equal(mine[name], theirs[name]), name
        assert all(not torch.equal(value, before[name]) for name, value in state(net).items() if name.endswith("score"))


@pytest.mark.parametrize("kind", LEARNING)
def test_frozen_weights_do_not_move_by_a_bit(kind: str) -> None:
    learning = MaskLearning(**(vars(LEARNING[kind]) | {"frozen": True}))
    net = build(learning, "conv3", BYOL(hidden=8, dim=4))
    before = state(net)
    trained(net, Numbers(views=2))
    for name, value in state(net).items():
        statistics = "running" in name or "num_batches" in name
        if not statistics and not name.endswith("score"):
            assert torch.equal(value, before[name]), name
    changed = [name for name, value in state(net).items() if not torch.equal(value, before[name])]
    assert all(f"backbone.{name}.score" in changed for name in pruned_model.learned_gates(net.backbone))
    assert "backbone.features.1.running_mean" in changed


def test_how_a_mask_is_learnt_does_not_change_the_initialisation() -> None:
    plain = MaskedNetwork.build("conv3", Supervised(), channels=1, image_size=8, classes=10, seed=3)
    for learning in LEARNING.values():
        for name, value in pruned_model.read_state(build(learning, "conv3")).items():
            assert torch.equal(value, pruned_model.read_state(plain)[name])


@pytest.mark.parametrize("kind", LEARNING)
def test_a_momentum_encoder_sees_the_step_s_temperature_and_coins(kind: str) -> None:
    net = build(LEARNING[kind], "conv3", MoCoV2(queue=16, dim=4, momentum=0.5))
    encoder = next(module for module in net.modules() if isinstance(module, MomentumEncoder))
    before = {name: one.score.detach().clone() for name, one in pruned_model.learned_gates(encoder.backbone).items()}
    trained(net, Numbers(views=2), steps=2)
    for name, one in pruned_model.learned_gates(net.backbone).items():
        theirs = pruned_model.learned_gates(encoder.backbone)[name]
        assert not torch.equal(theirs.score, before[name]), "scores follow"
        assert not torch.equal(theirs.score, one.score), "and slowly"
        with torch.no_grad():
            theirs.score.copy_(one.score)
            one.on_step(0.5, 1)
            theirs.on_step(0.5, 1)
        assert torch.equal(theirs.soft_mask(), one.soft_mask())
    if kind == "cs":
        temperatures = [one.get_buffer("temperature").item() for one in pruned_model.learned_gates(net).values()]
        assert temperatures == pytest.approx([FINAL**0.5] * len(temperatures))


@pytest.mark.parametrize("kind", LEARNING)
@pytest.mark.parametrize("objective", [Supervised(), MoCoV2(queue=16, dim=4, momentum=0.9)], ids=["labels", "mocov2"])
def test_a_resumed_training_learns_the_same_mask_bit_for_bit(tmp_path: Path, kind: str, objective: Objective) -> None:
    bench, path, numbers = Engine.create(RuntimeConfig(), "fp32"), tmp_path / "snapshot.safetensors", Numbers(views=2)
    straight, first, second = (build(LEARNING[kind], "conv3", objective) for _ in range(3))
    with bench.prepare(straight) as wrapped:
        loop(bench, straight, wrapped, numbers, Adam(lr=1e-3)).run(0, LENGTH)
    with bench.prepare(first) as wrapped:
        half = loop(bench, first, wrapped, numbers, Adam(lr=1e-3))
        half.run(0, 2)
        checkpoint.save_checkpoint(path, half, 2, bench.accelerator)
    with bench.prepare(second) as wrapped:
        rest = loop(bench, second, wrapped, numbers, Adam(lr=1e-3))
        assert checkpoint.restore_checkpoint(path, rest, bench.accelerator) == 2
        rest.run(2, LENGTH)
    for name, value in state(straight).items():
        assert torch.equal(state(second)[name], value), name
    again = copy.deepcopy(first)
    checkpoint.save_network(path, second)
    pruned_model.write_gate_scores(again, checkpoint.load_gate_scores(path))
    pruned_model.write_state(again, checkpoint.load_network(path))
    assert all(torch.equal(state(again)[name], value) for name, value in state(straight).items())
