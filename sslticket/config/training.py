"""How a network is trained: length, batch, optimiser and learning rate, as data; nothing here imports torch.

Lengths are written as in the papers ("90ep", "2500it", "15%"); a clock turns them into samples and optimiser steps.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, cast, get_args

from sslticket import registry
from sslticket.errors import BadInput

if TYPE_CHECKING:  # the builder of an optimiser of one's own gets them; nothing here needs torch
    import torch

Unit = Literal["ep", "it", "samples", "%"]


@dataclass(frozen=True)
class Span:
    """A length of training: "90ep", "2500it", "3840000samples", or "15%" of the whole training."""

    amount: float
    unit: Unit

    @classmethod
    def parse(cls, text: str, what: str = "a length of training") -> "Span":
        """Read "90ep", "0.5ep", "2500it", "3840000samples" or "15%" (underscores allowed).

        Args:
            text: The text.
            what: What an error calls it, such as its flag.

        Raises:
            BadInput: If the text is none of these.
        """
        match = re.fullmatch(r"(\d[\d_]*(?:\.\d+)?)(ep|it|samples|%)", text.strip())
        if match is None:
            raise BadInput(f"{what} must be like 90ep, 2500it, 3840000samples or 15%, got {text!r}")
        amount, unit = float(match[1].replace("_", "")), cast(Unit, match[2])
        if unit in ("it", "samples") and amount != int(amount):
            raise BadInput(
                f"{what} must be a whole number of steps or samples, got {text!r}; epochs and percentages can be "
                "fractions"
            )
        return cls(amount, unit)

    def __str__(self) -> str:
        return f"{self.amount:.10g}{self.unit}"


@dataclass(frozen=True)
class Clock:
    """Samples seen and optimiser steps of one training.

    An epoch is as many samples as the training set holds: batches may straddle two epochs and no image is dropped.

    Attributes:
        length: Length of the whole training; not in percent.
        batch_size: Images in a global batch.
        set_size: Images in the training set; with two streams, samples of both while the labelled one is seen once.
    """

    length: Span
    batch_size: int
    set_size: int

    def samples(self, span: Span) -> float:
        """Samples that have been seen after this span."""
        if span.unit == "%":
            assert self.length.unit != "%", "the length itself cannot be a fraction of the length"
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
class Optimizer:
    """An optimiser with its hyper-parameters; a frozen dataclass, which `sslticket.training.optim` builds.

    An optimiser of one's own is a subclass with a method `build`.

    Attributes:
        lr: Learning rate after warmup and before the first drop.
        scales_with_batch: Whether the rate grows as the batch does (Goyal et al. 2017, section 2.1, arXiv:1706.02677;
            You et al. 2017, arXiv:1708.03888), since its steps grow with the gradient.
    """

    scales_with_batch: ClassVar[bool] = False

    lr: float

    def build(self, parameters: "list[torch.nn.Parameter]") -> "torch.optim.Optimizer":
        """The torch optimiser for the parameters that are trained; for optimisers that are not built in."""
        raise NotImplementedError(f"{type(self).__name__} must define build(parameters)")

    def with_lr(self, lr: float) -> Self:
        """The same optimiser at another learning rate; rates of single tensors keep their ratio to it."""
        return replace(self, lr=lr)

    def at_end(self) -> Self:
        """The same optimiser with what changes along the training, the learning rate aside, as it is at the end."""
        return self


@dataclass(frozen=True, kw_only=True)
class SGD(Optimizer):
    """Stochastic gradient descent; weight decay is a plain L2 penalty on all weights, as in the papers.

    Attributes:
        lr: Learning rate after warmup and before the first drop.
        momentum: Momentum of the gradient's running sum.
        weight_decay: Factor of the L2 penalty.
        nesterov: Look ahead by the momentum.
    """

    scales_with_batch: ClassVar[bool] = True

    momentum: float = 0.9
    weight_decay: float = 1e-4
    nesterov: bool = False


@dataclass(frozen=True, kw_only=True)
class Adam(Optimizer):
    """Adam (Kingma & Ba 2015, arXiv:1412.6980) with torch's defaults; weight decay is an L2 penalty on the gradient.

    Attributes:
        lr: Learning rate after warmup and before the first drop.
        betas: Decay of the running means of the gradient and of its square.
        weight_decay: Factor of the L2 penalty.
    """

    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 1e-4


Spared = Literal["nothing", "vectors", "tokens"]


@dataclass(frozen=True, kw_only=True)
class AdamW(Adam):
    """Adam whose weight decay is no gradient: weights shrink by rate x decay at each step (Loshchilov & Hutter 2019).

    Source: https://arxiv.org/abs/1711.05101. The decay is by default that of DeiT (Touvron et al. 2021,
    https://arxiv.org/abs/2012.12877, Table 9) and of ConvNeXt (Liu et al. 2022, https://arxiv.org/abs/2201.03545,
    Table 5).

    Attributes:
        lr: Learning rate after warmup and before the first drop.
        betas: Decay of the running means of the gradient and of its square.
        weight_decay: Fraction of a weight that a step takes away, times the learning rate.
        last_weight_decay: Weight decay at the end of the training, to which it moves along half a cosine (Caron et al.
            2021, DINO, https://arxiv.org/abs/2104.14294); None where it stays.
        spare: What does not decay: "nothing"; "vectors", which are biases, scales of norms and all else of one
            dimension; or "tokens", which are these and what the network itself names, as timm's transformers do their
            class token and position embedding.
    """

    weight_decay: float = 0.05
    last_weight_decay: float | None = None
    spare: Spared = "vectors"

    def __post_init__(self) -> None:
        if self.last_weight_decay is not None and not self.last_weight_decay >= 0:
            raise BadInput(f"--last-weight-decay must be at least 0, got {self.last_weight_decay:g}; leave it out")
        if self.spare not in get_args(Spared):
            raise BadInput(f"--spare must be {', '.join(get_args(Spared))}, got {self.spare!r}; give one of them")

    def decay_at(self, progress: float) -> float:
        """The weight decay after a fraction of the training."""
        if self.last_weight_decay is None:
            return self.weight_decay
        left = (1 + math.cos(math.pi * progress)) / 2
        return self.last_weight_decay + (self.weight_decay - self.last_weight_decay) * left

    def at_end(self) -> "AdamW":
        """See the base class."""
        return replace(self, weight_decay=self.decay_at(1.0), last_weight_decay=None)


@dataclass(frozen=True, kw_only=True)
class RMSprop(Optimizer):
    """RMSprop with torch's defaults; weight decay is an L2 penalty added to the gradient.

    Attributes:
        lr: Learning rate after warmup and before the first drop.
        alpha: Decay of the running mean of the gradient's square.
        eps: Constant that is added to the root of that mean.
        momentum: Momentum of the normalised gradient's running sum.
        weight_decay: Factor of the L2 penalty.
    """

    alpha: float = 0.99
    eps: float = 1e-8
    momentum: float = 0.0
    weight_decay: float = 0.0


@dataclass(frozen=True, kw_only=True)
class LARS(Optimizer):
    """SGD whose rate is scaled for each tensor by the norms of weight and gradient (You et al. 2017, arXiv:1708.03888).

    Biases and batch norm get neither the scaling nor weight decay, as in SimCLR and after.

    Attributes:
        lr: Learning rate after warmup and before the first drop.
        momentum: Momentum of the gradient's running sum.
        weight_decay: Factor of the L2 penalty on weights.
        trust: Trust coefficient.
        bias_lr: Learning rate of biases and batch norm, which follows the same schedule; None for the same rate.
    """

    scales_with_batch: ClassVar[bool] = True

    momentum: float = 0.9
    weight_decay: float = 1e-6
    trust: float = 0.001
    bias_lr: float | None = None

    def with_lr(self, lr: float) -> "LARS":
        """See the base class."""
        bias_lr = None if self.bias_lr is None else self.bias_lr * lr / self.lr
        return replace(self, lr=lr, bias_lr=bias_lr)


Hold = Literal["epochs", "samples", "steps"]
Decay = Literal["drops", "cosine", "linear", "exponential"]


@dataclass(frozen=True)
class LRSchedule:
    """The learning rate, a pure function of the samples seen.

    Attributes:
        lr: Rate after warmup and before any decay.
        warmup: Samples over which the rate rises linearly from 0.
        drops: Samples seen at which the rate is divided by 10.
        decay: "drops" for these alone, or the curve from `lr` at the end of warmup to `last_lr` at the end of training.
        last_lr: Rate at the end of a curve.
        end: Samples of the whole training.
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
    """How a network is trained.

    Attributes:
        length: Length of the whole training ("90ep", "2500it", "3840000samples").
        batch_size: Images in a global batch, all processes together.
        ghost_batch: Images of a batch whose statistics batch norm takes together in training, as a GPU's were in the
            papers; None for the whole batch, however many processes share it.
        optimizer: Optimiser with its learning rate and weight decay.
        warmup: Length over which the learning rate rises linearly from 0.
        drops: When the learning rate is divided by 10.
        decay: How the learning rate falls after warmup: at the drops, or along a curve down to the last rate.
        last_lr: Learning rate at the end of a curve.
        clip: Largest norm of the gradient of all weights together; a longer one is scaled down. None never does.
        layer_decay: What the learning rate of a layer is of that of the next one, from the heads down (Bao et al. 2022,
            BEiT, https://arxiv.org/abs/2106.08254); layers are counted as timm counts them. 1 for one rate.
        drop_path: Probability with which the last block of a network is left out for an image in training, which falls
            to 0 at the first (Huang et al. 2016, https://arxiv.org/abs/1603.09382); momentum encoders leave out none.
            For timm's networks.
        hold: What stays as on all images where a subset is taken: the number of epochs, of samples seen, or of steps.
            For the last two, lengths in epochs (with warmup, drops and the rewind point) are written out as those of
            all images.
        hold_batch: Images of the batch whose number of steps is held; None for that of the training.
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
    layer_decay: float = field(default=1.0, metadata=registry.OMIT_DEFAULT)
    drop_path: float = field(default=0.0, metadata=registry.OMIT_DEFAULT)
    hold: Hold = field(default="epochs", metadata=registry.OMIT_DEFAULT)
    hold_batch: int | None = field(default=None, metadata=registry.OMIT_DEFAULT)

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise BadInput(f"--batch-size must be at least 1, got {self.batch_size}")
        self._check_ghosts()
        if Span.parse(self.length, "--length").unit == "%":
            raise BadInput(
                f"--length must be in epochs, steps or samples, got {self.length}; write it like 90ep, 2500it or "
                "100000samples"
            )
        if not isinstance(self.optimizer, Optimizer):
            raise BadInput(f"an optimizer must be an Optimizer such as SGD(lr=0.1), got {self.optimizer!r}")
        if not self.optimizer.lr > 0:
            raise BadInput(f"--lr must be above 0, got {self.optimizer.lr:g}")
        if self.decay != "drops" and self.drops:
            raise BadInput(
                f"--drops must be empty with --decay {self.decay}, got {' '.join(self.drops)}; give --decay drops"
            )
        if not 0 <= self.last_lr < self.optimizer.lr or (self.decay == "exponential" and self.last_lr == 0):
            raise BadInput(
                f"--last-lr must be above 0 and below --lr {self.optimizer.lr:g} to end a {self.decay} decay, got "
                f"{self.last_lr:g}"
            )
        if self.hold not in get_args(Hold):
            raise BadInput(f"--hold must be {', '.join(get_args(Hold))}, got {self.hold!r}; give one of them")
        if self.hold_batch is not None and self.hold_batch < 1:
            raise BadInput(f"--hold-batch must be at least 1, got {self.hold_batch}")
        if self.clip is not None and not self.clip > 0:
            raise BadInput(f"--clip must be above 0, got {self.clip:g}")
        if not 0 < self.layer_decay <= 1:
            raise BadInput(f"--layer-decay must be in (0, 1], got {self.layer_decay:g}; give 1 for one learning rate")
        if not 0 <= self.drop_path < 1:
            raise BadInput(f"--drop-path must be in [0, 1), got {self.drop_path:g}; give 0 to keep all blocks")
        Span.parse(self.warmup, "--warmup")
        for drop in self.drops:
            Span.parse(drop, "--drops")

    def _check_ghosts(self) -> None:
        if self.ghost_batch is None:
            return
        if self.ghost_batch < 2:
            raise BadInput(f"--ghost-batch must be 2 or more, got {self.ghost_batch}; one image has no statistics")
        if self.ghost_batch >= self.batch_size:
            object.__setattr__(self, "ghost_batch", None)  # which is the same, and has one key
        elif self.batch_size % self.ghost_batch:
            raise BadInput(
                f"--batch-size must be a multiple of --ghost-batch {self.ghost_batch}, got {self.batch_size}; change "
                "one of them"
            )

    @classmethod
    def from_dict(cls, tree: Mapping[str, Any], parts: Mapping[str, Any] | None = None) -> "TrainConfig":
        """The training that a recipe's JSON values describe; those of earlier versions may lack later fields.

        Args:
            tree: The values.
            parts: Users' own optimisers by the names of their classes, see `registry.load_recorded_parts`.

        Raises:
            BadInput: If an optimiser or a field is unknown, or a value cannot be.
        """
        return registry.settings_from_json(tree, {"Fit": cls}, "training", parts)

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
        """The same training with the rate of its last step throughout; each tensor keeps its fraction of it."""
        clock = self.clock(set_size)
        last = self.schedule(set_size).lr_at(clock.total_steps * clock.batch_size)
        optimizer = self.optimizer.at_end().with_lr(last)
        return replace(self, optimizer=optimizer, warmup="0ep", drops=(), decay="drops", last_lr=0.0)

    @property
    def held_batch(self) -> int:
        """Images of the batch whose number of steps may be held."""
        return self.hold_batch or self.batch_size

    @property
    def holds_all(self) -> bool:
        """Whether lengths are held on all images, too: the steps of another batch."""
        return self.hold == "steps" and self.held_batch != self.batch_size

    def hold_span(self, text: str, set_size: int) -> str:
        """A length in epochs as the samples or steps of so many on a set of this size; others as they are."""
        span = Span.parse(text)
        if span.unit != "ep" or not span.amount or self.hold == "epochs":
            return text
        clock = Clock(span, self.held_batch, set_size)
        return f"{clock.total_steps}it" if self.hold == "steps" else f"{round(clock.samples(span))}samples"

    def hold_lengths(self, set_size: int) -> "TrainConfig":
        """The same training with lengths in epochs written out as those on a set of this size, by the rule `hold`.

        What it says then stays, whatever subset is taken; the rule is no part of it any more.
        """
        return replace(
            self,
            length=self.hold_span(self.length, set_size),
            warmup=self.hold_span(self.warmup, set_size),
            drops=tuple(self.hold_span(drop, set_size) for drop in self.drops),
            hold="epochs",
            hold_batch=None,
        )

    def scaled_to_batch(self, batch_size: int) -> "TrainConfig":
        """The same training with the rate for another batch: of SGD and LARS it grows as the batch does.

        So a step goes as far for an image whatever the batch (Goyal et al. 2017, section 2.1, arXiv:1706.02677; You et
        al. 2017, arXiv:1708.03888). Steps of Adam and RMSprop do not grow with the gradient, and keep their rate.

        Args:
            batch_size: Images in a global batch, which is not taken over; below 1 there is no rate for it.
        """
        if not self.optimizer.scales_with_batch or batch_size < 1 or batch_size == self.batch_size:
            return self

        def scaled(rate: float) -> float:
            return float(f"{rate * batch_size / self.batch_size:.3g}")  # so that it can be typed as it is printed

        optimizer = self.optimizer.with_lr(scaled(self.optimizer.lr))
        if isinstance(optimizer, LARS) and isinstance(self.optimizer, LARS) and self.optimizer.bias_lr is not None:
            optimizer = replace(optimizer, bias_lr=scaled(self.optimizer.bias_lr))
        return replace(self, optimizer=optimizer, last_lr=scaled(self.last_lr))

    def with_length(self, length: str) -> "TrainConfig":
        """The same training at another length: warmup and drops keep their fraction of it where the units allow."""
        whole = Span.parse(self.length)

        def rescaled(text: str) -> str:
            span = Span.parse(text)
            return f"{100 * span.amount / whole.amount:.10g}%" if span.unit == whole.unit and whole.amount else text

        drops = tuple(rescaled(drop) for drop in self.drops)
        return replace(self, length=length, warmup=rescaled(self.warmup), drops=drops)
