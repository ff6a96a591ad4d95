"""SwAV: predict a view's assignment to prototypes from the image's other views (Caron et al. 2020)."""

from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch import distributed as dist

from sslticket.data.augment import View
from sslticket.data.loader import Batch
from sslticket.objectives.base import Network, Objective, check_above, check_at_least, check_within
from sslticket.objectives.multiview import (
    LOCAL_CROP_RATIO,
    NUM_GLOBAL_CROPS,
    Prototypes,
    multicrop_forward,
    num_local_crops,
    retrieval_metrics,
    strong_augmentation,
)
from sslticket.registry import stored_as

_MIN_EPSILON = 0.012  # exp(1 / epsilon) must be a float32


class _Heads(nn.Module):
    """The projection, the prototypes, and lightly's loss, which has no state."""

    def __init__(self, projection: nn.Module, prototypes: Prototypes, criterion: nn.Module) -> None:
        super().__init__()
        self.projection, self.prototypes, self.criterion = projection, prototypes, criterion


@dataclass(frozen=True, kw_only=True)
class SwAV(Objective):
    """Cross-entropy of every view's softmax over prototypes with the codes of the image's two global views.

    Codes are soft assignments that use all prototypes equally, found by Sinkhorn's iterations over the images of all
    processes. There is no queue of earlier images, which the paper adds for batches of 256: of batches far smaller than
    the number of prototypes, take fewer prototypes. Source: https://arxiv.org/abs/2006.09882.

    Attributes:
        hidden: Units of the projection's hidden layer (the authors' code).
        dim: Outputs of the projection (appendix A.1).
        prototypes: Number of prototypes (appendix C.1).
        temperature: Temperature of the softmax over prototypes (appendix A.1).
        epsilon: Temperature of the codes; smaller is sharper (appendix A.1).
        sinkhorn_steps: Iterations that balance the codes (section 3.1).
        frozen_for: Fraction of the training in which the prototypes keep their initial values; the first epoch
            (appendix A.1) of 100, the shortest training in the paper.
        local_crops: Small views of an image; by default 6 (the authors' scripts), or 0 where the training images are
            smaller than 64 pixels.
    """

    views_compared: ClassVar[int] = 2
    min_images: ClassVar[int] = 2
    needs_whole_batch: ClassVar[bool] = True

    hidden: int = 2048
    dim: int = 128
    prototypes: int = 3000
    temperature: float = 0.1
    epsilon: float = field(default=0.05, metadata=stored_as("sharpness"))
    sinkhorn_steps: int = 3
    frozen_for: float = 0.01
    local_crops: int | None = None

    def __post_init__(self) -> None:
        check_at_least(self, 1, "hidden", "dim", "sinkhorn_steps")
        check_at_least(self, 2, "prototypes")
        check_above(self, 0, "temperature")
        check_at_least(self, _MIN_EPSILON, "epsilon")
        check_within(self, 0, 1, "frozen_for")

    def views(self, standard: View) -> tuple[View, ...]:
        """Two global and `local_crops` local views (appendix A.2; A.7 where there are no local ones)."""
        count = num_local_crops(standard, self.local_crops, published=6)
        view = partial(strong_augmentation, standard, jitter=(0.8, 0.8, 0.8, 0.2), blur=0.5)
        large = view(scale=(0.14, 1.0) if count else (0.08, 1.0))
        return (large,) * NUM_GLOBAL_CROPS + (view(scale=(0.05, 0.14), size_ratio=LOCAL_CROP_RATIO),) * count

    def heads(self, backbone: nn.Module, features: int, classes: int) -> nn.Module:
        """The projection, (B, features) -> (B, dim), and the prototypes, (B, dim) -> (B, prototypes)."""
        from lightly.loss import SwaVLoss
        from lightly.models.modules.heads import SwaVProjectionHead

        projection = SwaVProjectionHead(features, self.hidden, self.dim)
        criterion = SwaVLoss(self.temperature, self.sinkhorn_steps, self.epsilon, dist.is_available())
        # Not lightly's prototypes: those have a bias, which the authors' have not.
        initial = nn.Linear(self.dim, self.prototypes, bias=False).weight
        return _Heads(projection, Prototypes(F.normalize(initial, dim=1)), criterion)

    def loss(self, net: Network, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Mean over the pairs of a global view's codes and another view's prediction."""
        heads = cast(_Heads, net.heads)
        if progress >= self.frozen_for:
            heads.prototypes.release()
        projected = self._projections(net, batch.views)
        # Codes are exponentials of 20 times a cosine: 16 bits do not hold them.
        with torch.autocast(projected.device.type, enabled=False):
            scores = F.linear(projected, heads.prototypes()).chunk(len(batch.views))
            return {
                "swapped": heads.criterion(list(scores[:NUM_GLOBAL_CROPS]), list(scores[NUM_GLOBAL_CROPS:])).squeeze()
            }

    @torch.no_grad()
    def after_step(self, net: Network, progress: float) -> None:
        """Prototypes that have moved go back to the unit sphere."""
        moved = cast(_Heads, net.heads).prototypes.weight
        moved.copy_(F.normalize(moved, dim=1))

    def metrics(self, net: Network, batch: Batch) -> dict[str, Tensor]:
        """The retrieval metrics of the projections, each (B,)."""
        one, other = self._projections(net, batch.views[:NUM_GLOBAL_CROPS]).chunk(NUM_GLOBAL_CROPS)
        return retrieval_metrics(one, other)

    @staticmethod
    def _projections(net: Network, views: tuple[Tensor, ...]) -> Tensor:
        """(V * B, dim) float32 of unit length."""
        projected = cast(_Heads, net.heads).projection(multicrop_forward(net.backbone, views))
        return F.normalize(projected.float(), dim=1)
