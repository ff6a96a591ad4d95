"""Charts and heat maps of scores: top-1 against density, differences of series, and tickets that moved elsewhere."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from sslticket.report import text
from sslticket.report.chart import Axis, Chart, Curve, Heat, Point

DENSITY = Axis("weights remaining (log scale)", "density", log=True)


def curves(panel: pd.DataFrame, number: int) -> Chart:
    """Top-1 of each series of a panel against density: means, with a band of one standard deviation over searches.

    Args:
        panel: the rows of a `statistics.summary` of one protocol, target and model.
        number: of the panel, for the chart's name.
    """
    drawn = []
    for name, own in panel.groupby("series", sort=False):
        drawn.append(Curve(str(name), tuple(_point(str(name), row) for row in own.to_dict("records"))))
    dense = panel[(panel["density"] == 1) & (panel["control"] == "ticket")]
    of = f", {dense['series'].iloc[0]}" if len(dense) > 1 else ""
    return Chart(
        name=f"accuracy-{number}",
        title=f"{text.where(panel)}: top-1 against density",
        x=DENSITY,
        y=Axis(f"top-1 on {panel['target'].iloc[0]}, %"),
        curves=tuple(drawn),
        level=(100 * float(dense["top1"].iloc[0]), f"dense{of}") if len(dense) else None,
        bounds=(0, 100),
    )


def _point(series: str, row: dict[Any, Any]) -> Point:
    mean, sd = 100 * row["top1"], 100 * row["top1_sd"]
    at = f"{series} at {text.percent(row['density'])}%: {text.spread(row['top1'], row['top1_sd'])}%"
    interval = "" if math.isnan(row["low"]) else f", 95% interval {100 * row['low']:.1f} to {100 * row['high']:.1f}%"
    told = f"{at}{interval}, {text.basis(row['n'], row['what'], row['trainings'])}"
    told += text.effective(row["effective"], row["cut"], row["n"])
    return Point(row["density"], mean, told, mean - sd, mean + sd)


def differences(found: pd.DataFrame, number: int) -> Chart:
    """What each series gains on its reference at each density, with the 95% interval as a band.

    Args:
        found: rows of `comparison.comparisons` of one panel, all against labels or all against random.
        number: of the panel, for the chart's name.
    """
    drawn = []
    for (name, against), own in found.groupby(["series", "against"], sort=False):
        points = tuple(
            Point(
                row["density"],
                100 * row["difference"],
                f"{name} less {against} at {text.percent(row['density'])}%: {text.points(row['difference'])} points, "
                f"95% interval {text.interval(row['low'], row['high'])}: {text.verdict(row)}",
                100 * row["low"],
                100 * row["high"],
            )
            for row in own.to_dict("records")
        )
        drawn.append(Curve(str(name), points))
    against = "random" if (found["against"] == "random").all() else "supervised"
    return Chart(
        name=f"difference-{against}-{number}",
        title=f"{text.where(found)}: top-1 less that of {against} tickets",
        x=DENSITY,
        y=Axis(f"top-1 less that of {against} tickets, points"),
        curves=tuple(drawn),
        level=(0.0, against),
    )


def transfer(summary: pd.DataFrame) -> Iterator[tuple[float, Heat]]:
    """For each model that several protocols scored, and each density, sparsest last: tickets down, protocols across.

    A column is shaded from its least to its greatest mean, since targets are not equally hard.
    """
    main = summary[summary["control"].isin(["ticket", "random"])]
    for number, ((network, within), own) in enumerate(main.groupby(["model", "within"])):
        model, place = text.network(str(network), str(within)), f"-{number}" if within else ""
        own = own.assign(protocol=_protocols(own))
        if own["protocol"].nunique() < 2:
            continue
        # All matrices of a model have the same shape, so that the eye keeps its place from one to the next.
        series, protocols = own["series"].unique(), own["protocol"].unique()
        for density, here in sorted(own.groupby("density"), key=lambda each: -float(str(each[0]))):
            yield (
                float(str(density)),
                Heat(
                    name=f"transfer-{network}{place}-{text.percent(float(str(density)))}",
                    title=f"{model} with {text.percent(float(str(density)))}% of its weights: top-1 in %",
                    corner="tickets",
                    rows=tuple(series),
                    columns=tuple(protocols),
                    cells=_matrix(here, list(series), list(protocols)),
                ),
            )


def _protocols(own: pd.DataFrame) -> "pd.Series[str]":
    """The names of the columns: protocols, with the target where one has several, and what else tells panels apart."""
    targets = own.groupby("protocol")["target"].transform("nunique") > 1
    return own["protocol"] + (" on " + own["target"]).where(targets, "") + own["apart"].map(text.beside)


def _matrix(
    here: pd.DataFrame, series: Sequence[str], protocols: Sequence[str]
) -> tuple[tuple[tuple[str, float] | None, ...], ...]:
    ends = here.groupby("protocol")["top1"].agg(["min", "max"])
    cells = {}
    for row in here.to_dict("records"):
        low, high = ends.loc[row["protocol"]]
        shade = (row["top1"] - low) / (high - low) if high > low else 0.5
        cells[row["series"], row["protocol"]] = (text.spread(row["top1"], row["top1_sd"]), float(shade))
    return tuple(tuple(cells.get((name, protocol)) for protocol in protocols) for name in series)


def usual(matrices: Sequence[tuple[float, Heat]]) -> int:
    """The place of the matrix to show first: the sparsest of those with the most cells filled."""
    filled = [sum(cell is not None for line in heat.cells for cell in line) for _, heat in matrices]
    return max(range(len(matrices)), key=lambda place: (filled[place], -matrices[place][0]))
