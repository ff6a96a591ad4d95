"""Charts as <svg> elements of the page.

An element has a group for each curve, which the page can hide, and one for each point, which it can find; hundreds of
them have to be written in seconds.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from functools import cache

from sslticket.escaping import escape_html as escaped
from sslticket.report.chart import (
    Chart,
    Curve,
    Mark,
    Point,
    SeriesStyle,
    axis_ranges,
    direct_labels,
    spread_apart,
    x_ticks,
)

_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 16, 30, 46
_LETTER = 7.0
"""Width of a letter in CSS pixels, at most about."""
_DIRECT_WIDTH = 700
"""Charts of at least this width have the names of few series at the ends of their lines."""
Scale = Callable[[float], float]

_MARKER_PATHS = {
    "o": "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0 -8 0z",
    "s": "M-3.6 -3.6h7.2v7.2h-7.2z",
    "^": "M0 -4.8L4.6 3.6H-4.6z",
    "D": "M0 -5L5 0L0 5L-5 0z",
    "v": "M0 4.8L4.6 -3.6H-4.6z",
    "P": "M-1.7 -4.8h3.4v3.1h3.1v3.4h-3.1v3.1h-3.4v-3.1h-3.1v-3.4h3.1z",
    "X": "M-4.6 -2.6L-2.6 -4.6L0 -2L2.6 -4.6L4.6 -2.6L2 0L4.6 2.6L2.6 4.6L0 2L-2.6 4.6L-4.6 2.6L-2 0z",
    "<": "M-4.8 0L3.6 -4.6V4.6z",
    ">": "M4.8 0L-3.6 -4.6V4.6z",
    "p": "M0 -4.8L4.6 -1.5L2.8 3.9H-2.8L-4.6 -1.5z",
    "h": "M0 -4.8L4.2 -2.4V2.4L0 4.8L-4.2 2.4V-2.4z",
}

_BADGE_PATHS = {
    "error": "M-8 0a8 8 0 1 0 16 0a8 8 0 1 0 -16 0z",
    "point": "M-10 -10h20v20h-20z",
}
_STAR_PATH = "M0 -7L1.6 -2.2H6.7L2.6 .8L4.1 5.7L0 2.7L-4.1 5.7L-2.6 .8L-6.7 -2.2H-1.6z"


def draw_svg(chart: Chart, styles: Mapping[str, SeriesStyle], width: int, height: int) -> str:
    """The chart at a size in CSS pixels; it shrinks with the page, text and all.

    A curve is a `<g class="s3">` with the number of its series, a point a `<g class="pt">` whose title says its values.
    """
    across, down = axis_ranges(chart)
    named = direct_labels(chart) if width >= _DIRECT_WIDTH else []
    right = width - _RIGHT - (int(_LETTER * max(map(len, named))) if named else 0)
    x = _make_scale(*across, _LEFT, right, log=chart.x.log, falling=chart.x.kind == "density")
    y = _make_scale(*down, height - _BOTTOM, _TOP, log=chart.y.log)
    elements = [
        *_svg_frame(chart, (across, down), x, y, right, height),
        *_svg_marks(chart, styles, x, y, right, height - _BOTTOM),
        *(_svg_curve(curve, styles[curve.series], x, y, down) for curve in chart.curves),
        *(_svg_labels(chart, styles, x, y, height - _BOTTOM) if named else ()),
    ]
    return (
        f'<svg class="chart" viewBox="0 0 {width} {height}" role="group" aria-label="{escaped(chart.title)}">'
        f"{''.join(elements)}</svg>"
    )


def _svg_labels(chart: Chart, styles: Mapping[str, SeriesStyle], x: Scale, y: Scale, bottom: int) -> Iterator[str]:
    """The name of each series at the right end of its line, which a thin line leads to where another has its place."""
    falling = chart.x.kind == "density"
    ends = [min(curve.points, key=lambda each: each.x * (1 if falling else -1)) for curve in chart.curves]
    places = spread_apart([y(end.y) for end in ends], 14, _TOP, bottom - 4)
    edge = max(x(end.x) for end in ends) + 8
    for curve, end, place in zip(chart.curves, ends, places, strict=True):
        lead = f'<path class="lead" d="M{x(end.x) + 6:.1f} {y(end.y):.1f}L{edge:.1f} {place:.1f}"/>'
        name = f'<text class="name" x="{edge + 3:.1f}" y="{place:.1f}" dy=".35em">{escaped(curve.series)}</text>'
        yield f'<g class="s{styles[curve.series].index}">{lead}{name}</g>'


@cache
def svg_swatch(style: SeriesStyle) -> str:
    """A series' line and marker, for legends; empty to a screen reader."""
    dash = f' stroke-dasharray="{style.dash}"' if style.dash else ""
    return (
        f'<svg class="swatch s{style.index}" viewBox="0 0 30 12" aria-hidden="true">'
        f'<path class="stroke" d="M1 6H29"{dash}/>{_svg_marker(style, 15, 6)}</svg>'
    )


