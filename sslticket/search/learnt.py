"""What searches that learn their masks have in common: rounds, scores and their optimiser."""

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from sslticket.errors import BadInput
from sslticket.fit import LARS, SGD, Adam, Fit, Optimizer
from sslticket.masking import gate
from sslticket.masking.mask import Mask
from sslticket.plain import ADDED
from sslticket.search.base import Search, Stages, rewind_step
from sslticket.units import Clock, Span

if TYPE_CHECKING:
    from sslticket.search.lab import Lab
    from sslticket.ticket import Ticket
    from sslticket.training.net import Net

ScoreOptimizer = Literal["same", "sgd", "adam"]
_LARGEST = 50.0  # a sigmoid is 0 or 1 long before, and its inverse still a number


@dataclass(frozen=True, kw_only=True)
class Rounds(Search):
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
    masked_head: bool | None = field(default=None, metadata=ADDED)

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise BadInput(f"a search of {self.rounds} rounds finds nothing; give --rounds at least 1")
        if not abs(self.initial_score) <= _LARGEST:
            raise BadInput(
                f"scores of {self.initial_score:g} never move; give --initial-score from -{_LARGEST:g} to {_LARGEST:g}"
            )
        if not 0 <= self.penalty < float("inf"):
            raise BadInput(f"a penalty of {self.penalty:g} makes nothing sparse; give --penalty 0 or more")
        check_rate(self.score_lr)
        mask_head(self, self.frozen)
        Span.parse(self.rewind)

    @property
    @abstractmethod
    def rewinds(self) -> bool:
        """Whether every round but the first starts from W_k, and not from where the last one ended."""

    def stages(self, clock: Clock, dense: Mask) -> Stages:
        """See the base class."""
        rewind = rewind_step(self.rewind, clock)
        more = clock.total - (rewind if self.rewinds else 0)
        return Stages(rewind, (rewind, *(clock.total + more * later for later in range(self.rounds))), None)

    def brought_within(self, clock: Clock) -> "Rounds":
        """See the base class; W_k is then taken after a tenth of the training."""
        return self if clock.steps(Span.parse(self.rewind)) < clock.total else replace(self, rewind="10%")

    def tickets(self, lab: "Lab") -> Iterator["Ticket"]:
        """See the base class."""
        lab.reach_rewind_point()
        ticket = lab.found(0) or lab.keep(0, lab.dense_mask())
        yield ticket
        for level in range(1, self.rounds + 1):
            ticket = lab.found(level) or self._round(lab, ticket, level)
            yield ticket

    @abstractmethod
    def mask(self, net: "Net", seed: int) -> Mask:
        """The mask of the ticket at the end of a round; the seed is of whatever is drawn."""

    @abstractmethod
    def reset(self, net: "Net") -> None:
        """Make the scores ready for another round."""

    def _round(self, lab: "Lab", ticket: "Ticket", level: int) -> "Ticket":
        goes_on = level > 1 and not self.rewinds
        lab.train(ticket, carried=goes_on, start=0 if goes_on else None)
        mask = self.mask(lab.net, lab.seed("mask", level))
        fix = "a higher --initial-score" + (" or a lower --penalty" if self.penalty else "")
        told = report(lab, mask, level, fix)
        if level < self.rounds:
            self.reset(lab.net)
            lab.carry(level)
        return lab.keep(level, mask, told=told)


def mask_head(search: Any, frozen: bool) -> None:
    """Fill in whether a search masks the classification layer: a supermask does, unless it is told not to.

    Raises:
        BadInput: if weights are trained and it is to be masked all the same.
    """
    if frozen and search.masked_head is None:
        object.__setattr__(search, "masked_head", True)
    if search.masked_head and not frozen:
        raise BadInput("--masked-head is for weights that are never trained; give --frozen too, or --no-masked-head")


def check_rate(lr: float | None) -> None:
    """Whether scores can be trained at this rate.

    Raises:
        BadInput: if not.
    """
    if lr is not None and not 0 < lr < float("inf"):
        raise BadInput(f"scores do not learn at a rate of {lr:g}; give --score-lr above 0")


def score_optimizer(kind: ScoreOptimizer, lr: float | None, fit: Fit) -> Optimizer:
    """The scores' optimiser, without weight decay.

    Raises:
        BadInput: if it is to be the weights' and that one scales by the norm of what it trains, which scores have not.
    """
    lr = fit.optimizer.lr if lr is None else lr
    if kind == "sgd":
        return SGD(lr=lr, weight_decay=0.0)
    if kind == "adam":
        return Adam(lr=lr, weight_decay=0.0)
    if isinstance(fit.optimizer, LARS):
        raise BadInput("LARS cannot train scores; give --score-optimizer sgd or adam, and --score-lr")
    return replace(fit.optimizer, lr=lr, weight_decay=0.0)


def report(lab: "Lab", mask: Mask, level: int, fix: str) -> dict[str, Any]:
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
    undecided = sum(one.undecided for one in gate.learnt(lab.net.backbone).values())
    if undecided:
        lab.note(f"level {level}: {undecided:,} of {mask.total:,} weights are neither kept nor removed for sure")
    return {"undecided": undecided}
