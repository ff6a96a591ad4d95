"""What early birds cost and what their tickets are worth, beside full iterative magnitude pruning.

Run       sslticket sweep experiments/early_bird/early_bird_sweep.py --out runs/early-bird --data-root /data
"""

from sslticket import Evaluate, Sweep

SEEDS = (0, 1, 2)

sweeps = [
    Sweep(
        title="Early birds of three convolutions",
        recipes=["recipes.py:conv3"],
        grid={"early-bird": [None, 0.05, 0.1, 0.2, 0.4]},
        seeds=SEEDS,
        evaluate=[Evaluate(protocols=["cifar10-small"], levels="2 4 6", seeds="search")],
    ),
    Sweep(
        title="Early birds of the small search of make bench",
        recipes=["recipes.py:resnet8"],
        points=[
            {"early-bird": None},
            {"early-bird": 0.2},
            {"early-bird": 0.2, "early-bird-window": 1, "early-bird-every": "5it"},
            {"early-bird": 0.4, "early-bird-window": 1, "early-bird-every": "5it"},
        ],
        seeds=SEEDS,
        evaluate=[Evaluate(protocols=["own"], levels="3", seeds="search")],
    ),
]