def _make_scale(
    low: float, high: float, start: float, stop: float, *, log: bool = False, falling: bool = False
) -> Scale:
    turn = math.log if log else float
    first, last = (turn(high), turn(low)) if falling else (turn(low), turn(high))
    return lambda value: start + (turn(value) - first) / (last - first) * (stop - start)


def _svg_frame(
    chart: Chart, ranges: tuple[tuple[float, float], tuple[float, float]], x: Scale, y: Scale, right: int, height: int
) -> list[str]:
    """Grid, ticks, axis titles and the level line."""
    bottom = height - _BOTTOM
    elements = [f'<text class="axis" x="0" y="14">{escaped(chart.y.label)}</text>']
    for value, words in chart.y.ticks(*ranges[1]):
        at = f"{y(value):.1f}"
        elements.append(f'<path class="rule" d="M{_LEFT} {at}H{right}"/>')
        elements.append(f'<text x="{_LEFT - 8}" y="{at}" dy=".35em" text-anchor="end">{words}</text>')
    for value, words in x_ticks(chart, ranges[0], right - _LEFT, _LETTER):
        at = f"{x(value):.1f}"
        label = f'<text x="{at}" y="{bottom + 18}" text-anchor="middle">{words}</text>' if words else ""
        elements.append(f'<path class="rule" d="M{at} {bottom}v4"/>{label}')
    elements.append(f'<path class="base" d="M{_LEFT} {bottom}H{right}"/>')
    elements.append(
        f'<text class="axis" x="{right}" y="{height - 6}" text-anchor="end">{escaped(chart.x.label)}</text>'
    )
    if chart.horizontal_line:
        height_of, word = y(chart.horizontal_line[0]), chart.horizontal_line[1]
        # Of what has no room in a narrow chart, the first word says what the line is.
        word = escaped(word if _LETTER * len(word) < 0.7 * (right - _LEFT) else word.partition(",")[0])
        elements.append(f'<path class="level" d="M{_LEFT} {height_of:.1f}H{right}"/>')
        elements.append(f'<text class="axis" x="{right}" y="{height_of - 5:.1f}" text-anchor="end">{word}</text>')
    if chart.vertical_line:
        across_of, word = x(chart.vertical_line[0]), escaped(chart.vertical_line[1])
        elements.append(f'<path class="level" d="M{across_of:.1f} {_TOP}V{bottom}"/>')
        elements.append(f'<text class="axis" x="{across_of + 5:.1f}" y="{_TOP + 10}">{word}</text>')
    return elements


def _svg_marks(
    chart: Chart, styles: Mapping[str, SeriesStyle], x: Scale, y: Scale, right: int, bottom: int
) -> Iterator[str]:
    """Published numbers: hatched bands, dotted lines with a tag outside the frame, and white stars."""
    for mark in chart.marks:
        title = f"<title>{escaped(mark.words)}</title>"
        if mark.is_point:
            at, height = x(mark.ends("x")[0]), y(mark.y[0] if mark.y else 0.0)
            ends = [y(end) for end in mark.ends("y")]
            colour = f" s{styles[mark.series].index}" if mark.series else ""
            whisker = f'<path class="theirs" d="M{at:.1f} {ends[0]:.1f}V{ends[-1]:.1f}"/>' if len(ends) > 1 else ""
            star = f'<path class="star" transform="translate({at:.1f} {height:.1f})" d="{_STAR_PATH}"/>'
            yield f'<g class="published{colour}">{whisker}{star}{title}</g>'
            continue
        places = [x(end) for end in mark.ends("x")] or [y(end) for end in mark.ends("y")]
        if mark.x:
            lines = [f"M{place:.1f} {_TOP}V{bottom}" for place in places]
            tag = f'x="{places[0]:.1f}" y="{_TOP - 3}" text-anchor="middle"'
            box: tuple[float, ...] = (min(places), _TOP, max(places) - min(places), bottom - _TOP)
        else:
            lines = [f"M{_LEFT} {place:.1f}H{right}" for place in places]
            tag = f'x="{right + 1}" y="{places[0]:.1f}" dy=".35em"'
            box = (_LEFT, min(places), right - _LEFT, max(places) - min(places))
        band = '<rect class="span" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>'.format(*box)
        yield (
            f'<g class="published">{band if len(places) > 1 else ""}<path class="theirs" d="{"".join(lines)}"/>'
            f'<text class="tag" {tag}>{escaped(mark.tag)}</text>{title}</g>'
        )


