"""The fixed evaluation settings; never on the command line, for a protocol that can be bent is no yardstick.

Each protocol trains a ticket from its W_k, whatever found the ticket: the whole schedule, or the part of it that lies
after the rewind point. What makes a difference is in the name: `cifar10-sgd` and `cifar10-adam` are two protocols,
`cifar10` and `cifar10@k` are one with two clocks. The name of a protocol from outside the package ends in a hash of all
its settings.

The papers: Finding Winning Tickets with Limited (or No) Supervision; One ticket to win them all
(https://arxiv.org/abs/1906.02773); Stabilizing the Lottery Ticket Hypothesis (https://arxiv.org/abs/1903.01611);
Winning the Lottery with Continuous Sparsification (https://arxiv.org/abs/1912.04427).
"""

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Literal, get_args

from sslticket.config.recipe import RecipeRecord
from sslticket.config.training import SGD, Adam, AdamW, Optimizer, RMSprop, Span, TrainConfig
from sslticket.data.augment import View
from sslticket.data.datasets.base import Dataset, path_safe
from sslticket.data.datasets.catalogue import InputSpec, get_dataset, is_own_dataset
from sslticket.errors import BadInput, one_line, unknown_name
from sslticket.evaluation import PROTOCOLS
from sslticket.registry import settings_hash, settings_to_json

