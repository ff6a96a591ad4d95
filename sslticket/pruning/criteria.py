"""Criteria: the scores by which weights are kept, and the mask that follows from them by a schedule."""

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
from sslticket.pruning.mask import Mask, SparsitySchedule
from sslticket.seeds import derive_seed

Scores = dict[str, Tensor]
"""A score for every weight of a layer, in the layer's shape, by the layer's plain name; on any device."""


@dataclass(frozen=True, eq=False)
class ScoringInput:
    """A network whose weights are to be scored, with its masks in force. Scoring must leave it unchanged.

    Attributes:
        backbone: The network with gates; `pruned_model.stored_state` and `pruned_model.stored_weights` read it.
        channels: Channels of the images that it takes.
        image_size: Side of these square images in pixels.
        seed: Seed for criteria with random numbers.
        losses: Called with a temperature, gives the loss of each scoring batch, or of each micro-batch, with its graph;
            their sum is the sum over the batches. Logits are divided by the temperature. Every call goes over the same
            images and random numbers.
        mean_over_processes: Gives the mean of a tensor over all processes.
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
        rounds: Number of rounds in which weights are pruned, with new scores in each; densities fall exponentially.
        passes: How often `scores` goes over the scoring images, which is counted as the search's cost.
    """

    rounds: int = 1
    passes: ClassVar[int] = 0

    @abstractmethod
    def scores(self, inputs: ScoringInput, names: Sequence[str]) -> Scores:
        """A score for every weight of the named layers, in their shapes; the highest are kept.

        Weights that are already pruned may have any score.
        """

    def check(self, scope: str, has_logits: bool) -> None:  # noqa: B027  # most criteria work with everything
        """Check that the criterion can rank weights.

        Args:
            scope: "global" where all weights are ranked together, "layer" where each layer's are on their own.
            has_logits: Whether the objective's loss is a cross-entropy of logits.

        Raises:
            BadInput: If it cannot, naming the flag to change.
        """

    def num_batches(self, batch_size: int, classes: int) -> int:
        """Number of training batches that its scores are taken from."""
        return 0

    def num_images(self, batch_size: int, classes: int) -> int:
        """Number of training images that its scores use in all rounds, counted each time."""
        return self.rounds * self.passes * self.num_batches(batch_size, classes) * batch_size


def prune_to_level(
    scores: Callable[[Criterion, Mask], Scores],
    criterion: Criterion,
    schedule: SparsitySchedule,
    mask: Mask,
    *,
    start: int,
    level: int,
    first: Scores | None = None,
) -> Mask:
    """Prunes a mask to a level by a criterion's scores, in as many rounds as the criterion asks for.

    Rounds are fractions of a level, so densities fall exponentially: from dense, after round e of E to density^(e / E).

    Args:
        scores: Returns a criterion's scores of the network's weights as they stand, under a mask.
        criterion: The criterion, which scores in every round the weights that are left.
        schedule: How many weights are left at a level, and among which they are ranked.
        mask: The mask that is pruned.
        start: The level of that mask.
        level: The level of the mask that is returned.
        first: The scores under `mask`, where they are known.

    Raises:
        BadInput: If the scores cannot rank weights.
    """
    for number in range(1, criterion.rounds + 1):
        found = first if number == 1 and first is not None else scores(criterion, mask)
        mask = schedule.select(found, start + (level - start) * number / criterion.rounds, mask)
    return mask


@dataclass(frozen=True, kw_only=True)
class GradientCriterion(Criterion):
    """A criterion that needs the objective's loss on training images.

    Attributes:
        score_images: Number of training images, rounded up to whole batches; None for ten a class, as in the code of
            GraSP's authors (https://github.com/alecwangcq/GraSP).
    """

    passes: ClassVar[int] = 1

    score_images: int | None = None

    def __post_init__(self) -> None:
        if self.score_images is not None and self.score_images < 1:
            raise BadInput(f"--score-images must be at least 1, got {self.score_images}; leave it out for ten a class")

    def num_batches(self, batch_size: int, classes: int) -> int:
        """See the base class."""
        return math.ceil((self.score_images or 10 * classes) / batch_size)

    def gradient(self, inputs: ScoringInput, weights: Sequence[Tensor], temperature: float = 1.0) -> list[Tensor]:
        """The gradient of the sum of the losses with respect to these weights, each in its weight's shape."""
        total = [torch.zeros_like(weight) for weight in weights]
        for loss in inputs.losses(temperature):
            for sum_so_far, gradient in zip(total, gradient_of(loss, weights), strict=True):
                sum_so_far += gradient
        return [inputs.mean_over_processes(gradient) for gradient in total]


