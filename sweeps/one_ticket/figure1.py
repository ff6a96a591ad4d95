"""Figure 1: global and layerwise pruning.

(a) Top-1 on CIFAR-10 against density of VGG-19's tickets, pruned globally and by layer, and of random ones; (b) how
much of each layer global pruning removes, over what layerwise pruning does, level by level. Settings: sections 3.1 and
A.1, those of recipes/one_ticket.py.
"""

from collections.abc import Sequence

from transfer_sweeps import RANDOM, SEEDS, SMALL_MEANS, TRIAL_MEANS, scored, small, trial

from sslticket.campaign.figure import Figure
from sslticket.campaign.panels import Between, Finding, Ordering, Panel, Published
from sslticket.campaign.sweep import Sweep

SCOPES = {"scope": ["global", "layer"]}
TICKETS = {
    "global pruning": {"scope": "global", "control": "ticket"},
    "layerwise pruning": {"scope": "layer", "control": "ticket"},
}
LEVELS = {"paper": (1, *range(3, 31, 3)), "small": range(1, 7), "trial": (1, 2)}


def panels(levels: Sequence[int]) -> list[Panel]:
    """Both panels, for the levels that a scale has."""
    return [
        Panel(
            title="(a) Accuracy",
            series={**TICKETS, **RANDOM},
            where={"model": "vgg19", "target": "cifar10", "protocol": "cifar10-sgd", "objective": "supervised"},
            x_scale="log",
            published=[Published(drawn="threshold-x", place="Figure 1 caption", quantity="sparsity_percent")],
            order=["global pruning", ("layerwise pruning", "random")],
        ),
        Panel(
            title="(b) Pruning rate by layer",
            x="layer",
            y="layer_pruned_ratio",
            rows="level",
            x_scale="linear",
            series={f"level {level}": {"level": level, "scope": "global"} for level in levels},
            where={"model": "vgg19", "source": "cifar10", "objective": "supervised"},
            published=[
                Published(drawn="note", place="section 3.1", quantity="param_count"),
                Published(drawn="note", place="section 3.1", quantity="param_count_remaining"),
            ],
        ),
    ]


figure = Figure(
    paper="one_ticket",
    place="Figure 1",
    title="Global and layerwise pruning",
    question="Are tickets better if weights of all layers are ranked together, and which layers lose their weights?",
    scales={
        "paper": [
            Sweep(recipes=["transfer_vgg19_cifar10"], grid=SCOPES, seeds=SEEDS, evaluate=[scored("cifar10-sgd")])
        ],
        "small": [small("cifar10-small", grid=SCOPES)],
        "trial": [trial("own", grid=SCOPES)],
    },
    stand_ins={
        "small": {"vgg19": "conv3", "cifar10-sgd": "cifar10-small"},
        "trial": {"vgg19": "conv3", "cifar10-sgd": "own", "cifar10": "digits"},
    },
    means={"small": f"{SMALL_MEANS}; CIFAR-10", "trial": f"{TRIAL_MEANS}; digits"},
    panels={scale: panels(levels) for scale, levels in LEVELS.items()},
    findings=[
        Finding(
            number=10,
            text="Global pruning is better than layerwise pruning.",
            check=Ordering(panel="(a) Accuracy", series=["global pruning", "layerwise pruning"], at=Between(high=0.3)),
        )
    ],
)