Half = Literal["a", "b"]
Start = Literal["0", "k"]
OWN_PROTOCOL = "own"
"""The name of the protocol that is each ticket's own recipe."""


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """One supervised evaluation.

    Attributes:
        name: Name on the command line and in rows.
        dataset: Data set that is trained on its training split and measured on its whole evaluation split.
        half: Half of the training split that is trained on; None for the whole.
        models: Networks that the protocol is for; empty for any.
        training: How every network is trained.
        training_by_model: How some networks are trained otherwise, by their names.
        start: Where the schedule starts: "0", so that W_k is trained for all T steps, or "k", at the rewind point, so
            that T - k steps are left.
        image_size: Side in pixels of what the network sees; None for the data set's own.
        train: View of an image in training; None for the data set's own.
        eval: View of an image when it is measured; None for the data set's own.
        early_sizes: Sides in pixels of what the network sees before that, each with the length of training up to which
            it does: (("12ep", 160),). Small images at first cost less (Howard 2018, Tan and Le 2021,
            https://arxiv.org/abs/2104.00298).
        label_smoothing: Share of each target that is spread evenly over all classes.
        seeds: Seeds that are taken when none are asked for; they vary head, order, augmentation and random tickets.
        part: What the images are if they are not the whole official set; a row's target names it, and it is no setting.
    """

    name: str
    dataset: str
    half: Half | None = None
    models: tuple[str, ...] = ()
    training: TrainConfig
    training_by_model: Mapping[str, TrainConfig] = field(default_factory=dict, hash=False)
    start: Start = "0"
    image_size: int | None = None
    train: View | None = None
    eval: View | None = None
    early_sizes: tuple[tuple[str, int], ...] = ()
    label_smoothing: float = 0.0
    seeds: tuple[int, ...] = tuple(range(6))
    part: str | None = None

    def __post_init__(self) -> None:
        for until, size in self.early_sizes:
            Span.parse(until, "early_sizes")
            if size < 1:
                raise BadInput(f"early_sizes must be sides of 1 pixel or more, got {size} until {until}; give more")
        if not 0 <= self.label_smoothing < 1:
            raise BadInput(f"label_smoothing must be in [0, 1), got {self.label_smoothing:g}; give 0 for none")

    @property
    def base(self) -> str:
        """The name without a clock: "cifar10" of "cifar10@k"."""
        return self.name.partition("@")[0]

    @property
    def spelling(self) -> str:
        """What `--protocol` takes for it: the name, or of a folder's protocol the folder with its settings."""
        if not self.dataset.startswith("folder:") or self.base == OWN_PROTOCOL:
            return self.name
        optimizer, batch = self.training.optimizer, self.training.batch_size
        kind = type(optimizer).__name__.lower()
        given = {
            "length": self.training.length,
            "image_size": self.input_size,
            "optimizer": kind,
            "batch_size": batch,
            "lr": None if optimizer.lr == _folder_training(kind, batch).optimizer.lr else optimizer.lr,
            "half": self.half,
        }
        return _spell_folder(self.dataset, given) + self.name[len(self.base) :]

    @property
    def spelling_field(self) -> dict[str, str]:
        """The spelling as rows have it: only where it is not the name."""
        return {} if self.spelling == self.name else {"protocol_given": self.spelling}

    @property
    def label(self) -> str:
        """The name with that of the part, for names of files: rows on a part and on the whole set lie side by side."""
        return self.label_for(self.name)

    def label_for(self, name: str) -> str:
        """A name with that of the part."""
        return name if self.part is None else f"{name}-{path_safe(self.part)}"

    def accepts(self, model: str) -> bool:
        """Whether the protocol is for this network."""
        return not self.models or model in self.models

    def training_for(self, model: str) -> TrainConfig:
        """How a network is trained under this protocol.

        Raises:
            BadInput: If it is for other networks, naming the protocols of these images that are for this one.
        """
        if not self.accepts(model):
            images = (self.dataset, self.half)
            same = [each for each in BUILT_IN_PROTOCOLS if (each.dataset, each.half) == images and each.accepts(model)]
            raise BadInput(
                f"protocol {self.name} is for {' or '.join(self.models)}, not for {model}; give --protocol "
                f"{' or '.join([*(each.name for each in same), OWN_PROTOCOL])}"
            )
        return self.training_by_model.get(model, self.training)

    def steps(self, model: str, rewind_samples: int | None, images: int) -> tuple[int, int]:
        """The optimiser steps at which the training of a ticket starts and stops.

        Args:
            model: Network of the ticket.
            rewind_samples: Source images that its W_k has seen; None where that is unknown.
            images: Images in the training split, or in its half.

        Raises:
            BadInput: If the protocol is for other networks, or if its schedule starts at W_k and ends before.
        """
        clock = self.training_for(model).clock(images)
        if self.start == "k" and rewind_samples is None:
            raise BadInput(
                f"{self.name} starts its schedule at the rewind point, and nobody knows the ticket's; give --protocol "
                f"{self.base}@0, or import it with --rewind-samples"
            )
        start = clock.steps(Span(rewind_samples or 0, "samples")) if self.start == "k" else 0
        self.size_spans(model, images)  # which checks them
        if start >= clock.total_steps:
            raise BadInput(
                f"a ticket that is rewound to {rewind_samples or 0:,} samples is at step {start:,} of {self.name}, "
                f"which has {clock.total_steps:,} steps; give a longer --protocol, --protocol {self.base}@0, or search "
                "with an earlier --rewind"
            )
        return start, clock.total_steps

    def size_spans(self, model: str, images: int) -> tuple[tuple[int, int], ...]:
        """What the network sees when: the optimiser steps up to which, each with the images' side in pixels.

        Args:
            model: Network of the ticket.
            images: Images in the training split, or in its half.

        Raises:
            BadInput: If the protocol is for other networks, or one size does not end after the one before it, and
                before the training ends.
        """
        clock = self.training_for(model).clock(images)
        spans = (*((clock.steps(Span.parse(until)), size) for until, size in self.early_sizes),)
        spans = (*spans, (clock.total_steps, self.input_size))
        ends = [0, *(end for end, _ in spans)]
        if any(end >= following for end, following in pairwise(ends)):
            told = ", ".join(f"{size} until {until}" for until, size in self.early_sizes)
            raise BadInput(
                f"early_sizes must end one after the other and before the training of {clock.total_steps:,} steps "
                f"does, got {told}, which is at steps {', '.join(f'{end:,}' for end in ends[1:-1])}; give other lengths"
            )
        return spans

    @property
    def size_schedule(self) -> str | None:
        """The sizes of the images in training, for rows: "160 until 12ep, then 192"; None where there is one."""
        if not self.early_sizes:
            return None
        return f"{', '.join(f'{size} until {until}' for until, size in self.early_sizes)}, then {self.input_size}"

    def views(self, dataset: Dataset) -> tuple[View, View]:
        """What the network sees of the data set's images: in training, and when it is measured."""
        train, evaluation = self.train or dataset.train_view, self.eval or dataset.eval_view
        return train.at_size(self.image_size), evaluation.at_size(self.image_size)

    @property
    def input_size(self) -> int:
        """Side in pixels of what the network sees in training, at its end where that changes."""
        return self.views(get_dataset(self.dataset))[0].size

    def hash_for(self, model: str) -> str:
        """8 hexadecimal digits over all settings that decide a network's training; the name is none of them.

        A setting that is off (None, False, 0 or empty) is left out, so that one that a later version adds, off by
        default, leaves the hash as it is.
        """
        return settings_hash(_without_unset(self._settings() | {"fit": settings_to_json(self.training_for(model))}))

    def pinned(self) -> "Protocol":
        """The protocol under a name that ends in a hash of its settings, unless it is built in.

        So no rows of one name are about two settings: a protocol that is changed has another name.

        Raises:
            BadInput: If the name cannot stand in the name of a file.
        """
        built_in = _BY_NAME.get(self.base)
        if built_in is not None and self in (built_in, replace(built_in, name=self.name, start=self.start)):
            return self
        if not re.fullmatch(r"[A-Za-z0-9_][\w.+-]*", self.base):
            raise BadInput(f"a protocol's name must be of letters, digits and _ . + -, got {self.base!r}; rename it")
        by_model = {model: settings_to_json(each) for model, each in sorted(self.training_by_model.items())}
        training = {"fit": settings_to_json(self.training), "fits": by_model, "models": list(self.models)}
        ending = f"-{settings_hash(_without_unset(self._settings() | training))}"
        return self if self.base.endswith(ending) else replace(self, name=f"{self.base}{ending}")

    def _settings(self) -> dict[str, Any]:
        dataset = get_dataset(self.dataset)
        train, evaluation = self.views(dataset)
        views = {"train": settings_to_json(train), "eval": settings_to_json(evaluation)}
        normalization = {"mean": settings_to_json(dataset.mean), "std": settings_to_json(dataset.std)}
        extra = {"early_sizes": settings_to_json(self.early_sizes), "label_smoothing": self.label_smoothing}
        return {"dataset": self.dataset, "half": self.half, "start": self.start, **views, **normalization, **extra}


