"""Whether the gap between labels and RotNet grows with the depth that is pruned (findings 2 and 3).

The 20-layer ResNet with half of its filters, pruned up to the first and the second third of its convolutions and whole;
three convolutions with AlexNet's multilayer perceptron, which has 96% of the weights, pruned with and without it.

Run       sslticket sweep sweeps/findings/depth.py --out runs/depth --data-root /data
Cost      docs/findings.md has the core-hours that it took.
"""

from collections.abc import Mapping
from pathlib import Path

from findings_sweeps import RANDOM, TICKET, scored, searches, told

from sslticket.campaign.panels import Between, Finding, Gap, Panel

NETWORKS = Path(__file__).with_name("narrow_networks.py")
TASKS = [{"objective": "Supervised"}, {"objective": "RotNet"}]
SCORED = [scored("cifar10", controls=["random"], levels="0-3")]
RESNET = {"model": f"{NETWORKS}:narrow_resnet20", "length": "200it", "drops": ["140it", "180it"], "rewind": "30it"}
ALEXNET = {"model": f"{NETWORKS}:small_alexnet"}


def pruned(network: Mapping[str, object], *depths: str | None) -> list[dict[str, object]]:
    """Labels and RotNet for each depth; None prunes all layers."""
    return [{**task, **({"prune-up-to": depth} if depth else {}), **network} for depth in depths for task in TASKS]


sweeps = [
    searches("cifar10", *pruned(ALEXNET, "conv3"), evaluate=SCORED, title="Without the multilayer perceptron"),
    searches("cifar10", *pruned(ALEXNET, None), evaluate=SCORED, title="With the multilayer perceptron"),
    searches("cifar10", *pruned(RESNET, "conv7", "conv14"), evaluate=SCORED, title="Up to a third, and two thirds"),
    searches("cifar10", *pruned(RESNET, None), evaluate=SCORED, title="The whole ResNet"),
]

SHOWN = {"labels": {**TICKET, "objective": "supervised"}, "RotNet": {**TICKET, "objective": "rotnet"}, **RANDOM}


def panel(title: str, model: str, within: str) -> Panel:
    """Both tasks and random tickets, pruned up to a depth."""
    where = {"model": model, "within": within, "target": "cifar10"}
    return Panel(title=title, series=SHOWN, where=where, x_scale="log")


THIRD, TWO_THIRDS, WHOLE = (
    panel(f"ResNet-20, {words}", "narrow_resnet20", within)
    for words, within in (
        ("the first third", "up to conv7"),
        ("two thirds", "up to conv14"),
        ("whole", ""),
    )
)
WITHOUT, WITH = (
    panel(f"AlexNet's shape, {words} its perceptron", "small_alexnet", within)
    for words, within in (("without", "up to conv3"), ("with", ""))
)
SEVERE = Between(high=0.1)
figures = [
    told(
        "depth",
        "Tickets of the first layers",
        "Does the gap between tickets of labels and of RotNet grow with the depth that is pruned?",
        [THIRD, TWO_THIRDS, WHOLE, WITHOUT, WITH],
        [
            *(
                Finding(
                    number=number,
                    text=f"{each.title}: RotNet's tickets match those of labels.",
                    check=Gap(panel=each.title, series=("labels", "RotNet"), at=SEVERE, low=-0.01, high=0.01),
                )
                for number, each in ((3, THIRD), (2, WITHOUT))
            ),
            *(
                Finding(
                    number=number,
                    text=f"{each.title}: RotNet's tickets are worse than those of labels by a point or more.",
                    check=Gap(panel=each.title, series=("labels", "RotNet"), at=SEVERE, low=0.01),
                )
                for number, each in ((3, WHOLE), (2, WITH))
            ),
        ],
    )
]
