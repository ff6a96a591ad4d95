"""What a training needs of a device's memory, told before it runs.

At its peak, when a part of a batch has gone forward and nothing has come back yet, a step holds what autograd keeps for
the way back: in convolutional networks nearly everything, and the more the larger the part is. The objective's own loss
with its own heads says how much, on a few images and without computing anything (`blank`); how that grows with their
number says the rest. Gradients are counted beside it in full, though activations go as they come.
"""

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sslticket import processes
from sslticket.data.loader import Batch
from sslticket.data.opening import Source
from sslticket.data.order import Labelled, Order
from sslticket.data.views import View
from sslticket.errors import BadInput, one_line
from sslticket.fit import Adam, Fit, Optimizer, RMSprop
from sslticket.masking import gate
from sslticket.recipe import Precision
from sslticket.training.blank import Blank
from sslticket.training.net import Net
from sslticket.training.passes import Passes

_SIZES = (2, 4, 6)  # images: through three points goes what is constant, what each image and what each pair takes
_FLOAT = 4  # bytes of a weight
_SMALL = 0.95e9  # bytes; less is told in megabytes
# Of a GPU's memory: what CUDA's libraries and the decoder take for themselves, and blocks too small for what is wanted,
# as a share of the activations. A guess on the safe side, for want of a GPU to measure it on.
_LIBRARIES, _SPARE = 2**30, 0.05
_HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Unmeasured(RuntimeError):
    """What a training needs cannot be told before it runs; nothing else is wrong with it."""


class _Uncounted(Passes):
    """Counts nothing: a counter's place among the layers imports torch's compiler."""

    def __init__(self, net: nn.Module) -> None:
        self.forward = self.backward = 0


class Outline(Net):
    """A net that nobody trains."""

    counter = _Uncounted


