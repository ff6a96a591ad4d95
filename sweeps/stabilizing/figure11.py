"""Figure 11: stability as an angle, and accuracy, against the rewind point.

As Figure 4, with angles: order of the data, pruning, accuracy. Settings: Figure 2 and Appendix B, those of
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
from sslticket.campaign.panels import Finding, Trend

figure = Figure(
    paper="stabilizing",
    place="Figure 11",
    title="Stability (angle) and accuracy against the rewind point",
    question="Does rewinding later bring tickets nearer to one another, and to the dense network, as an angle?",
    scales=rewind_sweeps(NETWORKS),
    stand_ins={"small": STAND_INS, "trial": TRIAL_STAND_INS},
    means={"small": f"{SMALL_MEANS}; W_k after 0, 10, 30, 60 and 100 of 200 steps", "trial": TRIAL_MEANS},
    panels=rewind_panels(NETWORKS, ("order_angle", "pruning_angle", "top1")),
    findings=[
        Finding(
            number=15,
            text=f"{each.label}: the later the rewind point, the smaller the angle between two trainings of a ticket.",
            check=Trend(panel=f"{each.label}, order angle", series="IMP", rising=False),
        )
        for each in NETWORKS
    ],
)
