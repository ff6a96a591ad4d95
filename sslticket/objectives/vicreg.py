"""VICReg: two views agree, every output varies over images, and no two outputs covary (Bardes et al. 2022)."""

import math
from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from sslticket.data.augment import View
from sslticket.data.loader import Batch
from sslticket.objectives.base import Network, Objective, check_at_least
from sslticket.objectives.distributed import all_gather
from sslticket.objectives.multiview import retrieval_metrics, strong_augmentation

_VARIANCE_EPSILON = 1e-4  # added to the variance below the root (section 4.1)


class _Heads(nn.Module):
    """The projection, which the paper calls the expander."""

    def __init__(self, projection: nn.Module) -> None:
        super().__init__()
        self.projection = projection


@dataclass(frozen=True, kw_only=True)
class VICReg(Objective):
    """`invariance * s + variance * v + covariance * c` over the embeddings of two views, images of all processes.

    s is their mean squared difference; v the mean of `max(0, 1 - standard deviation)` over outputs and views; c the
    squared covariances of different outputs, summed, divided by their number, and summed over views (equations 1 to 6).
    The authors normalise over the batch of all devices too, as batch norm does here without a ghost batch.
    Source: https://arxiv.org/abs/2105.04906.

    Attributes:
        hidden: Units of the projection's two hidden layers (section 4.2).
        dim: Outputs of the projection (section 4.2).
        invariance: Weight of s, the paper's lambda (section 4.2).
        variance: Weight of v, the paper's mu (section 4.2).
        covariance: Weight of c, the paper's nu (section 4.2).
    """

    views_compared: ClassVar[int] = 2
    min_images: ClassVar[int] = 2
    needs_whole_batch: ClassVar[bool] = True

    hidden: int = 8192
    dim: int = 8192
    invariance: float = 25.0
    variance: float = 25.0
    covariance: float = 1.0

    def __post_init__(self) -> None:
        check_at_least(self, 1, "hidden", "dim")
        check_at_least(self, 0, "invariance", "variance", "covariance")

    def views(self, standard: View) -> tuple[View, ...]:
        """Two views of one distribution (appendix C.1; the authors' code has BYOL's two instead)."""
        view = strong_augmentation(standard, jitter=(0.4, 0.4, 0.2, 0.1), blur=0.5, solarize=0.1)
        return view, view

    def heads(self, backbone: nn.Module, features: int, classes: int) -> nn.Module:
        """The projection, three layers, (B, features) -> (B, dim)."""
        from lightly.models.modules.heads import VICRegProjectionHead

        return _Heads(VICRegProjectionHead(features, self.hidden, self.dim))

    def loss(self, net: Network, batch: Batch, progress: float) -> dict[str, Tensor]:
        """The weighted sum of the three terms over the images of all processes."""
        from lightly.loss.vicreg_loss import invariance_loss, variance_loss

        one, other = (all_gather(projected) for projected in self._projections(net, batch))
        # The sum over dim^2 entries is too coarse in 16 bits.
        with torch.autocast(one.device.type, enabled=False):
            invariance = invariance_loss(one, other)
            variance = 0.5 * (variance_loss(one, eps=_VARIANCE_EPSILON) + variance_loss(other, eps=_VARIANCE_EPSILON))
            covariance = _covariance_term(one) + _covariance_term(other)
            return {"vicreg": self.invariance * invariance + self.variance * variance + self.covariance * covariance}

    def collapsed_loss(self, batch_size: int) -> float:
        """The variance term alone: views agree and nothing covaries, but nothing varies either."""
        return self.variance * (1 - math.sqrt(_VARIANCE_EPSILON))

    def metrics(self, net: Network, batch: Batch) -> dict[str, Tensor]:
        """The retrieval metrics of the projections, each (B,)."""
        return retrieval_metrics(*self._projections(net, batch))

    @staticmethod
    def _projections(net: Network, batch: Batch) -> tuple[Tensor, Tensor]:
        """(B, dim) float32 each; view by view, so that batch norm sees one augmentation at a time, as the authors'."""
        projection = cast(_Heads, net.heads).projection
        return projection(net.backbone(batch.views[0])).float(), projection(net.backbone(batch.views[1])).float()


def _covariance_term(embedded: Tensor) -> Tensor:
    """The squared covariances of different outputs, summed and divided by their number; (N, dim) -> a scalar.

    To the bit lightly's, which picks the entries off the diagonal by a mask of booleans and so waits for the device.
    """
    count, dim = embedded.shape
    centred = embedded - embedded.mean(dim=0)
    matrix = torch.einsum("bc,bd->cd", centred, centred) / (count - 1)
    # The diagonal comes every dim + 1 numbers.
    apart = matrix.flatten()[:-1].view(dim - 1, dim + 1)[:, 1:]
    return apart.pow(2).flatten().sum(-1) / dim
