"""The network that is trained: a backbone whose weights are masked, an objective's heads, and counters of what their training costs."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from sslticket import models
from sslticket.config.training import Optimizer
from sslticket.data.loader import Batch
from sslticket.objectives import distributed
from sslticket.objectives.base import Objective
from sslticket.pruning import pruned_model
from sslticket.pruning.gates import HardGate, LearnedGate
from sslticket.pruning.prunable import prunable_weights
from sslticket.seeds import derive_seed

PENALTY_TERM = "penalty"
"""Name of the loss term that makes masks sparse; it is no part of the loss that is watched and told."""


@dataclass(frozen=True, kw_only=True)
class MaskLearning:
    """How masks are learnt.

    Attributes:
        gate: makes the gate of a weight.
        optimizer: of the scores; its learning rate follows the schedule of the weights' in proportion.
        penalty: lambda, the weight of the sum of all masks in the loss.
        frozen: weights and heads stay as they were drawn, and only scores are trained; the statistics of batch norm are
            estimated as always.
        masked_head: the classification layer is drawn and masked as every other layer is.
    """

    gate: Callable[[Tensor], LearnedGate]
    optimizer: Optimizer
    penalty: float = 0.0
    frozen: bool = False
    masked_head: bool = False


class PassCounter:
    """Counts the images that go through a net's backbone and through the copies of it that followers hold.

    An objective decides how often an image does: RotNet shows four turns of it, SimCLR two views, BYOL shows two views
    to the backbone and to its slow copy.

    Attributes:
        forward: images that went forward, in this process.
        backward: those of them through which gradients go back.
    """

    def __init__(self, net: nn.Module) -> None:
        """Counts from now on, as long as the net lives."""
        self.forward = self.backward = 0
        for backbone in pruned_model.backbone_and_copies(net):
            # Numbers that a compiled graph changed would be guards of it, and every step would compile another. Not as
            # a decorator: it imports the compiler, for which not even a dry run has the time.
            backbone.register_forward_hook(torch.compiler.disable(self._count))  # type: ignore[no-untyped-call]

    def _count(self, module: nn.Module, given: Any, output: Tensor) -> None:
        self.forward += len(output)
        self.backward += len(output) if output.requires_grad else 0


class RunningStatistics:
    """The running statistics of a net, which each step moves once: by the mean of what each of its parts would do.

    So one process in many parts has those that as many processes have on average. Nothing here waits for the device.
    """

    def __init__(self, net: nn.Module, parts: int) -> None:
        """Of one part there is nothing to do."""
        self._parts = parts
        self._now: list[Tensor] = []
        self._counts: list[Tensor] = []
        for layer in distributed.batchnorm_layers(net) if parts > 1 else []:
            self._now += [each for each in (layer.running_mean, layer.running_var) if each is not None]
            self._counts += [] if layer.num_batches_tracked is None else [layer.num_batches_tracked]
        self._before, self._sums, self._counted = (
            [torch.empty_like(value) for value in values] for values in (self._now, self._now, self._counts)
        )

    @torch.no_grad()
    def on_step_begin(self) -> None:
        """A step begins."""
        if self._now:
            torch._foreach_copy_(self._before, self._now)
            torch._foreach_copy_(self._counted, self._counts)
            torch._foreach_zero_(self._sums)

    @torch.no_grad()
    def on_micro_batch(self, part: int) -> None:
        """The part of this number, from 0, went forward."""
        if not self._now:
            return
        torch._foreach_add_(self._sums, self._now)
        if part < self._parts - 1:
            torch._foreach_copy_(self._now, self._before)
            torch._foreach_copy_(self._counts, self._counted)
        else:
            torch._foreach_div_(self._sums, self._parts)
            torch._foreach_copy_(self._now, self._sums)


class MaskedNetwork(nn.Module):
    """Backbone and heads; its forward returns the loss terms, so that whatever wraps a module wraps all of it.

    Attributes:
        passes: counts the images that go through the backbone and its copies.
        counter_class: what it is made by.
    """

    counter_class: ClassVar[type[PassCounter]] = PassCounter

    def __init__(
        self, backbone: nn.Module, heads: nn.Module, objective: Objective, learning: MaskLearning | None = None
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.heads = heads
        self.objective = objective
        self.mask_learning = learning
        self._gates = (*pruned_model.learned_gates(backbone).values(), *self.head_gates.values())
        self.passes = self.counter_class(self)

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """The objective's named loss terms, each a scalar, and the penalty of a mask that is learnt with one."""
        terms = self.objective.loss(self, batch, progress)
        if self.mask_learning is not None and self.mask_learning.penalty:
            terms[PENALTY_TERM] = self.mask_learning.penalty * torch.stack([one.penalty() for one in self._gates]).sum()
        return terms

    @property
    def head_gates(self) -> dict[str, LearnedGate]:
        """The gate of a classification layer whose mask is learnt, as a supermask's is, by the name of its weight."""
        return pruned_model.learned_gates(self.heads) if isinstance(self.heads, nn.Linear) else {}

    @property
    def classifier(self) -> nn.Module | None:
        """The layer that tells the classes of the images; None where the objective learns none."""
        return self.objective.classifier(self.heads)

    def weight_parameters(self) -> list[nn.Parameter]:
        """All parameters but the scores of learnt masks."""
        scores = {id(one.score) for one in pruned_model.learned_gates(self).values()}
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
        gated: Callable[[nn.Module], Iterable[str]] = prunable_weights,
        learning: MaskLearning | None = None,
    ) -> "MaskedNetwork":
        """A net drawn anew from the seed of the `init` stream, with open gates on the weights that `gated` names.

        Backbone, scores and heads have streams of their own: a backbone's weights depend neither on the objective nor
        on how its mask is found.
        """
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(derive_seed(seed, "backbone"))
            backbone = models.create_model(model, channels=channels, image_size=image_size)
            torch.default_generator.manual_seed(derive_seed(seed, "scores"))
            pruned_model.attach_gates(backbone, gated(backbone), HardGate if learning is None else learning.gate)
            features = models.num_features(backbone, channels=channels, image_size=image_size)
            torch.default_generator.manual_seed(derive_seed(seed, "heads"))
            heads = objective.heads(backbone, features, classes)
            if learning is not None and learning.masked_head and isinstance(heads, nn.Linear):
                # Drawn as the layers before it; torch's own drawing is for layers that will be trained.
                nn.init.xavier_normal_(heads.weight)
                nn.init.zeros_(heads.bias)
                torch.default_generator.manual_seed(derive_seed(seed, "scores", "heads"))
                pruned_model.attach_gates(heads, prunable_weights(heads), learning.gate)
        net = cls(backbone, heads, objective, learning)
        if learning is not None and learning.frozen:
            for parameter in net.weight_parameters():
                parameter.requires_grad_(False)
        return net
