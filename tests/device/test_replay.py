"""Steps that are launched as a graph learn to the bit what eager ones learn, and cost hardly a launch."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch.nn.functional as F
from torch import Tensor, nn

from sslticket.config.recipe import Recipe
from sslticket.config.runtime import RuntimeConfig
from sslticket.config.training import TrainConfig
from sslticket.data.loader import Batch
from sslticket.objectives.base import Network
from sslticket.objectives.supervised import Supervised
from sslticket.search.plan import plan_search
from sslticket.search.run_search import run_search
from sslticket.ticket import Ticket
from sslticket.training import loop, numerics
from sslticket.training.loop import TrainingLoop
from sslticket.training.progress import Progress
from tests.device import cases, pretend
from tests.device.conftest import Device
from tests.training.test_snapshots import stopped_every

STEPS = 10
FAST = RuntimeConfig(accumulate=1, channels_last=False, compile=False)
EXACT = replace(FAST, exact=True)


class Counted(pretend.Graph):
    """Graphs that count their launches."""

    launched = 0

    def replay(self) -> None:
        """See the base class."""
        Counted.launched += 1
        super().replay()


@pytest.fixture(autouse=True)
def graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pretend device has graphs. Learning rates are float32 in every training, as a graph reads them."""
    monkeypatch.setitem(numerics.GRAPH_CLASSES, pretend.NAME, Counted)
    monkeypatch.setattr(Counted, "launched", 0)
    rate = TrainingLoop._learning_rate
    monkeypatch.setattr(TrainingLoop, "_learning_rate", lambda self, step: float(np.float32(rate(self, step))))


def found(which: Recipe, out: Path, machine: RuntimeConfig = FAST) -> list[Ticket]:
    planned = plan_search(which, machine, out)
    run_search(planned, machine)
    return [Ticket.load(planned.run_dir.ticket_path(level)) for level in range(planned.levels + 1)]


def assert_equal(some: list[Ticket], others: list[Ticket]) -> None:
    """To the bit: masks, weights, heads, and the images that were counted."""
    assert len(some) == len(others) > 1
    for one, other in zip(some, others, strict=True):
        assert one.mask.equals(other.mask)
        assert all(value.equal(other.weights[name]) for name, value in one.weights.items())
        assert all(value.equal(other.head[name]) for name, value in one.head.items())
        for counted in ("search_samples", "search_forward_images"):
            assert one.provenance[counted] == other.provenance[counted]


@dataclass(frozen=True)
class Dropping(Supervised):
    """Drops half of the features, so that torch's generator is drawn from in each step."""

    def heads(self, backbone: nn.Module, features: int, classes: int) -> nn.Module:
        """See the base class."""
        return nn.Sequential(nn.Dropout(0.5), nn.Linear(features, classes))

    def classifier(self, heads: nn.Module) -> nn.Module:
        """See the base class."""
        return heads.get_submodule("1")


@dataclass(frozen=True)
class Asking(Supervised):
    """Says that its steps are alike, and makes the host wait in each of them."""

    def loss(self, net: Network, batch: Batch, progress: float) -> dict[str, Tensor]:
        """See the base class."""
        logits = net.heads(F.dropout(net.backbone(batch.views[0]), 0.1))
        return {"labels": F.cross_entropy(logits, batch.labels) * (1 if logits.sum().item() else 2)}


DROPS = TrainConfig(length=f"{STEPS}it", batch_size=48, optimizer=cases.OPTIMIZERS["SGD"], warmup="3it", drops=("7it",))
RECIPES: dict[str, Recipe] = {
    "conv3, SGD": cases.recipe(steps=STEPS),
    "LeNet, Adam, clipped": cases.recipe(steps=STEPS, model="lenet300", optimizer="Adam", clip=0.1),
    "ResNet-20": cases.recipe(steps=STEPS, model="resnet20", search=cases.imp(levels=1), batch_size=16),
    "a schedule": replace(cases.recipe(), training=DROPS),
    "RotNet": cases.recipe("rotnet", steps=STEPS),
    "S4L": cases.recipe("s4l-rotation", steps=STEPS),
    "dropout": replace(cases.recipe(steps=STEPS), objective=Dropping()),
    "settling": cases.recipe(
        steps=STEPS, search=cases.imp(early_bird=0.5, early_bird_window=1, early_bird_every="4it")
    ),
    **{
        name: cases.recipe(steps=STEPS, search=cases.SEARCHES[name])
        for name in ("CS", "ISS", "edge-popup", "RigL", "SET")
    },
}


@pytest.mark.parametrize("name", RECIPES)
def test_a_search_by_graphs_finds_the_tickets_of_the_cpu(tmp_path: Path, device: Device, name: str) -> None:
    which = RECIPES[name]
    expected = found(which, tmp_path / "cpu")
    assert not Counted.launched
    with device():
        assert_equal(found(which, tmp_path / "there"), expected)
    assert Counted.launched >= 2


