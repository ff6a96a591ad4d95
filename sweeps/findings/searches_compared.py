"""Continuous Sparsification, iterative pruning, SNIP, reinitialised tickets and supermasks (findings 16 to 20).

Conv-6 with a quarter of its filters at a twentieth of its published length; LeNet 300-100 on Fashion-MNIST, 3,000
steps; VGG-19 with an eighth of its filters, 400 steps.

Run       sslticket sweep sweeps/findings/searches_compared.py --out runs/searches --data-root /data
Cost      docs/findings.md has the core-hours that it took.
"""

from collections.abc import Mapping
from pathlib import Path

from findings_sweeps import SEEDS, told

from sslticket import Evaluate, Sweep
from sslticket.campaign.panels import Between, Finding, Matches, Ordering, Panel

NETWORKS = Path(__file__).with_name("narrow_networks.py")
SMALL = {"dataset": "cifar10", "image-size": 16, "weight-decay": 0.0}
CONV6 = {
    **SMALL,
    "model": f"{NETWORKS}:narrow_conv6",
    "length": "2ep",
    "batch-size": 60,
    "lr": 3e-4,
    "drops": [],
    "rewind": "0it",
}
CONTINUOUS = {"search": "ContinuousSparsification", "final-temperature": 100.0, "penalty": 1e-10}
LENET = {
    "dataset": "fashion_mnist",
    "model": "lenet300",
    "length": "3000it",
    "batch-size": 60,
    "lr": 1.2e-3,
    "drops": [],
    "scope": "layer",
    "rate": 0.36,
    "levels": 5,
}
VGG19 = {
    **SMALL,
    "model": f"{NETWORKS}:narrow_vgg19",
    "length": "400it",
    "batch-size": 64,
    "optimizer": "SGD",
    "lr": 0.1,
    "warmup": "40it",
    "drops": ["200it", "300it"],
    "weight-decay": 1e-4,
    "rate": 0.6,
    "levels": 5,
}
SNIP = {"search": "OneShot", "criterion": "SNIP", "scored": "start", "rewind": "0it"}


def scored(levels: str = "all", *controls: str) -> list[Evaluate]:
    """Tickets under their own recipe, from the start of its schedule."""
    return [Evaluate(protocols=["own@0"], controls=controls, levels=levels, seeds="search", heads=["new"])]


def searched(
    settings: Mapping[str, object],
    *points: Mapping[str, object],
    evaluate: list[Evaluate] | None = None,
    title: str = "",
) -> Sweep:
    """Six searches of each point."""
    return Sweep(
        title=title,
        recipes=["supervised_digits"],
        settings=settings,
        points=points,
        seeds=SEEDS,
        evaluate=scored() if evaluate is None else evaluate,
    )


sweeps = [
    searched(
        {**CONV6, **CONTINUOUS, "rounds": 2, "rewind-weights": True},
        *({"initial-score": score} for score in (-0.02, 0.0, 0.02)),
        evaluate=scored("1 2"),
        title="Continuous Sparsification of Conv-6, two rounds",
    ),
    searched(
        {**CONV6, "levels": 5, "rate": 0.28, "linear-rate": 0.36, "scope": "layer"},
        evaluate=scored("all", "random"),
        title="Iterative pruning of Conv-6, each level two of the paper's",
    ),
    *(
        searched(
            network,
            {"rewind": "0it"},
            {"rewind": "2%"},
            evaluate=scored("all", "preserved", "random"),
            title=f"{name}: reset and rewound, beside reinitialised",
        )
        for name, network in (("LeNet", LENET), ("VGG-19", VGG19))
    ),
    *(searched({**network, **SNIP}, title=f"{name}: SNIP") for name, network in (("LeNet", LENET), ("VGG-19", VGG19))),
    searched(
        {**CONV6, **CONTINUOUS, "length": "5ep", "rounds": 1, "frozen": True},
        *({"initial-score": score} for score in (-0.03, -0.02, -0.01, 0.0)),
        evaluate=[],
        title="Supermasks by Continuous Sparsification",
    ),
    searched(
        {**CONV6, "length": "5ep", "search": "StochasticSparsification", "rounds": 1, "frozen": True, "penalty": 1e-8},
        *({"initial-score": score} for score in (-2.0, -1.0, 0.0, 1.0)),
        evaluate=[],
        title="Supermasks by Stochastic Sparsification",
    ),
]

