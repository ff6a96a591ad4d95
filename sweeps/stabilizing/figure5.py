"""Figure 5: rewinding to an early iteration in the place of resetting, at all densities.

Top-1 on CIFAR-10 against density of Resnet-18 and VGG-19 at the standard rate, with W_k after 500 and 100 iterations,
and reset to iteration 0. Settings: Figure 2, those of recipes/stabilizing.py.
"""

from stability_sweeps import (
    CIFAR10_MEANS,
    RESNET18,
    STAND_INS,
    TRIAL_MEANS,
    TRIAL_STAND_INS,
    VGG19,
    published,
    small,
    trial,
)

from sslticket.campaign.figure import Figure
from sslticket.campaign.panels import Between, Finding, Matches, Ordering, Panel, Published
from sslticket.campaign.sweep import Evaluate

STANDARD = {"Resnet-18": (RESNET18[0], "500it"), "VGG-19": (VGG19[0], "100it")}


def scored(protocol: str, levels: str | None = None) -> list[Evaluate]:
    """Tickets alone."""
    return [Evaluate(protocols=[protocol], levels=levels, seeds="search")]


figure = Figure(
    paper="stabilizing",
    place="Figure 5",
    title="Rewinding in the place of resetting",
    question="Do tickets that are rewound to an early iteration match the dense network, where reset ones do not?",
    scales={
        "paper": [
            published(each, rewinds=["0it", rewind], evaluate=scored(each.protocol))
            for each, rewind in STANDARD.values()
        ],
        "small": [
            small(each, rewinds=["0it", "30it"], evaluate=scored("own@k", "all")) for each, _ in STANDARD.values()
        ],
        "trial": [
            trial(each, rewinds=["0it", "4it"], evaluate=scored("own@k", "all")) for each, _ in STANDARD.values()
        ],
    },
    stand_ins={
        "small": STAND_INS | {"500it": "30it", "100it": "30it"},
        "trial": TRIAL_STAND_INS | {"500it": "4it", "100it": "4it"},
    },
    means={"small": f"{CIFAR10_MEANS}; W_k after 30 of 200 steps", "trial": TRIAL_MEANS},
    panels=[
        Panel(
            title=name,
            series={
                "rewound": {"rewind": rewind, "control": "ticket"},
                "reset to iteration 0": {"rewind": "0it", "control": "ticket"},
            },
            where=each.where,
            x_scale="log",
            order=["rewound", "reset to iteration 0"],
            published=[
                Published(
                    drawn="note",
                    place="section 4 discussion",
                    network=name,
                    quantity="rewind_iterations",
                    words="saturates",
                )
            ],
        )
        for name, (each, rewind) in STANDARD.items()
    ],
    findings=[
        finding
        for name, (each, _) in STANDARD.items()
        for finding in (
            Finding(
                number=15,
                text=f"{name}: tickets that are rewound match the dense network, or are better.",
                check=Matches(
                    panel=name,
                    series="rewound",
                    at=Between(low=0.8 * each.remaining, high=0.9),
                    margin=0.005,
                    contrast="reset to iteration 0",
                ),
            ),
            Finding(
                number=15,
                text=f"{name}: rewound tickets are better than reset ones.",
                check=Ordering(panel=name, series=["rewound", "reset to iteration 0"]),
            ),
        )
    ],
)
