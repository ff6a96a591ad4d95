"""Whether tickets match the dense network, and win: the sparsest at which they do, over all searches and for each.

A sparse ticket *matches* where its mean top-1 is no more than a tolerance below that of the dense network: the same
searches' tickets of level 0, trained and measured alike. It is *winning* where it matches and its mean is above that of
random tickets of the same density by more than the tolerance: where those do as well, finding it was for nothing. There
are two tolerances: one standard error of the mean of what is compared with, over its searches, and one point.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import pandas as pd

from sslticket.report import text

Tolerance = Literal["error", "point"]
TOLERANCES: dict[Tolerance, str] = {"error": "one standard error", "point": "1 point"}
POINT = 0.01
_UNIT_KIND = re.compile(r"^(search|draw of seed|draw) ")
"""What a unit of `stats.name_series` begins with; the rest is its seed, or a run's name, which may have spaces."""
_ROUNDING = 1e-12
"""Accuracies are counts of images over their number; means of equal ones may part in the sixteenth digit."""


class Sparsest(NamedTuple):
    """The sparsest density at which a series matches.

    Attributes:
        density: It, a fraction; NaN where it matches nowhere.
        wins: Whether it is winning there; None where no random ticket of this density was measured.
        matching: All densities at which the series matches.
        between: Densities above it at which the series does not match.
        by_seed: The same density of each search alone, by its seed or name; NaN where it matches nowhere.
    """

    density: float
    wins: bool | None
    matching: tuple[float, ...]
    between: tuple[float, ...]
    by_seed: Mapping[str, float]


@dataclass(frozen=True)
class Verdict:
    """What one series of tickets has come to.

    Attributes:
        series: Its name.
        dense: Mean top-1 of the dense network, a fraction.
        dense_of: The series that the dense network is of, which is another one where its own was not measured.
        searches: Searches that the dense mean is of.
        found: The sparsest that matches, by tolerance; without "error" where one search has no standard error.
    """

    series: str
    dense: float
    dense_of: str
    searches: int
    found: Mapping[Tolerance, Sparsest]

    @property
    def bold(self) -> tuple[float, ...]:
        """Densities of the means that tables have in bold: within one standard error, of one search within 1 point."""
        return self.found.get("error", self.found["point"]).matching

    def badges(self, density: float) -> tuple[str, ...]:
        """The marks of `chart.BADGES` that a point of this density has."""
        return tuple(f"{kind}{'+' * bool(each.wins)}" for kind, each in self.found.items() if each.density == density)


def judge_panel(searches: pd.DataFrame) -> dict[str, Verdict]:
    """The verdict of each series of tickets, and of random tickets, in one panel.

    Args:
        searches: Rows of `stats.search_means` of one panel.

    Returns:
        Verdicts by series; none of series without sparse tickets or without a dense network to compare with.
    """
    values: dict[str, dict[float, dict[str, float]]] = {}
    about: dict[str, Mapping[Any, Any]] = {}
    for row in searches[["series", "density", "unit", "top1", *_FACTS]].to_dict("records"):
        values.setdefault(row["series"], {}).setdefault(row["density"], {})[row["unit"]] = row["top1"]
        about[row["series"]] = row
    found = {}
    for name, own in about.items():
        if own["control"] not in ("ticket", "random"):
            continue
        dense_of = (
            name if 1.0 in values[name] else _other_dense(own, [each for each in about if 1.0 in values[each]], about)
        )
        if not dense_of:
            continue
        randoms = sorted(
            (each["numerics"] != own["numerics"], other)
            for other, each in about.items()
            if (each["control"], each["pattern"]) == ("random", own["pattern"])
        )
        random = {} if own["control"] == "random" or not randoms else values[randoms[0][1]]
        if verdict := _verdict(name, values[name], dense_of, values[dense_of][1.0], random):
            found[name] = verdict
    return found


_FACTS = ("control", "objective", "source", "search", "variant", "pattern", "head", "numerics")


def _other_dense(own: Mapping[Any, Any], names: Sequence[str], about: Mapping[str, Mapping[Any, Any]]) -> str:
    """The supervised tickets whose dense network stands in, of those with this head and these numerics; "" for none."""
    same = ("ticket", "supervised", own["head"], own["numerics"])
    alike = [
        (each["source"] != own["source"], each["search"] != "IMP", each["variant"], name)
        for name, each in ((name, about[name]) for name in names)
        if (each["control"], each["objective"], each["head"], each["numerics"]) == same
    ]
    return str(min(alike)[-1]) if alike else ""


