"""Figure 1: tickets of one half of CIFAR-10 on the other, reproduced.

Top-1 on CIFAR-10b against density: tickets of CIFAR-10a and of CIFAR-10b, and random ones, of VGG-19 and ResNet-50.
Settings: section 3, those of recipes/one_ticket.py with --half.
"""

from report_sweeps import RANDOM, SMALL_MEANS, TRIAL_MEANS, published, small, trial

from sslticket.campaign.figure import Figure
from sslticket.campaign.panels import Between, Finding, Gap, Ordering, Panel

HALVES = [{"half": "a"}, {"half": "b"}]
SERIES = {
    f"CIFAR-10{half} ticket": {"source": f"cifar10{half}", "control": "ticket", "objective": "supervised"}
    for half in "ab"
}
NETWORKS = {"VGG-19": "vgg19", "ResNet-50": "resnet50"}
STAND_INS = {"vgg19": "conv3", "resnet50": "resnet20", "cifar10b-sgd": "cifar10b-small"}
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
    paper="one_ticket_report",
    place="Figure 1",
    title="Transfer within one distribution",
    question="Do tickets of one half of CIFAR-10 serve the other half?",
    scales={
        "paper": [
            published("transfer_vgg19_cifar10", "transfer_resnet50_cifar10", protocols=["cifar10b-sgd"], points=HALVES)
        ],
        "small": [small("cifar10b-small", model=model, points=HALVES) for model in ("conv3", "resnet20")],
        "trial": [
            trial("cifar10b-small", points=[{"dataset": "cifar10", "image-size": 16, **half} for half in HALVES])
        ],
    },
    stand_ins={"small": STAND_INS, "trial": STAND_INS},
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
        Finding(
            text="ResNet-50: at low pruning fractions random tickets are better than either half's.",
            check=Ordering(panel="ResNet-50", series=["random", tuple(SERIES)], at=Between(low=0.2, high=0.9)),
        ),
    ],
)
