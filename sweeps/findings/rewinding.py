"""Where W_k is best taken on parts of CIFAR-10: rewind points from 0 to 20% of the training (findings 9 and 15).

Run       sslticket sweep sweeps/findings/rewinding.py --out runs/rewinding --data-root /data
Cost      docs/findings.md has the core-hours that it took.
"""

from findings_sweeps import scored, searches, told

from sslticket.campaign.panels import Finding, Near, Panel, Trend

POINTS = ("0it", "4it", "8it", "20it", "40it", "60it", "80it")
sweeps = [
    searches(
        "cifar10",
        *({"subset": part, "rewind": point} for part in (1.0, 0.1, 0.03) for point in POINTS),
        evaluate=[scored("cifar10", levels="2 3")],
        title="Rewind points on parts of the images",
    )
]

LABELS = {"labels": {"control": "ticket", "objective": "supervised"}}
PANELS = {
    (part, density): Panel(
        title=f"{part:.0%} of the images, {100 * density:.3g}% of the weights",
        x="rewind_percent",
        series=LABELS,
        where={"subset": part, "density": Near(value=density), "target": "cifar10"},
        x_scale="linear",
    )
    for part in (1.0, 0.1, 0.03)
    for density in (0.09, 0.027)
}
figures = [
    told(
        "rewinding",
        "Rewind points on parts of the images",
        "From which rewind point on are tickets better, and is it the same on parts of the images?",
        list(PANELS.values()),
        [
            Finding(
                number=15,
                text=f"{each.title}: the later W_k is taken, up to 20% of the training, the better the tickets.",
                check=Trend(panel=each.title, series="labels", rising=True),
            )
            for each in PANELS.values()
        ],
    )
]
