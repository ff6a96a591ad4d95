"""Figure 4: ResNet-50's tickets of six data sets on six data sets.

A grid of six panels, one for each target, top-1 against density: a curve for each source, and random tickets. On the
two large targets, the sources are these and CIFAR, as section 4.2 has it. Settings: sections 4.2 and A.1, those of
recipes/one_ticket.py with --dataset.
"""

from dataclasses import replace

from transfer_sweeps import DATA_MEANS, DATASETS, LARGE, across_datasets, target_panels

from sslticket.campaign.figure import Figure
from sslticket.campaign.panels import Between, Finding, Ordering, Published

CLAIM = Published(drawn="band", place="section 4.2", network="ResNet50", words="degrades from here")
PANELS = target_panels("resnet50", "resnet20")
PANELS["paper"] = [
    replace(panel, published=[CLAIM]) if panel.where["target"] in LARGE else panel for panel in PANELS["paper"]
]

figure = Figure(
    paper="one_ticket",
    place="Figure 4",
    title="Transfer across data sets, ResNet-50",
    question="Do tickets of one data set serve another, and do those of larger sets with more classes serve better?",
    scales=across_datasets("resnet50", "resnet20"),
    means=DATA_MEANS,
    panels=PANELS,
    findings=[
        *(
            Finding(
                number=12,
                text=f"{DATASETS[target]}: tickets of ImageNet are better than random ones.",
                check=Ordering(panel=DATASETS[target], series=["ImageNet", "random"], at=Between(high=0.1)),
            )
            for target in DATASETS
        ),
        *(
            Finding(
                number=12,
                text=f"{DATASETS[target]}: tickets of CIFAR-100 are better than those of CIFAR-10.",
                check=Ordering(panel=DATASETS[target], series=["CIFAR-100", "CIFAR-10"], at=Between(high=0.5)),
            )
            for target in ("svhn", "fashion_mnist", "imagenet")
        ),
        Finding(
            number=12,
            text="CIFAR-10: tickets of Fashion-MNIST are better than random ones at extreme pruning.",
            check=Ordering(panel="CIFAR-10", series=["Fashion-MNIST", "random"], at=Between(high=0.05)),
        ),
    ],
)
