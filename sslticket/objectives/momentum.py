"""Copies of a net that follow it slowly: the target or key encoder of several objectives."""

import copy
import math

import torch
from torch import Tensor, nn

from sslticket.masking.gate import Follower


class Momentum(Follower):
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
    def follow(self, backbone: nn.Module, projection: nn.Module, momentum: float) -> None:
        """Every weight becomes `momentum * own + (1 - momentum) * theirs`; batch statistics are its own."""
        own = (*self.backbone.parameters(), *self.projection.parameters())
        theirs = (*backbone.parameters(), *projection.parameters())
        torch._foreach_lerp_(own, theirs, 1 - momentum)


def rising(start: float, progress: float) -> float:
    """A momentum that rises from `start` to 1 along half a cosine over the training (Grill et al. 2020, BYOL)."""
    return 1 - (1 - start) * (math.cos(math.pi * progress) + 1) / 2
