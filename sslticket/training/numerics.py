"""How numbers are computed: fast by default on a GPU, exact on request, and always exact elsewhere."""

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from sslticket import processes, surroundings
from sslticket.machine import Machine
from sslticket.masking import gate
from sslticket.recipe import Precision, Recipe

PAYS = 10_000
"""Steps of a training from which on compiling pays, where nobody says whether to compile. Estimated, not measured on a
GPU: compiling a network forward and backward takes about a minute, and saves 5 to 10 ms of a step, whether that is a
tenth of a large network's 100 ms or most of the time that the host needs to launch a small one's kernels."""
SMALL = 5_000_000
"""Entries of a backbone up to which it is small: the papers' Conv-2 has 4.3 million, ResNet-20 0.27. Its step is over
before the host has launched the next one's kernels, so it is launched as a graph where that can be
(`sslticket.training.replay`), and not compiled. A larger one keeps a GPU busy, and its graph would hold the memory of a
step for as long as a training lasts."""


@dataclass(frozen=True, kw_only=True)
class Numerics:
    """How a training computes: all that changes its rounding, and not what it computes.

    Attributes:
        precision: of the forward and backward pass; weights are float32 throughout.
        tf32: what stays float32 in products is rounded to TF32, and cuDNN takes the fastest of its algorithms.
        channels_last: images and weights lie in memory in NHWC order.
        compiled: network, heads and slow copies run as torch.compile makes them; None where that pays.
        outside: variables of the environment that change rounding, as "NAME=value", see `sslticket.surroundings`.
    """

    precision: Precision
    tf32: bool = False
    channels_last: bool = False
    compiled: bool | None = False
    outside: tuple[str, ...] = ()

    @classmethod
    def of(cls, machine: Machine, precision: Precision | None) -> "Numerics":
        """What a machine's settings come to on the device at hand; what they leave open is fast on CUDA.

        Args:
            machine: whose `exact`, `channels_last` and `compile` are asked.
            precision: as given; None for the device's own.

        Raises:
            BadInput: if a variable of the environment would act against these settings.
        """
        surroundings.check()
        fast = _device() == "cuda" and not machine.exact
        return cls(
            precision=("bf16" if fast and _knows_bfloat16() else "fp32") if precision is None else precision,
            tf32=fast,
            channels_last=fast if machine.channels_last is None else machine.channels_last,
            compiled=(None if fast else False) if machine.compile is None else machine.compile,
            outside=surroundings.told(_device()),
        )

    def over(self, steps: int, *, size: int, steady: bool, ghost_batch: int | None) -> "Numerics":
        """Those of one training.

        Args:
            steps: of the optimiser, in all.
            size: parameters and buffers of the backbone.
            steady: whether its objective does the same in every step, see `Objective.steady`.
            ghost_batch: of the training. Where it is None, several processes share the statistics of batch norm, and
                at each layer that does so compiled code ends, and other code begins: too little is left to join.
        """
        pays = steps >= PAYS and not (steady and size <= SMALL) and not (ghost_batch is None and processes.world() > 1)
        return replace(self, compiled=pays) if self.compiled is None else self

    def apply(self) -> None:
        """Set what torch keeps for the whole process.

        An exact workbench puts back what a fast one in the same process has set, what a variable of the environment
        asks for, and torch's own default, by which cuDNN's convolutions are in TF32.
        """
        with warnings.catch_warnings():
            # Some versions advise other settings, of which torch.compile then says that they cannot be read.
            warnings.simplefilter("ignore")
            torch.set_float32_matmul_precision("high" if self.tf32 else "highest")
            if _device() != "cuda":
                return
            torch.backends.cudnn.allow_tf32 = self.tf32
        torch.backends.cudnn.benchmark = self.tf32

    @property
    def said(self) -> str:
        """For a person who is told before trainings have a length."""
        return f"{self}, and compiled where it pays" if self.compiled is None else str(self)

    def __str__(self) -> str:
        """In words for rows and people, such as "bf16 tf32 channels-last compiled"; of a CPU's default "fp32"."""
        words = {"tf32": self.tf32, "channels-last": self.channels_last, "compiled": self.compiled}
        outside = (word for word in self.outside if self.compiled or not surroundings.of_compiled(word))
        return " ".join([self.precision, *(word for word, holds in words.items() if holds), *outside])


def computed(row: Mapping[str, Any]) -> str:
    """How the training of a row computed; all that older rows tell of it is their precision."""
    return str(row.get("numerics", row.get("precision")))


def resolved(recipe: Recipe, machine: Machine) -> Recipe:
    """The recipe with the precision in a word: its key tells what is computed, whatever device it is asked on."""
    return replace(recipe, precision=Numerics.of(machine, recipe.precision).precision)


def compile_parts(net: nn.Module) -> None:
    """Have torch.compile make the backbone, and the stacks of layers in heads and slow copies, as each is called."""
    for part in (net.get_submodule("backbone"), *_stacks(net.get_submodule("heads"))):
        part.compile()


def is_compiled(net: nn.Module) -> bool:
    """Whether `compile_parts` has seen it."""
    return net.get_submodule("backbone")._compiled_call_impl is not None


def size_of(backbone: nn.Module) -> int:
    """Its parameters and buffers, gates and their scores left out."""
    return sum(value.numel() for value in gate.stored(backbone).values())


def _stacks(module: nn.Module) -> Iterator[nn.Module]:
    """The largest parts that are called whole and have several layers: one alone leaves nothing to join."""
    if isinstance(module, gate.Follower) or type(module).forward is nn.Module.forward:
        for child in module.children():
            yield from _stacks(child)
    elif any(True for _ in module.children()) and any(True for _ in module.parameters()):
        yield module


def _device() -> str:
    """The type of the device that is computed on."""
    if surroundings.cpu_only() or not torch.accelerator.is_available():
        return "cpu"
    found = torch.accelerator.current_accelerator()
    return "cpu" if found is None else found.type


def _knows_bfloat16() -> bool:
    """Whether the GPU computes in bfloat16 itself: NVIDIA's do from Ampere on."""
    return bool(torch.cuda.is_bf16_supported(including_emulation=False))
