"""A training step on one device: ours, beside a plain torch loop of the same network, in turn and in one run."""

import statistics
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from sslticket import models
from sslticket.config.recipe import Precision
from sslticket.config.runtime import RuntimeConfig
from sslticket.config.training import LARS, SGD, Optimizer, TrainConfig
from sslticket.data.augment import View
from sslticket.data.loader import MemoryLoader, Sampler
from sslticket.data.manifest import Manifest
from sslticket.data.unreadable import UnreadableImages
from sslticket.objectives.base import Objective
from sslticket.objectives.rotnet import RotNet, four_rotations
from sslticket.objectives.simclr import SimCLR
from sslticket.objectives.supervised import Supervised
from sslticket.pruning import pruned_model
from sslticket.pruning.prunable import prunable_weights
from sslticket.search.base import Search
from sslticket.search.learned import ContinuousSparsification, StochasticSparsification
from sslticket.training.engine import Engine
from sslticket.training.loop import TrainingLoop
from sslticket.training.network import MaskedNetwork
from sslticket.training.progress import Progress

_CLASSES, _HALF = 100, {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, kw_only=True)
class Case:
    """A training whose steps are measured.

    Attributes:
        name: in the table.
        model: by name.
        size: side of the images in pixels.
        batch: source images in a step.
        objective: what is learnt.
        precision: of the passes.
        channels_last: NHWC order.
        compiled: by torch.compile.
        exact: nothing else that is fast.
        search: whose masks are learnt.
        optimizer: of both loops.
        steps: in a round.
        alone: there is no plain loop to put beside it.
    """

    name: str
    model: str
    size: int
    batch: int
    objective: Objective = field(default_factory=Supervised)
    precision: Precision = "bf16"
    channels_last: bool = True
    compiled: bool = False
    exact: bool = False
    search: Search | None = None
    optimizer: Optimizer = field(default_factory=lambda: SGD(lr=1e-3))
    steps: int = 20
    alone: bool = False

    def small(self) -> "Case":
        """For a CPU in a moment: the same way through the code, and numbers that mean nothing."""
        model = "resnet20" if self.model.startswith("resnet") else self.model
        return replace(self, model=model, size=32, batch=4, compiled=False, steps=1)

    @property
    def fit(self) -> TrainConfig:
        """The training, far longer than what is measured."""
        return TrainConfig(length="1000000it", batch_size=self.batch, optimizer=self.optimizer)


def _resnet50() -> Iterator[Case]:
    for precision in ("bf16", "fp32"):
        for last in (True, False):
            for compiled in (False, True):
                how = f"{precision} {'NHWC' if last else 'NCHW'} {'compiled' if compiled else 'eager'}"
                yield Case(
                    name=f"ResNet-50, labels, {how}",
                    model="resnet50",
                    size=224,
                    batch=256,
                    precision=precision,
                    channels_last=last,
                    compiled=compiled,
                )


_CIFAR = Case(name="ResNet-18 of CIFAR, labels, bf16", model="resnet18_cifar", size=32, batch=512, steps=50)
_SIMCLR = {"objective": SimCLR(), "optimizer": LARS(lr=0.1), "alone": True}

# What teaches most comes first: time may run out.
CASES: tuple[Case, ...] = (
    *(eager := [case for case in _resnet50() if not case.compiled]),
    Case(name="ResNet-50, RotNet, bf16", model="resnet50", size=224, batch=96, objective=RotNet()),
    _CIFAR,
    replace(_CIFAR, name="ResNet-20, labels, bf16", model="resnet20", batch=128, steps=200),
    replace(_CIFAR, name="ResNet-20, labels, fp32", model="resnet20", batch=128, steps=200, precision="fp32"),
    replace(_CIFAR, name="LeNet, labels, fp32", model="lenet300", batch=60, steps=300, precision="fp32"),
    replace(_CIFAR, name="ResNet-18 of CIFAR, SimCLR, bf16", steps=30, **_SIMCLR),  # type: ignore[arg-type]
    Case(name="ResNet-50, SimCLR, bf16", model="resnet50", size=224, batch=128, **_SIMCLR),  # type: ignore[arg-type]
    replace(_CIFAR, name="ResNet-18 of CIFAR, CS, bf16", search=ContinuousSparsification()),
    replace(_CIFAR, name="ResNet-18 of CIFAR, ISS, bf16", search=StochasticSparsification()),
    replace(_CIFAR, name="VGG-19, labels, bf16", model="vgg19", batch=512),
    replace(_CIFAR, name="ResNet-18 of CIFAR, labels, --exact", precision="fp32", channels_last=False, exact=True),
    *(case for case in _resnet50() if case not in eager),  # a minute or two each
)