_ON_AT_ZERO = ("last_weight_decay",)
"""Settings of which 0 says something else than None."""


def _without_unset(tree: Any) -> Any:
    """JSON values without the fields that are off."""
    if isinstance(tree, list):
        return [_without_unset(value) for value in tree]
    if not isinstance(tree, dict):
        return tree
    on = {name: value for name, value in tree.items() if value or (value is not None and name in _ON_AT_ZERO)}
    return {name: _without_unset(value) for name, value in on.items()}


# Finding Winning Tickets with Limited (or No) Supervision, Appendix A: "ImageNet Labels - full dataset".
IMAGENET = Protocol(
    name="imagenet",
    dataset="imagenet",
    training=TrainConfig(
        length="90ep",
        batch_size=1536,
        ghost_batch=96,
        optimizer=SGD(lr=0.1, weight_decay=1e-4),
        drops=("50ep", "65ep", "80ep"),
    ),
    training_by_model={
        "alexnet": TrainConfig(
            length="90ep",
            batch_size=4096,
            ghost_batch=512,
            optimizer=SGD(lr=0.4, weight_decay=1e-4),
            drops=("30ep", "60ep"),
        )
    },
)

# The same, "CIFAR-10 Labels".
CIFAR10 = Protocol(
    name="cifar10",
    dataset="cifar10",
    training=TrainConfig(
        length="160ep", batch_size=512, optimizer=Adam(lr=1e-3, weight_decay=1e-4), drops=("80ep", "120ep")
    ),
)

# One ticket to win them all, section 4.2: tickets of one half of the training images, scored on the other. The fit is
# the whole set's, so each has half as many steps.
CIFAR10A = replace(CIFAR10, name="cifar10a", half="a")
CIFAR10B = replace(CIFAR10, name="cifar10b", half="b")

# The same, "Places365 Labels"; one more of its sources of tickets, here as a target.
PLACES365 = Protocol(
    name="places365",
    dataset="places365",
    training=replace(IMAGENET.training, batch_size=2048, ghost_batch=128),
)

# Stabilizing the Lottery Ticket Hypothesis, Figure 2: LeNet on MNIST.
MNIST = Protocol(
    name="mnist",
    dataset="mnist",
    training=TrainConfig(length="50000it", batch_size=60, optimizer=Adam(lr=1.2e-3, weight_decay=0.0)),
    start="k",
)

# The same on the images that are as small and harder; what a newcomer can run to its end on two processor cores. The
# data set and so the clock are ours: for all steps, as under most protocols.
FASHION_MNIST = replace(MNIST, name="fashion_mnist", dataset="fashion_mnist", start="0")

# One ticket to win them all, Appendix A.1. Networks that it does not have are trained as its VGG-19. The small images'
# augmentation is that of its reproducibility report (section 3.3): on all four sets, flips and 32-pixel crops of the
# image padded by 4; Fashion-MNIST's 28 pixels get a black margin when measured.
_MORCOS_OPTIMIZERS: Mapping[str, Optimizer] = {
    "sgd": SGD(lr=0.1, weight_decay=1e-4),
    "adam": Adam(lr=3e-4, weight_decay=1e-4),
}
_CROPPED_32, _PLAIN_32 = View(size=32, crop="pad", pad=4, flip=True), View(size=32)


