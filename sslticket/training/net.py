"""The network that is trained: a gated backbone and an objective's heads."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from sslticket import models
from sslticket.data.loader import Batch
from sslticket.masking import gate
from sslticket.masking.mask import prunable
from sslticket.objectives.base import Objective
from sslticket.randomness import derive


class Net(nn.Module):
    """Backbone and heads; its forward returns the loss terms, so that whatever wraps a module wraps all of it."""

    def __init__(self, backbone: nn.Module, heads: nn.Module, objective: Objective) -> None:
        super().__init__()
        self.backbone = backbone
        self.heads = heads
        self.objective = objective

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """The objective's named loss terms, each a scalar."""
        return self.objective.loss(self, batch, progress)

    @classmethod
    def build(
        cls,
        model: str,
        objective: Objective,
        *,
        channels: int,
        image_size: int,
        classes: int,
        seed: int,
        gated: Callable[[nn.Module], Iterable[str]] = prunable,
    ) -> "Net":
        """A net drawn anew from the seed of the `init` stream, with open gates on the weights that `gated` names.

        Backbone and heads have streams of their own: a backbone's weights do not depend on the objective.
        """
        with torch.random.fork_rng():
            torch.manual_seed(derive(seed, "backbone"))
            backbone = models.build(model, channels=channels, image_size=image_size)
            gate.attach(backbone, gated(backbone))
            features = models.features(backbone, channels=channels, image_size=image_size)
            torch.manual_seed(derive(seed, "heads"))
            heads = objective.heads(backbone, features, classes)
        return cls(backbone, heads, objective)
