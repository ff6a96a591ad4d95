"""Charts and heat maps as data, drawn alike by the page and by files: axes with ticks, curves of points; and as <svg>.

matplotlib draws the files (`figures`); an <svg> element of the page has a group for each curve, which the page can
hide, and one for each point, which it can find, and hundreds of them have to be written in seconds.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from sslticket.escaping import escape_html as escaped
from sslticket.report.text import format_percent

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b37c00", "#3f8fc0")
"""For everyone's eyes: Okabe and Ito 2008, "Color Universal Design", its last two darker to be seen on white."""
RANDOM_COLOUR = "#6b7280"
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES = {
    "ticket": "",
    "preserved": "6 3",
    "local": "2 3",
    "adjusted": "8 3 2 3",
    "reset": "12 3",
    "permuted": "6 3 2 3 2 3",
}
"""A control of a series has its colour with another line, as in SVG's stroke-dasharray."""
REPEATED_DASH = "14 2 3 2"
"""The line of further tickets of one colour: with another head or other numerics."""


@dataclass(frozen=True)
class SeriesStyle:
    """How a series is drawn in every figure.

    Attributes:
        index: Number among all series; the page's switch of this number hides it.
        colour: Index into COLOURS; None is grey.
        marker: One of MARKERS.
        dash: Dashes of its lines; "" for a solid one.
        hollow: Whether its markers are.
    """

    index: int
    colour: int | None
    marker: str
    dash: str
    hollow: bool


MAX_SERIES = 18
"""Series that a chart may have and be told apart: six colours, each with three lines."""


def assign_styles(
    series: Sequence[tuple[str, str, str]], first: int = 0, facets: Sequence[Collection[str]] = ()
) -> dict[str, SeriesStyle]:
    """The style of each series: a control takes the colour of the tickets that it is a control of.

    Args:
        series: Name, tickets and control of each, as the frame of `stats.summarize` has them, in order.
        first: Index of the first.
        facets: Names of the series that each chart has; those of no chart, or all where there are none, are taken to
            be in one.
    """
    of_charts: dict[str, list[int]] = {}
    for number, names in enumerate(facets):
        for name in names:
            of_charts.setdefault(name, []).append(number)
    colours: dict[str, int] = {}
    # How often each chart has each colour and each marker: a series takes the least used of its charts.
    colour_uses, marker_uses = (defaultdict[int, Counter[int]](Counter) for _ in range(2))
    found: dict[str, SeriesStyle] = {}
    seen: set[str] = set()
    for number, (name, tickets, control) in enumerate(series):
        is_random = control == "random"
        charts = of_charts.get(name, [-1])
        if not is_random and tickets not in colours:
            colours[tickets] = _least_used(colour_uses, charts, len(COLOURS))
            for each in {chart for other, own, _ in series if own == tickets for chart in of_charts.get(other, [-1])}:
                colour_uses[each][colours[tickets]] += 1
        colour = None if is_random else colours[tickets]
        hollow = control not in ("ticket", "random")
        place = _least_used(marker_uses, charts, len(MARKERS))
        for each in charts:
            marker_uses[each][place] += 1
        marker = MARKERS[place]
        dash = REPEATED_DASH if control == "ticket" and tickets in seen else DASHES.get(control, "")
        seen |= {tickets} if control == "ticket" else set()
        found[name] = SeriesStyle(first + number, colour, marker, dash, hollow)
    return found


def _least_used(uses: Mapping[int, Counter[int]], charts: Sequence[int], count: int) -> int:
    """The least used of so many in these charts, the first of equal ones."""
    return min(range(count), key=lambda each: sum(uses[chart][each] for chart in charts))


@dataclass(frozen=True)
class Point:
    """A measured value; `low` and `high` bound its band and are NaN where it has none."""

    x: float
    y: float
    tooltip: str
    low: float = math.nan
    high: float = math.nan
    highlighted: bool = False


@dataclass(frozen=True)
class Curve:
    """The points of one series, drawn in its style.

    Attributes:
        series: Name of the series.
        points: Its points, from left to right.
        dash: Dashes that tell several curves of one series apart; None for those of the series.
        label: Words beside the series' name, in a file's legend.
        no_markers: Whether its points have no markers.
        no_line: Whether its points are not joined.
    """

    series: str
    points: tuple[Point, ...]
    dash: str | None = None
    label: str = ""
    no_markers: bool = False
    no_line: bool = False


