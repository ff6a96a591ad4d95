"""What differs in its data or settings is neither pooled nor put in one picture, whatever its name."""

from itertools import product

import pandas as pd
import pytest

from sslticket.report import stats
from sslticket.report.content import Content
from sslticket.report.sections import mask_analyses, scores, training_analyses
from sslticket.results.rows import row_columns, row_error
from tests.report.analysed import CHANNELS, CONNECTIVITY, LEVEL, MAGNITUDES, OVERLAP, SCORE, STABILITY, Row, row


def frame(*rows: Row) -> pd.DataFrame:
    assert [row_error(each) for each in rows] == [None] * len(rows)
    return pd.DataFrame(rows, columns=row_columns())


def summary(*rows: Row) -> dict[tuple[str, str], float]:
    """The mean of each series, by what tells its panel apart and its name."""
    found = stats.summarize(frame(*rows))
    return {(each["condition"], each["series"]): round(each["top1"], 6) for each in found.to_dict("records")}


def two(key: str, one: object, other: object, **changes: object) -> list[Row]:
    """Two searches of one recipe whose scores, 90% and 50%, differ in a key."""
    rows = [
        row(SCORE, search_seed=seed, ticket_hash=str(seed), top1=top1, **changes) for seed, top1 in ((0, 0.9), (1, 0.5))
    ]
    for each, value in zip(rows, (one, other), strict=True):
        each |= {key: value} if value is not None else {}
    return rows


HASHES = "8d3fa0", "8d3f17"


@pytest.mark.parametrize(
    ("key", "words"),
    [("protocol_hash", "settings"), ("data_hash", "training images"), ("eval_hash", "evaluation images")],
)
def test_other_settings_and_images_of_a_protocol_are_other_panels(key: str, words: str) -> None:
    """Their words are as many digits as tell them apart; what no row of a series tells is one of them, too."""
    assert summary(*two(key, *HASHES)) == {(f"{words} 8d3fa", "rotnet"): 0.9, (f"{words} 8d3f1", "rotnet"): 0.5}
    assert summary(*two(key, HASHES[0], HASHES[0])) == {("", "rotnet"): 0.7}
    if key != "data_hash":
        assert summary(*two(key, None, HASHES[0])) == {
            (f"{words} unknown", "rotnet"): 0.9,
            (f"{words} 8d3f", "rotnet"): 0.5,
        }


def test_what_differs_together_is_told_by_one() -> None:
    rows = two("data_hash", *HASHES)
    rows[0] |= {"eval_hash": "aaaa"}
    rows[1] |= {"eval_hash": "bbbb"}
    assert {apart for apart, _ in summary(*rows)} == {"training images 8d3fa", "training images 8d3f1"}


def test_older_rows_are_drawn_beside_newer_ones_of_other_series() -> None:
    old = row(SCORE, run="s", objective="supervised", top1=0.8)
    new = row(SCORE, protocol_hash="aaaa", eval_hash="bbbb", head="new", start="0")
    assert summary(old, new) == {("", "supervised"): 0.8, ("", "rotnet"): 0.9}
    # ... but not where these have two settings.
    other = row(SCORE, run="b", objective="byol", protocol_hash="cccc")
    assert set(summary(old, new, other)) == {
        ("settings unknown", "supervised"),
        ("settings aaaa", "rotnet"),
        ("settings cccc", "byol"),
    }


def test_a_schedule_from_the_rewind_point_is_another_panel_and_older_scores_start_at_0() -> None:
    assert summary(*two("start", "0", "k")) == {("start 0", "rotnet"): 0.9, ("start k", "rotnet"): 0.5}
    assert summary(*two("start", None, "0")) == {("", "rotnet"): 0.7}
    assert summary(*two("start", None, "k")) == {("start 0", "rotnet"): 0.9, ("start k", "rotnet"): 0.5}


def test_older_stability_starts_at_k() -> None:
    held = [row(STABILITY, seed=0), row(STABILITY, seed=1, start="k")]
    assert set(stats.name_series(frame(*held))["condition"]) == {""}
    assert set(stats.name_series(frame(*held, row(STABILITY, start="0")))["condition"]) == {"start 0", "start k"}


def test_heads_are_series_of_their_own_and_older_ones_are_new() -> None:
    assert summary(*two("head", "own", "new")) == {("", "rotnet, own head"): 0.9, ("", "rotnet"): 0.5}
    assert summary(*two("head", None, "new")) == {("", "rotnet"): 0.7}
    assert summary(*two("head", "own", "new", control="reset")) == {
        ("", "rotnet, own head, reset"): 0.9,
        ("", "rotnet, reset"): 0.5,
    }