CONTINUOUS_SEARCH, STOCHASTIC_SEARCH = {"search": "ContinuousSparsification"}, {"search": "StochasticSparsification"}
ROUNDS = Panel(
    title="Conv-6",
    kind="front",
    series={
        "CS, two rounds": {**CONTINUOUS_SEARCH, "control": "ticket"},
        "IMP": {"search": "IMP", "control": "ticket"},
    },
    where={"model": "narrow_conv6", "source": "cifar10"},
    x_scale="log",
    fronts=["CS, two rounds"],
)
KINDS = {
    "IMP, reset": {"search": "IMP", "rewind": "0it", "control": "ticket"},
    "SNIP": {"search": "OneShot SNIP", "control": "ticket"},
    "IMP, reinitialised": {"search": "IMP", "rewind": "0it", "control": "preserved"},
    "IMP, rewound": {"search": "IMP", "rewind": "2%", "control": "ticket"},
    "random": {"control": "random"},
}
LENET_PANEL, VGG_PANEL = (
    Panel(title=title, series=KINDS, where={"model": model}, x_scale="log")
    for title, model in (("LeNet on Fashion-MNIST", "lenet300"), ("VGG-19 on CIFAR-10", "narrow_vgg19"))
)
SUPERMASKS = Panel(
    title="Masks of an untrained Conv-6",
    kind="front",
    x="sparsity",
    y="metrics.top1",
    y_label="top-1 of the untrained network, %",
    rows="level",
    series={"CS": {**CONTINUOUS_SEARCH, "level": 1}, "SS": {**STOCHASTIC_SEARCH, "level": 1}},
    where={"model": "narrow_conv6", "source": "cifar10", "frozen": True},
    x_scale="linear",
    fronts=["CS", "SS"],
)
SPARSE = Between(high=0.2)


figures = [
    told(
        "continuous",
        "Continuous Sparsification and iterative pruning",
        "Does Continuous Sparsification find better tickets in two rounds, and better masks of untrained networks?",
        [ROUNDS, SUPERMASKS],
        [
            Finding(
                number=18,
                text="Conv-6: tickets of two rounds of CS are better than those of IMP that are as sparse.",
                check=Ordering(panel=ROUNDS.title, series=("CS, two rounds", "IMP")),
            ),
            Finding(
                number=20,
                text="Masks of an untrained network: those of CS are better than those of SS that are as sparse.",
                check=Ordering(panel=SUPERMASKS.title, series=("CS", "SS")),
            ),
        ],
        paper="004",
    ),
    told(
        "reinitialised",
        "Reset, rewound and reinitialised tickets, and SNIP",
        "Is the initialisation needed, and does SNIP find as good subnetworks before training?",
        [LENET_PANEL, VGG_PANEL],
        [
            Finding(
                number=17,
                text="VGG-19's tickets match the dense network down to 6.4% of the weights.",
                check=Matches(panel=VGG_PANEL.title, series="IMP, reset", at=Between(low=0.06)),
            ),
            *(
                Finding(
                    number=17,
                    text=f"{panel.title}: SNIP lies between tickets and reinitialised ones from 80% pruned on.",
                    check=Ordering(panel=panel.title, series=list(KINDS)[:3], at=SPARSE),
                )
                for panel in (VGG_PANEL, LENET_PANEL)
            ),
            *(
                Finding(
                    number=15,
                    text=f"{panel.title}: rewound to 2% of the training, tickets are better than reset ones.",
                    check=Ordering(panel=panel.title, series=("IMP, rewound", "IMP, reset"), at=SPARSE),
                )
                for panel in (VGG_PANEL, LENET_PANEL)
            ),
        ],
        paper="003",
    ),
]
