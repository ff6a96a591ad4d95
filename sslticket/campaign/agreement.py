"""How far rows agree with a paper: the order of its series, its published values, and a verdict on each finding.

A finding is borne out, or not, by a test at 5% that few searches cannot pass by luck: the larger p of Welch's test and
of Fisher's permutation test counts (`report.stats.compare_means`), corrected by Holm for the findings of the figure.
Where all parts of a statement have to hold, the largest p of its parts is that of the whole (Berger 1982); likeness is
shown by two one-sided tests against the margin (Schuirmann 1987); a trend by the slopes of the searches. Whatever is
left is told with the reason why it cannot be told. Nothing is borne out where the experiment could not have failed.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import singledispatchmethod
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats as tests

from sslticket.campaign import published_numbers
from sslticket.campaign.panel_values import PanelValues, density_of, is_fraction, series_means
from sslticket.campaign.panels import Between, Check, Finding, Gap, Matches, Ordering, Published, Ratio, Trend, Value
from sslticket.errors import BadInput, unknown_name
from sslticket.report import stats, text

FloatArray = npt.NDArray[np.float64]

BORNE_OUT, NOT_BORNE_OUT, UNTOLD = "borne out", "not borne out", "cannot be told"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What became of a finding.

    Attributes:
        finding: The finding.
        verdict: "borne out", "not borne out" or "cannot be told".
        numbers: Ours, with intervals and how many searches they rest on; "" where there are none.
        p: P corrected for the findings of the figure; NaN where no test was made.
        why: Why it cannot be told; "" where it was.
    """

    finding: Finding
    verdict: str
    numbers: str
    p: float
    why: str

    @property
    def line(self) -> str:
        """The verdict in a line for a person."""
        number = f"{self.finding.number}. " if self.finding.number is not None else ""
        why = f": {self.why}" if self.why else ""
        p = "" if math.isnan(self.p) else f", p = {self.p:.2g} (Holm)"
        told = f" [{self.numbers}{p}]" if self.numbers else ""
        return f"{number}{self.finding.text} - {self.verdict}{why}{told}"


class _Test(NamedTuple):
    """What the tests of a finding say before they are corrected for the other findings.

    Attributes:
        p: Of that side for which there is more to say.
        least: Least p that so few searches could reach, whichever side it were.
        supports: Whether that side is the paper's.
        numbers: Ours.
    """

    p: float
    least: float
    supports: bool
    numbers: str

    @classmethod
    def of_parts(cls, parts: Sequence[stats.Difference], numbers: str) -> "_Test":
        """Of a statement whose parts all have to be above 0: the worst shows it, and one that is below refutes it.

        Any of several could be below by chance, which Bonferroni corrects; all above they are not by chance.
        """
        p_for = max(each.p if each.mean > 0 else 1.0 for each in parts)
        p_against = min(1.0, len(parts) * min(each.p if each.mean < 0 else 1.0 for each in parts))
        reach = [each.smallest_p for each in parts]
        least = min(max(reach), 1.0, len(parts) * min(reach))
        return cls(float(min(p_for, p_against)), float(least), bool(p_for <= p_against), numbers)


class _UntoldError(Exception):
    """A finding that no test can be made of, with the reason and maybe the numbers."""

    def __init__(self, why: str, numbers: str = "") -> None:
        super().__init__(why)
        self.numbers = numbers


