"""Figure 7: stability to the order of the data, and accuracy, against the rewind epoch, on ImageNet.

ResNet-50 and Inception-v3 at 30%, Squeezenet at 50% of the weights, pruned at once; tickets and random masks with the
same layerwise proportions. Settings: Figure 6, those of recipes/stabilizing.py; the rewind epochs are ours, since the
axis is not in the text.
"""

from imagenet_sweeps import REWIND_SCALES, SMALL_MEANS, STAND_INS, TRIAL_MEANS, rewind_panels

from sslticket.campaign.figure import Figure
from sslticket.campaign.panels import Finding, Trend

figure = Figure(
    paper="stabilizing",
    place="Figure 7",
    title="Stability and accuracy against the rewind epoch on ImageNet",
    question="Do stability and accuracy on ImageNet rise as tickets are rewound to later epochs?",
    scales=REWIND_SCALES,
    stand_ins=STAND_INS,
    means={"small": f"{SMALL_MEANS}; W_k after 0, 10, 30, 60 and 100 steps", "trial": TRIAL_MEANS},
    panels=rewind_panels({"order_distance": "order distance", "top1": "accuracy"}),
    findings=[
        Finding(
            number=15,
            text="Resnet-50: the later the rewind point, the nearer tickets end to one another.",
            check=Trend(panel="Resnet-50, order distance", series="IMP", rising=False),
        ),
        Finding(
            number=15,
            text="Resnet-50: a gap of stability to random subnetworks emerges as the rewind point moves on.",
            check=Trend(panel="Resnet-50, order distance", series="random", less="IMP", rising=True),
        ),
    ],
)
