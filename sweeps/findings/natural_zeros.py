"""Natural zeros (finding 8) and the adjusted random baseline with shuffled labels that are learnt by heart (finding 5).

VGG-19 with an eighth of its filters on 2,000 images of CIFAR-10 for 100 epochs with Adam and weight decay 1e-4, by
labels and by shuffled labels without augmentation; Conv-6 on digits.

Run       sslticket sweep sweeps/findings/natural_zeros.py --out runs/natural_zeros --data-root /data
Cost      docs/findings.md has the core-hours that it took.
"""

from pathlib import Path

from findings_sweeps import SEEDS, scored, searches

from sslticket import Evaluate, Sweep, View

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
