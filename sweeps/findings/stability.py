"""Whether tickets are more stable than random subnetworks where IMP finds winning ones (finding 14).

The 20-layer ResNet with half of its filters under the three published schedules at a twentieth of their length: 1,500
steps of 128 images, drops after 1,000 and 1,250. Tickets are reset to iteration 0; two levels of 59% leave the 16.8%
that the paper studies. Distances are between trainings under two orders of the data, and to the dense network.

Run       sslticket sweep sweeps/findings/stability.py --out runs/stability --data-root /data
Cost      docs/findings.md has the core-hours that it took.
"""

from dataclasses import replace
from pathlib import Path

from findings_sweeps import searches, told

from sslticket import Analyse
from sslticket.campaign.panels import Finding, Matches, Panel, Ratio

NETWORK = f"{Path(__file__).with_name('narrow_networks.py')}:narrow_resnet20"
SCHEDULES = {
    "standard": {"lr": 0.1, "warmup": "0ep"},
    "low": {"lr": 0.01, "warmup": "0ep"},
    "warmup": {"lr": 0.03, "warmup": "1000it"},
}
TRAINED = {
    "model": NETWORK,
    "optimizer": "SGD",
    "length": "1500it",
    "batch-size": 128,
    "drops": ["1000it", "1250it"],
    "rewind": "0it",
    "levels": 2,
    "rate": 0.59,
}
MEASURED = [Analyse(analysis="stability", protocols=["own@k"], controls=["local"], levels="2", seeds="search")]

sweeps = [replace(searches("cifar10", *SCHEDULES.values(), settings=TRAINED, evaluate=[]), analyse=MEASURED)]

CONTROLS = {"IMP": "ticket", "random": "local"}
STABILITY = Panel(
    title="ResNet-20 at 16.8% of its weights",
    kind="table",
    rows="stability",
    columns={
        "data order (distance)": "order_distance",
        "pruning (distance)": "pruning_distance",
        "top-1": "top1",
        "gain on dense": "gain_on_dense",
    },
    series={
        f"{schedule}, {label}": {"control": control, "lr": trained["lr"], "warmup": trained["warmup"]}
        for schedule, trained in SCHEDULES.items()
        for label, control in CONTROLS.items()
    },
    where={"model": "narrow_resnet20", "rewind": "0it"},
)


def ratio(schedule: str, what: str) -> Finding:
    """Random over IMP, above 1 where IMP finds a winning ticket, and about 1 at the standard rate."""
    low, high, words = (0.95, 1.05, "about 1") if schedule == "standard" else (1.1, float("inf"), "above 1.1")
    return Finding(
        number=14,
        text=f"{schedule}: random over IMP, distance to {what}, is {words}.",
        check=Ratio(
            panel=STABILITY.title,
            column=f"{what} (distance)",
            series=(f"{schedule}, random", f"{schedule}, IMP"),
            low=low,
            high=high,
        ),
    )


figures = [
    told(
        "stability",
        "Stability at initialisation of the 20-layer ResNet with half of its filters",
        "Are tickets that are reset to iteration 0 more stable than random subnetworks of their size?",
        [STABILITY],
        [
            *(
                Finding(
                    number=14,
                    text=f"{schedule}: the reset ticket matches the dense network, so that it is a winning one.",
                    check=Matches(
                        panel=STABILITY.title,
                        column="top-1",
                        series=f"{schedule}, IMP",
                        contrast=f"{schedule}, random",
                    ),
                )
                for schedule in ("low", "warmup")
            ),
            *(ratio(schedule, what) for schedule in SCHEDULES for what in ("data order", "pruning")),
        ],
        paper="003",
    )
]
