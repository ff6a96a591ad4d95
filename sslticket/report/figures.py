"""Charts and heat maps as files for a paper, by matplotlib: PNG, PDF or SVG, the same bytes for the same rows."""

import io
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from sslticket import escaping
from sslticket.report.chart import COLOURS, RANDOM_COLOUR, Axis, Chart, Curve, HeatMap, SeriesStyle, axis_ranges

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
    charts: Sequence[Chart], styles: Mapping[str, SeriesStyle], width: float = 7.2, height: float = 4.0
) -> Figure:
    """Charts side by side, two to a line.

    Args:
        charts: What to draw.
        styles: Style of each series, from `chart.assign_styles`.
        width: Width of one chart, in inches.
        height: Height of one chart, in inches.
    """
    across = min(2, len(charts))
    down = math.ceil(len(charts) / across)
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width * across, height * down), layout="constrained")
        for number, chart in enumerate(charts, start=1):
            _draw_chart(figure.add_subplot(down, across, number), chart, styles)
    return figure


def _draw_chart(axes: Axes, chart: Chart, styles: Mapping[str, SeriesStyle]) -> None:
    for curve in chart.curves:
        _draw_curve(axes, chart, curve, styles[curve.series])
    across, down = axis_ranges(chart)
    if chart.horizontal_line:
        value, word = chart.horizontal_line
        axes.axhline(value, color=INK, linewidth=0.8, linestyle=(0, (4, 4)), zorder=1)
        axes.annotate(word, (1, value), (0, 2), ("axes fraction", "data"), "offset points", ha="right", fontsize=8)
    if chart.vertical_line:
        value, word = chart.vertical_line
        axes.axvline(value, color=INK, linewidth=0.8, linestyle=(0, (4, 4)), zorder=1)
        axes.annotate(word, (value, 1), (3, -8), ("data", "axes fraction"), "offset points", fontsize=8)
    if chart.x.log:
        axes.set_xscale("log")
    axes.set_xlim(*(across[::-1] if chart.x.kind == "density" else across))
    axes.set_ylim(*down)
    _set_ticks(axes.xaxis, chart.x, across)
    _set_ticks(axes.yaxis, chart.y, down)
    axes.set_xlabel(chart.x.label)
    axes.set_ylabel(chart.y.label)
    axes.grid(axis="y")
    # Of many series no corner is free.
    position: dict[str, Any] = (
        {"loc": "upper left", "bbox_to_anchor": (1, 1)} if len(chart.curves) > 8 else {"loc": "best"}
    )
    axes.legend(**position, frameon=False, handlelength=2.6)
    axes.set_title(chart.title)


def _draw_curve(axes: Axes, chart: Chart, curve: Curve, style: SeriesStyle) -> None:
    colour = RANDOM_COLOUR if style.colour is None else COLOURS[style.colour]
    x, y = ([getattr(point, name) for point in curve.points] for name in ("x", "y"))
    bounded = [point for point in curve.points if not math.isnan(point.low)]
    low, high = ([getattr(point, name) for point in bounded] for name in ("low", "high"))
    bounds = np.clip([low, high], *chart.y_bounds)
    axes.fill_between([point.x for point in bounded], *bounds, color=colour, alpha=0.16, linewidth=0)
    dash = style.dash if curve.dash is None else curve.dash
    line: Any = (0, tuple(float(part) / 1.5 for part in dash.split())) if dash else "-"
    face = "none" if style.hollow else colour
    name = f"{curve.series}, {curve.label}" if curve.label else curve.series
    name = f" {name}" if name.startswith("_") else name  # else matplotlib leaves it out of the legend
    marker = "" if curve.no_markers else style.marker
    axes.plot(x, y, color=colour, linestyle=line, marker=marker, markersize=4.5, markerfacecolor=face, label=name)
    ringed = [(point.x, point.y) for point in curve.points if point.highlighted]
    if ringed:
        xs, ys = zip(*ringed, strict=True)
        axes.scatter(xs, ys, s=90, facecolors="none", edgecolors=INK, linewidths=1)


def _set_ticks(axis: Any, scale: Axis, ends: tuple[float, float]) -> None:
    ticks = scale.ticks(*ends)
    axis.set_major_locator(FixedLocator([value for value, _ in ticks]))
    axis.set_ticklabels([words for _, words in ticks])
    axis.set_minor_locator(NullLocator())


def draw_heat_map(heat: HeatMap) -> Figure:
    """A heat map; a cell to be marked is orange, one without a value grey."""
    shape = len(heat.rows), len(heat.columns)
    shades = np.full((*shape, 4), matplotlib.colors.to_rgba("#f0f2f4"))
    for position, (_, shade) in _filled_cells(heat):
        marked = math.isnan(shade)
        shades[position] = (
            matplotlib.colors.to_rgba(COLOURS[1]) if marked else matplotlib.colormaps["Blues"](0.9 * shade)
        )
    few = shape[1] <= 12
    longest = max(len(words) for _, (words, _) in _filled_cells(heat))
    column = 0.075 * longest + 0.12 if few else 0.2
    size = max(4.6, 1.6 + column * shape[1]), 1.0 + (0.26 if few else 0.16) * shape[0]
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.add_subplot()
        axes.imshow(shades, aspect="auto", interpolation="none")
        if few:
            for (down, across), (words, shade) in _filled_cells(heat):
                colour = "#ffffff" if shade > 0.55 else "#000000"
                axes.text(across, down, words, ha="center", va="center", fontsize=7, color=colour)
        axes.set_yticks(range(shape[0]), heat.rows, fontsize=8 if few else 6.5)
        wide = 0.085 * max(map(len, heat.columns)) > column  # names beside each other would touch
        slant: dict[str, Any] = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
        axes.set_xticks(range(shape[1]), heat.columns, **(slant if wide else {}))
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        figure.suptitle(heat.title, x=0.01, ha="left", fontsize=10, wrap=True)
    return figure


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
