"""What a training needs of a device's memory, estimated before it runs.

At its peak, when a micro-batch has gone forward and nothing has come back yet, a step holds what autograd keeps for the
backward pass: in convolutional networks nearly everything, and the more the larger the micro-batch is. The objective's
own loss with its own heads is run on a few images under `ShapeOnlyMode`, which calls every layer and builds autograd's
graph as always, and neither computes nor touches the memory of large tensors; it takes as long as Python does. How the
result grows with the number of images gives the rest. Gradients are counted beside it in full, though activations go as
they come. Torch's own fake tensors would do as well, but their first use imports torch's compiler, a second's work.
"""

import gc
import math
import os
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from sslticket import processes
from sslticket.config.recipe import Precision
from sslticket.config.training import LARS, SGD, Optimizer, RMSprop, TrainConfig
from sslticket.data.augment import View
from sslticket.data.loader import Batch, LabelledStream, Sampler
from sslticket.data.source import DataSource
from sslticket.errors import BadInput, one_line
from sslticket.pruning import pruned_model
from sslticket.training.network import MaskedNetwork, PassCounter

_LARGE_TENSOR = 2**12  # entries; smaller results are computed, as labels, distances and losses are


class ShapeOnlyMode(TorchDispatchMode):
    """In its block, large results of floating-point arithmetic have the right shape and type, and no value.

    An operation that it does not know is computed, from whatever lies in memory: slower, and of the same shape.
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """The class is plain Python to the compiler: marked as one to be skipped, it would import it."""
        return False

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """One operation of torch's."""
        kwargs = dict(kwargs or {})
        name = func.overloadpacket.__name__
        if name in _CREATION_OPS and math.prod(args[0]) > _LARGE_TENSOR:
            return torch.empty(args[0], **{key: value for key, value in kwargs.items() if key != "generator"})
        if any(one.is_floating_point() and one.numel() > _LARGE_TENSOR for one in _tensor_arguments(args)):
            pointwise = torch.Tag.pointwise in func.tags
            if name.endswith("_") and (pointwise or name in _INPLACE_FILL_OPS):
                return args[0]
            if name in _SHAPE_RULES and (result := _SHAPE_RULES[name](*args, **kwargs)) is not None:
                return result
            if pointwise:
                return _pointwise(func, args, kwargs)
        return func(*args, **kwargs)


_CREATION_OPS = {"rand", "randn", "zeros", "ones", "full"}
_INPLACE_FILL_OPS = {"normal_", "uniform_", "fill_", "zero_", "copy_", "bernoulli_"}


def _tensor_arguments(args: tuple[Any, ...]) -> Iterator[Tensor]:
    for one in args:
        if isinstance(one, Tensor):
            yield one
        elif isinstance(one, (list, tuple)):
            yield from (part for part in one if isinstance(part, Tensor))