def svg_badge(kind: str) -> str:
    """A mark of `chart.BADGES`, for legends; empty to a screen reader."""
    return f'<svg class="badges" viewBox="0 0 30 26" aria-hidden="true">{_svg_badge(kind, 15, 13)}</svg>'


def _svg_badge(kind: str, x: float, y: float) -> str:
    name = "badge wins" if kind[-1] == "+" else "badge"
    return f'<path class="{name}" transform="translate({x:.1f} {y:.1f})" d="{_BADGE_PATHS[kind.rstrip("+")]}"/>'


def svg_mark(mark: Mark, styles: Mapping[str, SeriesStyle]) -> str:
    """A published number's line or star, for legends; empty to a screen reader."""
    colour = f" s{styles[mark.series].index}" if mark.series else ""
    shape = (
        f'<path class="star" transform="translate(15 6)" d="{_STAR_PATH}"/>'
        if mark.is_point
        else '<path class="theirs" d="M1 6H29"/>'
    )
    return f'<svg class="swatch published{colour}" viewBox="0 0 30 12" aria-hidden="true">{shape}</svg>'


def _svg_curve(curve: Curve, style: SeriesStyle, x: Scale, y: Scale, bounds: tuple[float, float]) -> str:
    dash = style.dash if curve.dash is None else curve.dash
    line = "L".join(f"{x(point.x):.1f} {y(point.y):.1f}" for point in curve.points)
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    band = _svg_band(curve, x, y, bounds)
    points = "".join(_svg_point(point, style, x(point.x), y(point.y), bare=curve.no_markers) for point in curve.points)
    stroke = "" if curve.no_line else f'<path class="stroke" d="M{line}"{dashed}/>'
    # A line of no length with round ends is a dot, and all of them are one element.
    spots = "".join(f"M{x(at) + 5:.1f} {y(value):.1f}h0" for at, value in curve.dots)
    dots = f'<path class="dots" d="{spots}"/>' if spots else ""
    return f'<g class="s{style.index}">{band}{stroke}{dots}{points}</g>'


def _svg_band(curve: Curve, x: Scale, y: Scale, bounds: tuple[float, float]) -> str:
    bounded = [point for point in curve.points if not math.isnan(point.low)]
    if not bounded:
        return ""
    low, high = bounds
    ups = [f"{x(point.x):.1f} {y(min(point.high, high)):.1f}" for point in bounded]
    downs = [f"{x(point.x):.1f} {y(max(point.low, low)):.1f}" for point in reversed(bounded)]
    return f'<path class="band" d="M{"L".join(ups + downs)}z"/>'


def _svg_point(point: Point, style: SeriesStyle, x: float, y: float, *, bare: bool) -> str:
    ring = f'<circle class="ring" cx="{x:.1f}" cy="{y:.1f}" r="8.5"/>' if point.highlighted else ""
    ring += "".join(_svg_badge(each, x, y)
                    for each in point.badges)  # fmt: skip
    shape = f"{ring}{_svg_marker(style, x, y, bare=bare)}<title>{escaped(point.tooltip)}</title>"
    return f'<g class="pt" data-x="{x:.1f}" data-y="{y:.1f}">{shape}</g>'


def _svg_marker(style: SeriesStyle, x: float, y: float, *, bare: bool = False) -> str:
    kind = "mark bare" if bare else "mark hollow" if style.hollow else "mark"
    return f'<path class="{kind}" transform="translate({x:.1f} {y:.1f})" d="{_MARKER_PATHS[style.marker]}"/>'
