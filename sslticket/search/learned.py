"""Searches that learn masks by gradient descent.

Continuous Sparsification and Iterative Stochastic Sparsification (Savarese et al. 2019, https://arxiv.org/abs/1912.04427),
whose single round with frozen weights is the supermask of Zhou et al. 2019 (https://arxiv.org/abs/1905.01067), and
edge-popup (Ramanujan et al. 2020, https://arxiv.org/abs/1911.13299).
"""

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

from torch import Tensor, nn

from sslticket.config.training import SGD, Adam, AdamW, Clock, Optimizer, RMSprop, Span, TrainConfig
from sslticket.errors import BadInput
from sslticket.pruning import pruned_model
from sslticket.pruning.gates import (
    BernoulliMask,
    GateSettings,
    LearnedGate,
    SoftGate,
    StochasticGate,
    TopKGate,
    num_kept_in_layer,
)
from sslticket.pruning.mask import Mask
from sslticket.registry import OMIT_DEFAULT
from sslticket.search.base import Runner, Search, Stages, rewind_step
from sslticket.seeds import derive_seed
from sslticket.ticket import Ticket
from sslticket.training.network import MaskedNetwork, MaskLearning

ScoreOptimizer = Literal["same", "sgd", "adam"]
_MAX_SCORE = 50.0  # a sigmoid is 0 or 1 long before, and its inverse still a number


@dataclass(frozen=True, kw_only=True)
class LearnedMaskSearch(Search):
    """A mask that is learned in rounds; each of them is a level, and W_k is taken in the first.

    Attributes:
        rounds: Number of trainings, each of which gives a ticket.
        rewind: When in the first round W_k is taken ("2ep", "780it", "100000samples", or "15%" of it).
        initial_score: Initial score s_0 of every weight; the lower, the sparser.
        penalty: Lambda, the weight of the sum of the mask in the loss.
        score_optimizer: Optimiser of the scores: "same" as the weights', SGD with momentum 0.9, or Adam; never with
            weight decay.
        score_lr: Learning rate of the scores, which follows the schedule in proportion; None for that of the weights.
        frozen: Train scores only; weights and heads stay as they were drawn.
        masked_head: With frozen weights, the classification layer is drawn Xavier-normal with biases of 0 and masked
            like every other layer (section 4.1 after Zhou et al. 2019, whose Conv-6 has a mask on all of them).
    """

    rounds: int
    rewind: str
    initial_score: float
    penalty: float
    score_optimizer: ScoreOptimizer
    score_lr: float | None
    frozen: bool = False
    masked_head: bool | None = field(default=None, metadata=OMIT_DEFAULT)

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise BadInput(f"--rounds must be at least 1, got {self.rounds}; give --rounds 1 or more")
        if not abs(self.initial_score) <= _MAX_SCORE:
            raise BadInput(
                f"--initial-score must be from -{_MAX_SCORE:g} to {_MAX_SCORE:g}, got {self.initial_score:g}: beyond, "
                "scores never move; give a number such as 0"
            )
        if not 0 <= self.penalty < float("inf"):
            raise BadInput(f"--penalty must be finite and at least 0, got {self.penalty:g}; give 0 or more")
        check_score_lr(self.score_lr)
        resolve_masked_head(self, self.frozen)
        Span.parse(self.rewind, "--rewind")

    @property
    @abstractmethod
    def rewinds_each_round(self) -> bool:
        """Whether every round but the first starts from W_k, and not from where the last one ended."""

    @abstractmethod
    def make_gate(self, clock: Clock) -> Callable[[Tensor], LearnedGate]:
        """A function that makes the gate of a weight, for trainings of this clock."""

    @abstractmethod
    def final_mask(self, network: MaskedNetwork, seed: int) -> Mask:
        """The mask of the ticket at the end of a round; the seed is for whatever is drawn at random."""

    @abstractmethod
    def reset_scores(self, network: MaskedNetwork) -> None:
        """Makes the scores ready for another round."""

    def stages(self, clock: Clock, dense: Mask) -> Stages:
        """See the base class."""
        rewind = rewind_step(self.rewind, clock)
        more = clock.total_steps - (rewind if self.rewinds_each_round else 0)
        return Stages(rewind, (rewind, *(clock.total_steps + more * later for later in range(self.rounds))), None)

    def mask_learning(self, training: TrainConfig, clock: Clock) -> MaskLearning:
        """See the base class."""
        return MaskLearning(
            gate=self.make_gate(clock),
            optimizer=build_score_optimizer(self.score_optimizer, self.score_lr, training),
            penalty=self.penalty,
            frozen=self.frozen,
            masked_head=bool(self.masked_head),
        )

    def tickets(self, runner: Runner) -> Iterator[Ticket]:
        """See the base class."""
        runner.reach_rewind_point()
        ticket = runner.load_ticket(0) or runner.save_ticket(0, runner.dense_mask())
        yield ticket
        for level in range(1, self.rounds + 1):
            ticket = runner.load_ticket(level) or self._run_round(runner, ticket, level)
            yield ticket

    def _run_round(self, runner: Runner, ticket: Ticket, level: int) -> Ticket:
        continued = level > 1 and not self.rewinds_each_round
        runner.train(ticket, continued=continued, start=0 if continued else None)
        mask = self.final_mask(runner.network, runner.derive_seed("mask", level))
        fix = "a higher --initial-score" + (" or a lower --penalty" if self.penalty else "")
        details = report_undecided(runner, mask, level, fix)
        if level < self.rounds:
            self.reset_scores(runner.network)
            runner.save_for_next_level(level)
        return runner.save_ticket(level, mask, details=details)


