import io
import math
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from sslticket import report
from sslticket.errors import BadInput
from sslticket.report import figures
from sslticket.report.chart import MAX_SERIES, Axis, assign_styles, format_count, format_duration
from sslticket.report.content import Content
from sslticket.report.sections import split_series
from sslticket.results import rows, table


@pytest.fixture
def content(folder) -> Content:
    return Content(table.read_rows([folder]))


def test_curves_draw_the_means_densest_first_on_a_log_axis(content):
    [axes] = figures.draw_charts(content.panels[0].accuracy_charts, content.styles).axes
    drawn = {line.get_label(): line.get_xydata() for line in axes.lines}
    densities = [1, 0.5, 0.25, 0.125]
    np.testing.assert_allclose(drawn["rotnet"], list(zip(densities, [98.5, 96.5, 94.5, 92.5], strict=True)))
    np.testing.assert_allclose(drawn["random"], list(zip(densities, [97, 87, 77, 67], strict=True)))
    assert axes.get_xscale() == "log"
    assert axes.get_xlim()[0] > 1 > 0.125 > axes.get_xlim()[1]
    band = axes.collections[0].get_paths()[0].vertices[:, 1]
    assert band.max() == pytest.approx(99.5 + 100 * np.std([0.98, 0.99], ddof=1), abs=1.1)


def test_differences_draw_the_gain_and_its_interval(content):
    [against_labels], [against_random] = content.panels[0].difference_charts
    [curve] = against_labels.curves
    assert [point.y for point in curve.points] == pytest.approx([0, -1, -2, -3])
    assert [curve.series for curve in against_random.curves] == ["supervised", "rotnet"]
    # At level 1 two searches reach 96 and 97%, two random tickets 88 and 86%.
    point = against_random.curves[1].points[1]
    ends = stats.ttest_ind([96, 97], [88, 86], equal_var=False).confidence_interval()
    assert (point.low, point.y, point.high) == pytest.approx((ends.low, 9.5, ends.high))


def test_heat_maps_draw_what_remains_of_each_layer_and_mark_the_empty(content):
    first, _ = content.layer_maps
    assert first.rows == ("first", "last")
    assert [[told for told, _ in line] for line in first.cells] == [
        ["100", "90", "90", "90"],
        ["100", "50", "24.4", "0"],
    ]
    assert [math.isnan(shade) for _, shade in first.cells[1]] == [False, False, False, True]
    [axes] = figures.draw_heat_map(first).axes
    drawn = axes.images[0].get_array()
    np.testing.assert_allclose(drawn[1, 3, :3], [0xD5 / 255, 0x5E / 255, 0], atol=1e-6)
    assert drawn[1, :3, 0].tolist() == sorted(drawn[1, :3, 0])  # the less is left, the paler


@pytest.mark.parametrize("kind", figures.FORMATS)
def test_every_figure_of_the_page_is_a_file(runs, searched, tmp_path, kind):
    folder = runs(*(row for row in searched if row["run"] == "rotnet-1"))
    content = Content(table.read_rows([folder]))
    starts = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}
    written = report.write_report([folder], tmp_path / "report.html", figures=tmp_path / "figures", kind=kind).figures
    specs = {path.with_name(f"{path.stem}.vl.json") for path in written}
    assert {*written, *specs} == {*(tmp_path / "figures").iterdir()}
    assert len(written) == len([*content.charts(), *content.heat_maps()]) >= 7
    assert all(path.read_bytes().startswith(starts[kind]) for path in written)
    # The same figure is the same file, so that a paper's repository shows what changed.
    chart = content.panels[0].accuracy_charts[0]
    again = figures.figure_bytes(figures.draw_charts([chart], content.styles), kind)
    assert (tmp_path / "figures" / figures.figure_filename(chart.name, kind)).read_bytes() == again


def test_a_file_in_place_of_the_folder_of_figures_is_named(folder, tmp_path):
    (tmp_path / "taken").touch()
    with pytest.raises(BadInput, match=r"taken is a file; give --figures the name of a folder"):
        report.write_report([folder], tmp_path / "report.html", figures=tmp_path / "taken")


def test_names_of_files_hold_no_signs_that_lead_elsewhere():
    assert figures.figure_filename("transfer-../a b:c-51.2", "pdf") == "transfer-..-a-b-c-51.2.pdf"


def test_the_picture_beside_the_page_is_not_blank(folder, tmp_path):
    picture = Image.open(io.BytesIO(report.write_report([folder], tmp_path / "report.html").png.read_bytes())).convert(
        "RGB"
    )
    colours = {colour for count, colour in picture.getcolors(1 << 24) if count > 100}
    assert {(0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00), (0x6B, 0x72, 0x80)} <= colours


def test_ticks_are_round_and_few():
    log, linear = Axis("", "density", log=True), Axis("")
    assert [words for _, words in log.ticks(0.02, 1)] == ["2%", "5%", "10%", "20%", "50%", "100%"]
    assert [words for _, words in log.ticks(0.0008, 1)] == ["0.1%", "1%", "10%", "100%"]
    assert [words for _, words in log.ticks(0.67, 1.5)] == ["80%", "100%"]  # around the dense network alone
    assert [value for value, _ in linear.ticks(83, 99)] == [85, 90, 95]
    assert [value for value, _ in linear.ticks(86, 99)] == [87.5, 90, 92.5, 95, 97.5]
    assert [words for _, words in linear.ticks(-0.3, 0.5)] == ["\N{MINUS SIGN}0.2", "0", "0.2", "0.4"]


