"""How far a fast protocol ranks tickets as a full one does, from the rows of agreement_sweep.py.

Run       python experiments/agreement/rank_agreement.py docs/evaluation/agreement.parquet
"""

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations, permutations
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from sslticket.campaign.agreement import order_agreement

CELL = ["series", "density"]


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """What two protocols' top-1 of the same tickets say of their ranks; a cell is a series of tickets at a density.

    Attributes:
        cells: Number of cells.
        searches: Number of search seeds.
        of_means: Kendall's tau-b of the cells' means over the searches.
        of_searches: Its mean over the searches, each by itself, with the ends of Student's 95% interval.
        between: The mean tau of fast on one search seed with full on another.
        ceiling: The mean tau of full on one search seed with full on another: what full agrees with itself.
        told_apart: Pairs of cells that full tells apart (Welch's test at 5%), and those that fast has in that order.
        at_equal_density: The same of pairs at one density, which differ in what they learnt.
    """

    cells: int
    searches: int
    of_means: float
    of_searches: tuple[float, float, float]
    between: float
    ceiling: float
    told_apart: tuple[int, int]
    at_equal_density: tuple[int, int]


def scores(rows: pd.DataFrame) -> pd.DataFrame:
    """Top-1 with a line for each cell and protocol ("fast", "full"), and a column for each search seed."""
    rows = rows[rows["kind"] == "score"]
    series = rows["objective"].where(rows["control"] == "ticket", rows["control"])
    way = rows["protocol"].str.extract("-(fast|full)-", expand=False)
    # A random ticket stands beside the tickets of all objectives, and is one training.
    lines = rows.assign(series=series, way=way)
    return lines.pivot_table(index=[*CELL, "way"], columns="search_seed", values="top1", aggfunc="first")


def agreement(rows: pd.DataFrame) -> Agreement:
    """The agreement over all cells of one data set."""
    table = scores(rows)
    fast, full = (table[table.index.get_level_values("way") == way].droplevel(2) for way in ("fast", "full"))
    if not fast.index.equals(full.index) or fast.isna().any(axis=None) or full.isna().any(axis=None):
        raise SystemExit("some tickets were scored under one protocol only; run the sweep to its end")
    seeds = list(full.columns)
    own = np.array([_tau(fast[seed], full[seed]) for seed in seeds])
    half = stats.t.ppf(0.975, len(own) - 1) * own.std(ddof=1) / np.sqrt(len(own))
    return Agreement(
        cells=len(full),
        searches=len(seeds),
        of_means=_tau(fast.mean(axis=1), full.mean(axis=1)),
        of_searches=(float(own.mean()), float(own.mean() - half), min(1.0, float(own.mean() + half))),
        between=float(np.mean([_tau(fast[one], full[other]) for one, other in permutations(seeds, 2)])),
        ceiling=float(np.mean([_tau(full[one], full[other]) for one, other in combinations(seeds, 2)])),
        told_apart=_same_order(fast, full, equal_density=False),
        at_equal_density=_same_order(fast, full, equal_density=True),
    )


def _tau(one: "pd.Series[float]", other: "pd.Series[float]") -> float:
    found = order_agreement(list(one), list(other))
    assert found is not None, "cells have more than one rank"
    return found


def _same_order(fast: pd.DataFrame, full: pd.DataFrame, *, equal_density: bool) -> tuple[int, int]:
    told = same = 0
    for one, other in combinations(full.index, 2):
        if equal_density and one[1] != other[1]:
            continue
        if stats.ttest_ind(full.loc[one], full.loc[other], equal_var=False).pvalue < 0.05:
            told += 1
            differences = (each.loc[one].mean() - each.loc[other].mean() for each in (fast, full))
            same += np.prod(list(differences)) > 0
    return told, int(same)


def by_dataset(rows: pd.DataFrame) -> Mapping[str, Agreement]:
    """The agreement on each data set, by its name."""
    scored = rows[rows["kind"] == "score"]
    return {str(name): agreement(own) for name, own in scored.groupby("target")}


def table_lines(rows: pd.DataFrame) -> Iterator[str]:
    """The lines of the page's table of agreement."""
    for name, found in by_dataset(rows).items():
        mean, low, high = found.of_searches
        pairs = (f"{same} of {told}" for told, same in (found.told_apart, found.at_equal_density))
        taus = f"{found.of_means:.2f} | {mean:.2f} [{low:.2f}, {high:.2f}] | {found.between:.2f} | {found.ceiling:.2f}"
        yield f"| {name.partition('[')[0]} | {found.cells} | {taus} | {' | '.join(pairs)} |"


def score_lines(rows: pd.DataFrame) -> Iterator[str]:
    """The lines of the page's table of top-1: for each series and density fast and full, on each data set."""
    told: dict[tuple[str, float], list[str]] = {}
    for _, own in rows[rows["kind"] == "score"].groupby("target"):
        table = 100 * scores(own)
        for series, density in dict.fromkeys((series, density) for series, density, _ in table.index):
            told.setdefault((series, density), []).extend(_told(table, series, density))
    for (series, density), cell in sorted(told.items(), key=lambda each: (each[0][0], -each[0][1])):
        yield f"| {series} | {100 * density:.3g}% | {' | '.join(cell)} |"


def _told(table: pd.DataFrame, series: str, density: float) -> list[str]:
    own = table.xs((series, density), level=CELL)
    ways = [own.to_numpy()[list(own.index).index(way)] for way in ("fast", "full")]
    return [f"{each.mean():.1f} ± {each.std(ddof=1):.1f}" for each in ways]


if __name__ == "__main__":
    given = pd.read_parquet(Path(sys.argv[1]))
    print(*table_lines(given), "", *score_lines(given), sep="\n")
