"""Criteria: the scores by which weights are kept. A criterion only scores; `Mask.top` selects."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.func import functional_call

from sslticket.errors import BadInput
from sslticket.pruning import pruned_model
from sslticket.seeds import derive_seed

Scores = dict[str, Tensor]  # of every weight of a layer, in its shape, by the layer's clean name; on any device


@dataclass(frozen=True, eq=False)
class ScoringInput:
    """A network whose weights are to be scored. Its masks are in force; scoring leaves no trace in it.

    Attributes:
        backbone: with gates; `gate.stored` and `gate.originals` read it.
        channels: of the images that it takes.
        image_size: of these, a side in pixels.
        seed: for criteria that draw random numbers.
        losses: called with a temperature, the loss of each scoring batch, or of each part of it, with its graph; their
            sum is the sum over the batches. Logits are divided by the temperature. Every call goes over the same images
            and random numbers.
        mean_over_processes: the mean of a tensor over all processes.
    """

    backbone: nn.Module
    channels: int
    image_size: int
    seed: int
    losses: Callable[[float], Iterator[Tensor]]
    mean_over_processes: Callable[[Tensor], Tensor]


class Criterion(ABC):
    """A way to score weights; a frozen dataclass of hyper-parameters.

    Attributes:
        rounds: in how many rounds weights are pruned, with new scores in each; densities fall exponentially.
        passes: how often `scores` goes over the scoring images, which is counted as the search's cost.
    """

    rounds: int = 1
    passes: ClassVar[int] = 0

    @abstractmethod
    def scores(self, subject: ScoringInput, names: Sequence[str]) -> Scores:
        """A score for every weight of the named layers; the highest are kept. What is pruned already may have any."""

    def check(self, scope: str, logits: bool) -> None:  # noqa: B027  # most criteria work with everything
        """Whether it can rank weights in this scope ("global" or "layer"), for an objective with or without logits.

        Raises:
            BadInput: naming the flag to change.
        """

    def num_batches(self, batch_size: int, classes: int) -> int:
        """How many training batches its scores are taken from."""
        return 0

    def num_images(self, batch_size: int, classes: int) -> int:
        """Training images that its scores look at in all rounds, counted each time."""
        return self.rounds * self.passes * self.num_batches(batch_size, classes) * batch_size


@dataclass(frozen=True, kw_only=True)
class GradientCriterion(Criterion):
    """A criterion that looks at the objective's loss on training images.

    Attributes:
        score_images: how many, rounded up to whole batches; None for ten a class, as in the code of GraSP's authors.
    """

    passes: ClassVar[int] = 1

    score_images: int | None = None

    def __post_init__(self) -> None:
        if self.score_images is not None and self.score_images < 1:
            raise BadInput(
                f"no weight can be scored on {self.score_images} images; give --score-images at least 1, "
                "or leave it out for ten a class"
            )

    def num_batches(self, batch_size: int, classes: int) -> int:
        """See the base class."""
        return math.ceil((self.score_images or 10 * classes) / batch_size)

    def gradient(self, subject: ScoringInput, weights: Sequence[Tensor], temperature: float = 1.0) -> list[Tensor]:
        """Of the sum of the losses, with respect to these weights."""
        total = [torch.zeros_like(weight) for weight in weights]
        for loss in subject.losses(temperature):
            for part, gradient in zip(total, gradient_of(loss, weights), strict=True):
                part += gradient
        return [subject.mean_over_processes(part) for part in total]


def gradient_of(value: Tensor, weights: Sequence[Tensor], *, create_graph: bool = False) -> tuple[Tensor, ...]:
    """The gradient of a scalar, 0 where it does not depend on a weight; nothing is added to any `.grad`."""
    return torch.autograd.grad(value, weights, create_graph=create_graph, allow_unused=True, materialize_grads=True)


@dataclass(frozen=True)
class Magnitude(Criterion):
    """|w| as it stands: of trained weights at the end of a training (Frankle & Carbin 2019), or of W_k and W_0."""

    def scores(self, subject: ScoringInput, names: Sequence[str]) -> Scores:
        """See the base class."""
        stored = pruned_model.stored_state(subject.backbone)
        return {name: stored[name].abs() for name in names}


@dataclass(frozen=True)
class Random(Criterion):
    """Uniform random numbers: every layer keeps about the same share; with `scope="layer"` exactly the same.

    The same in every round and level of a search, so that its masks nest.
    """

    def scores(self, subject: ScoringInput, names: Sequence[str]) -> Scores:
        """See the base class."""
        stored = pruned_model.stored_state(subject.backbone)
        return {
            # Of float32's 2^24 values a large network would have many twice, and ties go to the earlier weight.
            name: torch.rand(stored[name].shape, dtype=torch.float64, generator=layer_generator(subject.seed, name))
            for name in names
        }


def layer_generator(seed: int, name: str) -> torch.Generator:
    """Random numbers on the CPU, the same on every machine, of their own for each layer."""
    return torch.Generator().manual_seed(derive_seed(seed, "random scores", name))


@dataclass(frozen=True)
class ERK(Criterion):
    """Layers of densities min(1, e (in + out + kh + kw) / (in out kh kw)), e such that the total is met.

    (Mocanu et al. 2018; with kernels Evci et al. 2020, section 3.) Which weights of a layer remain is
    chance. A weight's score is its layer's fraction over its own random rank q, evenly spaced in (0, 1): the scores
    above any threshold t are those of rank below fraction / t, a share min(1, fraction / t) of the layer. So one global
    selection finds e = 1 / t, caps what would be more than all of a layer, and keeps the exact total.
    """

    def check(self, scope: str, logits: bool) -> None:
        """See the base class; layers that are ranked on their own would all have the same density."""
        if scope == "layer":
            raise BadInput("ERK gives each layer a density of its own; give --scope global, or Random() for equal ones")

    def scores(self, subject: ScoringInput, names: Sequence[str]) -> Scores:
        """See the base class."""
        stored = pruned_model.stored_state(subject.backbone)
        return {name: _erk_scores(stored[name].shape, layer_generator(subject.seed, name)) for name in names}


def _erk_scores(shape: torch.Size, generator: torch.Generator) -> torch.Tensor:
    count = shape.numel()
    rank = (torch.randperm(count, generator=generator).double() + 0.5) / count
    return (sum(shape) / count / rank).view(shape)


@dataclass(frozen=True, kw_only=True)
class SNIP(GradientCriterion):
    """|w g| with the gradient g of the loss: |dL/dm| of a mask's entry m at 1 (Lee et al. 2019, section 4.1).

    The paper's division by the sum of all scores is left out, since it changes no rank.

    Attributes:
        score_images: training images that are looked at, rounded up to whole batches; None for ten a class.
    """

    def scores(self, subject: ScoringInput, names: Sequence[str]) -> Scores:
        """See the base class."""
        weights = pruned_model.stored_weights(subject.backbone, names)
        gradient = self.gradient(subject, list(weights.values()))
        return {name: (w.detach() * g).abs() for (name, w), g in zip(weights.items(), gradient, strict=True)}


@dataclass(frozen=True, kw_only=True)
class GraSP(GradientCriterion):
    """w (Hg), with the gradient g and the Hessian H of the loss; the lowest are removed.

    Removing w changes the squared norm of the gradient by about -2 w (Hg) (Wang et al. 2020, section 4), so the lowest
    are those whose removal lets the gradient grow most. Scores are divided by the absolute value of their sum, as in
    the authors' code, which goes over the images twice as well.

    Attributes:
        score_images: training images that are looked at, rounded up to whole batches; None for ten a class.
        logit_temperature: by which logits are divided (200 in the authors' code); 1 for objectives without logits.
    """

    passes = 2

    logit_temperature: float = 200.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.logit_temperature > 0:
            raise BadInput(
                f"logits cannot be divided by {self.logit_temperature:g}; give --logit-temperature above 0, such as 200"
            )

    def check(self, scope: str, logits: bool) -> None:
        """See the base class; a temperature needs logits."""
        if not logits and self.logit_temperature != 1:
            raise BadInput(
                f"this objective has no logits to divide by {self.logit_temperature:g}; give --logit-temperature 1"
            )

    def scores(self, subject: ScoringInput, names: Sequence[str]) -> Scores:
        """See the base class."""
        originals = pruned_model.stored_weights(subject.backbone, names)
        weights = list(originals.values())
        whole = self.gradient(subject, weights, self.logit_temperature)
        product = [torch.zeros_like(weight) for weight in weights]
        for loss in subject.losses(self.logit_temperature):
            own = gradient_of(loss, weights, create_graph=True)
            # H g of this loss is the gradient of its gradient's product with the fixed g; no Hessian is ever built.
            along = torch.stack([(part * fixed).sum() for part, fixed in zip(own, whole, strict=True)]).sum()
            for part, second in zip(product, gradient_of(along, weights), strict=True):
                part += second
        scores = {
            name: weight.detach() * subject.mean_over_processes(part)
            for (name, weight), part in zip(originals.items(), product, strict=True)
        }
        total = torch.stack([score.double().sum() for score in scores.values()]).sum().abs()
        tiny = torch.finfo(total.dtype).tiny
        return {name: (score.double() / total.clamp(min=tiny)).to(score.dtype) for name, score in scores.items()}


@dataclass(frozen=True)
class SynFlow(Criterion):
    """|w dR/dw|, with R the sum of the backbone's outputs for an image of ones.

    Weights and buffers are taken at their absolute values, on a copy in float64, which a deep network's flow does not
    overflow; batch norm and dropout work as in evaluation. No image is looked at. Scores into and out of a hidden layer
    have equal sums, so that no layer is emptied where rounds are many (Tanaka et al. 2020, theorems 1 to 3).

    Attributes:
        rounds: in how many rounds weights are pruned (Tanaka et al. 2020, algorithm 1; 100 in their experiments).
    """

    rounds: int = 100

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise BadInput(f"{self.rounds} rounds prune nothing; give --rounds at least 1")

    def scores(self, subject: ScoringInput, names: Sequence[str]) -> Scores:
        """See the base class."""
        backbone = subject.backbone
        device = next(backbone.parameters()).device
        if device.type == "mps":  # which knows no float64
            device = torch.device("cpu")
        originals = pruned_model.stored_weights(backbone, names)
        positive = {
            tensor: _absolute_float64(tensor, device) for tensor in (*backbone.parameters(), *backbone.buffers())
        }
        weights = [positive[weight].requires_grad_() for weight in originals.values()]
        state = {
            key: positive[tensor]
            for members in (backbone.named_parameters(), backbone.named_buffers())
            for key, tensor in members
        }
        ones = torch.ones(
            1, subject.channels, subject.image_size, subject.image_size, dtype=torch.float64, device=device
        )
        with _evaluation_mode(backbone):
            flow = functional_call(backbone, state, (ones,)).sum()
        return {
            name: (weight.detach() * slope).abs()
            for name, weight, slope in zip(originals, weights, gradient_of(flow, weights), strict=True)
        }


def _absolute_float64(tensor: Tensor, device: torch.device) -> Tensor:
    found = tensor.detach().to(device)
    return found.double().abs() if found.is_floating_point() else found


@contextmanager
def _evaluation_mode(backbone: nn.Module) -> Iterator[None]:
    modes = [(module, module.training) for module in backbone.modules()]
    backbone.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