def gradient_of(value: Tensor, weights: Sequence[Tensor], *, create_graph: bool = False) -> tuple[Tensor, ...]:
    """The gradient of a scalar, 0 where it does not depend on a weight; nothing is added to any `.grad`."""
    return torch.autograd.grad(value, weights, create_graph=create_graph, allow_unused=True, materialize_grads=True)


@dataclass(frozen=True)
class Magnitude(Criterion):
    """The size |w| of a weight (Han et al. 2015, https://arxiv.org/abs/1506.02626).

    Of trained weights at the end of a training (Frankle & Carbin 2019), or of W_k and W_0.
    """

    def scores(self, inputs: ScoringInput, names: Sequence[str]) -> Scores:
        """See the base class."""
        stored = pruned_model.stored_state(inputs.backbone)
        return {name: stored[name].abs() for name in names}


@dataclass(frozen=True)
class Random(Criterion):
    """Uniform random numbers: every layer keeps about the same fraction; with `scope="layer"` exactly the same.

    Scores are the same in every round and level of a search, so that its masks nest.
    """

    def scores(self, inputs: ScoringInput, names: Sequence[str]) -> Scores:
        """See the base class."""
        stored = pruned_model.stored_state(inputs.backbone)
        return {
            # Of float32's 2^24 values a large network would have many twice, and ties go to the earlier weight.
            name: torch.rand(stored[name].shape, dtype=torch.float64, generator=layer_generator(inputs.seed, name))
            for name in names
        }


def layer_generator(seed: int, name: str) -> torch.Generator:
    """A generator of random numbers on the CPU, the same on every machine, of its own for each layer."""
    return torch.Generator().manual_seed(derive_seed(seed, "random scores", name))


@dataclass(frozen=True)
class ERK(Criterion):
    """Erdos-Renyi-kernel: random weights in layers of densities min(1, e (in + out + kh + kw) / (in out kh kw)).

    The factor e is such that the total is met (Mocanu et al. 2018, https://arxiv.org/abs/1707.04780; with kernels Evci
    et al. 2020, section 3, https://arxiv.org/abs/1911.11134). Which weights of a layer remain is random. A weight's
    score is its layer's fraction over its own random rank q, evenly spaced in (0, 1): the scores above any threshold t
    are those of rank below fraction / t, which are min(1, fraction / t) of the layer. So one global selection finds
    e = 1 / t, caps what would be more than all of a layer, and keeps the exact total.
    """

    def check(self, scope: str, has_logits: bool) -> None:
        """Refuse to rank each layer on its own, since all would have the same density. See the base class."""
        if scope == "layer":
            raise BadInput(
                "--scope must be global for ERK, which gives each layer a density of its own, got layer; give --scope "
                "global, or Random() for equal densities"
            )

    def scores(self, inputs: ScoringInput, names: Sequence[str]) -> Scores:
        """See the base class."""
        stored = pruned_model.stored_state(inputs.backbone)
        scores = {}
        for name in names:
            shape, count = stored[name].shape, stored[name].numel()
            permutation = torch.randperm(count, generator=layer_generator(inputs.seed, name))
            rank = (permutation.double() + 0.5) / count
            scores[name] = (sum(shape) / count / rank).view(shape)
        return scores


@dataclass(frozen=True, kw_only=True)
class SNIP(GradientCriterion):
    """The score |w g| with the gradient g of the loss: |dL/dm| of a mask's entry m at 1.

    The paper's division by the sum of all scores is left out, since it changes no rank (Lee et al. 2019, section 4.1,
    https://arxiv.org/abs/1810.02340).

    Attributes:
        score_images: Number of training images, rounded up to whole batches; None for ten a class.
    """

    def scores(self, inputs: ScoringInput, names: Sequence[str]) -> Scores:
        """See the base class."""
        weights = pruned_model.stored_weights(inputs.backbone, names)
        gradient = self.gradient(inputs, list(weights.values()))
        return {name: (w.detach() * g).abs() for (name, w), g in zip(weights.items(), gradient, strict=True)}


