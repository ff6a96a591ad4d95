"""Dynamic sparse training: a network that is sparse from its first step on, and moves its weights to other places.

RigL (Evci et al. 2020, https://arxiv.org/abs/1911.11134) and SET (Mocanu et al. 2018,
https://arxiv.org/abs/1707.04780). Where the papers are silent, the code of RigL's authors decides
(https://github.com/google-research/rigl, commit d39fc7d, `rigl/sparse_optimizers_base.py`).
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor

from sslticket.config.training import Clock, Span
from sslticket.errors import BadInput
from sslticket.pruning import pruned_model
from sslticket.pruning.criteria import layer_generator
from sslticket.pruning.mask import Mask, num_kept
from sslticket.search.base import Runner, Search, Stages
from sslticket.seeds import derive_seed
from sslticket.ticket import Ticket
from sslticket.training.network import MaskedNetwork

Distribution = Literal["uniform", "er", "erk"]
_DISTRIBUTIONS = ("uniform", "er", "erk")


@dataclass(frozen=True, kw_only=True)
class DynamicSparseSearch(Search):
    """Trainings of sparse networks whose masks change; each density is a level, trained from W_0 on its own.

    Every `update_interval` the smallest weights of each layer are dropped and as many others grow, from 0. How many
    weights a layer keeps never changes.

    Attributes:
        densities: Fraction of the prunable weights that remain in each of the tickets, in descending order.
        distribution: How they are spread over the layers: the same fraction of each ("uniform"), or one in proportion
            to (in + out) / (in out) ("er"), with the sides of the kernel too ("erk"); never more than all of a layer.
        update_interval: Training between two changes of the mask ("100it", "1ep", "1%").
        update_until: When changes end ("25000it", "75%"); 0it for a mask that stays as it was drawn.
        drop_fraction: Fraction of a layer's kept weights that the first change drops.
        drop_decay: Whether that fraction falls to 0 by half a cosine until `update_until`, or stays.
        ticket_weights: The weights that a ticket holds: those at the end of its training, or W_0, where its mask keeps
            them.
    """

    grows_by_gradient: ClassVar[bool]

    densities: tuple[float, ...]
    distribution: Distribution
    update_interval: str
    update_until: str
    drop_fraction: float
    drop_decay: Literal["cosine", "constant"]
    ticket_weights: Literal["trained", "initial"] = "trained"

    def __post_init__(self) -> None:
        falls = all(denser > sparser for denser, sparser in zip(self.densities, self.densities[1:], strict=False))
        if not (self.densities and falls and all(0 < density < 1 for density in self.densities)):
            given = " ".join(f"{density:g}" for density in self.densities) or "none"
            raise BadInput(
                f"--densities must be in (0, 1) and fall from one to the next, got {given}; give some such as 0.2 0.1"
            )
        for flag, given, known in (
            ("--distribution", self.distribution, _DISTRIBUTIONS),
            ("--drop-decay", self.drop_decay, ("cosine", "constant")),
            ("--ticket-weights", self.ticket_weights, ("trained", "initial")),
        ):
            if given not in known:
                raise BadInput(f"{flag} must be {' or '.join(known)}, got {given!r}; give one of them")
        if not Span.parse(self.update_interval, "--update-interval").amount:
            raise BadInput(f"--update-interval must be above 0, got {self.update_interval}; give 100it, for one")
        until = Span.parse(self.update_until, "--update-until")
        if until.unit == "%" and until.amount > 100:
            raise BadInput(f"--update-until must be at most 100%, got {self.update_until}; give 75%, for one")
        if not 0 < self.drop_fraction < 1:
            raise BadInput(
                f"--drop-fraction must be in (0, 1), got {self.drop_fraction:g}; give a fraction such as 0.3, or "
                "--update-until 0it for a mask that stays"
            )

    def update_steps(self, clock: Clock) -> range:
        """The numbers of steps after which the mask changes."""
        interval = max(1, clock.steps(Span.parse(self.update_interval)))
        until = min(clock.steps(Span.parse(self.update_until)), clock.total_steps)
        return range(interval, max(interval, until), interval)

    def rewound_within(self, clock: Clock, share: str = "") -> Self:
        """See the base class; where no change of the mask would fit, there is one every tenth of the training."""
        none = Span.parse(self.update_until).amount and not self.update_steps(clock)
        return replace(self, update_interval="10%") if none else self

    def stages(self, clock: Clock, dense: Mask) -> Stages:
        """See the base class; W_k is W_0."""
        if Span.parse(self.update_until).amount and not self.update_steps(clock):
            raise BadInput(
                f"--update-until must leave room for a change of the mask, got {self.update_until} of {clock.length} "
                f"and --update-interval {self.update_interval}; give a shorter interval, such as 1%, or --update-until "
                "0it for a mask that stays"
            )
        counts = []
        for density in self.densities:
            mask = self._start(dense, density, None)
            if empty := mask.empty_layers:
                raise BadInput(
                    f"--densities must leave a weight in every layer, and {density:g} leaves none of "
                    f"{dense[empty[0]].numel():,} in {empty[0].removesuffix('.weight')}; give more than {density:g}, "
                    f"or another --distribution than {self.distribution}"
                )
            counts.append(mask.survivors)
        steps = tuple(clock.total_steps * level for level in range(len(counts) + 1))
        return Stages(0, steps, (dense.total, *counts), trained_sparse=True)

    def _start(self, dense: Mask, density: float, seed: int | None) -> Mask:
        if not num_kept(dense.total, density):
            raise BadInput(
                f"--densities must leave a weight, and {density:g} leaves none of {dense.total:,}; give more than "
                f"{density:g}"
            )
        return random_mask(dense, density, self.distribution, seed)

    def tickets(self, runner: Runner) -> Iterator[Ticket]:
        """See the base class; no density owes another anything, so none is charged for another."""
        runner.reach_rewind_point()
        ticket = dense = runner.load_ticket(0) or runner.save_ticket(0, runner.dense_mask())
        yield dense
        before = runner.cost
        for level, density in enumerate(self.densities, 1):
            found = runner.load_ticket(level)
            if found is None:
                runner.cost = before
                start = self._start(dense.mask, density, runner.derive_seed("mask", level))
                dynamic = MaskUpdates(self, start, runner.clock, runner.derive_seed("grown", level))
                trained = runner.train(ticket, dynamic=dynamic)
                if dynamic.left_out:
                    runner.note(
                        f"level {level}: {dynamic.left_out:,} of {len(dynamic.steps):,} changes of the mask were left "
                        "out, since gradients were not finite"
                    )
                mask = pruned_model.current_mask(runner.network.backbone).restrict(start)
                found = runner.save_ticket(level, mask, trained if self.ticket_weights == "trained" else None)
            yield (ticket := found)


@dataclass(frozen=True, kw_only=True)
class RigL(DynamicSparseSearch):
    """Grow the pruned weights with the largest gradients (Evci et al. 2020, Algorithm 1).

    https://arxiv.org/abs/1911.11134

    The default settings are those of section 4.1, which ends changes after 25,000 of 32,000 steps.
    """

    grows_by_gradient: ClassVar[bool] = True

    densities: tuple[float, ...] = (0.2, 0.1)
    distribution: Distribution = "erk"
    update_interval: str = "100it"
    update_until: str = "75%"
    drop_fraction: float = 0.3
    drop_decay: Literal["cosine", "constant"] = "cosine"


@dataclass(frozen=True, kw_only=True)
class SET(DynamicSparseSearch):
    """Grow pruned weights at random (Mocanu et al. 2018, Algorithm 1: after every epoch but the last).

    https://arxiv.org/abs/1707.04780
    """

    grows_by_gradient: ClassVar[bool] = False

    densities: tuple[float, ...] = (0.2, 0.1)
    distribution: Distribution = "er"
    update_interval: str = "1ep"
    update_until: str = "100%"
    drop_fraction: float = 0.3
    drop_decay: Literal["cosine", "constant"] = "constant"


def random_mask(dense: Mask, density: float, distribution: Distribution, seed: int | None) -> Mask:
    """A random mask of exactly `round(total * density)` weights, spread over the layers by a distribution.

    A weight's score is its layer's factor over its own random rank, evenly spaced in (0, 1): of a layer with factor f
    those above a threshold t are min(1, f / t). So one selection over all layers finds t, and takes all of a layer
    where a larger fraction would be due.

    Args:
        dense: The mask of all weights that may be pruned.
        density: Fraction of them that remain.
        distribution: The factors: 1 for "uniform", else see `DynamicSparseSearch`.
        seed: Seed of the ranks; None for ranks in the order of the weights, whose counts are those of any seed.
    """
    scores = {}
    for name, layer in dense.items():
        count, sides = layer.numel(), layer.shape if distribution == "erk" else layer.shape[:2]
        order = torch.arange(count) if seed is None else torch.randperm(count, generator=layer_generator(seed, name))
        factor = 1.0 if distribution == "uniform" else sum(sides) / math.prod(sides)
        scores[name] = (factor / ((order.double() + 0.5) / count)).view(layer.shape)
    return Mask.top(scores, keep=num_kept(dense.total, density), within=dense)


def drop_and_grow(mask: Mask, weights: Mapping[str, Tensor], growth: Mapping[str, Tensor], fraction: float) -> Mask:
    """The mask after a change: in each layer the smallest weights go, and as many of the highest growth scores come.

    Of n kept weights int(n fraction) go, as in the authors' code. What has just gone may come back. Ties go to the
    earlier weight: it is kept before a later one, and grows before it.

    Args:
        mask: The mask before.
        weights: The weights by name.
        growth: Scores by which pruned weights grow, in the weights' shapes.
        fraction: Fraction of each layer's kept weights that goes.
    """
    layers = {}
    for name, alive in mask.items():
        kept = int(alive.sum())
        if moved := int(kept * fraction):
            own, magnitudes = Mask({name: alive}), {name: weights[name].abs()}
            alive = Mask.top(magnitudes, keep=kept - moved, within=own)[name]
            alive = alive | Mask.top(growth, keep=moved, within=Mask({name: ~alive}))[name]
        layers[name] = alive
    return Mask(layers)


class MaskUpdates:
    """The changes of the mask in one training; what they do depends on the step and the network alone.

    Attributes:
        start: The mask with which the training starts.
        steps: The numbers of steps after which the mask changes.
        needs_gradients: See `Rewiring`.
        left_out: Changes that were left out, since gradients were not finite: as the optimiser's steps are where
            float16 overflows.
    """

    def __init__(self, search: DynamicSparseSearch, start: Mask, clock: Clock, seed: int) -> None:
        """Takes what a search says for trainings of this clock; the seed is for what grows at random."""
        self.start, self.steps, self.left_out = start, search.update_steps(clock), 0
        self.needs_gradients = search.grows_by_gradient
        self._search, self._seed = search, seed
        self._until = clock.steps(Span.parse(search.update_until))

    def is_due(self, step: int) -> bool:
        """See `Rewiring`."""
        return step in self.steps

    def fraction(self, step: int) -> float:
        """The fraction of a layer's kept weights that goes after so many steps (Evci et al. 2020, section 3)."""
        fraction = self._search.drop_fraction
        constant = self._search.drop_decay == "constant"
        return fraction if constant else fraction / 2 * (1 + math.cos(math.pi * step / self._until))

    @torch.no_grad()
    def update(self, network: MaskedNetwork, optimizer: torch.optim.Optimizer, step: int) -> None:
        """See `Rewiring`: what has grown starts at 0, in the optimiser's state too."""
        stored = pruned_model.stored_weights(network.backbone, self.start)
        if self.needs_gradients:
            growth = {
                name: torch.zeros_like(weight) if weight.grad is None else weight.grad.abs()
                for name, weight in stored.items()
            }
            if not torch.stack([scores.isfinite().all() for scores in growth.values()]).all():
                self.left_out += 1
                return
        else:
            seed = derive_seed(self._seed, step)
            growth = {
                name: torch.rand(layer.shape, dtype=torch.float64, generator=layer_generator(seed, name))
                for name, layer in self.start.items()
            }
        before = pruned_model.current_mask(network.backbone).restrict(self.start)
        after = drop_and_grow(before, stored, growth, self.fraction(step))
        pruned_model.set_mask_everywhere(network, after)
        for name, weight in stored.items():
            changed = (before[name] != after[name]).to(weight.device)
            weight.masked_fill_(changed, 0)
            for value in optimizer.state.get(weight, {}).values():
                if isinstance(value, Tensor) and value.shape == weight.shape:
                    value.masked_fill_(changed, 0)
