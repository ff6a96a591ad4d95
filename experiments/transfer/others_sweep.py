"""The other parts of docs/transfer.md: tickets on other images and under another optimiser.

Run       sslticket sweep experiments/transfer/others_sweep.py --out runs/transfer-others --data-root /data
"""

from sslticket import Evaluate, Sweep

SEEDS = (0, 1, 2)
ADAM = ["recipes.py:supervised_adam", "recipes.py:rotnet_adam"]
SGD = ["recipes.py:supervised_sgd", "recipes.py:rotnet_sgd"]


def scores(*protocols: str) -> list[Evaluate]:
    """Top-1 of tickets and random ones under these protocols, each search's under its own seed."""
    return [Evaluate(protocols=protocols, controls=["random"], levels="0 2 4 6", seeds="search")]


sweeps = [
    Sweep(
        title="On other images and under another optimiser",
        recipes=ADAM,
        settings={"half": "a"},
        seeds=SEEDS,
        evaluate=scores("cifar10b-small"),
    ),
    Sweep(
        recipes=ADAM,
        settings={"dataset": "fashion_mnist", "channels": 3},
        seeds=SEEDS,
        evaluate=scores("fashion_mnist-small", "cifar10-small"),
    ),
    Sweep(recipes=ADAM, seeds=SEEDS, evaluate=scores("cifar10-small-sgd", "fashion_mnist-small")),
    Sweep(recipes=SGD, seeds=SEEDS, evaluate=scores("cifar10-small-sgd", "cifar10-small")),
]