@dataclass
class Ours:
    """The project's own loop on images that the device keeps."""

    loop: TrainingLoop
    done: int = 0

    @classmethod
    @contextmanager
    def of(cls, case: Case) -> Iterator["Ours"]:
        """Ready to train, until the block ends."""
        machine = RuntimeConfig(channels_last=case.channels_last, compile=case.compiled, exact=case.exact)
        bench, count = Engine.create(machine, case.precision), 2 * case.batch
        images = np.random.default_rng(0).integers(0, 256, (count, case.size, case.size, 3), dtype=np.uint8)
        frame = pd.DataFrame({"item": np.arange(count), "label": np.arange(count) % _CLASSES})
        view = View(size=case.size, crop="pad", pad=4, flip=True)
        learning = case.search and case.search.mask_learning(case.fit, case.fit.clock(count))
        net = MaskedNetwork.build(
            case.model,
            case.objective,
            channels=3,
            image_size=case.size,
            classes=_CLASSES,
            seed=0,
            mask_learning=learning or None,
        )
        batches = MemoryLoader(
            images,
            Manifest(frame, tuple(map(str, range(_CLASSES))), "noise", "train", None),
            case.objective.views(view),
            Sampler(count, case.batch, 1),
            mean=(0.5,) * 3,
            std=(0.25,) * 3,
            augment_seed=1,
            device=bench.accelerator.device,
            channels_last=bench.numerics.channels_last,
            unreadable=UnreadableImages("noise", 0, {}),
        )
        with bench.prepare(net) as wrapped:
            progress = Progress(0, show=False)
            yield cls(bench.make_loop(net, wrapped, batches, case.fit, set_size=count, seed=0, progress=progress))

    def steps(self, count: int) -> None:
        """Take further steps."""
        self.loop.run(self.done, self.done + count)
        self.done += count


class Plain:
    """What one would write for the same network without masks: torch alone, and one batch again and again."""

    def __init__(self, case: Case, device: torch.device, *, masked: bool = False) -> None:
        layout = torch.channels_last if case.channels_last else torch.contiguous_format
        backbone = models.create_model(case.model, channels=3, image_size=case.size)
        if masked:
            pruned_model.attach_gates(backbone, prunable_weights(backbone))
        features = models.num_features(backbone, channels=3, image_size=case.size)
        self._turned = isinstance(case.objective, RotNet)
        net = nn.Sequential(backbone, nn.Linear(features, 4 if self._turned else _CLASSES))
        self._net = net.to(device, memory_format=layout)  # type: ignore[call-overload]
        if case.compiled:
            self._net.compile()
        spec = case.optimizer
        assert isinstance(spec, SGD), "the plain loop has SGD"
        self._optimizer = torch.optim.SGD(
            self._net.parameters(),
            lr=spec.lr,
            momentum=spec.momentum,
            weight_decay=spec.weight_decay,
            fused=True,
        )
        images = torch.randn(case.batch, 3, case.size, case.size, device=device)
        self._images = images.contiguous(memory_format=layout)
        self._labels = torch.arange(case.batch, device=device) % _CLASSES
        self._cast = torch.autocast(device.type, _HALF.get(case.precision), enabled=case.precision in _HALF)
        self._scaler = torch.amp.GradScaler(device.type, enabled=case.precision == "fp16")

    def steps(self, count: int) -> None:
        """Take further steps."""
        for _ in range(count):
            images, labels = four_rotations(self._images) if self._turned else (self._images, self._labels)
            self._optimizer.zero_grad()
            with self._cast:
                loss = F.cross_entropy(self._net(images), labels)
            self._scaler.scale(loss).backward()
            self._scaler.step(self._optimizer)
            self._scaler.update()


