"""What finding a ticket costs and what it is worth: early birds, one-shot and learnt masks beside subsets (finding 4).

Its picture has the rows of lowshot_cifar10.py, too, which is of the same scale.

Run       sslticket sweep sweeps/findings/fronts.py --out runs/fronts --data-root /data
Cost      docs/findings.md has the core-hours that it took.
"""

from collections.abc import Mapping

from findings_sweeps import TICKET, by_density, part, searches, told

from sslticket.campaign.panels import Between, Filter, Finding, Gap, Near, Panel

sweeps = [
    searches(
        "cifar10",
        *({"early-bird": bound, "early-bird-every": "10it"} for bound in (0.05, 0.1, 0.2)),
        title="Early birds",
    ),
    searches("cifar10", {"search": "OneShot"}, title="One shot"),
    searches(
        "cifar10",
        *(
            {
                "search": "ContinuousSparsification",
                "rounds": 3,
                "rewind-weights": True,
                "final-temperature": 100.0,
                "penalty": 1e-8,
                "initial-score": score,
            }
            for score in (-0.02, -0.035)
        ),
        without=("levels", "rate"),
        title="Continuous Sparsification",
    ),
]

WITH_ROWS_OF = ("lowshot_cifar10",)
IMP = {**part("supervised", 1.0), "search": "IMP", "early-bird": ""}
FOUND = {
    "IMP": IMP,
    "IMP, 30% of the images, equal epochs": part("supervised", 0.3, length="120it"),
    "IMP, 10% of the images, equal epochs": part("supervised", 0.1, length="40it"),
    "IMP, 3% of the images, equal epochs": part("supervised", 0.03, length="12it"),
    **{f"early bird, {bound}": {**IMP, "early-bird": bound} for bound in (0.05, 0.1, 0.2)},
    "one shot": {**TICKET, "search": "OneShot Magnitude"},
}
CS: dict[str, Filter] = {"CS": {**TICKET, "search": "ContinuousSparsification", "initial-score": -0.035}}


def cost(density: float, series: Mapping[str, Filter]) -> Panel:
    """Top-1 against the cost of the search, at one density."""
    return Panel(
        title=f"Cost and accuracy, {100 * density:.2g}% of the weights",
        x="search_forward_images",
        x_scale="log",
        x_label="images through the network in the search",
        series=series,
        where={"target": "cifar10", "source": "cifar10", "model": "conv3", "density": Near(value=density, within=0.1)},
    )


# CS' networks fall apart at 2.7%: most of their weights are on no path from input to output, as the third panel shows.
COSTS = [cost(0.09, FOUND | CS), cost(0.027, FOUND)]
DENSITY = by_density("Accuracy by density", FOUND | CS, target="cifar10", source="cifar10")
figures = [
    told(
        "fronts",
        "What finding a ticket costs",
        "Which search finds as good a ticket for less?",
        [*COSTS, DENSITY],
        [
            Finding(
                number=4,
                text=f"{label}: within a point of full IMP at more than 90% pruned.",
                check=Gap(panel=DENSITY.title, series=("IMP", label), at=Between(high=0.1), low=-0.01, high=0.01),
            )
            for label in FOUND
            if label != "IMP"
        ],
    )
]
