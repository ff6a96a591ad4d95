import math
from itertools import product

import numpy as np
import pytest

from sslticket.report import stats
from sslticket.results import table

ROTNET = {"run": "r", "objective": "rotnet"}
LABELS = {"run": "s", "objective": "supervised"}


@pytest.fixture
def compared(runs, score):
    def made(*changes):
        found = stats.compare_series(table.read_rows([runs(*(score(**each) for each in changes))]))
        return found.to_dict("records")

    return made


@pytest.fixture
def compare(compared):
    """By series and reference, where each has one density."""
    return lambda *changes: {(row["series"], row["against"]): row for row in compared(*changes)}


def searches(kind, tops, **changes):
    """A score of each of several searches."""
    return [
        kind | {"search_seed": seed, "ticket_hash": f"{kind['run']}{seed}", "top1": top1} | changes
        for seed, top1 in enumerate(tops)
    ]


def test_a_side_is_the_means_of_its_searches(compare):
    """Six searches with three evaluation seeds each: as their means, whatever the spread within."""
    own, other = [0.8, 0.82, 0.84, 0.86, 0.88, 0.9], [0.7, 0.71, 0.72, 0.73, 0.74, 0.75]
    rows = [
        kind | {"search_seed": search, "ticket_hash": f"{kind['run']}{search}", "seed": seed, "top1": top1 + off}
        for kind, tops in ((ROTNET, own), (LABELS, other))
        for search, top1 in enumerate(tops)
        for seed, off in enumerate((-0.1, 0.02, 0.08))
    ]
    row = compare(*rows)["rotnet", "supervised"]
    wanted = stats.compare_means(np.array(own), np.array(other))
    assert row["difference"] == pytest.approx(wanted.mean)
    assert (row["low"], row["high"]) == (pytest.approx(wanted.low), pytest.approx(wanted.high))
    assert row["p"] == pytest.approx(2 / 924)
    assert (row["n"], row["n_against"], row["trainings"], row["trainings_against"]) == (6, 6, 18, 18)
    assert row["verdict"] == "more"


def test_one_search_is_too_few_however_often_it_is_scored(compare):
    one = [ROTNET | {"seed": seed, "top1": 0.9 + seed / 1000} for seed in range(6)]
    two = [LABELS | {"seed": seed, "top1": 0.2 + seed / 1000} for seed in range(6)]
    random = [LABELS | {"control": "random", "replicate": seed, "seed": seed, "top1": 0.1} for seed in range(50)]
    found = compare(*one, *two, *random)
    for against, n in {"supervised": 1, "random": 50}.items():
        row = found["rotnet", against]
        assert row["difference"] == pytest.approx({"supervised": 0.7, "random": 0.8025}[against])
        assert math.isnan(row["low"])
        assert (row["n"], row["n_against"], row["trainings"]) == (1, n, 6)
        assert (row["verdict"], row["why"]) == ("too few to tell", "one search")


