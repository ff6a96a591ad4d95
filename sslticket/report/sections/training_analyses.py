"""Sections of the analyses that train: stability, linear mode connectivity, natural sparsity, and the rewind point."""

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sslticket.errors import BadInput
from sslticket.report import sections, stats, text
from sslticket.report.chart import Axis, Chart
from sslticket.report.sections import DENSITY_AXIS, FigureGroup, Picker, Section, mean_curves
from sslticket.results import table
from sslticket.results.rows import shared_controls

STABILITY_MEASURES = {
    "pruning_distance": "distance from the pruned dense network",
    "pruning_angle": "angle to the pruned dense network",
    "order_distance": "distance between two orders of the data",
    "order_angle": "angle between two orders of the data",
}
"""Columns, and what they measure between trained masked weights."""

_STABILITY_TEXT = (
    "How far apart the weights end: of the trained subnetwork and of the dense network after training, pruned to the "
    "same mask; and of two trainings of the subnetwork that see the data in different orders. Small is stable. "
    "Hollow, dotted: a random mask with the same density of each layer."
)


def stability_section(frame: pd.DataFrame) -> Section | None:
    """The section of all stability rows in a frame of `stats.name_series`; None where there are none."""
    own = sections.rows_of_kind(frame, "stability")
    groups = tuple(
        FigureGroup(
            name,
            tuple(
                stability_chart(panel, measure, "density", DENSITY_AXIS, f"{measure}-{number}", name)
                for measure in STABILITY_MEASURES
            ),
        )
        for number, (name, panel) in enumerate(sections.split_panels(own))
    )
    title = "Stability to pruning and to the order of the data"
    return Section("stability", title, _STABILITY_TEXT, (Picker("Measured:", groups),)) if groups else None


def stability_chart(panel: pd.DataFrame, measure: str, x: str, axis: Axis, name: str, where: str) -> Chart:
    """One of MEASURES of each series.

    Args:
        panel: Stability rows.
        measure: A key of STABILITY_MEASURES.
        x: Column to draw it against.
        axis: What the values of `x` are.
        name: Name of the chart.
        where: What it was measured on.
    """
    angle = measure.endswith("angle")
    what = STABILITY_MEASURES[measure]
    return Chart(
        name=f"stability-{name}",
        title=f"{where}: {what}",
        x=axis,
        y=Axis("angle, degrees" if angle else "L2 distance"),
        curves=mean_curves(panel, x, axis, measure, what),
        y_bounds=(0, 180) if angle else (0, math.inf),
    )


INTERPOLATION_AXIS = Axis("position on the line from one training to the other")
_BATCH_NORM_VARIANTS = {"": "as it is", "_recalibrated": "batch norm recalibrated"}
_POINT_COLUMNS = ["alpha", "error", "loss", "error_recalibrated", "loss_recalibrated"]

_CONNECTIVITY_TEXT = (
    "Two copies of a ticket are trained on the data in different orders, and networks on the straight line between "
    "them are measured. The barrier is the highest error on the line less the mean of its ends. Hollow, dotted: a "
    "random mask with the same density of each layer. Recalibrated: with batch norm's statistics taken anew."
)


def connectivity_section(frame: pd.DataFrame) -> Section | None:
    """The section of all connectivity rows in a frame of `stats.name_series`; None where there are none."""
    own = sections.rows_of_kind(frame, "connectivity")
    barriers, lines = [], []
    for number, (name, panel) in enumerate(sections.split_panels(own)):
        barriers.append(
            FigureGroup(
                name, tuple(filter(None, (_barrier_chart(panel, way, number, name) for way in _BATCH_NORM_VARIANTS)))
            )
        )
        for index, (weights, here) in enumerate(sections.split_densities(_interpolation_points(panel))):
            title = f"{name}, {weights} of the weights"
            charts = (_interpolation_chart(here, way, f"{number}-{index}", title) for way in _BATCH_NORM_VARIANTS)
            lines.append(FigureGroup(title, tuple(filter(None, charts))))
    picks = (Picker("Barrier:", tuple(barriers)), Picker("Along the line:", tuple(lines)))
    return Section("connectivity", "Linear mode connectivity", _CONNECTIVITY_TEXT, picks) if barriers else None


