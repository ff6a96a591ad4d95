"""Figure 3: ResNet-50's tickets of four data sets on four data sets, reproduced.

A panel for each target, top-1 against density: a curve for each source, and random tickets. Settings: section 3, those
of recipes/one_ticket.py with --dataset.
"""

from report_sweeps import SMALL_MEANS, TRIAL_MEANS, across_datasets, target_panels

from sslticket.campaign.figure import Figure
from sslticket.campaign.panels import Between, Finding, Ordering

figure = Figure(
    paper="one_ticket_report",
    place="Figure 3",
    title="Transfer across data sets, ResNet-50",
    question="Do tickets of one data set serve another, and do those of more classes serve better?",
    scales=across_datasets("resnet50", "resnet20"),
    means={
        "small": f"{SMALL_MEANS}; two of the four data sets, Fashion-MNIST and CIFAR-10",
        "trial": f"{TRIAL_MEANS}; digits and Fashion-MNIST",
    },
    panels=target_panels("resnet50", "resnet20"),
    findings=[
        Finding(
            number=12,
            text=f"{target}: tickets of CIFAR-100 are better than those of CIFAR-10.",
            check=Ordering(panel=target, series=["CIFAR-100", "CIFAR-10"], at=Between(high=0.5)),
        )
        for target in ("Fashion-MNIST", "SVHN")
    ],
)
