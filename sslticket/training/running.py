"""The running statistics of batch norm, moved once a step."""

import torch
from torch import Tensor, nn

from sslticket.objectives import batchnorm


class Running:
    """The running statistics of a net, which each step moves once: by the mean of what each of its parts would do.

    So one process in many parts has those that as many processes have on average. Nothing here waits for the device.
    """

    def __init__(self, net: nn.Module, parts: int) -> None:
        """Of one part there is nothing to do."""
        self._parts = parts
        self._now: list[Tensor] = []
        self._counts: list[Tensor] = []
        for layer in batchnorm.layers(net) if parts > 1 else []:
            self._now += [each for each in (layer.running_mean, layer.running_var) if each is not None]
            self._counts += [] if layer.num_batches_tracked is None else [layer.num_batches_tracked]
        self._before, self._sums, self._counted = (
            [torch.empty_like(value) for value in values] for values in (self._now, self._now, self._counts)
        )

    @torch.no_grad()
    def begin(self) -> None:
        """A step begins."""
        if self._now:
            torch._foreach_copy_(self._before, self._now)
            torch._foreach_copy_(self._counted, self._counts)
            torch._foreach_zero_(self._sums)

    @torch.no_grad()
    def seen(self, part: int) -> None:
        """The part of this number, from 0, went forward."""
        if not self._now:
            return
        torch._foreach_add_(self._sums, self._now)
        if part < self._parts - 1:
            torch._foreach_copy_(self._now, self._before)
            torch._foreach_copy_(self._counts, self._counted)
        else:
            torch._foreach_div_(self._sums, self._parts)
            torch._foreach_copy_(self._now, self._sums)
