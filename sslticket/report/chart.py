"""Charts and heat maps as data, with the styles of their series: drawn alike by the page (`svg`) and by `figures`."""

import math
import zlib
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

from sslticket.report.text import format_percent

COLOURS = (
    *("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b37c00", "#6b4fbb", "#b2182b", "#007a7a"),
    *("#8c510a", "#5f7d0a", "#c2189b", "#2d4a8a", "#3b3b3b", "#7a0177", "#41820b", "#a63d57"),
)
"""The first five are of Okabe and Ito 2008, "Color Universal Design", the fifth darker to be seen on white."""
_OBJECTIVES = (
    *("supervised", "rotnet", "exemplar", "s4l", "simclr", "byol", "dino", "mocov2"),
    *("barlowtwins", "vicreg", "simsiam", "swav", "supervised-shuffled"),
)
"""Whose colours these are; other objectives share the rest, each by its name, so that it has one on every page."""
DARK_COLOURS = (
    *("#4ba3e3", "#f07f2f", "#2cc295", "#e29cc4", "#e0a83a", "#a78bfa", "#f2707c", "#35c4c4"),
    *("#c98f52", "#a9c94a", "#f069cf", "#8fa8ee", "#d7dde3", "#d58bd3", "#86c94f", "#e68fa3"),
)
"""The same for a dark screen."""
RANDOM_COLOUR = "#6b7280"
TINTS: tuple[float | None, ...] = (None, 13.0, 3.05, 8.0, 0.0)
"""How series of one objective differ: its colour; mixed with black or white until its contrast with what is behind is
so high (WCAG 2.2: at least 3 can be seen); or, where that is 0, with grey."""
CARDS = ("#ffffff", "#161b22")
"""What is behind the series, on paper and on a dark screen."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h")
_TICKET_DASHES = ("", "10 3", "16 3 3 3", "4 2")
"""Lines of several tickets of one objective."""
_CONTROL_DASHES = {
    "ticket": "",
    "preserved": "6 3",
    "local": "2 3",
    "adjusted": "8 3 2 3",
    "reset": "12 3",
    "permuted": "6 3 2 3 2 3",
}
"""A control of a series has its colour with another line, as in SVG's stroke-dasharray."""
_REPEATED_DASH = "14 2 3 2"
"""The line of the same tickets once more: with another head or other numerics."""
MAX_SERIES = 18
"""Series that a chart may have and be told apart."""


@dataclass(frozen=True)
class SeriesStyle:
    """How a series is drawn in every figure.

    Attributes:
        index: Number among all series; the page's switch of this number hides it.
        colour: Index into COLOURS; None is grey.
        marker: One of MARKERS.
        dash: Dashes of its lines; "" for a solid one.
        hollow: Whether its markers are.
        tint: Index into TINTS.
    """

    index: int
    colour: int | None
    marker: str
    dash: str
    hollow: bool
    tint: int = 0

    @property
    def hex(self) -> str:
        """Its colour on white paper, "#0072b2"."""
        base = RANDOM_COLOUR if self.colour is None else COLOURS[self.colour]
        return tinted(base, self.tint, CARDS[0])


def luminance(colour: str) -> float:
    """The relative luminance of "#0072b2" (WCAG 2.2)."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """The contrast of two colours, from 1 to 21 (WCAG 2.2)."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@cache
def tinted(colour: str, tint: int, card: str) -> str:
    """A colour in one of TINTS, on a card."""
    wanted = TINTS[tint]
    if wanted is None:
        return colour
    if wanted == 0:
        return _mixed(colour, "#787c82", 0.6)
    fainter, stronger = ("#ffffff", "#000000") if luminance(card) > 0.5 else ("#000000", "#ffffff")
    own = contrast(colour, card)
    end = stronger if wanted > own else fainter
    # The nearest of a hundred shares; where a colour is as faint as may be, it stays.
    shares = [share / 100 for share in range(101)]
    enough = [share for share in shares if contrast(_mixed(colour, end, share), card) >= wanted]
    return _mixed(colour, end, (min if end == stronger else max)(enough)) if enough else colour


def _mixed(colour: str, other: str, share: float) -> str:
    parts = (
        round((1 - share) * int(colour[at : at + 2], 16) + share * int(other[at : at + 2], 16)) for at in (1, 3, 5)
    )
    return "#" + "".join(f"{part:02x}" for part in parts)