@dataclass(frozen=True)
class Axis:
    """A direction of a chart; densities fall to the right.

    Attributes:
        label: What its values are, with their unit.
        kind: How values are written.
        log: Whether it is logarithmic.
        zero_at: Where a log axis has its 0, which has no position of its own; 0 for an axis without.
    """

    label: str
    kind: Literal["density", "count", "seconds", "value"] = "value"
    log: bool = False
    zero_at: float = 0.0

    def ticks(self, low: float, high: float) -> list[tuple[float, str]]:
        """Round values within the range, few enough to read, and their words."""
        found = _log_ticks(low, high) if self.log else []
        if len(found) < 2:
            found = _linear_ticks(low, high)
        if self.kind == "density":
            found = [value for value in found if value <= 1]
        if self.kind == "count" and not self.log:
            found = [value for value in found if float(value).is_integer()]
        if self.zero_at:
            found = [self.zero_at, *(value for value in found if value > 2 * self.zero_at)]
        return [(value, self.format(value)) for value in found]

    def format(self, value: float) -> str:
        """A value of this axis, briefly."""
        if self.zero_at and value <= self.zero_at:
            return "0"
        if self.kind == "density":
            return f"{format_percent(value)}%"
        if self.kind == "seconds":
            return format_duration(value)
        if self.kind == "count":
            return format_count(value)
        return f"{value:g}".replace("-", "\N{MINUS SIGN}")


@dataclass(frozen=True)
class Mark:
    """A number of somebody else's over a chart: never drawn as ours are, and named in its legend.

    Attributes:
        tag: Short name beside it, "P1"; "" for a point, whose series says what it is.
        words: What it is.
        x: From where to where on x, the same twice for one value, an infinity for an end that is open; None for all.
        y: The same on y. A mark with both is a point.
        error: What it may be off by, of a point; NaN where nothing is said.
        series: Name of the series whose colour a point has; "" for none.
    """

    tag: str
    words: str
    x: tuple[float, float] | None = None
    y: tuple[float, float] | None = None
    error: float = math.nan
    series: str = ""

    @property
    def is_point(self) -> bool:
        """Whether it is at one place."""
        return self.x is not None and self.y is not None

    def ends(self, axis: Literal["x", "y"]) -> list[float]:
        """Its ends on an axis, one or two; none where it runs over all of it."""
        found = {end for end in getattr(self, axis) or () if math.isfinite(end)}
        if axis == "y" and self.is_point and found and not math.isnan(self.error):
            found |= {min(found) - self.error, max(found) + self.error}
        return sorted(found)


def stack_tags(places: Sequence[float], least: float) -> list[int]:
    """For each tag along an edge, in which row from it there is room: neighbours nearer than `least` go further out."""
    rows: dict[int, float] = {}
    found = [0] * len(places)
    for index in sorted(range(len(places)), key=lambda each: places[each]):
        row = next(row for row in range(len(places)) if places[index] - rows.get(row, -math.inf) >= least)
        rows[row], found[index] = places[index], row
    return found


@dataclass(frozen=True)
class NumberTable:
    """Our numbers in lines and columns, with others' in the same cells.

    Attributes:
        name: Name of its file, and of its place in the page.
        title: What it shows.
        columns: Titles of the columns.
        lines: The title of each line, and for each column what is ours and what is others', either maybe "".
    """

    name: str
    title: str
    columns: tuple[str, ...]
    lines: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]


@dataclass(frozen=True)
class Chart:
    """Curves over two axes.

    Attributes:
        name: Name of its file, and of its place in the page.
        title: What it shows.
        x: Axis from left to right.
        y: Axis from the bottom to the top.
        curves: One or more for each series.
        horizontal_line: Value of y of a dashed line across, and its word.
        vertical_line: Value of x of one from the bottom to the top, and its word.
        y_bounds: Values that y cannot leave.
        marks: Numbers of others over it.
        part: What it has of a chart of more series than can be read, and how many; "" for a whole one.
    """

    name: str
    title: str
    x: Axis
    y: Axis
    curves: tuple[Curve, ...]
    horizontal_line: tuple[float, str] | None = None
    vertical_line: tuple[float, str] | None = None
    y_bounds: tuple[float, float] = (-math.inf, math.inf)
    marks: tuple[Mark, ...] = ()
    part: str = ""


@dataclass(frozen=True)
class HeatMap:
    """A table whose cells are shaded: (text, shade from 0 to 1), with NaN for one to be marked, None for none."""

    name: str
    title: str
    corner: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    cells: tuple[tuple[tuple[str, float] | None, ...], ...]

    @property
    def is_large(self) -> bool:
        """Whether its cells have to be small."""
        return len(self.columns) > 12 or len(self.rows) > 12


