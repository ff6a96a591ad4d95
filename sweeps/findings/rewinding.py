"""Where W_k is best taken on parts of CIFAR-10: rewind points from 0 to 20% of the training (findings 9 and 15).

Run       sslticket sweep sweeps/findings/rewinding.py --out runs/rewinding --data-root /data
Cost      docs/findings.md has the core-hours that it took.
"""

from findings_sweeps import scored, searches

POINTS = ("0it", "4it", "8it", "20it", "40it", "60it", "80it")
sweeps = [
    searches(
        "cifar10",
        *({"subset": part, "rewind": point} for part in (1.0, 0.1, 0.03) for point in POINTS),
        evaluate=[scored("cifar10", levels="2 3")],
        title="Rewind points on parts of the images",
    )
]