def _verdict(
    series: str,
    own: Mapping[float, Mapping[str, float]],
    dense_of: str,
    dense: Mapping[str, float],
    random: Mapping[float, Mapping[str, float]],
) -> Verdict | None:
    own = {density: each for density, each in own.items() if density < 1}  # the dense network is no ticket
    if not own:
        return None
    middle = _mean(dense)
    found: dict[Tolerance, Sparsest] = {}
    for kind in TOLERANCES:
        tolerance = _tolerance(kind, dense)
        if math.isnan(tolerance):
            continue
        bar = middle - tolerance - _ROUNDING
        means = {density: _mean(each) for density, each in own.items()}
        matching = [density for density, mean in means.items() if mean >= bar]
        sparsest = min(matching, default=math.nan)
        between = tuple(sorted((each for each in means if each > sparsest and means[each] < bar), reverse=True))
        wins = None
        if sparsest in random:
            above = means[sparsest] - _mean(random[sparsest])
            margin = _tolerance(kind, random[sparsest])
            wins = None if math.isnan(margin) else above > margin + _ROUNDING
        alone = _by_seed(own, dense, tolerance)
        found[kind] = Sparsest(sparsest, wins, tuple(sorted(matching, reverse=True)), between, alone)
    return Verdict(series, middle, dense_of, len(dense), found)


def _tolerance(kind: Tolerance, values: Mapping[str, float]) -> float:
    """How far apart counts as equal; NaN where a single search has no standard error."""
    if kind == "point":
        return POINT
    n, middle = len(values), _mean(values)
    return math.sqrt(sum((each - middle) ** 2 for each in values.values()) / (n - 1) / n) if n > 1 else math.nan


def _mean(values: Mapping[str, float]) -> float:
    return math.fsum(values.values()) / len(values)


def _by_seed(
    own: Mapping[float, Mapping[str, float]], dense: Mapping[str, float], tolerance: float
) -> dict[str, float]:
    """The sparsest that matches, of each search alone with its own dense network."""
    found: dict[str, float] = {}
    for unit, top1 in dense.items():
        measured = [density for density, each in own.items() if unit in each]
        if measured:
            matching = [each for each in measured if own[each][unit] >= top1 - tolerance - _ROUNDING]
            found[_UNIT_KIND.sub("", unit)] = min(matching, default=math.nan)
    return dict(sorted(found.items(), key=lambda each: (len(each[0]), each[0])))


def verdict_lines(verdicts: Mapping[str, Verdict]) -> list[list[str]]:
    """A line of a table for each series: name, dense network, and both tolerances with their seeds."""
    return [
        [
            each.series,
            f"{100 * each.dense:.1f}%" + (f" ({each.dense_of})" if each.dense_of != each.series else ""),
            *(words for kind in TOLERANCES for words in _cells(each, kind)),
        ]
        for each in verdicts.values()
    ]


VERDICT_HEAD = ["Series", "Dense network", "Within one standard error", "By seed", "Within 1 point", "By seed"]
"""The columns of `verdict_lines`."""


def _cells(verdict: Verdict, kind: Tolerance) -> list[str]:
    found = verdict.found.get(kind)
    if found is None:
        return ["one search: no error", text.MISSING]
    if math.isnan(found.density):
        return ["does not match", _seed_words(found.by_seed)]
    between = ", ".join(f"{text.format_percent(each)}%" for each in found.between)
    short = f", but not at {between}" if between else ""
    return [f"{text.format_percent(found.density)}%: {_verdict_word(found)}{short}", _seed_words(found.by_seed)]


def _verdict_word(found: Sparsest) -> str:
    return {True: "winning", False: "matching, not above random tickets", None: "matching"}[found.wins]


def _seed_words(by_seed: Mapping[str, float]) -> str:
    """The seeds of each density: "6.25%: 1; 25%: 0, 4; none: 2"; nothing of one search."""
    if len(by_seed) < 2:
        return text.MISSING
    found: dict[str, list[str]] = {}
    for seed, density in sorted(by_seed.items(), key=lambda each: (math.isnan(each[1]), each[1])):
        found.setdefault("none" if math.isnan(density) else f"{text.format_percent(density)}%", []).append(seed)
    return "; ".join(f"{words}: {', '.join(seeds)}" for words, seeds in found.items())


def describe_verdict(verdict: Verdict) -> str:
    """In words: "supervised: winning at 25% within one standard error, matching at 6.25% within 1 point of ..."."""
    told: dict[str, list[str]] = {}
    for kind, tolerance in TOLERANCES.items():
        if found := verdict.found.get(kind):
            words = "no sparse ticket matches"
            if not math.isnan(found.density):
                words = f"{_verdict_word(found)} at {text.format_percent(found.density)}%"
            told.setdefault(words, []).append(tolerance)
    parts = [f"{words} within {' and within '.join(tolerances)}" for words, tolerances in told.items()]
    return f"{verdict.series}: {', '.join(parts)} of the dense network's {100 * verdict.dense:.1f}%"
