"""The fixed evaluation settings; never on the command line, for a protocol that can be bent is no yardstick.

Each trains a ticket from its W_k with a new head, the schedule at 0 and full length, whatever found the ticket.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from sslticket.errors import unknown
from sslticket.fit import SGD, Adam, Fit


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
        seeds: drawn from when none are asked for; they vary head, order, augmentation and the random tickets.
    """

    name: str
    dataset: str
    half: Literal["a", "b"] | None = None
    fit: Fit
    fits: Mapping[str, Fit] = field(default_factory=dict, hash=False)
    image_size: int | None = None
    seeds: tuple[int, ...] = (0, 1, 2)

    def fit_for(self, model: str) -> Fit:
        """How a model is trained under this protocol."""
        return self.fits.get(model, self.fit)


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

# Small enough for a demonstration on two processor cores; our own settings.
DIGITS_DEMO = Protocol(
    name="digits-demo",
    dataset="digits",
    fit=Fit(length="200it", batch_size=128, optimizer=Adam(lr=3e-3, weight_decay=0.0), drops=("140it", "180it")),
)
FASHION_MNIST_DEMO = replace(DIGITS_DEMO, name="fashion_mnist-demo", dataset="fashion_mnist", image_size=12)


def _trial(protocol: Protocol) -> Protocol:
    """Six steps of eight images: shows that everything runs before a cluster is booked; its scores mean nothing."""
    fit = replace(protocol.fit.stretched("6it"), batch_size=8)
    return replace(protocol, name=f"{protocol.name}-trial", fit=fit, fits={}, seeds=(0,))


PROTOCOLS = (IMAGENET, CIFAR10, CIFAR10A, CIFAR10B, DIGITS_DEMO, FASHION_MNIST_DEMO)
_BY_NAME = {protocol.name: protocol for protocol in (*PROTOCOLS, _trial(IMAGENET), _trial(CIFAR10))}


def find(name: str) -> Protocol:
    """The protocol of this name.

    Raises:
        BadInput: naming the nearest that there are.
    """
    if name not in _BY_NAME:
        raise unknown("protocol", name, _BY_NAME)
    return _BY_NAME[name]
