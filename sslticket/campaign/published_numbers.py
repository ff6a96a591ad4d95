"""The numbers that the five papers publish, from `published.csv` beside this file, and what is known to be amiss.

The table was made by hand from the text, the tables and the captions of the papers; the plotted curves are in none of
them. A range has no value but both bounds, "over X" the value and the lower bound, "under X" the value and the upper
one. `kind` is "table" for a cell, "text" for a paper's own number in prose, and "claim" for what is approximate,
comparative, repeated or about others' work. The papers are numbered as in `figure.PAPERS`.
"""

import csv
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from importlib import resources
from typing import Any, NamedTuple

from sslticket.campaign.panels import Published
from sslticket.errors import BadInput, unknown_name

WORDS = ("place", "network", "dataset", "method", "condition", "quantity")
"""Columns of words by which numbers are chosen, beside the paper."""


@dataclass(frozen=True, kw_only=True)
class PublishedNumber:
    """A published number: a line of the table.

    Attributes:
        line: Number of the line, the first below the heading is 1.
        paper: Number of the paper, "003".
        place: Place in it.
        network: Network, in the paper's words; "" where it is of all or none.
        dataset: Data set, in the paper's words.
        method: What it is of, "IMP ticket".
        condition: Under which condition.
        quantity: What was measured.
        value: The number; None for a range.
        value_low: Lower bound, or None.
        value_high: Upper bound, or None.
        error: What stands behind "±", or None.
        n: Number of samples, or None.
        unit: Unit of the number.
        kind: "table", "text" or "claim".
        note: What to know of it.
    """

    line: int
    paper: str
    place: str
    network: str
    dataset: str
    method: str
    condition: str
    quantity: str
    value: float | None
    value_low: float | None
    value_high: float | None
    error: float | None
    n: int | None
    unit: str
    kind: str
    note: str

    @property
    def words(self) -> str:
        """The number with its unit: "98.3 ± 0.1 percent", "over 75 percent", "1 to 4 points"."""
        if self.unit.startswith("1 yes"):
            return "yes" if self.value else "no"
        ends = [f"{end:g}" if abs(end) < 1e5 else f"{end:,.0f}" for end in self.ends if math.isfinite(end)]
        if self.value is None:
            told = " to ".join(ends)
        else:
            over, under = self.value_low is not None, self.value_high is not None
            told = f"{'over ' * over}{'at most ' * under}{ends[0]}"
        error = f" ± {self.error:g}" if self.error is not None else ""
        unit = {"percent": "%", "x": "\N{MULTIPLICATION SIGN}"}.get(self.unit, f" {self.unit}")
        return f"{told}{error}{unit}"

    @property
    def ends(self) -> tuple[float, float]:
        """The least and the greatest value that the words allow; both the same for a plain number."""
        low = self.value if self.value is not None else self.value_low
        high = self.value if self.value is not None else self.value_high
        if self.value is not None and (self.value_low is None) != (self.value_high is None):
            return (self.value, math.inf) if self.value_low is not None else (-math.inf, self.value)
        assert low is not None
        assert high is not None
        return low, high

    @property
    def source(self) -> str:
        """Where it stands: "003, Figure 3 table"."""
        return f"{self.paper}, {self.place}"

    @property
    def figure(self) -> str:
        """The figure or table that it belongs to, "Figure 3"; "" for none, see `reason_without_figure`."""
        return _place_of(self)[0]

    @property
    def reason_without_figure(self) -> str:
        """Why it belongs to no figure, in words; "" where it belongs to one."""
        return _place_of(self)[1]


@cache
def published_numbers() -> tuple[PublishedNumber, ...]:
    """All published numbers, in the order of the papers."""
    text = resources.files(__package__).joinpath("published.csv").read_text("utf-8")
    return tuple(_read_line(number, cells) for number, cells in enumerate(csv.DictReader(text.splitlines()), start=1))


def _read_line(line: int, cells: dict[str, str]) -> PublishedNumber:
    numbers: dict[str, Any] = {
        name: float(cells[name]) if cells[name] else None for name in ("value", "value_low", "value_high", "error")
    }
    numbers["n"] = int(cells["n"]) if cells["n"] else None
    return PublishedNumber(line=line, **(dict(cells) | numbers))


