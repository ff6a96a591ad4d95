"""What a search is, and what it may ask of the runner that trains, scores and saves for it."""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
from torch import nn

from sslticket.config.recipe import Recipe
from sslticket.config.training import Clock, Span, TrainConfig
from sslticket.errors import BadInput
from sslticket.objectives.base import Objective
from sslticket.pruning.criteria import Criterion, Scores
from sslticket.pruning.mask import Mask, StateDict
from sslticket.pruning.prunable import layers_to_prune
from sslticket.ticket import Ticket
from sslticket.training.network import MaskedNetwork, MaskLearning, Rewiring

TRIAL_REWIND = "10%"
"""Where W_k is taken in a trial whose training ends before the recipe's rewind point."""
SUBSET_REWIND = "30%"
"""Where W_k is taken on a subset whose training ends before it: the largest share of a training in Table 1 of Finding
Winning Tickets with Limited (or No) Supervision, which takes W_k after as many samples whatever the subset."""


@dataclass(frozen=True)
class Stages:
    """What a search will do, known before it starts.

    Attributes:
        rewind: Optimiser step at whose end W_k is taken.
        cumulative_steps: For each level the optimiser steps that the search has taken, at most, when it knows the
            ticket; the first is the dense network's, which is known at W_k.
        survivors: Weights that remain in the ticket of each level; None where the search itself finds how many.
        exact: Whether `cumulative_steps` are what will be spent; False where they are only the most.
        trained_sparse: Whether a training is as sparse as the ticket that it finds, and not as the one before.
    """

    rewind: int
    cumulative_steps: tuple[int, ...]
    survivors: tuple[int, ...] | None
    exact: bool = True
    trained_sparse: bool = False

    @property
    def levels(self) -> int:
        """The level of the last ticket."""
        return len(self.cumulative_steps) - 1


