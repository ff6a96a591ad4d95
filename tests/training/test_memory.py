"""What a training needs of memory, told before it runs, beside what a run on the CPU takes."""

import dataclasses
import gc
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from sslticket.config.recipe import Data, Precision
from sslticket.config.runtime import RuntimeConfig
from sslticket.config.training import LARS, SGD, Adam, Optimizer, RMSprop, TrainConfig
from sslticket.data.augment import View
from sslticket.data.loader import Batch, LabelledStream, MemoryLoader, Sampler
from sslticket.data.manifest import Manifest
from sslticket.data.source import open_split
from sslticket.data.unreadable import UnreadableImages
from sslticket.errors import BadInput
from sslticket.evaluation import tasks
from sslticket.evaluation.jobs import evaluate_tasks
from sslticket.objectives.base import Network, Objective
from sslticket.objectives.byol import BYOL
from sslticket.objectives.dino import DINO
from sslticket.objectives.exemplar import Exemplar
from sslticket.objectives.mocov2 import MoCoV2
from sslticket.objectives.rotnet import RotNet
from sslticket.objectives.s4l import S4LExemplar, S4LRotation
from sslticket.objectives.simclr import SimCLR
from sslticket.objectives.supervised import Supervised
from sslticket.objectives.swav import SwAV
from sslticket.objectives.vicreg import VICReg
from sslticket.search.base import Search
from sslticket.search.imp import IMP
from sslticket.search.learned import ContinuousSparsification, StochasticSparsification
from sslticket.search.plan import plan_search
from sslticket.search.run_search import run_search
from sslticket.training import memory
from sslticket.training.engine import Engine
from sslticket.training.memory import (
    DeviceMemory,
    MemoryEstimate,
    MemoryModel,
    ShapeOnlyMode,
    format_bytes,
    min_accumulation_steps,
)
from sslticket.training.network import MaskedNetwork
from sslticket.training.optim import build_network_optimizer
from sslticket.training.progress import Progress
from tests.recipes import load
from tests.runs import recipe, search, tickets

CLASSES = 10


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """A training that is told of and run."""

    model: str = "resnet20"
    objective: Objective = dataclasses.field(default_factory=Supervised)
    size: int = 32
    batch: int = 16
    precision: Precision = "fp32"
    optimizer: Optimizer = dataclasses.field(default_factory=lambda: SGD(lr=0.001))
    search: Search | None = None

    @property
    def fit(self) -> TrainConfig:
        return TrainConfig(length="100it", batch_size=self.batch, optimizer=self.optimizer)

    @property
    def views(self) -> tuple[View, ...]:
        return self.objective.views(View(size=self.size, crop="center"))

    @property
    def labelled(self) -> LabelledStream | None:
        share = self.objective.labelled_fraction
        return None if share is None else LabelledStream(self.batch, share)

    def net(self, kind: type[MaskedNetwork] = MaskedNetwork) -> MaskedNetwork:
        learning = self.search and self.search.mask_learning(self.fit, self.fit.clock(2 * self.batch))
        return kind.build(
            self.model,
            self.objective,
            channels=3,
            image_size=self.size,
            classes=CLASSES,
            seed=0,
            mask_learning=learning or None,
        )

    def needs(self, resident: int = 0) -> MemoryModel:
        return MemoryModel.measure(
            self.net, self.views, self.fit, self.precision, channels=3, labelled=self.labelled, resident=resident
        )

    def loader(self) -> MemoryLoader:
        """Twice a batch of noise; what the images show does not matter here."""
        count = 2 * self.batch
        labels = np.arange(count) % CLASSES
        if self.labelled is not None:
            labels = np.where(np.arange(count) < self.batch, labels, -1)
        frame = pd.DataFrame({"item": np.arange(count), "label": labels})
        images = np.random.default_rng(0).integers(0, 256, (count, self.size, self.size, 3), dtype=np.uint8)
        return MemoryLoader(
            images,
            Manifest(frame, tuple(map(str, range(CLASSES))), "noise", "train", None),
            self.views,
            Sampler(count, self.batch, 1, labelled=self.labelled),
            mean=(0.5,) * 3,
            std=(0.25,) * 3,
            augment_seed=1,
            device=torch.device("cpu"),
            channels_last=False,
            unreadable=UnreadableImages("noise", 0, {}),
        )

    def peak(self) -> int:
        """The most bytes that torch held at once while net and optimiser were made and took two steps."""
        bench, batches = Engine.create(RuntimeConfig(), self.precision), self.loader()
        gc.collect()  # the network of a test before may be there until another is prepared
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
                net = self.net()
                with bench.prepare(net) as wrapped:
                    progress = Progress(0, show=False)
                    loop = bench.make_loop(
                        net, wrapped, batches, self.fit, set_size=2 * self.batch, seed=0, progress=progress
                    )
                    loop.run(0, 2)
        events = [event for event in seen.profiler.kineto_results.events() if event.name() == "[memory]"]
        changes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
        return int(np.cumsum(changes).max())


