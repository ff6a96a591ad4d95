"""Iterative magnitude pruning with rewinding (Frankle et al. 2019, Algorithm 1) and its variants; docs/imp.md describes each."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from sslticket.config.training import Clock, Span, TrainConfig
from sslticket.errors import BadInput
from sslticket.pruning.criteria import Criterion, Magnitude
from sslticket.pruning.mask import Mask
from sslticket.pruning.schedule import SparsitySchedule, prune_to_level
from sslticket.search import early_bird
from sslticket.search.base import Search, Stages, rewind_step
from sslticket.search.early_bird import EarlyBird

if TYPE_CHECKING:
    from sslticket.objectives.base import Objective
    from sslticket.search.runner import SearchRunner
    from sslticket.ticket import Ticket


@dataclass(frozen=True, kw_only=True)
class RankedSearch(Search):
    """Levels of exact densities, each of which keeps the weights with the highest scores.

    Attributes:
        levels: number of sparse tickets.
        rate: fraction of the weights that each has less than the one before; its density is (1 - rate)^level.
        linear_rate: the same for linear layers, which are then ranked apart from convolutions; None for one rate.
        rewind: when in the dense training W_k is taken ("0it", "3ep", "3840000samples", or "15%" of it).
        scope: rank all weights together, or each layer's on their own.
        min_per_layer: weights that stay in each layer, or all where it has fewer.
        criterion: by what weights are ranked.
    """

    levels: int = 30
    rate: float = 0.2
    linear_rate: float | None = None
    rewind: str = "1ep"
    scope: Literal["global", "layer"] = "global"
    min_per_layer: int = 0
    criterion: Criterion = field(default_factory=Magnitude)

    def __post_init__(self) -> None:
        if self.levels < 1:
            raise BadInput(f"a search of {self.levels} levels finds nothing; give --levels at least 1")
        Span.parse(self.rewind)
        _ = self.schedule  # which checks the rates

    @property
    def schedule(self) -> SparsitySchedule:
        """How many weights each level keeps."""
        return SparsitySchedule(
            rate=self.rate, linear_rate=self.linear_rate, scope=self.scope, min_per_layer=self.min_per_layer
        )

    def check(self, fit: TrainConfig, objective: "Objective") -> None:
        """See the base class."""
        self.criterion.check(self.scope, objective.has_logits)

    def survivors_per_level(self, dense: Mask) -> tuple[int, ...]:
        """Weights that the ticket of each level keeps.

        Raises:
            BadInput: if a level cannot be reached.
        """
        self.schedule.check(dense, self.levels)
        return tuple(self.schedule.num_kept(dense, level) for level in range(self.levels + 1))


@dataclass(frozen=True, kw_only=True)
class IMP(RankedSearch):
    """Train, prune the smallest weights, rewind to W_k, and again (Frankle et al. 2019, Algorithm 1).

    Attributes:
        levels: how many times to prune.
        rate: fraction of the remaining weights pruned each time.
        linear_rate: the same for linear layers, which are then ranked apart from convolutions; None for one rate.
        rewind: when in the dense training W_k is taken ("3ep", "500it", "3840000samples", or "15%" of it).
        retrain: how a ticket is trained on: weights and learning rate go back to k ("rewind"); the learning rate alone
            does ("rate"); neither does, and the last rate stays ("finetune").
        scope: rank all weights together, or each layer's on their own.
        min_per_layer: weights that stay in each layer, or all where it has fewer.
        criterion: by what weights are ranked.
        settled: a level ends when the mask that it would draw is nearer than this to those of the last looks; None to
            train every level to its end.
        settled_window: looks back with which the mask is compared.
        settled_every: between two looks.
    """

    retrain: Literal["rewind", "rate", "finetune"] = "rewind"
    settled: float | None = None
    settled_window: int = 5
    settled_every: str = "1ep"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.retrain not in ("rewind", "rate", "finetune"):
            raise BadInput(f"no ticket is trained on by {self.retrain!r}; give --retrain rewind, rate or finetune")
        early_bird.check_early_bird(self.settled, self.settled_window, self.settled_every)

    def check(self, fit: TrainConfig, objective: "Objective") -> None:
        """See the base class."""
        super().check(fit, objective)
        if self.retrain == "finetune" and fit.decay != "drops" and not fit.last_lr:
            raise BadInput(
                f"--retrain finetune trains at the last rate, and a {fit.decay} decay ends at 0; "
                "give --last-lr above 0, or --retrain rate"
            )

    def stages(self, clock: Clock, dense: Mask) -> Stages:
        """See the base class."""
        rewind = rewind_step(self.rewind, clock)
        if self.settled is not None and (looks := self._num_mask_checks(clock)) <= self.settled_window:
            raise BadInput(
                f"a level has {looks} looks {self.settled_every} apart, and --settled-window {self.settled_window} "
                f"needs {self.settled_window + 1}; give a shorter --settled-every, such as 1%, or a smaller window"
            )
        after = clock.total_steps - rewind
        costs = tuple(rewind + after * level for level in range(self.levels + 1))
        return Stages(rewind, costs, self.survivors_per_level(dense), exact=self.settled is None)

    def scoring_samples(self, level: int, clock: Clock, classes: int) -> int:
        """See the base class; every level scores anew, and so does every look at whether it has settled."""
        looks = 1 if self.settled is None else 1 + self._num_mask_checks(clock)
        return level * looks * self.criterion.num_images(clock.batch_size, classes)

    def shortened_for_trial(self, clock: Clock) -> "IMP":
        """See the base class; W_k is then taken after a tenth of the training, and looks are 1% of it apart."""
        late = clock.steps(Span.parse(self.rewind)) >= clock.total_steps
        within = replace(self, rewind="10%") if late else self
        rare = self.settled is not None and within._num_mask_checks(clock) <= self.settled_window
        return replace(within, settled_every="1%") if rare else within

    def tickets(self, lab: "SearchRunner") -> Iterator["Ticket"]:
        """See the base class."""
        lab.reach_rewind_point()
        ticket = lab.load_ticket(0) or lab.save_ticket(0, lab.dense_mask())
        yield ticket
        for _ in range(self.levels):
            ticket = lab.load_ticket(ticket.level + 1) or self._next_ticket(lab, ticket)
            yield ticket

    def _next_ticket(self, lab: "SearchRunner", ticket: "Ticket") -> "Ticket":
        level = ticket.level + 1

        def draw() -> Mask:
            return prune_to_level(lab, self.criterion, self.schedule, ticket.mask, start=ticket.level, level=level)

        watched = None if self.settled is None else self._early_bird(draw, self.settled)
        goes_on = self.retrain != "rewind"
        trained = lab.train(ticket, carried=goes_on, finetune=self.retrain == "finetune", settling=watched)
        mask = draw()
        if not goes_on:
            return lab.save_ticket(level, mask)
        if level < self.levels:
            lab.save_for_next_level(level)
        return lab.save_ticket(level, mask, weights=trained)

    def _early_bird(self, draw: Callable[[], Mask], bound: float) -> EarlyBird:
        return EarlyBird(draw, bound=bound, window=self.settled_window, every=Span.parse(self.settled_every))

    def _num_mask_checks(self, clock: Clock) -> int:
        """How many a level has before its end."""
        start = clock.steps(Span.parse(self.rewind))
        return len(early_bird.mask_check_steps(Span.parse(self.settled_every), clock, start, clock.total_steps))
