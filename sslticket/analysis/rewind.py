"""Sensitivity to the rewind point, from the rows of searches that differ in nothing else."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from sslticket.errors import BadInput
from sslticket.report import sections, stats, text
from sslticket.report.sections import training_analyses
from sslticket.results import table


def describe_rewinding(folders: Sequence[Path]) -> str:
    """Tables for the terminal: top-1, and stability where it was measured, by W_k's images seen and by density.

    Args:
        folders: of runs.

    Raises:
        BadInput: if rows are missing or broken, or no rows are of searches that differ in their rewind point only.
    """
    own = training_analyses.rewind_sweeps(stats.name_series(table.read_rows(folders)))
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
    for measure, what in training_analyses.STABILITY_MEASURES.items():
        if len(measured):
            yield f"{what[0].upper()}{what[1:]}", _rewind_table(measured, measure, ".3g")


def _rewind_table(curve: pd.DataFrame, value: str, digits: str) -> str:
    """Rewind points down, the earliest first, and densities across, the densest first."""
    curve = curve.assign(value=curve[value].astype(float))
    # Trainings of one search are averaged first: the spread is one over searches.
    searches = curve.groupby(["rewind_samples", "density", "unit"])["value"].mean()
    found = searches.groupby(level=["rewind_samples", "density"])
    cells = {
        at: _mean_and_spread(*each, digits=digits)
        for at, *each in found.agg(["mean", "std", "size"]).itertuples(name=None)
    }
    points, densities = sorted(curve["rewind_samples"].unique()), sorted(curve["density"].unique(), reverse=True)
    columns = [["W_k", *(f"{point:,.0f}" for point in points)]]
    for density in densities:
        column = [cells.get((point, density), text.MISSING) for point in points]
        columns.append([f"{text.format_percent(density)}%", *column])
    return text.align_columns(columns)


def _mean_and_spread(mean: float, sd: float, n: int, *, digits: str) -> str:
    spread = "" if math.isnan(sd) else f" ± {sd:{digits}}"
    return f"{mean:{digits}}{spread} ({n})"
