"""SimCLR: the other view of the same image among all views of the batch (Chen et al. 2020)."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslticket.data.augment import View
from sslticket.data.loader import Batch
from sslticket.objectives.base import Network, Objective, check_above, check_at_least, check_within
from sslticket.objectives.distributed import all_gather
from sslticket.objectives.multiview import retrieval_metrics, strong_augmentation


@dataclass(frozen=True, kw_only=True)
class SimCLR(Objective):
    """NT-Xent over the 2B views of a batch, those of all processes together; defaults are the ImageNet ones.

    The paper normalises over the batch of all devices (section 2.2), as batch norm does here without a ghost batch.
    Source: https://arxiv.org/abs/2002.05709.

    Attributes:
        temperature: Temperature of the softmax over similarities; 0.1 for ImageNet (table 5), 0.5 for CIFAR-10 (B.9).
        dim: Outputs of the projection, whose hidden layer is as wide as the features (section 2.3).
        strength: Strength of the colour jitter; 1 for ImageNet, 0.5 for CIFAR-10 (appendix A and B.9).
    """

    views_compared: ClassVar[int] = 2
    min_images: ClassVar[int] = 2
    needs_whole_batch: ClassVar[bool] = True

    temperature: float = 0.1
    dim: int = 128
    strength: float = 1.0

    def __post_init__(self) -> None:
        check_above(self, 0, "temperature")
        check_at_least(self, 1, "dim")
        check_within(self, 0, 2.5, "strength")  # at 2.5 the hue is shifted by up to half the colour circle: all of it

    def views(self, standard: View) -> tuple[View, ...]:
        """Two views with the same augmentation (appendix A)."""
        strong, hue = 0.8 * self.strength, 0.2 * self.strength
        view = strong_augmentation(standard, jitter=(strong, strong, strong, hue), blur=0.5)
        return view, view

    def heads(self, backbone: nn.Module, features: int, classes: int) -> nn.Module:
        """The projection, (B, features) -> (B, dim): two linear layers, each with batch norm."""
        from lightly.models.modules.heads import SimCLRProjectionHead

        return cast(nn.Module, SimCLRProjectionHead(features, features, self.dim))

    def loss(self, net: Network, batch: Batch, progress: float) -> dict[str, Tensor]:
        """NT-Xent, the mean over all views of all processes."""
        one, other = self._projections(net, batch)
        return {"contrast": self._nt_xent(all_gather(one), all_gather(other), "mean")}

    def collapsed_loss(self, batch_size: int) -> float:
        """The loss log(2B - 1): every view is as near as the right one. B counts the images of all processes."""
        return math.log(2 * batch_size - 1)

    def metrics(self, net: Network, batch: Batch) -> dict[str, Tensor]:
        """The retrieval metrics of the projections and the loss among the views of this batch, each (B,)."""
        one, other = self._projections(net, batch)
        loss = self._nt_xent(one, other, "none").view(2, -1).mean(dim=0)
        return retrieval_metrics(one, other) | {"loss": loss}

    @staticmethod
    def _projections(net: Network, batch: Batch) -> tuple[Tensor, Tensor]:
        """Both (B, dim) float32. One forward pass, so that batch norm sees all views together, as in the paper's."""
        one, other = net.heads(net.backbone(torch.cat(batch.views[:2]))).float().chunk(2)
        return one, other

    def _nt_xent(self, one: Tensor, other: Tensor, reduction: Literal["mean", "none"]) -> Tensor:
        """A scalar, or (2B,): the rows of the first views, then those of the second.

        To the bit that of lightly, which picks the similarities to other views by a mask of booleans and so waits for
        the device four times; gathered by lightly, it would be that of this process's rows, and so would the logs.
        """
        count = len(one)
        # Similarities over a small temperature are too coarse in 16 bits.
        with torch.autocast(one.device.type, enabled=False):
            one, other = F.normalize(one, dim=1), F.normalize(other, dim=1)
            pairs = ((one, one), (one, other), (other, one), (other, other))
            own, forth, back, same = (torch.einsum("nc,mc->nm", *pair) for pair in pairs)
            # Without the diagonals, which come every B + 1 numbers.
            apart = torch.stack((own, same)).flatten(1)[:, 1:].view(2, count - 1, count + 1)[:, :, :-1]
            across = torch.stack((forth, back))
            logits = torch.cat((across, apart.reshape(2, count, count - 1)), dim=2).flatten(0, 1) / self.temperature
            right = torch.arange(count, device=one.device).repeat(2)
            return F.cross_entropy(logits, right, reduction=reduction)