CASES = {
    "resnet20": Case(batch=32),
    "rotnet": Case(objective=RotNet()),
    "rotnet bf16": Case(objective=RotNet(), precision="bf16"),
    "conv3": Case(model="conv3", batch=64),
    "vgg19 adam": Case(model="vgg19", optimizer=Adam(lr=1e-3), batch=32),
    "vgg19 bf16": Case(model="vgg19", batch=32, precision="bf16"),
    "simclr": Case(objective=SimCLR()),
    "moco": Case(objective=MoCoV2(queue=4096)),
    "s4l": Case(objective=S4LRotation()),
    "continuous": Case(search=ContinuousSparsification(), batch=32),
}
SLOW = {
    "resnet18": Case(model="resnet18", size=64, optimizer=RMSprop(lr=1e-3)),
    "byol": Case(objective=BYOL(hidden=512)),
    "dino": Case(objective=DINO(outputs=1024, hidden=512), model="resnet18", size=64, batch=4),
    "dino bf16": Case(objective=DINO(outputs=1024, hidden=512), model="resnet18", size=64, batch=4, precision="bf16"),
    "swav": Case(objective=SwAV(prototypes=300), model="resnet18", size=64, batch=8),
    "vicreg": Case(objective=VICReg(hidden=512, dim=512), model="resnet18", size=64),
    "exemplar": Case(objective=Exemplar(dim=64)),
    "s4l exemplar": Case(
        objective=S4LExemplar(exemplar=Exemplar(copies=4, dim=64, mining="hard", degrees=0.0)), batch=8
    ),
    "stochastic": Case(search=StochasticSparsification(), batch=32),
    "frozen": Case(search=StochasticSparsification(frozen=True, rewind="0it"), batch=32),
}


@pytest.mark.parametrize(
    "case",
    [*CASES.values(), *(pytest.param(case, marks=pytest.mark.slow) for case in SLOW.values())],
    ids=[*CASES, *SLOW],
)
def test_what_is_told_is_within_15_percent_of_what_a_run_takes(case: Case) -> None:
    # The resident images lie there before the run is watched.
    told, taken = case.needs().estimate(case.batch).total, case.peak()
    assert abs(told / taken - 1) < 0.15, f"{format_bytes(told)} told, {format_bytes(taken)} taken"


def test_the_main_recipe_keeps_85_9_mb_for_each_turned_image() -> None:
    """So its batch of 1,536 needs 528 GB of one GPU, 6,144 turned images."""
    which = load("rotnet_resnet50")
    view = View(size=224, crop="resized")
    build = lambda kind: kind.build(  # noqa: E731
        which.model, which.objective, channels=3, image_size=224, classes=1000, seed=0
    )
    whole = MemoryModel.measure(build, which.objective.views(view), which.training, "fp32", channels=3)
    need = whole.estimate(which.training.batch_size)
    assert need.activations / (4 * 1536) == pytest.approx(85.9e6, rel=1e-3)
    assert str(need).startswith("529 GB a device for a part of 1,536 images: activations 527.8, weights and masks 0.2")
    weights = 23_508_032 + 4 * 2049
    assert need.gradients == need.optimizer == 4 * weights
    assert need.weights == pytest.approx(4 * (weights + 23_454_912), rel=0.01), "with masks, and batch norm's buffers"
    half = MemoryModel.measure(build, which.objective.views(view), which.training, "bf16", channels=3).estimate(96)
    assert half.activations == pytest.approx(whole.estimate(96).activations / 2, rel=0.03)


def test_needs_grow_with_the_part_as_activations_do_and_pairs_with_its_square() -> None:
    rotnet = Case(objective=RotNet()).needs()
    each = rotnet.estimate(9).activations - rotnet.estimate(8).activations
    assert rotnet.activation_polynomial[2] == 0
    assert rotnet.estimate(108).activations - rotnet.estimate(8).activations == 100 * each
    assert SimCLR().views_compared == 2
    assert Case(objective=SimCLR()).needs().activation_polynomial[2] > 0


def test_measuring_keeps_no_network_alive() -> None:
    """A worker of a campaign measures a thousand searches, one after another."""
    case = Case()
    case.needs()
    gc.collect()
    before = sum(type(each) is torch.nn.Parameter for each in gc.get_objects())
    case.needs()
    gc.collect()
    assert sum(type(each) is torch.nn.Parameter for each in gc.get_objects()) == before


