"""Figure 5: tickets from few labels and all images, and from other data sets.

Top-1 of ResNet-50 on ImageNet against density. (a) All labels, 10% of the labels with all images (semi-supervised),
with their own images only, and no labels; (b) tickets of ImageNet, of 10% of it, of Places365 and of CIFAR-10.
Settings: Appendix A, those of recipes/limited_supervision.py; for CIFAR-10 those of Morcos et al., which section 4.4
follows.
"""

from dataclasses import replace

from supervision_sweeps import RANDOM, SMALL_MEANS, TRIAL, TRIAL_MEANS, curves, published, small

from sslticket.campaign.figure import Figure
from sslticket.campaign.panels import Between, Finding, Ordering, Published
from sslticket.campaign.sweep import Evaluate, Sweep

TICKET = {"control": "ticket"}
ALL, TENTH = {"subset": 1.0, "source": "imagenet"}, {"subset": 0.1, "source": "imagenet"}
ACCESS = {
    "all labels": TICKET | ALL | {"objective": "supervised"},
    "10% of the labels, all images": TICKET | {"objective": "s4l-rotation"},
    "10% of the labels, their images": TICKET | TENTH | {"objective": "supervised"},
    "no labels (RotNet)": TICKET | ALL | {"objective": "rotnet"},
}
SOURCES = {
    "ImageNet": TICKET | ALL | {"objective": "supervised"},
    "10% of ImageNet": TICKET | TENTH | {"objective": "supervised"},
    "Places365": TICKET | {"source": "places365", "objective": "supervised"},
    "CIFAR-10": TICKET | {"source": "cifar10", "objective": "supervised"},
}
RATIOS = tuple(Published(drawn="note", place="section 4.4", quantity=kind) for kind in ("data_ratio", "class_ratio"))
LIMIT = (Published(drawn="threshold-x", place="section 5", condition="moderate pruning", quantity="remaining_percent"),)
POINTS: list[dict[str, object]] = [
    {},
    {"subset": 0.1},
    {"objective": "RotNet"},
    {"objective": "S4LRotation", "labels": 0.1},
]
OTHERS = [{"dataset": "fashion_mnist", "channels": 3}, {"dataset": "digits", "channels": 3}]
HALVES: list[dict[str, object]] = [{"half": "a"}, {"half": "b"}]  # on digits, in the place of other sets

figure = Figure(
    paper="limited_supervision",
    place="Figure 5",
    title="Few labels with all images, and other data sets",
    question="Do unlabelled images help a search with few labels, and does another, larger data set serve as well?",
    scales={
        "paper": [
            published("supervised_resnet50", protocol="imagenet", controls=["random"]),
            published(
                "supervised_resnet50_samples10",
                "s4l_resnet50",
                "rotnet_resnet50",
                "supervised_resnet50_places365",
                "transfer_resnet50_cifar10",
                protocol="imagenet",
            ),
        ],
        "small": [*small(*POINTS, controls=["random"]), *small(*OTHERS)],
        "trial": [
            Sweep(
                recipes=["supervised_digits"],
                settings=TRIAL,
                points=[*POINTS, *HALVES],
                evaluate=[
                    Evaluate(
                        protocols=["digits-demo"], controls=["random"], levels="0-2", seeds="search", heads=["new"]
                    )
                ],
            )
        ],
    },
    stand_ins={
        "small": {"resnet50": "conv3", "imagenet": "cifar10", "places365": "fashion_mnist", "cifar10": "digits"},
        "trial": {"resnet50": "conv3", "imagenet": "digits", "places365": "digitsa", "cifar10": "digitsb"},
    },
    means={
        "small": f"{SMALL_MEANS}; three convolutions for ResNet-50, Fashion-MNIST for Places365, the 8x8 digits for "
        "CIFAR-10",
        "trial": f"{TRIAL_MEANS}; two halves of the digits for other data sets",
    },
    panels=[
        replace(
            curves("(a) Access to images and labels", {**ACCESS, **RANDOM}, model="resnet50", target="imagenet"),
            published=LIMIT,
            order=[*list(ACCESS), "random"],
            order_at=Between(low=0.02, high=0.9),
        ),
        replace(
            curves("(b) Other data sets", {**SOURCES, **RANDOM}, model="resnet50", target="imagenet"),
            published=RATIOS,
            order=["ImageNet", "10% of ImageNet", "Places365", "CIFAR-10"],
            order_at=Between(low=0.02, high=0.9),
        ),
    ],
    findings=[
        Finding(
            number=6,
            text="At 10% of the labels: semi-supervised tickets are better than low-shot ones, these than unlabelled.",
            check=Ordering(panel="(a) Access to images and labels", series=list(ACCESS)[1:]),
        ),
        Finding(
            number=7,
            text="Tickets from 10% of ImageNet are better than those of Places365; those of CIFAR-10 are worse.",
            check=Ordering(panel="(b) Other data sets", series=list(SOURCES)[1:]),
        ),
    ],
)
