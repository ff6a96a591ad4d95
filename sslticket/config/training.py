"""How a network is trained: length, batch, optimiser and learning rate, as data; nothing here imports torch.

Lengths are written as in the papers ("90ep", "2500it", "15%"); a clock turns them into samples and optimiser steps.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, cast

from sslticket import registry
from sslticket.errors import BadInput

Unit = Literal["ep", "it", "samples", "%"]


@dataclass(frozen=True)
class Span:
    """A length of training: "90ep", "2500it", "3840000samples", or "15%" of the whole training."""

    amount: float
    unit: Unit

    @classmethod
    def parse(cls, text: str) -> "Span":
        """Read "90ep", "0.5ep", "2500it", "3840000samples" or "15%" (underscores allowed).

        Raises:
            BadInput: if the text is none of these.
        """
        match = re.fullmatch(r"(\d[\d_]*(?:\.\d+)?)(ep|it|samples|%)", text.strip())
        if match is None:
            raise BadInput(f"{text!r} is no length of training; write it like 90ep, 2500it or 3840000samples")
        amount, unit = float(match[1].replace("_", "")), cast(Unit, match[2])
        if unit in ("it", "samples") and amount != int(amount):
            raise BadInput(f"{text!r} is no length of training; only epochs and percentages can be fractions")
        return cls(amount, unit)

    def __str__(self) -> str:
        return f"{self.amount:.10g}{self.unit}"


@dataclass(frozen=True)
class Clock:
    """Samples seen and optimiser steps of one training.

    An epoch is as many samples as the training set holds: batches may straddle two epochs and no image is dropped.

    Attributes:
        length: the whole training; not in percent.
        batch_size: images in a global batch.
        set_size: images in the training set; with two streams, samples of both while the labelled one is seen once.
    """

    length: Span
    batch_size: int
    set_size: int

    def samples(self, span: Span) -> float:
        """Samples seen after this span."""
        if span.unit == "%":
            assert self.length.unit != "%", "the length itself cannot be a share of the length"
            return span.amount / 100 * self.samples(self.length)
        return span.amount * {"ep": self.set_size, "it": self.batch_size, "samples": 1}[span.unit]

    def steps(self, span: Span) -> int:
        """Optimiser steps: up to the end of the first step at which at least this many samples have been seen."""
        # The slack keeps 0.1ep of 1,000 images at 100 a batch from becoming two steps through rounding.
        return math.ceil(self.samples(span) / self.batch_size - 1e-6)

    @property
    def total_steps(self) -> int:
        """Optimiser steps of the whole training."""
        return self.steps(self.length)


def format_duration(seconds: float) -> str:
    """A length of time to two units: "45 s", "3 min 20 s", "2 h 05 min", "4 d 12 h"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3600} h"


@dataclass(frozen=True, kw_only=True)
class SGD:
    """Stochastic gradient descent; weight decay is a plain L2 penalty on all weights, as in the papers.

    Attributes:
        lr: the learning rate after warmup and before the first drop.
        momentum: of the gradient's running sum.
        weight_decay: factor of the L2 penalty.
        nesterov: look ahead by the momentum.
    """

    lr: float
    momentum: float = 0.9
    weight_decay: float = 1e-4
    nesterov: bool = False


@dataclass(frozen=True, kw_only=True)
class Adam:
    """Adam (Kingma & Ba 2015) with torch's defaults; weight decay is an L2 penalty added to the gradient.

    Attributes:
        lr: the learning rate after warmup and before the first drop.
        betas: decay of the running means of the gradient and of its square.
        weight_decay: factor of the L2 penalty.
    """

    lr: float
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 1e-4


@dataclass(frozen=True, kw_only=True)
class RMSprop:
    """RMSprop with torch's defaults; weight decay is an L2 penalty added to the gradient.

    Attributes:
        lr: the learning rate after warmup and before the first drop.
        alpha: decay of the running mean of the gradient's square.
        eps: added to the root of that mean.
        momentum: of the normalised gradient's running sum.
        weight_decay: factor of the L2 penalty.
    """

    lr: float
    alpha: float = 0.99
    eps: float = 1e-8
    momentum: float = 0.0
    weight_decay: float = 0.0