def resolve_masked_head(search: Any, frozen: bool) -> None:
    """Fills in whether a search masks the classification layer: a supermask does, unless the recipe says otherwise.

    Raises:
        BadInput: If weights are trained and it is to be masked all the same.
    """
    if frozen and search.masked_head is None:
        object.__setattr__(search, "masked_head", True)
    if search.masked_head and not frozen:
        raise BadInput("--masked-head is for weights that are never trained; give --frozen too, or --no-masked-head")


def check_score_lr(lr: float | None) -> None:
    """Refuses learning rates at which scores cannot be trained.

    Raises:
        BadInput: If the rate is not above 0 and finite.
    """
    if lr is not None and not 0 < lr < float("inf"):
        raise BadInput(f"--score-lr must be finite and above 0, got {lr:g}; give a rate such as 0.1")


def build_score_optimizer(kind: ScoreOptimizer, lr: float | None, training: TrainConfig) -> Optimizer:
    """The description of the scores' optimiser, without weight decay.

    Raises:
        BadInput: If it is to be the weights' and that one scales by the norm of what it trains, which scores have not.
    """
    lr = training.optimizer.lr if lr is None else lr
    if kind == "sgd":
        return SGD(lr=lr, weight_decay=0.0)
    if kind == "adam":
        return Adam(lr=lr, weight_decay=0.0)
    if isinstance(training.optimizer, AdamW):  # without weight decay it is Adam
        return Adam(lr=lr, betas=training.optimizer.betas, weight_decay=0.0)
    if isinstance(training.optimizer, (SGD, Adam, RMSprop)):
        return replace(training.optimizer, lr=lr, weight_decay=0.0)
    name = type(training.optimizer).__name__
    raise BadInput(f"{name} cannot train scores; give --score-optimizer sgd or adam, and --score-lr")


def report_undecided(runner: Runner, mask: Mask, level: int, fix: str) -> dict[str, Any]:
    """Prints how much a mask leaves undecided; returns the entries of the ticket's row and provenance about it.

    Args:
        runner: The runner, whose network has learned the mask.
        mask: The mask of the ticket.
        level: The level of the ticket.
        fix: What would make the mask denser.

    Raises:
        BadInput: If it keeps nothing.
    """
    if not mask.survivors:
        raise BadInput(f"level {level} must keep a weight, and keeps none of {mask.total:,} weights; give {fix}")
    undecided = sum(gate.num_undecided for gate in pruned_model.learned_gates(runner.network.backbone).values())
    if undecided:
        runner.note(f"level {level}: {undecided:,} of {mask.total:,} weights are neither kept nor removed for sure")
    return {"undecided": undecided}


def hard_mask(network: MaskedNetwork) -> Mask:
    """The mask of the backbone's gates as they stand: the weights that each of them would keep."""
    return Mask({name: gate.hard_mask().cpu() for name, gate in pruned_model.learned_gates(network.backbone).items()})


