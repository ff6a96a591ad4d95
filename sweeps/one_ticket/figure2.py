"""Figure 2: tickets of one half of CIFAR-10 on the other.

Top-1 on CIFAR-10b against density: tickets of CIFAR-10a and of CIFAR-10b, and random ones; (a) VGG-19, (b) ResNet-50.
Settings: sections 4.1 and A.1, those of recipes/one_ticket.py with --half.
"""

from transfer_sweeps import RANDOM, SEEDS, SMALL_MEANS, TRIAL_MEANS, scored, small, trial

from sslticket.campaign.figure import Figure
from sslticket.campaign.panels import Between, Finding, Gap, Ordering, Panel
from sslticket.campaign.sweep import Sweep

HALVES = {"half": ["a", "b"]}
SERIES = {
    f"CIFAR-10{half} ticket": {"source": f"cifar10{half}", "control": "ticket", "objective": "supervised"}
    for half in "ab"
}
NETWORKS = {"VGG-19": "vgg19", "ResNet-50": "resnet50"}
SMALL_NETWORKS = ("conv3", "resnet20")
PANELS = [
    Panel(
        title=name,
        series={**SERIES, **RANDOM},
        where={"model": model, "target": "cifar10b", "protocol": "cifar10b-sgd"},
        x_scale="log",
        order=[tuple(SERIES), "random"] if name == "VGG-19" else (),
    )
    for name, model in NETWORKS.items()
]

figure = Figure(
    paper="one_ticket",
    place="Figure 2",
    title="Transfer within one distribution",
    question="Do tickets of one half of CIFAR-10 serve the other half?",
    scales={
        "paper": [
            Sweep(
                recipes=[f"transfer_{model}_cifar10" for model in NETWORKS.values()],
                grid=HALVES,
                seeds=SEEDS,
                evaluate=[scored("cifar10b-sgd")],
            )
        ],
        "small": [small("cifar10b-small", model=model, grid=HALVES) for model in SMALL_NETWORKS],
        "trial": [
            trial("cifar10b-small", model=model, grid=HALVES, settings={"dataset": "cifar10", "image-size": 16})
            for model in SMALL_NETWORKS[:1]
        ],
    },
    stand_ins={
        "small": {"vgg19": "conv3", "resnet50": "resnet20", "cifar10b-sgd": "cifar10b-small"},
        "trial": {"vgg19": "conv3", "resnet50": "resnet20", "cifar10b-sgd": "cifar10b-small"},
    },
    means={
        "small": f"{SMALL_MEANS}; halves of CIFAR-10",
        "trial": f"{TRIAL_MEANS}; three convolutions on halves of CIFAR-10",
    },
    panels={"paper": PANELS, "small": PANELS, "trial": PANELS[:1]},
    findings=[
        Finding(
            number=12,
            text="VGG-19: tickets of CIFAR-10a are as good on CIFAR-10b as its own.",
            check=Gap(
                panel="VGG-19",
                series=("CIFAR-10b ticket", "CIFAR-10a ticket"),
                at=Between(high=0.5),
                low=-0.01,
                high=0.01,
            ),
        ),
        *(
            Finding(
                number=12,
                text=f"{name}: at extreme pruning tickets of CIFAR-10a are better than random ones.",
                check=Ordering(panel=name, series=["CIFAR-10a ticket", "random"], at=Between(high=0.05)),
            )
            for name in NETWORKS
        ),
    ],
)
