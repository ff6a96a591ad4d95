"""Figures of the analyses, from made-up rows of every kind."""

import json
import math
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest

from sslticket import report
from sslticket.report import sections, stats
from sslticket.report.chart import Axis, Chart
from sslticket.report.content import Content
from sslticket.report.sections import mask_analyses, mean_curves, training_analyses
from sslticket.results import table
from sslticket.results.rows import row_columns, row_error
from tests.report import analysed
from tests.report.analysed import CHANNELS, CONNECTIVITY, MAGNITUDES, OVERLAP, SCORE, STABILITY, Row, row


def frame(*rows: Row) -> pd.DataFrame:
    assert [row_error(each) for each in rows] == [None] * len(rows)
    return stats.name_series(pd.DataFrame(rows, columns=row_columns()))


def points(chart: Chart) -> dict[str, list[tuple[float, float]]]:
    """Of each curve, by series and what it is called."""
    return {
        ", ".join(filter(None, [curve.series, curve.label])): [(each.x, pytest.approx(each.y)) for each in curve.points]
        for curve in chart.curves
    }


def test_curves_are_means_with_one_standard_deviation() -> None:
    """Over searches: two trainings of the first count with their mean, 3."""
    units = ["search 0", "search 0", "search 1", "search 1"]
    rows = pd.DataFrame({"series": ["a"] * 4, "unit": units, "x": [1, 1, 1, 2], "y": [0.0, 6.0, 5.0, None]})
    [curve] = mean_curves(rows, "x", Axis(""), "y", "what")
    [point] = curve.points
    assert (point.x, point.y, point.low, point.high) == pytest.approx((1, 4, 4 - math.sqrt(2), 4 + math.sqrt(2)))
    assert point.tooltip == "a at 1: what 4 ± 1.4, 2 searches, 3 trainings"


def test_one_search_has_no_spread_however_often_it_is_measured() -> None:
    part = training_analyses.stability_section(
        frame(*(row(STABILITY, seed=seed, order_angle=10.0 * seed) for seed in range(4)))
    )
    assert part is not None
    point = next(chart for chart in part.charts() if "order_angle" in chart.name).curves[0].points[0]
    assert (point.y, math.isnan(point.low)) == (15, True)
    assert point.tooltip.endswith("15, 1 search, 4 trainings")


def test_a_search_that_is_in_several_pairs_counts_once() -> None:
    """Three searches, three pairs of 10%, 20% and 60%: as each sees them 15%, 35% and 40%."""
    rows = [
        row(OVERLAP, run=f"r{a}", search_seed=a, other_seed=b, jaccard=jaccard, other_run=f"r{b}", other_hash=str(b))
        | {"other_objective": "rotnet"}
        for a, b, jaccard in ((0, 1, 0.1), (0, 2, 0.2), (1, 2, 0.6))
    ]
    part = mask_analyses.overlap_section(frame(*rows))
    assert part is not None
    point = next(part.charts()).curves[0].points[0]
    assert point.y == pytest.approx(30)
    assert point.high - point.y == pytest.approx(np.std([15, 35, 40], ddof=1))
    assert point.tooltip.endswith("3 searches, 6 pairs")


def test_a_cut_ticket_says_so_at_its_point() -> None:
    told = [(0, 0.25), (1, 0.1), (2, 0.2)]
    rows = [row(STABILITY, search_seed=seed, effective_density=effective) for seed, effective in told]
    part = training_analyses.stability_section(frame(*rows))
    assert part is not None
    first = next(part.charts()).curves[0].points[0]
    assert first.tooltip.endswith(", 3 searches, effective density 10% in 1 of 3")


def test_stability_is_drawn_for_tickets_and_random_masks() -> None:
    rows = [
        row(STABILITY, level=level, density=0.5**level, control=control, pruning_distance=far * 2**level)
        for level in (0, 1)
        for control, far in {"ticket": 2, "local": 3}.items()
    ]
    part = training_analyses.stability_section(frame(*rows))
    assert part is not None
    first, *_ = part.charts()
    assert points(first) == {"rotnet": [(1, 2), (0.5, 4)], "rotnet, local": [(1, 3), (0.5, 6)]}
    assert len(list(part.charts())) == 4


def test_barriers_and_errors_are_drawn_as_they_are_and_recalibrated() -> None:
    part = training_analyses.connectivity_section(frame(row(CONNECTIVITY), row(CONNECTIVITY, seed=1, barrier=0.2)))
    assert part is not None
    charts = {chart.title.rpartition(": ")[2]: points(chart)["rotnet"] for chart in part.charts()}
    assert charts == {
        "error barrier, as it is": [(0.25, 19)],
        "error barrier, batch norm recalibrated": [(0.25, 8)],
        "error, as it is": [(0, 10), (0.5, 30), (1, 14)],
        "error, batch norm recalibrated": [(0, 10), (0.5, 20), (1, 14)],
    }


