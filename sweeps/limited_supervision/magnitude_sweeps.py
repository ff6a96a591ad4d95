"""What the figures on natural zeros share (section 4.5 and Appendix D): sweeps and panels of weights by magnitude.

Every search writes down the magnitudes of its dense network at the end of its training, so one level is searched and
nothing else is trained.
"""

from collections.abc import Sequence

from sslticket.campaign.panels import Panel
from sslticket.campaign.sweep import Sweep

DENSE = {"levels": 1}


def published(models: Sequence[str], imagenet_models: Sequence[str]) -> list[Sweep]:
    """The settings of labels on both data sets, for each network."""
    return [
        Sweep(recipes=["supervised_vgg19_cifar10"], settings=DENSE, grid={"model": models}),
        Sweep(recipes=["supervised_resnet50"], settings=DENSE, grid={"model": imagenet_models}),
    ]


def small(models: Sequence[str]) -> list[Sweep]:
    """CIFAR-10's published length and optimiser, since it takes epochs for a weight to reach zero; 16 pixels."""
    return [
        Sweep(
            recipes=["supervised_vgg19_cifar10"],
            settings={**DENSE, "image-size": 16, "dataset": dataset},
            grid={"model": models},
        )
        for dataset in ("cifar10", "fashion_mnist")
    ]


def trial(models: Sequence[str]) -> list[Sweep]:
    """A few steps on digits, and on a half of them."""
    return [
        Sweep(
            recipes=["supervised_digits"],
            settings={**DENSE, "length": "20it", "rewind": "4it", **part},
            grid={"model": models},
        )
        for part in ({}, {"half": "a"})
    ]


SMALL_MEANS = (
    "the published 160 epochs on CIFAR-10 at 16 pixels, and on Fashion-MNIST in the place of ImageNet, which no small "
    "set stands for: whether large sets leave no zeros is not told"
)
TRIAL_MEANS = "the 8x8 digits of scikit-learn and a half of them, 20 steps"


def histogram(title: str, *models: str) -> Panel:
    """Weights by the logarithm of their magnitude, on both data sets."""
    series = {"CIFAR-10": {"source": "cifar10"}, "ImageNet": {"source": "imagenet"}}
    return Panel(
        title=title,
        kind="histogram",
        y="natural_zeros",
        rows="magnitudes",
        series=series,
        where={"model": models, "protocol": "search"},
    )
