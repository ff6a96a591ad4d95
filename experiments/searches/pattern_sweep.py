"""N:M patterns in docs/criteria.md: one-shot pruning by magnitude, free and within 2:4 and 1:4, in the same layers.

Run       sslticket sweep experiments/searches/pattern_sweep.py --out runs/patterns --data-root /data
Cost      2 minutes a seed on one busy core.
"""

from sslticket import Evaluate, Sweep

SEEDS = (0, 1, 2)
# The first layer has three inputs, so no pattern can be laid on it.
COMMON = {"levels": 2, "exclude": ["features.0"]}

evaluate = [
    Evaluate(protocols=["cifar10-small"], levels="0 1 2", seeds="search"),
    Evaluate(protocols=["cifar10-small"], controls=["random"], levels="1 2", seeds="search"),
]
sweeps = [
    Sweep(
        title="One-shot pruning by magnitude within N:M patterns",
        recipes=["recipes.py:conv3-oneshot"],
        settings=COMMON,
        seeds=SEEDS,
        evaluate=evaluate,
    ),
    Sweep(
        recipes=["recipes.py:conv3-oneshot"],
        settings=COMMON,
        grid={"pattern": ["2:4", "1:4"]},
        seeds=SEEDS,
        evaluate=evaluate,
    ),
]