def _barrier_chart(panel: pd.DataFrame, way: str, number: int, where: str) -> Chart | None:
    panel = panel.assign(barrier=100 * panel[f"barrier{way}"].astype(float))
    curves = mean_curves(panel, "density", DENSITY_AXIS, "barrier", "barrier in points")
    title = f"{where}: error barrier, {_BATCH_NORM_VARIANTS[way]}"
    y = Axis("barrier of the error, points")
    return Chart(f"barrier{way}-{number}", title, DENSITY_AXIS, y, curves, (0.0, "connected")) if curves else None


def _interpolation_points(panel: pd.DataFrame) -> pd.DataFrame:
    """A line for each measured network, errors in %."""
    same = ["series", "unit", "density", "cut", "effective_density"]
    long = [(*(row[key] for key in same), *point) for row in panel.to_dict("records") for point in row["points"]]
    found = pd.DataFrame(long, columns=[*same, *_POINT_COLUMNS])
    return found.assign(**{name: 100 * found[name].astype(float) for name in ("error", "error_recalibrated")})


def _interpolation_chart(here: pd.DataFrame, way: str, number: str, where: str) -> Chart | None:
    curves = mean_curves(here, "alpha", INTERPOLATION_AXIS, f"error{way}", "error in %")
    title = f"{where}: error, {_BATCH_NORM_VARIANTS[way]}"
    bounds = (0.0, 100.0)
    return (
        Chart(f"line{way}-{number}", title, INTERPOLATION_AXIS, Axis("error, %"), curves, y_bounds=bounds)
        if curves
        else None
    )


MAGNITUDE_AXIS = Axis("log10 of the magnitude")
LOG_PRECISION = float(np.log10(np.finfo(np.float32).eps))
"""log10 of float32's machine precision, below which a weight is a natural zero (Caron et al. 2020, Figure 6)."""

_MAGNITUDES_TEXT = (
    "Prunable weights at the end of training. Those below machine precision, and those of exactly 0, vanished by "
    "themselves or were pruned before; what is left above it is the natural density."
)


def magnitudes_section(frame: pd.DataFrame) -> Section | None:
    """The section of all rows of magnitudes in a frame of `stats.name_series`; None where there are none."""
    own = sections.rows_of_kind(frame, "magnitudes")
    naturals, shapes = [], []
    for number, (name, panel) in enumerate(sections.split_panels(own)):
        naturals.append(FigureGroup(name, (_natural_density_chart(panel, number, name),)))
        for index, (weights, here) in enumerate(sections.split_densities(panel)):
            title = f"{name}, {weights} of the weights"
            if here["counts"].map(len).any():
                shapes.append(FigureGroup(title, (_histogram_chart(here, f"{number}-{index}", title),)))
    picks = (Picker("Histogram:", tuple(shapes)), Picker("Natural density:", tuple(naturals)))
    return Section("magnitudes", "Natural sparsity", _MAGNITUDES_TEXT, picks) if naturals else None


def _natural_density_chart(panel: pd.DataFrame, number: int, where: str) -> Chart:
    panel = panel.assign(above=100 * panel["natural_density"].astype(float))
    curves = mean_curves(panel, "density", DENSITY_AXIS, "above", "% of the weights above machine precision:")
    title, y = f"{where}: weights above machine precision", Axis("above machine precision, % of the weights")
    return Chart(f"natural-{number}", title, DENSITY_AXIS, y, curves, y_bounds=(0, 100))