def test_what_was_not_recalibrated_has_no_chart() -> None:
    plain = [[alpha, 0.1, None, None, None] for alpha in (0.0, 0.5, 1.0)]
    part = training_analyses.connectivity_section(
        frame(row(CONNECTIVITY, points=plain, barrier_recalibrated=None, loss_barrier=None))
    )
    assert part is not None
    assert [chart.name for chart in part.charts()] == ["barrier-0", "line-0-0"]


def test_a_histogram_has_shares_of_all_weights_also_of_rows_that_reach_less_far() -> None:
    """Of 100 weights; the second row has none below 1e-6."""
    short = {"bins": [-6.0, -1.0, 0.0], "counts": [15, 60], "seed": 1}
    part = training_analyses.magnitudes_section(frame(row(MAGNITUDES), row(MAGNITUDES, **short)))
    assert part is not None
    shape, natural = part.charts()
    assert points(shape) == {"rotnet": [(-7.5, 2.5), (-6.5, 7.5), (-3.5, 10), (-0.5, 55)]}
    assert shape.vertical_line == (pytest.approx(math.log10(1.1920929e-7)), "machine precision")
    assert shape.title.endswith("beside 25% of exactly 0")
    assert points(natural) == {"rotnet": [(0.25, 75)]}


def test_overlap_is_drawn_beside_chance_by_the_name_of_the_other_ticket() -> None:
    rows = [row(SCORE, run="supervised-1", objective="supervised"), row(OVERLAP, run="rotnet-1")]
    part = mask_analyses.overlap_section(frame(*rows))
    assert part is not None
    here, there = part.charts()
    assert points(here) == {"supervised": [(0.25, 30)], "supervised, chance": [(0.25, 14)]}
    assert points(there) == {"rotnet": [(0.25, 30)], "rotnet, chance": [(0.25, 14)]}
    [heat] = part.heat_maps()
    # Layers: 4 of 8 beside 0.4, and 5 of 22 beside 0.13; shades from chance to equal.
    assert heat.rows == ("first", "last")
    assert heat.cells == (
        (("50 (40)", pytest.approx(0.1 / 0.6)),),
        (("23 (13)", pytest.approx((5 / 22 - 0.13) / 0.87)),),
    )


def test_searches_of_one_seed_and_levels_of_one_search_are_charts_of_their_own() -> None:
    others = {"other_run": "c", "other_objective": "rotnet"}
    rows = [
        row(OVERLAP, run="a", other_run="b", other_seed=0),
        row(OVERLAP, run="a", **others, other_seed=1, other_hash="c"),
        row(
            OVERLAP, run="a", other_run="a", other_hash="d", other_objective="rotnet", other_level=3, other_density=0.1
        ),
    ]
    part = mask_analyses.overlap_section(frame(*rows))
    assert part is not None
    names = {chart.title for chart in part.charts()}
    assert names == {
        "conv, rotnet: beside others, same seed",
        "conv, rotnet: beside others, other seeds",
        "conv, supervised: beside others, same seed",
    }
    levels = [heat for heat in part.heat_maps() if heat.title.endswith("across levels")]
    assert [(heat.rows, heat.columns) for heat in levels] == [(("25%",), ("10%",))]


def test_a_layer_that_both_masks_emptied_has_no_overlap() -> None:
    part = mask_analyses.overlap_section(frame(row(OVERLAP, layers={"gone": [0, 0, 1.0], "last": [1, 2, 0.5]})))
    assert part is not None
    assert [line[0] for heat in part.heat_maps() for line in heat.cells] == [None, ("50 (50)", 0.0)]


def test_dead_channels_are_shares_and_a_dead_layer_is_marked() -> None:
    rows = [
        row(CHANNELS, run=run, search_seed=seed, dead={"x": [0, 4], "y": [8, 8], "z": [run == "b", 1]})
        for seed, run in enumerate("ab")
    ]
    rows = [each | {"dead": {name: [int(some), of] for name, (some, of) in each["dead"].items()}} for each in rows]
    part = mask_analyses.dead_channels_section(frame(*rows))
    assert part is not None
    [heat] = part.heat_maps()
    assert [cell[0] for (cell,) in heat.cells] == ["0", "100", "50"]
    assert [math.isnan(cell[1]) for (cell,) in heat.cells] == [False, True, False]
    assert heat.title == "conv, rotnet: mean of 2 searches"


def test_densities_of_layers_are_those_of_channels_where_the_search_left_no_rows() -> None:
    content = Content(pd.DataFrame([row(CHANNELS)], columns=row_columns()))
    [heat] = content.layer_maps
    assert [cell[0] for (cell,) in heat.cells] == ["90", "17.8"]


def swept(at: str, samples: int, **changes: object) -> Row:
    told = {"search": "IMP", "settings": {"rewind": at, "rate": 0.2}, "rewind_samples": samples}
    return row(SCORE, **{"run": at, "recipe": at} | told | changes)


