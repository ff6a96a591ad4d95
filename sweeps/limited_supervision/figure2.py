"""Figure 2: AlexNet pruned up to a given depth, by labels and by RotNet.

Top-1 on ImageNet against density: up to the first, third and fifth convolution, and the whole network. Settings:
Appendix A and C, those of recipes/limited_supervision.py with --prune-up-to.
"""

from supervision_sweeps import RANDOM, SERIES, SMALL_MEANS, TRIAL_MEANS, curves, published, small, trial

from sslticket.campaign.figure import Figure
from sslticket.campaign.panels import Between, Finding, Gap

DEPTHS = {"conv1": "up to conv1", "conv3": "up to conv3", "conv5": "up to conv5", "all": ""}
SHOWN = {label: SERIES[label] for label in ("labels", "RotNet")} | RANDOM
TASKS = [{"objective": "Supervised"}, {"objective": "RotNet"}]
SMALL_DEPTHS = {"prune-up-to": ["conv1", "conv3", "conv6"]}

figure = Figure(
    paper="limited_supervision",
    place="Figure 2",
    title="Tickets of AlexNet's first layers",
    question="Do tickets without labels match those of labels where only early layers are pruned?",
    scales={
        "paper": [
            published(
                "supervised_alexnet",
                "rotnet_alexnet",
                protocol="imagenet",
                controls=["random"],
                grid={"prune-up-to": ["conv1", "conv3", "conv5"]},
            ),
            published("supervised_alexnet", "rotnet_alexnet", protocol="imagenet", controls=["random"]),
        ],
        "small": [
            *small(*TASKS, models=["conv6"], controls=["random"], grid=SMALL_DEPTHS),
            *small(*TASKS, models=["conv6"], controls=["random"]),
        ],
        "trial": [
            *trial(*TASKS, models=["conv6"], controls=["random"], grid=SMALL_DEPTHS),
            *trial(*TASKS, models=["conv6"], controls=["random"]),
        ],
    },
    stand_ins={
        "small": {"alexnet": "conv6", "imagenet": "cifar10", "up to conv5": "up to conv6"},
        "trial": {"alexnet": "conv6", "imagenet": "digits", "up to conv5": "up to conv6"},
    },
    means={
        "small": f"{SMALL_MEANS}; Conv-6, whose multilayer perceptron comes after six convolutions, for AlexNet",
        "trial": TRIAL_MEANS,
    },
    panels=[
        curves(depth, SHOWN, model="alexnet", target="imagenet", within=within) for depth, within in DEPTHS.items()
    ],
    findings=[
        *(
            Finding(
                number=2,
                text=f"AlexNet pruned up to {depth}: tickets without labels match those of labels.",
                check=Gap(panel=depth, series=("labels", "RotNet"), low=-0.01, high=0.01),
            )
            for depth in ("conv1", "conv3", "conv5")
        ),
        Finding(
            number=2,
            text="AlexNet pruned whole, multilayer perceptron and all: tickets without labels fail.",
            check=Gap(panel="all", series=("labels", "RotNet"), at=Between(high=0.5), low=0.01),
        ),
    ],
)
