"""RotNet: which of four turns was applied to the image (Gidaris et al. 2018)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslticket.data.loader import Batch
from sslticket.objectives.base import Network, Objective

NUM_ROTATIONS = 4
"""Rotations by 0, 90, 180 and 270 degrees (Gidaris et al. 2018, section 3)."""

_CHUNK_VALUES = 2**18
"""On a CPU so many numbers are turned at a time as stay in a core's cache between their two copies; measured."""


def four_rotations(images: Tensor) -> tuple[Tensor, Tensor]:
    """All four turns of square images: (B, C, S, S) -> (4B, C, S, S) and their classes (4B,), 0 to 3.

    Class k is the image turned k times by 90 degrees counter-clockwise; the copies of image i lie at i, B + i, 2B + i
    and 3B + i. All have the crop, mirroring and colours of the loaded view: turning comes last, since a mirror
    image after it would swap classes 1 and 3.
    """
    count, layout = len(images), torch.contiguous_format
    if not images.is_contiguous() and images.is_contiguous(memory_format=torch.channels_last):
        layout = torch.channels_last
    shape = (NUM_ROTATIONS * count, *images.shape[1:])
    turned = torch.empty(shape, dtype=images.dtype, device=images.device, memory_format=layout)
    some = max(1, _CHUNK_VALUES // max(1, images[:1].numel())) if images.is_cpu else max(1, count)
    for first in range(0, count, some):
        for turn in range(NUM_ROTATIONS):
            chunk = torch.rot90(images[first : first + some], turn, dims=(2, 3))
            turned[turn * count + first :][: len(chunk)].copy_(chunk)
    classes = torch.arange(NUM_ROTATIONS, device=images.device).repeat_interleave(len(images))
    return turned, classes


@dataclass(frozen=True)
class RotNet(Objective):
    """The mean cross-entropy over the four turns of every image in one batch; chance is 25%.

    All four copies, not one random turn, as in the original paper (section 3); batch size and samples seen count source
    images. Source: https://arxiv.org/abs/1803.07728.
    """

    has_logits: ClassVar[bool] = True
    cuda_graph_safe: ClassVar[bool] = True

    def heads(self, backbone: nn.Module, features: int, classes: int) -> nn.Module:
        """One linear layer, (4B, features) -> (4B, 4); the data's classes do not matter."""
        return nn.Linear(features, NUM_ROTATIONS)

    def loss(self, net: Network, batch: Batch, progress: float) -> dict[str, Tensor]:
        """The mean cross-entropy over 4B images."""
        turned, classes = four_rotations(batch.views[0])
        return {"rotation": F.cross_entropy(net.heads(net.backbone(turned)), classes)}

    def metrics(self, net: Network, batch: Batch) -> dict[str, Tensor]:
        """Rotation accuracy and loss, the means over an image's four turns, each (B,)."""
        turned, classes = four_rotations(batch.views[0])
        logits = net.heads(net.backbone(turned)).float()
        right = (logits.argmax(dim=1) == classes).float().view(NUM_ROTATIONS, -1)
        loss = F.cross_entropy(logits, classes, reduction="none").view(NUM_ROTATIONS, -1)
        return {"rotation accuracy": right.mean(dim=0), "loss": loss.mean(dim=0)}

    def preview(self, batch: Batch) -> dict[str, Tensor]:
        """The four turns."""
        turned, _ = four_rotations(batch.views[0])
        return {f"turned {90 * turn}": view for turn, view in enumerate(turned.chunk(NUM_ROTATIONS))}