def objective_colour(objective: str) -> int:
    """The index of an objective's colour, the same on every page."""
    if objective in _OBJECTIVES:
        return _OBJECTIVES.index(objective)
    others = len(COLOURS) - len(_OBJECTIVES)
    return len(_OBJECTIVES) + zlib.crc32(objective.encode(errors="surrogateescape")) % others


def assign_styles(
    series: Sequence[tuple[str, str, str]],
    first: int = 0,
    facets: Sequence[Collection[str]] = (),
    objectives: Mapping[str, str] | None = None,
) -> dict[str, SeriesStyle]:
    """The style of each series: tickets have their objective's colour, and a control that of its tickets.

    Args:
        series: Name, tickets and control of each, as the frame of `stats.summarize` has them, in order. Tickets are ""
            of controls that all runs share, which are grey.
        first: Index of the first.
        facets: Names of the series that each chart has; those of no chart, or all where there are none, are taken to
            be in one.
        objectives: The objective of each tickets' name; None where names begin with it, as those of rows do.
    """
    of_charts: dict[str, list[int]] = {}
    for number, names in enumerate(facets):
        for name in names:
            of_charts.setdefault(name, []).append(number)
    charts_of_tickets: dict[str, dict[int, None]] = defaultdict(dict)
    for name, tickets, _ in series:
        charts_of_tickets[tickets] |= dict.fromkeys(of_charts.get(name, [-1]))
    # How often each chart has each colour and each marker: a series takes the least used of its charts.
    variant_uses, marker_uses = (defaultdict[int, Counter[int]](Counter) for _ in range(2))
    variants: dict[str, int] = {}
    found: dict[str, SeriesStyle] = {}
    seen: set[str] = set()
    for number, (name, tickets, control) in enumerate(series):
        charts = of_charts.get(name, [-1])
        colour = None
        if tickets:
            told = tickets.partition(" ")[0].rstrip(",") if objectives is None else objectives.get(tickets, tickets)
            colour = objective_colour(told)
            if tickets not in variants:
                own = charts_of_tickets[tickets]
                variants[tickets] = max(variant_uses[chart][colour] for chart in own)
                for each in own:
                    variant_uses[each][colour] = variants[tickets] + 1
        variant = variants.get(tickets, 0)
        place = min(range(len(MARKERS)), key=lambda each: sum(marker_uses[chart][each] for chart in charts))
        for each in charts:
            marker_uses[each][place] += 1
        dash = _CONTROL_DASHES.get(control, "")
        if control == "ticket":
            dash = _TICKET_DASHES[variant // len(TINTS) % len(_TICKET_DASHES)]
            dash = _REPEATED_DASH if tickets in seen else dash
            seen.add(tickets)
        hollow = control not in ("ticket", "random")
        found[name] = SeriesStyle(first + number, colour, MARKERS[place], dash, hollow, variant % len(TINTS))
    return found


@dataclass(frozen=True)
class Point:
    """A measured value.

    Attributes:
        x: Place on x.
        y: Place on y.
        tooltip: What it says when it is pointed at.
        low: Lower end of its band; NaN where it has none.
        high: Upper end of it.
        highlighted: Whether it has a ring.
        badges: Verdicts that it is marked with, see `BADGES`.
    """

    x: float
    y: float
    tooltip: str
    low: float = math.nan
    high: float = math.nan
    highlighted: bool = False
    badges: tuple[str, ...] = ()


BADGES = {
    "error": "sparsest that matches the dense network within one standard error",
    "error+": "sparsest that matches it within one standard error, and wins",
    "point": "sparsest that matches it within 1 point",
    "point+": "sparsest that matches it within 1 point, and wins",
}
"""Marks around points: a circle or a square, bold for winning tickets."""


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
        dots: Places of the single values that the points are means of, drawn small beside them.
    """

    series: str
    points: tuple[Point, ...]
    dash: str | None = None
    label: str = ""
    no_markers: bool = False
    no_line: bool = False
    dots: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True)
class Axis:
    """A direction of a chart; densities fall to the right.

    Attributes:
        label: What its values are, with their unit.
        kind: How values are written.
        log: Whether it is logarithmic; of y the smallest values are then at the bottom.
        zero_at: Where a log axis has its 0, which has no position of its own; 0 for an axis without.
    """

    label: str
    kind: Literal["density", "count", "seconds", "value"] = "value"
    log: bool = False
    zero_at: float = 0.0

    def ticks(self, low: float, high: float) -> list[tuple[float, str]]:
        """Round values within the range, few enough to read, and their words."""
        found = _log_ticks(low, high) if self.log else []
        if len(found) < (4 if self.kind == "value" else 2):
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
        facets: The same as names and values, by which one of the parts is chosen.
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
    facets: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class HeatMap:
    """A table whose cells are shaded: (text, shade), with a shade of NaN for one to be marked, None for none.

    Shades go from 0 to 1, and of differences from -1 to 1.
    """

    name: str
    title: str
    corner: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    cells: tuple[tuple[tuple[str, float] | None, ...], ...]
    of_differences: bool = False

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
    ys += [y for curve in chart.curves for _, y in curve.dots]
    ys += [chart.horizontal_line[0]] if chart.horizontal_line else []
    xs += [chart.vertical_line[0]] if chart.vertical_line else []
    xs += [end for mark in chart.marks for end in mark.ends("x")]
    ys += [min(max(end, chart.y_bounds[0]), chart.y_bounds[1]) for mark in chart.marks for end in mark.ends("y")]
    if chart.y.log:
        positive = [value for value in ys if value > 0]
        return _padded_range(xs, chart.x.log), _padded_range(positive or [1.0], True)
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


_MAX_DENSITIES = 40
"""Searches that come to densities of their own have more than an axis can show."""


def x_ticks(chart: Chart, ends: tuple[float, float], width: float, letter: float) -> list[tuple[float, str]]:
    """The ticks of x from left to right, with "" for words that have no room.

    A density axis has its ticks where the tickets are: those of the densest and of the sparsest always have words.

    Args:
        chart: The chart.
        ends: The range of x.
        width: Length of its axis.
        letter: Width of a letter, in the same unit.
    """
    ticks = _measured_ticks(chart) or chart.x.ticks(*ends)
    if chart.x.kind == "density":  # these fall
        ticks = ticks[::-1]
    if not ticks:
        return []
    low, high = ends
    turn = math.log if chart.x.log else float
    places = [(turn(value) - turn(low)) / (turn(high) - turn(low)) * width for value, _ in ticks]

    def fits(one: int, other: int) -> bool:
        halves = (len(ticks[one][1]) + len(ticks[other][1])) / 2
        return abs(places[one] - places[other]) >= letter * (halves + 1)

    last = len(ticks) - 1
    shown = [0]
    for index in range(1, last):
        if fits(shown[-1], index) and fits(index, last):
            shown.append(index)
    shown += [last] if fits(shown[-1], last) else []
    return [(value, words if index in shown else "") for index, (value, words) in enumerate(ticks)]


def _measured_ticks(chart: Chart) -> list[tuple[float, str]]:
    """A tick for each density that was measured, those within a fiftieth of one another as one; [] for too many."""
    if chart.x.kind != "density":
        return []
    found: list[float] = []
    for value in sorted({point.x for curve in chart.curves for point in curve.points}):
        if value > 0 and (not found or value > 1.02 * found[-1]):
            found.append(value)
    return [(value, chart.x.format(value)) for value in found] if len(found) <= _MAX_DENSITIES else []


def direct_labels(chart: Chart) -> list[str]:
    """The series whose names can stand at the ends of their lines: a few short ones with a line each; else none."""
    names = list(dict.fromkeys(curve.series for curve in chart.curves))
    lines = [curve for curve in chart.curves if not curve.no_line and curve.points]
    few = len(names) <= _MAX_DIRECT and len(lines) == len(chart.curves) == len(names)
    return names if few and max(map(len, names), default=0) <= _MAX_DIRECT_LETTERS else []


_MAX_DIRECT, _MAX_DIRECT_LETTERS = 5, 44


def spread_apart(places: Sequence[float], least: float, low: float, high: float) -> list[float]:
    """Places moved as little as keeps neighbours so far apart, between two bounds as far as that can be."""
    order = sorted(range(len(places)), key=lambda each: places[each])
    moved = [max(low, places[index]) for index in order]
    for at in range(1, len(moved)):
        moved[at] = max(moved[at], moved[at - 1] + least)
    if moved and moved[-1] > high:
        moved[-1] = high
        for at in range(len(moved) - 2, -1, -1):
            moved[at] = min(moved[at], moved[at + 1] - least)
    found = [0.0] * len(places)
    for index, value in zip(order, moved, strict=True):
        found[index] = value
    return found


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