class Judge:
    """Compares the panels of a figure with what its paper says.

    Args:
        panels: Numbers of the figure's panels.
        paper: Number of the paper.
        scale: Scale at which the rows were made.
    """

    def __init__(self, panels: Sequence[PanelValues], *, paper: str, scale: str = "") -> None:
        self._panels = {values.panel.title: values for values in panels}
        self._paper, self._scale = paper, scale

    def agreement_lines(self, values: PanelValues) -> Iterator[str]:
        """How far a panel's order and its published values are ours."""
        if line := self._order_line(values):
            yield f"{values.panel.title}: {line}"
        yield from (f"{values.panel.title}: {line}" for line in self._table_order_lines(values))
        if line := self._share_line(values):
            yield f"{values.panel.title}: {line}"

    def _order_line(self, values: PanelValues) -> str:
        panel = values.panel
        ranks: dict[str, int] = {}
        for rank, group in enumerate(panel.order):
            ranks |= dict.fromkeys((group,) if isinstance(group, str) else group, -rank)
        if not ranks:
            return ""
        means = series_means(_at_common_places(values))
        means = means[means["series"].isin(ranks) & _counts_here(panel.x, panel.order_at, means["x"])]
        found = {}
        for x, here in means.groupby("x"):
            own = here.groupby("series")["y"].mean()
            if (tau := order_agreement([ranks[name] for name in own.index], list(own))) is not None:
                found[float(str(x))] = tau
        told = " > ".join(each if isinstance(each, str) else " = ".join(each) for each in panel.order)
        if not found:
            return f"order {told} not compared: no two of its series share a place on {panel.x}"
        each = ", ".join(f"{tau:.2f} at {_place(panel.x, x)}" for x, tau in sorted(found.items(), reverse=True))
        trial = "; a trial of a few steps, which shows nothing" if self._scale == "trial" else ""
        mean = sum(found.values()) / len(found)
        return f"Kendall's tau with the paper's order {told}: mean {mean:.2f} over {len(found)} ({each}){trial}"

    def _table_order_lines(self, values: PanelValues) -> Iterator[str]:
        """Kendall's tau over the lines of a table, for each column with published numbers."""
        panel = values.panel
        if _is_planned(values):
            return
        means = series_means(values.values)
        for title, column in panel.columns.items():
            theirs = dict(self._published_values(values, title, column))
            own = means[(means["column"] == title) & means["series"].isin(theirs)].set_index("series")["y"]
            tau = order_agreement([theirs[name].value for name in own.index], list(own))
            if tau is not None:
                yield f"{title}: Kendall's tau with the published values {tau:.2f} over {len(own)} lines"

    def _published_values(self, values: PanelValues, title: str, column: str) -> Iterator[tuple[str, "_Theirs"]]:
        """The published values of series that are plain numbers, once for each series and place."""
        for wanted in values.panel.published:
            if wanted.drawn not in ("points", "cells") or wanted.column != title:
                continue
            for number in published_numbers.choose_numbers(wanted, self._paper):
                low, high = published_numbers.ends_in_column(number, column)
                if low == high and not number.unit.startswith("1 yes"):
                    yield wanted.series, _Theirs(low, wanted.at)

    def _share_line(self, values: PanelValues) -> str:
        panel = values.panel
        columns = panel.columns or {"": panel.y}
        pairs = [(title, series, theirs) for title, column in columns.items()
                 for series, theirs in self._published_values(values, title, column)]  # fmt: skip
        if not pairs:
            return ""
        means = series_means(values.values)
        if _is_planned(values):
            ours = {(row["series"], row["column"]): row["y"] for row in means.to_dict("records")}
            same = sum(
                abs(ours.get((series, title), math.inf) / theirs.value - 1) < 0.02 for title, series, theirs in pairs
            )
            return f"{same} of {len(pairs)} published values are ours within 2%; they follow from settings alone"
        if self._scale != "paper":
            return f"{len(pairs)} published values not compared: other scale"
        inside = compared = 0
        for title, series, theirs in pairs:
            own = means[(means["series"] == series) & (means["column"] == title)]
            if theirs.at is not None:
                own = own[[abs(x - theirs.at) <= 0.02 * theirs.at for x in own["x"]]]
            own = own.dropna(subset=["low"])
            compared += len(own) > 0
            inside += bool(((own["low"] <= theirs.value) & (theirs.value <= own["high"])).any())
        if not compared:
            return f"{len(pairs)} published values not compared: no interval of ours at their places"
        rest = f"; {len(pairs) - compared} have no interval of ours" if compared < len(pairs) else ""
        share = 100 * inside / compared
        return f"{inside} of {compared} published values inside our 95% interval ({share:.0f}%){rest}"

    def verdicts(self, findings: Sequence[Finding]) -> list[Verdict]:
        """A verdict on each finding, the p of all corrected together."""
        outcomes: list[_Test | _UntoldError] = []
        for finding in findings:
            try:
                outcomes.append(self._test_finding(finding.check))
            except _UntoldError as reason:
                outcomes.append(reason)
        tested = [each for each in outcomes if isinstance(each, _Test)]
        corrected, reachable = stats.correct_p_values(
            np.array([each.p for each in tested]), np.array([each.least for each in tested])
        )
        adjusted = iter(zip(corrected, reachable, strict=True))
        found = []
        for finding, outcome in zip(findings, outcomes, strict=True):
            if isinstance(outcome, _UntoldError):
                found.append(Verdict(finding=finding, verdict=UNTOLD, numbers=outcome.numbers, p=math.nan,
                                     why=str(outcome)))  # fmt: skip
                continue
            p, least = next(adjusted)
            verdict, why = _decide(outcome, float(p), float(least))
            found.append(Verdict(finding=finding, verdict=verdict, numbers=outcome.numbers, p=float(p), why=why))
        return found

    def _test_finding(self, check: Check) -> _Test:
        if self._scale == "trial":
            raise _UntoldError("a trial of a few steps shows that all is wired, and nothing else")
        values = self._values_of(check)
        if check.column and check.column not in values.panel.columns:
            raise unknown_name(f"column of the panel {values.panel.title!r}", check.column, values.panel.columns)
        return self._test(check, values)

    def _values_of(self, check: Check) -> PanelValues:
        if check.panel and check.panel not in self._panels:
            raise unknown_name("panel", check.panel, self._panels)
        return self._panels[check.panel] if check.panel else next(iter(self._panels.values()))

    @singledispatchmethod
    def _test(self, check: Check, values: PanelValues) -> _Test:
        raise BadInput(
            f"no check is made of {type(check).__name__}; give Ordering, Gap, Ratio, Matches, Value or Trend"
        )

    @_test.register
    def _(self, check: Ordering, values: PanelValues) -> _Test:
        groups = [(each,) if isinstance(each, str) else each for each in check.series]
        pairs = [(one, two) for number, above in enumerate(groups) for below in groups[number + 1 :] for one in above
                 for two in below]  # fmt: skip
        if not pairs:
            raise BadInput("an ordering needs two series at least; give series")
        column = _column(values, check)
        differences, told = [], []
        for one, two in pairs:
            tables = _paired_tables(values, check, one, two)
            first, second = map(_means_of_searches, tables)
            differences.append(each := stats.compare_means(first, second))
            words = f"{one} less {two} {_difference(column, each.mean, each.low, each.high)}"
            words += _contrary_places(values, column, *tables, rising=bool(each.mean > 0))
            told.append(f"{words}, {len(first)} against {len(second)}")
        return _Test.of_parts(differences, "; ".join(told))

    @_test.register
    def _(self, check: Gap, values: PanelValues) -> _Test:
        column = _column(values, check)
        low, high = self._bounds(check.low, check.high, check.published)
        first, second = _paired_sides(values, check, *check.series)
        difference = stats.compare_means(first, second)
        told = _difference(column, difference.mean, difference.low, difference.high)
        numbers = (
            f"{check.series[0]} less {check.series[1]} {told}, {len(first)} against {len(second)}; "
            f"stated {_bounds_words(column, low, high)}"
        )
        found = _between(first, second, low, high, numbers)
        if found.supports and low <= 0 <= high:
            self._require_contrast(check, values, check.series, check.contrast, max(abs(low), abs(high)), numbers)
        return found

    @_test.register
    def _(self, check: Ratio, values: PanelValues) -> _Test:
        low, high = check.low, check.high
        if check.published is not None:
            number = published_numbers.only_number(check.published, self._paper)
            low, high = number.ends
            if low == high:  # what rounds to the printed digits is inside
                half = 0.5 if float(low).is_integer() and low >= 5 else 0.05
                low, high = low - half, high + half
        first, second = _paired_sides(values, check, *check.series, log=True)
        difference = stats.compare_means(first, second)
        ratio, least, most = (math.exp(float(each)) for each in (difference.mean, difference.low, difference.high))
        interval = "" if math.isnan(least) else f" ({least:.3g} to {most:.3g})"
        numbers = (
            f"{check.series[0]} over {check.series[1]} {ratio:.3g}{interval}, {len(first)} against {len(second)}; "
            f"stated {low:.3g} to {high:.3g}"
        )
        ends = (math.log(low) if low > 0 else -math.inf, math.log(high))
        return _between(first, second, *ends, numbers)

    @_test.register
    def _(self, check: Matches, values: PanelValues) -> _Test:
        own = _lines(values, check, check.series)
        column = _column(values, check)
        worst: tuple[float, float, str] | None = None
        parts: list[stats.Difference] = []
        places = sorted(set(own["x"]))
        for x in places:
            first = own.loc[own["x"] == x, "y"].to_numpy(np.float64)
            second = self._reference(values, check, x)
            if len(second) == 0:
                continue
            difference = stats.compare_means(first + check.margin, second)
            parts.append(difference)
            mean = float(difference.mean) - check.margin
            if worst is None or mean < worst[0]:
                told = _difference(column, mean, float(difference.low) - check.margin,
                                   float(difference.high) - check.margin)  # fmt: skip
                worst = (mean, x, f"{told} at {_place(values.panel.x, x)}, {len(first)} against {len(second)}")
        if worst is None:
            raise _UntoldError(f"no place on {values.panel.x} has both {check.series} and {check.reference}")
        numbers = f"{check.series} less {check.reference}, the least of {len(parts)} places: {worst[2]}"
        found = _Test.of_parts(parts, numbers)
        if found.supports:
            series = (check.series, check.reference)
            self._require_contrast(check, values, series, check.contrast, check.margin, numbers)
        return found

    def _reference(self, values: PanelValues, check: Matches, x: float) -> FloatArray:
        if check.reference == "dense":
            dense = values.dense[values.dense["series"] == check.series]
            if check.column:
                dense = dense[dense["column"] == check.column]
            found = dense.groupby("unit")["y"].mean()
            return found.to_numpy(np.float64)
        other = values.series(_known_label(values, check.reference), check.column)
        return other.loc[other["x"] == x, "y"].to_numpy(np.float64)

    @_test.register
    def _(self, check: Value, values: PanelValues) -> _Test:
        column = _column(values, check)
        own = _lines(values, check, check.series)
        means = series_means(own)
        told = "; ".join(
            f"{check.series} {_value(column, row['y'], row['low'], row['high'])} "
            f"{_at(values, row['x'])}, n = {row['n']}"
            for row in means.to_dict("records")
        )
        numbers = f"{told}; stated {_bounds_words(column, check.low, check.high)}"
        if self._scale != "paper":
            raise _UntoldError("the number is of the paper's own networks and data, these rows are of another scale",
                               numbers)  # fmt: skip
        if (means["n"] < 2).any():
            raise _UntoldError("one search has no interval", numbers)
        p_for, p_against = 0.0, 1.0
        for _, here in own.groupby("x"):
            y = here["y"].to_numpy(np.float64)
            for bound, sign in ((check.low, 1), (check.high, -1)):
                if math.isfinite(bound):
                    inside, p = _one_sample(sign * (y - bound))
                    p_for = max(p_for, p if inside else 1.0)
                    p_against = min(p_against, 1.0 if inside else p)
        # Of the two bounds of a place at most one can be missed, each on one side, so a two-sided p allows for both.
        p_against = min(1.0, len(means) * p_against)
        return _Test(min(p_for, p_against), 0.0, p_for <= p_against, numbers)

    @_test.register
    def _(self, check: Trend, values: PanelValues) -> _Test:
        own = _lines(values, check, check.series)
        if check.less:
            # A draw of a control is for the search of its number.
            other = _lines(values, check, check.less).assign(number=_unit_numbers).groupby(["x", "number"])["y"].mean()
            keys = list(zip(own["x"], _unit_numbers(own), strict=True))
            own = own.assign(y=own["y"] - [other.get(key, math.nan) for key in keys]).dropna(subset=["y"])
        what = f"{check.series} less {check.less}" if check.less else check.series
        # Searches are what is counted: where each lies along x goes with where it lay before.
        table = own.pivot_table(index="unit", columns="x", values="y").dropna().sort_index(axis=1)
        searches, places = table.shape
        if own["x"].nunique() < 3:
            raise _UntoldError(f"{own['x'].nunique()} places on {values.panel.x} show no trend")
        if searches < 2:
            raise _UntoldError(
                "one search shows no trend beyond itself" if searches else "no search was measured at all places"
            )
        if not np.ptp(table.to_numpy(np.float64)):
            raise _UntoldError(f"{what} does not vary, so the experiment could not have failed")
        step = np.arange(places) - (places - 1) / 2
        slopes = table.to_numpy(np.float64) @ step / (step @ step)
        rising, p = _one_sample(slopes)
        count = np.full((), searches)
        low, high = stats.student_interval(slopes.mean(), slopes.std(ddof=1), count)
        every = own["unit"].nunique()
        numbers = (
            f"{what} {_difference(_column(values, check), slopes.mean(), low, high)} from place to place of the "
            f"{places} on {values.panel.x}, {searches}{f' of {every}' if every > searches else ''} searches; stated "
            f"{'rising' if check.rising else 'falling'}"
        )
        return _Test(p, 0.0, rising == check.rising, numbers)

    def _bounds(self, low: float, high: float, wanted: Published | None) -> tuple[float, float]:
        if wanted is None:
            return low, high
        number = published_numbers.only_number(wanted, self._paper)
        unit = 100 if number.unit in ("points", "percent") else 1
        return number.ends[0] / unit, number.ends[1] / unit

    def _require_contrast(
        self, check: Check, values: PanelValues, series: Sequence[str], name: str, margin: float, numbers: str
    ) -> None:
        """Likeness says something only where another series was told apart by the same numbers."""
        names = [name] if name else [label for label in values.panel.series if "random" in label.lower()]
        names = [_known_label(values, each) for each in names if each not in series]
        seen, few = [], False
        for each in names:
            try:
                own, reference = _paired_sides(values, check, each, series[0])
            except _UntoldError:
                continue
            seen.append(each)
            difference = stats.compare_means(own, reference)
            few = few or difference.smallest_p >= stats.ALPHA
            if difference.p < stats.ALPHA and abs(float(difference.mean)) > margin:
                return
        if not seen:
            raise _UntoldError("no control in this panel shows that a difference would have been seen", numbers)
        if few:
            raise _UntoldError(f"so few searches cannot tell {' and '.join(seen)} from {series[0]} either", numbers)
        raise _UntoldError(
            f"{' and '.join(seen)} cannot be told from {series[0]} here by more than the margin, so the experiment "
            "could not have failed", numbers,
        )  # fmt: skip


