"""What a criterion is, and what it may look at."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from sslticket.errors import BadInput

Scores = dict[str, Tensor]  # of every weight of a layer, in its shape, by the layer's clean name; on any device


@dataclass(frozen=True, eq=False)
class Subject:
    """A network whose weights are to be scored. Its masks are in force; scoring leaves no trace in it.

    Attributes:
        backbone: with gates; `gate.stored` and `gate.originals` read it.
        channels: of the images that it takes.
        image_size: of these, a side in pixels.
        seed: for criteria that draw random numbers.
        losses: called with a temperature, the loss of each scoring batch, or of each part of it, with its graph; their
            sum is the sum over the batches. Logits are divided by the temperature. Every call goes over the same images
            and random numbers.
        reduce: the mean of a tensor over all processes.
    """

    backbone: nn.Module
    channels: int
    image_size: int
    seed: int
    losses: Callable[[float], Iterator[Tensor]]
    reduce: Callable[[Tensor], Tensor]


class Criterion(ABC):
    """A way to score weights; a frozen dataclass of hyper-parameters.

    Attributes:
        rounds: in how many rounds weights are pruned, with new scores in each; densities fall exponentially.
        passes: how often `scores` goes over the scoring images, which is counted as the search's cost.
    """

    rounds: int = 1
    passes: ClassVar[int] = 0

    @abstractmethod
    def scores(self, subject: Subject, names: Sequence[str]) -> Scores:
        """A score for every weight of the named layers; the highest are kept. What is pruned already may have any."""

    def check(self, scope: str, logits: bool) -> None:  # noqa: B027  # most criteria work with everything
        """Whether it can rank weights in this scope ("global" or "layer"), for an objective with or without logits.

        Raises:
            BadInput: naming the flag to change.
        """

    def batches(self, batch_size: int, classes: int) -> int:
        """How many training batches its scores are taken from."""
        return 0

    def samples(self, batch_size: int, classes: int) -> int:
        """Training images that its scores look at in all rounds, counted each time."""
        return self.rounds * self.passes * self.batches(batch_size, classes) * batch_size


@dataclass(frozen=True, kw_only=True)
class FromLosses(Criterion):
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

    def batches(self, batch_size: int, classes: int) -> int:
        """See the base class."""
        return math.ceil((self.score_images or 10 * classes) / batch_size)

    def gradient(self, subject: Subject, weights: Sequence[Tensor], temperature: float = 1.0) -> list[Tensor]:
        """Of the sum of the losses, with respect to these weights."""
        total = [torch.zeros_like(weight) for weight in weights]
        for loss in subject.losses(temperature):
            for part, gradient in zip(total, slopes(loss, weights), strict=True):
                part += gradient
        return [subject.reduce(part) for part in total]


def slopes(value: Tensor, weights: Sequence[Tensor], *, create_graph: bool = False) -> tuple[Tensor, ...]:
    """The gradient of a scalar, 0 where it does not depend on a weight; nothing is added to any `.grad`."""
    return torch.autograd.grad(value, weights, create_graph=create_graph, allow_unused=True, materialize_grads=True)
