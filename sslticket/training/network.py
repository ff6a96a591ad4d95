"""The network that is trained, and what is measured of it.

A backbone whose weights are masked, an objective's heads, counters of what their training costs, the metrics of the
objective over a whole set, and a nearest-neighbour probe of the features.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from sslticket import models
from sslticket.config.training import Optimizer
from sslticket.data.loader import Batch, Loader
from sslticket.models.pretrained import Pretrained
from sslticket.objectives import distributed
from sslticket.objectives.base import Objective
from sslticket.pruning import pruned_model
from sslticket.pruning.gates import LearnedGate
from sslticket.pruning.prunable import prunable_weights
from sslticket.seeds import derive_seed

if TYPE_CHECKING:  # takes half a second, and a dry run needs none of it
    from accelerate import Accelerator

PENALTY_TERM = "penalty"
"""Name of the loss term that makes masks sparse; it is no part of the loss that is checked and shown."""
NUM_NEIGHBOURS, KNN_TEMPERATURE = 200, 0.1
"""Of the nearest-neighbour probe, as in Wu et al. 2018, section 3.4 (https://arxiv.org/abs/1805.01978), and most papers
since."""


@dataclass(frozen=True, kw_only=True)
class MaskLearning:
    """How masks are learned.

    Attributes:
        gate: Makes the gate of a weight.
        optimizer: The optimiser of the scores; its learning rate follows the schedule of the weights' in proportion.
        penalty: Lambda, the weight of the sum of all masks in the loss.
        frozen: Whether weights and heads stay as they were drawn, and only scores are trained; the statistics of batch
            norm are estimated as always.
        masked_head: Whether the classification layer is drawn and masked as every other layer is.
    """

    gate: Callable[[Tensor], LearnedGate]
    optimizer: Optimizer
    penalty: float = 0.0
    frozen: bool = False
    masked_head: bool = False


class PassCounter:
    """Counts the images that go through a network's backbone and through its copies, such as momentum encoders.

    An objective decides how often an image does: RotNet shows four rotations of it, SimCLR two views, BYOL shows two
    views to the backbone and to its momentum encoder.

    Attributes:
        forward: Images that went forward, in this process.
        backward: Those of them through which gradients go back.
    """

    def __init__(self, network: nn.Module) -> None:
        """Counts from now on, as long as the network lives."""
        self.forward = self.backward = 0
        self._hooks = [
            backbone.register_forward_hook(self._count) for backbone in pruned_model.backbone_and_copies(network)
        ]

    def leave_compiled_code(self, network: nn.Module) -> None:
        """Counts outside of what torch.compile makes of the network; to be called before it is compiled.

        Numbers that a compiled graph changed would be guards of it, and every step would compile another. Not from the
        start: this imports the compiler, a second's work.
        """
        for hook in self._hooks:
            hook.remove()
        counter = torch.compiler.disable(self._count)  # type: ignore[no-untyped-call]
        self._hooks = [
            backbone.register_forward_hook(counter) for backbone in pruned_model.backbone_and_copies(network)
        ]

    def _count(self, module: nn.Module, given: Any, output: Tensor) -> None:
        self.forward += len(output)
        self.backward += len(output) if output.requires_grad else 0


class RunningStatistics:
    """The running statistics of a network, which a step moves once: by the mean of what its micro-batches would do.

    So one process with many micro-batches has those that as many processes have on average. Nothing waits for the
    device.
    """

    def __init__(self, network: nn.Module, micro_batches: int) -> None:
        """Does nothing where a step has one micro-batch."""
        self._micro_batches = micro_batches
        self._now: list[Tensor] = []
        self._counts: list[Tensor] = []
        for layer in distributed.batchnorm_layers(network) if micro_batches > 1 else []:
            self._now += [each for each in (layer.running_mean, layer.running_var) if each is not None]
            self._counts += [] if layer.num_batches_tracked is None else [layer.num_batches_tracked]
        self._before, self._sums, self._counted = (
            [torch.empty_like(value) for value in values] for values in (self._now, self._now, self._counts)
        )

    @torch.no_grad()
    def on_step_begin(self) -> None:
        """Remembers where the statistics stand."""
        if self._now:
            torch._foreach_copy_(self._before, self._now)
            torch._foreach_copy_(self._counted, self._counts)
            torch._foreach_zero_(self._sums)

    @torch.no_grad()
    def on_micro_batch(self, number: int) -> None:
        """Adds what the micro-batch of this number, from 0, did to the statistics when it went forward."""
        if not self._now:
            return
        torch._foreach_add_(self._sums, self._now)
        if number < self._micro_batches - 1:
            torch._foreach_copy_(self._now, self._before)
            torch._foreach_copy_(self._counts, self._counted)
        else:
            torch._foreach_div_(self._sums, self._micro_batches)
            torch._foreach_copy_(self._now, self._sums)


class MaskedNetwork(nn.Module):
    """Backbone and heads; its forward returns the loss terms, so that whatever wraps a module wraps all of it.

    Attributes:
        backbone: Images (B, C, H, W) -> features (B, F). Each weight that may be pruned has a mask beside it, or a gate
            that learns one; see `pruned_model`.
        heads: The layers that the objective adds.
        objective: The task.
        mask_learning: How masks are learned; None where they are fixed.
        passes: Counts the images that go through the backbone and its copies.
        counter_class: The class of that counter.
    """

    counter_class: ClassVar[type[PassCounter]] = PassCounter

    def __init__(
        self, backbone: nn.Module, heads: nn.Module, objective: Objective, mask_learning: MaskLearning | None = None
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.heads = heads
        self.objective = objective
        self.mask_learning = mask_learning
        self._gates = (*pruned_model.learned_gates(backbone).values(), *self.head_gates.values())
        self.passes = self.counter_class(self)

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """The objective's named loss terms, each a scalar, and the penalty of masks that are learned with one."""
        terms = self.objective.loss(self, batch, progress)
        if self.mask_learning is not None and self.mask_learning.penalty:
            terms[PENALTY_TERM] = (
                self.mask_learning.penalty * torch.stack([gate.penalty() for gate in self._gates]).sum()
            )
        return terms

    @property
    def head_gates(self) -> dict[str, LearnedGate]:
        """The gate of a classification layer whose mask is learned, as a supermask's is, by the name of its weight."""
        return pruned_model.learned_gates(self.heads) if isinstance(self.heads, nn.Linear) else {}

    @property
    def classifier(self) -> nn.Module | None:
        """The layer that classifies the images; None where the objective learns no classes."""
        return self.objective.classifier(self.heads)

    def weight_parameters(self) -> list[nn.Parameter]:
        """All parameters but the scores of learned masks, in the order in which optimisers number them."""
        scores = {id(gate.score) for gate in pruned_model.learned_gates(self).values()}
        return [each for each in pruned_model.parameters_in_order(self) if id(each) not in scores]

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
        drop_path: float = 0.0,
        gated: Callable[[nn.Module], Iterable[str]] = prunable_weights,
        mask_learning: MaskLearning | None = None,
        weights: Pretrained | None = None,
    ) -> "MaskedNetwork":
        """A network drawn anew, with open masks on the weights that `gated` names.

        Backbone, scores and heads have streams of their own: a backbone's weights depend neither on the objective nor
        on how its mask is found.

        Args:
            model: Name of the backbone.
            objective: The task.
            channels: Channels of the images.
            image_size: Side of the images in pixels.
            classes: Number of classes.
            seed: Seed of the `init` stream.
            drop_path: See `TrainConfig`.
            gated: Returns the names of the weights that get a mask, or a gate that learns one.
            mask_learning: How masks are learned; None where they are fixed.
            weights: Weights that the backbone has in place of those that were drawn; None to keep these.
        """
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(derive_seed(seed, "backbone"))
            backbone = models.create_model(model, channels=channels, image_size=image_size, drop_path=drop_path)
            if weights is not None:
                weights.load_into(backbone, channels)
            torch.default_generator.manual_seed(derive_seed(seed, "scores"))
            if mask_learning is None:
                pruned_model.attach_masks(backbone, gated(backbone))
            else:
                pruned_model.attach_gates(backbone, gated(backbone), mask_learning.gate)
            features = models.num_features(backbone, channels=channels, image_size=image_size)
            torch.default_generator.manual_seed(derive_seed(seed, "heads"))
            heads = objective.heads(backbone, features, classes)
            if mask_learning is not None and mask_learning.masked_head and isinstance(heads, nn.Linear):
                # Drawn as the layers before it; torch's own drawing is for layers that will be trained.
                nn.init.xavier_normal_(heads.weight)
                nn.init.zeros_(heads.bias)
                torch.default_generator.manual_seed(derive_seed(seed, "scores", "heads"))
                pruned_model.attach_gates(heads, prunable_weights(heads), mask_learning.gate)
        network = cls(backbone, heads, objective, mask_learning)
        if mask_learning is not None and mask_learning.frozen:
            for parameter in network.weight_parameters():
                parameter.requires_grad_(False)
        return network