def _morcos(dataset: str, optimizer: str, half: Half | None = None) -> Protocol:
    large = dataset in ("imagenet", "places365")
    # "Batch sizes of 512 parallelized across" 16 GPUs for the large images, and 2 for the small ones.
    ghost, chosen = 512 // (16 if large else 2), _MORCOS_OPTIMIZERS[optimizer]
    vgg19 = TrainConfig(length="160ep", batch_size=512, ghost_batch=ghost, optimizer=chosen, drops=("80ep", "120ep"))
    return Protocol(
        name=f"{dataset}{half or ''}-{optimizer}",
        dataset=dataset,
        half=half,
        training=vgg19,
        training_by_model={"resnet50": replace(vgg19, length="90ep", drops=("50ep", "65ep", "80ep"))},
        train=None if large else _CROPPED_32,
        eval=None if large else _PLAIN_32,
    )


_MORCOS_TARGETS: tuple[tuple[str, Half | None], ...] = (
    *(("fashion_mnist", None), ("svhn", None), ("cifar10", None), ("cifar10", "a"), ("cifar10", "b")),
    *(("cifar100", None), ("imagenet", None), ("places365", None)),
)
MORCOS = tuple(
    _morcos(dataset, optimizer, half) for optimizer in _MORCOS_OPTIMIZERS for dataset, half in _MORCOS_TARGETS
)


# Any folder of one's own: the training that One ticket to win them all has for every data set, with either optimiser.
# Its 90 epochs with drops after 5, 6.5 and 8 ninths are those of large images; the batch is ours, since a folder has
# thousands of photographs where ImageNet has a million, with SGD's rate in proportion.
# With AdamW the warmup and rate are DeiT's (see below) for the same 90 epochs, and the rate falls along a cosine to 0.
_FOLDER_BATCH = 64
_FOLDER_OPTIMIZERS = (*_MORCOS_OPTIMIZERS, "adamw")
_FOLDER_SETTINGS = ("length", "image_size", "optimizer", "batch_size", "lr", "half")


def _folder_training(optimizer: str, batch: int) -> TrainConfig:
    if optimizer == "adamw":
        rate = float(f"{_DEIT.optimizer.lr * batch / _DEIT.batch_size:.3g}")
        fit = replace(_DEIT, length="90ep", batch_size=batch, last_lr=0.0, drop_path=0.0)
        return replace(fit, optimizer=_DEIT.optimizer.with_lr(rate))
    usual = _morcos("imagenet", optimizer).training_for("resnet50")
    return replace(usual.scaled_to_batch(batch), batch_size=batch, ghost_batch=None)


def _spell_folder(dataset: str, settings: Mapping[str, object]) -> str:
    return ",".join([dataset, *(f"{name}={value}" for name, value in settings.items() if value is not None)])


def folder_protocol(name: str) -> Protocol:
    """Return the protocol of a folder of one's own, under a name that ends in a hash of its settings.

    Args:
        name: Name of the data set, "folder:NAME", and settings in place of the usual ones, each after a comma:
            "folder:flowers,length=30ep,image_size=64,optimizer=adam,batch_size=32,lr=0.001,half=a".

    Raises:
        BadInput: If a setting is unknown, or a value cannot be.
    """
    found = re.fullmatch(r"(folder:.*?)((?:,[a-z_]+=[^,]*)*)", name, re.DOTALL)
    assert found, f"{name} begins with folder:"
    dataset = get_dataset(found[1])
    words = [word.split("=", 1) for word in found[2].split(",")[1:]]
    given = dict(words)
    if len(given) < len(words):
        raise BadInput(f"each setting of a folder's protocol must be given once, got {name}; leave out what is twice")
    if unknown := [key for key in given if key not in _FOLDER_SETTINGS]:
        raise BadInput(
            f"the protocol of a folder takes {', '.join(_FOLDER_SETTINGS)}, got {unknown[0]} in {name}; write it like "
            f"{dataset.name},length=30ep,image_size=64"
        )
    half = next((which for which in get_args(Half) if which == given.get("half")), None)
    if half != given.get("half"):
        raise BadInput(f"half must be a or b, got {given['half']} in {name}; give half=a")
    optimizer = given.get("optimizer", "sgd")
    if optimizer not in _FOLDER_OPTIMIZERS:
        raise BadInput(f"optimizer must be {', '.join(_FOLDER_OPTIMIZERS)}, got {optimizer} in {name}; give one")
    size = None if "image_size" not in given else _whole_number(given, "image_size", name)
    batch = _whole_number(given, "batch_size", name) if "batch_size" in given else _FOLDER_BATCH
    training = _folder_training(optimizer, batch)
    if "lr" in given:
        training = replace(training, optimizer=training.optimizer.with_lr(_rate(given["lr"], name)))
    if "length" in given:
        if Span.parse(given["length"], f"length in {name}").amount <= 0:
            raise BadInput(f"length must be above 0, got {given['length']} in {name}; give length=30ep")
        training = training.with_length(given["length"])
    side = size or dataset.train_view.size
    own = f"{path_safe(dataset.folder_name) or 'folder'}{half or ''}"
    return Protocol(
        name=f"{own}-{training.length}-{side}px-{optimizer}",
        dataset=dataset.name,
        half=half,
        training=training,
        image_size=size,
    ).pinned()


