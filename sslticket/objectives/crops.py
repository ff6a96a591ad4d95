"""Multi-crop: two global views and several small local ones of each image (Caron et al. 2020, SwAV, section 3.2)."""

from collections.abc import Sequence
from itertools import groupby

import torch
from torch import Tensor, nn

from sslticket.data.views import View
from sslticket.errors import BadInput

GLOBAL = 2  # views of the full size; they come first
LOCAL_SHARE = 96 / 224  # of their side is a local crop's

# Pixels; from images smaller than that the common settings for CIFAR take no local crops (solo-learn; da Costa et al.
# 2022): of 32 pixels they would have 14.
_LOCAL_FROM = 64


def local_count(standard: View, asked: int | None, published: int) -> int:
    """How many local crops to take: as many as asked for, else the published number, or 0 of small images.

    Raises:
        BadInput: if fewer than none are asked for.
    """
    if asked is None:
        return published if standard.size >= _LOCAL_FROM else 0
    if asked < 0:
        raise BadInput(f"{asked} local crops cannot be taken; give --local-crops 0 or more")
    return asked


def forward_by_size(backbone: nn.Module, views: Sequence[Tensor]) -> Tensor:
    """Features of V views, (V * B, F), view after view; neighbours of one size share a forward and its batch norm."""
    sizes = groupby(views, key=lambda view: view.shape[-2:])
    return torch.cat([backbone(torch.cat(tuple(same))) for _, same in sizes])
