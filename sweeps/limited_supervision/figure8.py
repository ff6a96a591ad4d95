"""Figure 8: AlexNet and ResNet-50 pruned up to a given depth, by labels and by RotNet.

Top-1 on ImageNet against density. AlexNet up to the first, third and fifth convolution, ResNet-50 up to the eleventh,
24th and 43rd, and both whole. Settings: Appendix A and C, those of recipes/limited_supervision.py with --prune-up-to.
"""

from supervision_sweeps import RANDOM, SERIES, SMALL_MEANS, TRIAL_MEANS, curves, published, small, trial

from sslticket.campaign.figure import Figure
from sslticket.campaign.panels import Finding, Gap

DEPTHS = {"alexnet": ("conv1", "conv3", "conv5"), "resnet50": ("conv11", "conv24", "conv43")}
NAMES = {"alexnet": "AlexNet", "resnet50": "ResNet-50"}
# Of Conv-6 and of the 20-layer ResNet: all six convolutions, and the ends of its first two stages.
SMALL_DEPTHS = {"conv6": ("conv1", "conv3", "conv6"), "resnet20": ("conv3", "conv7", "conv14")}
SHOWN = {label: SERIES[label] for label in ("labels", "RotNet")} | RANDOM
TASKS = [{"objective": "Supervised"}, {"objective": "RotNet"}]
DEEPER = dict(zip(DEPTHS["alexnet"] + DEPTHS["resnet50"], sum(SMALL_DEPTHS.values(), ()), strict=True))
STAND_INS = {"alexnet": "conv6", "resnet50": "resnet20"} | {
    f"up to {old}": f"up to {new}" for old, new in DEEPER.items()
}

figure = Figure(
    paper="limited_supervision",
    place="Figure 8",
    title="Tickets of the first layers",
    question="Does the gap between tickets of labels and of RotNet grow with the depth that is pruned?",
    scales={
        "paper": [
            sweep
            for model, depths in DEPTHS.items()
            for grid in ({"prune-up-to": list(depths)}, {})
            for sweep in [
                published(f"supervised_{model}", f"rotnet_{model}", protocol="imagenet", controls=["random"], grid=grid)
            ]
        ],
        "small": [
            sweep
            for model, depths in SMALL_DEPTHS.items()
            for grid in ({"prune-up-to": list(depths)}, {})
            for sweep in small(*TASKS, models=[model], controls=["random"], grid=grid)
        ],
        "trial": [
            sweep
            for model, depths in SMALL_DEPTHS.items()
            for grid in ({"prune-up-to": list(depths)}, {})
            for sweep in trial(*TASKS, models=[model], controls=["random"], grid=grid)
        ],
    },
    stand_ins={"small": STAND_INS | {"imagenet": "cifar10"}, "trial": STAND_INS | {"imagenet": "digits"}},
    means={
        "small": f"{SMALL_MEANS}; Conv-6 for AlexNet, the 20-layer ResNet for ResNet-50",
        "trial": TRIAL_MEANS,
    },
    panels=[
        curves(
            f"{NAMES[model]}, {depth}",
            SHOWN,
            model=model,
            target="imagenet",
            within=f"up to {depth}" * (depth != "all"),
        )
        for model, depths in DEPTHS.items()
        for depth in (*depths, "all")
    ],
    findings=[
        Finding(
            number=3,
            text="ResNet-50 pruned in its first 11 convolutions: tickets of RotNet match those of labels.",
            check=Gap(panel="ResNet-50, conv11", series=("labels", "RotNet"), low=-0.01, high=0.01),
        ),
        Finding(
            number=3,
            text="ResNet-50 pruned whole: tickets of RotNet are worse than those of labels.",
            check=Gap(panel="ResNet-50, all", series=("labels", "RotNet"), low=0.01),
        ),
        Finding(
            number=2,
            text="AlexNet pruned in its five convolutions: tickets of RotNet match those of labels.",
            check=Gap(panel="AlexNet, conv5", series=("labels", "RotNet"), low=-0.01, high=0.01),
        ),
    ],
)
