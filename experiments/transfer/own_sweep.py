"""The first part of docs/transfer.md: what tickets are worth on the images they were found on, beside all controls.

Run       sslticket sweep experiments/transfer/own_sweep.py --out runs/transfer --data-root /data
Cost      7 minutes a seed on one busy core.
"""

from collections.abc import Sequence

from sslticket import Evaluate, Sweep

SEEDS = (0, 1, 2, 3, 4, 5)


def scores(controls: Sequence[str] = (), levels: str = "0 2 4 6") -> Evaluate:
    """Top-1 of tickets and controls, each search's under its own seed."""
    return Evaluate(protocols=["cifar10-small"], controls=controls, levels=levels, seeds="search")


sweeps = [
    Sweep(
        title="On the images they were found on",
        recipes=["recipes.py:supervised_adam", "recipes.py:rotnet_adam"],
        seeds=SEEDS,
        evaluate=[scores(["random", "adjusted"]), scores(["preserved", "local", "reset", "permuted"], "4 6")],
    ),
    Sweep(recipes=["recipes.py:supervised_adam"], settings={"shuffle-labels": 1}, seeds=SEEDS, evaluate=[scores()]),
    Sweep(
        recipes=["recipes.py:supervised_adam"], settings={"scope": "layer"}, seeds=SEEDS, evaluate=[scores(["local"])]
    ),
]
