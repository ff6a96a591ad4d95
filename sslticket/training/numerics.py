"""How numbers are computed: precision, compiled code and CUDA graphs.

Fast by default on a GPU, exact on request; elsewhere in float32, and fast on request. What a CPU chooses by trials,
such as the layout of memory, is in `sslticket.training.trial`.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from sslticket import processes
from sslticket.config import runtime
from sslticket.config.recipe import Precision, Recipe
from sslticket.config.runtime import RuntimeConfig
from sslticket.config.training import SGD, Adam, AdamW, TrainConfig
from sslticket.data.decode import Decoder, choose_decoder
from sslticket.data.loader import Batch, Loader, MemoryLoader
from sslticket.pruning import pruned_model
from sslticket.training.network import MaskedNetwork, PassCounter

COMPILE_FROM_STEPS = 10_000
"""Steps of a training from which on compiling pays, where nobody says whether to compile. Estimated, not measured on a
GPU: compiling a network forward and backward takes about a minute, and saves 5 to 10 ms of a step, whether that is a
tenth of a large network's 100 ms or most of the time that the host needs to launch a small one's kernels."""
MAX_GRAPH_STATE = 5_000_000
"""Entries of a backbone up to which it is small: the papers' Conv-2 has 4.3 million, ResNet-20 0.27. Its step is over
before the host has launched the next one's kernels, so it is launched as a graph where that can be (`GraphReplay`), and
not compiled. A larger one keeps a GPU busy, and its graph would hold the memory of a step for as long as a training
lasts."""


@dataclass(frozen=True, kw_only=True)
class Numerics:
    """How a training computes: all that changes its rounding, and not what it computes.

    Attributes:
        precision: Precision of the forward and backward pass; weights are float32 throughout.
        tf32: Whether float32 products are rounded to TF32, and cuDNN takes the fastest of its algorithms.
        channels_last: Whether images and weights lie in memory in NHWC order.
        compiled: Whether network, heads and slow copies run as torch.compile makes them; None where that pays.
        host_decoded: Whether the host decodes images for a GPU, whose own decoder rounds otherwise.
        decoder: What decodes image files; before a training's images are known what was asked for, and None where
            nothing was, or there are no files.
        environment: Variables that change rounding, as "NAME=value", see `sslticket.config.runtime`.
    """

    precision: Precision
    tf32: bool = False
    channels_last: bool = False
    compiled: bool | None = False
    host_decoded: bool = False
    decoder: Decoder | None = None
    environment: tuple[str, ...] = ()

    @classmethod
    def resolve(cls, settings: RuntimeConfig, precision: Precision | None) -> "Numerics":
        """The numerics of a machine's settings on the device at hand; what they leave open is fast on CUDA.

        Args:
            settings: The settings; `exact`, `fast`, `channels_last`, `compile`, `keep_decoded` and `decoder` matter.
            precision: The precision that was given; None for the device's own.

        Raises:
            BadInput: If a variable of the environment would act against these settings.
        """
        runtime.check_environment()
        fast = _device_type() == "cuda" and not settings.exact
        half = (fast and _supports_bfloat16()) or (settings.fast and _device_type() == "cpu" and _cpu_has_bfloat16())
        return cls(
            precision=("bf16" if half else "fp32") if precision is None else precision,
            tf32=fast,
            channels_last=fast if settings.channels_last is None else settings.channels_last,
            compiled=(None if fast else False) if settings.compile is None else settings.compile,
            host_decoded=_device_type() == "cuda" and bool(settings.keep_decoded),
            decoder=settings.decoder,
            environment=runtime.rounding_variables(_device_type()),
        )

    def for_training(
        self, steps: int, *, size: int, steady: bool, ghost_batch: int | None, files: bool = False
    ) -> "Numerics":
        """The numerics of one training.

        Args:
            steps: Optimiser steps in all.
            size: Number of parameters and buffers of the backbone.
            steady: Whether the objective does the same in every step, see `Objective.cuda_graph_safe`.
            ghost_batch: The training's. Where it is None, several processes share the statistics of batch norm, and
                compiled code ends at each layer that does so: too little is left to join.
            files: Whether its images are decoded from files meanwhile.

        Raises:
            BadInput: If what is to decode them is not installed.
        """
        pays = (
            steps >= COMPILE_FROM_STEPS
            and not (steady and size <= MAX_GRAPH_STATE)
            and not (ghost_batch is None and processes.world_size() > 1)
        )
        decoder = choose_decoder(self.decoder, _device_type()) if files else None
        return replace(self, compiled=pays if self.compiled is None else self.compiled, decoder=decoder)

    def apply(self) -> None:
        """Sets what torch keeps for the whole process.

        An exact engine puts back what a fast one in the same process has set, what a variable of the environment
        asks for, and torch's own default, by which cuDNN's convolutions are in TF32.
        """
        with warnings.catch_warnings():
            # Some versions advise other settings, of which torch.compile then says that they cannot be read.
            warnings.simplefilter("ignore")
            torch.set_float32_matmul_precision("high" if self.tf32 else "highest")
            if _device_type() != "cuda":
                return
            torch.backends.cudnn.allow_tf32 = self.tf32
        torch.backends.cudnn.benchmark = self.tf32

    @property
    def description(self) -> str:
        """The numerics as text before trainings have a length."""
        return f"{self}, and compiled where it pays" if self.compiled is None else str(self)

    def __str__(self) -> str:
        """The numerics as rows have them, such as "bf16 tf32 channels-last compiled"; of a CPU's default "fp32"."""
        words = {"tf32": self.tf32, "channels-last": self.channels_last, "compiled": self.compiled}
        words["host-decoded"] = self.host_decoded and self.decoder != "torchvision"
        words["torchvision-decoded"] = self.decoder == "torchvision"  # DALI's are those of all rows before
        outside = (word for word in self.environment if self.compiled or not runtime.is_compiler_variable(word))
        return " ".join([self.precision, *(word for word, holds in words.items() if holds), *outside])


