"""What CUDA does with an operation, as far as it can be told from its name and its operands."""

import math
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

aten = torch.ops.aten

# What waits for the device in CUDA's implementation: the host needs a number, or a size, before it can go on.
WAITS = {
    aten._local_scalar_dense.default,
    aten.nonzero.default,
    aten.masked_select.default,
    aten.equal.default,
    aten._unique2.default,
    aten.unique_dim.default,
    aten.unique_consecutive.default,
    aten.bincount.default,
    aten.multinomial.default,
    aten._linalg_check_errors.default,
}
COPIES = {aten.copy_.default, aten._to_copy.default}
ANSWERS = {aten._local_scalar_dense.default, aten.equal.default}  # of these the host gets no tensor
EMPTY = {
    aten.empty.memory_format,
    aten.empty_like.default,
    aten.empty_strided.default,
    aten.new_empty.default,
    aten.new_empty_strided.default,
}
# A number of the host on its way into an operation, of which CUDA makes an argument of the kernel.
_FREE = {aten.scalar_tensor.default, aten.detach.default, aten.lift_fresh.default, aten._unsafe_view.default, *EMPTY}
# Its running statistics, of which its schema says nothing.
_WRITTEN_UNSAID = {aten.native_batch_norm.default: (3, 4)}
# A launch over lists takes so many tensors at most, by how many lists there are, and so many blocks of so many entries
# (torch's MultiTensorApply.cuh).
_TENSORS, _BLOCKS, _ENTRIES = (110, 64, 48, 36, 30), 320, 65_536


class Facts(NamedTuple):
    """Of an operation.

    Attributes:
        name: without the overload's.
        view: its results share memory with its operands.
        aliases: they do, or are operands themselves.
        written: numbers of the arguments that it changes.
        lists: it works on lists of tensors.
        free: no kernel is launched for it.
    """

    name: str
    view: bool
    aliases: bool
    written: frozenset[int]
    lists: bool
    free: bool


@cache
def facts_of(func: Any) -> Facts:
    """What an operation's name and schema tell."""
    name, returns = func.overloadpacket.__name__, [each.alias_info for each in func._schema.returns]
    view = any(alias is not None and not alias.is_write for alias in returns)
    arguments = [each.alias_info for each in func._schema.arguments]
    return Facts(
        name,
        view,
        any(alias is not None for alias in returns),
        frozenset(number for number, alias in enumerate(arguments) if alias is not None and alias.is_write).union(
            _WRITTEN_UNSAID.get(func, ())
        ),
        name.startswith(("_foreach", "_fused", "_amp_foreach")),
        view or func in _FREE or func in ANSWERS,
    )


def strides(tensor: Tensor) -> tuple[int, ...]:
    """Those that say how a tensor lies in memory: of sides of 1 any would do."""
    return tuple(stride for stride, side in zip(tensor.stride(), tensor.shape, strict=True) if side > 1)


def waits(func: Any, args: Any, kwargs: dict[str, Any]) -> bool:
    """Whether the host has to wait until this operation is done, and all before it."""
    if func is aten.repeat_interleave.Tensor:
        return kwargs.get("output_size") is None
    name = func.overloadpacket.__name__
    if name in ("index", "index_put", "index_put_", "_index_put_impl_"):
        by_mask = any(isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8) for index in args[1])
        # With one number of the host this is a masked fill.
        return by_mask and not (name != "index" and getattr(args[2], "of_host", not args[2].dim()))
    return func in WAITS


def launches(func: Any, args: Any) -> int:
    """Kernels of one operation: of one over lists, as many as it takes."""
    lists = [given for given in args if isinstance(given, (list, tuple)) and given and isinstance(given[0], Tensor)]
    blocks = sum(math.ceil(tensor.numel() / _ENTRIES) for tensor in lists[0])
    return max(1, math.ceil(len(lists[0]) / _TENSORS[min(len(lists), 5) - 1]), math.ceil(blocks / _BLOCKS))
