"""Figure 4: stability as a distance, and accuracy, against the rewind point.

Rows of panels: stability to the order of the data, stability to pruning, accuracy; columns: LeNet, Resnet-18 and VGG-19
at three schedules. Tickets and random masks with the same layerwise proportions. Settings: Figure 2, those of
recipes/stabilizing.py; the rewind points are ours, since the axis is not in the text.
"""

from stability_sweeps import (
    NETWORKS,
    SMALL_MEANS,
    STAND_INS,
    TRIAL_MEANS,
    TRIAL_STAND_INS,
    rewind_panels,
    rewind_sweeps,
)

from sslticket.campaign.figure import Figure
from sslticket.campaign.panels import Finding, Ordering, Trend

STANDARD = ("Resnet-18 (standard)", "VGG-19 (standard)")

figure = Figure(
    paper="stabilizing",
    place="Figure 4",
    title="Stability and accuracy against the rewind point",
    question="Does rewinding later make tickets more stable and more accurate than random subnetworks?",
    scales=rewind_sweeps(NETWORKS),
    stand_ins={"small": STAND_INS, "trial": TRIAL_STAND_INS},
    means={"small": f"{SMALL_MEANS}; W_k after 0, 10, 30, 60 and 100 of 200 steps", "trial": TRIAL_MEANS},
    panels=rewind_panels(NETWORKS, ("order_distance", "pruning_distance", "top1")),
    findings=[
        *(
            Finding(
                number=15,
                text=f"{label}: the later the rewind point, the nearer tickets end to one another.",
                check=Trend(panel=f"{label}, order distance", series="IMP", rising=False),
            )
            for label in STANDARD
        ),
        *(
            Finding(
                number=15,
                text=f"{each.label}: tickets are more accurate than random subnetworks.",
                check=Ordering(panel=f"{each.label}, accuracy", series=["IMP", "random"]),
            )
            for each in NETWORKS
        ),
    ],
)
