"""Iterative magnitude pruning with rewinding, and its variants; docs/imp.md describes each."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Literal, Self

from torch import nn

from sslticket.config.training import Clock, Span, TrainConfig
from sslticket.errors import BadInput
from sslticket.objectives.base import Objective
from sslticket.pruning.criteria import Criterion, Magnitude, prune_to_level
from sslticket.pruning.mask import Mask, SparsitySchedule
from sslticket.pruning.pattern import Pattern
from sslticket.registry import OMIT_DEFAULT, stored_as
from sslticket.search.base import TRIAL_REWIND, EarlyBird, Runner, Search, Stages, rewind_step
from sslticket.ticket import Ticket


@dataclass(frozen=True, kw_only=True)
class RankedSearch(Search):
    """A search with levels of exact densities, each of which keeps the weights with the highest scores.

    Attributes:
        levels: Number of sparse tickets.
        rate: Fraction of the remaining weights that each level prunes; the density of a level is (1 - rate)^level.
        linear_rate: The same for linear layers, which are then ranked apart from convolutions; None for one rate.
        rewind: When in the dense training W_k is taken ("0it", "3ep", "3840000samples", or "15%" of it).
        scope: Rank all weights together, or each layer's on their own.
        min_per_layer: Weights that stay in each layer, or all where it has fewer.
        criterion: The scores by which weights are ranked.
        pattern: N:M, such as "2:4": of every M consecutive weights along a layer's inputs at most N stay where the
            density is N/M or less, at least N where it is more; layers that M does not divide stay dense. None for any.
    """

    levels: int = 30
    rate: float = 0.2
    linear_rate: float | None = None
    rewind: str = "1ep"
    scope: Literal["global", "layer"] = "global"
    min_per_layer: int = 0
    criterion: Criterion = field(default_factory=Magnitude)
    pattern: str | None = field(default=None, metadata=OMIT_DEFAULT)

    def __post_init__(self) -> None:
        if self.levels < 1:
            raise BadInput(f"--levels must be at least 1, got {self.levels}; give --levels 1 or more")
        Span.parse(self.rewind, "--rewind")
        _ = self.schedule  # which checks the rates and the pattern

    @property
    def schedule(self) -> SparsitySchedule:
        """How many weights each level keeps, and among which they are ranked."""
        return SparsitySchedule(
            rate=self.rate,
            linear_rate=self.linear_rate,
            scope=self.scope,
            min_per_layer=self.min_per_layer,
            pattern=None if self.pattern is None else Pattern.parse(self.pattern),
        )

    def prunable_layers(self, backbone: nn.Module) -> list[str]:
        """See the base class; under a pattern, of these the layers that it can be laid on."""
        names, pattern = super().prunable_layers(backbone), self.schedule.pattern
        return names if pattern is None else pattern.layers_that_fit(backbone, names)

    def with_dense_layers_named(self, backbone: nn.Module) -> Self:
        """See the base class."""
        if self.pattern is None:
            return self
        left = {*self.prunable_layers(backbone)}
        dense = [name.removesuffix(".weight") for name in super().prunable_layers(backbone) if name not in left]
        return replace(self, exclude=(*self.exclude, *dense))

    def check(self, training: TrainConfig, objective: Objective) -> None:
        """See the base class."""
        self.criterion.check(self.scope, objective.has_logits)


@dataclass(frozen=True, kw_only=True)
class IMP(RankedSearch):
    """Train, prune the smallest weights, rewind to W_k, and again (Frankle et al. 2019, Algorithm 1).

    https://arxiv.org/abs/1903.01611

    Attributes:
        retrain: How a ticket is trained on: weights and learning rate go back to k ("rewind"); the learning rate alone
            does ("rate"); neither does, and the last rate stays ("finetune").
        early_bird: A level ends when the mask that it would draw is nearer than this to the masks drawn before it;
            None to train every level to its end.
        early_bird_window: Number of earlier masks with which the mask is compared.
        early_bird_every: Training between two comparisons ("1ep", "100it", "1%").
    """

    retrain: Literal["rewind", "rate", "finetune"] = "rewind"
    early_bird: float | None = field(default=None, metadata=stored_as("settled"))
    early_bird_window: int = field(default=5, metadata=stored_as("settled_window"))
    early_bird_every: str = field(default="1ep", metadata=stored_as("settled_every"))

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.retrain not in ("rewind", "rate", "finetune"):
            raise BadInput(f"--retrain must be rewind, rate or finetune, got {self.retrain!r}; give one of them")
        if self.early_bird is not None and not 0 < self.early_bird < 1:
            raise BadInput(f"--early-bird must be in (0, 1), got {self.early_bird:g}; give a mask distance such as 0.1")
        if self.early_bird_window < 1:
            raise BadInput(f"--early-bird-window must be at least 1, got {self.early_bird_window}; give 1 or more")
        if not Span.parse(self.early_bird_every, "--early-bird-every").amount:
            raise BadInput(f"--early-bird-every must be above 0, got {self.early_bird_every}; give 1ep, for one")

    def check(self, training: TrainConfig, objective: Objective) -> None:
        """See the base class."""
        super().check(training, objective)
        if self.retrain == "finetune" and training.decay != "drops" and not training.last_lr:
            raise BadInput(
                f"--retrain finetune trains at the last learning rate, which must be above 0, and a {training.decay} "
                "decay ends at 0; give --last-lr above 0, or --retrain rate"
            )

    def stages(self, clock: Clock, dense: Mask) -> Stages:
        """See the base class."""
        rewind = rewind_step(self.rewind, clock)
        if self.early_bird is not None and (checks := self._num_mask_checks(clock)) <= self.early_bird_window:
            raise BadInput(
                f"--early-bird-window {self.early_bird_window} needs at least {self.early_bird_window + 1} masks a "
                f"level, got {checks}, {self.early_bird_every} apart; give a shorter --early-bird-every, such as 1%, "
                "or a smaller window"
            )
        after = clock.total_steps - rewind
        steps = tuple(rewind + after * level for level in range(self.levels + 1))
        return Stages(rewind, steps, self.schedule.survivors(dense, self.levels), exact=self.early_bird is None)

    def scoring_samples(self, level: int, clock: Clock, classes: int) -> int:
        """See the base class; every level scores anew, and so does every check for an early bird."""
        draws = 1 if self.early_bird is None else 1 + self._num_mask_checks(clock)
        return level * draws * self.criterion.num_images(clock.batch_size, classes)

    def rewound_within(self, clock: Clock, share: str = TRIAL_REWIND) -> Self:
        """See the base class; masks of early birds are drawn every 1% of the training where there would be too few."""
        short = super().rewound_within(clock, share)
        rare = self.early_bird is not None and short._num_mask_checks(clock) <= self.early_bird_window
        return replace(short, early_bird_every="1%") if rare else short

    def tickets(self, runner: Runner) -> Iterator[Ticket]:
        """See the base class."""
        runner.reach_rewind_point()
        ticket = runner.load_ticket(0) or runner.save_ticket(0, runner.dense_mask())
        yield ticket
        for level in range(1, self.levels + 1):
            ticket = runner.load_ticket(level) or self._next_ticket(runner, ticket)
            yield ticket

    def _next_ticket(self, runner: Runner, ticket: Ticket) -> Ticket:
        level, rewinds = ticket.level + 1, self.retrain == "rewind"

        def prune() -> Mask:
            return prune_to_level(
                runner.scores, self.criterion, self.schedule, ticket.mask, start=ticket.level, level=level
            )

        trained = runner.train(
            ticket,
            continued=not rewinds,
            at_last_lr=self.retrain == "finetune",
            early_bird=None if self.early_bird is None else self._early_bird(prune),
        )
        mask = prune()
        if rewinds:
            return runner.save_ticket(level, mask)
        if level < self.levels:
            runner.save_for_next_level(level)
        return runner.save_ticket(level, mask, weights=trained)

    def _early_bird(self, prune: Callable[[], Mask]) -> EarlyBird:
        return EarlyBird(prune, self.early_bird or 0.0, self.early_bird_window, Span.parse(self.early_bird_every))

    def _num_mask_checks(self, clock: Clock) -> int:
        start = clock.steps(Span.parse(self.rewind))
        return len(self._early_bird(lambda: Mask({})).check_steps(clock, start, clock.total_steps))