def test_why_there_are_too_few_is_told(compare):
    three, six = [0.9, 0.8, 0.7], [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    found = compare(*searches(ROTNET, three), *searches(LABELS, three), LABELS | {"control": "random", "replicate": 0})
    assert found["rotnet", "supervised"]["why"] == "3 against 3"
    assert found["rotnet", "random"]["why"] == "one draw to compare with"
    # 24 times the least p of six against six is more than 5%.
    levels = [{"level": level, "density": 0.8**level} for level in range(24)]
    rows = [row | level for level in levels for row in (*searches(ROTNET, six), *searches(LABELS, six))]
    assert compare(*rows)["rotnet", "supervised"]["why"] == "6 against 6 at 24 densities"


def test_p_is_corrected_for_the_densities_of_two_series_only(compared):
    """At one the sides do not overlap, at one they are alike; at a third are too few, a fourth only one of them has."""
    far, near = [0.9, 0.91, 0.92, 0.93, 0.94, 0.95], [0.5, 0.61, 0.52, 0.63, 0.54, 0.65]
    rows = [
        *searches(ROTNET, far),
        *searches(LABELS, near),
        *searches(ROTNET, near, level=3, density=0.125),
        *searches(LABELS, near, level=3, density=0.125),
        *searches(ROTNET, far[:3], level=4, density=0.0625),
        *searches(LABELS, near[:3], level=4, density=0.0625),
        *searches(ROTNET, far, level=5, density=0.03125),
        *searches(LABELS, far, protocol="elsewhere"),
    ]
    told = ("density", "p", "densities", "verdict")
    assert [tuple(row[key] for key in told) for row in compared(*rows)] == [
        (0.25, pytest.approx(2 * 2 / 924), 2, "more"),
        (0.125, 1, 2, "no difference shown"),
        (0.0625, pytest.approx(0.1), 2, "too few to tell"),
    ]
    [alone] = compared(*searches(ROTNET, far), *searches(LABELS, near))
    assert alone["p"] == pytest.approx(2 / 924)


def test_against_random_every_draw_counts_once(compare):
    """Two runs list the same draws; a search's own evaluation seeds are averaged: 0.75 and 0.95 less 0.3 and 0.5."""
    one = [
        ROTNET
        | {"run": f"r{s}", "ticket_hash": str(s), "search_seed": s, "seed": seed, "top1": 0.7 + (2 * s + seed) / 10}
        for s, seed in product((0, 1), (0, 1))
    ]
    two = [
        kind | {"control": "random", "replicate": draw, "seed": 0, "top1": 0.3 + 0.2 * draw}
        for kind in (ROTNET, LABELS)
        for draw in (0, 1)
    ]
    row = compare(*one, *two)["rotnet", "random"]
    assert row["difference"] == pytest.approx(0.45)
    assert (row["n"], row["n_against"], row["trainings"], row["trainings_against"]) == (2, 2, 4, 2)


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


def test_objectives_are_compared_with_new_heads_and_all_with_random(compare):
    found = compare(
        ROTNET | {"head": "new"},
        LABELS | {"head": "new", "top1": 0.7},
        LABELS | {"head": "own", "top1": 0.95},
        LABELS | {"run": "t", "subset": 0.1, "head": "own", "top1": 0.5},
        ROTNET | {"control": "random", "top1": 0.1, "head": "new"},
    )
    assert {pair: round(row["difference"], 3) for pair, row in found.items()} == {
        ("rotnet", "supervised"): 0.2,
        ("supervised 10%, own head", "supervised, own head"): -0.45,
        ("rotnet", "random"): 0.8,
        ("supervised", "random"): 0.6,
        ("supervised, own head", "random"): 0.85,
        ("supervised 10%, own head", "random"): 0.4,
    }


def test_labels_with_their_own_head_only_are_no_reference(compare):
    found = compare(ROTNET | {"head": "new"}, LABELS | {"head": "own"}, ROTNET | {"control": "random"})
    assert set(found) == {("rotnet", "random"), ("supervised, own head", "random")}


@pytest.mark.parametrize(
    ("key", "values", "wanted"),
    [
        ("source_hash", ("aaaa", "bbbb"), []),
        ("source_hash", ("aaaa", "aaaa"), [("rotnet", "supervised")]),
        ("protocol_hash", ("aaaa", "bbbb"), []),
        ("eval_hash", ("aaaa", "bbbb"), []),
        ("data_hash", ("aaaa", "bbbb"), []),
        ("start", ("0", "k"), []),
    ],
)
def test_what_was_measured_otherwise_is_not_compared(compare, key, values, wanted):
    assert list(compare(ROTNET | {key: values[0]}, LABELS | {key: values[1]})) == wanted


def test_labels_in_the_same_precision_come_first(compare):
    found = compare(
        ROTNET | {"precision": "bf16"}, LABELS | {"precision": "fp32"}, LABELS | {"precision": "bf16", "top1": 0.5}
    )
    assert set(found) == {("rotnet", "supervised, bf16")}