@dataclass(frozen=True)
class Need:
    """Bytes that a training takes of one device at its peak.

    Attributes:
        part: source images that go through the network at once.
        activations: what is kept for the backward pass, masked weights included.
        weights: of the network, its heads and its slow copies, with masks and buffers.
        gradients: of all that is trained.
        optimizer: its state.
        images: the views of this part, on a GPU of the next too, and the whole set where the device keeps it.
        workspace: of a GPU's libraries; an estimate.
    """

    part: int
    activations: int
    weights: int
    gradients: int
    optimizer: int
    images: int
    workspace: int

    @property
    def total(self) -> int:
        """All together."""
        trained = self.weights + self.gradients + self.optimizer
        return self.activations + trained + self.images + self.workspace

    @property
    def least(self) -> int:
        """What it takes at the very least.

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
        unit = 1e9 if self.total >= _SMALL else 1e6
        told = ", ".join(f"{kind} {size / unit:.1f}" for kind, size in kinds.items() if size >= unit / 20)
        return f"{amount(self.total)} a device for a part of {images(self.part)}" + (f": {told}" if told else "")


@dataclass(frozen=True)
class Needs:
    """What a training needs for parts of any size.

    Attributes:
        weights: see `Need`.
        gradients: see `Need`.
        optimizer: see `Need`.
        resident: bytes of the image set on the device; 0 where images come a batch at a time.
        views: bytes of the views of one image.
        kept: what the backward pass needs whatever the part, for each image of it, and for each pair of them.
        gpu: whether the device is one.
    """

    weights: int
    gradients: int
    optimizer: int
    resident: int
    views: int
    kept: tuple[float, float, float]
    gpu: bool

    @classmethod
    def of(
        cls,
        build: Callable[[type[Net]], Net],
        views: Sequence[View],
        fit: Fit,
        precision: Precision,
        *,
        channels: int,
        labelled: Labelled | None = None,
        resident: int = 0,
        gpu: bool = False,
    ) -> "Needs":
        """Of a training of this kind; nothing is computed, and ResNet-50 takes about two tenths of a second.

        To be called before processes meet: an objective that gathers from others would wait for them.

        Args:
            build: calls `build` of the kind of net that it is given.
            views: what the network is shown of each image.
            fit: how it is trained.
            precision: of the passes.
            channels: of the images.
            labelled: where a batch has images of two streams.
            resident: bytes of the image set, where the device keeps it.
            gpu: whether the device is one.

        Raises:
            Unmeasured: if something in network or objective cannot do with numbers that mean nothing.
        """
        try:
            with Blank(), torch.random.fork_rng(devices=[]):
                net = build(Outline).train()
                seen = [_kept(net, _batch(size, views, channels, labelled), precision) for size in _SIZES]
        except BadInput:
            raise
        except Exception as error:  # whatever a recipe's own objective may raise
            raise Unmeasured(one_line(error)) from error
        first, second, third = (sum(each) for each in seen)
        step = _SIZES[1] - _SIZES[0]
        pair = (third - 2 * second + first) / (2 * step**2)
        image = (second - first) / step - pair * (_SIZES[0] + _SIZES[1])
        trained = [one for one in net.parameters() if one.requires_grad]
        scores = {id(one.score) for one in gate.learnt(net).values()}
        entries = {of: sum(one.numel() for one in trained if (id(one) in scores) is of) for of in (False, True)}
        state = entries[False] * _states(fit.optimizer)
        if net.learning is not None:
            state += entries[True] * _states(net.learning.optimizer)
        return cls(
            weights=sum(_own(net).values()),
            gradients=_FLOAT * sum(entries.values()),
            optimizer=_FLOAT * state,
            resident=resident,
            views=sum(_FLOAT * channels * view.size**2 for view in views),
            kept=(first - image * _SIZES[0] - pair * _SIZES[0] ** 2, image, pair),
            gpu=gpu,
        )

    def need(self, part: int) -> Need:
        """With parts of so many source images."""
        constant, image, pair = self.kept
        activations = round(constant + image * part + pair * part**2)
        return Need(
            part=part,
            activations=activations,
            weights=self.weights,
            gradients=self.gradients,
            optimizer=self.optimizer,
            images=self.resident + (2 if self.gpu else 1) * self.views * part,
            workspace=_LIBRARIES + round(_SPARE * activations) if self.gpu else 0,
        )


def resident(source: Source, views: Sequence[View]) -> int:
    """Bytes that a device keeps of an image set: 0 for files, which are read again and again."""
    if source.images is None:
        return 0
    height, width, channels = source.images.shape[1:]
    squares = [view for view in views if view.crop != "resized"]
    sides = [(view.short_side(height, width), view.pad if view.crop == "pad" else 0) for view in squares]
    padded = [
        math.prod(max(side + 2 * pad, view.size) for side in both)
        for view, (both, pad) in zip(squares, sides, strict=True)
    ]
    whole = height * width if len(squares) < len(views) else 0
    return int(len(source.manifest) * channels * (sum(padded) + whole))


def smallest_parts(needs: Needs, share: int, free: int) -> int:
    """The fewest equal parts of a process's share of a batch of which each fits; single images where none does.

    Args:
        needs: of the training.
        share: source images.
        free: bytes.
    """
    cut = (parts for parts in range(1, share) if share % parts == 0)
    return next((parts for parts in cut if needs.need(share // parts).total <= free), share)


@dataclass(frozen=True)
class Room:
    """A device's memory.

    Attributes:
        device: its name for a person.
        free: bytes that a training may take.
    """

    device: str
    free: int

    @classmethod
    def on(cls, device: torch.device) -> "Room | None":
        """What there is on this device; None where nothing tells.

        On a GPU all that nobody has taken yet, and what torch holds for later; on a CPU this process's share of what
        the machine has, since what others use of that comes and goes.
        """
        if device.type == "cpu":
            try:
                size = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
            except (ValueError, OSError):
                return None
            return cls("this machine", size // processes.local_world())
        if device.type != "cuda":
            return None
        free, _ = torch.cuda.mem_get_info(device)
        held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return cls(torch.cuda.get_device_name(device), free + held)

    def beside(self, need: Need) -> str:
        """Both, for a person."""
        return f"{need}; {self.device} has {amount(self.free)}"

    def check(self, need: Need, *fixes: str) -> str:
        """Whether it is enough.

        What may be enough is tried: memory that ends is told at the first step, and costs less than the refusal of a
        training that fits.

        Args:
            need: of a training.
            fixes: what would make it smaller, as flags where there are some.

        Returns:
            A warning with both numbers and the fixes where it may not be, else "".

        Raises:
            BadInput: with both numbers and the fixes where it cannot be.
        """
        if need.total <= self.free:
            return ""
        fix = f"give {', '.join(fixes[:-1])}{' or ' if fixes[1:] else ''}{fixes[-1]}"
        told = (
            f"a part of {images(need.part)} needs {{}}{amount(need.total)}, and {self.device} has {amount(self.free)}"
        )
        if need.least > self.free:
            raise BadInput(f"{told.format('')}; {fix}")
        return f"{told.format('about ')}; where that is not enough, {fix}"


def images(count: int) -> str:
    """A number of images for a person."""
    return "1 image" if count == 1 else f"{count:,} images"


def amount(size: int) -> str:
    """A number of bytes for a person: "528 GB", "33.0 GB", "4.5 MB"."""
    unit, number = ("GB", size / 1e9) if size >= _SMALL else ("MB", size / 1e6)
    return f"{number:,.0f} {unit}" if number >= 99.95 else f"{number:.1f} {unit}"


def _states(spec: Optimizer) -> int:
    """Numbers that an optimiser keeps for each that it trains."""
    if isinstance(spec, Adam):
        return 2
    return (1 if spec.momentum else 0) + (1 if isinstance(spec, RMSprop) else 0)


def _batch(size: int, views: Sequence[View], channels: int, labelled: Labelled | None) -> Batch:
    """Blank images, with labels as a loader would give them."""
    rows = torch.arange(size)
    label = torch.zeros(size, dtype=torch.int64)
    if labelled is not None:
        streams = Order(2 * size, size, 0, labelled=Labelled(size, labelled.share))
        rows = torch.from_numpy(streams.rows(0))
        label = torch.where(rows < size, 0, -1)
    return Batch(tuple(torch.empty(size, channels, view.size, view.size) for view in views), label, rows)


def _kept(net: Net, batch: Batch, precision: Precision) -> list[int]:
    """Bytes of each piece of memory that autograd keeps of a forward pass; what the net has anyway is left out."""
    own, found = _own(net), dict[int, Tensor]()

    def pack(tensor: Tensor) -> Tensor:
        if (key := tensor.untyped_storage()._cdata) not in own:
            found[key] = tensor  # so that no later one gets its place
        return tensor

    half = torch.autocast("cpu", _HALF.get(precision), enabled=precision in _HALF)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), half:
        net(batch, 0.0)
    return [tensor.untyped_storage().nbytes() for tensor in found.values()]


def _own(net: nn.Module) -> dict[int, int]:
    """Bytes of the memory of parameters, masks and buffers, by what tells it from other memory."""
    tensors = [*net.parameters(), *net.buffers()]
    return {tensor.untyped_storage()._cdata: tensor.untyped_storage().nbytes() for tensor in tensors}
