"""What a training costs in passes: images that go through the backbone, each time they do."""

from typing import Any

import torch
from torch import Tensor, nn

from sslticket.masking import gate


class Passes:
    """Counts the images that go through a net's backbone and through the copies of it that followers hold.

    An objective decides how often an image does: RotNet shows four turns of it, SimCLR two views, BYOL shows two views
    to the backbone and to its slow copy.

    Attributes:
        forward: images that went forward, in this process.
        backward: those of them through which gradients go back.
    """

    def __init__(self, net: nn.Module) -> None:
        """Counts from now on, as long as the net lives."""
        self.forward = self.backward = 0
        for backbone in gate.backbones(net):
            # Numbers that a compiled graph changed would be guards of it, and every step would compile another. Not as
            # a decorator: it imports the compiler, for which not even a dry run has the time.
            backbone.register_forward_hook(torch.compiler.disable(self._count))  # type: ignore[no-untyped-call]

    def _count(self, module: nn.Module, given: Any, output: Tensor) -> None:
        self.forward += len(output)
        self.backward += len(output) if output.requires_grad else 0