def _whole_number(given: Mapping[str, str], key: str, name: str) -> int:
    text = given[key]
    if not text.isdecimal() or int(text) < 1:
        raise BadInput(f"{key} must be a whole number from 1 on, got {text or 'nothing'} in {name}; give {key}=64")
    return int(text)


def _rate(text: str, name: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise BadInput(f"lr must be a number, got {text or 'nothing'} in {name}; give lr=0.01") from None


def _single_model_protocol(
    name: str, fit: TrainConfig, train: View | None = None, *, start: Start = "k", image_size: int | None = None
) -> Protocol:
    """A paper's training of one network; DATASET-MODEL is its name, and what tells it from others of that."""
    where, model = name.split("-")[:2]
    # What the papers crop from a margin or leave as it is has the images' own size.
    shown = None if train is None else _PLAIN_32
    return Protocol(
        name=name,
        dataset=where,
        models=(model,),
        training=fit,
        start=start,
        image_size=image_size,
        train=train,
        eval=shown,
    )


def _sgd(lr: float, weight_decay: float = 1e-4) -> SGD:
    return SGD(lr=lr, weight_decay=weight_decay)


# Stabilizing the Lottery Ticket Hypothesis, figures 2 and 6: "we train a subnetwork rewound to iteration k for T* - k
# iterations". Its "Resnet-18" of 274K weights is the 20-layer ResNet. Figure 2 has the drops of the two networks in
# each other's rows (56K lies beyond 30K). Weight decay, flips and shifts are those of the papers that it follows, see
# recipes/stabilizing_*.py.
_RESNET20 = TrainConfig(length="30000it", batch_size=128, optimizer=_sgd(0.1), drops=("20000it", "25000it"))
_VGG19 = TrainConfig(length="112000it", batch_size=64, optimizer=_sgd(0.1), drops=("56000it", "84000it"))
_RMSPROP = RMSprop(lr=0.66, alpha=0.9, eps=1.0, momentum=0.9)
STABILIZING = (
    _single_model_protocol("cifar10-resnet20", _RESNET20, _CROPPED_32),
    _single_model_protocol("cifar10-resnet20-low", replace(_RESNET20, optimizer=_sgd(0.01)), _CROPPED_32),
    _single_model_protocol(
        "cifar10-resnet20-warmup", replace(_RESNET20, optimizer=_sgd(0.03), warmup="20000it"), _CROPPED_32
    ),
    _single_model_protocol("cifar10-vgg19", _VGG19, _CROPPED_32),
    _single_model_protocol("cifar10-vgg19-low", replace(_VGG19, optimizer=_sgd(0.01)), _CROPPED_32),
    _single_model_protocol("cifar10-vgg19-warmup", replace(_VGG19, warmup="10000it"), _CROPPED_32),
    _single_model_protocol(
        "imagenet-resnet50",
        TrainConfig(length="90ep", batch_size=1024, optimizer=_sgd(0.4), warmup="5ep", drops=("30ep", "60ep", "80ep")),
    ),
    _single_model_protocol(
        "imagenet-inception_v3",
        TrainConfig(length="171ep", batch_size=1024, optimizer=_sgd(0.03, 4e-5), decay="linear", last_lr=0.005),
        image_size=299,
    ),
    _single_model_protocol(
        "imagenet-squeezenet1_0",
        TrainConfig(length="150ep", batch_size=1024, optimizer=_RMSPROP, decay="exponential", last_lr=6.6e-5),
    ),
)

# Winning the Lottery with Continuous Sparsification, sections 4.1 and 4.2. Tickets start from W_0 in Conv-6, and in its
# "ResNet-18", the same 20-layer one, from epoch 2. The paper does not say for how long they train; its authors' code
# does so for all 85 epochs. 100 epochs are those of its supermasks, whose weights it never trains: what training them
# for as long adds.
_CONV6 = TrainConfig(length="40ep", batch_size=60, optimizer=Adam(lr=3e-4, weight_decay=0.0))
_85EP = replace(_RESNET20, length="85ep", drops=("56ep", "71ep"))
CONTINUOUS = (
    _single_model_protocol("cifar10-conv6", _CONV6, _PLAIN_32, start="0"),
    _single_model_protocol("cifar10-conv6-100ep", replace(_CONV6, length="100ep"), _PLAIN_32, start="0"),
    _single_model_protocol("cifar10-resnet20-85ep", _85EP, _CROPPED_32, start="0"),
)

# Networks that do not train as the papers' do. What recipes/modern.py says of its recipes, which have these settings,
# holds here too. Their authors train the other sizes alike, but for the blocks that are left out of ConvNeXts.
_DEIT = TrainConfig(
    length="300ep",
    batch_size=1024,
    optimizer=AdamW(lr=1e-3, weight_decay=0.05, spare="tokens"),
    warmup="5ep",
    decay="cosine",
    last_lr=1e-5,
    drop_path=0.1,
)
_CONVNEXT = TrainConfig(
    length="300ep",
    batch_size=4096,
    optimizer=AdamW(lr=4e-3, weight_decay=0.05),
    warmup="20ep",
    decay="cosine",
    last_lr=1e-6,
    drop_path=0.1,
)
MODERN = (
    Protocol(
        name="imagenet-deit",
        dataset="imagenet",
        models=tuple(f"{kind}_{size}_patch16_224" for kind in ("vit", "deit") for size in ("tiny", "small", "base")),
        training=_DEIT,
        label_smoothing=0.1,
    ),
    Protocol(
        name="imagenet-convnext",
        dataset="imagenet",
        models=("convnext_tiny", "convnext_small", "convnext_base"),
        training=_CONVNEXT,
        training_by_model={
            "convnext_small": replace(_CONVNEXT, drop_path=0.4),
            "convnext_base": replace(_CONVNEXT, drop_path=0.5),
        },
        label_smoothing=0.1,
    ),
)

# A fifth to a twentieth of the training of the protocols above, for campaigns in which tickets are ranked rather than
# measured. ImageNet: the 16 epochs of ffcv-imagenet (Leclerc et al. 2023, https://arxiv.org/abs/2306.12517;
# rn50_configs/rn50_16_epochs.yaml): 512 images on each of 8 GPUs, a rate that rises for two epochs and falls to 0 along
# lines, 160 pixels for the first twelve epochs and 192 for the last four, measured at 256 of 293 pixels. Left out is
# what changes the network or the measurement (blurred strides, two mirrored views); weight decay is on all weights.
IMAGENET_FAST = Protocol(
    name="imagenet-fast",
    dataset="imagenet",
    training=TrainConfig(
        length="16ep",
        batch_size=4096,
        ghost_batch=512,
        optimizer=SGD(lr=1.7, weight_decay=1e-4),
        warmup="2ep",
        decay="linear",
    ),
    train=View(size=192, crop="resized", flip=True),
    eval=View(size=256, resize=293),
    early_sizes=(("12ep", 160),),
    label_smoothing=0.1,
)

# CIFAR-10 in the manner of airbench94 (Jordan 2024, https://arxiv.org/abs/2404.00498): its length, batch, Nesterov's
# momentum, label smoothing, shifts of 2 pixels, and a rate that rises for 23% of the training and falls along a line to
# 7%. The rate is that of `cifar10-resnet20`, 0.1 for 128 images, in proportion to the batch, the weight decay that of
# ffcv's example for CIFAR-10: airbench's 1.5 and 1.33e-3 are for a network that divides its logits by 9 and has no
# scales in batch norm.
CIFAR10_FAST = Protocol(
    name="cifar10-fast",
    dataset="cifar10",
    training=TrainConfig(
        length="9.9ep",
        batch_size=1024,
        optimizer=SGD(lr=0.8, momentum=0.9, weight_decay=5e-4, nesterov=True),
        warmup="23%",
        decay="linear",
        last_lr=0.056,
    ),
    train=View(size=32, crop="pad", pad=2, flip=True),
    eval=_PLAIN_32,
    label_smoothing=0.2,
)

FAST = (IMAGENET_FAST, CIFAR10_FAST)

# Small enough for a demonstration on two processor cores; our own settings.
DIGITS_DEMO = Protocol(
    name="digits-demo",
    dataset="digits",
    training=TrainConfig(
        length="200it", batch_size=128, optimizer=Adam(lr=3e-3, weight_decay=0.0), drops=("140it", "180it")
    ),
)
FASHION_MNIST_DEMO = replace(DIGITS_DEMO, name="fashion_mnist-demo", dataset="fashion_mnist", image_size=12)

# Transfer on two processor cores, each with Adam and with SGD; our own settings.
_FEW_STEPS = TrainConfig(
    length="200it", batch_size=64, optimizer=Adam(lr=3e-3, weight_decay=1e-4), drops=("140it", "180it")
)


def _small_protocols(dataset: str, half: Half | None = None) -> tuple[Protocol, Protocol]:
    name = f"{dataset}{half or ''}-small"
    adam = Protocol(name=name, dataset=dataset, half=half, training=_FEW_STEPS, image_size=16)
    fit = replace(_FEW_STEPS, optimizer=_MORCOS_OPTIMIZERS["sgd"])
    return adam, replace(adam, name=f"{name}-sgd", training=fit)


SMALL = (
    *_small_protocols("cifar10"),
    *_small_protocols("cifar10", "a"),
    *_small_protocols("cifar10", "b"),
    *_small_protocols("fashion_mnist"),
)


def _trial_protocol(protocol: Protocol) -> Protocol:
    """Six steps of eight images: shows that everything runs before a cluster is booked; its scores mean nothing."""
    fit = replace(protocol.training.with_length("6it").scaled_to_batch(8), batch_size=8)
    return replace(protocol, name=f"{protocol.name}-trial", training=fit, training_by_model={}, seeds=(0,))


# Of each data set the main paper's comes first: a search proposes it where none has the search's own settings.
BUILT_IN_PROTOCOLS = (
    *(IMAGENET, PLACES365, CIFAR10, CIFAR10A, CIFAR10B, MNIST, FASHION_MNIST),
    *(DIGITS_DEMO, FASHION_MNIST_DEMO, *SMALL, *MORCOS, *STABILIZING, *CONTINUOUS, *MODERN, *FAST),
)
_TRIALS = (_trial_protocol(IMAGENET), _trial_protocol(CIFAR10))
_BY_NAME = {protocol.name: protocol for protocol in (*BUILT_IN_PROTOCOLS, *_TRIALS)}


def find_protocol(name: str) -> Protocol:
    """The protocol of a name; "NAME@k" and "NAME@0" have its settings and that clock.

    Args:
        name: Name of a built-in protocol, "FILE.py:NAME", "package.module:NAME", that of an entry point, or
            "folder:NAME", see `folder_protocol`. A protocol that is not built in is pinned, see `Protocol.pinned`.

    Raises:
        BadInput: If there is none, naming the nearest ones; or for "own", which every ticket has another of.
    """
    base, clock = _split_clock(name)
    if base == OWN_PROTOCOL:
        raise BadInput(
            f"protocol {name} is each ticket's own recipe, and no ticket is given here; give a protocol's name, such "
            "as --protocol cifar10"
        )
    if base in _BY_NAME:
        return _with_clock(_BY_NAME[base], clock)
    if base.startswith("folder:"):
        return _with_clock(folder_protocol(base), clock)
    try:
        found = PROTOCOLS.get(base)
    except BadInput:
        if ":" in base:
            raise
        # A data set has several: its own are what was meant, however near another's name is.
        same_data = [known for known in _BY_NAME if known.startswith(f"{base}-")]
        raise unknown_name("protocol", base, same_data or [*_BY_NAME, *PROTOCOLS.names()]) from None
    return _with_clock(found.pinned(), clock)


def resolve_protocol(name: str, recipe: Mapping[str, Any]) -> Protocol:
    """The protocol of a name for a ticket; "own" and "own@k" are its recipe's.

    Args:
        name: Name as `find_protocol` takes it, or "own".
        recipe: Recipe of the ticket, as `Recipe.to_dict` gives it.

    Raises:
        BadInput: See `find_protocol` and `own_protocol`.
    """
    base, clock = _split_clock(name)
    return _with_clock(own_protocol(recipe), clock) if base == OWN_PROTOCOL else find_protocol(name)


def _split_clock(name: str) -> tuple[str, str | None]:
    base, at, clock = name.rpartition("@")
    return (base, clock) if at and not re.search("[:/]", clock) else (name, None)


def _with_clock(protocol: Protocol, clock: str | None) -> Protocol:
    """The protocol with a clock; with its own one, it keeps its plain name: rows have one name."""
    if clock is None or clock == protocol.start:
        return protocol
    start = next((known for known in get_args(Start) if known == clock), None)
    if start is None:
        name = protocol.name
        raise BadInput(f"a protocol must start at 0 or k, got {name}@{clock}; give {name}@0 or {name}@k")
    return replace(protocol, name=f"{protocol.name}@{clock}", start=start)


def own_protocol(recipe: Mapping[str, Any]) -> Protocol:
    """A recipe's own training, with class labels, on all training images of its data set, or of its part or half.

    The training view is the recipe's, the first where it has one for each copy of an image, else the data set's
    standard one. Measured is what that view shows without chance: the data set's evaluation view, or, of a view that
    keeps the image's scale, the plain crop. Both have the recipe's size.

    Args:
        recipe: Recipe as `Recipe.to_dict` gives it, or gave it in an earlier version.

    Raises:
        BadInput: If the recipe has settings that are unknown here, or lacks some.
    """
    record = RecipeRecord(recipe)
    try:
        training = record.training
        data, dataset = record.data, get_dataset(record.data.dataset)
        train = data.augment[0] if isinstance(data.augment, tuple) else data.augment
        if train is None and record.view_size is not None:
            raise BadInput("its view has a transform that is unknown here")
        evaluation = None if train is None else View(size=train.size, resize=train.resize)
        if train is not None and train.crop == "resized":
            evaluation = dataset.eval_view.at_size(train.size)
        return Protocol(
            name=OWN_PROTOCOL,
            dataset=dataset.name,
            part=data.part,
            half=data.half,
            training=training,
            image_size=data.image_size,
            train=train,
            eval=evaluation,
            label_smoothing=record.label_smoothing,
        )
    except (BadInput, KeyError, TypeError, AttributeError, IndexError) as error:
        raise BadInput(
            f"--protocol {OWN_PROTOCOL} cannot follow the ticket's recipe ({one_line(error)}); give another --protocol"
        ) from error


def propose_protocol(recipe: Mapping[str, Any], *, trial: bool = False) -> Protocol | None:
    """The protocol under which to score a search's tickets; None where no protocol takes them.

    The published protocol that has the search's own training, if there is one. Else, where the search trained with the
    true labels of all images, its own; and otherwise the main paper's protocol of the data set, or the next that takes
    the network, those of its image size before others. Tickets of one half are scored on the other. Of a folder of
    one's own it is always that folder's protocol with the search's length and image size, so that whatever is searched
    there is scored alike; of another set of one's own, the search's training.

    Args:
        recipe: Recipe of the search, as `Recipe.to_dict` gives it.
        trial: Whether it was a trial, after which a protocol of as few steps is proposed.
    """
    record, inputs = RecipeRecord(recipe), InputSpec.from_recipe(recipe)
    data, model = record.data, record.model
    others: dict[Half | None, Half | None] = {None: None, "a": "b", "b": "a"}
    half = others[data.half]
    here = [each for each in BUILT_IN_PROTOCOLS if (each.dataset, each.half) == (data.dataset, half)]
    here = [each for each in here if each.accepts(model)]
    if inputs is None:
        return None
    if data.dataset.startswith("folder:"):
        return _folder_proposal(record, inputs, half, trial)
    if trial:
        short = _BY_NAME.get(f"{data.dataset}-trial")
        if short is None or half or not _network_takes_size(model, inputs, short.input_size):
            return own_protocol(recipe)
        return short
    same_size = [each for each in here if each.input_size == inputs.image_size]
    own = None

    def trains_alike(protocol: Protocol) -> bool:
        if own is None or protocol.training_for(model) != own.training:
            return False
        return (protocol.label_smoothing, protocol.early_sizes) == (own.label_smoothing, ())

    with suppress(BadInput):  # a recipe file may define a transform of its own
        own = own_protocol(recipe)
    if same := [each for each in same_size if trains_alike(each)]:
        return same[0]
    subset = (data.subset, data.labels) != (1, 1) or data.subset_list or data.labels_list or data.shots
    if own and half is None and not (subset or data.shuffle_labels) and record.objective == "Supervised":
        return own
    if is_own_dataset(get_dataset(data.dataset)) and own and half is None:
        return own
    # Fast ones are for those who ask for them: their numbers are no paper's.
    here, same_size = ([each for each in found if each not in FAST] for found in (here, same_size))
    # What trains ResNets trains no transformer.
    of_its_kind = [each for each in MODERN if each in same_size]
    if of_its_kind or same_size:
        return (of_its_kind or same_size)[0]
    return next((each for each in here if _network_takes_size(model, inputs, each.input_size)), None)


def _kind_of(optimizer: Optimizer) -> str:
    return "adamw" if isinstance(optimizer, AdamW) else "adam"


def _folder_proposal(record: RecipeRecord, inputs: InputSpec, half: Half | None, trial: bool) -> Protocol:
    training = record.training
    # The search's batch may be that of a small subset; what all are scored under is of one batch.
    given = {
        "length": training.length,
        "image_size": inputs.image_size,
        "optimizer": "sgd" if training.optimizer.scales_with_batch else _kind_of(training.optimizer),
        "batch_size": training.batch_size if trial else None,
        "half": half,
    }
    return folder_protocol(_spell_folder(record.data.dataset, given))


def _network_takes_size(model: str, inputs: InputSpec, size: int) -> bool:
    """Whether the network for images of this size has the same tensors, as those have that pool globally."""
    import torch  # only here: a protocol is data, and looked up before anything is trained

    from sslticket import models

    if inputs.image_size == size:
        return True

    def shapes(side: int) -> dict[str, torch.Size]:
        backbone = models.create_model(model, channels=inputs.channels, image_size=side)
        return {name: value.shape for name, value in backbone.state_dict().items()}

    with torch.random.fork_rng(devices=[]), suppress(BadInput):
        return shapes(inputs.image_size) == shapes(size)
    return False