class Rewiring(Protocol):
    """What changes the mask of a training now and then, as dynamic sparse training does.

    Attributes:
        needs_gradients: Whether it looks at the gradients of all weights, pruned ones too; the step at which it is due
            computes these, and the optimiser takes none.
    """

    needs_gradients: bool

    def is_due(self, step: int) -> bool:
        """Whether the mask changes now that so many steps were taken; the same in all processes."""

    def update(self, network: MaskedNetwork, optimizer: torch.optim.Optimizer, step: int) -> None:
        """Changes the mask, and what weights and optimiser hold where it has changed."""


@torch.no_grad()
def sync_buffers(network: MaskedNetwork) -> None:
    """Makes running statistics their means over the processes, and other buffers the first process's.

    To be called wherever a network's state is used or kept: in training each process moves its own, towards the
    statistics of its own images. They are exponential means, and so the mean of theirs is that of all images.
    """
    if not distributed.is_distributed():
        return
    from accelerate.utils import broadcast, reduce

    named = dict(network.named_buffers())
    own = [value for name, value in named.items() if name.rpartition(".")[2] in ("running_mean", "running_var")]
    if own:
        joined = reduce(torch.cat([value.flatten().double() for value in own]), reduction="mean")
        for value, mean in zip(own, joined.split([value.numel() for value in own]), strict=True):
            value.copy_(mean.view_as(value))
    taken = {id(value) for value in own}
    for value in named.values():
        if id(value) not in taken:
            value.copy_(broadcast(value))


