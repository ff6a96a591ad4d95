"""A chart as an <svg> element of the page: colours are the page's, points carry their values, nothing is scripted.

matplotlib draws the files; here each curve has to be a group that the page can hide, and each point one that it can
find, and a page of hundreds of charts has to be written in seconds.
"""

import math
from collections.abc import Callable, Mapping
from itertools import pairwise

from sslticket.escaping import html as escaped
from sslticket.report.chart import Chart, Curve, Look, Point, extent

LEFT, RIGHT, TOP, BOTTOM = 46, 16, 30, 46
Place = Callable[[float], float]

_SHAPES = {
    "o": "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0 -8 0z",
    "s": "M-3.6 -3.6h7.2v7.2h-7.2z",
    "^": "M0 -4.8L4.6 3.6H-4.6z",
    "D": "M0 -5L5 0L0 5L-5 0z",
    "v": "M0 4.8L4.6 -3.6H-4.6z",
    "P": "M-1.7 -4.8h3.4v3.1h3.1v3.4h-3.1v3.1h-3.4v-3.1h-3.1v-3.4h3.1z",
    "X": "M-4.6 -2.6L-2.6 -4.6L0 -2L2.6 -4.6L4.6 -2.6L2 0L4.6 2.6L2.6 4.6L0 2L-2.6 4.6L-4.6 2.6L-2 0z",
}


def draw(chart: Chart, looks: Mapping[str, Look], width: int, height: int) -> str:
    """The chart at a size in CSS pixels; it shrinks with its place, text and all.

    A curve is a `<g class="s3">` with the number of its series, a point a `<g class="pt">` whose title says its values.
    """
    across, down = extent(chart)
    x = _scale(*across, LEFT, width - RIGHT, log=chart.x.log, falling=chart.x.kind == "density")
    y = _scale(*down, height - BOTTOM, TOP)
    parts = [
        *_frame(chart, x, y, width, height),
        *(_curve(chart, curve, looks[curve.series], x, y) for curve in chart.curves),
    ]
    return (
        f'<svg class="chart" viewBox="0 0 {width} {height}" role="group" aria-label="{escaped(chart.title)}">'
        f"{''.join(parts)}</svg>"
    )


def swatch(look: Look) -> str:
    """A series' line and marker, for legends; empty to a screen reader."""
    dash = f' stroke-dasharray="{look.dash}"' if look.dash else ""
    return (
        f'<svg class="swatch s{look.place}" viewBox="0 0 30 12" aria-hidden="true">'
        f'<path class="stroke" d="M1 6H29"{dash}/>{_marker(look, 15, 6)}</svg>'
    )


def _scale(low: float, high: float, start: float, stop: float, *, log: bool = False, falling: bool = False) -> Place:
    turn = math.log if log else float
    first, last = (turn(high), turn(low)) if falling else (turn(low), turn(high))
    return lambda value: start + (turn(value) - first) / (last - first) * (stop - start)


def _frame(chart: Chart, x: Place, y: Place, width: int, height: int) -> list[str]:
    """Grid, ticks, axis titles and the level line."""
    across, down = extent(chart)
    bottom, right = height - BOTTOM, width - RIGHT
    parts = [f'<text class="axis" x="0" y="14">{escaped(chart.y.label)}</text>']
    for value, words in chart.y.ticks(*down):
        at = f"{y(value):.1f}"
        parts.append(f'<path class="rule" d="M{LEFT} {at}H{right}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{at}" dy=".35em" text-anchor="end">{words}</text>')
    ticks = chart.x.ticks(*across)
    # On a phone, neighbours would write over one another.
    room = min((abs(x(one) - x(other)) for (one, _), (other, _) in pairwise(ticks)), default=math.inf)
    longest = max((len(words) for _, words in ticks), default=0)
    every = max(1, math.ceil((7 * longest + 6) / room))
    for place, (value, words) in enumerate(ticks):
        at = f"{x(value):.1f}"
        told = f'<text x="{at}" y="{bottom + 18}" text-anchor="middle">{words}</text>' if place % every == 0 else ""
        parts.append(f'<path class="rule" d="M{at} {bottom}v4"/>{told}')
    parts.append(f'<path class="base" d="M{LEFT} {bottom}H{right}"/>')
    parts.append(f'<text class="axis" x="{right}" y="{height - 6}" text-anchor="end">{escaped(chart.x.label)}</text>')
    if chart.level:
        height_of, word = y(chart.level[0]), escaped(chart.level[1])
        parts.append(f'<path class="level" d="M{LEFT} {height_of:.1f}H{right}"/>')
        parts.append(f'<text class="axis" x="{right}" y="{height_of - 5:.1f}" text-anchor="end">{word}</text>')
    if chart.upright:
        across_of, word = x(chart.upright[0]), escaped(chart.upright[1])
        parts.append(f'<path class="level" d="M{across_of:.1f} {TOP}V{bottom}"/>')
        parts.append(f'<text class="axis" x="{across_of + 5:.1f}" y="{TOP + 10}">{word}</text>')
    return parts


def _curve(chart: Chart, curve: Curve, look: Look, x: Place, y: Place) -> str:
    dash = look.dash if curve.dash is None else curve.dash
    line = "L".join(f"{x(point.x):.1f} {y(point.y):.1f}" for point in curve.points)
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    band = _band(chart, curve, x, y)
    points = "".join(_point(point, look, x(point.x), y(point.y), bare=curve.bare) for point in curve.points)
    return f'<g class="s{look.place}">{band}<path class="stroke" d="M{line}"{dashed}/>{points}</g>'


def _band(chart: Chart, curve: Curve, x: Place, y: Place) -> str:
    held = [point for point in curve.points if not math.isnan(point.low)]
    if not held:
        return ""
    low, high = chart.bounds
    ups = [f"{x(point.x):.1f} {y(min(point.high, high)):.1f}" for point in held]
    downs = [f"{x(point.x):.1f} {y(max(point.low, low)):.1f}" for point in reversed(held)]
    return f'<path class="band" d="M{"L".join(ups + downs)}z"/>'


def _point(point: Point, look: Look, x: float, y: float, *, bare: bool) -> str:
    ring = f'<circle class="ring" cx="{x:.1f}" cy="{y:.1f}" r="8.5"/>' if point.stressed else ""
    shape = f"{ring}{_marker(look, x, y, bare=bare)}<title>{escaped(point.told)}</title>"
    return f'<g class="pt" data-x="{x:.1f}" data-y="{y:.1f}">{shape}</g>'


def _marker(look: Look, x: float, y: float, *, bare: bool = False) -> str:
    kind = "mark bare" if bare else "mark hollow" if look.hollow else "mark"
    return f'<path class="{kind}" transform="translate({x:.1f} {y:.1f})" d="{_SHAPES[look.marker]}"/>'
