"""Batches of all processes joined, gradients included."""

from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist


def gathered(values: Tensor) -> Tensor:
    """The values of all processes, (B, ...) -> (world * B, ...), in the order of their ranks; (B, ...) on one process.

    Gradients flow back to the process that a value came from, summed over all processes. With gradients averaged over
    processes, as distributed training does, a loss over all gathered values has the gradient that one process with the
    whole batch would have.
    """
    joined: Tensor = _Joined.apply(values) if several() else values
    return joined


def gathered_labels(values: Tensor) -> Tensor:
    """The same without gradients, for whole numbers."""
    return _all(values) if several() else values


class _Joined(torch.autograd.Function):
    """Ours, since torch's own function with gradients has moved between the versions that are supported."""

    @staticmethod
    def forward(context: Any, values: Tensor) -> Tensor:
        return _all(values)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Any:
        return _Own.apply(*gradients)


class _Own(torch.autograd.Function):
    """This process's part of the sum over all processes. Each of the two is the other's gradient, for second ones."""

    @staticmethod
    def forward(context: Any, values: Tensor) -> Tensor:
        total = values.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total.chunk(dist.get_world_size())[dist.get_rank()].clone()

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Any:
        return _Joined.apply(*gradients)


def several() -> bool:
    """Whether other processes train too."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def _all(values: Tensor) -> Tensor:
    values = values.contiguous()  # before the buffers are made: they would else inherit another order of memory
    parts = [torch.empty_like(values) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, values)
    return torch.cat(parts)
