import importlib
import math
import pkgutil
from itertools import product
from pathlib import Path

import pytest

from sslticket import objectives
from sslticket.objectives.base import Objective
from sslticket.report import stats
from sslticket.results import table


def summary(folder: Path):
    return stats.summarize(table.read_rows([folder]))


def only(folder: Path):
    [row] = summary(folder).to_dict("records")
    return row


def test_mean_and_spread_by_hand(runs, score):
    """Over searches: the trainings of the last, 96% and 98%, count with their mean."""
    tops = [(0, 0, 0.90), (1, 0, 0.92), (2, 0, 0.96), (2, 1, 0.98)]
    folder = runs(
        *(
            score(search_seed=search, ticket_hash=f"{search}", seed=seed, top1=top1, top5=0.99)
            for search, seed, top1 in tops
        )
    )
    row = only(folder)
    assert (row["n"], row["what"], row["trainings"]) == (3, "search", 4)
    assert row["top1"] == pytest.approx(0.93)
    assert row["top1_sd"] == pytest.approx(math.sqrt((0.03**2 + 0.01**2 + 0.04**2) / 2))
    assert row["top5"] == pytest.approx(0.99)

    # Student's t of two degrees of freedom is 4.303.
    reach = 4.3027 * row["top1_sd"] / math.sqrt(3)
    assert (row["low"], row["high"]) == pytest.approx((0.93 - reach, 0.93 + reach), abs=1e-5)


def test_the_mean_over_classes_is_that_of_rows_which_all_tell_it(runs, score):
    tops = [(0, 0, 0.5), (1, 0, 0.7), (1, 1, 0.9)]
    rows = [
        score(search_seed=search, ticket_hash=f"{search}", seed=seed, balanced_top1=top) for search, seed, top in tops
    ]
    row = only(runs(*rows))
    assert row["balanced"] == pytest.approx(0.65)  # of the searches' means, 0.5 and 0.8
    assert row["balanced_sd"] == pytest.approx(0.3 / math.sqrt(2))
    del rows[-1]["balanced_top1"]
    assert math.isnan(only(runs(*rows))["balanced"])


def test_one_search_has_no_spread_however_often_it_is_scored(runs, score):
    row = only(runs(*(score(seed=seed, top1=0.9 + seed / 100) for seed in range(6))))
    assert (row["n"], row["trainings"]) == (1, 6)
    assert row["top1"] == pytest.approx(0.925)
    assert math.isnan(row["top1_sd"])
    assert math.isnan(row["low"])


def test_random_control_that_two_runs_list_counts_once(runs, score):
    def random(**changes):
        return score(control="random", **changes)

    own = [random(run="rotnet-1", ticket_hash="r", seed=seed, top1=top1) for seed, top1 in [(0, 0.5), (1, 0.7)]]
    other = [
        random(run="labels-1", objective="supervised", ticket_hash="l", seed=seed, top1=top1)
        for seed, top1 in [(0, 0.5), (1, 0.7), (2, 0.9)]
    ]
    row = only(runs(*own, *other))
    assert (row["series"], row["n"]) == ("random", 3)
    assert row["top1"] == pytest.approx(0.7)
    assert row["top1_sd"] == pytest.approx(0.2)


def test_random_controls_of_other_densities_and_protocols_stay_apart(runs, score):
    folder = runs(
        score(control="random", top1=0.5),
        score(control="random", level=3, density=0.125, top1=0.3),
        score(control="random", protocol="transfer", top1=0.1),
    )
    assert list(summary(folder)["top1"]) == [0.5, 0.3, 0.1]


def test_searches_that_differ_in_their_seed_are_one_series(runs, score):
    row = only(runs(score(run="a-1", top1=0.8), score(run="a-2", search_seed=1, ticket_hash="b", top1=0.9)))
    assert (row["series"], row["n"]) == ("rotnet", 2)
    assert row["top1"] == pytest.approx(0.85)


def test_searches_that_differ_in_their_recipe_are_not_pooled(runs, score):
    """Whether their seeds are the same or not."""
    for seed in (0, 1):
        rows = score(run="a-1", recipe="one", top1=0.8), score(run="a-2", recipe="two", search_seed=seed, top1=0.9)
        series = summary(runs(*rows))
        assert dict(zip(series["series"], series["top1"], strict=True)) == {"rotnet (one)": 0.8, "rotnet (two)": 0.9}


def test_what_a_ticket_was_found_on_makes_its_own_series(runs, score):
    folder = runs(
        score(run="a"),
        score(run="b", subset=0.1),
        score(run="c", subset=0.1, subset_by="classes"),
        score(run="d", source="cifar10"),
    )
    assert set(summary(folder)["series"]) == {
        "rotnet from digits",
        "rotnet 10% from digits",
        "rotnet 10% of classes from digits",
        "rotnet from cifar10",
    }


