"""Prototypes that stay as they were drawn during the first steps, whatever the optimiser does."""

import torch
from torch import Tensor, nn


class Prototypes(nn.Module):
    """K vectors, (K, D), that only move once they are released.

    The papers drop the gradient of a frozen layer between the backward pass and the optimiser's step. Distributed
    training and fused optimisers want a gradient of every parameter at every step. So the vectors are a constant plus a
    trained weight, which is 0 and gets a gradient of 0 until the release: then neither weight decay nor momentum moves
    it. The release moves the constant into the weight.
    """

    free: Tensor  # () 0 or 1, the factor of the gradient

    def __init__(self, drawn: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros_like(drawn))
        # No buffer, which distributed training would send around at every step.
        self.held = nn.Parameter(drawn.detach().clone(), requires_grad=False)
        self.register_buffer("free", torch.zeros(()))

    def forward(self) -> Tensor:
        """The vectors, (K, D)."""
        return self.held + self.free * self.weight

    @torch.no_grad()
    def release(self) -> None:
        """Let them move from now on. A second time it does nothing, without waiting for the device to tell."""
        self.weight.add_(self.held)
        self.held.zero_()
        self.free.fill_(1)
