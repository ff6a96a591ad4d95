"""Curves of means: what several searches say of the same series at the same place, with one standard deviation."""

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from sslticket.report import text
from sslticket.report.chart import Axis, Curve, Point


def means(
    rows: pd.DataFrame,
    x: str,
    axis: Axis,
    y: str,
    what: str,
    *,
    by: Sequence[str] = ("series",),
    dash: str | None = None,
    called: str = "",
    bare: bool = False,
    row: str = "training",
) -> tuple[Curve, ...]:
    """A curve for each series, from its means of `y` at each `x`; rows without a `y` are left out.

    Rows of one `unit` are averaged first, so that the spread is one over searches.

    Args:
        rows: any with columns `x`, `y`, `unit` and those of `by`; of what may be pooled. With `cut` and
            `effective_density`, points warn of weights that are on no path from input to output.
        x: column of the places.
        axis: what its values are.
        y: column of what is averaged.
        what: `y` is, for the words of a point.
        by: columns of which the first names the series; several curves of one series differ in the others.
        dash: of the lines; None for that of the series.
        called: what all curves are called beside their series.
        bare: without markers.
        row: what each is, for the words of a point.
    """
    held = rows.assign(**{y: rows[y].astype(float)}).dropna(subset=[y])
    if "cut" not in held:
        held = held.assign(cut=False, effective_density=math.nan)
    drawn = []
    for (name, *others), own in held.groupby(list(by), sort=False):
        units = own.groupby([x, "unit"], sort=True).agg(
            y=(y, "mean"), rows=(y, "size"), cut=("cut", "any"), effective=("effective_density", "min")
        )
        beside = ", ".join(filter(None, [called, *map(str, others)]))
        called_so = ", ".join(filter(None, [str(name), beside]))
        points = [_point(called_so, place, axis, what, each, row) for place, each in units.groupby(level=0)]
        drawn.append(Curve(str(name), tuple(points[::-1] if axis.kind == "density" else points), dash, beside, bare))
    return tuple(drawn)


def _point(name: str, at: Any, axis: Axis, what: str, units: pd.DataFrame, row: str) -> Point:
    place, n = float(at), len(units)
    mean, sd = float(units["y"].mean()), float(units["y"].std())
    spread = "" if math.isnan(sd) else f" ± {sd:.2g}"
    minus = f"{mean:.4g}".replace("-", "\N{MINUS SIGN}")
    told = f"{name} at {axis.words(place)}: {what} {minus}{spread}, "
    told += text.basis(n, str(units.index[0][1]).split()[0], int(units["rows"].sum()), row)
    told += text.effective(float(units["effective"].min()), int(units["cut"].sum()), n)
    return Point(place, mean, told, mean - sd, mean + sd)
