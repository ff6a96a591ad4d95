"""Figure 5: VGG-19's tickets of one optimiser under another.

Top-1 on CIFAR-10 against density, trained with (a) SGD and (b) Adam: tickets of SGD and of Adam, and random ones.
Settings: sections 4.3 and A.1, those of recipes/one_ticket.py.
"""

from transfer_sweeps import RANDOM, SEEDS, SMALL_MEANS, TRIAL_MEANS, scored, small, trial

from sslticket.campaign.figure import Figure
from sslticket.campaign.panels import Between, Finding, Gap, Ordering, Panel
from sslticket.campaign.sweep import Sweep

SERIES = {
    f"{name} ticket": {"optimizer": name, "source": "cifar10", "control": "ticket", "objective": "supervised"}
    for name in ("SGD", "Adam")
}
MOMENTUM = {"optimizer": "SGD", "lr": 0.1}
TARGETS = {"(a) SGD": "cifar10-sgd", "(b) Adam": "cifar10-adam"}

figure = Figure(
    paper="one_ticket",
    place="Figure 5",
    title="Transfer across optimisers",
    question="Do tickets that were found with one optimiser serve another?",
    scales={
        "paper": [
            Sweep(
                recipes=["transfer_vgg19_cifar10", "transfer_vgg19_cifar10_adam"],
                seeds=SEEDS,
                evaluate=[scored(*TARGETS.values())],
            )
        ],
        "small": [small("cifar10-small-sgd", "cifar10-small", settings=own) for own in ({}, MOMENTUM)],
        "trial": [
            trial(
                "fashion_mnist-small-sgd",
                "fashion_mnist-small",
                settings={"dataset": "fashion_mnist", "image-size": 16, **own},
            )
            for own in ({}, MOMENTUM)
        ],
    },
    stand_ins={
        "small": {"vgg19": "conv3", "cifar10-sgd": "cifar10-small-sgd", "cifar10-adam": "cifar10-small"},
        "trial": {
            "vgg19": "conv3",
            "cifar10": "fashion_mnist",
            "cifar10-sgd": "fashion_mnist-small-sgd",
            "cifar10-adam": "fashion_mnist-small",
        },
    },
    means={"small": f"{SMALL_MEANS}; CIFAR-10, SGD at 0.1", "trial": f"{TRIAL_MEANS}; Fashion-MNIST"},
    panels=[
        Panel(
            title=title,
            series={**SERIES, **RANDOM},
            where={"model": "vgg19", "target": "cifar10", "protocol": protocol},
            x_scale="log",
            order=[tuple(SERIES), "random"],
            order_at=Between(high=0.1),
        )
        for title, protocol in TARGETS.items()
    ],
    findings=[
        finding
        for title, (own, other) in {"(a) SGD": ("SGD", "Adam"), "(b) Adam": ("Adam", "SGD")}.items()
        for finding in (
            Finding(
                number=13,
                text=f"Trained with {own}: tickets of {other} are as good as those of {own}.",
                check=Gap(
                    panel=title,
                    series=(f"{own} ticket", f"{other} ticket"),
                    at=Between(high=0.5),
                    low=-0.01,
                    high=0.01,
                ),
            ),
            Finding(
                number=13,
                text=f"Trained with {own}: at high pruning tickets of {other} are better than random ones.",
                check=Ordering(panel=title, series=[f"{other} ticket", "random"], at=Between(high=0.1)),
            ),
        )
    ],
)
