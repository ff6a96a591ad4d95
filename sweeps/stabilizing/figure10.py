"""Figure 10: stability at initialisation, as an angle: a table.

As Figure 3, with the angle between the masked weights in degrees. Settings: Figure 2 and Appendix B, those of
recipes/stabilizing.py.
"""

import math

from stability_sweeps import (
    NETWORKS,
    SMALL_MEANS,
    STAND_INS,
    TRIAL_MEANS,
    TRIAL_STAND_INS,
    published,
    small,
    stability,
    stability_tables,
    trial,
)

from sslticket.campaign.figure import Figure
from sslticket.campaign.panels import Finding, Ratio

STABLE = ("Lenet", "Resnet-18 (low)", "Resnet-18 (warmup)", "VGG-19 (low)", "VGG-19 (warmup)")

figure = Figure(
    paper="stabilizing",
    place="Figure 10",
    title="Stability at initialisation (angle)",
    question="Are tickets that are reset to iteration 0 nearer to one another, as an angle, than random subnetworks?",
    scales={
        "paper": [
            published(each, levels=each.level, analyse=[stability(each.protocol, each.level, range(6))])
            for each in NETWORKS
        ],
        "small": [small(each, analyse=[stability("own@k", each.small_level)]) for each in NETWORKS],
        "trial": [trial(each, analyse=[stability("own@k", 2)]) for each in NETWORKS],
    },
    stand_ins={"small": STAND_INS, "trial": TRIAL_STAND_INS},
    means={"small": SMALL_MEANS, "trial": TRIAL_MEANS},
    panels=stability_tables("Stability at iteration 0", NETWORKS, "Figure 10 table", "angle"),
    findings=[
        Finding(
            number=14,
            text=f"{each.label}: random over IMP, angle to {what}, is "
            + ("above 1.1." if each.label in STABLE else "about 1."),
            check=Ratio(
                column=f"{what} (angle)",
                series=(f"{each.label}, random", f"{each.label}, IMP"),
                low=1.1 if each.label in STABLE else 0.9,
                high=math.inf if each.label in STABLE else 1.1,
            ),
        )
        for each in NETWORKS
        for what in ("data order", "pruning")
    ],
)
