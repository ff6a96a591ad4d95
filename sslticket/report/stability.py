"""Charts of stability to pruning and to the order of the data (Frankle et al. 2019, Section 3), over density."""

import math

import pandas as pd

from sslticket.report import section
from sslticket.report.accuracy import DENSITY
from sslticket.report.chart import Axis, Chart
from sslticket.report.curves import means
from sslticket.report.section import Choice, Pick, Section

MEASURES = {
    "pruning_distance": "distance from the pruned dense network",
    "pruning_angle": "angle to the pruned dense network",
    "order_distance": "distance between two orders of the data",
    "order_angle": "angle between two orders of the data",
}
"""Columns, and what they measure between trained masked weights."""

_EXPLAINED = (
    "How far apart the weights end: of the trained subnetwork and of the dense network after training, pruned to the "
    "same mask; and of two trainings of the subnetwork that see the data in different orders. Small is stable. "
    "Hollow, dotted: a random mask with the same density of each layer."
)


def build(frame: pd.DataFrame) -> Section | None:
    """The section of all stability rows in a frame of `statistics.named`; None where there are none."""
    own = section.rows(frame, "stability")
    choices = tuple(
        Choice(
            name, tuple(chart(panel, measure, "density", DENSITY, f"{measure}-{number}", name) for measure in MEASURES)
        )
        for number, (name, panel) in enumerate(section.panels(own))
    )
    title = "Stability to pruning and to the order of the data"
    return Section("stability", title, _EXPLAINED, (Pick("Measured:", choices),)) if choices else None


def chart(panel: pd.DataFrame, measure: str, x: str, axis: Axis, name: str, where: str) -> Chart:
    """One of MEASURES of each series.

    Args:
        panel: stability rows.
        measure: a key of MEASURES.
        x: column to draw it against.
        axis: of that.
        name: of the chart.
        where: it was measured.
    """
    angle = measure.endswith("angle")
    what = MEASURES[measure]
    return Chart(
        name=f"stability-{name}",
        title=f"{where}: {what}",
        x=axis,
        y=Axis("angle, degrees" if angle else "L2 distance"),
        curves=means(panel, x, axis, measure, what),
        bounds=(0, 180) if angle else (0, math.inf),
    )
