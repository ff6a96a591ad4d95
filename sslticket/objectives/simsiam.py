"""SimSiam: predict the other view's projection, which gets no gradient (Chen & He 2021)."""

from dataclasses import dataclass
from typing import ClassVar, cast

import torch.nn.functional as F
from torch import Tensor, nn

from sslticket.data.augment import View
from sslticket.data.loader import Batch
from sslticket.objectives.base import Network, Objective, check_at_least
from sslticket.objectives.multiview import retrieval_metrics, strong_augmentation


class _Heads(nn.Module):
    """The projection and the prediction."""

    def __init__(self, projection: nn.Module, prediction: nn.Module) -> None:
        super().__init__()
        self.projection = projection
        self.prediction = prediction


@dataclass(frozen=True, kw_only=True)
class SimSiam(Objective):
    """Negative cosine similarity of prediction and projection, both ways (equation 4).

    The paper synchronises batch norm over devices (section 3), as is done here without a ghost batch, and keeps the
    prediction's learning rate constant (section 4.2); here one schedule serves all layers.
    Source: https://arxiv.org/abs/2011.10566.

    Attributes:
        dim: Units of the projection's three layers, and outputs of the prediction (section 3).
        predictor: Hidden units of the prediction; a bottleneck (section 3).
    """

    views_compared: ClassVar[int] = 2
    min_images: ClassVar[int] = 2

    dim: int = 2048
    predictor: int = 512

    def __post_init__(self) -> None:
        check_at_least(self, 1, "dim", "predictor")

    def views(self, standard: View) -> tuple[View, ...]:
        """Two views with the augmentation of MoCo v2 (appendix A)."""
        view = strong_augmentation(standard, scale=(0.2, 1.0), blur=0.5)
        return view, view

    def heads(self, backbone: nn.Module, features: int, classes: int) -> nn.Module:
        """Projection (B, features) -> (B, dim) and prediction (B, dim) -> (B, dim)."""
        from lightly.models.modules.heads import SimSiamPredictionHead, SimSiamProjectionHead

        projection = SimSiamProjectionHead(features, self.dim, self.dim)
        return _Heads(projection, SimSiamPredictionHead(self.dim, self.predictor, self.dim))

    def loss(self, net: Network, batch: Batch, progress: float) -> dict[str, Tensor]:
        """The mean over the images, from -1 to 1."""
        one, other = self._projections(net, batch)
        return {"prediction": self._distance(net, one, other).mean()}

    def collapsed_loss(self, batch_size: int) -> float:
        """The loss -1, the least there is: what is always the same is always predicted."""
        return -1.0

    def metrics(self, net: Network, batch: Batch) -> dict[str, Tensor]:
        """The retrieval metrics of the projections and the loss, each (B,)."""
        one, other = self._projections(net, batch)
        return retrieval_metrics(one, other) | {"loss": self._distance(net, one, other)}

    @staticmethod
    def _projections(net: Network, batch: Batch) -> tuple[Tensor, Tensor]:
        """(B, dim) each; view by view, so that batch norm sees one view at a time, as in the paper's algorithm 1."""
        projection = cast(_Heads, net.heads).projection
        return projection(net.backbone(batch.views[0])), projection(net.backbone(batch.views[1]))

    @staticmethod
    def _distance(net: Network, one: Tensor, other: Tensor) -> Tensor:
        """The loss of each image, (B,)."""
        prediction = cast(_Heads, net.heads).prediction
        forth = F.cosine_similarity(prediction(one).float(), other.detach().float())
        back = F.cosine_similarity(prediction(other).float(), one.detach().float())
        return -(forth + back) / 2
