"""The fixed evaluation settings; never on the command line, for a protocol that can be bent is no yardstick.

Each trains a ticket from its W_k with a new head, the schedule at 0 and full length, whatever found the ticket. What
makes a difference is in the name: `cifar10-sgd` and `cifar10-adam` are two protocols.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from sslticket.data.dataset import Dataset
from sslticket.data.names import in_paths
from sslticket.data.views import View
from sslticket.errors import unknown
from sslticket.fit import SGD, Adam, Fit, Optimizer

Half = Literal["a", "b"]


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """One supervised evaluation.

    Attributes:
        name: on the command line and in the rows.
        dataset: trained on its training split, measured on its whole evaluation split.
        half: of the training split that is trained on; None for the whole.
        fit: how every model is trained.
        fits: how some models are trained otherwise, by model name.
        image_size: side in pixels of what the network sees; None for the dataset's own.
        train: the training view; None for the dataset's own.
        eval: the evaluation view; None for the dataset's own.
        seeds: drawn from when none are asked for; they vary head, order, augmentation and the random tickets.
        part: what the images are if they are not the whole official set; told by a row's target, and no setting.
    """

    name: str
    dataset: str
    half: Half | None = None
    fit: Fit
    fits: Mapping[str, Fit] = field(default_factory=dict, hash=False)
    image_size: int | None = None
    train: View | None = None
    eval: View | None = None
    seeds: tuple[int, ...] = (0, 1, 2)
    part: str | None = None

    @property
    def label(self) -> str:
        """Its name and the part's, for files' names: rows on a part and on the whole set lie side by side."""
        return self.name if self.part is None else f"{self.name}-{in_paths(self.part)}"

    def fit_for(self, model: str) -> Fit:
        """How a model is trained under this protocol."""
        return self.fits.get(model, self.fit)

    def views(self, entry: Dataset) -> tuple[View, View]:
        """What the network is shown of the dataset's images: in training, and when it is measured."""
        return (self.train or entry.train).resized(self.image_size), (self.eval or entry.eval).resized(self.image_size)


# Finding Winning Tickets with Limited (or No) Supervision, Appendix A: "ImageNet Labels - full dataset".
IMAGENET = Protocol(
    name="imagenet",
    dataset="imagenet",
    fit=Fit(
        length="90ep",
        batch_size=1536,
        optimizer=SGD(lr=0.1, weight_decay=1e-4),
        drops=("50ep", "65ep", "80ep"),
    ),
    fits={
        "alexnet": Fit(length="90ep", batch_size=4096, optimizer=SGD(lr=0.4, weight_decay=1e-4), drops=("30ep", "60ep"))
    },
)

# The same, "CIFAR-10 Labels".
CIFAR10 = Protocol(
    name="cifar10",
    dataset="cifar10",
    fit=Fit(length="160ep", batch_size=512, optimizer=Adam(lr=1e-3, weight_decay=1e-4), drops=("80ep", "120ep")),
)

# One ticket to win them all, section 4.2: tickets of one half of the training images, scored on the other. The fit is
# the whole set's, so each has half as many steps.
CIFAR10A = replace(CIFAR10, name="cifar10a", half="a")
CIFAR10B = replace(CIFAR10, name="cifar10b", half="b")

# The same, "Places365 Labels"; one more of its sources of tickets, here as a target.
PLACES365 = Protocol(
    name="places365",
    dataset="places365",
    fit=replace(IMAGENET.fit, batch_size=2048),
)

# Stabilizing the Lottery Ticket Hypothesis, Figure 2: LeNet on MNIST.
MNIST = Protocol(
    name="mnist",
    dataset="mnist",
    fit=Fit(length="50000it", batch_size=60, optimizer=Adam(lr=1.2e-3, weight_decay=0.0)),
)

# The same on the images that are as small and harder; what a newcomer can run to its end on two processor cores.
FASHION_MNIST = replace(MNIST, name="fashion_mnist", dataset="fashion_mnist")