def test_a_control_has_the_colour_of_its_tickets_with_another_line():
    found = assign_styles(
        [("rotnet", "rotnet", "ticket"), ("supervised (levels 3)", "supervised (levels 3)", "ticket"),
         ("supervised (levels 3), local", "supervised (levels 3)", "local"), ("random", "", "random")]
    )  # fmt: skip
    assert [look.colour for look in found.values()] == [1, 0, 0, None]
    assert found["supervised (levels 3)"].dash != found["supervised (levels 3), local"].dash
    assert len({look.marker for look in found.values()}) == 4


def test_every_control_and_another_head_have_lines_of_their_own():
    name = "supervised"
    own = ((each, name, "ticket") for each in (name, f"{name}, own head"))
    series = [*own, *((each, name, each) for each in list(rows.CONTROLS)[1:])]
    found = assign_styles(series)
    lines = {look.dash for name, look in found.items() if name != "random"}
    assert len(lines) == len(series) - 1
    assert {look.colour for name, look in found.items() if name != "random"} == {0}


@pytest.mark.parametrize(("count", "words"), [(640, "640"), (38_400, "38.4k"), (999_999, "1M"), (1.2e9, "1.2G")])
def test_counts_are_brief(count, words):
    assert format_count(count) == words


@pytest.mark.parametrize(("seconds", "words"), [(9.5, "9.5 s"), (90, "1.5 min"), (7200, "2 h"), (9e6, "2,500 h")])
def test_times_have_the_unit_that_suits_them(seconds, words):
    assert format_duration(seconds) == words


def many_series(score, count: int = 8) -> list[dict[str, object]]:
    """Objectives from several sources with controls, more than one chart can show."""
    return [
        score(run=f"{objective}-{source}", objective=f"task{objective}", source=source, control=control,
              density=density, level=level, ticket_hash=f"{objective}{source}{level}")
        for objective in range(count) for source in ("cifar10", "svhn", "digits")
        for control in ("ticket", "local", "random") for level, density in enumerate((1.0, 0.5))
    ]  # fmt: skip


def test_no_chart_has_more_series_than_can_be_told_apart_and_none_is_lost(runs, score):
    content = Content(table.read_rows([runs(*many_series(score))]))
    [panel] = content.panels
    charts = panel.accuracy_charts
    shown = [{curve.series for curve in chart.curves} for chart in charts]
    assert set().union(*shown) == set(panel.summary["series"])
    assert len(panel.summary["series"].unique()) == 8 * 3 * 2 + 1
    assert all("random" in each and len(each) <= MAX_SERIES for each in shown)
    assert [chart.part for chart in charts] == [f"from {name}: 17 series" for name in ("cifar10", "digits", "svhn")]
    for each in shown:
        styles = [content.styles[name] for name in each]
        assert len({(style.colour, style.marker, style.dash, style.hollow) for style in styles}) == len(each)


def test_the_page_has_a_key_for_each_part_and_the_picture_names_what_it_leaves_out(runs, score, tmp_path):
    page = report.write_report([runs(*many_series(score))], tmp_path / "report.html").html.read_text("utf-8")
    assert page.count('<ul class="key">') >= 3
    assert "from digits: 17 series" in page


def test_few_series_stay_in_one_chart(content):
    assert [chart.part for chart in content.panels[0].accuracy_charts] == [""]


def test_series_that_no_fact_tells_apart_are_shown_in_parts(content):
    names = [f"x{number}" for number in range(40)]
    parts = split_series(names, {})
    assert [group.words for group in parts] == ["part 1 of 3", "part 2 of 3", "part 3 of 3"]
    assert [name for group in parts for name in group.names] == names


def test_no_chart_is_lost_or_overfull_where_there_are_many_shared_controls():
    names = [f"random {number}" for number in range(20)] + ["RotNet"]
    facts = {name: {"shared": "shared" if name != "RotNet" else ""} for name in names}
    for shown in (names, names[:20]):
        parts = split_series(shown, facts)
        assert sorted(name for group in parts for name in group.names) == sorted(shown)
        assert max(len(group.names) for group in parts) <= MAX_SERIES


def test_names_of_any_length_leave_the_axes_room(content):
    chart = content.panels[0].accuracy_charts[0]
    long = {curve.series: f"{curve.series} {'very long ' * 60}" for curve in chart.curves}
    curves = tuple(replace(curve, series=long[curve.series]) for curve in chart.curves)
    styles = {long[name]: style for name, style in content.styles.items() if name in long}
    made = figures.draw_charts([replace(chart, curves=curves)] * 2, styles)
    figures.figure_bytes(made, "png")  # warnings are errors: matplotlib warns where the axes have no room
    assert made.axes[0].get_position().width > 0.1