@pytest.mark.parametrize("spec", [SGD(lr=0.1), SGD(lr=0.1, momentum=0.0), Adam(lr=0.1), RMSprop(lr=0.1), LARS(lr=0.1)])
@pytest.mark.parametrize("search", [None, StochasticSparsification(score_optimizer="adam")], ids=["", "scores"])
def test_the_state_that_is_told_is_what_the_optimiser_has_after_a_step(spec: Optimizer, search: Search | None) -> None:
    case = Case(optimizer=spec, search=search, model="conv3")
    net = case.net()
    optimizer = build_network_optimizer(net, spec)
    for parameter in net.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    tensors = [value for state in optimizer.state.values() for value in state.values() if torch.is_tensor(value)]
    size = sum(value.numel() * value.element_size() for value in tensors if value.numel() > 1)
    single = sum(parameter.numel() == 1 for parameter in net.parameters())
    assert single == 0
    assert case.needs().optimizer == size


@pytest.mark.parametrize("crop", ["pad", "resized"])
def test_resident_images_take_what_is_told(crop: str) -> None:
    source = open_split("digits", "train")
    view = View(size=8, crop=crop, pad=2) if crop == "pad" else View(size=8, crop="resized")  # type: ignore[arg-type]
    each = 12 * 12 if crop == "pad" else 8 * 8
    assert memory.resident_bytes(source, (view,)) == len(source.manifest) * each
    assert memory.resident_bytes(dataclasses.replace(source, images=None), (view,)) == 0


def needs(image: int) -> MemoryModel:
    return MemoryModel(
        weights=100,
        gradients=0,
        optimizer=0,
        resident_set=0,
        views=0,
        activation_polynomial=(0, image, 0),
        on_gpu=False,
    )


def test_the_fewest_equal_parts_that_fit_are_taken() -> None:
    assert min_accumulation_steps(needs(10), 12, free=220) == 1
    assert min_accumulation_steps(needs(10), 12, free=219) == 2
    assert min_accumulation_steps(needs(10), 12, free=159) == 3, "4 and a half images do not divide the share"
    assert min_accumulation_steps(needs(10), 7, free=169) == 7, "only single images divide 7"
    assert min_accumulation_steps(needs(10), 12, free=5) == 12, "nothing fits, and that is said elsewhere"


def test_too_little_memory_is_one_line_with_both_numbers() -> None:
    need = MemoryEstimate(6144, 528 * 10**9, 0, 0, 0, 0, 0)
    with pytest.raises(BadInput) as refused:
        DeviceMemory("NVIDIA H100", 79 * 10**9).check(need, "--ghost-batch 96 (another recipe)", "more processes")
    assert str(refused.value) == (
        "a part of 6,144 images needs 528 GB, and NVIDIA H100 has 79.0 GB; "
        "give --ghost-batch 96 (another recipe) or more processes"
    )
    assert DeviceMemory("NVIDIA H100", 528 * 10**9).check(need, "nothing") == ""


def test_what_may_fit_after_all_is_tried_with_a_warning() -> None:
    need = MemoryEstimate(256, 80 * 10**9, 10**8, 10**8, 10**8, 10**8, 5 * 10**9)
    assert need.minimum == 40 * 10**9 + 2 * 10**8, "a compiler keeps half, and the rest is a guess"
    assert DeviceMemory("NVIDIA H100", 79 * 10**9).check(
        need, "--ghost-batch 128 (another recipe)", "more processes"
    ) == (
        "a part of 256 images needs about 85.4 GB, and NVIDIA H100 has 79.0 GB; where that is not enough, "
        "give --ghost-batch 128 (another recipe) or more processes"
    )
    with pytest.raises(BadInput, match="a part of 256 images needs"):
        DeviceMemory("NVIDIA H100", need.minimum - 1).check(need, "more processes")
    mostly = MemoryEstimate(1, 10**6, 10**9, 10**9, 10**9, 0, 0)
    assert mostly.minimum == 3 * 10**9, "activations are gone where gradients are whole"


def test_a_search_that_may_not_fit_says_so_and_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    planned = plan_search(recipe(RotNet(), model="resnet20"), RuntimeConfig(), tmp_path)
    assert planned.memory_model is not None
    small(monkeypatch, planned.memory_model.estimate(32).total - 1)
    run_search(planned, RuntimeConfig())
    assert "a part of 32 images needs about" in capsys.readouterr().err
    assert tickets(planned)


