"""Batches of all processes joined, gradients included."""

import torch
from torch import Tensor
from torch import distributed as dist


def gathered(values: Tensor) -> Tensor:
    """The values of all processes, (B, ...) -> (world * B, ...), in the order of their ranks; (B, ...) on one process.

    Gradients flow back to the process that a value came from, summed over all processes. With gradients averaged over
    processes, as distributed training does, a loss over all gathered values has the gradient that one process with the
    whole batch would have.
    """
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return values
    from torch.distributed.nn.functional import all_gather  # not on every platform

    return torch.cat(all_gather(values.contiguous()))  # type: ignore[no-untyped-call]


def gathered_labels(values: Tensor) -> Tensor:
    """The same without gradients, for whole numbers."""
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return values
    parts = [torch.empty_like(values) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, values.contiguous())
    return torch.cat(parts)