def numerics_of_row(row: Mapping[str, Any]) -> str:
    """The numerics of the training of a row; older rows have only its precision."""
    return str(row.get("numerics", row.get("precision")))


def resolve_precision(recipe: Recipe, settings: RuntimeConfig) -> Recipe:
    """The recipe with its precision filled in, so that its key says what is computed, whatever the device is."""
    return replace(recipe, precision=Numerics.resolve(settings, recipe.precision).precision)


def compile_network(network: nn.Module) -> None:
    """Has torch.compile make the backbone, and the stacks of layers in heads and slow copies, as each is called."""
    if isinstance(network, MaskedNetwork):
        network.passes.leave_compiled_code(network)
    for module in (network.get_submodule("backbone"), *_compilable_modules(network.get_submodule("heads"))):
        module.compile()


def is_compiled(network: nn.Module) -> bool:
    """Whether `compile_network` was called on it."""
    return network.get_submodule("backbone")._compiled_call_impl is not None


def state_size(backbone: nn.Module) -> int:
    """Number of a backbone's parameters and buffers, gates and their scores left out."""
    return sum(value.numel() for value in pruned_model.stored_state(backbone).values())


def _compilable_modules(module: nn.Module) -> Iterator[nn.Module]:
    """The largest modules that are called whole and have several layers: one alone leaves nothing to join."""
    if isinstance(module, pruned_model.MaskedCopy) or type(module).forward is nn.Module.forward:
        for child in module.children():
            yield from _compilable_modules(child)
    elif any(True for _ in module.children()) and any(True for _ in module.parameters()):
        yield module


def _device_type() -> str:
    """The type of the device that computes."""
    if runtime.cpu_only() or not torch.accelerator.is_available():
        return "cpu"
    found = torch.accelerator.current_accelerator()
    return "cpu" if found is None else found.type


def _supports_bfloat16() -> bool:
    """Whether the GPU computes in bfloat16 itself: NVIDIA's do from Ampere on."""
    return bool(torch.cuda.is_bf16_supported(including_emulation=False))


def _cpu_has_bfloat16() -> bool:
    """Whether the processor multiplies in bfloat16 itself: others take longer for it than for float32."""
    found = getattr(torch.cpu, "get_capabilities", dict[str, bool])()  # older versions of torch do not tell
    return any(found.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))


_WARMUP_STEPS = 3  # before the capture: libraries choose their algorithms, and the optimiser makes its state


class NotCapturable(Exception):
    """A step cannot be captured in a graph; the message says why."""


class StepGraph(Protocol):
    """Work of a device that can be launched as one."""

    def capture(self) -> AbstractContextManager[None]:
        """Captures what is called inside; nothing of it is done.

        Raises:
            RuntimeError: Inside or at the end, where something cannot be captured.
        """

    def replay(self) -> None:
        """Does what was captured."""


class CudaStepGraph:
    """A graph of CUDA's.

    Attributes:
        failed: The graphs whose capture failed in this process. Torch's allocator goes on asking them for memory, so
            they stay.
    """

    failed: ClassVar[list["CudaStepGraph"]] = []

    def __init__(self) -> None:
        self._graph = torch.cuda.CUDAGraph()

    @contextmanager
    def capture(self) -> Iterator[None]:
        """See the protocol."""
        stream = torch.cuda.current_stream()
        try:
            # Other threads may talk to the device meanwhile.
            with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
                yield
        except BaseException:
            torch.cuda.set_stream(stream)  # torch leaves its own in place
            self.failed.append(self)
            # The generator would go on as in a capture, and refuse to draw. What it draws next it is seeded for.
            device = torch.cuda.current_device()
            torch.cuda.default_generators[device].graphsafe_set_state(torch.Generator(f"cuda:{device}"))
            raise

    def replay(self) -> None:
        """See the protocol."""
        self._graph.replay()


