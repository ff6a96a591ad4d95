"""How often the host waits in a step of training, and how many kernels a step launches: bounds that only fall."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from sslticket.analysis.connectivity import recalibrate_batch_norm
from sslticket.config.recipe import Recipe
from sslticket.data.augment import View
from sslticket.data.loader import Batch
from sslticket.objectives.supervised import Supervised
from sslticket.search import scoring
from sslticket.search.plan import plan_search
from sslticket.search.run_search import run_search
from sslticket.training import loop
from sslticket.training.engine import Engine
from sslticket.training.network import MaskedNetwork
from sslticket.training.progress import Progress
from tests.device import cases
from tests.device.conftest import Device
from tests.device.pretend import Pretend, Tally

PAD, RESIZED = View(size=16, crop="pad", pad=2, flip=True), View(size=16, crop="resized", flip=True)

# Waits of the host in a step on images that are kept on the device, by what is learnt and how images are cut. Looking
# at the losses is no part of a step: that is done once a second, however many steps there are in it.
WAITS: dict[tuple[str, View | None], int] = {
    ("supervised", PAD): 0,
    ("supervised", RESIZED): 0,
    ("shuffled", PAD): 0,
    ("rotnet", PAD): 0,
    ("rotnet", RESIZED): 0,
    ("s4l-rotation", PAD): 0,
    ("s4l-rotation", RESIZED): 0,
    # Views are the objectives' own.
    ("exemplar", None): 2,
    ("exemplar-hard", None): 2,
    ("s4l-exemplar", None): 2,
    ("simclr", None): 2,
    ("mocov2", None): 2,
    ("byol", None): 2,
    ("simsiam", None): 2,
    ("barlowtwins", None): 2,
    ("vicreg", None): 2,
    ("swav", None): 2,
    ("dino", None): 2,
    ("mae", None): 2,
    ("dinov2", None): 2,
}
SEARCHES = {"CS": 0, "ISS": 0, "edge-popup": 0, "IMP": 0}  # of labels; in bfloat16 too
SIMCLR_KERNELS = 300  # of a ResNet-18 for CIFAR with LARS, 64 images a batch; 1,384 once


@pytest.fixture
def steps(device: Device, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[Recipe], list[Tally]]:
    """What is counted in each step of a search but the first of each training, in which an optimiser makes its state.

    A step lasts from the end of the one before to its own: it has its batch in it, and looks at the losses are off.
    """

    def counted(which: Recipe) -> list[Tally]:
        found, before = list[Tally](), list[Tally]()
        advance, train = Progress.advance, loop.TrainingLoop.run

        def advanced(self: Progress, step: int, samples: int) -> None:
            assert Pretend.now is not None
            now = Pretend.now.mark()
            found.extend(now.since(mark) for mark in before)
            before[:] = [now]
            advance(self, step, samples)

        def trained(self: loop.TrainingLoop, start: int, stop: int) -> None:
            before.clear()
            train(self, start, stop)

        monkeypatch.setattr(loop, "_CHECK_SECONDS", math.inf)
        monkeypatch.setattr(Progress, "advance", advanced)
        monkeypatch.setattr(loop.TrainingLoop, "run", trained)
        with device():
            planned = plan_search(which, cases.MACHINE, tmp_path)
            run_search(planned, cases.MACHINE)
        return found

    return counted


def assert_within(found: list[Tally], waits: int) -> None:
    assert len(found) >= 3, "steps were counted"
    worst = max(found, key=lambda each: each.waits.total())
    assert worst.waits.total() <= waits, "\n".join(f"{count} x {what}" for what, count in worst.waits.items())


@pytest.mark.parametrize(("objective", "view"), WAITS)
def test_the_host_waits_no_oftener_in_a_step(
    steps: Callable[[Recipe], list[Tally]], objective: str, view: View | None
) -> None:
    data = {} if view is None else {"augment": view}
    which = cases.recipe(
        objective, search=cases.imp(levels=1, rewind="0it"), steps=4, batch_size=32, channels=3, **data
    )
    assert_within(steps(which), WAITS[objective, view])


@pytest.mark.parametrize("search", SEARCHES)
def test_learning_a_mask_makes_the_host_wait_no_oftener(steps: Callable[[Recipe], list[Tally]], search: str) -> None:
    which = cases.recipe(search=cases.SEARCHES.get(search, cases.imp()), precision="bf16")
    assert_within(steps(which), SEARCHES[search])


@pytest.mark.parametrize("optimizer", cases.OPTIMIZERS)
def test_no_optimiser_makes_the_host_wait(steps: Callable[[Recipe], list[Tally]], optimizer: str) -> None:
    assert_within(steps(cases.recipe(search=cases.imp(levels=1), optimizer=optimizer, clip=1.0)), 0)


def test_a_step_of_simclr_launches_no_more_kernels(steps: Callable[[Recipe], list[Tally]]) -> None:
    which = cases.recipe(
        "simclr",
        search=cases.imp(levels=1, rewind="0it"),
        optimizer="LARS",
        model="resnet18_cifar",
        steps=3,
        batch_size=64,
        channels=3,
    )
    found = steps(which)
    assert len(found) >= 2
    worst = max(found, key=lambda each: each.kernels.total())
    assert worst.kernels.total() <= SIMCLR_KERNELS, "\n".join(
        f"{count} x {what}" for what, count in worst.kernels.most_common()
    )


def test_statistics_are_recalibrated_without_a_wait(device: Device) -> None:
    with device() as accelerator:
        bench = Engine.create(cases.MACHINE, "fp32")
        net = MaskedNetwork.build("conv3", Supervised(), channels=1, image_size=8, classes=10, seed=0).to("sim")
        given = [Batch((torch.rand(4, 1, 8, 8).to("sim"),), *torch.arange(4).to("sim").expand(2, 4))] * 3
        before = accelerator.mark()
        recalibrate_batch_norm(bench.accelerator, net, given)
        assert not accelerator.mark().since(before).waits


def test_scores_are_looked_at_with_one_wait_however_many_layers(device: Device) -> None:
    with device() as accelerator:
        found = {str(number): torch.ones(3, device="sim") for number in range(5)}
        scoring._check_scores(cases.CRITERIA["magnitude"], 0, found)
        assert accelerator.tally.waits.total() == 2, "whether they are finite, and whether all are 0"
