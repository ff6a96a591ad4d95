"""Natural zeros (finding 8) and the adjusted random baseline with shuffled labels that are learnt by heart (finding 5).

VGG-19 with an eighth of its filters on 2,000 images of CIFAR-10 for 100 epochs with Adam and weight decay 1e-4, by
labels and by shuffled labels without augmentation; Conv-6 on digits.

Run       sslticket sweep sweeps/findings/natural_zeros.py --out runs/natural_zeros --data-root /data
Cost      docs/findings.md has the core-hours that it took.
"""

from pathlib import Path

from findings_sweeps import SEEDS, TICKET, scored, searches, told

from sslticket import Evaluate, Sweep, View
from sslticket.campaign.panels import Finding, Gap, Ordering, Panel, Value

NARROW = f"{Path(__file__).with_name('narrow_networks.py')}:narrow_vgg19"
BY_HEART = {
    "model": NARROW,
    "subset": 0.04,
    "length": "3200it",
    "drops": ["1600it", "2400it"],
    "lr": 1e-3,
    "augment": View(size=16),
}
sweeps = [
    searches(
        "cifar10",
        {},
        {"shuffle-labels": 1.0},
        settings=BY_HEART,
        evaluate=[scored("cifar10", controls=["random", "adjusted"], levels="0-3")],
        title="Labels and shuffled labels, learnt by heart",
    ),
    Sweep(
        title="Conv-6 on digits",
        recipes=["supervised_digits"],
        settings={"model": "conv6", "length": "2000it", "weight-decay": 1e-4, "levels": 3, "rate": 0.7},
        seeds=SEEDS,
        evaluate=[
            Evaluate(
                protocols=["digits-demo"], controls=["random", "adjusted"], levels="0-3", seeds="search", heads=["new"]
            )
        ],
    ),
]

VGG = {"model": "narrow_vgg19", "target": "cifar10", "source": "cifar10"}
TASKS = {
    "labels": {**TICKET, "objective": "supervised"},
    "shuffled labels": {**TICKET, "objective": "supervised-shuffled"},
}
CONTROLS = {"random": {"control": "random"}, "random, adjusted": {"control": "adjusted"}}
SCORES = Panel(title="Learnt by heart", series={**TASKS, **CONTROLS}, where=VGG, x_scale="log")
CONV6 = Panel(
    title="Conv-6 on digits",
    series={"labels": TASKS["labels"], **CONTROLS},
    where={"model": "conv6", "target": "digits", "source": "digits"},
    x_scale="log",
)
ZEROS = Panel(
    title="Natural zeros",
    kind="histogram",
    y="natural_zeros",
    rows="magnitudes",
    series={
        "VGG-19, labels": {"model": "narrow_vgg19", "objective": "supervised"},
        "VGG-19, shuffled labels": {"model": "narrow_vgg19", "objective": "supervised-shuffled"},
        "Conv-6, digits": {"model": "conv6"},
    },
    where={"protocol": "search"},
)
figures = [
    told(
        "natural_zeros",
        "Natural zeros, and shuffled labels that are learnt by heart",
        "How many weights go to zero by themselves, and do shuffled labels find better than adjusted random tickets?",
        [ZEROS, SCORES, CONV6],
        [
            Finding(
                number=8,
                text="VGG-19 on CIFAR-10: 84.5% of the weights are zero at convergence.",
                check=Value(panel=ZEROS.title, series="VGG-19, labels", low=0.825, high=0.865),
            ),
            Finding(
                number=5,
                text="Tickets of shuffled labels are no better than adjusted random ones.",
                check=Gap(
                    panel=SCORES.title,
                    series=("shuffled labels", "random, adjusted"),
                    high=0.01,
                    low=-1.0,
                    contrast="labels",
                ),
            ),
            Finding(
                number=5,
                text="Tickets of labels are better than those of shuffled labels.",
                check=Ordering(panel=SCORES.title, series=["labels", "shuffled labels"]),
            ),
        ],
    )
]
