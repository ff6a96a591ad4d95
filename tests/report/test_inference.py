"""Intervals hold the truth and tests keep their promise, on searches that were each evaluated several times."""

import math
from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from sslticket.report.stats import (
    MAX_PERMUTATIONS,
    Difference,
    compare_means,
    correct_p_values,
    decide_verdict,
    holm_correction,
    student_interval,
)
from tests.report import interval_coverage

MONTE_CARLO = 3 * math.sqrt(0.05 * 0.95 / 2000)


def difference(first: list[float], second: list[float]) -> Difference:
    return compare_means(np.array(first), np.array(second))


def test_permutation_test_by_hand() -> None:
    """Of the 6 ways to deal 0, 1, 2 and 4 into pairs, sums differ by 5, 3, 1 and opposites."""
    assert difference([4.0, 1.0], [2.0, 0.0]).p == pytest.approx(4 / 6)
    assert difference([4.0, 2.0], [1.0, 0.0]).smallest_p == 2 / 6


def test_six_searches_against_six_that_do_not_overlap() -> None:
    found = difference([0.9, 0.91, 0.92, 0.93, 0.94, 0.95], [0.7, 0.71, 0.72, 0.73, 0.74, 0.75])
    assert found.p == pytest.approx(2 / 924)
    assert found.smallest_p == 2 / 924


def test_welchs_interval_and_test() -> None:
    one, two = [0.9, 0.95, 0.97, 0.99], [0.5, 0.8]
    found, wanted = difference(one, two), stats.ttest_ind(one, two, equal_var=False)
    ends = wanted.confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((ends.low, ends.high))
    # 2 of 15 deals are as far apart at most, less than Welch's p: the spread of two is hardly known.
    assert found.p == pytest.approx(max(wanted.pvalue, 2 / 15))
    assert wanted.pvalue > 2 / 15


def test_students_interval_of_a_mean_by_hand() -> None:
    """Of three: 4.303 standard errors."""
    low, high = student_interval(np.array([0.9, 0.9]), np.array([0.03, math.nan]), np.array([3, 1]))
    assert (low[0], high[0]) == pytest.approx((0.9 - 4.3027 * 0.03 / 3**0.5, 0.9 + 4.3027 * 0.03 / 3**0.5), abs=1e-5)
    assert math.isnan(low[1])
    assert math.isnan(high[1])


def test_one_search_tells_nothing_however_many_it_is_compared_with() -> None:
    """Dealing 1 and 50 has a least p of 2/51, but of what one search owes to luck it knows nothing."""
    for one, two in (([0.5], [0.0] * 50), ([0.0] * 50, [0.5])):
        found = difference(one, two)
        assert abs(float(found.mean)) == 0.5
        assert math.isnan(found.low)
        assert (found.p, found.smallest_p) == (1, 1)


def test_sides_that_do_not_vary_are_compared() -> None:
    found = difference([0.75] * 4, [0.5] * 4)
    assert (found.mean, found.low, found.high) == (0.25, 0.25, 0.25)
    assert found.p == pytest.approx(2 / 70)
    assert difference([0.5] * 4, [0.5] * 4).p == 1


def test_holms_correction_by_hand() -> None:
    """0.01 x 4; 0.02 x 3; 0.03 x 2, but no less than the one before; 0.5 x 1."""
    found = holm_correction(np.array([0.03, 0.01, 0.5, 0.02]))
    assert found.tolist() == pytest.approx([0.06, 0.04, 0.5, 0.06])
    assert holm_correction(np.array([[0.6, 0.9]])).tolist() == [[1, 1]]


def test_what_could_never_be_found_costs_the_others_nothing() -> None:
    """Of three searches against three the least p is 0.1."""
    p, least = correct_p_values(np.array([0.1, 0.004, 0.03]), np.array([0.1, 2 / 924, 2 / 924]))
    assert p.tolist() == pytest.approx([0.1, 0.008, 0.03])
    assert least.tolist() == pytest.approx([0.1, 4 / 924, 4 / 924])


