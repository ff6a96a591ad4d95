"""Charts and heat maps as files for a paper, by matplotlib: PNG, PDF or SVG, the same bytes for the same rows."""

import io
import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator
from matplotlib.transforms import ScaledTranslation

from sslticket import escaping
from sslticket.report.chart import (
    BADGES,
    COLOURS,
    Chart,
    Curve,
    HeatMap,
    Mark,
    NumberTable,
    SeriesStyle,
    axis_ranges,
    direct_labels,
    spread_apart,
    stack_tags,
    x_ticks,
)

FORMATS = ("png", "pdf", "svg")
INK, RULE = "#1b1f24", "#d5dae0"

_STYLE: dict[Any, Any] = {
    "axes.edgecolor": RULE,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "font.size": 9,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "pdf.fonttype": 42,  # letters that can be searched and copied
    "svg.fonttype": "none",
    "svg.hashsalt": "sslticket",
    "text.color": INK,
    "text.parse_math": False,  # names are data: a dollar sign in one is a dollar sign
    "xtick.color": RULE,
    "xtick.labelcolor": INK,
    "ytick.color": RULE,
    "ytick.labelcolor": INK,
}


def draw_charts(
    charts: Sequence[Chart],
    styles: Mapping[str, SeriesStyle],
    width: float = 7.2,
    height: float = 0.0,
    footer: str = "",
) -> Figure:
    """Charts side by side, two to a line, each with its legend below it or names at the ends of its lines.

    Args:
        charts: What to draw.
        styles: Style of each series, from `chart.assign_styles`.
        width: Width of one chart, in inches.
        height: Height of one chart without its legend, in inches; 0 for one that suits the width.
        footer: Small print below all.
    """
    across = min(2, len(charts))
    down = math.ceil(len(charts) / across)
    small = width < _SMALL
    direct = [_direct_names(chart, width) for chart in charts]
    beside = _LETTER * max((len(name) for names in direct for name in names), default=0)
    letters = int((width - 0.5) / _LETTER * (1.15 if small else 1.0))
    keys = [_legend_entries(chart, styles, letters, names) for chart, names in zip(charts, direct, strict=True)]
    heights = [
        (height or 0.5 + 0.5 * width)
        + max(_legend_height(names, letters) for _, names in keys[row * across : (row + 1) * across])
        for row in range(down)
    ]
    sizes = {"font.size": 7, "axes.titlesize": 7.5, "lines.linewidth": 1.1} if small else {}
    with matplotlib.rc_context(_STYLE | sizes):
        figure = Figure(figsize=(width * across, sum(heights) + 0.2 * bool(footer)), layout="constrained")
        grid = figure.add_gridspec(down, across, height_ratios=heights)
        for number, (chart, (handles, names)) in enumerate(zip(charts, keys, strict=True)):
            axes = figure.add_subplot(grid[number // across, number % across])
            title = "\n".join(textwrap.wrap(chart.title, int(width * (15 if small else 11))))
            _draw_chart(axes, replace(chart, title=title), styles, width=width, beside=beside)
            if direct[number]:
                _name_lines(axes, chart, styles, 0.35 * width)
            if names:
                below = axes.transAxes + ScaledTranslation(0, -_below(axes), figure.dpi_scale_trans)
                axes.legend(
                    handles, names, loc="upper left", bbox_to_anchor=(0, 0), bbox_transform=below, borderaxespad=0,
                    frameon=False, handlelength=2.6, fontsize=6.5 if small else _LEGEND_SIZE,
                    ncols=_legend_columns(names, letters),
                )  # fmt: skip
        if footer:
            words = "\n".join(textwrap.wrap(footer, int(14 * width * across)))
            figure.supxlabel(words, x=0.01, ha="left", fontsize=8)
    return figure


_SMALL = 5.0
"""Narrower charts are those of one column of a paper."""
_BESIDE = 0.9
"""Inches beside a chart's frame, for its y axis and a margin."""
_LEGEND_SIZE = 7.5
_LETTER = 0.062
"""Width of a letter of a legend in inches; none may be cut."""


def _direct_names(chart: Chart, width: float) -> list[str]:
    """The names at the ends of the lines, where they leave the lines room."""
    names = direct_labels(chart)
    return names if _LETTER * max(map(len, names), default=0) < 0.35 * width else []


def _legend_entries(
    chart: Chart, styles: Mapping[str, SeriesStyle], letters: int, direct: Sequence[str]
) -> tuple[list[Any], list[str]]:
    """The handles and the words of a chart's legend: series that have no name at their line, and what marks mean."""
    handles: dict[str, Any] = {}
    for curve in chart.curves:
        if curve.series not in direct:
            handles.setdefault(_wrapped(_legend_name(curve), letters), _curve_handle(curve, styles[curve.series]))
    badges = {each for curve in chart.curves for point in curve.points for each in point.badges}
    for kind, words in BADGES.items():
        if kind in badges:
            handles[_wrapped(words, letters)] = Line2D(
                [], [], linestyle="", marker="o" if kind[0] == "e" else "s", markerfacecolor="none",
                markeredgecolor=INK, markersize=8, markeredgewidth=2.2 if kind[-1] == "+" else 0.9,
            )  # fmt: skip
    return list(handles.values()), list(handles)


def _wrapped(name: str, letters: int) -> str:
    return "\n".join(textwrap.wrap(name, max(12, letters)) or [name])


def _legend_columns(names: Sequence[str], letters: int) -> int:
    longest = max(len(line) for name in names for line in name.split("\n"))
    return max(1, min(len(names), (letters + 8) // (longest + 10)))


def _legend_height(names: Sequence[str], letters: int) -> float:
    """Inches that a legend takes below its chart."""
    if not names:
        return 0.0
    lines = sum(1 + name.count("\n") for name in names)
    return 0.16 * math.ceil(lines / _legend_columns(names, letters)) + 0.1


def _curve_handle(curve: Curve, style: SeriesStyle) -> Line2D:
    """A curve's line and marker, for a legend."""
    return Line2D(
        [], [], color=style.hex, linestyle=_line_style(curve, style), markersize=4.5,
        marker="" if curve.no_markers else style.marker, markerfacecolor="none" if style.hollow else style.hex,
    )  # fmt: skip


def _line_style(curve: Curve, style: SeriesStyle) -> Any:
    if curve.no_line:
        return ""
    dash = style.dash if curve.dash is None else curve.dash
    return (0, tuple(float(part) / 1.5 for part in dash.split())) if dash else "-"


def _draw_chart(
    axes: Axes,
    chart: Chart,
    styles: Mapping[str, SeriesStyle],
    *,
    panel: bool = False,
    width: float = 7.2,
    beside: float = 0.0,
) -> None:
    """The axes and lines of a chart.

    Args:
        axes: Where to draw it.
        chart: The chart.
        styles: Style of each series.
        panel: Whether it is one of several with one legend.
        width: Its width in inches.
        beside: Room that names take to its right, in inches.
    """
    across, down = axis_ranges(chart)
    small, room = width < _SMALL, width - _BESIDE - beside
    for curve in chart.curves:
        _draw_curve(axes, chart, curve, styles[curve.series], small=small)
    if chart.horizontal_line:
        value, word = chart.horizontal_line
        label = word if panel else ""
        axes.axhline(value, color=INK, linewidth=0.8, linestyle=(0, (4, 4)), zorder=1, label=label)
        if not panel:
            # Of what has no room, the first word says what the line is.
            word = word if _LETTER * len(word) < 0.7 * room else word.partition(",")[0]
            axes.annotate(
                word, (1, value), (0, 2), ("axes fraction", "data"), "offset points", ha="right", fontsize=6.5,
            )  # fmt: skip
    if chart.vertical_line:
        value, word = chart.vertical_line
        axes.axvline(value, color=INK, linewidth=0.8, linestyle=(0, (4, 4)), zorder=1)
        axes.annotate(word, (value, 1), (3, -8), ("data", "axes fraction"), "offset points", fontsize=8)
    for scale, set_scale in ((chart.x, axes.set_xscale), (chart.y, axes.set_yscale)):
        if scale.log:
            set_scale("log")
    axes.set_xlim(*(across[::-1] if chart.x.kind == "density" else across))
    axes.set_ylim(*down)
    _set_ticks(axes.xaxis, x_ticks(chart, across, room, 0.065 if small or panel else 0.08))
    _set_ticks(axes.yaxis, chart.y.ticks(*down))
    axes.set_xlabel(_x_label(chart, room, panel))
    axes.set_ylabel("\n".join(textwrap.wrap(chart.y.label, 30 if panel or small else 60)))
    axes.grid(axis="y")
    axes.set_title(chart.title)


def _x_label(chart: Chart, room: float, panel: bool) -> str:
    """The words below a chart, in lines that `room` inches hold."""
    return "\n".join(textwrap.wrap(chart.x.label, max(16, int(room * (17 if panel else 14)))))


def _below(axes: Axes) -> float:
    """Inches that the ticks and x's label take below a chart."""
    return (20 + 11 * (1 + axes.get_xlabel().count("\n"))) / 72


def _name_lines(axes: Axes, chart: Chart, styles: Mapping[str, SeriesStyle], height: float) -> None:
    """The name of each series beside the right end of its line; the axes are about so many inches high."""
    turn = math.log if chart.y.log else float
    low, high = map(turn, axis_ranges(chart)[1])
    ends = [curve.points[-1] for curve in chart.curves]
    places = [(turn(end.y) - low) / (high - low) for end in ends]
    for curve, place in zip(chart.curves, spread_apart(places, 0.13 / height, 0.0, 1.0), strict=True):
        axes.annotate(
            curve.series, (1, place), (6, 0), "axes fraction", "offset points", va="center", fontsize=_LEGEND_SIZE,
            color=styles[curve.series].hex, annotation_clip=False,
        )  # fmt: skip


PAPER_WIDTH = 7.2
"""Width of a paper's page in inches: what is drawn for it is read at its own size."""
_MARKED_LINE: dict[str, Any] = {"color": INK, "linewidth": 1.5, "linestyle": (0, (1, 1.4))}
_KEY_WIDTH = {1: 60, 2: 42, 3: 25}
"""Letters in a line below a chart, by how many charts stand beside each other."""
_TITLE_WIDTH = {1: 64, 2: 46, 3: 30}
"""The same for the titles."""
_STAR: dict[str, Any] = {"marker": "*", "markersize": 15, "markerfacecolor": "#ffffff", "markeredgewidth": 1.2}


def draw_panels(parts: Sequence[Chart | NumberTable], styles: Mapping[str, SeriesStyle], footer: str = "") -> Figure:
    """The panels of a figure of a paper, at a page's width: charts side by side, tables below one another.

    All series are in one legend above the charts; many that the charts do not share are named below each, where marks
    of others are named too, out of the data's way.

    Args:
        parts: Charts and tables, in their order; tables come last.
        styles: Style of each series.
        footer: Small print below all.
    """
    charts = [part for part in parts if isinstance(part, Chart)]
    tables = [part for part in parts if isinstance(part, NumberTable)]
    across = _charts_across(len(charts))
    charts = [replace(each, title="\n".join(textwrap.wrap(each.title, _TITLE_WIDTH[across]))) for each in charts]
    down = math.ceil(len(charts) / across)
    width = PAPER_WIDTH if len(charts) != 1 or tables else 4.8
    names = list(dict.fromkeys(name for chart in charts for name in _series_names(chart)))
    apart = len(names) > _MOST_SHARED and all(2 * len(chart.curves) < len(names) for chart in charts)
    names = [] if apart else names
    lines = [_lines_around(chart, width, across, apart) for chart in charts]
    heights = [2.12 + 0.13 * max(lines[row * across : (row + 1) * across]) for row in range(down)]
    heights += [0.55 + sum(_line_heights(table)) for table in tables]
    legend_columns = max(1, min(len(names), int(width / (0.6 + 0.062 * max(map(len, names), default=0)))))
    above = 0.17 * math.ceil(len(names) / legend_columns)
    style = _STYLE | {"font.size": 8, "axes.titlesize": 8.5, "legend.fontsize": 7.5, "lines.linewidth": 1.3}
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(width, sum(heights) + above + (0.35 if footer else 0.1)), layout="constrained")
        grid = figure.add_gridspec(len(heights), across, height_ratios=heights)
        for number, chart in enumerate(charts):
            axes = figure.add_subplot(grid[number // across, number % across])
            _draw_chart(axes, chart, styles, panel=True, width=width / across)
            series = dict(zip(*axes.get_legend_handles_labels()[::-1], strict=True)) if apart else {}
            _draw_key(axes, chart, series, _draw_marks(axes, chart, styles), across)
        for row, table in enumerate(tables, start=down):
            _draw_number_table(figure.add_subplot(grid[row, :]), table)
        if names:
            handles = {label: handle for axes in figure.axes
                       for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}  # fmt: skip
            figure.legend(
                [handles[name] for name in names], names, loc="outside upper left", ncols=legend_columns,
                frameon=False, handlelength=2.8, borderaxespad=0.2,
            )  # fmt: skip
        if footer:
            figure.supxlabel("\n".join(textwrap.wrap(footer, int(19 * width))), x=0.01, ha="left", fontsize=6.5)
    return figure


_MOST_SHARED = 14
"""Names of a legend above all charts of a figure, if no chart has half of them."""


def _charts_across(count: int) -> int:
    """How many charts stand beside each other."""
    return {0: 1, 1: 1, 2: 2, 4: 2}.get(count, 3)


def _legend_name(curve: Curve) -> str:
    name = f"{curve.series}, {curve.label}" if curve.label else curve.series
    return f" {name}" if name.startswith("_") else name  # else matplotlib leaves it out of the legend


def _series_names(chart: Chart) -> list[str]:
    """What a legend names of a chart: its series, and the line across it."""
    names = dict.fromkeys(_legend_name(curve) for curve in chart.curves)
    return list(names | dict.fromkeys([chart.horizontal_line[1]] if chart.horizontal_line else []))


def _key_columns(names: Sequence[str], across: int) -> int:
    """Columns of series in the key below a chart: as many as fit beside each other."""
    return max(1, min(len(names), int(_KEY_WIDTH[across] * 1.3 / (7 + max(map(len, names), default=0)))))


def _mark_key(chart: Chart, across: int) -> list[tuple[Mark, str]]:
    """A line of the key for each mark, and for the points of each series one."""
    found: dict[str, Mark] = {}
    for mark in chart.marks:
        found.setdefault("\n".join(textwrap.wrap(f"{mark.tag} {mark.words}".strip(), _KEY_WIDTH[across])), mark)
    return [(mark, words) for words, mark in found.items()]


def _lines_around(chart: Chart, width: float, across: int, named: bool) -> int:
    """Lines of a chart's title, x's label and its key, in which its series are too if they are `named` there."""
    names = _series_names(chart) if named else []
    key = _mark_key(chart, across)
    series = math.ceil(len(names) / (1 if key else _key_columns(names, across)))
    texts = [chart.title, _x_label(chart, width / across - _BESIDE, True), *(words for _, words in key)]
    return series + sum(1 + text.count("\n") for text in texts)


def _draw_marks(axes: Axes, chart: Chart, styles: Mapping[str, SeriesStyle]) -> dict[int, Any]:
    """Published numbers: white stars, dotted lines and hatched bands, with their tags outside of the frame.

    Returns: What a legend shows of each mark, by its `id`.
    """
    handles = {id(mark): _draw_mark(axes, mark, styles) for mark in chart.marks}
    _tag_marks(axes, [mark for mark in chart.marks if mark.x and not mark.y], "x")
    _tag_marks(axes, [mark for mark in chart.marks if mark.y and not mark.x], "y")
    return handles


def _draw_key(axes: Axes, chart: Chart, series: Mapping[str, Any], marks: Mapping[int, Any], across: int) -> None:
    """The legend below a chart: of these series, and of its marks."""
    key = _mark_key(chart, across)
    if not series and not key:
        return
    below = axes.transAxes + ScaledTranslation(0, -_below(axes), axes.figure.dpi_scale_trans)
    legend = axes.legend(
        [*series.values(), *(marks[id(mark)] for mark, _ in key)], [*series, *(words for _, words in key)],
        loc="upper left", bbox_to_anchor=(0, 0), bbox_transform=below, borderaxespad=0, frameon=False, fontsize=6.8,
        handlelength=2.2, labelspacing=0.3, columnspacing=1.0, ncols=1 if key else _key_columns(list(series), across),
    )  # fmt: skip
    legend.set_zorder(1)


def _draw_mark(axes: Axes, mark: Mark, styles: Mapping[str, SeriesStyle]) -> Any:
    """Draw one, and give what its legend shows."""
    if mark.x and mark.y:
        style = styles[mark.series] if mark.series else None
        colour = INK if style is None else style.hex
        error = None if math.isnan(mark.error) else mark.error
        axes.errorbar(
            mark.x[0], mark.y[0], yerr=error, linestyle="", ecolor=INK, elinewidth=0.9, capsize=3, zorder=1.5,
            markeredgecolor=colour, **_STAR,
        )  # fmt: skip
        return Line2D([], [], linestyle="", markeredgecolor=colour, **(_STAR | {"markersize": 8}))
    ends = mark.ends("x" if mark.x else "y")
    draw_line, draw_span = (axes.axvline, axes.axvspan) if mark.x else (axes.axhline, axes.axhspan)
    for end in ends:
        draw_line(end, zorder=1.2, **_MARKED_LINE)
    if len(ends) > 1:
        draw_span(ends[0], ends[1], facecolor="none", edgecolor=RULE, hatch="////", linewidth=0, zorder=0.5)
    return Line2D([], [], **_MARKED_LINE)


def _tag_marks(axes: Axes, marks: Sequence[Mark], direction: Literal["x", "y"]) -> None:
    """Write the tags of lines outside of the frame, those that would touch further out."""
    transform = axes.transData + axes.transAxes.inverted()
    places = [float(transform.transform((end, 0) if direction == "x" else (1, end))[int(direction == "y")])
              for end in (mark.ends(direction)[0] for mark in marks)]  # fmt: skip
    rows = stack_tags(places, 0.09 if direction == "x" else 0.05)
    for mark, place, row in zip(marks, places, rows, strict=True):
        at, shift = ((place, 1), (0, 1 + 7 * row)) if direction == "x" else ((1, place), (2 + 11 * row, 0))
        side: dict[str, Any] = {"ha": "center", "va": "bottom"} if direction == "x" else {"ha": "left", "va": "center"}
        axes.annotate(
            mark.tag, at, shift, "axes fraction", "offset points", fontsize=6.5, annotation_clip=False, **side
        )
    if direction == "x" and marks:
        axes.set_title(axes.get_title("left"), pad=11 + 7 * max(rows))


_TABLE_LINE = 0.19  # inches


def _line_heights(table: NumberTable) -> list[float]:
    """The height of each line of a table, the heading first."""
    heading = max(len(_wrapped_heading(table, column)) for column in table.columns)
    doubled = [any(ours and theirs for ours, theirs in cells) for _, cells in table.lines]
    return [_TABLE_LINE * heading + 0.06, *(_TABLE_LINE * (1.75 if double else 1.0) for double in doubled)]


def _wrapped_heading(table: NumberTable, column: str) -> list[str]:
    return textwrap.wrap(column, max(8, int(78 / (1 + len(table.columns)))))


def _draw_number_table(axes: Axes, table: NumberTable) -> None:
    """Ours above, others' in slanted letters and brackets below; a rule under the heading."""
    heights = _line_heights(table)
    total = sum(heights)
    axes.set_axis_off()
    axes.set_xlim(0, 1)
    axes.set_ylim(total, 0)
    axes.set_title(table.title)
    longest = max(len(label) for label, _ in table.lines)
    first = min(0.42, 0.016 * longest + 0.02)
    middles = [first + (number + 0.5) * (1 - first) / len(table.columns) for number in range(len(table.columns))]
    for middle, column in zip(middles, table.columns, strict=True):
        axes.text(middle, heights[0] - 0.05, "\n".join(_wrapped_heading(table, column)), ha="center", va="bottom",
                  fontsize=7.5, fontweight="bold")  # fmt: skip
    axes.plot([0, 1], [heights[0], heights[0]], color=INK, linewidth=0.8)
    top = heights[0]
    for number, ((label, cells), height) in enumerate(zip(table.lines, heights[1:], strict=True)):
        if number % 2:
            axes.axhspan(top, top + height, color="#f4f6f8", linewidth=0, zorder=0)
        axes.text(0.005, top + height / 2, label, ha="left", va="center", fontsize=7.5)
        for middle, (ours, theirs) in zip(middles, cells, strict=True):
            both = bool(ours and theirs)
            if ours or not theirs:
                at = top + (0.28 * height if both else height / 2)
                axes.text(middle, at, ours or "\N{EN DASH}", ha="center", va="center", fontsize=7.5)
            if theirs:
                at = top + (0.74 * height if both else height / 2)
                axes.text(middle, at, f"[{theirs}]", ha="center", va="center", fontsize=6.8, fontstyle="italic",
                          color="#4b535c")  # fmt: skip
        top += height
    axes.plot([0, 1], [total, total], color=INK, linewidth=0.8)


def _draw_curve(axes: Axes, chart: Chart, curve: Curve, style: SeriesStyle, *, small: bool) -> None:
    x, y = ([getattr(point, name) for point in curve.points] for name in ("x", "y"))
    bounded = [point for point in curve.points if not math.isnan(point.low)]
    low, high = ([getattr(point, name) for point in bounded] for name in ("low", "high"))
    bounds = np.clip([low, high], *chart.y_bounds)
    if len(curve.points) == 1:  # a band needs two
        axes.vlines([point.x for point in bounded], *bounds, color=style.hex, alpha=0.5, linewidth=1.3)
    else:
        axes.fill_between([point.x for point in bounded], *bounds, color=style.hex, alpha=0.16, linewidth=0)
    axes.plot(
        x, y, color=style.hex, linestyle=_line_style(curve, style), marker="" if curve.no_markers else style.marker,
        markersize=3 if small else 4.5, markerfacecolor="none" if style.hollow else style.hex,
        label=_legend_name(curve),
    )  # fmt: skip
    if curve.dots:
        beside = axes.transData + ScaledTranslation(4 / 72, 0, axes.figure.dpi_scale_trans)
        xs, ys = zip(*curve.dots, strict=True)
        axes.plot(
            xs, ys, linestyle="", marker=".", markersize=2.2 if small else 3.5, color=style.hex, alpha=0.55,
            transform=beside, zorder=1.8,
        )  # fmt: skip
    rings = [(point, "o", 9.5, 1.0, INK) for point in curve.points if point.highlighted]
    rings += [
        (point, *(("o", 9.5) if kind[0] == "e" else ("s", 11.5)), 2.2 if kind[-1] == "+" else 0.9, style.hex)
        for point in curve.points
        for kind in point.badges
    ]
    for point, marker, size, line, colour in rings:
        axes.plot(
            point.x, point.y, linestyle="", marker=marker, markersize=size * (0.7 if small else 1),
            markerfacecolor="none", markeredgecolor=colour, markeredgewidth=line,
        )  # fmt: skip


def _set_ticks(axis: Any, ticks: Sequence[tuple[float, str]]) -> None:
    axis.set_major_locator(FixedLocator([value for value, _ in ticks]))
    axis.set_ticklabels([words for _, words in ticks])
    axis.set_minor_locator(NullLocator())


def draw_heat_map(heat: HeatMap, width: float = 0.0) -> Figure:
    """A heat map; a cell to be marked is orange, one without a value grey, and of differences those below 0 are orange.

    Args:
        heat: What to draw.
        width: Width in inches, at least about; 0 for one that suits its cells.
    """
    shape = len(heat.rows), len(heat.columns)
    shades = np.full((*shape, 4), matplotlib.colors.to_rgba("#f0f2f4"))
    for position, (_, shade) in _filled_cells(heat):
        shades[position] = _heat_colour(shade, heat.of_differences)
    few = shape[1] <= 12
    letters = int(14 * width / 3) if width else 200
    names = ["\n".join(textwrap.wrap(name, letters, break_long_words=False)) for name in heat.rows]
    longest = max(len(words) for _, (words, _) in _filled_cells(heat))
    column = 0.075 * longest + 0.12 if few else 0.2
    lines = sum(1 + name.count("\n") for name in names)
    titles = textwrap.wrap(heat.title, int(13 * width)) if width else [heat.title]
    size = (
        width or max(4.6, 1.6 + column * shape[1]),
        0.85 + 0.17 * len(titles) + max((0.26 if few else 0.16) * shape[0], 0.14 * lines),
    )
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.add_subplot()
        axes.imshow(shades, aspect="auto", interpolation="none")
        if few:
            for (down, across), (words, shade) in _filled_cells(heat):
                dark = (
                    0.299 * shades[down, across, 0] + 0.587 * shades[down, across, 1] + 0.114 * shades[down, across, 2]
                )
                axes.text(
                    across, down, words, ha="center", va="center", fontsize=5.5 if 0 < width < 5 else 7,
                    color="#ffffff" if dark < 0.5 and not math.isnan(shade) else "#000000",
                )  # fmt: skip
        axes.set_yticks(range(shape[0]), names, fontsize=6.5 if width or not few else 8)
        wide = 0.085 * max(map(len, heat.columns)) > column  # names beside each other would touch
        slant: dict[str, Any] = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
        axes.set_xticks(range(shape[1]), heat.columns, fontsize=6.5 if width else 9, **(slant if wide else {}))
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        figure.suptitle("\n".join(titles), x=0.01, ha="left", fontsize=8.5 if width else 10, wrap=not width)
    return figure


def _heat_colour(shade: float, of_differences: bool) -> tuple[float, float, float, float]:
    if math.isnan(shade):
        return matplotlib.colors.to_rgba(COLOURS[1])
    if not of_differences:
        return matplotlib.colormaps["Blues"](0.9 * shade)
    end = np.array(matplotlib.colors.to_rgb(COLOURS[1] if shade < 0 else "#005494"))
    red, green, blue = 1 + abs(shade) * (end - 1)
    return float(red), float(green), float(blue), 1.0


def _filled_cells(heat: HeatMap) -> Iterator[tuple[tuple[int, int], tuple[str, float]]]:
    for down, line in enumerate(heat.cells):
        for across, cell in enumerate(line):
            if cell is not None:
                yield (down, across), cell


def figure_bytes(figure: Figure, kind: str) -> bytes:
    """The figure as a file of one of FORMATS: a PNG of 150 dots an inch, letters that stay letters in the others."""
    written = io.BytesIO()
    # What a file says of its making would make the same figure another file tomorrow.
    silent: dict[str, dict[str, Any]] = {
        "png": {"Software": None},
        "pdf": {"CreationDate": None, "Producer": None, "Creator": None},
        "svg": {"Date": None, "Creator": None},
    }
    with matplotlib.rc_context(_STYLE):
        figure.savefig(written, format=kind, dpi=150, metadata=silent[kind])
    return written.getvalue()


def figure_filename(name: str, kind: str) -> str:
    """The name of a figure's file, without signs that a file system or a paper's source would stumble over."""
    return f"{escaping.safe_filename(name)}.{kind}"