def _histogram_chart(here: pd.DataFrame, number: str, where: str) -> Chart:
    zeros = here["zeros"] / here["layers"].map(lambda layers: sum(total for _, total in layers.values()))
    zeros = zeros.groupby([here["series"], here["unit"]]).mean().groupby(level=0).mean()
    ends = " to ".join(dict.fromkeys(f"{100 * end:.3g}" for end in (zeros.min(), zeros.max())))
    curves = mean_curves(
        _bin_percentages(here), "middle", MAGNITUDE_AXIS, "percentage", "% of the weights:", no_markers=True
    )
    return Chart(
        name=f"magnitudes-{number}",
        title=f"{where}: magnitudes, beside {ends}% of exactly 0",
        x=MAGNITUDE_AXIS,
        y=Axis("% of the weights in a bin"),
        curves=curves,
        vertical_line=(LOG_PRECISION, "machine precision"),
        y_bounds=(0, 100),
    )


def _bin_percentages(here: pd.DataFrame) -> pd.DataFrame:
    """A line for each bin of each row: bins reach as far as a row has weights, and beyond it has none."""
    found = []
    for series, own in here.groupby("series", sort=False):
        percentages = pd.DataFrame([_bins_of_row(each) for each in own.to_dict("records")]).fillna(0.0)
        long = percentages.assign(unit=list(own["unit"])).melt("unit", var_name="middle", value_name="percentage")
        found.append(long.assign(series=series))
    return pd.concat(found)


def _bins_of_row(row: dict[Any, Any]) -> dict[float, float]:
    """The middle of each bin, and the percentage of the weights in it."""
    total = sum(whole for _, whole in row["layers"].values())
    middles = [round((low + high) / 2, 4) for low, high in pairwise(row["bins"])]
    return {middle: 100 * count / total for middle, count in zip(middles, row["counts"], strict=True)}


_REWINDING_TEXT = (
    "Searches that differ in their rewind point only: what their tickets of one density are worth, and how stable they "
    "are, by the images that the network had seen when W_k was taken. 0 is the initialisation."
)


