"""Sections of the page: figures to pick from, what a reader must know to read them, and curves of means."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from sslticket.report import text
from sslticket.report.chart import Axis, Chart, Curve, HeatMap, Point
from sslticket.report.stats import PANEL_KEYS

_UNIQUE_KEYS = [*PANEL_KEYS, "series", "unit", "run", "level", "ticket_hash", "seed", "other_run", "other_hash"]


@dataclass(frozen=True)
class FigureGroup:
    """Figures that are shown together."""

    name: str
    charts: tuple[Chart, ...] = ()
    heat_maps: tuple[HeatMap, ...] = ()


@dataclass(frozen=True)
class Picker:
    """Choices of which the page shows one."""

    label: str
    groups: tuple[FigureGroup, ...]


@dataclass(frozen=True)
class Section:
    """The figures of an analysis.

    Attributes:
        name: of its place in the page.
        title: its heading.
        explanation: how to read it.
        pickers: its figures.
        series: name, tickets and control, as `chart.looks` takes them, of those that no other part of the page has.
    """

    name: str
    title: str
    explanation: str
    pickers: tuple[Picker, ...]
    series: tuple[tuple[str, str, str], ...] = ()

    def charts(self) -> Iterator[Chart]:
        """All charts."""
        for pick in self.pickers:
            for choice in pick.groups:
                yield from choice.charts

    def heat_maps(self) -> Iterator[HeatMap]:
        """All heat maps."""
        for pick in self.pickers:
            for choice in pick.groups:
                yield from choice.heat_maps


def rows_of_kind(frame: pd.DataFrame, kind: str) -> pd.DataFrame:
    """The rows of one kind in a frame of `statistics.named`, each once, though a run folder was copied."""
    return frame[frame["kind"] == kind].drop_duplicates(_UNIQUE_KEYS)


def split_panels(own: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Rows that may be drawn in one picture, and what they were measured on."""
    for _, panel in own.groupby(PANEL_KEYS):
        yield f"{text.describe_panel(panel)}, protocol {panel['protocol'].iloc[0]}", panel


def network_of_rows(own: pd.DataFrame) -> str:
    """The network of rows of one, pruned where."""
    return text.describe_network(own["model"].iloc[0], own["within"].iloc[0])


def split_densities(own: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Rows of about the same density, in words and densest first; with grey and colour images it differs a little."""
    about = own["density"].map(lambda density: float(f"{density:.2g}"))
    for _, here in sorted(own.groupby(about), key=lambda each: -float(str(each[0]))):
        yield f"{text.format_percent(here['density'].mean())}%", here


def mean_curves(
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
        points = [_mean_point(called_so, place, axis, what, each, row) for place, each in units.groupby(level=0)]
        drawn.append(Curve(str(name), tuple(points[::-1] if axis.kind == "density" else points), dash, beside, bare))
    return tuple(drawn)


def _mean_point(name: str, at: Any, axis: Axis, what: str, units: pd.DataFrame, row: str) -> Point:
    place, n = float(at), len(units)
    mean, sd = float(units["y"].mean()), float(units["y"].std())
    spread = "" if math.isnan(sd) else f" ± {sd:.2g}"
    minus = f"{mean:.4g}".replace("-", "\N{MINUS SIGN}")
    told = f"{name} at {axis.format(place)}: {what} {minus}{spread}, "
    told += text.format_sample_size(n, str(units.index[0][1]).split()[0], int(units["rows"].sum()), row)
    told += text.disconnection_warning(float(units["effective"].min()), int(units["cut"].sum()), n)
    return Point(place, mean, told, mean - sd, mean + sd)