def test_series_are_ordered_from_tickets_to_random(runs, score):
    folder = runs(
        score(control="random"),
        score(control="local"),
        score(),
        score(control="preserved"),
        score(run="s", objective="supervised"),
    )
    assert list(summary(folder)["series"]) == ["supervised", "rotnet", "rotnet, preserved", "rotnet, local", "random"]


def test_a_folder_within_a_folder_or_a_copied_run_counts_once(runs, score):
    folder = runs(score(), score(seed=1))
    runs(score(), score(seed=1), file="copy/rows/rows.jsonl")
    assert stats.summarize(table.read_rows([folder, folder / "a"]))["trainings"].tolist() == [2]


def test_sparsest_density_that_all_series_have(runs, score):
    def curve(levels, **changes):
        return [score(level=level, density=0.5**level, ticket_hash=str(level), **changes) for level in levels]

    folder = runs(
        *curve([0, 1, 2, 3]),
        *curve([0, 1, 2, 4], run="s", objective="supervised"),
        *curve([1, 2, 3, 4], control="random"),
        *curve([1], control="preserved"),
    )
    common = stats.rows_at_sparsest_common_density(summary(folder))
    assert list(common["series"]) == ["rotnet", "supervised", "random"]
    assert set(common["density"]) == {0.25}


def test_a_series_with_densities_of_its_own_does_not_keep_the_others_from_being_compared(runs, score):
    def one(run, density):
        return score(run=run, objective=run, density=density, ticket_hash=f"{run}{density}", level=int(1 / density))

    both = [one(run, density) for run in ("rotnet", "supervised") for density in (0.5, 0.25)]
    common = stats.rows_at_sparsest_common_density(summary(runs(*both, one("byol", 0.1), one("byol", 0.5 / 3))))
    assert list(zip(common["series"], common["density"], strict=True)) == [("rotnet", 0.25), ("supervised", 0.25)]
    assert stats.rows_at_sparsest_common_density(summary(runs(one("rotnet", 0.5), one("byol", 0.25)))).empty


def test_objectives_that_need_labels_are_not_called_label_agnostic():
    for module in pkgutil.iter_modules(objectives.__path__):
        importlib.import_module(f"{objectives.__name__}.{module.name}")
    needy = {kind.__name__.lower() for kind in Objective.__subclasses__() if kind.needs_labels}
    assert "supervised" in needy
    assert not any(stats.is_label_agnostic(name) for name in needy)
    assert not stats.is_label_agnostic("supervised-shuffled")
    assert stats.is_label_agnostic("rotnet")


def test_replicates_are_counted_by_training_and_by_search(runs, score):
    rows = [
        score(run=f"a-{search}", search_seed=search, seed=seed, ticket_hash=str(search))
        for search, seed in product(range(3), range(2))
    ]
    row = only(runs(*rows))
    assert (row["n"], row["trainings"]) == (3, 6)


def test_older_controls_of_a_search_are_draws_of_their_evaluation_seed(runs, score):
    """The same random weights, drawn with the evaluation seed, were trained for all searches."""
    rows = [
        score(control="preserved", run=f"a-{search}", search_seed=search, seed=seed, ticket_hash=str(search))
        for search, seed in product(range(6), range(2))
    ]
    row = only(runs(*rows))
    assert (row["n"], row["what"], row["trainings"]) == (2, "draw", 12)
    row = only(runs(*(each | {"replicate": each["search_seed"]} for each in rows)))
    assert (row["n"], row["what"], row["trainings"]) == (6, "draw", 12)


def test_the_headline_is_of_new_heads_where_there_are_some(runs, score):
    def both(own_level):
        return [
            score(head="new", run="s", objective="supervised"),
            score(head="own", run="s", objective="supervised", level=own_level, density=0.5**own_level),
            score(head="new"),
            score(head="new", control="random"),
        ]

    for level in (2, 3):
        common = stats.rows_at_sparsest_common_density(summary(runs(*both(level))))
        assert list(common["series"]) == ["rotnet", "supervised", "random"]
        assert set(common["density"]) == {0.25}
    alone = stats.rows_at_sparsest_common_density(summary(runs(*(row for row in both(2) if row["head"] == "own"))))
    assert list(alone["series"]) == ["supervised, own head"]


def test_a_source_is_named_wherever_its_model_has_several(runs, score):
    """Also under a protocol that scored tickets of one source only: a series keeps its name across protocols."""
    folder = runs(score(run="a", protocol="one"), score(run="b", protocol="two", source="cifar10"))
    assert set(summary(folder)["series"]) == {"rotnet from digits", "rotnet from cifar10"}
