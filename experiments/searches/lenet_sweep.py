"""LeNet 300-100 on Fashion-MNIST in docs/searches.md, at its published length: IMP, one-shot, and criteria of W_0.

Run       sslticket sweep experiments/searches/lenet_sweep.py --out runs/searches-lenet --data-root /data
Cost      156 minutes a seed on one busy core.
"""

from sslticket import Analyse, Evaluate, Sweep

SEEDS = (0, 1, 2)
PROTOCOL = ["fashion_mnist"]

sweeps = [
    Sweep(
        title="Searches and criteria at equal density, LeNet",
        recipes=["stabilizing_lenet300_mnist"],
        settings={"dataset": "fashion_mnist", "levels": 5, "rate": 0.36},
        seeds=SEEDS,
        evaluate=[Evaluate(protocols=PROTOCOL, controls=["random"], levels="5", seeds="search")],
        analyse=[Analyse(analysis="stability", protocols=PROTOCOL, controls=["local"], levels="5", seeds="search")],
    ),
    Sweep(
        recipes=[f"recipes.py:lenet-{name}" for name in ("snip", "grasp", "synflow", "magnitude", "oneshot")],
        seeds=SEEDS,
        evaluate=[Evaluate(protocols=PROTOCOL, levels="5", seeds="search")],
    ),
]
