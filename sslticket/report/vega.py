"""Charts and heat maps as Vega-Lite: specifications with their data, for Altair, Observable and others."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from sslticket.report.chart import Axis, Chart, HeatMap, Point, SeriesStyle, axis_ranges, x_ticks

SCHEMA = "https://vega.github.io/schema/vega-lite/v5.json"
_SHAPES = {
    "o": "circle",
    "s": "square",
    "^": "triangle-up",
    "D": "diamond",
    "v": "triangle-down",
    "P": "cross",
    "X": "M-1,-1L1,1M-1,1L1,-1",
    "<": "triangle-left",
    ">": "triangle-right",
    "p": "M0,-1L0.95,-0.31L0.59,0.81L-0.59,0.81L-0.95,-0.31Z",
    "h": "M0,-1L0.87,-0.5L0.87,0.5L0,1L-0.87,0.5L-0.87,-0.5Z",
}
_WIDTH, _HEIGHT = 480, 300
_LETTER = 6.5


def chart_spec(chart: Chart, styles: Mapping[str, SeriesStyle]) -> bytes:
    """A chart with its bands, lines, means, single values, marks and lines across, as JSON text.

    Values of x and y have the units of the chart's axes; densities are fractions.
    """
    names = list(dict.fromkeys(curve.series for curve in chart.curves))
    means = [
        {"series": curve.series, "curve": number, "x": point.x, "y": point.y, "told": point.tooltip}
        | _band(point)
        | ({"marks": ", ".join(point.badges)} if point.badges else {})
        for number, curve in enumerate(chart.curves)
        for point in curve.points
    ]
    dots = [{"series": curve.series, "x": x, "y": y} for curve in chart.curves for x, y in curve.dots]
    scales = _series_scales(names, styles)
    ends = axis_ranges(chart)
    place = {
        "x": {"field": "x", "type": "quantitative", **_axis(chart.x, ends[0], _ticks(chart, ends[0]))},
        "y": {"field": "y", "type": "quantitative", **_axis(chart.y, ends[1], None)},
    }
    lined = {number for number, curve in enumerate(chart.curves) if not curve.no_line}
    marked = {number for number, curve in enumerate(chart.curves) if not curve.no_markers}
    layers: list[dict[str, Any]] = [
        {
            "transform": [{"filter": "isValid(datum.low)"}],
            "mark": {"type": "area", "opacity": 0.16, "clip": True},
            "encoding": {
                "y": {"field": "low", "type": "quantitative"},
                "y2": {"field": "high"},
                "detail": {"field": "curve"},
                "color": scales["color"],
            },
        },
        {
            "transform": [{"filter": {"field": "curve", "oneOf": sorted(lined)}}],
            "mark": {"type": "line", "clip": True},
            "encoding": {"detail": {"field": "curve"}, "color": scales["color"], "strokeDash": scales["strokeDash"]},
        },
        {
            "transform": [{"filter": {"field": "curve", "oneOf": sorted(marked)}}],
            "mark": {"type": "point", "filled": True, "size": 45},
            "encoding": {
                "color": scales["color"],
                "shape": scales["shape"],
                "tooltip": {"field": "told", "type": "nominal"},
            },
        },
        {
            "transform": [{"filter": "isValid(datum.marks)"}],
            "mark": {"type": "point", "filled": False, "size": 260, "tooltip": True},
            "encoding": {"color": scales["color"], "tooltip": {"field": "marks", "type": "nominal"}},
        },
    ]
    if dots:
        layers.append(
            {
                "data": {"values": dots},
                "mark": {"type": "circle", "size": 14, "opacity": 0.55, "xOffset": 4},
                "encoding": {"color": scales["color"]},
            }
        )
    for axis, other, line in (("y", "x", chart.horizontal_line), ("x", "y", chart.vertical_line)):
        if line is not None:
            layers.append(
                {
                    "data": {"values": [{axis: line[0], "told": line[1]}]},
                    "mark": {"type": "rule", "strokeDash": [4, 4], "color": "#1b1f24"},
                    "encoding": {
                        other: {"value": 0},
                        f"{other}2": {"value": "width" if axis == "y" else "height"},
                        "tooltip": {"field": "told", "type": "nominal"},
                    },
                }
            )
    return _written(chart.title, {"data": {"values": means}, "encoding": place, "layer": layers})


def heat_spec(heat: HeatMap) -> bytes:
    """A heat map, as JSON text."""
    cells = [
        {"row": row, "column": column, "told": cell[0]} | ({} if math.isnan(cell[1]) else {"shade": cell[1]})
        for row, line in zip(heat.rows, heat.cells, strict=True)
        for column, cell in zip(heat.columns, line, strict=True)
        if cell is not None
    ]
    colours = {"domain": [-1, 0, 1], "range": ["#d55e00", "#ffffff", "#005494"]}
    scale = colours if heat.of_differences else {"domain": [0, 1], "range": ["#ffffff", "#005494"]}
    layers = [
        {
            "mark": "rect",
            "encoding": {"color": {"field": "shade", "type": "quantitative", "scale": scale, "legend": None}},
        },
        {"mark": {"type": "text", "fontSize": 9}, "encoding": {"text": {"field": "told", "type": "nominal"}}},
    ]
    place = {
        "x": {"field": "column", "type": "nominal", "sort": list(heat.columns), "title": None},
        "y": {"field": "row", "type": "nominal", "sort": list(heat.rows), "title": None},
    }
    size = {"width": {"step": 44}, "height": {"step": 18}}
    return _written(heat.title, {"data": {"values": cells}, "encoding": place, "layer": layers} | size)


def _written(title: str, drawn: Mapping[str, Any]) -> bytes:
    spec = {"$schema": SCHEMA, "title": title, "width": _WIDTH, "height": _HEIGHT} | dict(drawn)
    return (json.dumps(spec, ensure_ascii=False, allow_nan=False, indent=1) + "\n").encode(errors="backslashreplace")


def _band(point: Point) -> dict[str, float]:
    return {} if math.isnan(point.low) else {"low": point.low, "high": point.high}


def _series_scales(names: Sequence[str], styles: Mapping[str, SeriesStyle]) -> dict[str, dict[str, Any]]:
    """Colour, dashes and shape of the series, as encodings that share one legend."""
    ranges: dict[str, list[Any]] = {
        "color": [styles[name].hex for name in names],
        "strokeDash": [[float(part) for part in styles[name].dash.split()] or [1, 0] for name in names],
        "shape": [_SHAPES[styles[name].marker] for name in names],
    }
    same = {
        "field": "series",
        "type": "nominal",
        "title": None,
        "legend": {"orient": "bottom", "columns": 2, "labelLimit": 0, "symbolOpacity": 1},
    }
    return {channel: same | {"scale": {"domain": list(names), "range": values}} for channel, values in ranges.items()}


def _ticks(chart: Chart, ends: tuple[float, float]) -> list[float]:
    return [value for value, words in x_ticks(chart, ends, _WIDTH, _LETTER) if words]


def _axis(axis: Axis, ends: tuple[float, float], ticks: Sequence[float] | None) -> dict[str, Any]:
    """Title, scale and ticks of an encoding."""
    scale: dict[str, Any] = {
        "type": "log" if axis.log else "linear",
        "domain": list(ends),
        "nice": False,
        "zero": False,
    }
    if axis.log:
        del scale["zero"]
    if axis.kind == "density":
        scale["reverse"] = True
    shown: dict[str, Any] = {} if ticks is None else {"values": list(ticks)}
    if axis.kind == "density":
        shown["format"] = ".3~p"
    elif axis.kind == "count":
        shown["format"] = "~s"
    return {"title": axis.label, "scale": scale, "axis": shown}