def choose_numbers(wanted: Published, paper: str = "") -> tuple[PublishedNumber, ...]:
    """The published numbers that a panel asks for.

    Args:
        wanted: Which.
        paper: Number of the paper where `wanted` names none.

    Raises:
        BadInput: If there is none; the filter that leaves nothing, and the nearest value, are named.
    """
    left = list(published_numbers())
    for column in ("paper", *WORDS):
        pattern = getattr(wanted, column) or (paper if column == "paper" else "")
        if not pattern:
            continue
        known = sorted({str(getattr(each, column)) for each in left})
        left = [each for each in left if fnmatchcase(str(getattr(each, column)).lower(), pattern.lower())]
        if not left:
            raise unknown_name(f"{column} of published numbers", pattern, known)
    return tuple(left)


def only_number(wanted: Published, paper: str = "") -> PublishedNumber:
    """The one number that is asked for.

    Raises:
        BadInput: If there is none, or several.
    """
    found = choose_numbers(wanted, paper)
    if len(found) > 1:
        told = "; ".join(f"{each.place}, {each.condition or each.method}" for each in found[:4])
        raise BadInput(
            f"one published number was asked for, and {len(found)} match: {told}; give its condition or place too"
        )
    return found[0]


def numbers_of_figure(paper: str, place: str) -> tuple[PublishedNumber, ...]:
    """All published numbers that belong to a figure or table, drawn or not."""
    return tuple(each for each in published_numbers() if each.paper == paper and each.figure == place)


class _Unit(NamedTuple):
    """How a quantity is turned into a column of rows."""

    column: str
    turn: Callable[[float], float]


def _share(value: float) -> float:
    return value / 100


def _rest(value: float) -> float:
    return 1 - value / 100


_UNITS: dict[str, tuple[_Unit, ...]] = {
    "top1": (_Unit("top1", _share),),
    "remaining_percent": (_Unit("density", _share), _Unit("sparsity", _rest)),
    "sparsity_percent": (_Unit("density", _rest), _Unit("sparsity", _share)),
    "natural_zeros_percent": (_Unit("natural_zeros", _share), _Unit("density", _rest)),
    "natural_nonzeros_percent": (_Unit("natural_zeros", _rest), _Unit("density", _share)),
    "param_count": (_Unit("parameters", float),),
    "rewind_epoch": (_Unit("rewind_epochs", float),),
    "rewind_epochs": (_Unit("rewind_epochs", float),),
    "rewind_iterations": (_Unit("rewind_iterations", float),),
    "rewind_updates": (_Unit("rewind_iterations", float),),
    "rewind_samples": (_Unit("rewind_samples", float),),
    "rewind_percent_of_training": (_Unit("rewind_percent", _share),),
    "winning_ticket_found": (_Unit("gain_on_dense", float),),
    "epochs": (_Unit("epoch", float),),
}


def ends_in_column(number: PublishedNumber, column: str) -> tuple[float, float]:
    """The ends of a number in the unit of a column of rows: 84.5% pruned are a density of 0.155.

    Raises:
        BadInput: If the quantity is none that the column has.
    """
    column = column.rpartition(".")[2]
    units = _UNITS.get(number.quantity, (_Unit(number.quantity, float),))
    for unit in units:
        if unit.column == column:
            low, high = sorted(map(unit.turn, number.ends))  # an end that is open stays open
            return low, high
    raise BadInput(
        f"published {number.quantity} ({number.source}) are no values of {column}; draw them against "
        f"{' or '.join(unit.column for unit in units)}"
    )


def error_in_column(number: PublishedNumber, column: str) -> float | None:
    """What stands behind "±", in the unit of a column; None where nothing does."""
    if number.error is None:
        return None
    return number.error / 100 if number.unit == "percent" and column not in ("parameters",) else number.error


_PRIOR = "It is about the work of others, whose runs are none of the figure's."
_COST = "It is what the authors' runs took on their machines; `sslticket reproduce --list` tells what ours take."
_GENERAL = "It is a statement about networks in general, of no measurement."
_SETTING = "It is a setting, which the recipe has."