class _Theirs(NamedTuple):
    """A published value in the unit of our column, and its place on x."""

    value: float
    at: float | None


def _is_planned(values: PanelValues) -> bool:
    """Whether the rows are arithmetic on settings, which nothing was trained for."""
    return len(values.rows) > 0 and bool((values.rows["device"] == "").all())


def order_agreement(theirs: Sequence[float], ours: Sequence[float]) -> float | None:
    """Kendall's tau-b of two rankings; None where there are fewer than two or one side has a single rank."""
    if len(ours) < 2:
        return None
    tau = float(tests.kendalltau(theirs, np.round(ours, 12)).statistic)
    return None if math.isnan(tau) else tau


def _counts_here(x: str, at: Between, values: "pd.Series[Any]") -> "pd.Series[bool]":
    """Which places a statement is about: the dense network is the same for most series, and shows nothing."""
    inside = (values >= at.low) & (values <= at.high)
    return inside & (values.map(lambda value: density_of(x, value)) < 1) if x in ("density", "sparsity") else inside


def _known_label(values: PanelValues, label: str) -> str:
    if label not in values.panel.series:
        raise unknown_name(f"series of the panel {values.panel.title!r}", label, values.panel.series)
    return label


def _column(values: PanelValues, check: Check) -> str:
    if values.panel.kind == "histogram":
        return "share"
    return values.panel.columns.get(check.column, values.panel.y)