def test_precisions_are_series_of_their_own_where_there_are_several() -> None:
    assert summary(*two("precision", "bf16", "fp32")) == {("", "rotnet, bf16"): 0.9, ("", "rotnet, fp32"): 0.5}
    assert summary(*two("precision", "bf16", "fp32", control="random", replicate=0)) == {
        ("", "random, bf16"): 0.9,
        ("", "random, fp32"): 0.5,
    }
    assert summary(*two("precision", "bf16", "bf16")) == {("", "rotnet"): 0.7}


def test_images_of_one_name_are_series_of_their_own() -> None:
    assert summary(*two("source_hash", *HASHES)) == {
        ("", "rotnet (images 8d3fa)"): 0.9,
        ("", "rotnet (images 8d3f1)"): 0.5,
    }
    assert summary(*two("source_hash", None, HASHES[0])) == {
        ("", "rotnet (images unknown)"): 0.9,
        ("", "rotnet (images 8d3f)"): 0.5,
    }


def test_a_random_ticket_owes_nothing_to_the_images_of_a_search() -> None:
    rows = two("source_hash", *HASHES, control="random")
    assert summary(*(each | {"replicate": each["search_seed"]} for each in rows)) == {("", "random"): 0.7}


def old_levels(*hashes: str, seeds: tuple[int, ...] = (0, 1), **changes: object) -> list[Row]:
    """Searches of one recipe, told by rows without `source_hash`, and a score of each."""
    return [
        row(kind, search_seed=seed, ticket_hash=f"{seed}{images}", **told, **changes)
        for seed, images in zip(seeds, hashes, strict=True)
        for kind, told in ((LEVEL, {"data_hash": images}), (SCORE, {}))
    ]


def test_older_searches_on_other_images_are_told_apart_where_their_rows_show_it() -> None:
    told = {"settings": {"rate": 0.5}}
    assert len(summary(*old_levels("aaaa", "aaaa", **told))) == 1
    assert {name for _, name in summary(*old_levels("aaaa", "bbbb", **told))} == {
        "rotnet (images aaaa)",
        "rotnet (images bbbb)",
    }
    # Where the seed draws the images or the labels, hashes differ anyway ...
    assert len(summary(*old_levels("aaaa", "bbbb", subset=0.1, **told))) == 1
    assert len(summary(*old_levels("aaaa", "bbbb", objective="supervised-shuffled", **told))) == 1
    assert len(summary(*old_levels("aaaa", "bbbb", settings={"labels": 0.1}))) == 1
    # ... but not those of one seed.
    assert len(summary(*old_levels("aaaa", "bbbb", seeds=(0, 0), subset=0.1))) == 2


@pytest.mark.parametrize("kind", [LEVEL, CHANNELS])
def test_levels_of_other_images_are_neither_pooled_nor_summed(kind: Row) -> None:
    """Two machines may give one name to the folders of searches on different images."""
    rows = [
        row(kind, level=level, density=0.5**level, source_hash=images, ticket_hash=f"{level}{images}", **changes)
        for level, (images, changes) in product(
            (1, 2), {"aaaa": {}, "bbbb": {"layers": {"first": [5, 10], "last": [16, 90]}}}.items()
        )
    ]
    content = Content(frame(*rows))
    assert [heat.title for heat in content.layer_maps] == ["conv, rotnet (images aaaa)", "conv, rotnet (images bbbb)"]
    assert [heat.cells[0][0][0] for heat in content.layer_maps] == ["90", "50"]
    if kind is LEVEL:
        assert set(content.levels["cost_steps"]) == {10, 20}
        assert set(scores.mean_costs(content.levels)["tickets"]) == {"rotnet (images aaaa)", "rotnet (images bbbb)"}
    else:
        assert mask_analyses.dead_channels_section(content.rows) is not None


BUILT = {
    "stability": (STABILITY, training_analyses.stability_section, "pruning_distance"),
    "connectivity": (CONNECTIVITY, training_analyses.connectivity_section, "barrier"),
    "magnitudes": (MAGNITUDES, training_analyses.magnitudes_section, "natural_density"),
}


