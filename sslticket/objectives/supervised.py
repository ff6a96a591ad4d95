"""Supervised learning of class labels."""

from dataclasses import dataclass, field
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from sslticket.data.loader import Batch
from sslticket.objectives.base import Network, Objective, check_within
from sslticket.registry import OMIT_DEFAULT


@dataclass(frozen=True)
class Supervised(Objective):
    """Cross-entropy on class labels with one linear layer; also the fixed task of every evaluation.

    Attributes:
        label_smoothing: Share of each target that is spread evenly over all classes (Szegedy et al. 2016, section 7,
            https://arxiv.org/abs/1512.00567).
    """

    needs_labels: ClassVar[bool] = True
    has_logits: ClassVar[bool] = True
    cuda_graph_safe: ClassVar[bool] = True

    label_smoothing: float = field(default=0.0, kw_only=True, metadata=OMIT_DEFAULT)

    def __post_init__(self) -> None:
        check_within(self, 0, 1, "label_smoothing")

    def heads(self, backbone: nn.Module, features: int, classes: int) -> nn.Module:
        """One linear layer, (B, features) -> (B, classes)."""
        return nn.Linear(features, classes)

    def classifier(self, heads: nn.Module) -> nn.Module:
        """See the base class."""
        return heads

    def loss(self, net: Network, batch: Batch, progress: float) -> dict[str, Tensor]:
        """The mean cross-entropy."""
        logits = self._logits(net, batch)
        return {"labels": F.cross_entropy(logits, batch.labels, label_smoothing=self.label_smoothing)}

    def metrics(self, net: Network, batch: Batch) -> dict[str, Tensor]:
        """`top1`, `top5` (1 where the label is among the highest 1 or 5 logits) and the unsmoothed loss, each (B,)."""
        logits = self._logits(net, batch).float()
        best = logits.topk(min(5, logits.shape[1]), dim=1).indices
        hit = best == batch.labels[:, None]
        loss = F.cross_entropy(logits, batch.labels, reduction="none")
        return {"top1": hit[:, 0].float(), "top5": hit.any(dim=1).float(), "loss": loss}

    @staticmethod
    def _logits(net: Network, batch: Batch) -> Tensor:
        logits: Tensor = net.heads(net.backbone(batch.views[0]))
        return logits
