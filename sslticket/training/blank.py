"""Arithmetic that makes room for its results and computes none of them: what a training needs, told in no time.

A forward pass under `Blank` calls every layer and builds autograd's graph as it always does, on tensors of the CPU of
which the large ones are never written, so that their memory is never touched either. It takes as long as Python does.
Torch's own tensors without memory would do, too, but a first look at one imports its compiler, which takes a second.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

_LARGE = 2**12  # entries; smaller results are computed, as labels, distances and losses are


class Blank(TorchDispatchMode):
    """In its block, large results of floating-point arithmetic are of the right shape and type, and of no value.

    What it does not know is computed, from whatever lies in memory: slower, and of the same shape.
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
        if name in _DRAWN and math.prod(args[0]) > _LARGE:
            return torch.empty(args[0], **{key: value for key, value in kwargs.items() if key != "generator"})
        if any(one.is_floating_point() and one.numel() > _LARGE for one in _tensors(args)):
            pointwise = torch.Tag.pointwise in func.tags
            if name.endswith("_") and (pointwise or name in _FILLS):
                return args[0]
            if name in _SHAPES and (result := _SHAPES[name](*args, **kwargs)) is not None:
                return result
            if pointwise:
                return _pointwise(func, args, kwargs)
        return func(*args, **kwargs)


_DRAWN = {"rand", "randn", "zeros", "ones", "full"}
_FILLS = {"normal_", "uniform_", "fill_", "zero_", "copy_", "bernoulli_"}


def _tensors(args: tuple[Any, ...]) -> Iterator[Tensor]:
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


def _like(x: Tensor, *_: Any, **kwargs: Any) -> Tensor:
    return torch.empty_like(x, dtype=kwargs.get("dtype"))


def _index(x: Tensor, places: Any) -> Tensor | None:
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
_SHAPES: Mapping[str, Callable[..., Any]] = {
    "convolution": _convolution,
    "native_batch_norm": _batch_norm,
    "native_layer_norm": _layer_norm,
    "max_pool2d_with_indices": _max_pool,
    "cat": _cat,
    "index": _index,
    "_to_copy": _like,
    "clone": _like,
    "ones_like": _like,
    "zeros_like": _like,
    "rand_like": _like,
    "mm": lambda a, b: a.new_empty((a.shape[0], b.shape[1])),
    "bmm": lambda a, b: a.new_empty((*a.shape[:2], b.shape[2])),
    "addmm": lambda bias, a, b, **_: a.new_empty((a.shape[0], b.shape[1])),
    "_softmax": lambda x, dim, half: torch.empty_like(x),
    "_log_softmax": lambda x, dim, half: torch.empty_like(x),
}
