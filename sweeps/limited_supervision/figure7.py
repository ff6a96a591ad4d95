"""Figure 7: the rewind point of tickets from 10% of ImageNet.

Top-1 of ResNet-50 on ImageNet against density. W_k is taken where one of epochs, samples, updates and share of the
training is that of the rewind point on all of ImageNet (Table 1, first row). Settings: Appendix A and B.
"""

from supervision_sweeps import SMALL, SMALL_MEANS, TRIAL_MEANS, curves, published

from sslticket.campaign.figure import Figure
from sslticket.campaign.panels import Finding, Ordering
from sslticket.campaign.sweep import Evaluate, Sweep

REWINDS = {"samples": "3840000samples", "updates": "2500it", "share of training": "3.3%", "epochs": "3ep"}
SERIES = {f"the same {what}": {"rewind": rewind, "control": "ticket"} for what, rewind in REWINDS.items()}
# On all of CIFAR-10, W_k comes after 30 of 200 steps of 64 images: 1,920 samples, 0.0384 epochs, 15% of the training.
# On 10% of it, 600 steps of 32 images keep the four apart.
SMALL_REWINDS = dict(zip(REWINDS.values(), ["1920samples", "30it", "15%", "0.0384ep"], strict=True))
SCORED = Evaluate(protocols=["cifar10-small"], levels="0 2 4 6", seeds="search", heads=["new"])

figure = Figure(
    paper="limited_supervision",
    place="Figure 7",
    title="Rewind points of low-shot tickets",
    question="Which criterion makes rewind points on a subset and on the whole set comparable?",
    scales={
        "paper": [
            published("supervised_resnet50_samples10", protocol="imagenet", grid={"rewind": list(REWINDS.values())})
        ],
        "small": [
            Sweep(
                recipes=["supervised_digits"],
                settings={**SMALL, "subset": 0.1, "length": "600it", "batch-size": 32},
                grid={"rewind": list(SMALL_REWINDS.values())},
                seeds=range(3),
                evaluate=[SCORED],
            )
        ],
        "trial": [
            Sweep(
                recipes=["supervised_digits"],
                settings={"length": "20it", "levels": 2, "subset": 0.5},
                grid={"rewind": ["256samples", "4it", "15%", "0.2ep"]},
                evaluate=[Evaluate(levels="0-2", seeds="search", heads=["new"])],
            )
        ],
    },
    stand_ins={
        "small": {"resnet50": "conv3", "imagenet": "cifar10", **SMALL_REWINDS},
        "trial": {
            "resnet50": "conv3",
            "imagenet": "digits",
            **dict(zip(REWINDS.values(), ["256samples", "4it", "15%", "0.2ep"], strict=True)),
        },
    },
    means={
        "small": f"{SMALL_MEANS}; three convolutions on 10% of CIFAR-10, 600 steps of 32 images",
        "trial": TRIAL_MEANS,
    },
    panels=[
        curves("Rewind point", SERIES, model="resnet50", target="imagenet", objective="supervised"),
    ],
    findings=[
        Finding(
            number=9,
            text="Low-shot tickets that are rewound after as many samples are better than after as few epochs.",
            check=Ordering(panel="Rewind point", series=["the same samples", "the same epochs"]),
        )
    ],
)