def rewind_sweeps(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of searches from which others differ in the rewind point only, named as if that were no setting.

    Args:
        frame: Frame of `stats.name_series`.

    Returns:
        Score and stability rows, each once, named anew; none where no rewind point was varied. Rows of recipes that do
            not hold their settings or W_k, as older ones, are left out; so are controls that owe nothing to a search.
    """
    known = pd.concat([sections.rows_of_kind(frame, kind) for kind in ("score", "stability")])
    known = known[known["settings"].notna() & known["rewind_samples"].notna()]
    known = known[~known["control"].isin(shared_controls())]
    settings = [{name: value for name, value in each.items() if name != "rewind"} for each in known["settings"]]
    if not settings:
        return known
    recipes = [hashlib.sha256(json.dumps(each, sort_keys=True).encode()).hexdigest()[:8] for each in settings]
    anew = known.assign(settings=pd.Series(settings, known.index), recipe=recipes, density=known["exact"])
    named = stats.name_series(anew)
    varied = named.groupby(["model", "tickets"])["rewind_samples"].transform("nunique") > 1
    own = named[varied]
    return own.assign(rewind_samples=own["rewind_samples"].astype(float))


def rewinding_section(frame: pd.DataFrame) -> Section | None:
    """The section of all sweeps in a frame of `stats.name_series`; None where there are none."""
    own = rewind_sweeps(frame)
    if own.empty:
        return None
    points = own["rewind_samples"]
    zero = points[points > 0].min() / 3 if (points == 0).any() else 0.0
    axis = Axis("images seen at W_k (log scale)", "count", log=True, zero_at=float(zero))
    own = own.assign(position=own["rewind_samples"].clip(lower=axis.zero_at))
    groups = []
    for number, (where, panel) in enumerate(sections.split_panels(own)):
        for index, (weights, here) in enumerate(sections.split_densities(panel)):
            title = f"{where}, {weights} of the weights"
            groups.append(FigureGroup(title, tuple(_rewind_charts(here, axis, f"{number}-{index}", title))))
    series_rows = own[["series", "tickets", "control"]].drop_duplicates("series").sort_values(["tickets", "control"])
    order = series_rows.loc[(series_rows["control"] != "ticket").sort_values(kind="stable").index]
    series = tuple((str(name), str(tickets), str(control)) for name, tickets, control in order.itertuples(index=False))
    title = "Sensitivity to the rewind point"
    return Section("rewinding", title, _REWINDING_TEXT, (Picker("Measured:", tuple(groups)),), series)


def _rewind_charts(here: pd.DataFrame, axis: Axis, name: str, where: str) -> list[Chart]:
    scores = here[here["kind"] == "score"]
    scores = scores.assign(percent=100 * scores["top1"].astype(float))
    curves = mean_curves(scores, "position", axis, "percent", "top-1 in %")
    y = Axis(f"top-1 on {here['target'].iloc[0]}, %")
    found = [Chart(f"rewinding-{name}", f"{where}: top-1", axis, y, curves, y_bounds=(0, 100))]
    measured = here[here["kind"] == "stability"]
    found += [
        stability_chart(measured, each, "position", axis, f"rewinding-{each}-{name}", where)
        for each in STABILITY_MEASURES
    ]
    return [chart for chart in found if chart.curves]


def describe_rewinding(folders: Sequence[Path]) -> str:
    """Tables for the terminal: top-1, and stability where it was measured, by W_k's images seen and by density.

    Args:
        folders: Folders of runs.

    Raises:
        BadInput: If rows are missing or broken, or no rows are of searches that differ in their rewind point only.
    """
    own = rewind_sweeps(stats.name_series(table.read_rows(folders)))
    if own.empty:
        raise BadInput(
            f"no scores below {', '.join(map(str, folders))} are of searches that differ in their rewind point only; "
            "search with several --rewind and evaluate the tickets (rows that do not tell their settings are left out)"
        )
    return "\n\n".join(
        f"{what} of {series}, {where}, by images seen at W_k and by density: "
        f"mean ± standard deviation over searches (n)\n\n{cells}"
        for where, panel in sections.split_panels(own)
        for series, curve in panel.groupby("series")
        for what, cells in _rewind_tables(curve)
    )


def _rewind_tables(curve: pd.DataFrame) -> Iterator[tuple[str, str]]:
    scores, measured = (curve[curve["kind"] == kind] for kind in ("score", "stability"))
    if len(scores):
        yield "Top-1 in %", _rewind_table(scores.assign(percent=100 * scores["top1"].astype(float)), "percent", ".1f")
    for measure, what in STABILITY_MEASURES.items():
        if len(measured):
            yield f"{what[0].upper()}{what[1:]}", _rewind_table(measured, measure, ".3g")


def _rewind_table(curve: pd.DataFrame, value: str, digits: str) -> str:
    """Rewind points down, the earliest first, and densities across, the densest first."""
    curve = curve.assign(value=curve[value].astype(float))
    # Trainings of one search are averaged first: the spread is one over searches.
    searches = curve.groupby(["rewind_samples", "density", "unit"])["value"].mean()
    found = searches.groupby(level=["rewind_samples", "density"])
    cells = {
        at: f"{mean:{digits}}{'' if math.isnan(sd) else f' ± {sd:{digits}}'} ({n})"
        for at, mean, sd, n in found.agg(["mean", "std", "size"]).itertuples(name=None)
    }
    points, densities = sorted(curve["rewind_samples"].unique()), sorted(curve["density"].unique(), reverse=True)
    columns = [["W_k", *(f"{point:,.0f}" for point in points)]]
    for density in densities:
        column = [cells.get((point, density), text.MISSING) for point in points]
        columns.append([f"{text.format_percent(density)}%", *column])
    return text.align_columns(columns)