_PLACES: tuple[tuple[str, str, str, str, str], ...] = (
    # Paper, and patterns of place, condition and method; then the figure, or the reason why there is none.
    ("000", "section 1", "over-param*", "*", _GENERAL),
    ("000", "*", "prior work*", "*", _PRIOR),
    ("000", "section 3.1", "*", "*", "Figure 1"),
    ("000", "Figure 1 caption", "*", "*", "Figure 1"),
    ("000", "section 5.1", "*", "*", _COST),
    ("001", "section 1", "*", "*", _PRIOR),
    ("001", "*", "*", "*", _COST),
    ("002", "Table 1", "*", "*", "Table 1"),
    ("002", "Figure ? caption", "*", "*", ""),
    ("002", "section 3.2", "*", "*", "Figure 1"),
    ("002", "section 4.1", "*", "*", "Figure 1"),
    ("002", "section 1*", "*", "*", "Figure 3"),
    ("002", "section 4.2", "*", "*", "Figure 3"),
    ("002", "section 4.4", "*", "*", "Figure 5"),
    ("002", "section 4.5", "end of training", "*", "Figure 6"),
    ("002", "section 4.5", "*", "random*", "Figure 4"),
    ("002", "section 4.5", "*", "*", "Figure 1"),
    ("002", "section 5", "subset*", "*", "Figure 3"),
    ("002", "section 5", "moderate*", "*", "Figure 5"),
    ("002", "section 5", "*", "*", "Figure 1"),
    ("003", "Figure * table", "*", "*", ""),
    ("003", "Figure ? caption", "*", "*", ""),
    ("003", "*", "prior work*", "*", _PRIOR),
    ("003", "section 1", "rewind epoch 6*", "*", "Figure 8"),
    ("003", "section 1", "80% sparse", "*", "Figure 8"),
    ("003", "abstract", "*", "*", "Figure 7"),
    ("003", "section 1", "*", "*", "Figure 7"),
    ("003", "section 2", "*", "*", "Figure 3"),
    ("003", "section 3", "*", "*", "Figure 4"),
    ("003", "section 4", "*", "*", "Figure 4"),
    ("003", "section 4 discussion", "*", "*", "Figure 5"),
    ("003", "section 5", "*", "*", "Figure 7"),
    ("003", "section 5 (Figure 8)", "*", "*", "Figure 8"),
    ("003", "Appendix A", "", "SNIP", _PRIOR),
    ("003", "Appendix A", "*", "*", "Figure 9"),
    ("004", "*", "prior work*", "*", _PRIOR),
    ("004", "footnote 1", "*", "*", _SETTING),
    ("004", "section 4.1", "*", "*", "Figure 2"),
    ("004", "Figure ? caption", "*", "*", ""),
    ("004", "*", "*", "*", "Figure 3"),
)


def _place_of(number: PublishedNumber) -> tuple[str, str]:
    """The figure of a number and "", or "" and the reason why it has none."""
    if number.paper == "000" and number.place == "section 4.2":
        return f"Figure {3 if number.network == 'VGG19' else 4}", ""
    told = (number.place, number.condition, number.method)
    for paper, *patterns, found in _PLACES:
        if paper == number.paper and all(map(fnmatchcase, told, patterns)):
            found = found or " ".join(number.place.split()[:2])
            return (found, "") if found.startswith(("Figure", "Table")) else ("", found)
    raise AssertionError(f"line {number.line} of published.csv has no place")


class _Ambiguity(NamedTuple):
    """What is known to be wrong or unclear in published numbers, and in which."""

    paper: str
    place: str
    network: str
    quantity: str
    condition: str
    sentence: str


