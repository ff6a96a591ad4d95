"""What a figure of a paper shows and states, as data: panels, the published numbers over them, and findings to check.

`drawing.draw_figure` draws them from rows, `agreement` judges the findings. Nothing here needs torch or pandas, so that
a list of all figures is printed at once.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from sslticket.errors import BadInput, unknown_name

PanelKind = Literal["curves", "front", "histogram", "table"]
PublishedForm = Literal["points", "threshold-x", "threshold-y", "band", "cells", "note"]


@dataclass(frozen=True, kw_only=True)
class Between:
    """Values of a column from `low` to `high`, both included."""

    low: float = -math.inf
    high: float = math.inf

    def __contains__(self, value: object) -> bool:
        return isinstance(value, (int, float)) and self.low <= value <= self.high


@dataclass(frozen=True, kw_only=True)
class Near:
    """The value of a column that is nearest to `value`, of each series its own.

    Attributes:
        value: What is looked for, in the column's unit: a density is a fraction.
        within: Greatest distance by ratio: with 0.25, from 0.8 to 1.25 times the value.
    """

    value: float
    within: float = 0.25

    def reaches(self, other: float) -> bool:
        """Whether a value is near enough."""
        return self.value / (1 + self.within) <= other <= self.value * (1 + self.within)


Filter = Mapping[str, object]
"""Columns of `read_rows`, or names of settings of the recipe, and what they must be: a value, a tuple of values of
which one must match, `Between` or `Near`. Columns that are derived are listed at `Panel.x`."""


@dataclass(frozen=True, kw_only=True)
class Published:
    """Published numbers that belong to a panel, and how they are drawn there.

    The words are patterns as in `fnmatch` ("standard*"), in any case; "" is any. Units are turned into those of the
    panel: percent pruned into a density, percent of accuracy into a fraction.

    Attributes:
        drawn: "points" at `at`, in the style of `series`; a line across ("threshold-y") or from bottom to top
            ("threshold-x"); a "band" across between two bounds, or from bottom to top where the quantity is that of x;
            "cells" of a table; or only a "note" below the panel: ratios, gaps, costs.
        paper: Number of the paper, "003"; "" for that of the figure.
        place: Place in it, "Figure 3 table".
        network: Network.
        dataset: Data set.
        method: Method.
        condition: Condition.
        quantity: What was measured, "top1".
        series: Label of the panel's series that these numbers are of; "" for none.
        at: Position on the panel's x, in its unit; needed for "points".
        column: Title of the table's column, for "cells".
        words: What the drawing calls it; "" for words made from the number.
    """

    drawn: PublishedForm
    paper: str = ""
    place: str = ""
    network: str = ""
    dataset: str = ""
    method: str = ""
    condition: str = ""
    quantity: str = ""
    series: str = ""
    at: float | None = None
    column: str = ""
    words: str = ""

    def __post_init__(self) -> None:
        if self.drawn not in get_args(PublishedForm):
            raise unknown_name("form of published numbers", self.drawn, get_args(PublishedForm))
        if self.drawn == "points" and (self.at is None or not self.series):
            raise BadInput("published points need the series that they are of and their place; give series and at")
        if self.drawn == "cells" and not (self.column and self.series):
            raise BadInput("published cells need the series and the column that they are in; give series and column")


@dataclass(frozen=True, kw_only=True)
class Panel:
    """A part of a figure: series of one quantity against another, or a table of several quantities.

    Attributes:
        title: What it shows; panels of a figure have titles of their own.
        kind: "curves" of means with our interval; a "front": the tickets that no other of their series is both sparser
            and better than, over all runs and rounds, for the series in `fronts`, and curves for the others; a
            "histogram" of the magnitudes of weights; a "table" with a line for each series.
        x: Column of the positions. Beside those of the rows these are derived: "rewind_samples", "rewind_iterations",
            "rewind_epochs" and "rewind_percent" (of the training), "epoch" (of the row's `curve`) and "layer" (number
            of the layer). Settings of the recipe are columns, too.
        y: Column of the values. Derived are: "natural_zeros" (fraction), "layer_density", "layer_pruned_ratio" (share
            that is pruned of a layer over that of the network), "parameters" (of the prunable layers), "sparsity" and
            "gain_on_dense" (over the dense network of the same search).
        columns: Of a table: title of each column, and the column of the rows that it shows.
        series: Label of each series, and the rows that it has, see `Filter`.
        where: The rows that the panel is of.
        rows: Kind of the rows: "score", "stability", "magnitudes" or "level"; "" for that which has `y`.
        x_scale: Scale of x.
        x_label: What x is; "" for words that fit the column.
        y_label: What y is; "" for words that fit the column.
        fronts: Of a front: labels of the series that are reduced to what nothing dominates.
        order: Labels from the best to the worst, as the paper's text or numbers have them; a tuple within has those
            that the paper calls alike. Empty where it states no order.
        order_at: Positions on x at which the order is stated.
        published: Published numbers over it.
        note: A sentence that is printed below it.
    """

    title: str
    kind: PanelKind = "curves"
    x: str = "density"
    y: str = "top1"
    columns: Mapping[str, str] = field(default_factory=dict)
    series: Mapping[str, Filter]
    where: Filter = field(default_factory=dict)
    rows: str = ""
    x_scale: Literal["log", "linear", ""] = ""
    x_label: str = ""
    y_label: str = ""
    fronts: Sequence[str] = ()
    order: Sequence[str | tuple[str, ...]] = ()
    order_at: Between = Between()
    published: Sequence[Published] = ()
    note: str = ""

    def __post_init__(self) -> None:
        if self.kind not in get_args(PanelKind):
            raise unknown_name("kind of panel", self.kind, get_args(PanelKind))
        if not self.series:
            raise BadInput(f"the panel {self.title!r} has no series; give series, a label and a filter for each")
        if (self.kind == "table") != bool(self.columns):
            raise BadInput(f"the panel {self.title!r} needs columns if it is a table, and only then")
        named = [*_labels(self.order), *self.fronts, *(each.series for each in self.published if each.series)]
        for label in named:
            if label not in self.series:
                raise unknown_name(f"series of the panel {self.title!r}", label, self.series)
        for each in self.published:
            if each.drawn == "cells" and each.column not in self.columns:
                raise unknown_name(f"column of the panel {self.title!r}", each.column, self.columns)


def _labels(order: Sequence[str | tuple[str, ...]]) -> Iterator[str]:
    for each in order:
        yield from (each,) if isinstance(each, str) else each


@dataclass(frozen=True, kw_only=True)
class Check:
    """Where a statement is checked.

    Attributes:
        panel: Title of the panel; "" for the first.
        column: Title of the column, of a table.
        at: Positions on x that it is about. The dense network itself, density 1, never counts.
    """

    panel: str = ""
    column: str = ""
    at: Between = Between()


@dataclass(frozen=True, kw_only=True)
class Ordering(Check):
    """Each series is better than all that come later, on the mean over the positions that they share.

    Attributes:
        series: Labels from the greatest to the least; those in a tuple within are not compared with one another.
    """

    series: Sequence[str | tuple[str, ...]]


@dataclass(frozen=True, kw_only=True)
class Gap(Check):
    """The first series less the second lies between two bounds, on the mean over the positions that they share.

    "Performs as" is a gap from -margin to margin.

    Attributes:
        series: Labels of the two.
        low: Lower bound, in the unit of y: a fraction for an accuracy.
        high: Upper bound.
        published: Where the bounds are published; they need not be given then.
        contrast: Label of a series that must differ from the second by more, or all would look alike; "" for one that
            is called random, where there is one.
    """

    series: tuple[str, str]
    low: float = -math.inf
    high: float = math.inf
    published: Published | None = None
    contrast: str = ""


@dataclass(frozen=True, kw_only=True)
class Ratio(Check):
    """The first series over the second lies between two bounds, by the mean of the logarithm over shared positions.

    Attributes:
        series: Labels of the two.
        low: Lower bound.
        high: Upper bound.
        published: Where a ratio is published; what rounds to it is inside.
    """

    series: tuple[str, str]
    low: float = 0.0
    high: float = math.inf
    published: Published | None = None


@dataclass(frozen=True, kw_only=True)
class Matches(Check):
    """A series is nowhere worse than a reference by more than a margin, at none of the positions.

    Attributes:
        series: Label.
        reference: "dense" for the dense networks of the same series, or the label of another.
        margin: What counts as no loss, in the unit of y.
        contrast: See `Gap`.
    """

    series: str
    reference: str = "dense"
    margin: float = 0.01
    contrast: str = ""


@dataclass(frozen=True, kw_only=True)
class Value(Check):
    """A series lies between two bounds at each of the positions; a number of the paper's own networks and data.

    At another scale than the paper's it cannot be told.

    Attributes:
        series: Label.
        low: Lower bound, in the unit of y.
        high: Upper bound.
    """

    series: str
    low: float = -math.inf
    high: float = math.inf


@dataclass(frozen=True, kw_only=True)
class Trend(Check):
    """A series rises, or falls, along x: by the slopes of its searches from place to place.

    Attributes:
        series: Label.
        rising: Whether the statement is that it rises with the numbers of x.
        less: Label of a series that is taken from it first: the trend of a gap.
    """

    series: str
    rising: bool
    less: str = ""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A statement of the paper, and how rows can bear it out.

    Attributes:
        text: The paper's statement.
        check: How it is told from the panels.
        number: Number in the list of the papers' findings; None for one that is not listed there.
    """

    text: str
    check: Check
    number: int | None = None
