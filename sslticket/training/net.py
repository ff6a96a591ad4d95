"""The network that is trained: a gated backbone and an objective's heads."""

from collections.abc import Callable, Iterable
from typing import ClassVar

import torch
from torch import Tensor, nn

from sslticket import models
from sslticket.data.loader import Batch
from sslticket.masking import gate
from sslticket.masking.gates.base import HardGate, LearntGate
from sslticket.masking.mask import prunable
from sslticket.objectives.base import Objective
from sslticket.randomness import derive
from sslticket.training.learning import PENALTY, Learning
from sslticket.training.passes import Passes


class Net(nn.Module):
    """Backbone and heads; its forward returns the loss terms, so that whatever wraps a module wraps all of it.

    Attributes:
        passes: counts the images that go through the backbone and its copies.
        counter: what it is made by.
    """

    counter: ClassVar[type[Passes]] = Passes

    def __init__(
        self, backbone: nn.Module, heads: nn.Module, objective: Objective, learning: Learning | None = None
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.heads = heads
        self.objective = objective
        self.learning = learning
        self._gates = (*gate.learnt(backbone).values(), *self.head_gates.values())
        self.passes = self.counter(self)

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """The objective's named loss terms, each a scalar, and the penalty of a mask that is learnt with one."""
        terms = self.objective.loss(self, batch, progress)
        if self.learning is not None and self.learning.penalty:
            terms[PENALTY] = self.learning.penalty * torch.stack([one.penalty() for one in self._gates]).sum()
        return terms

    @property
    def head_gates(self) -> dict[str, LearntGate]:
        """The gate of a classification layer whose mask is learnt, as a supermask's is, by the name of its weight."""
        return gate.learnt(self.heads) if isinstance(self.heads, nn.Linear) else {}

    @property
    def classifier(self) -> nn.Module | None:
        """The layer that tells the classes of the images; None where the objective learns none."""
        return self.objective.classifier(self.heads)

    def weights(self) -> list[nn.Parameter]:
        """All parameters but the scores of learnt masks."""
        scores = {id(one.score) for one in gate.learnt(self).values()}
        return [parameter for parameter in self.parameters() if id(parameter) not in scores]

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
        learning: Learning | None = None,
    ) -> "Net":
        """A net drawn anew from the seed of the `init` stream, with open gates on the weights that `gated` names.

        Backbone, scores and heads have streams of their own: a backbone's weights depend neither on the objective nor
        on how its mask is found.
        """
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(derive(seed, "backbone"))
            backbone = models.build(model, channels=channels, image_size=image_size)
            torch.default_generator.manual_seed(derive(seed, "scores"))
            gate.attach(backbone, gated(backbone), HardGate if learning is None else learning.gate)
            features = models.features(backbone, channels=channels, image_size=image_size)
            torch.default_generator.manual_seed(derive(seed, "heads"))
            heads = objective.heads(backbone, features, classes)
            if learning is not None and learning.masked_head and isinstance(heads, nn.Linear):
                # Drawn as the layers before it; torch's own drawing is for layers that will be trained.
                nn.init.xavier_normal_(heads.weight)
                nn.init.zeros_(heads.bias)
                torch.default_generator.manual_seed(derive(seed, "scores", "heads"))
                gate.attach(heads, prunable(heads), learning.gate)
        net = cls(backbone, heads, objective, learning)
        if learning is not None and learning.frozen:
            for parameter in net.weights():
                parameter.requires_grad_(False)
        return net
