"""LARS, for all tensors at once and without a wait."""

from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any, cast

import torch
from torch import Tensor

_TINY = 1e-8  # below the fraction, as in lightly's; of norms far above it


class LARS(torch.optim.Optimizer):
    """SGD with momentum whose rate is scaled for each tensor by the norms of weight and gradient (You et al. 2017).

    The step is that of lightly's LARS, to the bit on a CPU, and so is what it keeps for each tensor. It is our own
    since lightly's asks the device whether each tensor's norms are zero, a wait a tensor, and takes ten small
    operations for each, which is most of a step of a small network; timm's goes through the tensors one by one too.
    Here norms, decay and momentum of all tensors are an operation each; on CUDA only the multiplication by a tensor's
    own rate, a number that the host never sees, is still a launch a tensor.

    Nothing is kept before the first step that is taken, so a step that loss scaling skips leaves no trace.

    Args:
        params: tensors, or groups of them. Of a group without weight decay the rate is not scaled, as in SimCLR and
            after; these are biases and batch norm.
        lr: the learning rate.
        momentum: of the gradient's running sum, in all groups; 0 keeps none.
        weight_decay: factor of the L2 penalty.
        trust: the trust coefficient.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        *,
        lr: float,
        momentum: float,
        weight_decay: float,
        trust: float,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "trust": trust}
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]  # none has a closure
        """See the base class; tensors without a gradient stay as they are."""
        assert closure is None, "no optimiser here is given a closure"
        moved = [[tensor for tensor in group["params"] if tensor.grad is not None] for group in self.param_groups]
        steps = [_scaled(tensors, group) for tensors, group in zip(moved, self.param_groups, strict=True)]
        if (momentum := self.defaults["momentum"]) and any(moved):
            sums = [[self._sum(tensor) for tensor in tensors] for tensors in moved]
            torch._foreach_mul_([*chain(*sums)], momentum)
            torch._foreach_add_([*chain(*sums)], [*chain(*steps)])
            steps = sums
        of_rate: dict[float, tuple[list[Tensor], list[Tensor]]] = {}
        for tensors, step, group in zip(moved, steps, self.param_groups, strict=True):
            alike = of_rate.setdefault(group["lr"], ([], []))
            alike[0].extend(tensors)
            alike[1].extend(step)
        for lr, (tensors, step) in of_rate.items():
            if tensors:
                torch._foreach_add_(tensors, step, alpha=-lr)

    def _sum(self, tensor: Tensor) -> Tensor:
        """The running sum, in the memory order of the tensor itself."""
        state = self.state[tensor]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(tensor, memory_format=torch.preserve_format)
        found: Tensor = state["momentum_buffer"]
        return found


def _scaled(tensors: list[Tensor], group: dict[str, Any]) -> list[Tensor]:
    """The gradients with weight decay, times their tensors' rates."""
    gradients = [cast(Tensor, tensor.grad) for tensor in tensors]
    if not tensors or not group["weight_decay"]:
        return gradients
    steps = list(torch._foreach_add(gradients, tensors, alpha=group["weight_decay"]))
    torch._foreach_mul_(steps, _rates(tensors, gradients, group["weight_decay"], group["trust"]))
    return steps


def _rates(tensors: list[Tensor], gradients: list[Tensor], decay: float, trust: float) -> list[Tensor]:
    """`trust * |w| / (|g| + decay * |w|)` of each tensor, () each; 1 where all weights are 0.

    Where the whole gradient is 0 the rate is 0, so that decay alone does not move a tensor either.
    """
    norms = torch.stack(torch._foreach_norm([*tensors, *gradients]))
    weight, gradient = norms.chunk(2)
    has_weight, has_gradient = (norms != 0).chunk(2)
    rate = weight / (gradient + weight * decay + _TINY) * trust
    return list(rate.where(has_weight & has_gradient, has_gradient).unbind())
