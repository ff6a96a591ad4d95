"""Figure 3: tickets found on parts of ImageNet.

Top-1 of ResNet-50 on ImageNet against density. (a) 1%, 10% and 30% of each class's images; (b) the same fractions of
the classes, with all their images. Settings: section 4.2 and Appendix A, those of recipes/limited_supervision.py.
"""

from dataclasses import replace

from supervision_sweeps import RANDOM, SMALL_MEANS, TRIAL_MEANS, curves, published, small, trial

from sslticket.campaign.figure import Figure
from sslticket.campaign.panels import Between, Finding, Gap, Panel, Published

FRACTIONS = (0.3, 0.1, 0.01)
SMALL_CLASSES = (0.5, 0.3, 0.2)  # of ten
CLAIMED = (
    Published(drawn="threshold-x", place="section 4.2", condition="all image subsets*", quantity="sparsity_percent"),
    Published(drawn="note", place="section 4.2", condition="subset 10% images*", quantity="gap_points"),
    Published(drawn="note", place="section 4.2", condition="subset 10% images", quantity="speedup"),
)
CLASSES_CLAIMED = (Published(drawn="note", place="section 4.2", condition="subset 1% classes*", quantity="speedup"),)


def parts(title: str, by: str, fractions: tuple[float, ...]) -> Panel:
    """The whole set, its parts from the largest on, and random tickets."""
    found = {
        f"{fraction:.0%}": {"subset": fraction, "subset_by": by, "control": "ticket", "objective": "supervised"}
        for fraction in fractions
    }
    whole = {"100%": {"subset": 1.0, "control": "ticket", "objective": "supervised"}}
    shown: Panel = curves(title, {**whole, **found, **RANDOM}, model="resnet50", target="imagenet", source="imagenet")
    return shown


def panels(classes: tuple[float, ...]) -> list[Panel]:
    """Both panels; of a small set's classes other fractions are whole numbers."""
    return [
        replace(
            parts("(a) Images", "samples", FRACTIONS),
            published=CLAIMED,
            order=["100%", "30%", "10%", "1%", "random"],
            order_at=Between(low=0.1, high=0.9),
        ),
        replace(parts("(b) Classes", "classes", classes), published=CLASSES_CLAIMED),
    ]


SMALL_POINTS = (
    {},
    *({"subset": fraction} for fraction in FRACTIONS),
    *({"subset": fraction, "subset-by": "classes"} for fraction in SMALL_CLASSES),
)

figure = Figure(
    paper="limited_supervision",
    place="Figure 3",
    title="Tickets from few images or few classes",
    question="How good are tickets that were found on a small part of the images, or on few of the classes?",
    scales={
        "paper": [
            published("supervised_resnet50", protocol="imagenet", controls=["random"]),
            published(
                *(f"supervised_resnet50_{by}{part}" for by in ("samples", "classes") for part in (30, 10, 1)),
                protocol="imagenet",
            ),
        ],
        "small": small(*SMALL_POINTS, controls=["random"]),
        "trial": trial(*SMALL_POINTS, controls=["random"]),
    },
    stand_ins={
        "small": {"resnet50": "conv3", "imagenet": "cifar10"},
        "trial": {"resnet50": "conv3", "imagenet": "digits"},
    },
    means={
        "small": f"{SMALL_MEANS}; three convolutions for ResNet-50, and 5, 3 and 2 of ten classes",
        "trial": f"{TRIAL_MEANS}; 5, 3 and 2 of ten classes",
    },
    panels={"paper": panels(FRACTIONS), "small": panels(SMALL_CLASSES), "trial": panels(SMALL_CLASSES)},
    findings=[
        Finding(
            number=4,
            text="At moderate density tickets from 10% of the images lie 1 to 4 points below those of all.",
            check=Gap(
                panel="(a) Images",
                series=("100%", "10%"),
                at=Between(low=0.1, high=0.9),
                low=0.01,
                high=0.04,
            ),
        ),
        Finding(
            number=4,
            text="Where more than 90% is pruned, tickets from 10% of the images are as good as those of all.",
            check=Gap(panel="(a) Images", series=("100%", "10%"), at=Between(high=0.1), low=-0.01, high=0.01),
        ),
        Finding(
            number=4,
            text="Fewer classes in the place of fewer images make little difference: 30% of the classes.",
            check=Gap(panel="(b) Classes", series=("100%", "30%"), at=Between(high=0.1), low=-0.01, high=0.01),
        ),
    ],
)