@contextmanager
def preserve_buffers(network: MaskedNetwork) -> Iterator[None]:
    """Puts back, where `sync_buffers` changes them, running statistics and other buffers when the block ends."""
    if not distributed.is_distributed():
        yield
        return
    kept = [(value, value.clone()) for value in network.buffers()]
    yield
    with torch.no_grad():
        for value, before in kept:
            value.copy_(before)


@torch.no_grad()
def measure_metrics(
    accelerator: "Accelerator", network: MaskedNetwork, loader: Loader, *, by_class: int | None = None
) -> dict[str, float]:
    """Mean of each of the objective's metrics over every image of the loader's set, all processes together.

    A mean that is not finite, as a loss of a network that overflows, is left out: JSON has no word for it.

    Args:
        accelerator: The accelerator of this process.
        network: The network, left in evaluation mode.
        loader: The images.
        by_class: Number of classes of which `balanced_top1` is measured too: top-1 of each class that has images, and
            the mean of these. None leaves it out.
    """
    network.eval()
    sync_buffers(network)
    sums: dict[str, torch.Tensor] = {}
    count = torch.zeros((), dtype=torch.float64, device=accelerator.device)
    classes = torch.zeros(2, by_class or 0, dtype=torch.float64, device=accelerator.device)  # images right, and all
    for batch in loader.once():
        with accelerator.autocast():
            values = network.objective.metrics(network, batch)
        for name, value in values.items():
            sums[name] = sums.get(name, torch.zeros_like(count)) + value.double().sum()
        if by_class is not None and len(batch.labels):
            right = torch.stack([values["top1"].double(), torch.ones_like(values["top1"], dtype=torch.float64)])
            classes.index_add_(1, batch.labels, right)
        count += len(batch.indices)
    names = sorted(sums)
    totals = accelerator.reduce(torch.stack([count, *(sums[name] for name in names)]), reduction="sum").tolist()
    means = {name: total / totals[0] for name, total in zip(names, totals[1:], strict=True)}
    if by_class is not None:
        right, images = accelerator.reduce(classes, reduction="sum")
        means["balanced_top1"] = float((right[images > 0] / images[images > 0]).mean())
    return {name: mean for name, mean in means.items() if math.isfinite(mean)}


@torch.no_grad()
def knn_accuracy(
    accelerator: "Accelerator", network: MaskedNetwork, bank: Loader, queries: Loader, classes: int
) -> float:
    """Top-1 accuracy, a fraction, of the weighted vote of the nearest neighbours in feature space; lightly's vote.

    Args:
        accelerator: The accelerator of this process.
        network: The network whose backbone's features are compared, normalised to length 1; left in evaluation mode.
        bank: Images with true labels.
        queries: Images to classify.
        classes: Number of classes.
    """
    # Imported here: lightly takes seconds, and only a run with a probe needs it.
    from lightly.utils.benchmarking.knn import knn_predict

    network.eval()
    sync_buffers(network)
    known, labels = _gather_features(
        accelerator, [_normalized_features(accelerator, network, batch.views[0], batch.labels) for batch in bank.once()]
    )
    right, count = torch.zeros(2, device=accelerator.device).unbind()
    for batch in queries.once():
        features, truth = _normalized_features(accelerator, network, batch.views[0], batch.labels)
        votes = knn_predict(
            features, known.T, labels, classes, knn_k=min(NUM_NEIGHBOURS, len(known)), knn_t=KNN_TEMPERATURE
        )
        right += (votes[:, 0] == truth).sum()
        count += len(truth)
    total = accelerator.reduce(torch.stack([right, count]), reduction="sum")
    return float(total[0] / total[1])


def _normalized_features(
    accelerator: "Accelerator", network: MaskedNetwork, images: Tensor, label: Tensor
) -> tuple[Tensor, Tensor]:
    with accelerator.autocast():
        features = network.backbone(images)
    return torch.nn.functional.normalize(features.float(), dim=1), label


def _gather_features(accelerator: "Accelerator", parts: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Features (N, F) and labels (N,) of all processes, whose numbers of images may differ."""
    features, labels = (torch.cat(column) for column in zip(*parts, strict=True))
    if accelerator.num_processes > 1:
        from accelerate.utils import gather_object

        everyone = zip(*gather_object([(features.cpu(), labels.cpu())]), strict=True)
        features, labels = (torch.cat(column).to(accelerator.device) for column in everyone)
    return features, labels
