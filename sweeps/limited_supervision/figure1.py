"""Figure 1: tickets found without labels, beside those of labels and random ones.

Top-1 against density. (a) CIFAR-10, VGG-19 and ResNet-18; the random tickets start from the mask of natural zeros. (b)
ImageNet, ResNet-50 and AlexNet. Settings: Appendix A, those of recipes/limited_supervision.py.
"""

from dataclasses import replace

from supervision_sweeps import ADJUSTED, RANDOM, SERIES, SMALL_MEANS, TRIAL_MEANS, curves, published, small, trial

from sslticket.campaign.figure import Figure
from sslticket.campaign.panels import Between, Finding, Gap, Ordering, Published

OBJECTIVES = [{"objective": "Supervised"}, {"objective": "RotNet"}, {"objective": "Exemplar"}]
KINDS = ("supervised", "rotnet", "exemplar")
NATURAL = (
    Published(drawn="threshold-x", place="Figure 1 caption", quantity="sparsity_percent", words="natural zeros"),
    Published(drawn="threshold-x", place="section 4.1", quantity="remaining_percent", words="RotNet equals labels"),
)
EXTREME = (Published(drawn="threshold-x", place="section 3.2", quantity="remaining_percent"),)

VGG19 = curves("CIFAR-10, VGG-19", {**SERIES, **ADJUSTED}, model="vgg19", target="cifar10")
RESNET18 = curves("CIFAR-10, ResNet-18", {**SERIES, **ADJUSTED}, model="resnet18_cifar", target="cifar10")
RESNET50 = curves("ImageNet, ResNet-50", {**SERIES, **RANDOM}, model="resnet50", target="imagenet")
ALEXNET = curves("ImageNet, AlexNet", {**SERIES, **RANDOM}, model="alexnet", target="imagenet")

figure = Figure(
    paper="limited_supervision",
    place="Figure 1",
    title="Tickets without labels",
    question="Are tickets that were found without labels as good for classification as those of labels?",
    scales={
        "paper": [
            published(
                *(f"{kind}_{model}_cifar10" for model in ("vgg19", "resnet18") for kind in KINDS),
                protocol="cifar10",
                controls=["adjusted"],
            ),
            published(
                *(f"{kind}_{model}" for model in ("resnet50", "alexnet") for kind in KINDS),
                protocol="imagenet",
                controls=["random"],
            ),
        ],
        "small": [
            *small(*OBJECTIVES, models=["conv3", "resnet20"], controls=["adjusted", "random"]),
            *small(*OBJECTIVES, models=["conv6"], controls=["random"]),
        ],
        "trial": [
            *trial(*OBJECTIVES, models=["conv3", "resnet20"], controls=["adjusted", "random"]),
            *trial(*OBJECTIVES, models=["conv6"], controls=["random"]),
        ],
    },
    stand_ins={
        scale: {
            "vgg19": "conv3",
            "resnet18_cifar": "resnet20",
            "resnet50": "resnet20",
            "alexnet": "conv6",
            "imagenet": target,
            "cifar10": target,
        }
        for scale, target in (("small", "cifar10"), ("trial", "digits"))
    },
    means={"small": SMALL_MEANS, "trial": TRIAL_MEANS},
    panels=[
        replace(VGG19, published=NATURAL, order=[("labels", "RotNet"), "random, adjusted"]),
        replace(RESNET18, published=NATURAL, order=[("labels", "RotNet"), "random, adjusted"]),
        replace(
            RESNET50,
            published=EXTREME,
            order=["labels", ("RotNet", "Exemplar"), "random"],
            order_at=Between(low=0.1, high=0.9),
        ),
        replace(ALEXNET, published=EXTREME),
    ],
    findings=[
        *(
            Finding(
                number=1,
                text=f"{network} at 6.9% of the weights: the RotNet ticket performs as the labels ticket.",
                check=Gap(
                    panel=f"CIFAR-10, {network}",
                    series=("labels", "RotNet"),
                    at=Between(low=0.055, high=0.085),
                    low=-0.01,
                    high=0.01,
                    contrast="random, adjusted",
                ),
            )
            for network in ("VGG-19", "ResNet-18")
        ),
        Finding(
            number=2,
            text="ResNet-50 at moderate density: labels are better than RotNet and Exemplar, and these than random.",
            check=Ordering(
                panel="ImageNet, ResNet-50",
                series=["labels", ("RotNet", "Exemplar"), "random"],
                at=Between(low=0.1, high=0.9),
            ),
        ),
        Finding(
            number=2,
            text="ResNet-50 after severe pruning: tickets without labels match those of labels.",
            check=Gap(
                panel="ImageNet, ResNet-50",
                series=("labels", "RotNet"),
                at=Between(high=0.03),
                low=-0.01,
                high=0.01,
            ),
        ),
        Finding(
            number=2,
            text="AlexNet: tickets without labels fail.",
            check=Gap(panel="ImageNet, AlexNet", series=("labels", "RotNet"), at=Between(high=0.5), low=0.01),
        ),
    ],
)
