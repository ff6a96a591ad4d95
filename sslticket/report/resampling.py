"""Do two sets of trainings differ? A bootstrap interval of the difference, and an exact test that few can pass by luck.

With few trainings a percentile interval is too short (of six pairs it holds the truth in 87 of 100 cases), so the
verdict is the permutation test's, which keeps its promise at any n.
"""

import math
from functools import cache
from itertools import combinations, product
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

RESAMPLES = 10_000
ALPHA = 0.05


class Difference(NamedTuple):
    """A difference of two means."""

    mean: float  # first less second, in the unit of what was given
    low: float  # of the 95% percentile bootstrap interval; NaN where there are too few to resample
    high: float
    p: float  # two-sided, of the permutation test
    least_p: float  # the smallest that so few could reach

    @property
    def verdict(self) -> str:
        """Whether the two differ: "more", "less", "no difference shown" or "too few to tell"."""
        if self.least_p >= ALPHA:
            return "too few to tell"
        if self.p >= ALPHA:
            return "no difference shown"
        return "more" if self.mean > 0 else "less"


def paired(differences: Floats) -> Difference:
    """The mean of differences of pairs, resampled pair by pair; tested by turning signs.

    All signs alike have p = 2 / 2**n, so six pairs are the fewest that can tell.
    """
    n, mean = len(differences), float(differences.mean())
    low, high = _percentiles(differences[_draws(n, 0)].mean(axis=1)) if n > 1 else (math.nan, math.nan)
    return Difference(mean, low, high, _share(_signs(n) @ differences / n, mean), 2 / 2**n)


def unpaired(first: Floats, second: Floats) -> Difference:
    """The difference of two means, each side resampled by itself; tested by dealing all anew to the two sides.

    Sides that do not overlap have p = 2 / C(n + m, n), so four on each side are the fewest that can tell.
    """
    mean, n = float(first.mean() - second.mean()), len(first)
    low = high = math.nan
    if min(n, len(second)) > 1:
        one, other = (side[_draws(len(side), turn)].mean(axis=1) for turn, side in enumerate((first, second)))
        low, high = _percentiles(one - other)
    both = np.concatenate([first, second])
    dealt = both[_deals(len(both), n)].sum(axis=1)
    means = dealt / n - (both.sum() - dealt) / len(second)
    return Difference(mean, low, high, _share(means, mean), 2 / math.comb(len(both), n))


def _percentiles(means: Floats) -> tuple[float, float]:
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def _share(means: Floats, seen: float) -> float:
    """How many of the means are as far from 0 as the one that was seen, up to rounding."""
    return float((np.abs(means) >= abs(seen) * (1 - 1e-9)).mean())


# Draws are the same for every comparison, so that a report repeats itself.


@cache
def _draws(n: int, stream: int) -> npt.NDArray[np.int64]:
    """(RESAMPLES, n) places drawn with replacement."""
    return np.random.default_rng([0, stream]).integers(n, size=(RESAMPLES, n))


@cache
def _signs(n: int) -> Floats:
    """Every way to sign n differences, or the given one and RESAMPLES drawn ones where there are more."""
    if 2**n <= RESAMPLES:
        return np.array(list(product((1.0, -1.0), repeat=n)))
    drawn = np.random.default_rng([0, 2]).choice([1.0, -1.0], size=(RESAMPLES, n))
    return np.vstack([np.ones(n), drawn])


@cache
def _deals(total: int, n: int) -> npt.NDArray[np.int64]:
    """Every way to deal n of all to the first side, or the given one and RESAMPLES drawn ones where there are more."""
    if math.comb(total, n) <= RESAMPLES:
        return np.array(list(combinations(range(total), n)))
    generator = np.random.default_rng([0, 3])
    drawn = generator.permuted(np.tile(np.arange(total), (RESAMPLES, 1)), axis=1)[:, :n]
    return np.vstack([np.arange(n), drawn])
