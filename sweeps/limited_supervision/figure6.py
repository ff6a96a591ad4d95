"""Figure 6: the weights of trained dense networks by magnitude, on CIFAR-10 and on ImageNet.

VGG-19 and ResNet-18; what is at most the machine precision of float32 counts as zero. Settings: Appendix A, those of
recipes/limited_supervision.py; ResNet-50's on ImageNet for both networks, for which the paper gives none.
"""

from dataclasses import replace

from magnitude_sweeps import SMALL_MEANS, TRIAL_MEANS, histogram, published, small, trial

from sslticket.campaign.figure import Figure
from sslticket.campaign.panels import Finding, Published, Value


def zeros(network: str) -> tuple[Published, ...]:
    """The paper's share of zeros."""
    return (
        Published(
            drawn="note", place="Figure 6 caption", network=network, quantity="natural_zeros_percent", series="CIFAR-10"
        ),
    )


figure = Figure(
    paper="limited_supervision",
    place="Figure 6",
    title="Natural zeros",
    question="How many weights does training take to zero by itself on CIFAR-10 and on ImageNet?",
    scales={
        "paper": published(["vgg19", "resnet18_cifar"], ["vgg19", "resnet18"]),
        "small": small(["lenet300", "conv3"]),
        "trial": trial(["lenet300", "conv3"]),
    },
    stand_ins={
        "small": {
            "vgg19": "lenet300",
            "resnet18_cifar": "conv3",
            "resnet18": "conv3",
            "imagenet": "fashion_mnist",
        },
        "trial": {
            "vgg19": "lenet300",
            "resnet18_cifar": "conv3",
            "resnet18": "conv3",
            "cifar10": "digits",
            "imagenet": "digitsa",
        },
    },
    means={"small": SMALL_MEANS, "trial": TRIAL_MEANS},
    panels=[
        replace(histogram("VGG-19", "vgg19"), published=zeros("VGG-19")),
        replace(histogram("ResNet-18", "resnet18_cifar", "resnet18"), published=zeros("ResNet-18")),
    ],
    findings=[
        Finding(
            number=8,
            text=f"{network} on CIFAR-10: {share:.1%} of the weights are zero at convergence.",
            check=Value(panel=network, series="CIFAR-10", low=share - 0.02, high=share + 0.02),
        )
        for network, share in (("VGG-19", 0.845), ("ResNet-18", 0.803))
    ]
    + [
        Finding(
            number=8,
            text=f"{network} on ImageNet: next to no weight is zero at convergence.",
            check=Value(panel=network, series="ImageNet", high=0.05),
        )
        for network in ("VGG-19", "ResNet-18")
    ],
)
