"""Figure 1: resetting to iteration 0 on deeper networks, at three schedules of the learning rate.

Top-1 on CIFAR-10 against density of VGG-19 and of the 20-layer ResNet that the paper calls Resnet-18: tickets reset to
their initialisation, and randomly reinitialised ones. Settings: Figure 2, those of recipes/stabilizing.py.
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
from sslticket.campaign.panels import Between, Finding, Gap, Matches, Panel
from sslticket.campaign.sweep import Evaluate

NETWORKS = (*VGG19, *RESNET18)


def scored(protocol: str, levels: str | None = None) -> list[Evaluate]:
    """Tickets, and their masks with weights drawn anew."""
    return [Evaluate(protocols=[protocol], controls=["preserved"], levels=levels, seeds="search")]


SERIES = {
    f"{each.variant}{words}": {name: value for name, value in each.where.items() if name not in ("model", "source")}
    | {"control": control}
    for each in VGG19
    for words, control in (("", "ticket"), (", reinitialised", "preserved"))
}
RESNET_SERIES = {
    f"{each.variant}{words}": {name: value for name, value in each.where.items() if name not in ("model", "source")}
    | {"control": control}
    for each in RESNET18
    for words, control in (("", "ticket"), (", reinitialised", "preserved"))
}

figure = Figure(
    paper="stabilizing",
    place="Figure 1",
    title="Resetting to iteration 0 on deeper networks",
    question="Does iterative magnitude pruning find winning tickets at initialisation, and at which learning rates?",
    scales={
        "paper": [published(each, evaluate=scored(each.protocol)) for each in NETWORKS],
        "small": [small(each, evaluate=scored("own@k", "all")) for each in NETWORKS],
        "trial": [trial(each, evaluate=scored("own@k", "all")) for each in NETWORKS],
    },
    stand_ins={"small": STAND_INS, "trial": TRIAL_STAND_INS},
    means={"small": CIFAR10_MEANS, "trial": TRIAL_MEANS},
    panels=[
        Panel(title=name, series=series, where={"model": model, "source": "cifar10", "rewind": "0it"}, x_scale="log")
        for name, model, series in (("VGG-19", "vgg19", SERIES), ("Resnet-18", "resnet20", RESNET_SERIES))
    ],
    findings=[
        *(
            Finding(
                text=f"{name}, standard: reset tickets are no better than randomly reinitialised ones.",
                check=Gap(
                    panel=name,
                    series=("standard", "standard, reinitialised"),
                    at=Between(low=0.01, high=0.5),
                    low=-0.01,
                    high=0.01,
                    contrast="warmup",
                ),
            )
            for name in ("VGG-19", "Resnet-18")
        ),
        *(
            Finding(
                text=f"{name}, {variant}: tickets that are reset to iteration 0 match the dense network.",
                check=Matches(
                    panel=name, series=variant, at=Between(low=low, high=0.5), contrast=f"{variant}, reinitialised"
                ),
            )
            for name, variant, low in (
                ("Resnet-18", "low", 0.16),
                ("Resnet-18", "warmup", 0.16),
                ("VGG-19", "warmup", 0.02),
            )
        ),
    ],
)
