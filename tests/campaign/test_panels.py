"""Panels drawn from rows: numbers against scipy, published ones beside them, real rows as the papers' figures."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from matplotlib.legend import Legend
from PIL import Image
from scipy import stats

from sslticket.campaign import figure, published_numbers
from sslticket.campaign.drawing import DrawnFigure, FigureContent, draw_figure
from sslticket.campaign.panel_values import name_rows, non_dominated, panel_values, series_means
from sslticket.campaign.panels import Between, Near, Ordering, Panel, Published, Trend
from sslticket.errors import BadInput
from sslticket.report import figures
from sslticket.report.chart import Chart, Mark, NumberTable, stack_tags
from tests.campaign.made_rows import Sketch, committed, finding, frame, row, scored
from tests.report.chromium import Chromium

SERIES: Mapping[str, Mapping[str, object]] = {
    "labels": {"objective": "supervised", "control": "ticket"},
    "random": {"control": "random"},
}
ROWS = [
    *scored("supervised", {1.0: [0.9, 0.92], 0.25: [0.8, 0.84], 0.0625: [0.7, 0.76]}),
    *scored("supervised", {0.25: [0.5, 0.6], 0.0625: [0.3, 0.4]}, control="random"),
]
TOP1 = Published(
    drawn="points", place="Figure 3 table", network="Lenet", method="IMP ticket", condition="standard*",
    quantity="top1", series="labels", at=0.107,
)  # fmt: skip


def content(panels: Sequence[Panel], rows: Any, **others: Any) -> FigureContent:
    return FigureContent(Sketch(panels=panels, **others), rows, scale="small")


def chart(panel: Panel, rows: Any) -> Chart:
    [part] = content([panel], rows).parts
    assert isinstance(part, Chart)
    return part


def curve(drawn: Chart, series: str) -> list[tuple[float, float]]:
    [found] = [each for each in drawn.curves if each.series == series]
    return [(point.x, point.y) for point in found.points]


def test_curves_are_means_over_searches_with_students_interval() -> None:
    drawn = chart(Panel(title="a", series=SERIES), frame(ROWS))
    assert curve(drawn, "labels") == [(1.0, pytest.approx(91)), (0.25, pytest.approx(82)), (0.0625, pytest.approx(73))]
    point = drawn.curves[0].points[1]
    ends = stats.t.interval(0.95, 1, loc=82, scale=stats.sem([80, 84]))
    assert (point.low, point.high) == pytest.approx(ends)
    assert drawn.horizontal_line == (pytest.approx(91), "dense network")


def test_trainings_of_one_search_are_averaged_first() -> None:
    again = row(objective="supervised", density=0.25, level=1, seed=7, top1=0.6)  # of search 0, which has 0.8
    values = panel_values(Panel(title="a", series=SERIES), name_rows(frame([*ROWS, again])))
    own = values.series("labels")
    assert own.loc[own["x"] == 0.25, "y"].tolist() == pytest.approx([0.7, 0.84])
    assert own.loc[own["x"] == 0.25, "trainings"].tolist() == [2, 1]


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"recipe": "ffff0000", "settings": {"lr": 0.1}}, "variant ffff0000"),
        ({"eval_hash": "9999"}, "condition"),
        ({"protocol": "large"}, "protocol"),
        ({"numerics": "bf16"}, "numerics"),
        ({"head": "own"}, "head"),
        ({"source_hash": "7777"}, "images"),
    ],
)
def test_rows_of_other_settings_data_or_numerics_are_never_averaged(changes: dict[str, Any], word: str) -> None:
    others = [each | changes for each in ROWS[2:4]]
    rows = [each | ({"source_hash": "1111"} if "source_hash" in changes else {}) for each in ROWS]
    own = content([Panel(title="a", series=SERIES)], frame(rows, others))
    part = own.parts[0]
    assert isinstance(part, Chart)
    assert curve(part, "labels")[1] == (0.25, pytest.approx(82))
    [sentence] = [each for each in own.left_out if each.startswith("a: 2 rows of labels, never averaged")]
    assert word in sentence


def test_what_is_missing_or_of_no_series_is_counted_and_named() -> None:
    panel = Panel(title="a", series={**SERIES, "RotNet": {"objective": "rotnet"}})
    rows = frame(ROWS, [row(objective="exemplar", density=0.25, level=1, top1=0.1)])
    own = FigureContent(Sketch(panels=[panel]), rows, scale="small", failed=["cell 3 failed: out of memory"])
    assert "a: no rows of RotNet" in own.left_out
    assert "1 rows of the kind score under small belong to no series of this figure" in own.left_out
    assert "cell 3 failed: out of memory" in own.left_out
    assert "left out: a: no rows of RotNet" in own.lines


def test_small_print_names_densities_that_no_axis_tells_and_panels_without_rows() -> None:
    near = {"density": Near(value=0.0625)}
    panels = [
        Panel(title="a", x="level", series=SERIES, where=near),
        Panel(title="b", series={"byol": {"objective": "byol"}}),
    ]
    footer = content(panels, frame(ROWS)).footer
    assert "Tickets of 6.25% of the weights." in footer
    assert "Not drawn, for there are no rows: b." in footer
    assert "of the weights" not in content([Panel(title="a", series=SERIES)], frame(ROWS)).footer


def test_rows_of_another_figure_are_refused(tmp_path) -> None:
    panel = Panel(title="a", series={"RotNet": {"objective": "rotnet"}})
    with pytest.raises(BadInput, match="none of the 10 rows is of stabilizing_figure3: no series"):
        draw_figure(Sketch(panels=[panel]), frame(ROWS), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_filters_take_settings_ranges_and_the_nearest_level() -> None:
    rows = frame([each | {"settings": {"scope": "global", "batch_size": 64}} for each in ROWS])
    named = name_rows(rows)

    def places(**where: object) -> list[float]:
        return sorted(set(panel_values(Panel(title="a", series=SERIES, where=where), named).series("labels")["x"]))

    assert places(scope="global", **{"batch-size": 64}) == [0.0625, 0.25, 1.0]
    assert places(scope="layer") == []
    assert places(density=Between(low=0.1, high=0.5)) == [0.25]
    assert places(density=Near(value=0.055)) == [0.0625]
    assert places(density=Near(value=0.01)) == []
    assert places(level=(0, 2)) == [0.0625, 1.0]
    # The random ticket is no recipe's, so a filter on recipes does not leave it out.
    values = panel_values(Panel(title="a", series=SERIES, where={"source": "cifar10", "scope": "global"}), named)
    assert len(values.series("random")) == 4


def test_searches_that_differ_in_their_rewind_point_are_points_of_one_series() -> None:
    rows = [
        each | {"recipe": f"r{steps}", "run": f"r{steps}-{each['search_seed']}", "rewind_samples": 64 * steps,
                "ticket_hash": f"r{steps}-{each['search_seed']}", "top1": each["top1"] + steps / 1000,
                "settings": {"rewind": f"{steps}it", "batch_size": 64}}
        for steps in (0, 10, 50) for each in ROWS[2:4]
    ]  # fmt: skip
    drawn = chart(Panel(title="a", x="rewind_iterations", series={"IMP": {"control": "ticket"}}), frame(rows))
    # 0 has no place on a logarithmic axis: it stands a third of the first, left of it.
    assert curve(drawn, "IMP") == [(pytest.approx(10 / 3), pytest.approx(82)), (10, pytest.approx(83)),
                                   (50, pytest.approx(87))]  # fmt: skip
    assert drawn.x.ticks(10 / 3, 60)[0] == (pytest.approx(10 / 3), "0")


def test_searches_on_parts_of_the_images_are_points_of_one_series() -> None:
    rows = frame(
        *(
            scored(
                "supervised",
                {0.25: [part, part]},
                recipe=f"{part}",
                subset=part,
                settings={"subset": part, "subset_by": "samples"},
            )
            for part in (0.01, 0.1, 1.0)
        )
    )
    series = {"labels": {"subset": (0.01, 1.0)}}
    found = panel_values(Panel(title="Law", x="subset", series=series), name_rows(rows, "subset"))
    assert [(each.x, each.y) for each in found.values.itertuples()] == [(0.01, 0.01)] * 2 + [(1.0, 1.0)] * 2


def test_published_accuracies_are_stars_of_their_series_in_per_cent() -> None:
    drawn = chart(Panel(title="a", series=SERIES, published=[TOP1]), frame(ROWS))
    assert drawn.marks == (
        Mark(
            "",
            "published: labels 98.3 ± 0.1%",
            (0.107, 0.107),
            (pytest.approx(98.3),) * 2,
            pytest.approx(0.1),
            "labels",
        ),
    )


def test_published_thresholds_are_lines_in_the_unit_of_their_axis_once_each() -> None:
    zeros = Published(drawn="threshold-x", paper="002", place="Figure [14] caption", quantity="sparsity_percent")
    dense = Published(drawn="threshold-y", place="Figure 2 table", network="Lenet", quantity="top1")
    small = Published(drawn="band", paper="000", quantity="remaining_percent")
    marks = chart(Panel(title="a", series=SERIES, published=[zeros, dense, small]), frame(ROWS)).marks
    # The captions of Figures 1 and 4 both say 85%: one line.
    assert [(mark.tag, mark.x, mark.y) for mark in marks] == [
        ("P1", (pytest.approx(0.15),) * 2, None),
        ("P2", None, (98.0, 98.0)),
        ("P3", (0.05, 0.1), None),
    ]
    assert [mark.words for mark in marks] == [
        "published: 85% pruned",
        "published: 98 ± 0.2% top-1",
        "published: 5 to 10% remaining",
    ]


def test_the_range_of_a_chart_holds_the_published_numbers() -> None:
    own = content([Panel(title="a", series=SERIES, published=[TOP1])], frame(ROWS))
    [axes] = figures.draw_panels(own.parts, own.styles).axes
    assert axes.get_ylim()[1] > 98.4
    assert axes.get_xlim()[0] > 1 > 0.0625 > axes.get_xlim()[1]


@pytest.mark.parametrize("shared", [False, True])
def test_many_series_that_the_charts_do_not_share_are_named_below_each(shared: bool) -> None:
    """Of a legend above all charts a reader could not tell which names are of which."""
    panels = []
    for number in range(4):
        at = 0 if shared else number
        labels = [f"series {4 * at + each}" for each in range(4)]
        panels.append(Panel(title=f"panel {number}", series=dict.fromkeys(labels, SERIES["labels"])))
    dense = Published(drawn="threshold-y", place="Figure 2 table", network="Lenet", quantity="top1")
    panels[0] = replace(panels[0], published=[dense])
    own = content(panels, frame(ROWS))
    picture = figures.draw_panels(own.parts, own.styles)
    legends = [(axes, legend) for axes in picture.axes for legend in axes.findobj(Legend)]
    texts = [[words.get_text() for words in legend.get_texts()] for _, legend in legends]
    assert texts[0].pop().startswith("P1 ")
    picture.draw_without_rendering()
    for axes, legend in legends:
        own_place, others = legend.get_window_extent(), [each for _, each in legends if each is not legend]
        every_frame = [each.get_window_extent() for each in picture.axes]
        taken = [axes.xaxis.label.get_window_extent(), *every_frame, *(each.get_window_extent() for each in others)]
        assert not any(own_place.overlaps(place) for place in taken), "a legend lies over what is drawn"
    above = [[words.get_text() for words in legend.get_texts()] for legend in picture.legends]
    every = [[*panel.series, "dense network"] for panel in panels]
    texts = [words for words in texts if words]
    assert (texts, above) == (([], [every[0]]) if shared else (every, []))


def test_marks_and_curves_are_told_apart_without_colours() -> None:
    panel = Panel(title="a", series=SERIES, published=[TOP1, Published(drawn="threshold-y", place="Figure 2 table",
                                                                       network="Lenet", quantity="top1")])  # fmt: skip
    own = content([panel], frame(ROWS))
    [axes] = figures.draw_panels(own.parts, own.styles).axes
    ours = [line for line in axes.lines if line.get_label() in SERIES]
    assert len({line.get_marker() for line in ours}) == len(ours) == 2
    stars = [line for line in axes.lines if line.get_marker() == "*"]
    assert [line.get_markerfacecolor() for line in stars] == ["#ffffff"]
    assert "*" not in {line.get_marker() for line in ours}
    dotted = [line for line in axes.lines if line.get_linestyle() == ":" or line.get_linestyle() == "--"]
    assert {line.get_linewidth() for line in dotted} == {0.8, 1.5}  # our dense network, and theirs
    assert [text.get_text() for text in axes.texts] == ["P1"]


def test_tags_that_would_touch_stand_in_rows() -> None:
    assert stack_tags([0.1, 0.5, 0.14, 0.16], 0.05) == [0, 0, 1, 0]
    assert stack_tags([], 0.05) == []


def test_a_table_has_ours_and_the_published_numbers_in_its_cells() -> None:
    cells = Published(drawn="cells", place="Figure 3 table", network="Lenet", method="IMP ticket", quantity="top1",
                      series="labels", column="accuracy")  # fmt: skip
    panel = Panel(title="a", kind="table", columns={"accuracy": "top1", "gain": "gain_on_dense"}, series=SERIES,
                  where={"density": Near(value=0.25)}, published=[cells])  # fmt: skip
    [part] = content([panel], frame(ROWS)).parts
    assert isinstance(part, NumberTable)
    assert part.columns == ("accuracy, %", "gain, points")
    reach = stats.t.ppf(0.975, 1) * stats.sem([80, 84])
    assert part.lines[0] == (
        "labels",
        (
            (f"82.0 ± {reach:.1f}", "98.3 ± 0.1"),
            (f"\N{MINUS SIGN}9.0 ± {stats.t.ppf(0.975, 1) * stats.sem([-10, -8]):.1f}", ""),
        ),
    )
    assert part.lines[1][1][0] == ("55.0 ± 63.5", "")


def test_the_front_is_what_no_other_ticket_is_both_sparser_and_better_than() -> None:
    points = [(0.5, 0.9), (0.3, 0.91), (0.3, 0.8), (0.2, 0.85), (0.1, 0.86), (0.05, 0.4)]
    rows = frame(
        [row(recipe=f"s0-{number}", density=density, level=number, top1=top1, run=f"r{number}")
         for number, (density, top1) in enumerate(points)]
    )  # fmt: skip
    panel = Panel(title="a", kind="front", series={"CS": {"control": "ticket"}}, fronts=["CS"])
    means = series_means(panel_values(panel, name_rows(rows)).values)
    assert non_dominated(means)[["x", "y"]].to_numpy().tolist() == [[0.05, 0.4], [0.1, 0.86], [0.3, 0.91]]
    best, others = chart(panel, rows).curves
    assert [point.x for point in best.points] == [0.3, 0.1, 0.05]
    assert (others.series, others.no_line, len(others.points)) == ("CS, other tickets", True, 3)


def test_scores_stand_at_the_mean_cost_of_their_searches_which_level_rows_tell() -> None:
    levels = [
        row(kind="level", control=None, metrics={}, probe={}, bad_images=0, level=level, density=density,
            search_seed=seed, search_samples=25 * level, search_forward_images=100 * level + 20 * seed)
        for level, density in enumerate((1.0, 0.25, 0.0625))
        for seed in (0, 1)
    ]  # fmt: skip
    panel = Panel(title="a", x="search_forward_images", series={"labels": SERIES["labels"]}, where={"density": 0.25})
    drawn = chart(panel, frame(ROWS, levels))
    assert curve(drawn, "labels") == [(110, pytest.approx(82))]
    assert (drawn.curves[0].points[0].low, drawn.curves[0].points[0].high) == pytest.approx(
        stats.t.interval(0.95, 1, loc=82, scale=stats.sem([80, 84]))
    )


def test_layers_are_numbered_and_their_pruned_share_is_over_the_networks() -> None:
    level = {"kind": "level", "control": None, "metrics": {}, "probe": {}, "search_samples": 10, "bad_images": 0}
    rows = frame([row(**level, density=0.25, layers={"conv1": [9, 10], "conv2": [1, 30]})])
    panel = Panel(title="a", x="layer", y="layer_pruned_ratio", series={"level 2": {"level": 2}})
    assert curve(chart(panel, rows), "level 2") == [(1, pytest.approx(0.1 / 0.75)), (2, pytest.approx(29 / 30 / 0.75))]


def test_accuracy_against_epoch_is_from_the_curve_of_the_rows() -> None:
    told = [[64, 1.0, 0.3], [128, 2.0, 0.5]]
    rows = frame([each | {"curve": told, "curve_every": "1ep"} for each in ROWS[2:4]])
    drawn = chart(Panel(title="a", x="epoch", series={"CS": {"control": "ticket"}}), rows)
    assert curve(drawn, "CS") == [(1.0, pytest.approx(30)), (2.0, pytest.approx(50))]
    assert drawn.horizontal_line is None


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"kind": "pie"}, "unknown kind of panel 'pie'"),
        ({"series": {}}, "has no series"),
        ({"kind": "table"}, "needs columns if it is a table"),
        ({"order": ("labels", "rotnet")}, "unknown series of the panel 'a' 'rotnet'"),
        ({"published": [TOP1.__class__(drawn="points", series="tickets", at=0.1)]}, "unknown series .* 'tickets'"),
    ],
)
def test_a_panel_that_cannot_be_drawn_is_refused(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(BadInput, match=told):
        Panel(**{"title": "a", "series": SERIES} | settings)


def test_published_points_need_their_series_and_place() -> None:
    with pytest.raises(BadInput, match="need the series that they are of and their place"):
        Published(drawn="points", quantity="top1")


def test_the_files_are_whole_and_the_same_bytes_for_the_same_rows(tmp_path) -> None:
    panel = Panel(title="a <b>", series=SERIES, published=[TOP1])
    sketch = Sketch(panels=[panel], findings=[finding(Ordering(series=("labels", "random")), "Labels > random.", 2)])
    one, two = (draw_figure(sketch, frame(ROWS), tmp_path / name, formats=figures.FORMATS, scale="small")
                for name in ("one", "two"))  # fmt: skip
    assert [file.name for file in (*one.files, one.page)] == [
        *(f"stabilizing_figure3.{kind}" for kind in figures.FORMATS), "stabilizing_figure3.html",
    ]  # fmt: skip
    for first, second in zip((*one.files, one.page), (*two.files, two.page), strict=True):
        assert first.read_bytes() == second.read_bytes()
    with Image.open(one.files[0]) as picture:
        assert picture.size[0] >= 700
    html = one.page.read_text("utf-8")
    assert "a &lt;b&gt;" in html
    assert "<b>" not in html
    assert "style-src &#39;sha256-" in html or "style-src 'sha256-" in html
    assert "Labels &gt; random." in html
    assert "so few searches cannot reach p below 5%" in html
    assert "98.3 ± 0.1%" in html


def test_an_unknown_format_is_refused_before_anything_is_written(tmp_path) -> None:
    with pytest.raises(BadInput, match="unknown format 'gif'"):
        draw_figure(Sketch(panels=[Panel(title="a", series=SERIES)]), frame(ROWS), tmp_path / "out", formats=["gif"])
    assert not (tmp_path / "out").exists()


# Rows that are committed as evidence, as the figures of the papers that they can show.


def drawn(tmp_path, panels: Sequence[Panel], name: str, findings: Sequence[Any] = ()) -> DrawnFigure:
    found = draw_figure(
        Sketch(panels=panels, findings=findings), committed(name), tmp_path, formats=["png"], scale="small"
    )
    with Image.open(found.files[0]) as picture:
        assert picture.size[0] >= 700
        assert len(picture.convert("L").getcolors(256) or []) > 20
    return found


def test_stability_against_the_rewind_point_from_real_searches(tmp_path) -> None:
    """As Figures 4 and 11 of Frankle et al. 2019."""
    series = {"IMP": {"search": "IMP", "control": "ticket"}, "random": {"search": "IMP", "control": "local"}}
    panels = [Panel(title=y, x="rewind_iterations", y=y, series=series, where={"density": Near(value=0.0156)})
              for y in ("order_distance", "pruning_distance", "order_angle")]  # fmt: skip
    found = drawn(tmp_path, panels, "searches/conv3.parquet", [finding(Trend(series="IMP", rising=False))])
    rows = committed("searches/conv3.parquet")
    rows = rows[(rows["kind"] == "stability") & (rows["control"] == "ticket") & (rows["density"] < 0.02)]
    steps = rows["rewind_samples"].astype(float) / 64
    assert sorted(set(steps)) == [0, 10, 30, 60, 100]
    table = rows.assign(steps=steps, y=rows["order_distance"].astype(float)).pivot_table("y", "search_seed", "steps")
    slopes = [np.polyfit(range(5), own, 1)[0] for own in table.to_numpy()]
    [verdict] = found.verdicts
    assert verdict.p == pytest.approx(stats.ttest_1samp(slopes, 0).pvalue)
    assert "from place to place of the 5 on rewind_iterations, 6 searches" in verdict.numbers


def test_the_front_of_real_searches_that_learn_their_masks(tmp_path) -> None:
    """As Figure 3 of Savarese et al. 2019."""
    series: dict[str, Mapping[str, object]] = {
        "CS": {"search": "ContinuousSparsification", "frozen": False},
        "IMP": {"search": "IMP", "rewind": "30it"},
    }
    panel = Panel(title="conv3", kind="front", series=series, fronts=["CS"], order=("CS", "IMP"))
    found = drawn(tmp_path, [panel], "searches/conv3.parquet")
    rows = committed("searches/conv3.parquet")
    own = rows[(rows["search"] == "ContinuousSparsification") & (rows["kind"] == "score")]
    own = own[[not settings["frozen"] for settings in own["settings"]]].astype({"top1": float})
    tickets = own.groupby([own["recipe"], "level"]).agg(x=("density", "mean"), y=("top1", "mean"))
    front = [each for each in tickets.itertuples()
             if not any(other.x <= each.x and other.y > each.y for other in tickets.itertuples())]  # fmt: skip
    best, *_ = chart(panel, rows).curves
    expected = np.sort([100 * float(str(each.y)) for each in front])[::-1]
    assert [point.y for point in best.points] == pytest.approx(list(expected))
    assert any("Kendall's tau with the paper's order CS > IMP" in line for line in found.lines)


def test_controls_of_real_tickets(tmp_path) -> None:
    """As Figure A1 of Morcos et al. 2019."""
    controls = ("ticket", "preserved", "local", "permuted")
    panel = Panel(title="conv3", series={name: {"control": name} for name in controls}, order=controls,
                  where={"objective": "supervised", "scope": "global", "head": "new"})  # fmt: skip
    found = drawn(tmp_path, [panel], "transfer/own.parquet", [finding(Ordering(series=("ticket", "permuted")))])
    rows = committed("transfer/own.parquet")
    rows = rows[(rows["kind"] == "score") & (rows["objective"] == "supervised") & (rows["head"] == "new")]
    rows = rows[[settings["scope"] == "global" for settings in rows["settings"]]].astype({"top1": float})
    means = rows[rows["density"] < 0.02].groupby("control")["top1"].mean()
    assert list(means.loc[list(controls)].sort_values(ascending=False).index) == list(controls)
    assert any("1.00 at 1.56%" in line for line in found.lines)
    assert found.verdicts[0].verdict == "borne out"


def test_a_grid_of_targets_from_real_transfers(tmp_path) -> None:
    """As Figures 3 and 4 of Morcos et al. 2019, for three targets."""
    series: dict[str, Mapping[str, object]] = {
        **{name: {"source": name} for name in ("cifar10", "cifar10a", "fashion_mnist")},
        "random": {"control": "random"},
    }
    where = {"objective": "supervised", "optimizer": "Adam"}
    panels = [
        Panel(title=target, series=series, where={**where, "target": target, "protocol": f"{target}-small"})
        for target in ("cifar10", "fashion_mnist", "cifar10b")
    ]
    found = drawn(tmp_path, panels, "transfer/rows.parquet")
    assert {"cifar10b: no rows of cifar10", "cifar10b: no rows of fashion_mnist"} <= set(found.left_out)
    rows = committed("transfer/rows.parquet")
    rows = rows[(rows["kind"] == "score") & (rows["source"] == "fashion_mnist") & (rows["target"] == "cifar10")]
    rows = rows[(rows["objective"] == "supervised") & (rows["control"] == "ticket")].astype({"top1": float})
    expected = 100 * rows.groupby("density")["top1"].mean().sort_index(ascending=False)
    part = content(panels, committed("transfer/rows.parquet")).parts[0]
    assert isinstance(part, Chart)
    assert [y for _, y in curve(part, "fashion_mnist")] == pytest.approx(list(expected))


def test_magnitudes_of_real_weights(tmp_path) -> None:
    """As Figures 6 and 9 of Caron et al. 2020: what is below machine precision are natural zeros."""
    zeros = Published(drawn="threshold-x", paper="002", place="Figure 6 caption", quantity="natural_zeros_percent")
    panel = Panel(title="conv3", kind="histogram", series={"CIFAR-10": {"search": "IMP"}}, published=[zeros])
    drawn(tmp_path, [panel], "searches/conv3.parquet")
    rows = committed("searches/conv3.parquet")
    part = chart(panel, rows)
    assert [mark.x for mark in part.marks] == [(84.5, 84.5), (80.3, 80.3)]
    line = curve(part, "CIFAR-10")
    assert all(one[0] <= other[0] and one[1] < other[1] for one, other in pairwise(line))
    assert (line[0][1], line[-1][0]) == (pytest.approx(math.log10(np.finfo(np.float32).eps)), pytest.approx(100))


def test_the_published_numbers_of_every_figure_can_be_drawn_where_it_says() -> None:
    """Whatever a figure's panels ask for is there, in the unit of the axis or column, at every scale."""
    shown = set()
    for own in figure.figures().values():
        for scale in own.scales:
            for panel in own.at(scale).panels:
                for wanted in panel.published:
                    numbers = published_numbers.choose_numbers(wanted, own.published_as)
                    shown |= {number.line for number in numbers}
                    for number in numbers if wanted.drawn == "cells" else ():
                        published_numbers.ends_in_column(number, panel.columns[wanted.column])
    # All cells of the tables with outcomes but ratios and levels, which notes tell.
    assert {number.line for number in published_numbers.published_numbers() if number.quantity == "top1"} <= shown