@dataclass(frozen=True, kw_only=True)
class LARS:
    """SGD whose rate is scaled for each tensor by the norms of weight and gradient (You et al. 2017).

    Biases and batch norm get neither the scaling nor weight decay, as in SimCLR and after.

    Attributes:
        lr: the learning rate after warmup and before the first drop.
        momentum: of the gradient's running sum.
        weight_decay: factor of the L2 penalty on weights.
        trust: the trust coefficient.
        bias_lr: the learning rate of biases and batch norm, which follows the same schedule; None for the same rate.
    """

    lr: float
    momentum: float = 0.9
    weight_decay: float = 1e-6
    trust: float = 0.001
    bias_lr: float | None = None


Optimizer = SGD | Adam | RMSprop | LARS
OPTIMIZERS: Mapping[str, type[Optimizer]] = {kind.__name__: kind for kind in (SGD, Adam, RMSprop, LARS)}
Decay = Literal["drops", "cosine", "linear", "exponential"]


@dataclass(frozen=True)
class LRSchedule:
    """The learning rate, a pure function of the samples seen.

    Attributes:
        lr: the rate after warmup and before any decay.
        warmup: samples over which the rate rises linearly from 0.
        drops: samples seen at which the rate is divided by 10.
        decay: "drops" for these alone, or the curve from `lr` at the end of warmup to `last_lr` at the end of training.
        last_lr: the rate at the end of a curve.
        end: samples of the whole training.
    """

    lr: float
    warmup: float
    drops: tuple[float, ...]
    decay: Decay = "drops"
    last_lr: float = 0.0
    end: float = math.inf

    def lr_at(self, samples: float) -> float:
        """The rate of the step at whose end `samples` have been seen; so no step is taken at rate 0."""
        rising = min(1.0, samples / self.warmup) if self.warmup else 1.0
        if self.decay == "drops":
            # A drop at epoch 30 takes effect with the first step that goes beyond epoch 30.
            passed = sum(samples > drop * (1 + 1e-9) for drop in self.drops)
            return self.lr * rising * 0.1**passed
        if rising < 1:
            return self.lr * rising
        past = min(1.0, (samples - self.warmup) / (self.end - self.warmup))
        if self.decay == "exponential":
            return float(self.lr * (self.last_lr / self.lr) ** past)
        left = 1 - past if self.decay == "linear" else (1 + math.cos(math.pi * past)) / 2
        return self.last_lr + (self.lr - self.last_lr) * left


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One training.

    Attributes:
        length: of the whole training ("90ep", "2500it", "3840000samples").
        batch_size: images in a global batch, all processes together.
        ghost_batch: images of it whose statistics batch norm takes together in training, as a GPU's were in the papers;
            None for the whole batch, however many processes share it.
        optimizer: SGD, Adam, RMSprop or LARS with its learning rate and weight decay.
        warmup: over which the learning rate rises linearly from 0.
        drops: when the learning rate is divided by 10.
        decay: how the learning rate falls after warmup: at the drops, or along a curve down to the last rate.
        last_lr: the learning rate at the end of a curve.
        clip: the largest norm of the gradient of all weights together; a longer one is scaled down. None never does.
    """

    stored_name: ClassVar[str] = "Fit"

    length: str
    batch_size: int
    optimizer: Optimizer
    warmup: str = "0ep"
    drops: tuple[str, ...] = ()
    decay: Decay = "drops"
    last_lr: float = 0.0
    clip: float | None = None
    ghost_batch: int | None = field(default=None, metadata=registry.OMIT_DEFAULT)

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise BadInput(f"a batch of {self.batch_size} images is too small; give --batch-size at least 1")
        self._check_ghosts()
        if Span.parse(self.length).unit == "%":
            raise BadInput(
                f"a length of {self.length} is a share of itself; write it like 90ep, 2500it or 100000samples"
            )
        if not self.optimizer.lr > 0:
            raise BadInput(f"a learning rate of {self.optimizer.lr:g} cannot train; give --lr above 0")
        if self.decay != "drops" and self.drops:
            raise BadInput(f"--drops have no place in a {self.decay} decay; give --decay drops or no --drops")
        if not 0 <= self.last_lr < self.optimizer.lr or (self.decay == "exponential" and self.last_lr == 0):
            raise BadInput(
                f"a rate of {self.last_lr:g} ends no {self.decay} decay; give --last-lr above 0 and below --lr"
            )
        if self.clip is not None and not self.clip > 0:
            raise BadInput(f"gradients cannot be clipped to a norm of {self.clip:g}; give --clip above 0")
        for span in (self.warmup, *self.drops):
            Span.parse(span)

    def _check_ghosts(self) -> None:
        if self.ghost_batch is None:
            return
        if self.ghost_batch < 2:
            raise BadInput(f"{self.ghost_batch} images have no statistics; --ghost-batch must be 2 or more")
        if self.ghost_batch >= self.batch_size:
            object.__setattr__(self, "ghost_batch", None)  # which is the same, and has one key
        elif self.batch_size % self.ghost_batch:
            raise BadInput(
                f"a batch of {self.batch_size} cannot be cut into ghost batches of {self.ghost_batch}; give "
                f"--batch-size a multiple of {self.ghost_batch}, or another --ghost-batch"
            )

    @classmethod
    def from_dict(cls, tree: Mapping[str, Any]) -> "TrainConfig":
        """The training that a recipe's JSON values describe; those of earlier versions may lack later fields.

        Raises:
            BadInput: naming the optimiser or the field that is unknown, or what cannot be.
        """
        optimizer = registry.settings_from_json(tree.get("optimizer"), OPTIMIZERS, "optimizer")
        return registry.settings_from_json({**tree, "optimizer": optimizer}, {"Fit": cls}, "training")

    def clock(self, set_size: int) -> Clock:
        """Steps and samples of this training on a set of `set_size` images."""
        return Clock(Span.parse(self.length), self.batch_size, set_size)

    def schedule(self, set_size: int) -> LRSchedule:
        """The learning rate of this training on a set of `set_size` images."""
        clock = self.clock(set_size)
        return LRSchedule(
            lr=self.optimizer.lr,
            warmup=clock.samples(Span.parse(self.warmup)),
            drops=tuple(clock.samples(Span.parse(drop)) for drop in self.drops),
            decay=self.decay,
            last_lr=self.last_lr,
            end=clock.total_steps * clock.batch_size,
        )

    def at_last_lr(self, set_size: int) -> "TrainConfig":
        """The same training with the rate of its last step throughout; each tensor keeps its share of that."""
        clock = self.clock(set_size)
        last = self.schedule(set_size).lr_at(clock.total_steps * clock.batch_size)
        optimizer = replace(self.optimizer, lr=last)
        if isinstance(optimizer, LARS) and optimizer.bias_lr is not None:
            optimizer = replace(optimizer, bias_lr=optimizer.bias_lr * last / self.optimizer.lr)
        return replace(self, optimizer=optimizer, warmup="0ep", drops=(), decay="drops", last_lr=0.0)

    def scaled_to_batch(self, batch_size: int) -> "TrainConfig":
        """The same training with the rate for another batch: of SGD and LARS it grows as the batch does.

        So a step goes as far for an image whatever the batch (Goyal et al. 2017, section 2.1; You et al. 2017). Steps
        of Adam and RMSprop do not grow with the gradient, and keep their rate.

        Args:
            batch_size: images in a global batch, which is not taken over; below 1 there is no rate for it.
        """
        if not isinstance(self.optimizer, (SGD, LARS)) or batch_size < 1 or batch_size == self.batch_size:
            return self

        def scaled(rate: float) -> float:
            return float(f"{rate * batch_size / self.batch_size:.3g}")  # what is said of it can be typed

        optimizer = replace(self.optimizer, lr=scaled(self.optimizer.lr))
        if isinstance(optimizer, LARS) and optimizer.bias_lr is not None:
            optimizer = replace(optimizer, bias_lr=scaled(optimizer.bias_lr))
        return replace(self, optimizer=optimizer, last_lr=scaled(self.last_lr))

    def with_length(self, length: str) -> "TrainConfig":
        """The same training at another length: warmup and drops keep their share of it where the units allow."""
        whole = Span.parse(self.length)

        def share(text: str) -> str:
            span = Span.parse(text)
            return f"{100 * span.amount / whole.amount:.10g}%" if span.unit == whole.unit and whole.amount else text

        drops = tuple(share(drop) for drop in self.drops)
        return replace(self, length=length, warmup=share(self.warmup), drops=drops)