def axis_ranges(chart: Chart) -> tuple[tuple[float, float], tuple[float, float]]:
    """The ranges of x and y that hold all points and bands, with a little room around them."""
    xs = [point.x for curve in chart.curves for point in curve.points]
    ys = [
        min(max(value, chart.y_bounds[0]), chart.y_bounds[1])
        for curve in chart.curves
        for point in curve.points
        for value in (point.y, point.low, point.high)
        if not math.isnan(value)
    ]
    ys += [chart.horizontal_line[0]] if chart.horizontal_line else []
    xs += [chart.vertical_line[0]] if chart.vertical_line else []
    xs += [end for mark in chart.marks for end in mark.ends("x")]
    ys += [min(max(end, chart.y_bounds[0]), chart.y_bounds[1]) for mark in chart.marks for end in mark.ends("y")]
    low, high = min(ys), max(ys)
    # What differs in its last digits only is drawn as one value.
    apart = high - low if high - low > 1e-9 * max(abs(low), abs(high)) else 0.0
    room = 0.05 * apart or 0.05 * abs(high) or 1
    return _padded_range(xs, chart.x.log), (max(low - room, chart.y_bounds[0]), min(high + room, chart.y_bounds[1]))


def _padded_range(values: Sequence[float], log: bool) -> tuple[float, float]:
    low, high = min(values), max(values)
    if log:
        room = (high / low) ** 0.03 if high > low else 1.5
        return low / room, high * room
    room = 0.03 * (high - low) or 1
    return low - room, high + room


