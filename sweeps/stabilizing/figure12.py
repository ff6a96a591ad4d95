"""Figure 12: stability as an angle, and accuracy, against the rewind epoch, on ImageNet.

As Figure 7, with angles: order of the data, pruning, accuracy. Settings: Figure 6, those of recipes/stabilizing.py; the
rewind epochs are ours, since the axis is not in the text.
"""

from imagenet_sweeps import REWIND_SCALES, SMALL_MEANS, STAND_INS, TRIAL_MEANS, rewind_panels

from sslticket.campaign.figure import Figure
from sslticket.campaign.panels import Finding, Trend

figure = Figure(
    paper="stabilizing",
    place="Figure 12",
    title="Stability (angle) and accuracy against the rewind epoch on ImageNet",
    question="Do tickets on ImageNet come nearer to one another, and to the dense network, as an angle?",
    scales=REWIND_SCALES,
    stand_ins=STAND_INS,
    means={"small": f"{SMALL_MEANS}; W_k after 0, 10, 30, 60 and 100 steps", "trial": TRIAL_MEANS},
    panels=rewind_panels(
        {
            "order_angle": "order angle",
            "pruning_angle": "pruning angle",
            "top1": "accuracy",
        }
    ),
    findings=[
        Finding(
            number=15,
            text=f"Resnet-50: the later the rewind point, the smaller the {what} angle.",
            check=Trend(panel=f"Resnet-50, {what} angle", series="IMP", rising=False),
        )
        for what in ("order", "pruning")
    ],
)
