"""What a search is."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn

from sslticket.config.recipe import Recipe
from sslticket.config.training import Clock, Span, TrainConfig
from sslticket.errors import BadInput
from sslticket.pruning.mask import Mask
from sslticket.pruning.prunable import layers_to_prune

if TYPE_CHECKING:  # the lab trains, and so imports torch's whole family
    from sslticket.objectives.base import Objective
    from sslticket.search.runner import SearchRunner
    from sslticket.ticket import Ticket
    from sslticket.training.network import MaskLearning


@dataclass(frozen=True)
class Stages:
    """What a search will do, known before it starts.

    Attributes:
        rewind: optimiser step at whose end W_k is taken.
        cumulative_steps: optimiser steps that the search has taken, at most, when it knows the ticket of each level; the first is
            the dense network's, which is known at W_k.
        survivors: weights that remain in the ticket of each level; None where the search itself finds how many.
        exact: costs are what will be spent; False where they are only the most.
    """

    rewind: int
    cumulative_steps: tuple[int, ...]
    survivors: tuple[int, ...] | None
    exact: bool = True

    @property
    def levels(self) -> int:
        """The level of the last ticket."""
        return len(self.cumulative_steps) - 1


@dataclass(frozen=True, kw_only=True)
class Search(ABC):
    """A way to find tickets; a frozen dataclass of hyper-parameters.

    Attributes:
        prune_up_to: the last layer that may be pruned, all later ones stay dense: "conv3" for the third convolution in
            the network's order, or a layer's name; None for all layers.
        exclude: layers that stay dense, by names or by patterns such as "*.downsample.*".
    """

    prune_up_to: str | None = None
    exclude: tuple[str, ...] = ()

    def prunable_layers(self, backbone: nn.Module) -> list[str]:
        """Names of the weights that may be pruned; masks, densities and controls are over these.

        Raises:
            BadInput: if the depth limit or an exclusion names no layer, or no layer is left.
        """
        return layers_to_prune(backbone, prune_up_to=self.prune_up_to, exclude=self.exclude)

    def check(self, fit: TrainConfig, objective: "Objective") -> None:  # noqa: B027  # most searches work with every training
        """Whether the search can be done with trainings of this kind.

        Raises:
            BadInput: naming the flag to change.
        """

    @abstractmethod
    def stages(self, clock: Clock, dense: Mask) -> Stages:
        """The plan for one training's clock and the mask of all weights that may be pruned.

        Raises:
            BadInput: if the search cannot be done: W_k beyond the end, or a level that leaves no weight.
        """

    def scoring_samples(self, level: int, clock: Clock, classes: int) -> int:
        """Images looked at for scores alone, at most, when the ticket of this level is known, counted each time."""
        return 0

    @abstractmethod
    def shortened_for_trial(self, clock: Clock) -> "Search":
        """The same search with W_k moved into a training that ends before it; for trials on a laptop."""

    def mask_learning(self, fit: TrainConfig, clock: Clock) -> "MaskLearning | None":
        """How masks are learnt in training; None where they are fixed in every training.

        Raises:
            BadInput: if they cannot be learnt so in this training.
        """
        return None

    @abstractmethod
    def tickets(self, lab: "SearchRunner") -> Iterator["Ticket"]:
        """The tickets, densest first; what the lab already has is not trained again."""


def rewind_step(rewind: str, clock: Clock) -> int:
    """The step at whose end W_k is taken.

    Raises:
        BadInput: if the training ends before.
    """
    step = clock.steps(Span.parse(rewind))
    if step >= clock.total_steps:
        raise BadInput(
            f"a length of {clock.length} is {clock.total_steps:,} steps, not longer than the rewind point of "
            f"{rewind}, {step:,} steps; give a longer --length or an earlier --rewind, such as --rewind 10%"
        )
    return step


def search_of(recipe: Recipe) -> Search:
    """The search of a recipe.

    Raises:
        BadInput: If it is no search.
    """
    if not isinstance(recipe.search, Search):
        raise BadInput(f"Recipe(search=...) must be a Search, got {recipe.search!r}")
    return recipe.search
