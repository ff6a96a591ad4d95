"""What early birds cost and what their tickets are worth, beside full iterative magnitude pruning.

Run       sslticket sweep experiments/early_bird/early_bird_sweep.py --out runs/early-bird --data-root /data
Cost      6 minutes on one core.
"""

from sslticket import Evaluate, Sweep

sweep = Sweep(
    title="Early birds of three convolutions",
    recipes=["recipes.py:conv3"],
    grid={"early-bird": [None, 0.05, 0.1, 0.2, 0.4]},
    seeds=(0, 1, 2),
    evaluate=[Evaluate(protocols=["cifar10-small"], levels="2 4 6", seeds="search")],
)
