"""Loss scaling with float16, on a CPU that is told to scale: a step that overflows is as if it had never been."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sslticket.config.recipe import Precision
from sslticket.config.runtime import RuntimeConfig
from sslticket.config.training import LARS, SGD, Adam, AdamW, Optimizer, RMSprop, TrainConfig
from sslticket.data.loader import Batch
from sslticket.objectives.base import Network
from sslticket.objectives.supervised import Supervised
from sslticket.search.learned import ContinuousSparsification
from sslticket.training import checkpoint
from sslticket.training.engine import Engine
from sslticket.training.loop import TrainingLoop
from sslticket.training.network import MaskedNetwork
from sslticket.training.optim import CombinedOptimizer
from sslticket.training.progress import Progress
from sslticket.training.trackers import TrackerSet
from tests.runs import recipe, search, tickets

OPTIMIZERS = [SGD(lr=0.05), SGD(lr=0.05, nesterov=True), Adam(lr=1e-3), RMSprop(lr=1e-3, momentum=0.9)]
CASES = [
    (LARS(lr=0.1), False),
    (AdamW(lr=1e-3, last_weight_decay=0.5), False),
    *[(optimizer, learnt) for optimizer in OPTIMIZERS for learnt in (False, True)],
]


@dataclass(frozen=True)
class Overflows(Supervised):
    """Its gradient is beyond float16 in the first step alone."""

    def loss(self, net: Network, batch: Batch, progress: float) -> dict[str, Tensor]:
        return {"labels": super().loss(net, batch, progress)["labels"] * (1 if progress else 1e30)}


@dataclass(frozen=True)
class Loud(Supervised):
    """Its gradient is beyond float16 at the scale with which scaling begins, and within at a half or a quarter."""

    def loss(self, net: Network, batch: Batch, progress: float) -> dict[str, Tensor]:
        return {"labels": super().loss(net, batch, progress)["labels"] * 60}


class Numbers:
    """Random 8x8 "images" with labels: for arithmetic only."""

    unreadable: dict[str, str] = {}  # noqa: RUF012

    def train(self, start: int, stop: int) -> Iterator[Batch]:
        for step in range(start, stop):
            generator = torch.Generator().manual_seed(step)
            images = torch.randn(16, 1, 8, 8, generator=generator)
            yield Batch((images,), torch.randint(10, (16,), generator=generator), torch.arange(16))

    def once(self) -> Iterator[Batch]:
        return self.train(0, 1)


real_on = Engine.create


def scaling(machine: RuntimeConfig, precision: Precision = "fp16", trackers: TrackerSet | None = None) -> Engine:
    """A workbench that scales losses; accelerate itself refuses to on a CPU."""
    bench = real_on(machine, "fp32", trackers)
    bench.precision = precision
    bench.accelerator.state._mixed_precision, bench.accelerator.native_amp = "fp16", True
    bench.accelerator.scaler = torch.amp.GradScaler("cpu")
    return bench


def training(bench: Engine, optimizer: Optimizer, *, learnt: bool = False, clip: float | None = None) -> TrainingLoop:
    fit = TrainConfig(length="8it", batch_size=16, optimizer=optimizer, clip=clip)
    learning = ContinuousSparsification().mask_learning(fit, fit.clock(32)) if learnt else None
    net = MaskedNetwork.build(
        "conv3", Overflows(), channels=1, image_size=8, classes=10, seed=3, mask_learning=learning
    )
    # What the allocator hands out again: momentum that nobody filled would be 7.
    junk = [torch.full_like(parameter, 7.0) for parameter in net.parameters()]
    del junk
    with bench.prepare(net) as wrapped:
        return bench.make_loop(net, wrapped, Numbers(), fit, set_size=32, seed=0, progress=Progress(0, show=False))


@pytest.mark.parametrize("clip", [None, 0.5], ids=["", "clipped"])
@pytest.mark.parametrize(("optimizer", "learnt"), CASES, ids=str)
def test_a_first_step_that_overflows_leaves_no_trace(optimizer: Optimizer, learnt: bool, clip: float | None) -> None:
    bench = scaling(RuntimeConfig())
    first = training(bench, optimizer, learnt=learnt, clip=clip)
    drawn = [parameter.detach().clone() for parameter in first.network.parameters()]
    first.run(0, 1)
    assert all(torch.equal(*pair) for pair in zip(first.network.parameters(), drawn, strict=True))
    assert bench.accelerator.scaler.get_scale() == 2.0**15
    for part in first.optimizer.optimizers if isinstance(first.optimizer, CombinedOptimizer) else [first.optimizer]:
        assert all(not value.any() for values in part.state.values() for value in values.values())
    first.run(1, 8)
    second = training(bench, optimizer, learnt=learnt, clip=clip)
    assert bench.accelerator.scaler.get_scale() == 2.0**16, "a training has a scaler of its own"
    bench.accelerator.scaler.load_state_dict(bench.accelerator.scaler.state_dict() | {"scale": 2.0**15})
    second.run(1, 8)
    for one, other in zip(first.network.parameters(), second.network.parameters(), strict=True):
        assert torch.equal(one, other)
        assert one.isfinite().all()


@pytest.mark.parametrize("optimizer", [SGD(lr=0.05), Adam(lr=1e-3), AdamW(lr=1e-3)], ids=["sgd", "adam", "adamw"])
def test_optimisers_that_skip_on_the_device_ask_the_host_nothing(
    optimizer: Optimizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = scaling(RuntimeConfig())
    for learnt in (False, True):
        loop = training(bench, optimizer, learnt=learnt)
        loop.run(0, 1)
        monkeypatch.setattr(torch.amp.GradScaler, "_maybe_opt_step", None)
        loop.run(1, 2)


def test_snapshots_keep_the_scale_and_old_ones_without_momentum_start_at_zero(tmp_path: Path) -> None:
    bench, path = scaling(RuntimeConfig()), tmp_path / "snapshot.safetensors"
    first = training(bench, SGD(lr=0.05))
    first.run(0, 1)
    first.optimizer.state.clear()  # as before momentum was begun with zeros
    checkpoint.save_checkpoint(path, first, 1, bench.accelerator)
    second = training(bench, SGD(lr=0.05))
    assert checkpoint.restore_checkpoint(path, second, bench.accelerator) == 1
    assert bench.accelerator.scaler.get_scale() == 2.0**15
    assert len(second.optimizer.state) == len(list(second.network.parameters()))
    assert all(not values["momentum_buffer"].any() for values in second.optimizer.state.values())


def test_a_search_that_is_started_again_finds_the_same_tickets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Engine, "create", scaling)
    fit = TrainConfig(length="8it", batch_size=32, optimizer=SGD(lr=0.1 / 60))
    which = recipe(Loud(), training=fit, precision="fp16")
    planned = search(tmp_path, which)
    straight = tickets(planned)
    for level in (2, 3):
        planned.run_dir.ticket_path(level).unlink()
    again = tickets(search(tmp_path, which))
    assert [ticket.hash for ticket in again] == [ticket.hash for ticket in straight]
