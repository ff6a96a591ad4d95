"""Modules that several objectives have in their heads: the momentum encoder and prototypes that can be frozen."""

import copy
import math

import torch
from torch import Tensor, nn

from sslticket.pruning.pruned_model import MaskedCopy


class MomentumEncoder(MaskedCopy):
    """An exponential moving average of a backbone and its projection (He et al. 2020, MoCo, section 3.2).

    Its weights get no gradient. The backbone's gates are copied with it, and masks set on the backbone fall on the copy
    too (`Follower`), so a ticket's target network is as sparse as the ticket.
    """

    def __init__(self, backbone: nn.Module, projection: nn.Module) -> None:
        super().__init__(copy.deepcopy(backbone))
        self.projection = copy.deepcopy(projection)
        self.requires_grad_(False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) -> projections (B, D), without gradients."""
        projection: Tensor = self.projection(self.backbone(images))
        return projection

    @torch.no_grad()
    def update(self, backbone: nn.Module, projection: nn.Module, momentum: float) -> None:
        """Every weight becomes `momentum * own + (1 - momentum) * theirs`; batch statistics are its own."""
        own = (*self.backbone.parameters(), *self.projection.parameters())
        theirs = (*backbone.parameters(), *projection.parameters())
        torch._foreach_lerp_(own, theirs, 1 - momentum)


def cosine_momentum(start: float, progress: float) -> float:
    """A momentum that rises from `start` to 1 along half a cosine over the training (Grill et al. 2020, BYOL)."""
    return 1 - (1 - start) * (math.cos(math.pi * progress) + 1) / 2


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
