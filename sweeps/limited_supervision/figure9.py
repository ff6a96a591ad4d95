"""Figure 9: the weights of more trained dense networks by magnitude, on CIFAR-10 and on ImageNet.

The text names the modified VGGs of Morcos et al. and no other network; ResNet-50 is taken beside them. What is at most
the machine precision of float32 counts as zero. Settings: as Figure 6.
"""

from magnitude_sweeps import SMALL_MEANS, TRIAL_MEANS, histogram, published, small, trial

from sslticket.campaign.figure import Figure
from sslticket.campaign.panels import Finding, Value

NETWORKS = {"VGG-11": "vgg11", "VGG-13": "vgg13", "VGG-16": "vgg16", "ResNet-50": "resnet50"}
SMALL_NETWORKS = ["lenet300", "conv3"]
SMALL_PANELS = [histogram("LeNet-300-100", "lenet300"), histogram("Conv-3", "conv3")]

figure = Figure(
    paper="limited_supervision",
    place="Figure 9",
    title="Natural zeros of more networks",
    question="Is it the data set, whatever the network, that decides how many weights training takes to zero?",
    scales={
        "paper": published(list(NETWORKS.values()), list(NETWORKS.values())),
        "small": small(SMALL_NETWORKS),
        "trial": trial(SMALL_NETWORKS),
    },
    stand_ins={
        "small": {"imagenet": "fashion_mnist"},
        "trial": {"cifar10": "digits", "imagenet": "digitsa"},
    },
    means={"small": SMALL_MEANS, "trial": TRIAL_MEANS},
    panels={
        "paper": [histogram(name, model) for name, model in NETWORKS.items()],
        "small": SMALL_PANELS,
        "trial": SMALL_PANELS,
    },
    findings=[
        Finding(
            number=8,
            text=f"{name} on ImageNet: next to no weight is zero at convergence.",
            check=Value(panel=name, series="ImageNet", high=0.05),
        )
        for name in NETWORKS
    ],
)
