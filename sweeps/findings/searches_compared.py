"""Continuous Sparsification, iterative pruning, SNIP, reinitialised tickets and supermasks (findings 16 to 20).

Conv-6 with a quarter of its filters at a twentieth of its published length; LeNet 300-100 on Fashion-MNIST, 3,000
steps; VGG-19 with an eighth of its filters, 400 steps.

Run       sslticket sweep sweeps/findings/searches_compared.py --out runs/searches --data-root /data
Cost      docs/findings.md has the core-hours that it took.
"""

from collections.abc import Mapping
from pathlib import Path

from findings_sweeps import SEEDS

from sslticket import Evaluate, Sweep

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
