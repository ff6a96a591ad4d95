"""BYOL: predict a slow copy's projection of the other view, without negatives (Grill et al. 2020)."""

from dataclasses import dataclass, field
from typing import ClassVar, cast

import torch.nn.functional as F
from torch import Tensor, nn

from sslticket.data.augment import View
from sslticket.data.loader import Batch
from sslticket.objectives.base import Network, Objective, check_at_least, check_within
from sslticket.objectives.multiview import MomentumEncoder, cosine_momentum, retrieval_metrics, strong_augmentation
from sslticket.registry import stored_as


class _Heads(nn.Module):
    """The projection, the prediction, and the target network."""

    def __init__(self, backbone: nn.Module, projection: nn.Module, prediction: nn.Module) -> None:
        super().__init__()
        self.projection = projection
        self.prediction = prediction
        self.momentum = MomentumEncoder(backbone, projection)


@dataclass(frozen=True, kw_only=True)
class BYOL(Objective):
    """Squared distance of unit predictions and unit targets, both ways (equation 2 and section 3.1).

    The target network follows the trained one more and more slowly. The published code normalises over the batch of
    all devices, as batch norm does here without a ghost batch. Images are compared by batch norm
    alone. Source: https://arxiv.org/abs/2006.07733.

    Attributes:
        momentum: Fraction of its weights that the target network keeps at the first step; it rises to 1 (section 3.3).
        hidden: Units of the hidden layers of projection and prediction (section 3.3).
        dim: Outputs of both (section 3.3).
    """

    views_compared: ClassVar[int] = 2
    min_images: ClassVar[int] = 2

    momentum: float = field(default=0.996, metadata=stored_as("ema"))
    hidden: int = 4096
    dim: int = 256

    def __post_init__(self) -> None:
        check_at_least(self, 1, "hidden", "dim")
        check_within(self, 0, 1, "momentum")

    def views(self, standard: View) -> tuple[View, ...]:
        """One view always blurred, the other seldom blurred and sometimes solarised (table 6)."""
        colours = (0.4, 0.4, 0.2, 0.1)
        blurred = strong_augmentation(standard, jitter=colours, blur=1.0)
        return blurred, strong_augmentation(standard, jitter=colours, blur=0.1, solarize=0.2)

    def heads(self, backbone: nn.Module, features: int, classes: int) -> nn.Module:
        """Projection (B, features) -> (B, dim), prediction (B, dim) -> (B, dim), and the target network."""
        from lightly.models.modules.heads import BYOLPredictionHead, BYOLProjectionHead

        projection = BYOLProjectionHead(features, self.hidden, self.dim)
        return _Heads(backbone, projection, BYOLPredictionHead(self.dim, self.hidden, self.dim))

    def loss(self, net: Network, batch: Batch, progress: float) -> dict[str, Tensor]:
        """The mean over the images, from 0 to 8."""
        one, other = self._projections(net, batch)
        return {"prediction": self._distance(net, batch, one, other).mean()}

    def after_step(self, net: Network, progress: float) -> None:
        """Move the target network towards the trained one."""
        heads = cast(_Heads, net.heads)
        heads.momentum.update(net.backbone, heads.projection, cosine_momentum(self.momentum, progress))

    def collapsed_loss(self, batch_size: int) -> float:
        """The loss 0, the least there is: what is always the same is always predicted."""
        return 0.0

    def metrics(self, net: Network, batch: Batch) -> dict[str, Tensor]:
        """The retrieval metrics of the trained network's projections and the loss, each (B,)."""
        one, other = self._projections(net, batch)
        return retrieval_metrics(one, other) | {"loss": self._distance(net, batch, one, other)}

    @staticmethod
    def _projections(net: Network, batch: Batch) -> tuple[Tensor, Tensor]:
        """(B, dim) each; view by view, so that batch norm sees one augmentation at a time, as in the paper's."""
        projection = cast(_Heads, net.heads).projection
        return projection(net.backbone(batch.views[0])), projection(net.backbone(batch.views[1]))

    @staticmethod
    def _distance(net: Network, batch: Batch, one: Tensor, other: Tensor) -> Tensor:
        """The loss of each image, (B,): |p - t|^2 of unit vectors is 2 - 2 cos(p, t)."""
        heads = cast(_Heads, net.heads)
        forth = F.cosine_similarity(heads.prediction(one).float(), heads.momentum(batch.views[1]).float())
        back = F.cosine_similarity(heads.prediction(other).float(), heads.momentum(batch.views[0]).float())
        return 4 - 2 * (forth + back)
