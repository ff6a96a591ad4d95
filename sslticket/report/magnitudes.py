"""Charts of trained weights by magnitude: the histogram, and how many do not vanish by themselves."""

from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from sslticket.report import section
from sslticket.report.accuracy import DENSITY
from sslticket.report.chart import Axis, Chart
from sslticket.report.curves import means
from sslticket.report.section import Choice, Pick, Section

MAGNITUDE = Axis("log10 of the magnitude")
PRECISION = float(np.log10(np.finfo(np.float32).eps))
"""log10 of float32's machine precision, below which a weight is a natural zero (Caron et al. 2020, Figure 6)."""

_EXPLAINED = (
    "Prunable weights at the end of training. Those below machine precision, and those of exactly 0, vanished by "
    "themselves or were pruned before; what is left above it is the natural density."
)


def build(frame: pd.DataFrame) -> Section | None:
    """The section of all rows of magnitudes in a frame of `statistics.named`; None where there are none."""
    own = section.rows(frame, "magnitudes")
    naturals, shapes = [], []
    for number, (name, panel) in enumerate(section.panels(own)):
        naturals.append(Choice(name, (_natural(panel, number, name),)))
        for place, (weights, here) in enumerate(section.densities(panel)):
            title = f"{name}, {weights} of the weights"
            if here["counts"].map(len).any():
                shapes.append(Choice(title, (_histogram(here, f"{number}-{place}", title),)))
    picks = (Pick("Histogram:", tuple(shapes)), Pick("Natural density:", tuple(naturals)))
    return Section("magnitudes", "Natural sparsity", _EXPLAINED, picks) if naturals else None


def _natural(panel: pd.DataFrame, number: int, where: str) -> Chart:
    panel = panel.assign(above=100 * panel["natural_density"].astype(float))
    curves = means(panel, "density", DENSITY, "above", "% of the weights above machine precision:")
    title, y = f"{where}: weights above machine precision", Axis("above machine precision, % of the weights")
    return Chart(f"natural-{number}", title, DENSITY, y, curves, bounds=(0, 100))


def _histogram(here: pd.DataFrame, place: str, where: str) -> Chart:
    zeros = here["zeros"] / here["layers"].map(lambda layers: sum(total for _, total in layers.values()))
    zeros = zeros.groupby([here["series"], here["unit"]]).mean().groupby(level=0).mean()
    ends = " to ".join(dict.fromkeys(f"{100 * end:.3g}" for end in (zeros.min(), zeros.max())))
    curves = means(_shares(here), "middle", MAGNITUDE, "share", "% of the weights:", bare=True)
    return Chart(
        name=f"magnitudes-{place}",
        title=f"{where}: magnitudes, beside {ends}% of exactly 0",
        x=MAGNITUDE,
        y=Axis("% of the weights in a bin"),
        curves=curves,
        upright=(PRECISION, "machine precision"),
        bounds=(0, 100),
    )


def _shares(here: pd.DataFrame) -> pd.DataFrame:
    """A line for each bin of each row: bins reach as far as a row has weights, and beyond it has none."""
    found = []
    for series, own in here.groupby("series", sort=False):
        shares = pd.DataFrame([_row(each) for each in own.to_dict("records")]).fillna(0.0)
        long = shares.assign(unit=list(own["unit"])).melt("unit", var_name="middle", value_name="share")
        found.append(long.assign(series=series))
    return pd.concat(found)


def _row(row: dict[Any, Any]) -> dict[float, float]:
    """The middle of each bin, and the share of the weights in it, in %."""
    total = sum(whole for _, whole in row["layers"].values())
    middles = [round((low + high) / 2, 4) for low, high in pairwise(row["bins"])]
    return {middle: 100 * count / total for middle, count in zip(middles, row["counts"], strict=True)}