def small(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    """Let the device have so much memory."""
    monkeypatch.setattr(DeviceMemory, "of_device", classmethod(lambda cls, device: cls("a small device", free)))


def test_a_search_that_cannot_fit_ends_before_its_first_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planned = plan_search(recipe(RotNet(), model="resnet20"), RuntimeConfig(), tmp_path)
    assert planned.memory_model is not None
    small(monkeypatch, planned.memory_model.estimate(8).total)
    with pytest.raises(BadInput, match=r"a part of 32 images needs .* give --ghost-batch 8 \(another recipe\), "):
        run_search(planned, RuntimeConfig())
    assert not list(tmp_path.rglob("*.safetensors"))


def test_without_batch_norm_a_share_goes_in_as_many_parts_as_memory_asks_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    which = recipe(model="lenet300", search=IMP(levels=1, rate=0.5, rewind="2it"))
    whole = tickets(search(tmp_path / "whole", which))
    planned = plan_search(which, RuntimeConfig(), tmp_path / "parts")
    assert planned.memory_model is not None
    small(monkeypatch, planned.memory_model.estimate(8).total)
    run_search(planned, RuntimeConfig())
    assert "a share of 32 images goes through the network in 4 parts" in capsys.readouterr().err
    for ours, theirs in zip(whole, tickets(planned), strict=True):
        assert sum(int((ours.mask[name] ^ theirs.mask[name]).sum()) for name in ours.mask) <= 0.001 * ours.mask.total
    small(monkeypatch, 1000)
    with pytest.raises(BadInput, match="a part of 32 images needs"):
        run_search(plan_search(which, RuntimeConfig(accumulate=1), tmp_path / "given"), RuntimeConfig(accumulate=1))


def test_an_evaluation_that_cannot_fit_ends_with_what_helps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    searched = search(tmp_path, recipe(search=IMP(levels=1, rate=0.5, rewind="2it")))
    rows = tasks.make_tasks([searched.run_dir.ticket_path(1)], [], ["digits-demo"], [0])
    small(monkeypatch, 1000)
    with pytest.raises(BadInput, match=r"images needs .* give more processes, --precision bf16 or a device with"):
        list(evaluate_tasks(rows, Engine.create(RuntimeConfig(), "fp32")))


class Picky(RotNet):
    def loss(self, net: Network, batch: Batch, progress: float) -> dict[str, torch.Tensor]:
        if len(batch.indices) < 8:
            raise RuntimeError("eight images are the least")
        return super().loss(net, batch, progress)


def test_an_objective_that_cannot_do_with_a_few_blank_images_is_searched_with_all_the_same(tmp_path: Path) -> None:
    planned = search(tmp_path, recipe(Picky(), search=IMP(levels=1, rate=0.5, rewind="2it")))
    assert planned.memory_model is None
    assert planned.describe().splitlines()[-1].split(maxsplit=1) == ["memory", "known only when it runs"]
    assert tickets(planned)[1].mask.density == 0.5


def test_blank_arithmetic_gives_the_shapes_and_types_of_real_arithmetic() -> None:
    x, weight = torch.randn(4, 16, 33, 33), torch.randn(24, 16, 3, 3)
    mask = torch.rand(4, 16, 33, 33) > 0.5

    def results() -> list[torch.Tensor]:
        a = x.flatten(1)
        return [
            torch.nn.functional.conv2d(x, weight, stride=2, padding=1, dilation=2),
            torch.nn.functional.batch_norm(x, None, None, training=True),
            torch.nn.functional.max_pool2d(x, 3, 2, 1),
            torch.nn.functional.max_pool2d(x, 2),
            x * torch.ones(16, 1, 1),
            x > 0,
            x.double() + 1,
            x.bfloat16(),
            torch.cat([x, x], dim=2),
            x[mask],
            a @ a.T,
            torch.nn.functional.linear(a, torch.ones(5, a.shape[1]), torch.ones(5)),
            x.softmax(1),
            torch.nn.functional.layer_norm(x, (33, 33)),
            torch.ones_like(x),
        ]

    real = results()
    with ShapeOnlyMode():
        blank = results()
    assert [(one.shape, one.dtype) for one in blank] == [(one.shape, one.dtype) for one in real]


def test_a_dry_run_tells_what_a_training_needs(tmp_path: Path) -> None:
    text = plan_search(recipe(RotNet(), data=Data(dataset="digits")), RuntimeConfig(), tmp_path).describe()
    (line,) = [line for line in text.splitlines() if line.startswith("memory")]
    assert " a device for a part of 32 images: activations " in line
    fit = TrainConfig(length="6it", batch_size=32, optimizer=SGD(lr=0.1), ghost_batch=8)
    assert (
        " a device for a part of 8 images: "
        in plan_search(recipe(RotNet(), training=fit), RuntimeConfig(), tmp_path).describe()
    )


def test_a_dry_run_imports_no_compiler() -> None:
    """It takes longer than all the rest."""
    root = Path(__file__).parents[2]
    script = (
        "import runpy, sys; sys.argv[1:] = ['--dry-run']\n"
        "try: runpy.run_path('recipes/rotnet_digits.py', run_name='__main__')\n"
        "except SystemExit: print({'torch._dynamo', 'accelerate', 'sympy'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True)
    *told, imported = done.stdout.splitlines()
    assert any(line.startswith("memory ") for line in told)
    assert imported == "set()"