@pytest.mark.parametrize(
    ("mean", "p", "least", "verdict"),
    [
        (0.1, 0.04, 0.01, "more"),
        (-0.1, 0.04, 0.01, "less"),
        (0.1, 0.06, 0.01, "no difference shown"),
        (0.1, 0.06, 0.05, "too few to tell"),
    ],
)
def test_verdicts(mean: float, p: float, least: float, verdict: str) -> None:
    assert decide_verdict(mean, p, least) == verdict


def test_the_same_numbers_have_the_same_p_also_where_deals_are_drawn() -> None:
    one, two = np.random.default_rng(0).normal(size=(2, 12))
    found = [compare_means(one, two) for _ in range(2)]
    assert found[0] == found[1]
    assert found[0].smallest_p == 2 / MAX_PERMUTATIONS
    # ... and several at once are those one by one.
    both = compare_means(np.stack([one, two]), np.stack([two, one]))
    assert both.mean.tolist() == [found[0].mean, -found[0].mean]


@pytest.mark.parametrize("seeds", [1, 3, 6])
@pytest.mark.parametrize("searches", [3, 6])
def test_intervals_hold_the_truth_and_few_verdicts_are_false(searches: int, seeds: int) -> None:
    """2,000 experiments on searches that do not differ, at four densities each."""
    found = interval_coverage.measured(searches, seeds)
    # Of one density there are as many cases as experiments; several are not independent.
    assert found.mean == pytest.approx(0.95, abs=MONTE_CARLO)
    assert 0.95 - MONTE_CARLO <= found.difference <= 0.98
    assert found.false <= 0.05 + MONTE_CARLO
    if searches == 3:
        assert found.false == 0


@pytest.mark.parametrize("how", [{"spread": 3.0}, {"alike": True}])
def test_neither_unequal_spreads_nor_shared_seeds_make_verdicts_false(how: dict[str, float]) -> None:
    found = interval_coverage.measured(6, 3, **how)
    assert found.difference >= 0.95 - MONTE_CARLO
    assert found.false <= 0.05 + MONTE_CARLO


def test_trainings_that_count_as_searches_would_make_verdicts_false() -> None:
    """The made-up numbers are such that the mistake would show."""
    draws = np.random.default_rng(0)
    drawn = [interval_coverage.nested(draws, 200, 2, 4) for _ in range(2)]
    one, two = (each.reshape(200, interval_coverage.DENSITIES, 8)[:, 0] for each in drawn)
    assert (compare_means(one, two).p < 0.05).mean() > 0.15


def test_a_difference_that_is_there_is_found_at_every_density() -> None:
    """90 ± 1% against 70 ± 1%, six searches each, eleven densities."""
    draws = np.random.default_rng(3)
    for _ in range(50):
        found = compare_means(draws.normal(0.9, 0.01, (11, 6)), draws.normal(0.7, 0.01, (11, 6)))
        p, least = correct_p_values(found.p, np.full(11, found.smallest_p))
        verdicts = {decide_verdict(*each) for each in zip(found.mean, p, least, strict=True)}
        assert verdicts == {"more"}


def test_deals_that_give_the_very_difference_are_counted_also_of_accuracies_that_are_no_binary_fractions() -> None:
    """Counts of 359 images: of such, many deals give the difference that was seen, which whole numbers tell exactly."""
    chance = np.random.default_rng(5)
    for _ in range(40):
        first, second = chance.integers(340, 352, 6), chance.integers(338, 350, 6)
        both, seen = np.concatenate([first, second]), abs(int(first.sum() - second.sum()))
        far = [abs(2 * int(both[list(deal)].sum()) - int(both.sum())) >= seen for deal in combinations(range(12), 6)]
        one, two = first / 359, second / 359
        welch = stats.ttest_ind(one, two, equal_var=False).pvalue
        assert compare_means(one, two).p == pytest.approx(max(sum(far) / 924, welch), abs=1e-12)
