"""How series are drawn: an objective has one colour on every page; tint, line and marker tell its series apart."""

import zlib
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

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
TINTS = ("", "#000000", "#ffffff")
"""Series of one objective are mixed with these, see `TINT_SHARE`."""
TINT_SHARE = 0.4
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
        if not (other := TINTS[self.tint]):
            return base
        mixed = (
            round((1 - TINT_SHARE) * int(base[at : at + 2], 16) + TINT_SHARE * int(other[at : at + 2], 16))
            for at in (1, 3, 5)
        )
        return "#" + "".join(f"{part:02x}" for part in mixed)


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
            dash = _REPEATED_DASH if tickets in seen else _TICKET_DASHES[variant % len(_TICKET_DASHES)]
            seen.add(tickets)
        hollow = control not in ("ticket", "random")
        found[name] = SeriesStyle(first + number, colour, MARKERS[place], dash, hollow, variant % len(TINTS))
    return found