@dataclass(frozen=True, kw_only=True)
class ContinuousSparsification(LearnedMaskSearch):
    """Learn a mask sigma(beta s) while beta rises, and take [s > 0] (Savarese et al. 2019, Algorithm 3).

    Masks of later rounds need not lie within those of earlier ones: a score may rise above 0 again. At most 5 rounds
    are run in section 4 of the paper.

    Attributes:
        rewind_weights: Start every later round from W_k, and not from the weights at the end of the last.
        final_temperature: Final beta_T, to which beta rises from 1 exponentially in every round.
        anneal: Raise beta at every step, as the paper, or every epoch, as the released code.
        divided: Divide the mask by sigma(s_0), as the released code.
        scaled_reset: Multiply scores by beta_T before the next round, as the paper; the released code does not.
    """

    rounds: int = 5
    rewind: str = "2ep"
    rewind_weights: bool = False
    final_temperature: float = 200.0
    initial_score: float = 0.0
    penalty: float = 1e-8
    score_optimizer: ScoreOptimizer = "same"
    score_lr: float | None = None
    anneal: Literal["step", "epoch"] = "step"
    divided: bool = False
    scaled_reset: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 < self.final_temperature < math.inf:
            raise BadInput(
                f"--final-temperature must be finite and above 1, got {self.final_temperature:g}; give one such as 200"
            )

    @property
    def rewinds_each_round(self) -> bool:
        """See the base class."""
        return self.rewind_weights

    def stages(self, clock: Clock, dense: Mask) -> Stages:
        """See the base class."""
        stages = super().stages(clock, dense)
        if self.anneal == "epoch" and _num_epochs(clock) < 2:
            raise BadInput(
                f"--anneal epoch raises the temperature once an epoch, and a round must have at least 2, got "
                f"{clock.length}; give --anneal step or a longer --length"
            )
        return stages

    def make_gate(self, clock: Clock) -> Callable[[Tensor], LearnedGate]:
        """See the base class."""
        return partial(
            SoftGate,
            initial=self.initial_score,
            final_temperature=self.final_temperature,
            stairs=_num_epochs(clock) if self.anneal == "epoch" else None,
            divided=self.divided,
        )

    def final_mask(self, network: MaskedNetwork, seed: int) -> Mask:
        """See the base class: b(s_T)."""
        return hard_mask(network)

    def reset_scores(self, network: MaskedNetwork) -> None:
        """See the base class: s <- min(beta_T s_T, s_0), in momentum encoders too."""
        for gate in pruned_model.learned_gates(network).values():
            assert isinstance(gate, SoftGate), "the network was built with this search's gates"
            gate.reset_scores(scaled=self.scaled_reset)


def _num_epochs(clock: Clock) -> int:
    """The number of epochs of a whole training, the last begun one included."""
    return math.ceil(clock.total_steps * clock.batch_size / clock.set_size - 1e-6)


@dataclass(frozen=True, kw_only=True)
class StochasticSparsification(LearnedMaskSearch):
    """Learn with what probability each weight is kept (Savarese et al. 2019, Algorithm 2, after Zhou et al. 2019).

    Between rounds, weights whose score has fallen below s_0 go for good, the others keep their scores, and training
    starts again from W_k. One round with frozen weights is the supermask of Zhou et al. The paper runs 30 rounds
    (section 4.1).

    Attributes:
        sampled: Draw a ticket's mask from the probabilities, as in Algorithm 2; else weights likelier kept than not
            are kept.
    """

    rounds: int = 30
    rewind: str = "2ep"
    initial_score: float = 1.0
    penalty: float = 1e-8
    score_optimizer: ScoreOptimizer = "sgd"
    score_lr: float | None = 20.0
    sampled: bool = True

    @property
    def rewinds_each_round(self) -> bool:
        """See the base class: always."""
        return True

    def make_gate(self, clock: Clock) -> Callable[[Tensor], LearnedGate]:
        """See the base class."""
        return partial(StochasticGate, initial=self.initial_score)

    def final_mask(self, network: MaskedNetwork, seed: int) -> Mask:
        """See the base class: m ~ Bernoulli(sigma(s_T)), or [sigma(s_T) > 0.5]."""
        if not self.sampled:
            return hard_mask(network)
        gates = _stochastic_gates(network.backbone)
        return Mask({name: gate.sample(derive_seed(seed, name)).cpu() for name, gate in gates.items()})

    def reset_scores(self, network: MaskedNetwork) -> None:
        """See the base class; what is removed from the backbone is removed from momentum encoders too."""
        pruned_model.set_mask_everywhere(network, _surviving_weights(network.backbone))
        if network.head_gates:
            pruned_model.set_mask(network.heads, _surviving_weights(network.heads))


