"""What is drawn, told once for the page and for files: axes with their ticks, curves with their points, heat maps."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sslticket.report.text import percent

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b37c00", "#3f8fc0")
"""For everyone's eyes: Okabe and Ito 2008, "Color Universal Design", its last two darker to be seen on white."""
RANDOM = "#6b7280"
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES = {
    "ticket": "",
    "preserved": "6 3",
    "local": "2 3",
    "adjusted": "8 3 2 3",
    "reset": "12 3",
    "permuted": "6 3 2 3 2 3",
}
AGAIN = "14 2 3 2"
"""The line of further tickets of one colour: with another head or other numerics."""
"""A control of a series has its colour with another line, as in SVG's stroke-dasharray."""


@dataclass(frozen=True)
class Look:
    """How a series is drawn in every figure."""

    place: int  # among all series; the page's switch of this number hides it
    colour: int | None  # of COLOURS; None is grey
    marker: str
    dash: str
    hollow: bool


def looks(series: Sequence[tuple[str, str, str]], first: int = 0) -> dict[str, Look]:
    """The look of each series: a control takes the colour of the tickets that it is a control of.

    Args:
        series: name, tickets and control of each, as a `statistics.summary` has them, in order.
        first: the place of the first.
    """
    colours: dict[str, int] = {}
    found: dict[str, Look] = {}
    drawn: set[str] = set()
    for number, (name, tickets, control) in enumerate(series):
        is_random = control == "random"
        colour = None if is_random else colours.setdefault(tickets, len(colours)) % len(COLOURS)
        hollow = control not in ("ticket", "random")
        marker = MARKERS[number % len(MARKERS)]
        dash = AGAIN if control == "ticket" and tickets in drawn else DASHES.get(control, "")
        drawn |= {tickets} if control == "ticket" else set()
        found[name] = Look(first + number, colour, marker, dash, hollow)
    return found


@dataclass(frozen=True)
class Point:
    """A measured value; `low` and `high` bound its band and are NaN where it has none."""

    x: float
    y: float
    told: str
    low: float = math.nan
    high: float = math.nan
    stressed: bool = False


@dataclass(frozen=True)
class Curve:
    """The points of one series, drawn in its look; `dash` tells several curves of one series apart."""

    series: str
    points: tuple[Point, ...]
    dash: str | None = None
    called: str = ""  # beside the series' name, in a file's legend
    bare: bool = False  # without markers


@dataclass(frozen=True)
class Axis:
    """A direction of a chart; densities fall to the right."""

    label: str
    kind: Literal["density", "count", "seconds", "value"] = "value"
    log: bool = False
    zero: float = 0.0  # where a log axis has its 0, which lies at no place of its own; 0 for an axis without

    def ticks(self, low: float, high: float) -> list[tuple[float, str]]:
        """Round values within the range, few enough to read, and their words."""
        found = _log_ticks(low, high) if self.log else []
        if len(found) < 2:
            found = _linear_ticks(low, high)
        if self.kind == "density":
            found = [value for value in found if value <= 1]
        if self.zero:
            found = [self.zero, *(value for value in found if value > 2 * self.zero)]
        return [(value, self.words(value)) for value in found]

    def words(self, value: float) -> str:
        """A value of this axis, briefly."""
        if self.zero and value <= self.zero:
            return "0"
        if self.kind == "density":
            return f"{percent(value)}%"
        if self.kind == "seconds":
            return duration(value)
        if self.kind == "count":
            return brief(value)
        return f"{value:g}".replace("-", "\N{MINUS SIGN}")


@dataclass(frozen=True)
class Chart:
    """Curves over two axes."""

    name: str  # of its file and its place in the page
    title: str
    x: Axis
    y: Axis
    curves: tuple[Curve, ...]
    level: tuple[float, str] | None = None  # a dashed line across and its word
    upright: tuple[float, str] | None = None  # one from the bottom to the top
    bounds: tuple[float, float] = (-math.inf, math.inf)  # that y cannot leave


@dataclass(frozen=True)
class Heat:
    """A table whose cells are shaded: (text, shade from 0 to 1), with NaN for one to be marked, None for none."""

    name: str
    title: str
    corner: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    cells: tuple[tuple[tuple[str, float] | None, ...], ...]


def extent(chart: Chart) -> tuple[tuple[float, float], tuple[float, float]]:
    """The ranges of x and y that hold all points and bands, with a little room around them."""
    xs = [point.x for curve in chart.curves for point in curve.points]
    ys = [
        min(max(value, chart.bounds[0]), chart.bounds[1])
        for curve in chart.curves
        for point in curve.points
        for value in (point.y, point.low, point.high)
        if not math.isnan(value)
    ]
    ys += [chart.level[0]] if chart.level else []
    xs += [chart.upright[0]] if chart.upright else []
    low, high = min(ys), max(ys)
    # What differs in its last digits only is drawn as one value.
    apart = high - low if high - low > 1e-9 * max(abs(low), abs(high)) else 0.0
    room = 0.05 * apart or 0.05 * abs(high) or 1
    return _range(xs, chart.x.log), (max(low - room, chart.bounds[0]), min(high + room, chart.bounds[1]))


def _range(values: Sequence[float], log: bool) -> tuple[float, float]:
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


def brief(count: float) -> str:
    """A count to three digits: "640", "38.4k", "1.28M"."""
    for size, sign in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= 0.9995 * size:
            return f"{count / size:.3g}{sign}"
    return f"{count:.3g}"


def duration(seconds: float) -> str:
    """A time in the unit that suits it: "9.5 s", "12 min", "1.3 h", "1,204 h"."""
    size, unit = next((each for each in ((3600, "h"), (60, "min")) if seconds >= each[0]), (1, "s"))
    value = seconds / size
    return f"{value:,.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"
