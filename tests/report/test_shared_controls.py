"""Controls that owe nothing to a run are pooled over runs; those of grey and of colour networks are kept apart."""

from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest

from sslticket.report import stats, text
from sslticket.report.content import Content
from sslticket.results.rows import row_columns, row_error, shared_controls

Row = Callable[..., dict[str, Any]]


def summary(rows: list[dict[str, Any]]) -> dict[str, dict[Any, Any]]:
    found = stats.summarize(pd.DataFrame(rows, columns=row_columns()))
    return {row["series"]: row for row in found.to_dict("records")}


@pytest.mark.parametrize("control", shared_controls())
def test_a_training_that_two_runs_list_counts_once(score: Row, control: str) -> None:
    rows = [
        score(run=run, objective=objective, control=control, seed=seed, top1=0.5 + 0.1 * seed, search_seed=search)
        for run, objective, search in (("a", "rotnet", 0), ("b", "supervised", 1))
        for seed in (0, 1)
    ]
    assert [row_error(row) for row in rows] == [None] * 4
    (row,) = summary(rows).values()
    # They do not tell for which search they were drawn, as older rows do not: each seed is a draw.
    assert (row["series"], row["n"], row["what"], row["objective"]) == (control, 2, "draw", "")
    assert row["top1"] == pytest.approx(0.55)


@pytest.mark.parametrize("control", shared_controls())
def test_what_was_drawn_for_one_search_counts_once_with_its_mean(score: Row, control: str) -> None:
    """Two runs with the seeds 0 and 1 each list the trainings of what was drawn for these."""
    rows = [
        score(
            run=f"{objective}{draw}", objective=objective, control=control, replicate=draw, seed=seed, search_seed=draw
        )
        | {"top1": 0.5 + 0.2 * draw + 0.1 * seed}
        for objective in ("rotnet", "supervised")
        for draw in (0, 1)
        for seed in (0, 1)
    ]
    (row,) = summary(rows).values()
    assert (row["n"], row["trainings"]) == (2, 4)
    assert row["top1"] == pytest.approx(0.65)
    assert row["top1_sd"] == pytest.approx(0.2 / 2**0.5)


@pytest.mark.parametrize("control", ["preserved", "local", "permuted", "reset"])
def test_controls_of_a_search_belong_to_it(score: Row, control: str) -> None:
    rows = [
        score(run=run, objective=run, control=control, replicate=0, top1=top1)
        for run, top1 in (("rotnet", 0.9), ("supervised", 0.5))
    ]
    assert {name: row["top1"] for name, row in summary(rows).items()} == {
        f"rotnet, {control}": 0.9,
        f"supervised, {control}": 0.5,
    }


def test_grey_networks_have_a_control_of_their_own_beside_colour_ones(score: Row) -> None:
    rows = [
        score(run=str(channels), control="random", channels=channels, top1=top1)
        for channels, top1 in ((1, 0.3), (3, 0.5))
    ]
    found = summary(rows)
    assert {name: row["top1"] for name, row in found.items()} == {"random": 0.5, "random, grey images": 0.3}
    assert list(summary(rows[:1])) == ["random"]


def test_densities_of_an_adjusted_control_are_fractions(score: Row) -> None:
    assert row_error(score(control="adjusted", natural_density=0.155, control_density=0.1)) is None
    fault = row_error(score(control="adjusted", natural_density=15.5))
    assert fault is not None
    assert "natural_density 15.5, which must be a fraction" in fault


def test_random_tickets_of_a_depth_limited_search_are_not_those_of_the_whole_network(score: Row) -> None:
    """Their densities are of other layers, so neither are they pooled nor compared, nor drawn in one picture."""
    limit = {"within": "up to conv11", "recipe": "cc33dd44"}
    rows = [
        score(**changes, run=run, control=control, seed=seed, top1=top1 + 0.01 * seed)
        for run, changes, scores in (("a", {}, (0.9, 0.3)), ("b", limit, (0.95, 0.5)))
        for control, top1 in zip(("ticket", "random"), scores, strict=True)
        for seed in (0, 1)
    ]
    frame = pd.DataFrame(rows, columns=row_columns())
    content = Content(frame)
    assert {text.describe_panel(panel.summary) for panel in content.panels} == {
        "conv on digits",
        "conv pruned up to conv11 on digits",
    }
    for panel in content.panels:
        random = panel.summary[panel.summary["control"] == "random"]
        limited = bool(panel.summary["within"].iloc[0])
        assert list(random["n"]) == [2]
        assert list(random["top1"]) == [pytest.approx(0.505 if limited else 0.305)]
        assert list(panel.comparisons["difference"]) == [pytest.approx(0.45 if limited else 0.6)]


def test_random_tickets_of_a_pattern_are_a_series_of_their_own_and_the_reference_of_its_tickets(score: Row) -> None:
    """Rows of the pattern's denser levels, which do not keep to it yet, belong to it too."""
    rows = [
        score(run=f"{pattern}{seed}", recipe=f"r{pattern}", control=control, density=density, level=level, top1=top1)
        | {"settings": {"levels": 2} | ({"pattern": pattern} if pattern else {}), "search_seed": seed}
        | ({} if control == "ticket" else {"replicate": seed})
        for pattern, gain in (("", 0.0), ("2:4", 0.1))
        for control, base in (("ticket", 0.5), ("random", 0.3))
        for level, density in ((1, 0.5), (2, 0.25))
        for seed, top1 in ((0, base + gain), (1, base + gain + 0.02))
    ]
    assert [row_error(row) for row in rows] == [None] * len(rows)
    frame = pd.DataFrame(rows, columns=row_columns())
    assert set(stats.summarize(frame)["series"]) == {"rotnet", "rotnet 2:4", "random", "random 2:4"}
    found = stats.compare_series(frame)
    assert set(zip(found["series"], found["against"], strict=True)) == {
        ("rotnet", "random"),
        ("rotnet 2:4", "random 2:4"),
    }
    assert found["difference"].tolist() == pytest.approx([0.2] * 4)
    content = Content(frame)
    assert len(content.panels) == 1, "one chart has both"
    (charts,) = content.panels[0].difference_charts
    assert [chart.title for chart in charts if "random" in chart.title]
    verdicts = content.panels[0].verdicts
    assert verdicts.keys() <= {"rotnet", "rotnet 2:4", "random", "random 2:4"}


@pytest.mark.parametrize(
    ("name", "is_random"),
    [
        *(
            ("random", True),
            ("random 2:4", True),
            ("random, grey images", True),
            ("random 1:4, grey images, bf16", True),
        ),
        *(("randomness", False), ("random 2:4 of mine", False), ("rotnet, random", False)),
    ],
)
def test_which_series_are_of_random_tickets(name: str, is_random: bool) -> None:
    assert stats.is_random_series(name) == is_random
