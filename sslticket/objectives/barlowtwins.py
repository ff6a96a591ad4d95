"""Barlow Twins: the cross-correlation of two views' embeddings becomes the identity (Zbontar et al. 2021)."""

from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from sslticket.data.augment import View
from sslticket.data.loader import Batch
from sslticket.objectives.base import Network, Objective, check_at_least
from sslticket.objectives.distributed import all_gather
from sslticket.objectives.multiview import retrieval_metrics, strong_augmentation


class _Heads(nn.Module):
    """The projection, and lightly's loss, which has no state."""

    def __init__(self, projection: nn.Module, criterion: nn.Module) -> None:
        super().__init__()
        self.projection, self.criterion = projection, criterion


@dataclass(frozen=True, kw_only=True)
class BarlowTwins(Objective):
    """`sum_i (1 - C_ii)^2 + redundancy * sum_{i != j} C_ij^2`, C the (dim, dim) cross-correlation of two views.

    Correlations are taken over the images of all processes. The authors normalise over the batch of all devices too, as
    batch norm does here without a ghost batch. Source: https://arxiv.org/abs/2103.03230.

    Attributes:
        hidden: Units of the projection's two hidden layers (section 2.2).
        dim: Outputs of the projection (section 2.2).
        redundancy: Weight of the terms off the diagonal, the paper's lambda (section 2.2).
    """

    views_compared: ClassVar[int] = 2
    min_images: ClassVar[int] = 2
    needs_whole_batch: ClassVar[bool] = True

    hidden: int = 8192
    dim: int = 8192
    redundancy: float = 5e-3

    def __post_init__(self) -> None:
        check_at_least(self, 1, "hidden", "dim")
        check_at_least(self, 0, "redundancy")

    def views(self, standard: View) -> tuple[View, ...]:
        """BYOL's views: one always blurred, the other seldom blurred and sometimes solarised (section 2.2)."""
        colours = (0.4, 0.4, 0.2, 0.1)
        blurred = strong_augmentation(standard, jitter=colours, blur=1.0)
        return blurred, strong_augmentation(standard, jitter=colours, blur=0.1, solarize=0.2)

    def heads(self, backbone: nn.Module, features: int, classes: int) -> nn.Module:
        """The projection, three layers, (B, features) -> (B, dim)."""
        from lightly.loss import BarlowTwinsLoss
        from lightly.models.modules.heads import BarlowTwinsProjectionHead

        projection = BarlowTwinsProjectionHead(features, self.hidden, self.dim)
        return _Heads(projection, BarlowTwinsLoss(lambda_param=self.redundancy))

    def loss(self, net: Network, batch: Batch, progress: float) -> dict[str, Tensor]:
        """The loss over the images of all processes."""
        # Not lightly's own gathering: it would normalise each process's part on its own.
        one, other = (all_gather(projected) for projected in self._projections(net, batch))
        # The sum over dim^2 entries is too coarse in 16 bits.
        with torch.autocast(one.device.type, enabled=False):
            return {"correlation": cast(_Heads, net.heads).criterion(one, other)}

    def collapsed_loss(self, batch_size: int) -> float:
        """The number of dimensions: nothing correlates, so C is 0."""
        return float(self.dim)

    def metrics(self, net: Network, batch: Batch) -> dict[str, Tensor]:
        """The retrieval metrics of the projections, each (B,)."""
        return retrieval_metrics(*self._projections(net, batch))

    @staticmethod
    def _projections(net: Network, batch: Batch) -> tuple[Tensor, Tensor]:
        """(B, dim) float32 each; view by view, so that batch norm sees one augmentation at a time, as the authors'."""
        projection = cast(_Heads, net.heads).projection
        return projection(net.backbone(batch.views[0])).float(), projection(net.backbone(batch.views[1])).float()
