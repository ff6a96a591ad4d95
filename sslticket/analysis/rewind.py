"""Sensitivity to the rewind point, from the rows of searches that differ in nothing else."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from sslticket.errors import BadInput
from sslticket.report import rewinding, section, stability, statistics, table, text


def rewind(folders: Sequence[Path]) -> str:
    """Tables for the terminal: top-1, and stability where it was measured, by W_k's images seen and by density.

    Args:
        folders: of runs.

    Raises:
        BadInput: if rows are missing or broken, or no rows are of searches that differ in their rewind point only.
    """
    own = rewinding.sweeps(statistics.named(table.rows(folders)))
    if own.empty:
        raise BadInput(
            f"no scores below {', '.join(map(str, folders))} are of searches that differ in their rewind point only; "
            "search with several --rewind and evaluate the tickets (rows that do not tell their settings are left out)"
        )
    return "\n\n".join(
        f"{what} of {series}, {where}, by images seen at W_k and by density: "
        f"mean ± standard deviation over searches (n)\n\n{cells}"
        for where, panel in section.panels(own)
        for series, curve in panel.groupby("series")
        for what, cells in _tables(curve)
    )


def _tables(curve: pd.DataFrame) -> Iterator[tuple[str, str]]:
    scores, measured = (curve[curve["kind"] == kind] for kind in ("score", "stability"))
    if len(scores):
        yield "Top-1 in %", _table(scores.assign(percent=100 * scores["top1"].astype(float)), "percent", ".1f")
    for measure, what in stability.MEASURES.items():
        if len(measured):
            yield f"{what[0].upper()}{what[1:]}", _table(measured, measure, ".3g")


def _table(curve: pd.DataFrame, value: str, digits: str) -> str:
    """Rewind points down, the earliest first, and densities across, the densest first."""
    curve = curve.assign(value=curve[value].astype(float))
    # Trainings of one search are averaged first: the spread is one over searches.
    searches = curve.groupby(["rewind_samples", "density", "unit"])["value"].mean()
    found = searches.groupby(level=["rewind_samples", "density"])
    cells = {at: _cell(*each, digits=digits) for at, *each in found.agg(["mean", "std", "size"]).itertuples(name=None)}
    points, densities = sorted(curve["rewind_samples"].unique()), sorted(curve["density"].unique(), reverse=True)
    columns = [["W_k", *(f"{point:,.0f}" for point in points)]]
    for density in densities:
        column = [cells.get((point, density), text.MISSING) for point in points]
        columns.append([f"{text.percent(density)}%", *column])
    return text.columns(columns)


def _cell(mean: float, sd: float, n: int, *, digits: str) -> str:
    spread = "" if math.isnan(sd) else f" ± {sd:{digits}}"
    return f"{mean:{digits}}{spread} ({n})"