def test_accuracy_is_drawn_against_the_rewind_point() -> None:
    """The initialisation has a place beside the others, which a log axis does not give it."""
    rows = [swept(f"{samples}samples", samples, top1=top1) for samples, top1 in ((0, 0.5), (90, 0.75), (900, 0.7))]
    part = training_analyses.rewinding_section(frame(*rows))
    assert part is not None
    [chart] = part.charts()
    assert points(chart) == {"rotnet": [(30, 50), (90, 75), (900, 70)]}
    assert [point.tooltip.partition(":")[0] for point in chart.curves[0].points] == [
        f"rotnet at {x}" for x in (0, 90, 900)
    ]
    assert chart.x.ticks(25, 1000)[0] == (30, "0")
    assert part.series == (("rotnet", "rotnet", "ticket"),)


@pytest.mark.parametrize(
    "other",
    [
        {"settings": {"rewind": "1ep", "rate": 0.5}},  # differs in more
        {"rewind_samples": 0},  # the same point in other words
        {"control": "random"},
        {"objective": "supervised"},
    ],
)
def test_what_does_not_differ_in_the_rewind_point_only_makes_no_sweep(other: Row) -> None:
    assert training_analyses.rewinding_section(frame(swept("0it", 0), swept("1ep", 90, **other))) is None


def test_rows_of_a_run_that_was_copied_count_once() -> None:
    rows = frame(row(STABILITY), row(STABILITY), row(STABILITY, seed=1), row(OVERLAP), row(OVERLAP))
    assert [len(sections.rows_of_kind(rows, kind)) for kind in ("stability", "overlap")] == [2, 1]


@pytest.fixture
def everything(tmp_path: Path) -> Path:
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows/all.jsonl").write_text("".join(json.dumps(each) + "\n" for each in analysed.rows()))
    return tmp_path


def test_every_series_of_every_chart_has_a_look_and_every_figure_a_name_of_its_own(everything: Path) -> None:
    content = Content(table.read_rows([everything]))
    assert {part.name for part in content.sections} == {
        *("rewinding", "stability", "connectivity", "magnitudes", "overlap", "dead"),
    }
    assert {curve.series for chart in content.charts() for curve in chart.curves} <= content.styles.keys()
    places = [look.index for look in content.styles.values()]
    assert sorted(places) == list(range(len(places)))
    names = [cast(Any, figure).name for figure in (*content.charts(), *content.heat_maps())]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("kind", ["stability", "connectivity", "magnitudes", "overlap", "channels"])
def test_rows_of_one_analysis_alone_make_a_page(tmp_path: Path, kind: str) -> None:
    known = {each["kind"]: each for each in (STABILITY, CONNECTIVITY, MAGNITUDES, OVERLAP, CHANNELS)}
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows/one.jsonl").write_text(json.dumps(row(known[kind])) + "\n")
    written = report.write_report(
        [tmp_path], tmp_path / "report.html", figures=tmp_path / "figures", latex=tmp_path / "t.tex"
    )
    page = written.html.read_text("utf-8")
    assert "conv on digits: tickets analysed, none scored." in page
    assert f'id="{"dead" if kind == "channels" else kind}"' in page
    assert not any(f'id="{name}"' in page for name in ("accuracy", "all", "numbers", "transfer"))
    assert written.png.read_bytes().startswith(b"\x89PNG")
    assert written.figures
    assert written.text == ""


def test_a_page_without_analyses_has_none_of_their_parts(folder: Path, tmp_path: Path) -> None:
    page = report.write_report([folder], tmp_path / "report.html").html.read_text("utf-8")
    assert 'id="accuracy"' in page
    assert not any(f'id="{name}"' in page for name in ("rewinding", "stability", "connectivity", "overlap", "dead"))


HOSTILE = "<script>alert('$1')</script>&\"\\1"


def test_values_of_analyses_are_escaped(tmp_path: Path) -> None:
    known = (STABILITY, CONNECTIVITY, MAGNITUDES, OVERLAP, CHANNELS, SCORE)
    named = {"objective": HOSTILE, "model": HOSTILE, "source": HOSTILE}
    sweep = {"search": HOSTILE, "rewind_samples": 0}
    rows = [row(kind, **named, **sweep, settings={"rewind": HOSTILE, HOSTILE: HOSTILE}) for kind in known]
    rows += [row(kind, **named, run="b", recipe="b", settings={"rewind": "x"}, rewind_samples=9) for kind in known]
    for each in rows:
        each |= {"layers": {HOSTILE: each["layers"]["first"]}} if "layers" in each else {}
        each |= {"dead": {HOSTILE: [1, 2]}} if "dead" in each else {}
        each |= {"other_objective": HOSTILE, "other_run": HOSTILE} if "other_run" in each else {}
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows/all.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows))
    page = report.write_report([tmp_path], tmp_path / "report.html").html.read_text("utf-8")
    assert page.count("<script") == 2
    assert page.count("&lt;script&gt;alert") > 50