def _pointwise(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The result of an operation on each entry: its type is that of the operation on a single one."""
    tensors = [one for one in pytree.tree_leaves((args, kwargs)) if isinstance(one, Tensor)]
    shape = np.broadcast_shapes(*(one.shape for one in tensors))  # torch's own imports a computer algebra
    single = pytree.tree_map(lambda one: one.new_zeros((1,) * one.dim()) if isinstance(one, Tensor) else one, args)
    result = func(*single, **kwargs)
    if not isinstance(result, Tensor):
        return func(*args, **kwargs)
    # A condition is false: some numbers are drawn until it is.
    return result.new_zeros(shape) if result.dtype == torch.bool else result.new_empty(shape)


def _convolution(
    x: Tensor, weight: Tensor, bias: Any, stride: Any, padding: Any, dilation: Any, transposed: bool, *_: Any
) -> Tensor | None:
    if transposed:
        return None
    places = zip(x.shape[2:], weight.shape[2:], stride, padding, dilation, strict=True)
    sides = [(side + 2 * pad - wide * (kernel - 1) - 1) // step + 1 for side, kernel, step, pad, wide in places]
    return x.new_empty((x.shape[0], weight.shape[0], *sides))


def _batch_norm(x: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor, Tensor]:
    mean, deviation = (x.new_empty(x.shape[1], dtype=torch.float32) for _ in range(2))
    return torch.empty_like(x), mean, deviation


def _max_pool(x: Tensor, kernel: Any, stride: Any = (), padding: Any = (0,), dilation: Any = (1,), *rest: Any) -> Any:
    if any(rest) or set(dilation) != {1} or x.dim() != 4:
        return None
    kernel, stride, padding = (tuple(each) * (2 // len(each)) for each in (kernel, stride or kernel, padding))
    places = zip(x.shape[2:], kernel, stride, padding, strict=True)
    sides = [(side + 2 * pad - wide) // step + 1 for side, wide, step, pad in places]
    return x.new_empty((*x.shape[:2], *sides)), x.new_empty((*x.shape[:2], *sides), dtype=torch.int64)


def _empty_like(x: Tensor, *_: Any, **kwargs: Any) -> Tensor:
    return torch.empty_like(x, dtype=kwargs.get("dtype"))


def _masked_index(x: Tensor, places: Any) -> Tensor | None:
    """Picked out by a condition; how many are, it says."""
    mask = places[0]
    if len(places) > 1 or mask is None or mask.dtype != torch.bool:
        return None
    return x.new_empty((int(torch.count_nonzero(mask)), *x.shape[mask.dim() :]))


def _layer_norm(x: Tensor, shape: Any, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    mean, deviation = (x.new_empty((*x.shape[: -len(shape)], *(1 for _ in shape)), dtype=torch.float32) for _ in "12")
    return torch.empty_like(x), mean, deviation


def _cat(parts: Any, dim: int = 0) -> Tensor:
    shape = list(parts[0].shape)
    shape[dim] = sum(part.shape[dim] for part in parts)
    return cast(Tensor, parts[0].new_empty(shape))


# By the name of the operation; what gives None is computed after all.
_SHAPE_RULES: Mapping[str, Callable[..., Any]] = {
    "convolution": _convolution,
    "native_batch_norm": _batch_norm,
    "native_layer_norm": _layer_norm,
    "max_pool2d_with_indices": _max_pool,
    "cat": _cat,
    "index": _masked_index,
    "_to_copy": _empty_like,
    "clone": _empty_like,
    "ones_like": _empty_like,
    "zeros_like": _empty_like,
    "rand_like": _empty_like,
    "mm": lambda a, b: a.new_empty((a.shape[0], b.shape[1])),
    "bmm": lambda a, b: a.new_empty((*a.shape[:2], b.shape[2])),
    "addmm": lambda bias, a, b, **_: a.new_empty((a.shape[0], b.shape[1])),
    "_softmax": lambda x, dim, half: torch.empty_like(x),
    "_log_softmax": lambda x, dim, half: torch.empty_like(x),
}


_MEASURED_BATCHES = (2, 4, 6)
"""Images: through three points goes what is constant, what each image and what each pair takes."""
_FLOAT32_BYTES = 4
_GIGABYTES_FROM = 0.95e9  # bytes; less is shown in megabytes
# Of a GPU's memory: what CUDA's libraries and the decoder take for themselves, and blocks too small for what is wanted,
# as a share of the activations. A guess on the safe side, for want of a GPU to measure it on.
_LIBRARY_BYTES, _FRAGMENTATION = 2**30, 0.05
_HALF_PRECISION = {"bf16": torch.bfloat16, "fp16": torch.float16}


_ended: list[weakref.ref[nn.Module]] = []
# By which accelerate wraps a network in mixed precision, and a network keeps itself; it puts them on anew where needed.
_ACCELERATE_ATTRIBUTES = ("forward", "_original_forward", "_is_accelerate_prepared")


def note_ended(network: nn.Module) -> None:
    """Note that a network's training has ended, so that `free_ended` looks whether the network is gone."""
    _ended.append(weakref.ref(network))


def free_ended(device: torch.device, but: nn.Module) -> None:
    """Free networks whose trainings have ended and which only cycles of references keep, before the next is trained.

    A network in no cycle goes with its last reference. Only where one is still there cycles are looked for, which takes
    a quarter of a second among the objects of all that a process imports.

    Args:
        device: Where they were trained.
        but: The network that is trained now.
    """
    for one in _ended:
        if (network := one()) is not None and network is not but:
            for name in _ACCELERATE_ATTRIBUTES:
                network.__dict__.pop(name, None)
        del network
    left = any(one() not in (None, but) for one in _ended)
    _ended.clear()
    if left:
        gc.collect()
        if device.type != "cpu":
            torch.get_device_module(device).empty_cache()


class UnknownMemory(RuntimeError):
    """What a training needs is not known before it runs; nothing else is wrong with it."""


class _NoCounter(PassCounter):
    """Counts nothing."""

    def __init__(self, network: nn.Module) -> None:
        self.forward = self.backward = 0


class UncountedNetwork(MaskedNetwork):
    """A network that is not trained."""

    counter_class = _NoCounter


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes that a training takes of one device at its peak.

    Attributes:
        micro_batch: Source images that go through the network at once.
        activations: Bytes that are kept for the backward pass, weights under masks that are learned included.
        weights: Bytes of the network, its heads and its slow copies, with masks and buffers.
        gradients: Bytes of the gradients of all that is trained.
        optimizer: Bytes of the optimiser's state.
        images: Bytes of the views, on a GPU of the next micro-batch too, and of the whole set where the device has it.
        workspace: Bytes that a GPU's libraries take; an estimate.
    """

    micro_batch: int
    activations: int
    weights: int
    gradients: int
    optimizer: int
    images: int
    workspace: int

    @property
    def total(self) -> int:
        """The sum of all."""
        trained = self.weights + self.gradients + self.optimizer
        return self.activations + trained + self.images + self.workspace

    @property
    def minimum(self) -> int:
        """The bytes that it takes at the very least.

        A compiler computes about half of the activations again when they are asked for, activations go as gradients
        come, and the next batch and the libraries' own memory are guesses.
        """
        return self.weights + self.optimizer + max(self.activations // 2, self.gradients)

    def __str__(self) -> str:
        kinds = {
            "activations": self.activations,
            "weights and masks": self.weights,
            "gradients": self.gradients,
            "optimiser": self.optimizer,
            "images": self.images,
            "workspace": self.workspace,
        }
        unit = 1e9 if self.total >= _GIGABYTES_FROM else 1e6
        listed = ", ".join(f"{kind} {size / unit:.1f}" for kind, size in kinds.items() if size >= unit / 20)
        text = f"{format_bytes(self.total)} a device for a part of {format_images(self.micro_batch)}"
        return f"{text}: {listed}" if listed else text


@dataclass(frozen=True)
class MemoryModel:
    """What a training needs for micro-batches of any size.

    Attributes:
        weights: See `MemoryEstimate`.
        gradients: See `MemoryEstimate`.
        optimizer: See `MemoryEstimate`.
        resident_set: Bytes of the image set on the device; 0 where images come a batch at a time.
        views: Bytes of the views of one image.
        activation_polynomial: Bytes that the backward pass needs whatever the micro-batch, for each image of it, and
            for each pair of them.
        on_gpu: Whether the device is a GPU.
    """

    weights: int
    gradients: int
    optimizer: int
    resident_set: int
    views: int
    activation_polynomial: tuple[float, float, float]
    on_gpu: bool

    @classmethod
    def measure(
        cls,
        build: Callable[[type[MaskedNetwork]], MaskedNetwork],
        views: Sequence[View],
        training: TrainConfig,
        precision: Precision,
        *,
        channels: int,
        labelled: LabelledStream | None = None,
        resident: int = 0,
        gpu: bool = False,
    ) -> "MemoryModel":
        """Measures a training; nothing is computed, and ResNet-50 takes about two tenths of a second.

        To be called before processes meet: an objective that gathers from others would wait for them.

        Args:
            build: Builds the network, as the class that it is given.
            views: The views of each image that the network sees.
            training: How it is trained.
            precision: The precision of the passes.
            channels: Channels of the images.
            labelled: The labelled stream, where a batch has images of two.
            resident: Bytes of the image set, where the device keeps it.
            gpu: Whether the device is a GPU.

        Raises:
            UnknownMemory: If something in network or objective cannot work with numbers that mean nothing.
        """
        try:
            with ShapeOnlyMode(), torch.random.fork_rng(devices=[]):
                network = build(UncountedNetwork).train()
                seen = [
                    _saved_activations(network, _example_batch(size, views, channels, labelled), precision)
                    for size in _MEASURED_BATCHES
                ]
        except BadInput:
            raise
        except Exception as error:  # whatever a recipe's own objective may raise
            raise UnknownMemory(one_line(error)) from error
        first, second, third = (sum(each) for each in seen)
        step = _MEASURED_BATCHES[1] - _MEASURED_BATCHES[0]
        pair = (third - 2 * second + first) / (2 * step**2)
        image = (second - first) / step - pair * (_MEASURED_BATCHES[0] + _MEASURED_BATCHES[1])
        trained = [one for one in network.parameters() if one.requires_grad]
        scores = {id(one.score) for one in pruned_model.learned_gates(network).values()}
        entries = {of: sum(one.numel() for one in trained if (id(one) in scores) is of) for of in (False, True)}
        state = entries[False] * optimizer_entries(training.optimizer)
        if network.mask_learning is not None:
            state += entries[True] * optimizer_entries(network.mask_learning.optimizer)
        return cls(
            weights=sum(_storage_bytes(network).values()),
            gradients=_FLOAT32_BYTES * sum(entries.values()),
            optimizer=_FLOAT32_BYTES * state,
            resident_set=resident,
            views=sum(_FLOAT32_BYTES * channels * view.size**2 for view in views),
            activation_polynomial=(
                first - image * _MEASURED_BATCHES[0] - pair * _MEASURED_BATCHES[0] ** 2,
                image,
                pair,
            ),
            on_gpu=gpu,
        )

    def estimate(self, part: int) -> MemoryEstimate:
        """With parts of so many source images."""
        constant, image, pair = self.activation_polynomial
        activations = round(constant + image * part + pair * part**2)
        return MemoryEstimate(
            micro_batch=part,
            activations=activations,
            weights=self.weights,
            gradients=self.gradients,
            optimizer=self.optimizer,
            images=self.resident_set + (2 if self.on_gpu else 1) * self.views * part,
            workspace=_LIBRARY_BYTES + round(_FRAGMENTATION * activations) if self.on_gpu else 0,
        )


def resident_bytes(source: DataSource, views: Sequence[View]) -> int:
    """Bytes that a device keeps of an image set: 0 for files, which are read again and again."""
    if source.images is None:
        return 0
    height, width, channels = source.images.shape[1:]
    squares = [view for view in views if view.crop != "resized"]
    sides = [(view.resized_shape(height, width), view.pad if view.crop == "pad" else 0) for view in squares]
    padded = [
        math.prod(max(side + 2 * pad, view.size) for side in both)
        for view, (both, pad) in zip(squares, sides, strict=True)
    ]
    whole = height * width if len(squares) < len(views) else 0
    return int(len(source.manifest) * channels * (sum(padded) + whole))


def min_accumulation_steps(memory: MemoryModel, share: int, free: int) -> int:
    """The fewest equal micro-batches of which each fits; single images where none does.

    Args:
        memory: What the training needs.
        share: Source images of a batch in this process.
        free: Bytes that are free.
    """
    divisors = (steps for steps in range(1, share) if share % steps == 0)
    return next((steps for steps in divisors if memory.estimate(share // steps).total <= free), share)


@dataclass(frozen=True)
class DeviceMemory:
    """A device's memory.

    Attributes:
        device: Name of the device.
        free: Bytes that a training may take.
    """

    device: str
    free: int

    @classmethod
    def of_device(cls, device: torch.device) -> "DeviceMemory | None":
        """The memory of a device; None where it is not known.

        On a GPU all that nobody has taken yet, and what torch holds for later; on a CPU this process's share of what
        the machine has, since what others use of that comes and goes.
        """
        if device.type == "cpu":
            try:
                size = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
            except (ValueError, OSError):
                return None
            return cls("this machine", size // processes.local_world_size())
        if device.type != "cuda":
            return None
        free, _ = torch.cuda.mem_get_info(device)
        held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return cls(torch.cuda.get_device_name(device), free + held)

    def compare(self, need: MemoryEstimate) -> str:
        """The estimate beside what the device has, as text."""
        return f"{need}; {self.device} has {format_bytes(self.free)}"

    def check(self, need: MemoryEstimate, *fixes: str) -> str:
        """Refuses a training that cannot fit.

        What may be enough is tried: memory that runs out shows at the first step, and costs less than the refusal of a
        training that fits.

        Args:
            need: What the training needs.
            fixes: What would make that smaller, as flags where there are some.

        Returns:
            A warning with both numbers and the fixes where it may not fit, else "".

        Raises:
            BadInput: With both numbers and the fixes where it cannot fit.
        """
        if need.total <= self.free:
            return ""
        fix = f"give {', '.join(fixes[:-1])}{' or ' if fixes[1:] else ''}{fixes[-1]}"
        part, there = f"a part of {format_images(need.micro_batch)}", f"{self.device} has {format_bytes(self.free)}"
        if need.minimum > self.free:
            raise BadInput(f"{part} needs {format_bytes(need.total)}, and {there}; {fix}")
        return f"{part} needs about {format_bytes(need.total)}, and {there}; where that is not enough, {fix}"


def format_images(count: int) -> str:
    """A number of images as text."""
    return "1 image" if count == 1 else f"{count:,} images"


def format_bytes(size: int) -> str:
    """A number of bytes as text: "528 GB", "33.0 GB", "4.5 MB"."""
    unit, number = ("GB", size / 1e9) if size >= _GIGABYTES_FROM else ("MB", size / 1e6)
    return f"{number:,.0f} {unit}" if number >= 99.95 else f"{number:.1f} {unit}"


def optimizer_entries(spec: Optimizer) -> int:
    """Numbers that an optimiser keeps for each parameter."""
    if isinstance(spec, (SGD, RMSprop, LARS)):
        return (1 if spec.momentum else 0) + (1 if isinstance(spec, RMSprop) else 0)
    return 2  # Adam's, and the most that those of users are taken to need


def _example_batch(size: int, views: Sequence[View], channels: int, labelled: LabelledStream | None) -> Batch:
    """Images of no value, with labels as a loader would give them."""
    rows = torch.arange(size)
    label = torch.zeros(size, dtype=torch.int64)
    if labelled is not None:
        streams = Sampler(2 * size, size, 0, labelled=LabelledStream(size, labelled.batch_fraction))
        rows = torch.from_numpy(streams.indices(0))
        label = torch.where(rows < size, 0, -1)
    return Batch(tuple(torch.empty(size, channels, view.size, view.size) for view in views), label, rows)


def _saved_activations(network: MaskedNetwork, batch: Batch, precision: Precision) -> list[int]:
    """Bytes of each piece of memory that autograd keeps of a forward pass, beside those of the network."""
    own, found = _storage_bytes(network), dict[int, torch.UntypedStorage]()

    def pack(tensor: Tensor) -> None:
        # The memory alone, so that no later one gets its place: with a tensor, its graph would keep itself for ever.
        if (key := tensor.untyped_storage()._cdata) not in own:
            found[key] = tensor.untyped_storage()

    half = torch.autocast("cpu", _HALF_PRECISION.get(precision), enabled=precision in _HALF_PRECISION)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda nothing: nothing), half:
        network(batch, 0.0)
    return [storage.nbytes() for storage in found.values()]


def _storage_bytes(network: nn.Module) -> dict[int, int]:
    """Bytes of the memory of parameters, masks and buffers, by the identity of each piece of memory."""
    tensors = [*network.parameters(), *network.buffers()]
    return {tensor.untyped_storage()._cdata: tensor.untyped_storage().nbytes() for tensor in tensors}