@dataclass
class EarlyBird:
    """Ends a level once the mask that it would draw has stopped changing (You et al. 2020, section 3).

    https://arxiv.org/abs/1909.11957

    Attributes:
        draw: Returns the mask as it would be drawn now; it must leave the network and all random numbers as they are.
        threshold: The mask has converged when its distance from each of the last masks is below this.
        window: Number of earlier masks with which the mask is compared.
        every: Training between two comparisons.
        earlier_masks: The masks with which the next is compared, oldest first.
    """

    draw: Callable[[], Mask]
    threshold: float
    window: int
    every: Span
    earlier_masks: deque[Mask] = field(default_factory=deque)

    def check_steps(self, clock: Clock, start: int, stop: int) -> list[int]:
        """The steps between these two after which the mask is drawn: multiples of the interval, whatever the start."""
        interval = max(1, clock.steps(self.every))
        return list(range((start // interval + 1) * interval, stop, interval))

    def has_converged(self) -> bool:
        """Draws the mask, and says whether it is nearer than the threshold to each of the last `window` masks."""
        mask = self.draw()
        near = all(mask_distance(mask, earlier) < self.threshold for earlier in self.earlier_masks)
        converged = near and len(self.earlier_masks) == self.window
        self.earlier_masks = deque([*self.earlier_masks, mask], maxlen=self.window)
        return converged


class DynamicMask(Rewiring, Protocol):
    """A mask that a training changes as it goes on.

    Attributes:
        start: The mask with which the training starts.
        left_out: Changes that were due and not made, since gradients were not finite.
    """

    start: Mask
    left_out: int


class SearchCost(NamedTuple):
    """What a search has cost.

    Attributes:
        samples: Source images seen, each time.
        forward_images: Images that went forward through the backbone, each time; None where an older version, which
            did not count them, has found some of the tickets.
    """

    samples: int = 0
    forward_images: int | None = 0

    @classmethod
    def of_ticket(cls, ticket: Ticket) -> "SearchCost":
        """What the search had cost when it found a ticket."""
        return cls(int(ticket.provenance["search_samples"]), ticket.provenance.get("search_forward_images"))

    def plus(self, samples: int, forward_images: int) -> "SearchCost":
        """The cost with more of both."""
        forward = None if self.forward_images is None else self.forward_images + forward_images
        return SearchCost(self.samples + samples, forward)


class Runner(Protocol):
    """What a search may ask for; what the run folder already has is not done again.

    Attributes:
        cost: What the search has cost up to now, or up to the ticket that was loaded last.
    """

    cost: SearchCost

    @property
    def network(self) -> MaskedNetwork:
        """The network that is trained: a masked backbone and the objective's heads."""

    @property
    def clock(self) -> Clock:
        """The clock of one training in full length."""

    def reach_rewind_point(self) -> None:
        """Trains the dense network from its initialisation to step k, and keeps everything at that point."""

    def dense_mask(self) -> Mask:
        """The mask of ones over all weights that may be pruned."""

    def load_ticket(self, level: int) -> Ticket | None:
        """The ticket of a level that is finished; None where it is still to be found."""

    def train(
        self,
        ticket: Ticket,
        *,
        continued: bool = False,
        start: int | None = None,
        at_last_lr: bool = False,
        early_bird: EarlyBird | None = None,
        dynamic: DynamicMask | None = None,
    ) -> StateDict:
        """Trains a ticket to the end of the training, from W_k at step k unless something else is said.

        Args:
            ticket: The ticket; that of level 0 goes on where `reach_rewind_point` stopped, optimiser and all.
            continued: Start from the network that `save_for_next_level` kept for this level, in place of W_k.
            start: The step at which the training begins; None for k.
            at_last_lr: Sparse tickets are trained at the last learning rate of the schedule.
            early_bird: Ends the training early.
            dynamic: Gives the mask in the ticket's place, and changes it.

        Returns:
            The backbone's weights at the end.
        """

    def rewind(self) -> None:
        """Brings the network, heads included, to W_k."""

    def scores(self, criterion: Criterion, mask: Mask) -> Scores:
        """A criterion's scores of the network's weights as they stand, under a mask; the network stays as it is."""

    def save_for_next_level(self, level: int) -> None:
        """Keeps the whole network for the training of this level's ticket; to be called before `save_ticket`."""

    def save_ticket(
        self, level: int, mask: Mask, weights: StateDict | None = None, *, details: dict[str, Any] | None = None
    ) -> Ticket:
        """Writes the ticket of a level and its row.

        Args:
            level: The level of the ticket.
            mask: The mask of the ticket.
            weights: The backbone's weights; None for W_k.
            details: Further entries of the ticket's provenance and of its row.
        """

    def forget_measurements(self) -> None:
        """Leaves what was measured since the last ticket out of the next ticket's row: an earlier row has it."""

    def derive_seed(self, *path: str | int) -> int:
        """A seed for the search's own random draws, one for each path."""

    def note(self, text: str) -> None:
        """Prints a line above the progress bar."""


@dataclass(frozen=True, kw_only=True)
class Search(ABC):
    """A way to find tickets; a frozen dataclass of hyper-parameters.

    Attributes:
        prune_up_to: The last layer that may be pruned, all later ones stay dense: "conv3" for the third convolution in
            the network's order, or a layer's name; None for all layers.
        exclude: Layers that stay dense, by names or by patterns such as "*.downsample.*".
    """

    prune_up_to: str | None = None
    exclude: tuple[str, ...] = ()

    def prunable_layers(self, backbone: nn.Module) -> list[str]:
        """Names of the weights that may be pruned; masks, densities and controls are over these.

        Raises:
            BadInput: If the depth limit or an exclusion names no layer, or no layer is left.
        """
        return layers_to_prune(backbone, prune_up_to=self.prune_up_to, exclude=self.exclude)

    def with_dense_layers_named(self, backbone: nn.Module) -> Self:
        """The same search, with layers that it leaves dense of itself among those of `exclude`.

        So recipes, rows and reports tell them, and other searches can be limited to the same layers.
        """
        return self

    def check(self, training: TrainConfig, objective: Objective) -> None:  # noqa: B027  # most work with every training
        """Refuses trainings with which the search cannot be done.

        Raises:
            BadInput: Naming the flag to change.
        """

    @abstractmethod
    def stages(self, clock: Clock, dense: Mask) -> Stages:
        """The plan for one training's clock and the mask of all weights that may be pruned.

        Raises:
            BadInput: If the search cannot be done: W_k beyond the end, or a level that leaves no weight.
        """

    def scoring_samples(self, level: int, clock: Clock, classes: int) -> int:
        """Images used for scores alone, at most, when the ticket of this level is known, counted each time."""
        return 0

    def rewound_within(self, clock: Clock, share: str = TRIAL_REWIND) -> Self:
        """The same search, with W_k after this share of a training that would end before it; else as it is."""
        rewind = getattr(self, "rewind", None)
        late = rewind is not None and clock.steps(Span.parse(rewind)) >= clock.total_steps
        return replace(self, rewind=share) if late else self  # type: ignore[call-arg]  # the class has the field

    def mask_learning(self, training: TrainConfig, clock: Clock) -> MaskLearning | None:
        """How masks are learned in training; None where they are fixed in every training.

        Raises:
            BadInput: If they cannot be learned so in this training.
        """
        return None

    @abstractmethod
    def tickets(self, runner: Runner) -> Iterator[Ticket]:
        """The tickets, densest first; what the runner already has is not trained again."""


def rewind_step(rewind: str, clock: Clock) -> int:
    """The step at whose end W_k is taken.

    Raises:
        BadInput: If the training ends before.
    """
    step = clock.steps(Span.parse(rewind))
    if step >= clock.total_steps:
        raise BadInput(
            f"the rewind point must lie before the end of a training of {clock.length} ({clock.total_steps:,} steps), "
            f"got {rewind} ({step:,} steps); give a longer --length or an earlier --rewind, such as --rewind 10%"
        )
    return step


def mask_distance(mask: Mask, other: Mask) -> float:
    """The fraction of a mask's survivors that do not survive in another that keeps as many: 0 equal, 1 disjoint.

    You et al. take the Hamming distance over all channels. Over all weights that would be small for any two sparse
    masks: at a density of 1% no two differ in more than 2% of the weights.
    """
    alone = sum(int(np.count_nonzero(mask[name].numpy() & ~other[name].numpy())) for name in mask)
    return alone / mask.survivors


def search_of(recipe: Recipe) -> Search:
    """The search of a recipe.

    Raises:
        BadInput: If it is no search.
    """
    if not isinstance(recipe.search, Search):
        raise BadInput(f"Recipe(search=...) must be a Search, got {recipe.search!r}")
    return recipe.search