@pytest.mark.browser
def test_the_page_of_a_figure_fits_a_screen_and_a_phone_and_asks_for_nothing(tmp_path) -> None:
    cells = Published(drawn="cells", place="Figure 3 table", network="Lenet", method="IMP ticket", quantity="top1",
                      series="labels", column="accuracy")  # fmt: skip
    zeros = Published(drawn="threshold-x", paper="002", place="Figure 1 caption", quantity="sparsity_percent")
    panels = [
        *(Panel(title=f"chart {number}", series=SERIES, published=[TOP1, zeros]) for number in range(3)),
        Panel(title="table", kind="table", columns={"accuracy": "top1"}, series=SERIES, published=[cells],
              where={"density": Near(value=0.25)}),
    ]  # fmt: skip
    shown = draw_figure(Sketch(panels=panels), frame(ROWS), tmp_path, formats=(), scale="small").page
    with Chromium(tmp_path / "profile") as browser:
        for width in (1280, 400):
            page = browser.page(shown, width=width)
            assert page.ask("document.documentElement.scrollWidth") <= width
            assert page.ask("document.querySelectorAll('svg.chart').length") == 3
            assert page.ask("[...document.querySelectorAll('svg .tag')].map(each => each.textContent)") == ["P1"] * 3
            # A published star is filled with the page's white, our marker with its series' colour.
            fills = (
                "[...document.querySelectorAll('.chart .star, .chart .mark')].map(each => getComputedStyle(each).fill)"
            )
            assert set(page.ask(fills)) == {"rgb(255, 255, 255)", "rgb(0, 114, 178)", "rgb(107, 114, 128)"}
            assert page.complaints() == []
            assert page.requests() == [shown.as_uri()]
