"""Do two sets of searches differ? A Welch interval of the difference, and an exact test that few can pass by luck.

A value here is the mean of one search over its evaluation seeds: trainings of one search share its ticket, so they are
no independent evidence of what another search would find.

The two sides are treated as independent. Searches of two objectives that share a seed share their initialisation, which
makes their results alike rather than unlike, and the interval and the test then err on the side of caution. A test of
pairs would use that, but turns signs: with six pairs its least p is 2/64, which no correction for several densities
leaves below 5%, while 6 against 6 can be dealt in 924 ways.
"""

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats

Floats = npt.NDArray[np.float64]

ALPHA = 0.05
DEALS = 20_000
"""Up to so many ways to deal the values to the two sides, all are looked at; else so many are drawn, less one."""


class Difference(NamedTuple):
    """Differences of two means, each of shape (...)."""

    mean: Floats  # first less second, in the unit of what was given
    low: Floats  # of the 95% interval; NaN where a side has one value
    high: Floats
    p: Floats  # two-sided, the larger of the permutation test's and Welch's; 1 where a side has one value
    least_p: float  # the smallest that so few could reach; 1 where a side has one value


def difference(first: Floats, second: Floats) -> Difference:
    """Compare means of independent values.

    The interval is Welch's (1947), which takes the two sides' spreads as they are. The test is Fisher's permutation
    test of the difference of means, exact where all deals are looked at. It asks whether the sides are alike in all;
    where one merely varies more it calls too many different, so Welch's test has to agree, and the larger p is told.

    Args:
        first: (..., n) values of one side.
        second: (..., m) of the other, with the same leading axes.
    """
    n, m = first.shape[-1], second.shape[-1]
    mean = first.mean(axis=-1) - second.mean(axis=-1)
    if min(n, m) == 1:
        nothing = np.full_like(mean, math.nan)
        return Difference(mean, nothing, nothing, np.ones_like(mean), 1.0)
    dealt = stats.permutation_test(
        (first, second),
        _less,
        permutation_type="independent",
        vectorized=True,
        n_resamples=DEALS if math.comb(n + m, n) <= DEALS else DEALS - 1,
        batch=256,  # of many comparisons at once all deals would not fit in memory
        axis=-1,
        random_state=np.random.default_rng(0),  # so that a report repeats itself
    )
    error, degrees = _welch(first, second)
    reach = stats.t.ppf(1 - ALPHA / 2, degrees) * error
    apart = np.divide(np.abs(mean), error, out=np.full_like(mean, math.inf), where=error > 0)
    p = np.maximum(dealt.pvalue, 2 * stats.t.sf(apart, degrees))
    return Difference(mean, mean - reach, mean + reach, p, 2 / min(math.comb(n + m, n), DEALS))


def _less(first: Floats, second: Floats, axis: int) -> Any:
    # Accuracies are counts of images divided by their number, so many deals give the very difference that was seen.
    # Sums that were added in another order would part these in the sixteenth digit, and only some would be counted.
    return np.round(first.mean(axis=axis) - second.mean(axis=axis), 12)


def _welch(first: Floats, second: Floats) -> tuple[Floats, Floats]:
    """The standard error of the difference and its degrees of freedom; 1 of these where neither side varies."""
    one, other = (side.var(axis=-1, ddof=1) / side.shape[-1] for side in (first, second))
    both = one + other
    parts = one**2 / (first.shape[-1] - 1) + other**2 / (second.shape[-1] - 1)
    return np.sqrt(both), np.divide(both**2, parts, out=np.ones_like(both), where=parts > 0)


def interval(mean: Floats, sd: Floats, n: npt.NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Student's 95% interval of means; NaN where n is 1.

    Args:
        mean: of `n` values each.
        sd: their standard deviation, with n - 1.
        n: how many they are.
    """
    told = np.where(n > 1, n, 2)
    reach = np.where(n > 1, stats.t.ppf(1 - ALPHA / 2, told - 1) * sd / np.sqrt(told), math.nan)
    return mean - reach, mean + reach


def holm(p: Floats) -> Floats:
    """The p of several tests corrected so that any false one among them comes with at most the told chance (Holm 1979).

    Args:
        p: (..., k) of k tests of one family.
    """
    k = p.shape[-1]
    order = np.argsort(p, axis=-1)
    stepped = np.take_along_axis(p, order, axis=-1) * np.arange(k, 0, -1)
    corrected = np.minimum(np.maximum.accumulate(stepped, axis=-1), 1)
    found = np.empty_like(corrected)
    np.put_along_axis(found, order, corrected, axis=-1)
    return found


def corrected(p: Floats, least: Floats) -> tuple[Floats, Floats]:
    """The p of one family corrected by Holm, and the least that each could have reached after that.

    Tests that could reach no p below 5% by themselves are left out of the count: they can call nothing different, so
    they need no correction and cost the others none (Tarone 1990).

    Args:
        p: (..., k) of k tests.
        least: (k,) the least p of each, which its numbers of searches give.
    """
    able = least < ALPHA
    told, reachable = p.copy(), least.copy()
    told[..., able] = holm(p[..., able])
    reachable[able] = holm(least[able])
    return told, reachable


def verdict(mean: float, p: float, least_p: float) -> str:
    """Whether two sides differ: "more", "less", "no difference shown" or "too few to tell".

    Args:
        mean: first less second.
        p: corrected.
        least_p: that so few searches could reach, corrected.
    """
    if least_p >= ALPHA:
        return "too few to tell"
    if p >= ALPHA:
        return "no difference shown"
    return "more" if mean > 0 else "less"
