import math
from itertools import product

import pytest

from sslticket.report import comparison, table

ROTNET = {"run": "r", "objective": "rotnet"}
LABELS = {"run": "s", "objective": "supervised"}


@pytest.fixture
def compare(runs, score):
    def made(*changes):
        found = comparison.comparisons(table.rows([runs(*(score(**each) for each in changes))]))
        return {(row["series"], row["against"]): row for row in found.to_dict("records")}

    return made


def test_pairs_share_search_and_evaluation_seed_whatever_their_order(compare):
    """Differences by hand: 0.01, 0.02, 0.03 and 0.06 have the mean 0.03."""
    gains = {(0, 0): 0.01, (0, 1): 0.02, (1, 0): 0.03, (1, 1): 0.06}
    base = {(0, 0): 0.5, (0, 1): 0.9, (1, 0): 0.7, (1, 1): 0.1}
    same = {(s, e): {"search_seed": s, "seed": e, "ticket_hash": str(s)} for s, e in gains}
    one = [ROTNET | same[key] | {"top1": base[key] + gain} for key, gain in gains.items()]
    two = [LABELS | same[key] | {"top1": base[key]} for key in reversed(gains)]
    row = compare(*one, *two)["rotnet", "supervised"]
    assert row["difference"] == pytest.approx(0.03)
    assert (row["paired_by"], row["pairs"]) == ("search and evaluation seed", 4)
    # Trainings differ by up to 0.8, pairs by no more than 0.05: the interval is one of pairs.
    assert 0.01 <= row["low"] < 0.03 < row["high"] <= 0.06


def test_only_pairs_where_both_exist_count(compare):
    one = [ROTNET | {"seed": seed, "top1": 0.5 + seed / 10} for seed in range(4)]
    two = [LABELS | {"seed": seed, "top1": 0.5} for seed in (1, 3, 7)]
    row = compare(*one, *two)["rotnet", "supervised"]
    assert row["difference"] == pytest.approx(0.2)
    assert (row["pairs"], row["n"], row["n_against"]) == (2, 4, 3)


def test_without_common_seeds_it_says_that_nothing_is_paired(compare):
    one = [ROTNET | {"search_seed": 0, "seed": seed, "top1": 0.8} for seed in range(4)]
    two = [LABELS | {"search_seed": 1, "seed": seed, "top1": 0.7} for seed in range(4)]
    row = compare(*one, *two)["rotnet", "supervised"]
    assert row["difference"] == pytest.approx(0.1)
    assert (row["paired_by"], row["pairs"], row["verdict"]) == ("", 0, "more")


def test_against_random_pairs_share_the_evaluation_seed(compare):
    """A random ticket is one training for all searches: theirs are averaged, 0.8 and 0.9 less 0.3 and 0.5."""
    one = [
        ROTNET
        | {
            "run": f"r{search}",
            "ticket_hash": str(search),
            "search_seed": search,
            "seed": seed,
            "top1": 0.7 + (search + seed) / 10,
        }
        for search, seed in product((0, 2), (0, 1))
    ]
    two = [ROTNET | {"control": "random", "seed": seed, "top1": 0.3 + 0.2 * seed} for seed in (0, 1)]
    row = compare(*one, *two)["rotnet", "random"]
    assert row["difference"] == pytest.approx(0.45)
    assert (row["low"], row["high"]) == (pytest.approx(0.4), pytest.approx(0.5))
    assert (row["paired_by"], row["pairs"], row["n"]) == ("evaluation seed", 2, 4)


def test_one_training_each_differs_without_an_interval(compare):
    row = compare(ROTNET | {"top1": 0.8}, LABELS | {"top1": 0.7})["rotnet", "supervised"]
    assert row["difference"] == pytest.approx(0.1)
    assert math.isnan(row["low"])
    assert row["verdict"] == "too few to tell"


def test_labels_of_the_same_source_with_the_largest_subset_are_the_reference(compare):
    found = compare(
        ROTNET,
        LABELS,
        LABELS | {"run": "tenth", "subset": 0.1},
        LABELS | {"run": "else", "source": "cifar10"},
        ROTNET | {"run": "far", "source": "places365"},
    )
    assert set(found) == {
        ("rotnet from digits", "supervised from digits"),
        ("supervised 10% from digits", "supervised from digits"),
    }


def test_only_common_densities_of_one_panel_are_compared(compare):
    found = compare(
        ROTNET | {"density": 0.25},
        ROTNET | {"density": 0.5, "level": 1},
        LABELS | {"density": 0.5, "level": 1},
        LABELS | {"density": 0.25, "protocol": "elsewhere"},
    )
    assert [row["density"] for row in found.values()] == [0.5]
