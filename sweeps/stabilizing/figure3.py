"""Figure 3: stability at initialisation, as a distance: a table.

L2 distances between trained subnetworks, of tickets and of random masks with the same layerwise proportions, when reset
to iteration 0, and their accuracies. Settings: Figure 2 and section 2, those of recipes/stabilizing.py.
"""

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
from sslticket.campaign.panels import Finding, Published, Ratio

STABLE = ("Lenet", "Resnet-18 (low)", "Resnet-18 (warmup)", "VGG-19 (low)", "VGG-19 (warmup)")
ORDER, PRUNING = "data order (distance)", "pruning (distance)"

figure = Figure(
    paper="stabilizing",
    place="Figure 3",
    title="Stability at initialisation (distance)",
    question="Are tickets that are reset to iteration 0 more stable than random subnetworks of their size?",
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
    panels=stability_tables("Stability at iteration 0", NETWORKS, "Figure 3 table", "distance"),
    findings=[
        Finding(
            number=14,
            text=f"{each.label}: random over IMP, distance to {what}.",
            check=Ratio(
                column=column,
                series=(f"{each.label}, random", f"{each.label}, IMP"),
                published=Published(
                    drawn="note",
                    place="Figure 3 table",
                    network=each.name,
                    condition=f"{each.variant or 'standard'}*",
                    quantity=quantity,
                ),
            )
            if each.label not in STABLE
            else Ratio(column=column, series=(f"{each.label}, random", f"{each.label}, IMP"), low=1.1),
        )
        for each in NETWORKS
        for what, column, quantity in (
            ("data order", ORDER, "order_distance_ratio"),
            ("pruning", PRUNING, "pruning_distance_ratio"),
        )
    ],
)