# One ticket to win them all, Appendix A.1. Networks that it does not have are trained as its VGG-19. The small images'
# augmentation is that of its reproducibility report (section 3.3): on all four sets, flips and 32-pixel crops of the
# image padded by 4; Fashion-MNIST's 28 pixels get a black margin when measured.
_OPTIMIZERS: Mapping[str, Optimizer] = {"sgd": SGD(lr=0.1, weight_decay=1e-4), "adam": Adam(lr=3e-4, weight_decay=1e-4)}
_CROPPED, _WHOLE = View(size=32, crop="pad", pad=4, flip=True), View(size=32)


def _morcos(dataset: str, optimizer: str, half: Half | None = None) -> Protocol:
    large = dataset in ("imagenet", "places365")
    vgg19 = Fit(length="160ep", batch_size=512, optimizer=_OPTIMIZERS[optimizer], drops=("80ep", "120ep"))
    return Protocol(
        name=f"{dataset}{half or ''}-{optimizer}",
        dataset=dataset,
        half=half,
        fit=vgg19,
        fits={"resnet50": replace(vgg19, length="90ep", drops=("50ep", "65ep", "80ep"))},
        seeds=tuple(range(6)),
        train=None if large else _CROPPED,
        eval=None if large else _WHOLE,
    )


_TARGETS: tuple[tuple[str, Half | None], ...] = (
    *(("fashion_mnist", None), ("svhn", None), ("cifar10", None), ("cifar10", "a"), ("cifar10", "b")),
    *(("cifar100", None), ("imagenet", None), ("places365", None)),
)
MORCOS = tuple(_morcos(dataset, optimizer, half) for optimizer in _OPTIMIZERS for dataset, half in _TARGETS)

# Small enough for a demonstration on two processor cores; our own settings.
DIGITS_DEMO = Protocol(
    name="digits-demo",
    dataset="digits",
    fit=Fit(length="200it", batch_size=128, optimizer=Adam(lr=3e-3, weight_decay=0.0), drops=("140it", "180it")),
)
FASHION_MNIST_DEMO = replace(DIGITS_DEMO, name="fashion_mnist-demo", dataset="fashion_mnist", image_size=12)

# Transfer on two processor cores, each with Adam and with SGD; our own settings.
_FEW_STEPS = Fit(length="200it", batch_size=64, optimizer=Adam(lr=3e-3, weight_decay=1e-4), drops=("140it", "180it"))


def _small(dataset: str, half: Half | None = None) -> tuple[Protocol, Protocol]:
    name = f"{dataset}{half or ''}-small"
    adam = Protocol(name=name, dataset=dataset, half=half, fit=_FEW_STEPS, image_size=16)
    fit = replace(_FEW_STEPS, optimizer=_OPTIMIZERS["sgd"])
    return adam, replace(adam, name=f"{name}-sgd", fit=fit)


SMALL = (*_small("cifar10"), *_small("cifar10", "a"), *_small("cifar10", "b"), *_small("fashion_mnist"))


def _trial(protocol: Protocol) -> Protocol:
    """Six steps of eight images: shows that everything runs before a cluster is booked; its scores mean nothing."""
    fit = replace(protocol.fit.stretched("6it"), batch_size=8)
    return replace(protocol, name=f"{protocol.name}-trial", fit=fit, fits={}, seeds=(0,))


# The first of a data set is the one that a search on it suggests.
PROTOCOLS = (
    *(IMAGENET, PLACES365, CIFAR10, CIFAR10A, CIFAR10B, MNIST, FASHION_MNIST),
    *(DIGITS_DEMO, FASHION_MNIST_DEMO, *SMALL, *MORCOS),
)
_BY_NAME = {protocol.name: protocol for protocol in (*PROTOCOLS, _trial(IMAGENET), _trial(CIFAR10))}


def find(name: str) -> Protocol:
    """The protocol of this name.

    Raises:
        BadInput: naming the nearest that there are.
    """
    if name not in _BY_NAME:
        # A data set has several: its own are what was meant, however near another's name is.
        own = [known for known in _BY_NAME if known.startswith(f"{name}-")]
        raise unknown("protocol", name, own or _BY_NAME)
    return _BY_NAME[name]
