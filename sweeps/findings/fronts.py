"""What finding a ticket costs and what it is worth: early birds, one-shot and learnt masks beside subsets (finding 4).

Its picture has the rows of lowshot_cifar10.py, too, which is of the same scale.

Run       sslticket sweep sweeps/findings/fronts.py --out runs/fronts --data-root /data
Cost      docs/findings.md has the core-hours that it took.
"""

from findings_sweeps import searches

sweeps = [
    searches(
        "cifar10",
        *({"early-bird": bound, "early-bird-every": "10it"} for bound in (0.05, 0.1, 0.2)),
        title="Early birds",
    ),
    searches("cifar10", {"search": "OneShot"}, title="One shot"),
    searches(
        "cifar10",
        *(
            {
                "search": "ContinuousSparsification",
                "rounds": 3,
                "rewind-weights": True,
                "final-temperature": 100.0,
                "penalty": 1e-8,
                "initial-score": score,
            }
            for score in (0.0, -0.02)
        ),
        without=("levels", "rate"),
        title="Continuous Sparsification",
    ),
]
