"""Sections of the page: figures to pick from, what a reader must know to read them, and curves of means.

An analysis of one's own builds its section from these, or gets `number_section`.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, NamedTuple

import pandas as pd

from sslticket.report import text
from sslticket.report.chart import MAX_SERIES, Axis, Chart, Curve, HeatMap, Point
from sslticket.report.stats import PANEL_KEYS
from sslticket.results.row_schema import keys_of
from sslticket.results.rows import ROW_TYPES, CostFields, Row, TargetFields, shared_controls

DENSITY_AXIS = Axis("weights that remain, % of the prunable (log scale)", "density", log=True)

_UNIQUE_KEYS = [*PANEL_KEYS, "series", "unit", "run", "level", "ticket_hash", "seed", "other_run", "other_hash"]


@dataclass(frozen=True)
class FigureGroup:
    """Figures that are shown together."""

    name: str
    charts: tuple[Chart, ...] = ()
    heat_maps: tuple[HeatMap, ...] = ()


@dataclass(frozen=True)
class Picker:
    """Groups of figures of which the page shows one."""

    label: str
    groups: tuple[FigureGroup, ...]


@dataclass(frozen=True)
class Section:
    """The figures of an analysis.

    Attributes:
        name: Name of its place in the page.
        title: Heading.
        explanation: How to read it.
        pickers: Its figures.
        series: Name, tickets and control, as `chart.assign_styles` takes them, of those that no other section has.
    """

    name: str
    title: str
    explanation: str
    pickers: tuple[Picker, ...]
    series: tuple[tuple[str, str, str], ...] = ()

    def charts(self) -> Iterator[Chart]:
        """All charts."""
        for picker in self.pickers:
            for group in picker.groups:
                yield from group.charts

    def heat_maps(self) -> Iterator[HeatMap]:
        """All heat maps."""
        for picker in self.pickers:
            for group in picker.groups:
                yield from group.heat_maps


SeriesFacts = Mapping[str, Mapping[str, str]]
"""For each series the words for what it is, by what they tell; "" in `shared` unless it belongs into every chart."""
_FACETS = ("source", "control", "objective", "subset", "search", "variant", "head", "numerics")
"""What charts of many series are split by, the first of equal ones; further ones only where these do not do."""


def series_facts(rows: pd.DataFrame) -> SeriesFacts:
    """What a frame of `stats.name_series` tells of each series."""
    keys = ["source", "objective", "subset", "search", "variant", "head", "numerics"]
    found = rows.drop_duplicates("series")[["series", "control", *keys]].astype(object)
    told = found.where(found.notna(), "").set_index("series").to_dict("index")
    return {
        str(name): {
            "source": f"from {row['source']}",
            "control": "tickets"
            if row["control"] in ("", "ticket")
            else f"controls \N{LEFT DOUBLE QUOTATION MARK}{row['control']}\N{RIGHT DOUBLE QUOTATION MARK}",
            "objective": str(row["objective"]),
            "subset": f"{100 * row['subset']:g}% of the images" if row["subset"] != "" else "",
            **{key: str(row[key]) for key in ("search", "variant", "numerics")},
            "head": f"{row['head']} head",
            "shared": "shared" if row["control"] in shared_controls() else "",
        }
        for name, row in told.items()
    }


class SeriesGroup(NamedTuple):
    """Series of one chart of several.

    Attributes:
        facets: What they have in common, by the name of the fact; () for all series of a chart.
        names: Their names.
    """

    facets: tuple[tuple[str, str], ...]
    names: list[str]

    @property
    def words(self) -> str:
        """What they have in common."""
        return ", ".join(value for _, value in self.facets if value)


def split_series(names: Sequence[str], facts: SeriesFacts) -> list[SeriesGroup]:
    """Series of one chart in as few charts as have no more than `MAX_SERIES`, and what is in each.

    What all runs share is in each of them, unless that would fill more than half of it. They are split by the fewest
    facts that do, and of these by the one that gives the fewest charts; where no facts do, in their order.
    """
    if len(names) <= MAX_SERIES:
        return [SeriesGroup((), list(names))]
    shared = [name for name in names if name in facts and facts[name]["shared"]]
    if len(shared) > MAX_SERIES // 2:  # so many would leave no room beside them
        shared = []
    own = [name for name in names if name not in shared]
    room = max(1, MAX_SERIES - len(shared))
    told = {name: facts.get(name, {}) for name in own}
    differ = [key for key in _FACETS if len({each.get(key, "") for each in told.values()}) > 1]
    # Objectives stay in one chart if that can be: what they are worth is what a report is about.
    pools = [[key for key in differ if key != "objective"], differ]
    groups: dict[tuple[str, ...], list[str]] = {}
    by: Sequence[str] = ()
    for keys, count in ((each, size) for each in pools for size in range(1, len(each) + 1)):
        if groups:
            break
        for chosen in combinations(keys, count):
            tried = _grouped(own, told, chosen)
            if max(map(len, tried.values())) <= room and (not groups or len(tried) < len(groups)):
                groups, by = tried, chosen
    if not groups:
        groups, by = _grouped(own, told, differ), differ
    found = []
    for key, group in groups.items():
        parts = [group[begin : begin + room] for begin in range(0, len(group), room)]
        for number, part in enumerate(parts, start=1):
            facets = tuple(zip(by, key, strict=True))
            facets += (("part", f"part {number} of {len(parts)}"),) if len(parts) > 1 else ()
            found.append(SeriesGroup(facets, [name for name in names if name in part or name in shared]))
    return found


def _grouped(
    names: Sequence[str], told: Mapping[str, Mapping[str, str]], keys: Sequence[str]
) -> dict[tuple[str, ...], list[str]]:
    """The names by what is told of each under these keys."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for name in names:
        groups.setdefault(tuple(told[name].get(key, "") for key in keys), []).append(name)
    return groups


