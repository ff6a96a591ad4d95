"""Dynamic sparse training in docs/dynamic-sparse.md: RigL and SET beside IMP and a mask that stays.

Run       sslticket sweep experiments/searches/dynamic_sweep.py --out runs/dynamic --data-root /data
Cost      5 minutes on two busy cores, 5 minutes and 13 seconds of trainings.
"""

from sslticket import Evaluate, Sweep

SEEDS = (0, 1, 2)


def scores(levels: str) -> Evaluate:
    """Top-1 of the masks from W_0, each search's tickets under its own seed."""
    return Evaluate(protocols=["own"], levels=levels, seeds="search")


sweeps = [
    Sweep(
        title="Dynamic sparse training at equal density",
        recipes=["recipes.py:dynamic-imp"],
        seeds=SEEDS,
        evaluate=[scores("3 6")],
    ),
    Sweep(
        recipes=[f"recipes.py:dynamic-{name}" for name in ("rigl", "set", "static")],
        seeds=SEEDS,
        evaluate=[scores("1 2")],
    ),
]
