"""Figure 4: VGG-19's tickets of three data sets on three data sets, reproduced.

A panel for each target, top-1 against density: a curve for each source, and random tickets. Fashion-MNIST is not in it:
its runs did not end in time (section 5.3). Settings: section 3, those of recipes/one_ticket.py with --dataset.
"""

from report_sweeps import SMALL_MEANS, TRIAL_MEANS, across_datasets, target_panels

from sslticket.campaign.figure import Figure
from sslticket.campaign.panels import Finding, Gap

MISSING = ("fashion_mnist",)

figure = Figure(
    paper="one_ticket_report",
    place="Figure 4",
    title="Transfer across data sets, VGG-19",
    question="Do tickets of one data set serve another, and do those of more classes serve better?",
    scales=across_datasets("vgg19", "conv3", MISSING),
    means={
        "small": f"{SMALL_MEANS}; Fashion-MNIST and CIFAR-10 for the three data sets",
        "trial": f"{TRIAL_MEANS}; digits and Fashion-MNIST",
    },
    left_out="Fashion-MNIST, which the report lacks too: its authors' runs did not end in time.",
    panels=target_panels("vgg19", "conv3", MISSING),
    findings=[
        Finding(
            number=12,
            text="SVHN: tickets of CIFAR-100 and of CIFAR-10 are alike.",
            check=Gap(panel="SVHN", series=("CIFAR-100", "CIFAR-10"), low=-0.01, high=0.01, contrast="random"),
        ),
    ],
)
