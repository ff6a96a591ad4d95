"""Images innermost: a layout of memory in which sparse layers and batch norm compute without moving images around.

A batch (B, C, H, W) lies in memory as (C, H, W, B), which to torch is a tensor like any other. A kept weight of a
convolution multiplies vectors of images, so a layer that is given such a batch only puts a border around it, and each
channel is one run of numbers to batch norm. Activations and additions of torch keep the layout. CPU only.
"""

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

_NORM = "_innermost_norm"
"""Attribute of a module that has its forward for this layout."""


def is_innermost(x: Tensor) -> bool:
    """Whether a batch (B, C, H, W) lies in memory as (C, H, W, B)."""
    return x.ndim == 4 and x.stride() == innermost_strides(x.shape)


def innermost_strides(shape: torch.Size) -> tuple[int, int, int, int]:
    """The strides of a batch (B, C, H, W) in this layout."""
    count, _, height, width = shape
    return 1, height * width * count, width * count, count


def empty_innermost(shape: torch.Size, dtype: torch.dtype) -> Tensor:
    """Memory for a batch (B, C, H, W) in this layout; no view, so that it may be written to in place."""
    return torch.empty_strided(shape, innermost_strides(shape), dtype=dtype)


def to_innermost(x: Tensor) -> Tensor:
    """The batch in this layout; itself where it is in it."""
    return x if is_innermost(x) else empty_innermost(x.shape, x.dtype).copy_(x)


def use_innermost_norms(backbone: nn.Module) -> None:
    """Swap the forward of batch norm layers in place, until `stop_innermost_norms`; other layouts go on as before."""
    for module in backbone.modules():
        if type(module) is nn.BatchNorm2d and "forward" not in module.__dict__:
            norm = _InnermostNorm(module)
            setattr(module, _NORM, norm)
            cast(Any, module).forward = norm


def stop_innermost_norms(backbone: nn.Module) -> None:
    """Give all batch norm layers their own forward back."""
    for module in backbone.modules():
        if _NORM in module.__dict__:
            del module.__dict__[_NORM], module.__dict__["forward"]


class _InnermostNorm:
    """The forward of one batch norm layer.

    Args:
        module: The layer, whose own forward is taken where this one cannot be.
    """

    def __init__(self, module: nn.BatchNorm2d) -> None:
        self._module = module

    def __call__(self, input: Tensor) -> Tensor:  # noqa: A002  # torch's name, which callers may give
        """See the module's own forward."""
        module = self._module
        # Its class changes where several processes, or parts of a batch, have statistics of their own.
        own = cast("Callable[[nn.Module, Tensor], Tensor]", type(module).forward)
        tensors = (module.weight, module.bias, module.running_mean, module.running_var)
        able = type(module) is nn.BatchNorm2d and module.momentum is not None and can_normalise(input, tensors)
        if not able or (module.training and input.numel() == input.shape[1]):  # which torch refuses
            return own(module, input)
        if module.training and module.num_batches_tracked is not None:
            module.num_batches_tracked.add_(1)
        return normalise(input, tensors, cast(float, module.momentum) if module.training else -1.0, module.eps)


def can_normalise(x: Tensor, tensors: Sequence[Tensor | None]) -> bool:
    """Whether `normalise` can compute with a batch and these tensors."""
    alike = all(each is not None and each.dtype is x.dtype for each in tensors)
    return alike and is_innermost(x) and x.dtype in _LIKE and bool(x.numel())


def normalise(x: Tensor, tensors: Sequence[Tensor | None], factor: float, eps: float) -> Tensor:
    """Batch norm of a batch whose images lie innermost.

    Args:
        x: The batch, (B, C, H, W).
        tensors: Factors, what is added, running means and running variances, which move in place.
        factor: By how much they move; below 0 they stay, and are what is normalised by.
        eps: What is added to variances.
    """
    return cast(Tensor, _Norm.apply(x, *tensors, factor, eps))


class _Norm(torch.autograd.Function):
    """Batch norm of a batch whose images lie innermost, and its gradients."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, var: Tensor, factor: float, eps: float
    ) -> Tensor:
        """See `torch.nn.functional.batch_norm`; a negative factor takes the running statistics."""
        from sslticket.pruning import sparse_kernels  # with numba, which whoever asks for this layout has

        channels, like = x.shape[1], _LIKE[x.dtype]
        y, used = empty_innermost(x.shape, x.dtype), torch.empty(2, channels, dtype=x.dtype)
        moving = mean.data_ptr(), var.data_ptr()
        sparse_kernels.norm_forward(
            *(x.data_ptr(), y.data_ptr(), channels, x.numel() // channels, weight.data_ptr(), bias.data_ptr()),
            *(used.data_ptr(), moving, factor, eps, like),
        )
        if factor >= 0:
            for each in (mean, var):
                torch.autograd.graph.increment_version(each)
        ctx.save_for_backward(x, weight, used)
        ctx.batch, ctx.eps = factor >= 0, eps
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of input, factors and what is added."""
        from sslticket.pruning import sparse_kernels

        x, weight, used = ctx.saved_tensors
        mean, inverse = used.unbind()
        if torch.is_grad_enabled():  # second derivatives are asked for, which torch's own operation has
            moving = None if ctx.batch else (inverse**-2 - ctx.eps)
            found = torch.ops.aten.native_batch_norm_backward(
                *(g, x, weight, None if ctx.batch else mean, moving, mean, inverse, ctx.batch, ctx.eps, [True] * 3)
            )
            return *found, None, None, None, None
        g, channels = to_innermost(g), x.shape[1]
        d_x = empty_innermost(x.shape, x.dtype) if ctx.needs_input_grad[0] else None
        d_weight, d_bias = torch.empty_like(weight), torch.empty_like(weight)
        sparse_kernels.norm_backward(
            *(x.data_ptr(), g.data_ptr(), 0 if d_x is None else d_x.data_ptr(), channels, x.numel() // channels),
            *(weight.data_ptr(), used.data_ptr(), d_weight.data_ptr(), d_bias.data_ptr(), ctx.batch, _LIKE[x.dtype]),
        )
        return d_x, d_weight, d_bias, None, None, None, None


_LIKE = {torch.float32: torch.empty(0).numpy(), torch.float64: torch.empty(0, dtype=torch.float64).numpy()}
