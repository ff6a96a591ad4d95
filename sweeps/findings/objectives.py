"""Which objectives find tickets: all of them on CIFAR-10, at eight densities, with a probe of what they learn.

Run       sslticket sweep sweeps/findings/objectives.py --out runs/objectives --data-root /data --probe 400it
Cost      docs/findings.md has the core-hours that it took.
"""

from findings_sweeps import TENTH_OF_LABELS, scored, searches

HALVED = {"levels": 7, "rate": 0.5}
WITHOUT_LABELS = ("RotNet", "Exemplar", "SimCLR", "MoCoV2", "BYOL", "SimSiam", "BarlowTwins", "VICReg", "SwAV", "DINO")
FEW_LABELS = (TENTH_OF_LABELS, {**TENTH_OF_LABELS, "objective": "S4LExemplar"})
sweeps = [
    searches(
        "cifar10",
        {"objective": "Supervised"},
        settings=HALVED,
        evaluate=[scored("cifar10", controls=["random"], levels="0-7"), scored("cifar10", heads=["own"], levels="0-7")],
        title="Labels, and random tickets",
    ),
    searches(
        "cifar10",
        *({"objective": name} for name in WITHOUT_LABELS),
        *FEW_LABELS,
        {"shuffle-labels": 1.0},
        settings=HALVED,
        evaluate=[scored("cifar10", levels="1-7")],
        title="All other objectives",
    ),
]