@pytest.mark.parametrize("name", BUILT)
@pytest.mark.parametrize(
    ("changes", "charts", "series"),
    [
        (({"head": "own"}, {"head": "new"}), 1, {"rotnet", "rotnet, own head"}),
        (({"source_hash": "aaaa"}, {"source_hash": "bbbb"}), 1, {"rotnet (images aaaa)", "rotnet (images bbbb)"}),
        (({"precision": "bf16"}, {"precision": "fp32"}), 1, {"rotnet, bf16", "rotnet, fp32"}),
        (({"start": "0"}, {}), 2, {"rotnet"}),
        (({"protocol_hash": "aaaa"}, {"protocol_hash": "bbbb"}), 2, {"rotnet"}),
        (({"data_hash": "aaaa"}, {"data_hash": "bbbb"}), 2, {"rotnet"}),
    ],
)
def test_analyses_pool_no_other_conditions(name: str, changes: tuple[Row, Row], charts: int, series: set[str]) -> None:
    kind, build, measure = BUILT[name]
    told = {"pruning_distance": (4.0, 8.0), "barrier": (0.1, 0.3), "natural_density": (0.25, 0.75)}[measure]
    rows = [
        row(kind, ticket_hash=str(value), search_seed=seed, **{measure: value}, **changed)
        for seed, (value, changed) in enumerate(zip(told, changes, strict=True))
    ]
    part = build(stats.name_series(frame(*rows)))
    assert part is not None
    first = {"stability": "stability-pruning_distance", "connectivity": "barrier-", "magnitudes": "natural"}[name]
    drawn = [chart for chart in part.charts() if chart.name.startswith(first)]
    assert len(drawn) == charts
    assert {curve.series for chart in drawn for curve in chart.curves} == series
    scale = 1 if name == "stability" else 100
    assert sorted(point.y for chart in drawn for curve in chart.curves for point in curve.points) == pytest.approx(
        [scale * value for value in told]
    )


def test_rewind_points_of_other_heads_and_images_are_curves_of_their_own() -> None:
    rows = [
        row(
            SCORE,
            run=at,
            recipe=at,
            search="IMP",
            settings={"rewind": at},
            rewind_samples=samples,
            top1=top1,
            head=head,
        )
        for at, samples in (("0it", 0), ("1ep", 90))
        for head, top1 in (("own", 0.9), ("new", 0.5))
    ]
    part = training_analyses.rewinding_section(stats.name_series(frame(*rows)))
    assert part is not None
    [chart] = part.charts()
    assert {curve.series: {point.y for point in curve.points} for curve in chart.curves} == {
        "rotnet": {50},
        "rotnet, own head": {90},
    }
    starts = [each | {"start": "k" if each["head"] == "own" else "0"} for each in rows]
    part = training_analyses.rewinding_section(stats.name_series(frame(*starts)))
    assert part is not None
    assert len(list(part.charts())) == 2


def test_overlaps_of_searches_on_other_images_are_not_pooled() -> None:
    told = {"other_run": "c", "other_objective": "byol", "other_hash": "c"}
    rows = [
        row(OVERLAP, source_hash=images, ticket_hash=images, search_seed=seed, other_seed=seed, jaccard=jaccard, **told)
        for seed, (images, jaccard) in enumerate({"aaaa": 0.3, "bbbb": 0.9}.items())
    ]
    part = mask_analyses.overlap_section(stats.name_series(frame(*rows)))
    assert part is not None
    drawn = [chart for chart in part.charts() if chart.title.startswith("conv, byol")]
    assert {curve.series: curve.points[0].y for chart in drawn for curve in chart.curves if not curve.label} == {
        "rotnet (images aaaa)": 30,
        "rotnet (images bbbb)": pytest.approx(90),
    }


def test_transfer_has_a_column_for_each_setting_of_a_protocol() -> None:
    rows = two("start", "0", "k")
    [(_, heat)] = Content(frame(*rows)).transfer_maps
    assert heat.columns == ("digits (start 0)", "digits (start k)")
    assert [cell and cell[0] for cell in heat.cells[0]] == ["90.0", "50.0"]
    [(_, heat)] = Content(frame(*two("target", "a", "b"))).transfer_maps
    assert heat.columns == ("digits on a", "digits on b")


def test_panels_of_one_name_say_what_tells_them_apart() -> None:
    content = Content(frame(*two("start", "0", "k")))
    assert {panel.accuracy_charts[0].title for panel in content.panels} == {
        "conv on digits (start 0) under digits: top-1 against density",
        "conv on digits (start k) under digits: top-1 against density",
    }


def test_searches_own_trainings_are_pooled_by_the_whole_set_and_not_by_what_the_seed_drew() -> None:
    """Subsets and shuffled labels are drawn by the seed, so replicates trained on other `data_hash`es."""
    own = {"protocol": "search", "source_hash": "aaaa"}
    rows = [
        row(MAGNITUDES, ticket_hash=drawn, search_seed=seed, data_hash=drawn, **own) for seed, drawn in enumerate("bc")
    ]
    other = row(MAGNITUDES, ticket_hash="d", search_seed=2, data_hash="d", **(own | {"source_hash": "eeee"}))
    assert set(stats.name_series(frame(*rows))["condition"]) == {""}
    assert len(set(stats.name_series(frame(*rows, other))["condition"])) == 2
