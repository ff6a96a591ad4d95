"""Figure 2: VGG-19's tickets of one optimiser under another, reproduced.

Top-1 on CIFAR-10 against density, trained with SGD and with Adam: tickets of either, and random ones. Settings: section
3, those of recipes/one_ticket.py.
"""

from report_sweeps import RANDOM, SMALL_MEANS, TRIAL_MEANS, published, small, trial

from sslticket.campaign.figure import Figure
from sslticket.campaign.panels import Between, Finding, Gap, Panel

SERIES = {
    f"{name} ticket": {"optimizer": name, "source": "cifar10", "control": "ticket", "objective": "supervised"}
    for name in ("SGD", "Adam")
}
OPTIMIZERS = [{}, {"optimizer": "SGD", "lr": 0.1}]
TARGETS = {"SGD": "cifar10-sgd", "Adam": "cifar10-adam"}

figure = Figure(
    paper="one_ticket_report",
    place="Figure 2",
    title="Transfer across optimisers",
    question="Do tickets that were found with one optimiser serve another?",
    scales={
        "paper": [published("transfer_vgg19_cifar10", "transfer_vgg19_cifar10_adam", protocols=list(TARGETS.values()))],
        "small": [small("cifar10-small-sgd", "cifar10-small", points=OPTIMIZERS)],
        "trial": [
            trial(
                "fashion_mnist-small-sgd",
                "fashion_mnist-small",
                points=[{"dataset": "fashion_mnist", "image-size": 16, **each} for each in OPTIMIZERS],
            )
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
            title=f"Trained with {name}",
            series={**SERIES, **RANDOM},
            where={"model": "vgg19", "target": "cifar10", "protocol": protocol},
            x_scale="log",
            order=[tuple(SERIES), "random"],
            order_at=Between(high=0.1),
        )
        for name, protocol in TARGETS.items()
    ],
    findings=[
        Finding(
            number=13,
            text=f"Trained with {own}: tickets of {other} are as good as those of {own}.",
            check=Gap(
                panel=f"Trained with {own}",
                series=(f"{own} ticket", f"{other} ticket"),
                at=Between(high=0.5),
                low=-0.01,
                high=0.01,
            ),
        )
        for own, other in (("SGD", "Adam"), ("Adam", "SGD"))
    ],
)
