"""VICReg: two views agree, every output varies over images, and no two outputs covary (Bardes et al. 2022)."""

import math
from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from sslticket.data.loader import Batch
from sslticket.data.views import View
from sslticket.errors import BadInput
from sslticket.objectives.augmentation import distorted
from sslticket.objectives.base import Network, Objective
from sslticket.objectives.gathering import gathered
from sslticket.objectives.retrieval import retrieval

_EPSILON = 1e-4  # added to the variance below the root (section 4.1)


class _Heads(nn.Module):
    """The projection, which the paper calls the expander, and lightly's loss, which has no state."""

    def __init__(self, projection: nn.Module, criterion: nn.Module) -> None:
        super().__init__()
        self.projection, self.criterion = projection, criterion


@dataclass(frozen=True, kw_only=True)
class VICReg(Objective):
    """`invariance * s + variance * v + covariance * c` over the embeddings of two views, images of all processes.

    s is their mean squared difference; v the mean of `max(0, 1 - standard deviation)` over outputs and views; c the
    squared covariances of different outputs, summed, divided by their number, and summed over views (equations 1 to 6).
    The authors normalise over the batch of all devices too, as batch norm in the net does here without a ghost batch.

    Attributes:
        hidden: units of the projection's two hidden layers (section 4.2).
        dim: outputs of the projection (section 4.2).
        invariance: weight of s, the paper's lambda (section 4.2).
        variance: weight of v, the paper's mu (section 4.2).
        covariance: weight of c, the paper's nu (section 4.2).
    """

    compares: ClassVar[int] = 2
    whole_batch: ClassVar[bool] = True

    hidden: int = 8192
    dim: int = 8192
    invariance: float = 25.0
    variance: float = 25.0
    covariance: float = 1.0

    def __post_init__(self) -> None:
        if self.hidden < 1 or self.dim < 1:
            raise BadInput(
                f"{self.hidden} hidden units and {self.dim} dimensions hold nothing; give --hidden and --dim at least 1"
            )
        if min(self.invariance, self.variance, self.covariance) < 0:
            raise BadInput(
                f"weights of {self.invariance:g}, {self.variance:g} and {self.covariance:g} are not all loss terms; "
                "give --invariance, --variance and --covariance 0 or more"
            )

    def views(self, standard: View) -> tuple[View, ...]:
        """Two views of one distribution (appendix C.1; the authors' code has BYOL's two instead)."""
        view = distorted(standard, jitter=(0.4, 0.4, 0.2, 0.1), blur=0.5, solarize=0.1)
        return view, view

    def check(self, batch_size: int, views: int) -> None:
        """See the base class; a single image does not vary."""
        super().check(batch_size, views)
        if batch_size < 2:
            raise BadInput(
                f"vicreg takes variances over images and needs at least 2 at a time, and gets {batch_size}; "
                "give a larger --batch-size, or fewer processes"
            )

    def heads(self, backbone: nn.Module, features: int, classes: int) -> nn.Module:
        """The projection, three layers, (B, features) -> (B, dim)."""
        from lightly.loss import VICRegLoss
        from lightly.models.modules.heads import VICRegProjectionHead

        projection = VICRegProjectionHead(features, self.hidden, self.dim)
        return _Heads(projection, VICRegLoss(self.invariance, self.variance, self.covariance, eps=_EPSILON))

    def loss(self, net: Network, batch: Batch, progress: float) -> dict[str, Tensor]:
        """The weighted sum of the three terms over the images of all processes."""
        one, other = (gathered(projected) for projected in self._projections(net, batch))
        # The sum over dim^2 entries is too coarse in 16 bits.
        with torch.autocast(one.device.type, enabled=False):
            return {"vicreg": cast(_Heads, net.heads).criterion(one, other)}

    def collapsed_loss(self, batch_size: int) -> float:
        """Views agree and nothing covaries, but nothing varies either."""
        return self.variance * (1 - math.sqrt(_EPSILON))

    def metrics(self, net: Network, batch: Batch) -> dict[str, Tensor]:
        """Retrieval of the projections, each (B,)."""
        return retrieval(*self._projections(net, batch))

    @staticmethod
    def _projections(net: Network, batch: Batch) -> tuple[Tensor, Tensor]:
        """(B, dim) float32 each; view by view, so that batch norm sees one augmentation at a time, as the authors'."""
        projection = cast(_Heads, net.heads).projection
        return projection(net.backbone(batch.views[0])).float(), projection(net.backbone(batch.views[1])).float()
