"""Figure 6: the networks for ImageNet: a table.

Weights and dense accuracy of ResNet-50, Inception-v3 and Squeezenet. Settings: those of recipes/stabilizing.py.
"""

from imagenet_sweeps import NETWORKS, SEEDS

from sslticket.campaign.figure import Figure
from sslticket.campaign.panels import Panel, Published
from sslticket.campaign.sweep import Evaluate, Sweep

DENSE = {each.name: {"model": each.model, "source": "imagenet", "level": 0} for each in NETWORKS}


def cell(column: str, quantity: str) -> Published:
    """The paper's number of Inception-v3, the only one whose line is whole in the text."""
    return Published(
        drawn="cells",
        place="Figure 6 table",
        network="Inception-v3",
        method="dense",
        quantity=quantity,
        series="Inception-v3",
        column=column,
    )


figure = Figure(
    paper="stabilizing",
    place="Figure 6",
    title="Networks for ImageNet",
    question="How accurate are the dense networks?",
    scales={
        "paper": [
            Sweep(
                recipes=[each.recipe],
                seeds=SEEDS,
                evaluate=[Evaluate(protocols=[each.protocol], levels="0", seeds="search")],
            )
            for each in NETWORKS
        ],
        "trial": [
            Sweep(
                recipes=["supervised_digits"],
                settings={"length": "20it", "levels": 1},
                grid={"model": ["conv3", "conv6", "resnet20"]},
                evaluate=[Evaluate(levels="0", seeds="search")],
            )
        ],
    },
    without={"small": "it is a table of three networks on ImageNet, for which small ones cannot stand"},
    stand_ins={
        "trial": {"resnet50": "conv3", "inception_v3": "conv6", "squeezenet1_0": "resnet20", "imagenet": "digits"}
    },
    means={"trial": "three small networks on the 8x8 digits of scikit-learn, 20 steps"},
    left_out="Epochs, batch sizes and schedules, the columns of settings, are those of recipes/stabilizing.py.",
    panels=[
        Panel(
            title="Dense networks",
            kind="table",
            columns={"weights": "parameters", "top-1": "top1"},
            series=DENSE,
            published=[
                cell("weights", "param_count"),
                cell("top-1", "top1"),
                *(
                    Published(drawn="note", place="Figure 6 table", network=each.name, quantity="sparsity_percent")
                    for each in NETWORKS
                ),
            ],
        )
    ],
)
