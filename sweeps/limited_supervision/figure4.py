"""Figure 4: tickets found on shuffled labels.

Top-1 on CIFAR-10 against density, VGG-19 and ResNet-18: labels, labels permuted among the images, and random tickets
that start from the mask of natural zeros. Settings: Appendix A, those of recipes/limited_supervision.py.
"""

from dataclasses import replace

from supervision_sweeps import ADJUSTED, SMALL_MEANS, TRIAL_MEANS, curves, published, small, trial

from sslticket.campaign.figure import Figure
from sslticket.campaign.panels import Between, Finding, Gap, Ordering, Published

SERIES = {
    "labels": {"objective": "supervised", "control": "ticket"},
    "shuffled labels": {"objective": "supervised-shuffled", "control": "ticket"},
    **ADJUSTED,
}
NATURAL = (
    Published(drawn="threshold-x", place="Figure 4 caption", quantity="sparsity_percent", words="natural zeros"),
)
NETWORKS = {"VGG-19": "vgg19", "ResNet-18": "resnet18_cifar"}
LABELS = [{}, {"shuffle-labels": 1.0}]

figure = Figure(
    paper="limited_supervision",
    place="Figure 4",
    title="Tickets from shuffled labels",
    question="Is a ticket any better than a random one where labels have nothing to do with the images?",
    scales={
        "paper": [
            published(
                *(
                    f"{kind}_{network}_cifar10"
                    for network in ("vgg19", "resnet18")
                    for kind in ("supervised", "shuffled")
                ),
                protocol="cifar10",
                controls=["adjusted"],
            )
        ],
        "small": small(*LABELS, models=["conv3", "resnet20"], controls=["adjusted", "random"]),
        "trial": trial(*LABELS, models=["conv3", "resnet20"], controls=["adjusted"]),
    },
    stand_ins={
        "small": {"vgg19": "conv3", "resnet18_cifar": "resnet20"},
        "trial": {"vgg19": "conv3", "resnet18_cifar": "resnet20", "cifar10": "digits"},
    },
    means={
        "small": f"{SMALL_MEANS}; shuffled labels are learnt with augmentation; networks as small as these have no "
        "natural zeros, so the adjusted random ticket is a random one",
        "trial": TRIAL_MEANS,
    },
    panels=[
        replace(
            curves(name, SERIES, model=model, target="cifar10"),
            published=NATURAL,
            order=["labels", ("shuffled labels", "random, adjusted")],
        )
        for name, model in NETWORKS.items()
    ],
    findings=[
        finding
        for name in NETWORKS
        for finding in (
            Finding(
                number=5,
                text=f"{name}: tickets of shuffled labels are no better than adjusted random ones.",
                check=Gap(
                    panel=name,
                    series=("shuffled labels", "random, adjusted"),
                    at=Between(high=0.15),
                    high=0.01,
                    contrast="labels",
                ),
            ),
            Finding(
                number=5,
                text=f"{name}: tickets of labels are better than those of shuffled labels.",
                check=Ordering(panel=name, series=["labels", "shuffled labels"], at=Between(high=0.15)),
            ),
        )
    ],
)