def _lines(values: PanelValues, check: Check, label: str) -> pd.DataFrame:
    """The lines of a series that a check is about."""
    own = values.series(_known_label(values, label), check.column)
    if own.empty:
        raise _UntoldError(f"there are no rows of {label}")
    if values.panel.kind == "histogram":  # what is told of magnitudes are the natural zeros
        own = own[own["x"] == own["x"].min()]
    elif values.panel.kind != "table":
        own = own[_counts_here(values.panel.x, check.at, own["x"])]
    if own.empty:
        raise _UntoldError(f"{label} has no rows where the statement is about")
    return own


def _unit_numbers(own: pd.DataFrame) -> list[str]:
    return [str(unit).split()[-1] for unit in own["unit"]]


def _paired_sides(
    values: PanelValues, check: Check, one: str, two: str, *, log: bool = False
) -> tuple[FloatArray, FloatArray]:
    """The searches of two series, each by its mean over the places that both have."""
    first, second = _paired_tables(values, check, one, two, log=log)
    return _means_of_searches(first), _means_of_searches(second)


def _means_of_searches(table: pd.DataFrame) -> FloatArray:
    return table.mean(axis=1).to_numpy(np.float64)


_MOST_PLACES = 3
"""Places that are named one by one."""


def _contrary_places(
    values: PanelValues, column: str, first: pd.DataFrame, second: pd.DataFrame, *, rising: bool
) -> str:
    """Where the difference of two series is the other way than on the mean over places; "" for nowhere."""
    differences = first.mean() - second.mean()
    contrary = differences[differences < 0 if rising else differences > 0].sort_index(ascending=False)
    if not len(contrary):
        return ""
    each = [f"{_difference(column, value, math.nan, math.nan)} at {_place(values.panel.x, float(str(x)))}"
            for x, value in contrary.items()]  # fmt: skip
    named = ", ".join(each) if len(each) <= _MOST_PLACES else f"the other way at {len(each)} of them"
    return f" on the mean of {len(differences)} places, but {named}"


