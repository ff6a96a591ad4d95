"""Searches that learn masks by gradient descent: Continuous and Iterative Stochastic Sparsification (Savarese et al. 2019), with supermasks (Zhou et al. 2019), and edge-popup (Ramanujan et al. 2020)."""

import math
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from torch import nn

from sslticket.config.training import SGD, Adam, Clock, Optimizer, RMSprop, Span, TrainConfig
from sslticket.errors import BadInput
from sslticket.pruning import pruned_model
from sslticket.pruning.gates import SoftGate, StochasticGate, TopKGate, num_kept_in_layer
from sslticket.pruning.mask import Mask
from sslticket.registry import OMIT_DEFAULT
from sslticket.search.base import Search, Stages, rewind_step
from sslticket.seeds import derive_seed
from sslticket.training.network import MaskLearning

if TYPE_CHECKING:
    from sslticket.search.runner import SearchRunner
    from sslticket.ticket import Ticket
    from sslticket.training.network import MaskedNetwork

ScoreOptimizer = Literal["same", "sgd", "adam"]
_MAX_SCORE = 50.0  # a sigmoid is 0 or 1 long before, and its inverse still a number


@dataclass(frozen=True, kw_only=True)
class LearnedMaskSearch(Search):
    """A mask learnt in rounds; each of them is a level, and W_k is taken in the first.

    Attributes:
        rounds: trainings, each of which gives a ticket.
        rewind: when in the first round W_k is taken ("3ep", "500it", "3840000samples", or "15%" of it).
        initial_score: s_0, with which every score starts.
        penalty: lambda, the weight of the sum of the mask in the loss.
        score_optimizer: of the scores: "same" as the weights', SGD with momentum 0.9, or Adam; never with weight decay.
        score_lr: the scores' learning rate, which follows the schedule in proportion; None for that of the weights.
        frozen: train scores only; weights and heads stay as they were drawn.
        masked_head: with frozen weights, the classification layer is drawn Xavier-normal with biases of 0 and masked
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
            raise BadInput(f"a search of {self.rounds} rounds finds nothing; give --rounds at least 1")
        if not abs(self.initial_score) <= _MAX_SCORE:
            raise BadInput(
                f"scores of {self.initial_score:g} never move; give --initial-score from -{_MAX_SCORE:g} to {_MAX_SCORE:g}"
            )
        if not 0 <= self.penalty < float("inf"):
            raise BadInput(f"a penalty of {self.penalty:g} makes nothing sparse; give --penalty 0 or more")
        check_score_lr(self.score_lr)
        resolve_masked_head(self, self.frozen)
        Span.parse(self.rewind)

    @property
    @abstractmethod
    def rewinds_each_round(self) -> bool:
        """Whether every round but the first starts from W_k, and not from where the last one ended."""

    def stages(self, clock: Clock, dense: Mask) -> Stages:
        """See the base class."""
        rewind = rewind_step(self.rewind, clock)
        more = clock.total_steps - (rewind if self.rewinds_each_round else 0)
        return Stages(rewind, (rewind, *(clock.total_steps + more * later for later in range(self.rounds))), None)

    def shortened_for_trial(self, clock: Clock) -> "LearnedMaskSearch":
        """See the base class; W_k is then taken after a tenth of the training."""
        return self if clock.steps(Span.parse(self.rewind)) < clock.total_steps else replace(self, rewind="10%")

    def tickets(self, lab: "SearchRunner") -> Iterator["Ticket"]:
        """See the base class."""
        lab.reach_rewind_point()
        ticket = lab.load_ticket(0) or lab.save_ticket(0, lab.dense_mask())
        yield ticket
        for level in range(1, self.rounds + 1):
            ticket = lab.load_ticket(level) or self._run_round(lab, ticket, level)
            yield ticket

    @abstractmethod
    def final_mask(self, net: "MaskedNetwork", seed: int) -> Mask:
        """The mask of the ticket at the end of a round; the seed is of whatever is drawn."""

    @abstractmethod
    def reset_scores(self, net: "MaskedNetwork") -> None:
        """Make the scores ready for another round."""

    def _run_round(self, lab: "SearchRunner", ticket: "Ticket", level: int) -> "Ticket":
        goes_on = level > 1 and not self.rewinds_each_round
        lab.train(ticket, carried=goes_on, start=0 if goes_on else None)
        mask = self.final_mask(lab.network, lab.derive_seed("mask", level))
        fix = "a higher --initial-score" + (" or a lower --penalty" if self.penalty else "")
        told = report_undecided(lab, mask, level, fix)
        if level < self.rounds:
            self.reset_scores(lab.network)
            lab.save_for_next_level(level)
        return lab.save_ticket(level, mask, told=told)


def resolve_masked_head(search: Any, frozen: bool) -> None:
    """Fill in whether a search masks the classification layer: a supermask does, unless it is told not to.

    Raises:
        BadInput: if weights are trained and it is to be masked all the same.
    """
    if frozen and search.masked_head is None:
        object.__setattr__(search, "masked_head", True)
    if search.masked_head and not frozen:
        raise BadInput("--masked-head is for weights that are never trained; give --frozen too, or --no-masked-head")


def check_score_lr(lr: float | None) -> None:
    """Whether scores can be trained at this rate.

    Raises:
        BadInput: if not.
    """
    if lr is not None and not 0 < lr < float("inf"):
        raise BadInput(f"scores do not learn at a rate of {lr:g}; give --score-lr above 0")


def build_score_optimizer(kind: ScoreOptimizer, lr: float | None, fit: TrainConfig) -> Optimizer:
    """The scores' optimiser, without weight decay.

    Raises:
        BadInput: if it is to be the weights' and that one scales by the norm of what it trains, which scores have not.
    """
    lr = fit.optimizer.lr if lr is None else lr
    if kind == "sgd":
        return SGD(lr=lr, weight_decay=0.0)
    if kind == "adam":
        return Adam(lr=lr, weight_decay=0.0)
    if isinstance(fit.optimizer, (SGD, Adam, RMSprop)):
        return replace(fit.optimizer, lr=lr, weight_decay=0.0)
    raise BadInput(
        f"{type(fit.optimizer).__name__} cannot train scores; give --score-optimizer sgd or adam, and --score-lr"
    )


def report_undecided(lab: "SearchRunner", mask: Mask, level: int, fix: str) -> dict[str, Any]:
    """Say how much a mask leaves undecided; returns what the ticket's row and provenance tell of it.

    Args:
        lab: whose net has learnt it.
        mask: of the ticket.
        level: of the ticket.
        fix: what would make the mask denser.

    Raises:
        BadInput: if it keeps nothing.
    """
    if not mask.survivors:
        raise BadInput(f"level {level} keeps none of {mask.total:,} weights; give {fix}")
    undecided = sum(one.num_undecided for one in pruned_model.learned_gates(lab.network.backbone).values())
    if undecided:
        lab.note(f"level {level}: {undecided:,} of {mask.total:,} weights are neither kept nor removed for sure")
    return {"undecided": undecided}


@dataclass(frozen=True, kw_only=True)
class ContinuousSparsification(LearnedMaskSearch):
    """Learn a mask sigma(beta s) while beta rises, and take [s > 0] (Savarese et al. 2019, Algorithm 3).

    Masks of later rounds need not lie within those of earlier ones: a score may rise above 0 again.

    Attributes:
        rounds: trainings, each of which gives a ticket (at most 5 in section 4).
        rewind: when in the first round W_k is taken ("2ep", "780it", "100000samples", or "15%" of it).
        rewind_weights: start every later round from W_k, and not from the weights at the end of the last.
        final_temperature: beta_T; beta rises to it from 1 exponentially in every round.
        initial_score: s_0, with which every score starts; the lower, the sparser.
        penalty: lambda, the weight of the sum of the soft mask in the loss.
        score_optimizer: of the scores: "same" as the weights', SGD with momentum 0.9, or Adam; never with weight decay.
        score_lr: the scores' learning rate, which follows the schedule in proportion; None for that of the weights.
        anneal: raise beta at every step, as the paper, or every epoch, as the released code.
        divided: divide the mask by sigma(s_0), as the released code.
        scaled_reset: multiply scores by beta_T before the next round, as the paper; the released code does not.
        frozen: train scores only; weights and heads stay as they were drawn.
        masked_head: with frozen weights, the classification layer is drawn Xavier-normal with biases of 0 and masked
            like every other layer (section 4.1 after Zhou et al. 2019, whose Conv-6 has a mask on all of them).
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
                f"a final temperature of {self.final_temperature:g} does not rise from 1; "
                "give --final-temperature above 1, such as 200"
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
                f"a temperature that rises once an epoch never does in a round of {clock.length}; "
                "give --anneal step or a longer --length"
            )
        return stages

    def mask_learning(self, fit: TrainConfig, clock: Clock) -> MaskLearning:
        """See the base class."""
        make = partial(
            SoftGate,
            initial=self.initial_score,
            final_temperature=self.final_temperature,
            stairs=_num_epochs(clock) if self.anneal == "epoch" else None,
            divided=self.divided,
        )
        chosen = build_score_optimizer(self.score_optimizer, self.score_lr, fit)
        return MaskLearning(
            gate=make,
            optimizer=chosen,
            penalty=self.penalty,
            frozen=self.frozen,
            masked_head=bool(self.masked_head),
        )

    def final_mask(self, net: "MaskedNetwork", seed: int) -> Mask:
        """See the base class: b(s_T)."""
        return Mask({name: one.hard_mask().cpu() for name, one in pruned_model.learned_gates(net.backbone).items()})

    def reset_scores(self, net: "MaskedNetwork") -> None:
        """See the base class: s <- min(beta_T s_T, s_0), in momentum encoders too."""
        for one in pruned_model.learned_gates(net).values():
            assert isinstance(one, SoftGate), "the net was built with this search's gates"
            one.reset_scores(scaled=self.scaled_reset)


