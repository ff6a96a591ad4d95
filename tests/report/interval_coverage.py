"""How often the report's intervals hold the truth, and how often it calls different what is not, on made-up searches.

`python -m tests.report.interval_coverage` prints the table of docs/statistics.md.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sslticket.report import stats

Floats = npt.NDArray[np.float64]
DENSITIES = 4


@dataclass(frozen=True)
class Measured:
    """Shares of the cases.

    Attributes:
        mean: in which Student's interval of a mean holds the truth.
        difference: in which Welch's interval of a difference does.
        false: in which any of the densities is called different.
    """

    mean: float
    difference: float
    false: float


def nested(
    draws: np.random.Generator,
    cases: int,
    searches: int,
    seeds: int,
    *,
    spread: float = 1,
    common: Floats | None = None,
) -> Floats:
    """(cases, DENSITIES, searches, seeds) of top-1 around 0: an effect of the search, and one as large of the seed.

    Args:
        draws: of all effects.
        cases: how many experiments.
        searches: in each.
        seeds: evaluation seeds of each search.
        spread: standard deviation of both effects.
        common: (cases, 1, searches) what a search shares with that of the same seed on the other side.
    """
    shape = (cases, DENSITIES, searches)
    # Levels of one search descend from one another, so half of the effect's variance is the same at all densities.
    effect = (draws.normal(size=(cases, 1, searches)) + draws.normal(size=shape)) / np.sqrt(2)
    if common is not None:
        effect = (effect + common) / np.sqrt(2)
    return spread * (effect[..., None] + draws.normal(size=(*shape, seeds)))


def measured(searches: int, seeds: int, *, spread: float = 1, alike: bool = False, cases: int = 2000) -> Measured:
    """Two kinds of searches that do not differ, `cases` times.

    Args:
        searches: of each kind.
        seeds: evaluation seeds of each search.
        spread: of the second kind, whose first is 1.
        alike: whether searches of one seed are.
        cases: how many.
    """
    draws = np.random.default_rng([searches, seeds, round(spread), alike])
    common = draws.normal(size=(cases, 1, searches)) if alike else None
    first = nested(draws, cases, searches, seeds, common=common).mean(axis=-1)
    second = nested(draws, cases, searches, seeds, spread=spread, common=common).mean(axis=-1)
    low, high = stats.student_interval(first.mean(axis=-1), first.std(axis=-1, ddof=1), np.array(searches))
    found = stats.compare_means(first, second)
    p, least = stats.correct_p_values(found.p, np.full(DENSITIES, found.smallest_p))
    called = (p < stats.ALPHA) & (least < stats.ALPHA)
    return Measured(
        mean=float(((low <= 0) & (high >= 0)).mean()),
        difference=float(((found.low <= 0) & (found.high >= 0)).mean()),
        false=float(called.any(axis=-1).mean()),
    )


def _table() -> str:
    lines = [
        "| searches on each side | evaluation seeds of each | the two kinds | mean | difference | called different |",
        "|---:|---:|---|---:|---:|---:|",
    ]
    kinds = {"vary alike": {}, "one varies three times as much": {"spread": 3.0}, "share their seeds": {"alike": True}}
    for searches in (3, 6, 8):
        for seeds in (1, 3, 6):
            for words, how in kinds.items():
                if words == "vary alike" or seeds == 3:
                    found = measured(searches, seeds, **how)
                    shares = (found.mean, found.difference, found.false)
                    lines.append(
                        f"| {searches} | {seeds} | {words} | {' | '.join(f'{100 * share:.1f}%' for share in shares)} |"
                    )
    return "\n".join(lines)


if __name__ == "__main__":
    print(_table())
