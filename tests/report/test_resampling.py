import math

import numpy as np
import pytest

from sslticket.report.resampling import paired, unpaired


def test_bootstrap_of_two_pairs_by_hand():
    """Means of two draws from {0, 4}: 0, 2 and 4 with chances 1/4, 1/2 and 1/4, so the 95% interval is all of it."""
    assert paired(np.array([0.0, 4.0]))[:3] == (2, 0, 4)


def test_bootstrap_of_three_pairs_by_hand():
    """The mean of three draws from {0, 0, 3} is 3 with a chance of 1/27 = 3.7%, more than the 2.5% cut off above."""
    assert paired(np.array([0.0, 0.0, 3.0]))[:3] == (1, 0, 3)
    # ... and of four from {0, 0, 0, 4} it is 4 with 0.4%, at least 3 with 5.1%.
    assert paired(np.array([0.0, 0.0, 0.0, 4.0]))[:3] == (1, 0, 3)


def test_bootstrap_without_pairs_by_hand():
    """{0, 2} less {0, 1}: means 0, 1, 2 and 0, 1/2, 1; each end, -1 and 2, has a chance of 1/16 = 6.25%."""
    assert unpaired(np.array([0.0, 2.0]), np.array([0.0, 1.0]))[:3] == (0.5, -1, 2)


def test_one_pair_gives_no_interval():
    for found in (paired(np.array([0.5])), unpaired(np.array([0.5]), np.array([0.0, 0.0]))):
        assert found.mean == 0.5
        assert math.isnan(found.low)
        assert found.verdict == "too few to tell"


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ([0.01] * 5, "too few to tell"),  # five heads in a row: p = 1/16
        ([0.01] * 6, "more"),
        ([-0.01] * 6, "less"),
        ([0.01, -0.01] * 3, "no difference shown"),
    ],
)
def test_verdicts_of_pairs(values, verdict):
    assert paired(np.array(values)).verdict == verdict


@pytest.mark.parametrize(("n", "verdict"), [(3, "too few to tell"), (4, "more")])
def test_verdicts_without_pairs(n, verdict):
    """Of the C(6, 3) = 20 ways to split six into halves, two are as far apart as this: p = 1/10. Of C(8, 4), 1/35."""
    assert unpaired(np.full(n, 0.9), np.full(n, 0.8)).verdict == verdict


@pytest.mark.parametrize("pairs", [True, False])
def test_coverage_of_the_interval_on_normal_differences(pairs):
    """With 25 a side the percentile bootstrap holds the truth in nearly 95 of 100 cases (a t-interval in 95)."""
    draws = np.random.default_rng(1)
    held = 0
    for _ in range(400):
        first, second = draws.normal(0.3, 1, 25), draws.normal(0, 1, 25)
        found = paired(first - second) if pairs else unpaired(first, second)
        held += found.low <= 0.3 <= found.high
    assert 0.91 < held / 400 < 0.97


def test_the_interval_of_the_same_numbers_is_the_same():
    values = np.random.default_rng(0).normal(size=7)
    assert paired(values) == paired(values.copy())


def test_permutation_tests_by_hand():
    """Of the 8 ways to sign 1, 2 and 3, those with sums of at least 4 or at most -4 are 1+2+3, -1+2+3 and opposites."""
    assert paired(np.array([-1.0, 2.0, 3.0])).p == 4 / 8
    # Of the 6 ways to deal 0, 1, 2 and 4 into pairs, sums differ by 5, 3, 1 and opposites.
    assert unpaired(np.array([4.0, 1.0]), np.array([2.0, 0.0])).p == 4 / 6


@pytest.mark.parametrize("n", [6, 20])
@pytest.mark.parametrize("pairs", [True, False])
def test_no_more_than_one_in_twenty_is_called_different_where_nothing_is(n, pairs):
    draws = np.random.default_rng(2)
    called = 0
    for _ in range(400):
        first, second = draws.normal(size=n), draws.normal(size=n)
        found = paired(first - second) if pairs else unpaired(first, second)
        called += found.verdict in ("more", "less")
    assert called / 400 < 0.05 + 2.5 * math.sqrt(0.05 * 0.95 / 400)


def test_a_difference_that_is_there_is_found():
    draws = np.random.default_rng(3)
    verdicts = [unpaired(draws.normal(2, 1, 8), draws.normal(0, 1, 8)).verdict for _ in range(50)]
    assert verdicts.count("more") > 40
    assert "less" not in verdicts
