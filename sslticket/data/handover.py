"""Numbers from the host to the device, without a wait: the one place for the copies that a training step needs."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

_ALIGNED = 16  # bytes; an array in a buffer starts at a multiple, so that it can be viewed as whatever it holds


def to_device(values: np.ndarray | Tensor, device: torch.device) -> Tensor:
    """The values on the device; the host does not wait for the copy, nor for what the device does before it.

    Only a copy from pinned memory is really asynchronous on CUDA. Nobody has to keep that memory: torch's allocator of
    pinned memory notes an event for each copy from it, and hands it out again only once the event has passed.

    Args:
        values: on the host; on a CPU the result shares its memory.
        device: where they are wanted.
    """
    host = torch.from_numpy(values) if isinstance(values, np.ndarray) else values
    if device.type == "cuda" and host.is_cpu:
        host = host.pin_memory()
    return host.to(device, non_blocking=True)


def together(arrays: Sequence[np.ndarray], device: torch.device) -> list[Tensor]:
    """The arrays on the device, of the same types and shapes, in a single copy; a copy costs more than its bytes.

    Args:
        arrays: of any types that torch has; on a CPU the results share their memory.
        device: where they are wanted.
    """
    if device.type == "cpu":
        return [torch.from_numpy(array) for array in arrays]
    starts = np.cumsum([0, *(-(-array.nbytes // _ALIGNED) * _ALIGNED for array in arrays)])
    buffer = torch.empty(int(starts[-1]), dtype=torch.uint8, pin_memory=device.type == "cuda")
    for start, array in zip(starts, arrays, strict=False):
        place = buffer.numpy()[start : start + array.nbytes]
        place.view(array.dtype).reshape(array.shape)[...] = array
    there = buffer.to(device, non_blocking=True)  # see `to_device`
    return [
        there[start : start + array.nbytes].view(_torch_type(array.dtype)).view(array.shape)
        for start, array in zip(starts.tolist(), arrays, strict=False)
    ]


def _torch_type(kind: np.dtype) -> torch.dtype:
    return torch.from_numpy(np.empty(0, kind)).dtype
