"""Curves of means: what several rows say of the same series at the same place, with one standard deviation."""

import math
from collections.abc import Sequence

import pandas as pd

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
) -> tuple[Curve, ...]:
    """A curve for each series, from its means of `y` at each `x`; rows without a `y` are left out.

    Args:
        rows: any with columns `x`, `y` and those of `by`.
        x: column of the places.
        axis: what its values are.
        y: column of what is averaged.
        what: `y` is, for the words of a point.
        by: columns of which the first names the series; several curves of one series differ in the others.
        dash: of the lines; None for that of the series.
        called: what all curves are called beside their series.
        bare: without markers.
    """
    held = rows.assign(**{y: rows[y].astype(float)}).dropna(subset=[y])
    drawn = []
    for (name, *others), own in held.groupby(list(by), sort=False):
        found = own.groupby(x, sort=True)[y].agg(["mean", "std", "size"])
        beside = ", ".join(filter(None, [called, *map(str, others)]))
        points = [
            _point(", ".join(filter(None, [str(name), beside])), float(str(place)), axis, what, *values)
            for place, *values in found.itertuples(name=None)
        ]
        drawn.append(Curve(str(name), tuple(points[::-1] if axis.kind == "density" else points), dash, beside, bare))
    return tuple(drawn)


def _point(name: str, place: float, axis: Axis, what: str, mean: float, sd: float, n: int) -> Point:
    spread = "" if math.isnan(sd) else f" ± {sd:.2g}"
    minus = f"{mean:.4g}".replace("-", "\N{MINUS SIGN}")
    return Point(place, mean, f"{name} at {axis.words(place)}: {what} {minus}{spread}, n = {n}", mean - sd, mean + sd)