def _stochastic_gates(module: nn.Module) -> dict[str, StochasticGate]:
    gates = {}
    for name, gate in pruned_model.learned_gates(module).items():
        assert isinstance(gate, StochasticGate), "the network was built with this search's gates"
        gates[name] = gate
    return gates


def _surviving_weights(module: nn.Module) -> Mask:
    return Mask({name: gate.surviving_entries().cpu() for name, gate in _stochastic_gates(module).items()})


@dataclass(frozen=True, kw_only=True)
class EdgePopup(Search):
    """Learn which weights of an untrained network to keep, so many in every layer (Ramanujan et al. 2020).

    One training, one ticket. Its weights are W_0, since none is ever trained.

    Attributes:
        density: Fraction of each layer's weights that is kept (about half does best in the paper).
        score_optimizer: Optimiser of the scores: "same" as the weights', SGD with momentum 0.9, or Adam; never with
            weight decay.
        score_lr: Learning rate of the scores, which follows the schedule in proportion (0.1 in the paper's code); None
            for that of the weights, which has no other use here.
        masked_head: The classification layer is drawn Xavier-normal with biases of 0 and masked like every other layer.
    """

    density: float = 0.5
    score_optimizer: ScoreOptimizer = "sgd"
    score_lr: float | None = 0.1
    masked_head: bool | None = field(default=None, metadata=OMIT_DEFAULT)

    def __post_init__(self) -> None:
        if not 0 < self.density < 1:
            raise BadInput(f"--density must be in (0, 1), got {self.density:g}; give a fraction such as 0.5")
        check_score_lr(self.score_lr)
        resolve_masked_head(self, frozen=True)

    def stages(self, clock: Clock, dense: Mask) -> Stages:
        """See the base class."""
        count = sum(num_kept_in_layer(layer.numel(), self.density) for layer in dense.values())
        return Stages(0, (0, clock.total_steps), (dense.total, count))

    def mask_learning(self, training: TrainConfig, clock: Clock) -> MaskLearning:
        """See the base class."""
        optimizer = build_score_optimizer(self.score_optimizer, self.score_lr, training)
        gate = partial(TopKGate, density=self.density)
        return MaskLearning(gate=gate, optimizer=optimizer, frozen=True, masked_head=bool(self.masked_head))

    def tickets(self, runner: Runner) -> Iterator[Ticket]:
        """See the base class."""
        runner.reach_rewind_point()
        dense = runner.load_ticket(0) or runner.save_ticket(0, runner.dense_mask())
        yield dense
        ticket = runner.load_ticket(1)
        if ticket is None:
            runner.train(dense)
            mask = hard_mask(runner.network)
            details = report_undecided(runner, mask, 1, "a higher --density")
            ticket = runner.save_ticket(1, mask, details=details)
        yield ticket


@dataclass(frozen=True, kw_only=True)
class MaskTraining(LearnedMaskSearch):
    """Learn masks with any gate, such as one of your own.

    A ticket keeps the weights of its gates' hard masks. Later rounds go on from where the last one ended, or from W_k,
    with the scores as they are.

    Attributes:
        gate: Settings of the gate of every weight.
        rewind_weights: Start every later round from W_k, and not from the weights at the end of the last.
    """

    rounds: int = 1
    rewind: str = "0it"
    initial_score: float = 0.0
    penalty: float = 0.0
    score_optimizer: ScoreOptimizer = "adam"
    score_lr: float | None = 0.1
    gate: GateSettings = field(default=BernoulliMask())
    rewind_weights: bool = False

    @property
    def rewinds_each_round(self) -> bool:
        """See the base class."""
        return self.rewind_weights

    def make_gate(self, clock: Clock) -> Callable[[Tensor], LearnedGate]:
        """See the base class."""
        return partial(self.gate.build, initial_score=self.initial_score)

    def final_mask(self, network: MaskedNetwork, seed: int) -> Mask:
        """See the base class: the gates' hard masks."""
        return hard_mask(network)

    def reset_scores(self, network: MaskedNetwork) -> None:
        """See the base class: scores stay as they are."""