def split_chart(chart: Chart, facts: SeriesFacts) -> list[Chart]:
    """The chart, or several of fewer series each where it has more than can be read."""
    names = list(dict.fromkeys(curve.series for curve in chart.curves))
    parts = split_series(names, facts)
    if len(parts) == 1:
        return [chart]
    return [
        replace(
            chart,
            name=f"{chart.name}-{group.words.replace(' ', '-').replace(',', '') or number}",
            title=f"{chart.title} ({group.words})" if group.words else chart.title,
            curves=tuple(curve for curve in chart.curves if curve.series in group.names),
            part=f"{group.words}: {len(group.names)} series",
            facets=group.facets,
        )
        for number, group in enumerate(parts)
    ]


def rows_of_kind(frame: pd.DataFrame, kind: str) -> pd.DataFrame:
    """The rows of one kind in a frame of `stats.name_series`, each once, though a run folder was copied."""
    return frame[frame["kind"] == kind].drop_duplicates(_UNIQUE_KEYS)


def split_panels(own: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Rows that may be drawn in one picture, and what they were measured on."""
    for _, panel in own.groupby(PANEL_KEYS):
        yield f"{text.describe_panel(panel)}, protocol {panel['protocol'].iloc[0]}", panel


def network_of_rows(own: pd.DataFrame) -> str:
    """The network that rows are of, with the layers that might be pruned."""
    return text.describe_network(own["model"].iloc[0], own["within"].iloc[0])


def split_densities(own: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Rows of about the same density, in words and densest first; with grey and colour images it differs a little."""
    rounded = own["density"].map(lambda density: float(f"{density:.2g}"))
    for _, group in sorted(own.groupby(rounded), key=lambda each: -float(str(each[0]))):
        yield f"{text.format_percent(group['density'].mean())}%", group


def mean_curves(
    rows: pd.DataFrame,
    x: str,
    axis: Axis,
    y: str,
    what: str,
    *,
    by: Sequence[str] = ("series",),
    dash: str | None = None,
    label: str = "",
    no_markers: bool = False,
    row: str = "training",
) -> tuple[Curve, ...]:
    """A curve for each series, from its means of `y` at each `x`; rows without a `y` are left out.

    Rows of one `unit` are averaged first, so that the spread is one over searches.

    Args:
        rows: What may be pooled, with columns `x`, `y`, `unit` and those of `by`. With `cut` and `effective_density`,
            points warn of weights that are on no path from input to output.
        x: Column of the positions.
        axis: What its values are.
        y: Column of what is averaged.
        what: What `y` is, for the words of a point.
        by: Columns of which the first names the series; several curves of one series differ in the others.
        dash: Dashes of the lines; None for those of the series.
        label: What all curves are called beside their series.
        no_markers: Whether points have no markers.
        row: What each row is, for the words of a point.
    """
    known = rows.assign(**{y: rows[y].astype(float)}).dropna(subset=[y])
    if "cut" not in known:
        known = known.assign(cut=False, effective_density=math.nan)
    curves = []
    for (name, *others), own in known.groupby(list(by), sort=False):
        units = own.groupby([x, "unit"], sort=True).agg(
            y=(y, "mean"), rows=(y, "size"), cut=("cut", "any"), effective=("effective_density", "min")
        )
        suffix = ", ".join(filter(None, [label, *map(str, others)]))
        full_name = ", ".join(filter(None, [str(name), suffix]))
        points = [_mean_point(full_name, at, axis, what, each, row) for at, each in units.groupby(level=0)]
        ordered = tuple(points[::-1] if axis.kind == "density" else points)
        curves.append(Curve(str(name), ordered, dash, suffix, no_markers))
    return tuple(curves)


def _mean_point(name: str, at: Any, axis: Axis, what: str, units: pd.DataFrame, row: str) -> Point:
    x, n = float(at), len(units)
    mean, sd = float(units["y"].mean()), float(units["y"].std())
    spread = "" if math.isnan(sd) else f" ± {sd:.2g}"
    minus = f"{mean:.4g}".replace("-", "\N{MINUS SIGN}")
    sample = text.format_sample_size(n, str(units.index[0][1]).split()[0], int(units["rows"].sum()), row)
    warning = text.disconnection_warning(float(units["effective"].min()), int(units["cut"].sum()), n)
    tooltip = f"{name} at {axis.format(x)}: {what} {minus}{spread}, {sample}{warning}"
    return Point(x, mean, tooltip, mean - sd, mean + sd)


def number_section(frame: pd.DataFrame, kind: str, title: str, explanation: str) -> Section | None:
    """A section for rows of any kind: each number that only this kind has, against density.

    Args:
        frame: Rows of all kinds, as `stats.name_series` gives them.
        kind: Kind of the rows.
        title: Heading.
        explanation: What the numbers are.

    Returns:
        None where there are no such rows, or they have no numbers.
    """
    row_type, own = ROW_TYPES[kind], rows_of_kind(frame, kind)
    common = {name for each in (Row, CostFields, TargetFields) for name in keys_of(each)}
    numbers = [
        name for name, key in keys_of(row_type).items() if int in key.types and name not in common | {"replicate"}
    ]
    panels = split_panels(own) if issubclass(row_type, TargetFields) else own.groupby(["model", "within"])
    groups = []
    for number, (_, panel) in enumerate(panels):
        where = network_of_rows(panel)
        if issubclass(row_type, TargetFields):
            where = f"{text.describe_panel(panel)}, protocol {panel['protocol'].iloc[0]}"
        charts = [
            Chart(f"{kind}-{name}-{number}", f"{where}: {words}", DENSITY_AXIS, Axis(words), curves)
            for name, words in ((name, name.replace("_", " ")) for name in numbers)
            if (curves := mean_curves(panel, "density", DENSITY_AXIS, name, words))
        ]
        groups += [FigureGroup(where, tuple(charts))] if charts else []
    return Section(kind, title, explanation, (Picker("Measured:", tuple(groups)),)) if groups else None
