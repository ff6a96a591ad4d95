"""Figure 2: the networks for MNIST and CIFAR-10, and whether resetting to iteration 0 finds winning tickets in them.

A table: weights and dense accuracy of LeNet, Resnet-18 and VGG-19 at three schedules, and what the ticket of the
studied size gains on the dense network; it is a winning ticket where that is no loss, and the random subnetwork of its
size, which we add, shows whether a loss would be seen. Settings: recipes/stabilizing.py.
"""

from stability_sweeps import (
    NETWORKS,
    SMALL_MEANS,
    STAND_INS,
    TRIAL_DENSITY,
    TRIAL_MEANS,
    TRIAL_STAND_INS,
    published,
    small,
    trial,
)

from sslticket.campaign.figure import Figure
from sslticket.campaign.panels import Finding, Matches, Near, Panel, Published
from sslticket.campaign.sweep import Evaluate


def scored(protocol: str, level: int) -> list[Evaluate]:
    """The dense network, and the ticket of the size that the paper studies, beside a random one."""
    return [Evaluate(protocols=[protocol], controls=["random"], levels=f"0 {level}", seeds="search")]


DENSE = {f"{each.label}, dense": {**each.where, "level": 0} for each in NETWORKS}
COUNTED = tuple(
    Published(
        drawn="cells",
        place="Figure 2 table",
        network=each.name,
        quantity="param_count",
        series=f"{each.label}, dense",
        column="weights",
    )
    for each in NETWORKS
)


def panels(density: float | None = None) -> list[Panel]:
    """Both tables, with tickets of the size that the paper studies or of another."""
    return [
        Panel(
            title="Dense networks",
            kind="table",
            columns={"weights": "parameters", "top-1": "top1"},
            series=DENSE,
            where={"rewind": "0it"},
            published=[
                *COUNTED,
                *(each.number("Figure 2 table", "dense", "top1", f"{each.label}, dense", "top-1") for each in NETWORKS),
            ],
        ),
        Panel(
            title="Tickets reset to iteration 0",
            kind="table",
            rows="score",
            columns={"top-1": "top1", "gain on dense": "gain_on_dense"},
            series={
                f"{each.label}, {control}": {
                    **each.where,
                    "control": control,
                    "density": Near(value=density or each.remaining),
                }
                for each in NETWORKS
                for control in ("ticket", "random")
            },
            where={"rewind": "0it"},
            published=[
                each.number(
                    "Figure 2 table", "IMP ticket", "winning_ticket_found", f"{each.label}, ticket", "gain on dense"
                )
                for each in NETWORKS
            ],
        ),
    ]


figure = Figure(
    paper="stabilizing",
    place="Figure 2",
    title="Networks for MNIST and CIFAR-10",
    question="How accurate are the dense networks, and which have winning tickets at initialisation?",
    scales={
        "paper": [published(each, levels=each.level, evaluate=scored(each.protocol, each.level)) for each in NETWORKS],
        "small": [small(each, evaluate=scored("own@k", each.small_level)) for each in NETWORKS],
        "trial": [trial(each, evaluate=scored("own@k", 2)) for each in NETWORKS],
    },
    stand_ins={"small": STAND_INS, "trial": TRIAL_STAND_INS},
    means={"small": SMALL_MEANS, "trial": TRIAL_MEANS},
    left_out="Batch sizes, rates, schedules and warmup, the columns of settings, are those of recipes/stabilizing.py.",
    panels={"paper": panels(), "small": panels(), "trial": panels(TRIAL_DENSITY)},
    findings=[
        Finding(
            text=f"{each.label}: tickets that are reset to iteration 0 match the dense network.",
            check=Matches(
                panel="Tickets reset to iteration 0",
                column="top-1",
                series=f"{each.label}, ticket",
                contrast=f"{each.label}, random",
            ),
        )
        for each in NETWORKS
        if each.label in ("Lenet", "Resnet-18 (low)", "Resnet-18 (warmup)", "VGG-19 (warmup)")
    ],
)