_AMBIGUITIES = (
    _Ambiguity(
        "003",
        "Figure 3 table",
        "*",
        "remaining_percent",
        "*",
        "The paper heads the column with the percentage that "
        'remains (10.7, 16.7, 2.2%) "Sparsity"; in its Figure 6 that word is the percentage pruned.',
    ),
    _Ambiguity(
        "003",
        "Figure 10 table",
        "*",
        "remaining_percent",
        "*",
        "The paper heads the column with the percentage that "
        'remains (10.7, 16.7, 2.2%) "Sparsity"; in its Figure 6 that word is the percentage pruned.',
    ),
    _Ambiguity(
        "003",
        "Figure [13]*table",
        "*",
        "*_distance",
        "*",
        "Errors of the published distances, angles and accuracies "
        "are the minimum or maximum over samples, no standard deviation.",
    ),
    _Ambiguity(
        "003",
        "Figure 10 table",
        "*",
        "*_angle",
        "*",
        "Errors of the published distances, angles and accuracies are "
        "the minimum or maximum over samples, no standard deviation.",
    ),
    _Ambiguity(
        "003",
        "Figure 3 table",
        "VGG-19",
        "order_distance_ratio",
        "*",
        "Printed ratios that disagree with the "
        "distances: 0.8 for VGG-19 standard (245 / 285 = 0.86) and 2.7 for warmup (267 / 97 = 2.75).",
    ),
    _Ambiguity(
        "003",
        "Figure 10 table",
        "Resnet-18",
        "order_angle_ratio",
        "warmup*",
        "The printed ratio of Resnet-18 with warmup, 4.7, is not that of the angles (69.0 / 17.0 = 4.1).",
    ),
    _Ambiguity(
        "003",
        "Figure 10 table",
        "Resnet-18",
        "*_angle",
        "standard*",
        "Both angles of Resnet-18 standard are printed "
        "as 87.7 ± 1.2 and 88.0 ± 1.4, and the data-order angle of VGG-19 as 39.9 ± 2.1 both low and with warmup: "
        "likely copies.",
    ),
    _Ambiguity(
        "003",
        "Figure 10 table",
        "VGG-19",
        "top1",
        "*",
        "The accuracies of VGG-19's IMP tickets are lost in Figure 10; Figure 3 has them.",
    ),
    _Ambiguity(
        "003",
        "Figure 6 table",
        "Inception-v3",
        "*",
        "standard",
        "Three rows of the table are merged in the text that "
        "the numbers are from; 27.1M parameters and 78.1 ± 0.1% are taken to be Inception-v3's, and the dense "
        "accuracies of Resnet-50 and Squeezenet are lost.",
    ),
    _Ambiguity(
        "003",
        "Figure 6 table",
        "*",
        "sparsity_percent",
        "*",
        '"Sparsity" is the percentage pruned here, unlike in Figures 3 and 10.',
    ),
    _Ambiguity(
        "003",
        "Figure 2 table",
        "Resnet-18",
        "winning_ticket_found",
        "low*",
        "Section 2 says that without warmup there "
        "is no winning ticket in Resnet-18; the table has one at the low rate.",
    ),
    _Ambiguity(
        "003",
        "Figure 2 table",
        "*",
        "top1",
        "*",
        "What the errors of the published dense accuracies are is not said; "
        "the schedules of Resnet-18 and VGG-19 look exchanged, and the rates of the variants are merged.",
    ),
    _Ambiguity(
        "003",
        "Appendix A",
        "VGG-19 over Resnet-18",
        "param_ratio",
        "*",
        "75 times as many parameters is printed; the counts of Figure 2 give 73.",
    ),
    _Ambiguity(
        "003",
        "*",
        "*Resnet-50*",
        "rewind_percent_of_training",
        "*",
        "The ranges of section 1 (0.1 to 7%, 50 to 99%) "
        "name the ImageNet networks; 0.1% and 99% fit VGG-19 on CIFAR-10 only.",
    ),
    _Ambiguity("002", "Figure 1 caption", "*", "*", "*", "The caption of Figure 1 exchanges (a) and (b)."),
    _Ambiguity(
        "002",
        "section 4.5",
        "*",
        "natural_zeros_percent",
        "*",
        "The natural zeros, 84.5 and 80.3%, are also rounded to 85 and 80%.",
    ),
    _Ambiguity(
        "002",
        "section [45]*",
        "large networks",
        "sparsity_percent",
        "*",
        "Below which sparsity pruning on CIFAR-10 shows little is 85% in section 4.5 and 80% in section 5.",
    ),
    _Ambiguity(
        "002",
        "section 4.4",
        "*",
        "class_ratio",
        "*",
        '"3 times more classes" holds for Places365 against 100 classes, not against ImageNet\'s 1,000.',
    ),
    _Ambiguity("002", "section 4.1", "*", "remaining_percent", "*", "The text names no network for 6.9%."),
    _Ambiguity("002", "section 3.2", "*", "remaining_percent", "*", "0.1% is 0.8^30 = 0.12%, rounded."),
    _Ambiguity(
        "002", "Table 1", "*", "rewind_*", "*", "The table defines the rewind points; its numbers are no outcomes."
    ),
    _Ambiguity(
        "004",
        "section [14]*",
        "*",
        "search_iterations",
        "*",
        "IMP needs 20 rounds in section 1 and over 10 in 4.2, "
        'and was run for 30; CS needs "under 5", and was run for 5.',
    ),
    _Ambiguity("004", "abstract", "*", "speedup", "*", '"Up to 5 times" faster has no table of epochs behind it.'),
    _Ambiguity("004", "section 4.1", "*", "*", "supermask*", "Stochastic sparsification is abbreviated SS and SP."),
    _Ambiguity("000", "*", "VGG19", "sparsity_percent", "*", "0.999 is 1 - 0.8^30 = 0.9988, rounded."),
)


def known_ambiguities(numbers: Iterable[PublishedNumber]) -> list[str]:
    """What is known to be wrong or unclear in these numbers, a sentence each."""
    return list(dict.fromkeys(_sentences(numbers)))


def _sentences(numbers: Iterable[PublishedNumber]) -> Iterator[str]:
    for number in numbers:
        for paper, place, network, quantity, condition, sentence in _AMBIGUITIES:
            told = (number.place, number.network, number.quantity, number.condition)
            if paper == number.paper and all(map(fnmatchcase, told, (place, network, quantity, condition))):
                yield sentence