def _linear_ticks(low: float, high: float) -> list[float]:
    step = 10.0 ** math.floor(math.log10((high - low) / 4))
    step *= next(factor for factor in (1, 2, 2.5, 5, 10) if (high - low) / (step * factor) <= 6)
    return [round(number * step, 12) for number in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    """1, 2, 5, 10 ... within the range; only every tenfold where that would be too many to read."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [factor * 10.0**power for power in powers for factor in (1, 2, 5) if low <= factor * 10.0**power <= high]
    tens = [tick for tick in ticks if f"{tick:e}".startswith("1.0")]
    return tens if len(ticks) > 8 else ticks


def format_count(count: float) -> str:
    """A count to three digits: "640", "38.4k", "1.28M"."""
    for size, sign in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= 0.9995 * size:
            return f"{count / size:.3g}{sign}"
    return f"{count:.3g}"


def format_duration(seconds: float) -> str:
    """A time in the unit that suits it: "9.5 s", "12 min", "1.3 h", "1,204 h"."""
    size, unit = next((each for each in ((3600, "h"), (60, "min")) if seconds >= each[0]), (1, "s"))
    value = seconds / size
    return f"{value:,.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"


_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 16, 30, 46
Scale = Callable[[float], float]

_MARKER_PATHS = {
    "o": "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0 -8 0z",
    "s": "M-3.6 -3.6h7.2v7.2h-7.2z",
    "^": "M0 -4.8L4.6 3.6H-4.6z",
    "D": "M0 -5L5 0L0 5L-5 0z",
    "v": "M0 4.8L4.6 -3.6H-4.6z",
    "P": "M-1.7 -4.8h3.4v3.1h3.1v3.4h-3.1v3.1h-3.4v-3.1h-3.1v-3.4h3.1z",
    "X": "M-4.6 -2.6L-2.6 -4.6L0 -2L2.6 -4.6L4.6 -2.6L2 0L4.6 2.6L2.6 4.6L0 2L-2.6 4.6L-4.6 2.6L-2 0z",
}

_STAR_PATH = "M0 -7L1.6 -2.2H6.7L2.6 .8L4.1 5.7L0 2.7L-4.1 5.7L-2.6 .8L-6.7 -2.2H-1.6z"


def draw_svg(chart: Chart, styles: Mapping[str, SeriesStyle], width: int, height: int) -> str:
    """The chart at a size in CSS pixels; it shrinks with the page, text and all.

    A curve is a `<g class="s3">` with the number of its series, a point a `<g class="pt">` whose title says its values.
    """
    across, down = axis_ranges(chart)
    x = _make_scale(*across, _LEFT, width - _RIGHT, log=chart.x.log, falling=chart.x.kind == "density")
    y = _make_scale(*down, height - _BOTTOM, _TOP)
    elements = [
        *_svg_frame(chart, x, y, width, height),
        *_svg_marks(chart, styles, x, y, (width, height)),
        *(_svg_curve(chart, curve, styles[curve.series], x, y) for curve in chart.curves),
    ]
    return (
        f'<svg class="chart" viewBox="0 0 {width} {height}" role="group" aria-label="{escaped(chart.title)}">'
        f"{''.join(elements)}</svg>"
    )


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


def _svg_frame(chart: Chart, x: Scale, y: Scale, width: int, height: int) -> list[str]:
    """Grid, ticks, axis titles and the level line."""
    across, down = axis_ranges(chart)
    bottom, right = height - _BOTTOM, width - _RIGHT
    elements = [f'<text class="axis" x="0" y="14">{escaped(chart.y.label)}</text>']
    for value, words in chart.y.ticks(*down):
        at = f"{y(value):.1f}"
        elements.append(f'<path class="rule" d="M{_LEFT} {at}H{right}"/>')
        elements.append(f'<text x="{_LEFT - 8}" y="{at}" dy=".35em" text-anchor="end">{words}</text>')
    ticks = chart.x.ticks(*across)
    # On a phone, neighbours would write over one another.
    room = min((abs(x(one) - x(other)) for (one, _), (other, _) in pairwise(ticks)), default=math.inf)
    longest = max((len(words) for _, words in ticks), default=0)
    every = max(1, math.ceil((7 * longest + 6) / room))
    for index, (value, words) in enumerate(ticks):
        at = f"{x(value):.1f}"
        label = f'<text x="{at}" y="{bottom + 18}" text-anchor="middle">{words}</text>' if index % every == 0 else ""
        elements.append(f'<path class="rule" d="M{at} {bottom}v4"/>{label}')
    elements.append(f'<path class="base" d="M{_LEFT} {bottom}H{right}"/>')
    elements.append(
        f'<text class="axis" x="{right}" y="{height - 6}" text-anchor="end">{escaped(chart.x.label)}</text>'
    )
    if chart.horizontal_line:
        height_of, word = y(chart.horizontal_line[0]), escaped(chart.horizontal_line[1])
        elements.append(f'<path class="level" d="M{_LEFT} {height_of:.1f}H{right}"/>')
        elements.append(f'<text class="axis" x="{right}" y="{height_of - 5:.1f}" text-anchor="end">{word}</text>')
    if chart.vertical_line:
        across_of, word = x(chart.vertical_line[0]), escaped(chart.vertical_line[1])
        elements.append(f'<path class="level" d="M{across_of:.1f} {_TOP}V{bottom}"/>')
        elements.append(f'<text class="axis" x="{across_of + 5:.1f}" y="{_TOP + 10}">{word}</text>')
    return elements


def _svg_marks(
    chart: Chart, styles: Mapping[str, SeriesStyle], x: Scale, y: Scale, size: tuple[int, int]
) -> Iterator[str]:
    """Published numbers: hatched bands, dotted lines with a tag outside the frame, and white stars."""
    right, bottom = size[0] - _RIGHT, size[1] - _BOTTOM
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


def svg_mark(mark: Mark, styles: Mapping[str, SeriesStyle]) -> str:
    """A published number's line or star, for legends; empty to a screen reader."""
    colour = f" s{styles[mark.series].index}" if mark.series else ""
    shape = (
        f'<path class="star" transform="translate(15 6)" d="{_STAR_PATH}"/>'
        if mark.is_point
        else '<path class="theirs" d="M1 6H29"/>'
    )
    return f'<svg class="swatch published{colour}" viewBox="0 0 30 12" aria-hidden="true">{shape}</svg>'


def _svg_curve(chart: Chart, curve: Curve, style: SeriesStyle, x: Scale, y: Scale) -> str:
    dash = style.dash if curve.dash is None else curve.dash
    line = "L".join(f"{x(point.x):.1f} {y(point.y):.1f}" for point in curve.points)
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    band = _svg_band(chart, curve, x, y)
    points = "".join(_svg_point(point, style, x(point.x), y(point.y), bare=curve.no_markers) for point in curve.points)
    stroke = "" if curve.no_line else f'<path class="stroke" d="M{line}"{dashed}/>'
    return f'<g class="s{style.index}">{band}{stroke}{points}</g>'


def _svg_band(chart: Chart, curve: Curve, x: Scale, y: Scale) -> str:
    bounded = [point for point in curve.points if not math.isnan(point.low)]
    if not bounded:
        return ""
    low, high = chart.y_bounds
    ups = [f"{x(point.x):.1f} {y(min(point.high, high)):.1f}" for point in bounded]
    downs = [f"{x(point.x):.1f} {y(max(point.low, low)):.1f}" for point in reversed(bounded)]
    return f'<path class="band" d="M{"L".join(ups + downs)}z"/>'


def _svg_point(point: Point, style: SeriesStyle, x: float, y: float, *, bare: bool) -> str:
    ring = f'<circle class="ring" cx="{x:.1f}" cy="{y:.1f}" r="8.5"/>' if point.highlighted else ""
    shape = f"{ring}{_svg_marker(style, x, y, bare=bare)}<title>{escaped(point.tooltip)}</title>"
    return f'<g class="pt" data-x="{x:.1f}" data-y="{y:.1f}">{shape}</g>'


def _svg_marker(style: SeriesStyle, x: float, y: float, *, bare: bool = False) -> str:
    kind = "mark bare" if bare else "mark hollow" if style.hollow else "mark"
    return f'<path class="{kind}" transform="translate({x:.1f} {y:.1f})" d="{_MARKER_PATHS[style.marker]}"/>'
