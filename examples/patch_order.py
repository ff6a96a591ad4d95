"""An objective of one's own: in which order were the four quarters of the image put?

Run       sslticket run supervised_digits --objective examples/patch_order.py:PatchOrder
Source    A small form of the jigsaw task of Noroozi & Favaro 2016, section 3, https://arxiv.org/abs/1603.09246.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslticket.data.loader import Batch
from sslticket.objectives.base import Network, Objective


@dataclass(frozen=True)
class PatchOrder(Objective):
    """Tell by which halves of its sides the image was rolled; four classes, so chance is 25%."""

    def heads(self, backbone: nn.Module, features: int, classes: int) -> nn.Module:
        """One linear layer, (4B, features) -> (4B, 4)."""
        return nn.Linear(features, 4)

    def loss(self, net: Network, batch: Batch, progress: float) -> dict[str, Tensor]:
        """The mean cross-entropy over the four orders of every image."""
        return {"order": F.cross_entropy(*self._logits_and_orders(net, batch.views[0]))}

    def metrics(self, net: Network, batch: Batch) -> dict[str, Tensor]:
        """The accuracy over an image's four orders, (B,)."""
        logits, orders = self._logits_and_orders(net, batch.views[0])
        return {"order accuracy": (logits.argmax(dim=1) == orders).float().view(4, -1).mean(dim=0)}

    def _logits_and_orders(self, net: Network, images: Tensor) -> tuple[Tensor, Tensor]:
        half = images.shape[-1] // 2
        rolled = torch.cat(
            [torch.roll(images, (down * half, right * half), (2, 3)) for down in (0, 1) for right in (0, 1)]
        )
        orders = torch.arange(4, device=images.device).repeat_interleave(len(images))
        return net.heads(net.backbone(rolled)), orders