def _paired_tables(
    values: PanelValues, check: Check, one: str, two: str, *, log: bool = False
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The searches of two series, in rows, at the places that both have, in columns."""
    first, second = (_lines(values, check, label) for label in (one, two))
    if values.panel.kind == "table":
        first, second = first.assign(x=0.0), second.assign(x=0.0)
    first, second = _on_common_places(values, {one: first, two: second}).values()
    shared = set(first["x"]) & set(second["x"])
    if not shared:
        raise _UntoldError(f"{one} and {two} share no place on {values.panel.x}")
    common = {each for tickets in first.loc[first["x"].isin(shared), "ticket"] for each in tickets}
    if common & {each for tickets in second.loc[second["x"].isin(shared), "ticket"] for each in tickets}:
        raise _UntoldError(f"{one} and {two} are the same trainings, so the experiment could not have failed")
    tables = []
    for label, own in ((one, first), (two, second)):
        own = own[own["x"].isin(shared)]
        if log and (own["y"] <= 0).any():
            raise _UntoldError(f"{label} is not above 0 everywhere, so there is no ratio")
        own = own.assign(y=np.log(own["y"])) if log else own
        table = own.pivot_table(index="unit", columns="x", values="y").dropna()
        if len(table) == 0:
            raise _UntoldError(f"no search of {label} was measured at all places that both series have")
        tables.append(table)
    if min(map(len, tables)) < 2:
        raise _UntoldError(
            f"one search has no interval: {len(tables[0])} of {one}, {len(tables[1])} of {two}",
            f"{one} {_means_of_searches(tables[0]).mean():.4g}, {two} {_means_of_searches(tables[1]).mean():.4g}",
        )
    return tables[0], tables[1]


def _on_common_places(values: PanelValues, lines: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """The lines of series, where those of fronts, which have places of their own, are at those of the other series.

    Where all are fronts, they are at the places of each other. At a place a front has the best that each search found
    at most as dense.
    """
    fronts = set(values.panel.fronts)
    fixed = [own for label, own in lines.items() if label not in fronts]
    places = sorted({float(x) for own in fixed or lines.values() for x in own["x"]})
    return {label: _best_at(values.panel.x, places, own) if label in fronts else own for label, own in lines.items()}


def _best_at(name: str, places: Sequence[float], own: pd.DataFrame) -> pd.DataFrame:
    lines = []
    for unit, tickets in own.groupby("unit"):
        for x in places:
            most = density_of(name, x) * (1 + 1e-9)
            able = tickets[[density_of(name, each) <= most for each in tickets["x"]]]
            if len(able):
                best = able.iloc[int(able["y"].argmax())]
                lines.append({"unit": unit, "x": x, "y": best["y"], "ticket": best["ticket"]})
    return pd.DataFrame(lines, columns=["unit", "x", "y", "ticket"])


def _at_common_places(values: PanelValues) -> pd.DataFrame:
    """The values of a panel; those of a front, which has places of its own, at those of the other series."""
    if not values.panel.fronts:
        return values.values
    lines = {str(label): own for label, own in values.values.groupby("series", sort=False)}
    taken = _on_common_places(values, lines)
    return pd.concat(
        [
            own.assign(series=label, column="", recipe="", trainings=1) if label in values.panel.fronts else own
            for label, own in taken.items()
            if len(own)
        ]
    )


def _between(first: FloatArray, second: FloatArray, low: float, high: float, numbers: str) -> _Test:
    """Whether the difference of means lies between two bounds, by a test against each of them.

    At most one of the two can be missed, each on one side, so a two-sided p allows for both.
    """
    p_for, p_against, least = 0.0, 1.0, 0.0
    for bound, sign in ((low, 1), (high, -1)):
        if math.isfinite(bound):
            shifted = stats.compare_means(first - bound, second)
            inside, p = sign * float(shifted.mean) > 0, float(shifted.p)
            p_for = max(p_for, p if inside else 1.0)
            p_against = min(p_against, 1.0 if inside else p)
            least = max(least, shifted.smallest_p)
    return _Test(min(p_for, p_against), least, p_for <= p_against, numbers)


def _one_sample(y: FloatArray) -> tuple[bool, float]:
    """Whether a mean is above 0, and the two-sided p of Student's test that it is 0.

    Of values that are all the same, which have no spread to go by, that of all signs being the same by chance.
    """
    if np.ptp(y) <= 1e-12 * np.abs(y).max():  # but for rounding
        return bool(y[0] >= 0), min(1.0, 2.0 ** (1 - len(y))) if y[0] != 0 else 1.0
    return bool(y.mean() > 0), float(tests.ttest_1samp(y, 0.0).pvalue)


def _decide(outcome: _Test, p: float, least: float) -> tuple[str, str]:
    if p < stats.ALPHA:
        return (BORNE_OUT, "") if outcome.supports else (NOT_BORNE_OUT, "")
    if least >= stats.ALPHA:
        return UNTOLD, f"so few searches cannot reach p below 5% (least {least:.2g}, after Holm's correction)"
    if outcome.p < stats.ALPHA:
        shown = "it is shown" if outcome.supports else "its contrary is shown"
        return UNTOLD, f"{shown} by itself (p = {outcome.p:.2g}), not beside the figure's other findings"
    return UNTOLD, "neither it nor its contrary is shown at 5%"


def _place(x: str, value: float) -> str:
    if x == "sparsity":
        return f"{100 * value:.3g}% pruned"
    return f"{text.format_percent(value)}%" if x == "density" else f"{value:.4g}"


def _at(values: PanelValues, x: float) -> str:
    """The words for a place, where a panel has several."""
    if values.panel.kind == "histogram":
        return "below machine precision"
    return f"at {_place('density' if values.panel.kind == 'table' else values.panel.x, x)}"


def _value(column: str, mean: float, low: float, high: float) -> str:
    times, unit = (100, "%") if is_fraction(column) else (1, "")
    interval = "" if math.isnan(low) else f" ({times * low:.3g} to {times * high:.3g})"
    return f"{times * mean:.4g}{unit}{interval}"


def _difference(column: str, mean: Any, low: Any, high: Any) -> str:
    times, unit = (100, " points") if is_fraction(column) else (1, "")
    interval = "" if math.isnan(low) else f" ({times * low:+.3g} to {times * high:+.3g})"
    return f"{times * float(mean):+.3g}{unit}{interval}"


def _bounds_words(column: str, low: float, high: float) -> str:
    times, unit = (100, "%") if is_fraction(column) else (1, "")
    ends = [f"{times * end:.4g}{unit}" for end in (low, high)]
    if not math.isfinite(high):
        return f"at least {ends[0]}"
    return f"at most {ends[1]}" if not math.isfinite(low) else f"{ends[0]} to {ends[1]}"


def count_verdicts(verdicts: Sequence[Verdict]) -> Mapping[str, int]:
    """How many findings were borne out, not borne out, and cannot be told."""
    return {each: sum(verdict.verdict == each for verdict in verdicts) for each in (BORNE_OUT, NOT_BORNE_OUT, UNTOLD)}
