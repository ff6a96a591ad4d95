"""Charts of linear mode connectivity: error on the line between two trainings of a ticket, and its barrier."""

import pandas as pd

from sslticket.report import section
from sslticket.report.accuracy import DENSITY
from sslticket.report.chart import Axis, Chart
from sslticket.report.curves import means
from sslticket.report.section import Choice, Pick, Section

ALONG = Axis("place on the line from one training to the other")
_WAYS = {"": "as it is", "_recalibrated": "batch norm recalibrated"}
_POINT = ["alpha", "error", "loss", "error_recalibrated", "loss_recalibrated"]

_EXPLAINED = (
    "Two copies of a ticket are trained on the data in different orders, and networks on the straight line between "
    "them are measured. The barrier is the highest error on the line less the mean of its ends. Hollow, dotted: a "
    "random mask with the same density of each layer. Recalibrated: with batch norm's statistics taken anew."
)


def build(frame: pd.DataFrame) -> Section | None:
    """The section of all connectivity rows in a frame of `statistics.named`; None where there are none."""
    own = section.rows(frame, "connectivity")
    barriers, lines = [], []
    for number, (name, panel) in enumerate(section.panels(own)):
        barriers.append(Choice(name, tuple(filter(None, (_barrier(panel, way, number, name) for way in _WAYS)))))
        for place, (weights, here) in enumerate(section.densities(_points(panel))):
            title = f"{name}, {weights} of the weights"
            charts = (_line(here, way, f"{number}-{place}", title) for way in _WAYS)
            lines.append(Choice(title, tuple(filter(None, charts))))
    picks = (Pick("Barrier:", tuple(barriers)), Pick("Along the line:", tuple(lines)))
    return Section("connectivity", "Linear mode connectivity", _EXPLAINED, picks) if barriers else None


def _barrier(panel: pd.DataFrame, way: str, number: int, where: str) -> Chart | None:
    panel = panel.assign(barrier=100 * panel[f"barrier{way}"].astype(float))
    curves = means(panel, "density", DENSITY, "barrier", "barrier in points")
    title = f"{where}: error barrier, {_WAYS[way]}"
    y = Axis("barrier of the error, points")
    return Chart(f"barrier{way}-{number}", title, DENSITY, y, curves, (0.0, "connected")) if curves else None


def _points(panel: pd.DataFrame) -> pd.DataFrame:
    """A line for each measured network, errors in %."""
    same = ["series", "unit", "density", "cut", "effective_density"]
    long = [(*(row[key] for key in same), *point) for row in panel.to_dict("records") for point in row["points"]]
    found = pd.DataFrame(long, columns=[*same, *_POINT])
    return found.assign(**{name: 100 * found[name].astype(float) for name in ("error", "error_recalibrated")})


def _line(here: pd.DataFrame, way: str, place: str, where: str) -> Chart | None:
    curves = means(here, "alpha", ALONG, f"error{way}", "error in %")
    title = f"{where}: error, {_WAYS[way]}"
    bounds = (0.0, 100.0)
    return Chart(f"line{way}-{place}", title, ALONG, Axis("error, %"), curves, bounds=bounds) if curves else None