def measured(case: Case, device: torch.device, rates: dict[str, float], rounds: int) -> dict[str, Any]:
    """What a step of a case costs.

    Args:
        case: the case.
        device: where it is measured.
        rates: floating-point operations a second of a large matrix product, by precision.
        rounds: in which both loops take turns.

    Returns:
        images: source images a second; ms: of a step; kernels, waits: of a step, on a GPU; peak: bytes on a GPU;
        share: of the ceiling, see docs/gpu.md; ratio, lowest, highest: our speed over the plain loop's, its median
        over the rounds and its spread.
    """
    gpu = device.type == "cuda"
    wait: Callable[[], None] = torch.cuda.synchronize if gpu else lambda: None
    with Ours.of(case) as ours:
        if gpu:
            torch.cuda.reset_peak_memory_stats()
        ours.steps(_warm(case))
        wait()
        row: dict[str, Any] = {"peak": torch.cuda.max_memory_allocated()} if gpu else {}
        plain = None if case.alone or case.search else Plain(case, device)
        if plain is not None:
            plain.steps(_warm(case))
        times: dict[str, list[float]] = {"ours": [], "plain": []}
        for _ in range(rounds):
            for name, loop in (("ours", ours), ("plain", plain)):
                if loop is not None:
                    times[name].append(_seconds(loop.steps, case.steps, wait))
        del plain
        if gpu:
            row |= _watched(ours, wait)
        flops = _flops(ours.loop.network, case, device)
    each = statistics.median(times["ours"])
    row |= {"images": case.batch / each, "ms": 1e3 * each}
    if rate := rates.get(case.precision):
        row["share"] = flops * case.batch / rate / each
    if times["plain"]:
        ratios = [theirs / own for own, theirs in zip(times["ours"], times["plain"], strict=True)]
        row |= {"ratio": statistics.median(ratios), "lowest": min(ratios), "highest": max(ratios)}
        row["plain_images"] = case.batch / statistics.median(times["plain"])
    return row


def mask_cost(case: Case, device: torch.device, rounds: int) -> dict[str, Any]:
    """The plain loop with masks on its network, beside the same without; as `measured` tells it."""
    wait: Callable[[], None] = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    Engine.create(RuntimeConfig(), case.precision)  # torch computes as fast as in the other rows
    loops = [Plain(case, device, masked=masked) for masked in (True, False)]
    for loop in loops:
        loop.steps(_warm(case))
    pairs = [[_seconds(loop.steps, case.steps, wait) for loop in loops] for _ in range(rounds)]
    ratios = [plain / masked for masked, plain in pairs]
    each, other = (statistics.median(times) for times in zip(*pairs, strict=True))
    spread = {"ratio": statistics.median(ratios), "lowest": min(ratios), "highest": max(ratios)}
    return {"images": case.batch / each, "ms": 1e3 * each, "plain_images": case.batch / other} | spread


def _warm(case: Case) -> int:
    """Steps before any is timed: libraries choose, compilers compile, and graphs are written down."""
    return max(1, min(8, case.steps))


def _seconds(steps: Callable[[int], None], count: int, wait: Callable[[], None]) -> float:
    wait()
    began = time.perf_counter()
    steps(count)
    wait()
    return (time.perf_counter() - began) / count


def _watched(ours: Ours, wait: Callable[[], None]) -> dict[str, float]:
    """Kernels and waits of a step; the look at the losses after the last is one of the waits."""
    count = 4
    with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as seen:
        ours.steps(count)
        wait()
    events = device_events(seen.key_averages())
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            ours.steps(count)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    waits = sum("synchroniz" in str(each.message) for each in said)
    return {
        "kernels": sum(event.count for event in events) / count,
        "busy_ms": sum(event.self_device_time_total for event in events) / 1e3 / count,
        "waits": waits / count,
    }


def device_events(events: Iterable[Any]) -> list[Any]:
    """Of averaged events those of kernels and copies.

    An operation of the host has the time of its kernels too, and what is marked in the code has that of all inside.
    """
    return [event for event in events if event.device_type != DeviceType.CPU and not event.is_user_annotation]


def _flops(net: MaskedNetwork, case: Case, device: torch.device) -> float:
    """Operations of matrix products and convolutions that an image takes, forward and backward."""
    plain = models.create_model(case.model, channels=3, image_size=case.size).to(device)
    images: Tensor = torch.zeros(2, 3, case.size, case.size, device=device)
    with FlopCounterMode(display=False) as counter:
        plain(images).sum().backward()
    seen = 4 if isinstance(case.objective, RotNet) else len(case.objective.views(View(size=case.size, crop="center")))
    return counter.get_total_flops() / 2 * seen