def _num_epochs(clock: Clock) -> int:
    """Of a whole training, the last begun one too."""
    return math.ceil(clock.total_steps * clock.batch_size / clock.set_size - 1e-6)


@dataclass(frozen=True, kw_only=True)
class StochasticSparsification(LearnedMaskSearch):
    """Learn with what probability each weight is kept (Savarese et al. 2019, Algorithm 2, after Zhou et al. 2019).

    Between rounds, weights whose score has fallen below s_0 go for good, the others keep their scores, and training
    starts again from W_k. One round with frozen weights is the supermask of Zhou et al.

    Attributes:
        rounds: trainings, each of which gives a ticket (30 in section 4.1).
        rewind: when in the first round W_k is taken ("2ep", "780it", "100000samples", or "15%" of it).
        initial_score: s_0, with which every score starts; the lower, the sparser.
        penalty: lambda, the weight of the sum of the probabilities in the loss.
        score_optimizer: of the scores: "same" as the weights', SGD with momentum 0.9, or Adam; never with weight decay.
        score_lr: the scores' learning rate, which follows the schedule in proportion; None for that of the weights.
        sampled: a ticket's mask is drawn from the probabilities, as in Algorithm 2; else weights likelier kept than not
            are kept.
        frozen: train scores only; weights and heads stay as they were drawn.
        masked_head: with frozen weights, the classification layer is drawn Xavier-normal with biases of 0 and masked
            like every other layer (section 4.1 after Zhou et al. 2019, whose Conv-6 has a mask on all of them).
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

    def mask_learning(self, fit: TrainConfig, clock: Clock) -> MaskLearning:
        """See the base class."""
        chosen = build_score_optimizer(self.score_optimizer, self.score_lr, fit)
        make = partial(StochasticGate, initial=self.initial_score)
        return MaskLearning(
            gate=make,
            optimizer=chosen,
            penalty=self.penalty,
            frozen=self.frozen,
            masked_head=bool(self.masked_head),
        )

    def final_mask(self, net: "MaskedNetwork", seed: int) -> Mask:
        """See the base class: m ~ Bernoulli(sigma(s_T)), or [sigma(s_T) > 0.5]."""
        layers = {}
        for name, one in pruned_model.learned_gates(net.backbone).items():
            assert isinstance(one, StochasticGate), "the net was built with this search's gates"
            layers[name] = (one.sample(derive_seed(seed, name)) if self.sampled else one.hard_mask()).cpu()
        return Mask(layers)

    def reset_scores(self, net: "MaskedNetwork") -> None:
        """See the base class; what is removed from the backbone is removed from momentum encoders too."""
        pruned_model.set_mask_everywhere(net, _surviving_weights(net.backbone))
        if net.head_gates:
            pruned_model.set_mask(net.heads, _surviving_weights(net.heads))


def _surviving_weights(module: nn.Module) -> Mask:
    layers = {}
    for name, one in pruned_model.learned_gates(module).items():
        assert isinstance(one, StochasticGate), "the net was built with this search's gates"
        layers[name] = one.surviving_entries().cpu()
    return Mask(layers)


@dataclass(frozen=True, kw_only=True)
class EdgePopup(Search):
    """Learn which weights of an untrained network to keep, so many in every layer (Ramanujan et al. 2020).

    One training, one ticket. Its weights are W_0, since none is ever trained.

    Attributes:
        density: fraction of each layer's weights that is kept (about half does best in the paper).
        score_optimizer: of the scores: "same" as the weights', SGD with momentum 0.9, or Adam; never with weight decay.
        score_lr: the scores' learning rate, which follows the schedule in proportion (0.1 in the paper's code); None
            for that of the weights, which has no other use here.
        masked_head: the classification layer is drawn Xavier-normal with biases of 0 and masked like every other layer.
    """

    density: float = 0.5
    score_optimizer: ScoreOptimizer = "sgd"
    score_lr: float | None = 0.1
    masked_head: bool | None = field(default=None, metadata=OMIT_DEFAULT)

    def __post_init__(self) -> None:
        if not 0 < self.density < 1:
            raise BadInput(f"a density of {self.density:g} leaves nothing to choose; give --density between 0 and 1")
        check_score_lr(self.score_lr)
        resolve_masked_head(self, frozen=True)

    def stages(self, clock: Clock, dense: Mask) -> Stages:
        """See the base class."""
        count = sum(num_kept_in_layer(layer.numel(), self.density) for layer in dense.values())
        return Stages(0, (0, clock.total_steps), (dense.total, count))

    def shortened_for_trial(self, clock: Clock) -> "EdgePopup":
        """See the base class; W_0 is within every training."""
        return self

    def mask_learning(self, fit: TrainConfig, clock: Clock) -> MaskLearning:
        """See the base class."""
        chosen = build_score_optimizer(self.score_optimizer, self.score_lr, fit)
        make = partial(TopKGate, density=self.density)
        return MaskLearning(gate=make, optimizer=chosen, frozen=True, masked_head=bool(self.masked_head))

    def tickets(self, lab: "SearchRunner") -> Iterator["Ticket"]:
        """See the base class."""
        lab.reach_rewind_point()
        dense = lab.load_ticket(0) or lab.save_ticket(0, lab.dense_mask())
        yield dense
        yield lab.load_ticket(1) or self._train_ticket(lab, dense)

    def _train_ticket(self, lab: "SearchRunner", dense: "Ticket") -> "Ticket":
        lab.train(dense)
        mask = Mask(
            {name: one.hard_mask().cpu() for name, one in pruned_model.learned_gates(lab.network.backbone).items()}
        )
        return lab.save_ticket(1, mask, told=report_undecided(lab, mask, 1, "a higher --density"))
