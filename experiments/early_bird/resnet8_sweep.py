"""Early birds of the small search by which `make bench` compares whole searches: what their tickets of 51% are worth.

Run       sslticket sweep experiments/early_bird/resnet8_sweep.py --out runs/early-bird --data-root /data
Cost      4 minutes on one core.
"""

from sslticket import Evaluate, Sweep

sweep = Sweep(
    title="Early birds of a narrow ResNet-8",
    recipes=["recipes.py:resnet8"],
    points=[
        {"early-bird": None},
        {"early-bird": 0.05},
        {"early-bird": 0.2},
        {"early-bird": 0.2, "early-bird-window": 1, "early-bird-every": "5it"},
    ],
    seeds=(0, 1, 2),
    evaluate=[Evaluate(protocols=["own"], levels="3", seeds="search")],
)