GRAPH_CLASSES: dict[str, Callable[[], StepGraph]] = {"cuda": CudaStepGraph}
"""What makes a graph, by the type of a device."""


def graph_class_for(
    device: torch.device, network: MaskedNetwork, loader: Loader, training: TrainConfig
) -> Callable[[], StepGraph] | None:
    """What makes the graph of a training, where the device has graphs and this training's steps are alike and small.

    A capture that failed is not tried again in the same process: the next would fail too, and each leaves something.
    """
    learning = network.mask_learning
    optimizers = [training.optimizer, *([] if learning is None else [learning.optimizer])]
    fits = (
        network.objective.cuda_graph_safe
        and isinstance(loader, MemoryLoader)
        and all(isinstance(each, SGD | Adam) for each in optimizers)
        # A graph holds the numbers that the host gives, and a weight decay that moves is one.
        and not any(isinstance(each, AdamW) and each.last_weight_decay is not None for each in optimizers)
        and state_size(network.backbone) <= MAX_GRAPH_STATE
        and not CudaStepGraph.failed
    )
    return GRAPH_CLASSES.get(device.type) if fits else None


class GraphReplay:
    """The steps of one training: the first few as they are, and then by a graph."""

    def __init__(self, make: Callable[[], StepGraph], optimizer: torch.optim.Optimizer, device: torch.device) -> None:
        """Makes learning rates of the optimiser tensors on the device, which a graph can read anew in each step.

        They are float32 there, as torch's kernels want them, and not the host's float64.
        """
        self._make, self._warm, self._optimizer = make, _WARMUP_STEPS, optimizer
        self._graph: StepGraph | None = None
        self._batch: Batch | None = None
        for group in optimizer.param_groups:
            group["lr"] = torch.full((), float(group["lr"]), device=device)

    def __call__(
        self, take: Callable[[Batch, float], Tensor], batch: Batch, progress: float, passes: PassCounter
    ) -> Tensor:
        """Does a step and returns its loss, (), as `take` would.

        Args:
            take: The step; what it does depends on the batch, and not on the progress.
            batch: The images, as many as in all steps.
            progress: Progress of the training, from 0 to 1.
            passes: The counter of the images that `take` uses.

        Raises:
            NotCapturable: Nothing of the step has been done, but random numbers may have been drawn for it.
        """
        # From the first step on in the memory that the graph reads: where images begin at another multiple of a few
        # bytes cuDNN looks for an algorithm anew, and no capture holds that.
        held = self._copy_to_static(batch)
        if self._warm:
            self._warm -= 1
            return take(held, progress)
        before = passes.forward, passes.backward
        if self._graph is None:
            try:
                self._graph = self._capture(take, held, progress)
            except RuntimeError as error:
                passes.forward, passes.backward = before
                # CUDA says at the end that something went wrong before; that is what tells more, in its first line.
                first = error.__context__ if isinstance(error.__context__, RuntimeError) else error
                raise NotCapturable(str(first).partition("\n")[0] or type(first).__name__) from error
            self._counts = passes.forward - before[0], passes.backward - before[1]
        else:
            passes.forward, passes.backward = (sum(pair) for pair in zip(before, self._counts, strict=True))
        self._graph.replay()
        return self._loss.clone()

    def _copy_to_static(self, batch: Batch) -> Batch:
        """Copies a batch into memory that stays the same."""
        if self._batch is None:
            self._batch = Batch(
                tuple(view.clone() for view in batch.views), batch.labels.clone(), batch.indices.clone()
            )
        else:
            for old, new in zip(_batch_tensors(self._batch), _batch_tensors(batch), strict=True):
                old.copy_(new)
        return self._batch

    def _capture(self, take: Callable[[Batch, float], Tensor], batch: Batch, progress: float) -> StepGraph:
        graph = self._make()
        self._set_capturable(True)
        try:
            with graph.capture():
                self._loss = take(batch, progress)
        except RuntimeError:
            self._set_capturable(False)
            raise
        return graph

    def _set_capturable(self, now: bool) -> None:
        """Adam needs this for a capture, and warns of it where it takes a step by itself."""
        for group in self._optimizer.param_groups:
            if "capturable" in group:
                group["capturable"] = now


def _batch_tensors(batch: Batch) -> tuple[Tensor, ...]:
    return (*batch.views, batch.labels, batch.indices)
