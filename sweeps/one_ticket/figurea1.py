"""Figure A1: random masks of several kinds.

Top-1 on CIFAR-10 of VGG-19 against density: the winning ticket, and weights drawn anew in its mask (preserved), in one
permuted within each layer (local), and in one permuted over all layers (global). Settings: sections A.1 and A.2, those
of recipes/one_ticket.py.
"""

from transfer_sweeps import SEEDS, SMALL_MEANS, TRIAL_MEANS, scored, small, trial

from sslticket.campaign.figure import Figure
from sslticket.campaign.panels import Between, Finding, Ordering, Panel
from sslticket.campaign.sweep import Sweep

MASKS = ("preserved", "local", "random")
SERIES = {
    "winning ticket": {"control": "ticket"},
    "preserved mask": {"control": "preserved"},
    "locally permuted mask": {"control": "local"},
    "globally permuted mask": {"control": "random"},
}

figure = Figure(
    paper="one_ticket",
    place="Figure A1",
    title="Random masks",
    question="What do a ticket's mask and its layerwise proportions alone tell?",
    scales={
        "paper": [
            Sweep(recipes=["transfer_vgg19_cifar10"], seeds=SEEDS, evaluate=[scored("cifar10-sgd", controls=MASKS)])
        ],
        "small": [small("cifar10-small", controls=MASKS)],
        "trial": [trial("own", controls=MASKS)],
    },
    stand_ins={
        "small": {"vgg19": "conv3", "cifar10-sgd": "cifar10-small"},
        "trial": {"vgg19": "conv3", "cifar10-sgd": "own", "cifar10": "digits"},
    },
    means={"small": f"{SMALL_MEANS}; CIFAR-10", "trial": f"{TRIAL_MEANS}; digits"},
    panels=[
        Panel(
            title="CIFAR-10, VGG-19",
            series=SERIES,
            where={
                "model": "vgg19",
                "target": "cifar10",
                "protocol": "cifar10-sgd",
                "objective": "supervised",
                "scope": "global",
            },
            x_scale="log",
            order=list(SERIES),
        )
    ],
    findings=[
        Finding(
            number=11,
            text="The winning ticket is better than its mask with new weights, that than a locally and this than a "
            "globally permuted one.",
            check=Ordering(series=list(SERIES), at=Between(high=0.1)),
        )
    ],
)