def test_a_search_by_graphs_that_is_stopped_between_replays_finds_the_tickets_of_the_cpu(
    tmp_path: Path, device: Device
) -> None:
    which = RECIPES["conv3, SGD"]
    expected = found(which, tmp_path / "cpu")
    with device():
        assert stopped_every(6, lambda: found(which, tmp_path / "there")) >= 2
        assert Counted.launched >= 2
        assert_equal(found(which, tmp_path / "there"), expected)


@pytest.mark.parametrize("change", [{"precision": "bf16"}, {"channels_last": True}], ids=str)
def test_it_finds_what_an_eager_search_of_the_same_numerics_finds(
    tmp_path: Path, device: Device, change: dict[str, object]
) -> None:
    which = cases.recipe(steps=STEPS, precision=change.get("precision", "fp32"))  # type: ignore[arg-type]
    machine = RuntimeConfig(accumulate=1, compile=False, channels_last=bool(change.get("channels_last")))
    with device():
        eager = found(which, tmp_path / "eager", replace(machine, exact=True))
        assert not Counted.launched
        assert_equal(found(which, tmp_path / "there", machine), eager)
    assert Counted.launched >= 2


def test_a_killed_search_by_graphs_goes_on_to_the_same_tickets(
    tmp_path: Path, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    which, whole = RECIPES["conv3, SGD"], TrainingLoop.run
    with device():
        expected = found(which, tmp_path / "whole")

        def killed(self: TrainingLoop, start: int, stop: int) -> None:
            whole(self, start, stop if start < cases.REWIND else stop - 2)
            if start:
                raise KeyboardInterrupt

        monkeypatch.setattr(TrainingLoop, "run", killed)
        with pytest.raises(KeyboardInterrupt):
            found(which, tmp_path / "killed")
        monkeypatch.setattr(TrainingLoop, "run", whole)
        assert_equal(found(which, tmp_path / "killed"), expected)


def test_what_no_graph_can_hold_is_said_and_learnt_all_the_same(
    tmp_path: Path, device: Device, capsys: pytest.CaptureFixture[str]
) -> None:
    which = replace(cases.recipe(steps=STEPS, search=cases.imp(levels=1)), objective=Asking())
    expected = found(which, tmp_path / "cpu")
    capsys.readouterr()
    with device():
        assert_equal(found(which, tmp_path / "there"), expected)
    said = capsys.readouterr().err
    assert said.count("steps are launched kernel by kernel, since no graph can hold one: aten._local_scalar_dense") == 1
    assert not Counted.launched


@pytest.mark.parametrize(
    ("which", "machine"),
    [
        (cases.recipe(), EXACT),
        (cases.recipe(model="lenet300"), replace(FAST, accumulate=2)),
        (cases.recipe(optimizer="LARS"), FAST),
        (cases.recipe("simsiam"), FAST),
        (cases.recipe(optimizer="Adam", precision="fp16"), FAST),
    ],
    ids=["exact", "parts", "LARS", "not steady", "scaled"],
)
def test_steps_that_are_not_alike_or_shall_be_exact_have_no_graph(
    tmp_path: Path, device: Device, which: Recipe, machine: RuntimeConfig
) -> None:
    with device():
        found(which, tmp_path, machine)
    assert not Counted.launched


def test_large_networks_have_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, device: Device) -> None:
    monkeypatch.setattr(numerics, "MAX_GRAPH_STATE", 1000)
    with device():
        found(cases.recipe(), tmp_path)
    assert not Counted.launched


def test_none_is_tried_after_one_that_failed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, device: Device) -> None:
    monkeypatch.setattr(numerics.CudaStepGraph, "failed", [numerics.CudaStepGraph.__new__(numerics.CudaStepGraph)])
    with device():
        found(cases.recipe(), tmp_path)
    assert not Counted.launched


@pytest.fixture
def launches(device: Device, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[Recipe], list[int]]:
    """Launches of each step but the loader's, from having its batch to its end."""

    def counted(which: Recipe) -> list[int]:
        each: list[int] = []
        taken = TrainingLoop._run_step

        def take(self: TrainingLoop, *args: object) -> Tensor:
            assert pretend.Pretend.now is not None
            before = pretend.Pretend.now.mark()
            loss = taken(self, *args)  # type: ignore[arg-type]
            found = pretend.Pretend.now.mark().since(before)
            assert not found.waits
            each.append(found.kernels.total())
            return loss

        monkeypatch.setattr(TrainingLoop, "_run_step", take)
        monkeypatch.setattr(loop, "_CHECK_SECONDS", float("inf"))
        monkeypatch.setattr(Progress, "advance", lambda *_: None)
        with device():
            found(which, tmp_path)
        return each

    return counted


@pytest.mark.parametrize("model", ["lenet300", "resnet20"])
def test_a_step_is_nearly_one_launch(launches: Callable[[Recipe], list[int]], model: str) -> None:
    counted = launches(cases.recipe(steps=STEPS, model=model, search=cases.imp(levels=1, rewind="0it"), batch_size=16))
    assert len(counted) == STEPS
    # Images, labels and rows are copied, the graph is launched, and the loss is kept.
    assert counted[4:] == [5] * (STEPS - 4)
    assert min(counted[:3]) > {"lenet300": 20, "resnet20": 150}[model]