@dataclass(frozen=True, kw_only=True)
class GraSP(GradientCriterion):
    """The score w (Hg), with the gradient g and the Hessian H of the loss; the lowest are removed.

    Removing w changes the squared norm of the gradient by about -2 w (Hg), so the lowest are those whose removal lets
    the gradient grow most (Wang et al. 2020, section 4, https://arxiv.org/abs/2002.07376). Scores are divided by the
    absolute value of their sum, as in the authors' code, which goes over the images twice as well.

    Attributes:
        score_images: Number of training images, rounded up to whole batches; None for ten a class.
        logit_temperature: Number by which logits are divided (200 in the authors' code); 1 for objectives without
            logits.
    """

    passes = 2

    logit_temperature: float = 200.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.logit_temperature > 0:
            raise BadInput(f"--logit-temperature must be above 0, got {self.logit_temperature:g}; give it such as 200")

    def check(self, scope: str, has_logits: bool) -> None:
        """Refuse a temperature for an objective without logits. See the base class."""
        if not has_logits and self.logit_temperature != 1:
            raise BadInput(
                "--logit-temperature must be 1 for this objective, which has no logits, got "
                f"{self.logit_temperature:g}; give --logit-temperature 1"
            )

    def scores(self, inputs: ScoringInput, names: Sequence[str]) -> Scores:
        """See the base class."""
        stored = pruned_model.stored_weights(inputs.backbone, names)
        weights = list(stored.values())
        whole_gradient = self.gradient(inputs, weights, self.logit_temperature)
        products = [torch.zeros_like(weight) for weight in weights]
        for loss in inputs.losses(self.logit_temperature):
            own = gradient_of(loss, weights, create_graph=True)
            # H g of this loss is the gradient of its gradient's product with the fixed g; no Hessian is ever built.
            along = torch.stack([(one * fixed).sum() for one, fixed in zip(own, whole_gradient, strict=True)]).sum()
            for product, second in zip(products, gradient_of(along, weights), strict=True):
                product += second
        scores = {
            name: weight.detach() * inputs.mean_over_processes(product)
            for (name, weight), product in zip(stored.items(), products, strict=True)
        }
        total = torch.stack([score.double().sum() for score in scores.values()]).sum().abs()
        tiny = torch.finfo(total.dtype).tiny
        return {name: (score.double() / total.clamp(min=tiny)).to(score.dtype) for name, score in scores.items()}


@dataclass(frozen=True)
class SynFlow(Criterion):
    """The score |w dR/dw|, with R the sum of the backbone's outputs for an image of ones.

    Weights and buffers are taken at their absolute values, on a copy in float64, which a deep network's flow does not
    overflow; batch norm and dropout work as in evaluation. No image is needed. Scores into and out of a hidden layer
    have equal sums, so that no layer is emptied where rounds are many (Tanaka et al. 2020, theorems 1 to 3,
    https://arxiv.org/abs/2006.05467).

    Attributes:
        rounds: Number of rounds in which weights are pruned (algorithm 1; 100 in their experiments).
    """

    rounds: int = 100

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise BadInput(f"--rounds must be at least 1, got {self.rounds}; give --rounds 100")

    def scores(self, inputs: ScoringInput, names: Sequence[str]) -> Scores:
        """See the base class."""
        backbone = inputs.backbone
        device = next(backbone.parameters()).device
        if device.type == "mps":  # which has no float64
            device = torch.device("cpu")
        stored = pruned_model.stored_weights(backbone, names)
        absolute = {
            tensor: _absolute_float64(tensor, device) for tensor in (*backbone.parameters(), *backbone.buffers())
        }
        weights = [absolute[weight].requires_grad_() for weight in stored.values()]
        state = {
            key: absolute[tensor]
            for members in (backbone.named_parameters(), backbone.named_buffers())
            for key, tensor in members
        }
        ones = torch.ones(1, inputs.channels, inputs.image_size, inputs.image_size, dtype=torch.float64, device=device)
        with _evaluation_mode(backbone):
            flow = functional_call(backbone, state, (ones,)).sum()
        return {
            name: (weight.detach() * slope).abs()
            for name, weight, slope in zip(stored, weights, gradient_of(flow, weights), strict=True)
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
