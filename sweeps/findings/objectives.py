"""Which objectives find tickets: all of them on CIFAR-10, at eight densities, by searches of 200 steps a level.

Run       sslticket sweep sweeps/findings/objectives.py --out runs/objectives --data-root /data
Cost      docs/findings.md has the core-hours that it took.
"""

from findings_sweeps import TENTH_OF_LABELS, TICKET, by_density, scored, searches, told

from sslticket.campaign.panels import Between, Finding, Gap, Ordering

HALVED = {"levels": 7, "rate": 0.5, "length": "200it", "drops": ["140it", "180it"], "rewind": "1920samples"}
# Projectors of the width of their papers, 8,192, would cost a hundred times as much as these 64 features.
WITHOUT_LABELS: tuple[dict[str, object], ...] = (
    {"objective": "RotNet"},
    {"objective": "Exemplar"},
    {"objective": "SimCLR"},
    {"objective": "MoCoV2"},
    {"objective": "BYOL", "hidden": 512},
    {"objective": "SimSiam", "dim": 512},
    {"objective": "BarlowTwins", "hidden": 512, "dim": 512},
    {"objective": "VICReg", "hidden": 512, "dim": 512},
    {"objective": "SwAV", "hidden": 512, "prototypes": 300},
    {"objective": "DINO", "hidden": 512, "outputs": 4096},
)
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
        *WITHOUT_LABELS,
        *FEW_LABELS,
        {"shuffle-labels": 1.0},
        settings=HALVED,
        evaluate=[scored("cifar10", levels="1-7")],
        title="All other objectives",
    ),
]

LABELS = {"labels": "supervised"}
SHOWN = {
    "(a) Labels, some of them, or wrong ones": {
        **LABELS,
        "S4L, 10% of the labels": "s4l-rotation",
        "S4L-Exemplar, 10%": "s4l-exemplar",
        "shuffled labels": "supervised-shuffled",
    },
    "(b) Tasks made up": {**LABELS, "RotNet": "rotnet", "Exemplar": "exemplar"},
    "(c) Two views of an image": {
        **LABELS,
        "SimCLR": "simclr",
        "MoCo v2": "mocov2",
        "BYOL": "byol",
        "SimSiam": "simsiam",
    },
    "(d) Decorrelation and clusters": {
        **LABELS,
        "Barlow Twins": "barlowtwins",
        "VICReg": "vicreg",
        "SwAV": "swav",
        "DINO": "dino",
    },
}
PANELS = [
    by_density(
        title,
        {label: {**TICKET, "objective": name, "subset": 1.0} for label, name in shown.items()},
        target="cifar10",
        source="cifar10",
    )
    for title, shown in SHOWN.items()
]
PLACES = {label: title for title, shown in reversed(SHOWN.items()) for label in shown}
SEVERE = Between(high=0.1)
# What the paper says of CIFAR-10 is finding 1, and of ImageNet finding 2.
OF_FINDING_1 = ("labels", "RotNet")
# Two families, each corrected by itself: six searches a side can tell up to 23 statements apart.
figures = [
    told(
        "objectives_beat_random",
        "Objectives against random tickets",
        "Which objectives find tickets that are better than random ones where more than 90% is pruned?",
        PANELS,
        [
            Finding(
                number=1 if label in OF_FINDING_1 else 2,
                text=f"{label}: better than random tickets.",
                check=Ordering(panel=title, series=(label, "random"), at=SEVERE),
            )
            for label, title in PLACES.items()
        ],
    ),
    told(
        "objectives_match_labels",
        "Objectives against labels",
        "Which objectives find tickets that are within a point of those of labels where more than 90% is pruned?",
        PANELS,
        [
            Finding(
                number=1 if label in OF_FINDING_1 else 2,
                text=f"{label}: within a point of labels.",
                check=Gap(panel=title, series=(label, "labels"), at=SEVERE, low=-0.01, high=0.01),
            )
            for label, title in PLACES.items()
            if label != "labels"
        ],
    ),
]
