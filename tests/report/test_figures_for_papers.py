"""Figures as papers take them: by width, with Vega-Lite beside; and what a reader tells apart in them."""

import json
import math
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from sslticket import report
from sslticket.cli import commands
from sslticket.errors import BadInput
from sslticket.report import figures, vega
from sslticket.report.chart import (
    CARDS,
    COLOURS,
    MAX_SERIES,
    Axis,
    Chart,
    Curve,
    Point,
    assign_styles,
    contrast,
    direct_labels,
    objective_colour,
    spread_apart,
    tinted,
    x_ticks,
)
from sslticket.report.content import Content
from sslticket.report.svg import draw_svg
from sslticket.results import table

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def content() -> Content:
    return Content(table.read_rows([DOCS / "transfer/rows.parquet"]))


def flat_chart(*densities: float, names: tuple[str, ...] = ("rotnet",)) -> Chart:
    points = tuple(Point(each, 50.0, "") for each in densities)
    curves = tuple(Curve(name, points) for name in names)
    return Chart("a", "a", Axis("weights", "density", log=True), Axis("top-1, %"), curves)


def test_series_of_one_objective_and_of_many_are_all_told_apart() -> None:
    one = [(f"supervised ({number})", f"supervised ({number})", "ticket") for number in range(MAX_SERIES)]
    many = [(f"rotnet from {source}", f"rotnet from {source}", "ticket") for source in "abcd"]
    many += [(f"rotnet from {source}, {control}", f"rotnet from {source}", control)
             for source, control in product("abcd", ("preserved", "local", "reset"))]  # fmt: skip
    for series in (one, many):
        styles = assign_styles(series).values()
        assert len({(each.hex, each.dash, each.marker, each.hollow) for each in styles}) == len(series) >= 16
        assert len({(each.hex, each.dash) for each in styles}) >= 16  # lines alone, without markers
    # One after another, those of one objective have contrasts with paper that are far apart.
    shades = [contrast(tinted(COLOURS[0], tint, CARDS[0]), CARDS[0]) for tint in range(4)]
    assert shades == pytest.approx([5.2, 13, 3.05, 8], rel=0.06)


def test_an_objective_keeps_its_colour_whatever_else_is_on_the_page() -> None:
    for others in ([], [("byol", "byol", "ticket")], [("supervised", "supervised", "ticket")] * 3):
        found = assign_styles([*others, ("rotnet 10%", "rotnet 10%", "ticket"), ("random", "", "random")])
        assert found["rotnet 10%"].colour == objective_colour("rotnet") == 1
        assert found["random"].colour is None
    own = {objective_colour(f"task{number}") for number in range(50)}
    assert own <= set(range(len(COLOURS)))
    assert not own & {objective_colour(name) for name in ("supervised", "rotnet", "exemplar", "s4l", "byol", "dino")}


def test_pages_of_other_rows_have_the_same_colours(content) -> None:
    other = Content(table.read_rows([DOCS / "transfer/own.parquet"]))
    for each in (content, other):
        for name, style in each.styles.items():
            if name not in ("random", "adjusted"):
                assert style.colour == objective_colour(name.split(" ")[0].rstrip(",")), name


def test_ticks_are_at_the_tickets_densities() -> None:
    chart = flat_chart(1.0, 0.5, 0.107, 0.0156)
    assert x_ticks(chart, (0.0156, 1.0), 500, 7) == [(1.0, "100%"), (0.5, "50%"), (0.107, "10.7%"), (0.0156, "1.56%")]
    # Where words would touch, those of the ends stay.
    narrow = x_ticks(chart, (0.0156, 1.0), 120, 7)
    assert [value for value, _ in narrow] == [1.0, 0.5, 0.107, 0.0156]
    assert [words for _, words in narrow] == ["100%", "", "10.7%", "1.56%"]
    many = flat_chart(*(0.97**number for number in range(100)))
    assert x_ticks(many, (0.05, 1.0), 500, 7)[0] == (1.0, "100%")
    assert len(x_ticks(many, (0.05, 1.0), 500, 7)) < 10


def test_few_series_have_their_names_at_their_lines_and_none_touch() -> None:
    few = flat_chart(1.0, 0.5, names=("rotnet", "supervised", "random"))
    assert direct_labels(few) == ["rotnet", "supervised", "random"]
    assert direct_labels(flat_chart(1.0, names=tuple("abcdef"))) == []
    assert direct_labels(flat_chart(1.0, names=("a" * 60,))) == []
    styles = assign_styles([(name, "" if name == "random" else name, "ticket") for name in direct_labels(few)])
    drawn = draw_svg(few, styles, 1080, 420)
    assert drawn.count('class="name"') == 3
    assert 'class="name"' not in draw_svg(few, styles, 360, 310)
    places = spread_apart([10, 10, 10, 90], 14, 0, 100)
    assert sorted(places) == [10, 24, 38, 90]
    assert max(spread_apart([99, 99, 99], 14, 0, 100)) == 100


def test_single_searches_are_dots_and_errors_are_on_a_logarithmic_axis(content) -> None:
    panel = content.panels[0]
    [accuracy], [error] = panel.accuracy_charts, panel.error_charts
    for curve, turned in zip(accuracy.curves, error.curves, strict=True):
        own = panel.searches[panel.searches["series"] == curve.series]
        assert sorted(curve.dots) == sorted(zip(own["density"], 100 * own["top1"], strict=True))
        assert [point.y for point in turned.points] == pytest.approx([100 - point.y for point in curve.points])
        assert turned.points[0].low == pytest.approx(100 - curve.points[0].high)
    assert error.y.log
    assert not accuracy.y.log


def test_heat_maps_of_differences_say_what_the_comparisons_do(content) -> None:
    panel = content.panels[0]
    for heat, found in zip(panel.difference_maps, panel._differences, strict=True):
        shown = {
            (name, column): float(cell[0].rstrip("*").replace("\N{MINUS SIGN}", "-"))
            for name, line in zip(heat.rows, heat.cells, strict=True)
            for column, cell in zip(heat.columns, line, strict=True)
            if cell
        }
        assert len(shown) == len(found)
        rows = found[["series", "density", "difference"]].itertuples(index=False)
        assert all(shown[name, f"{100 * density:.3g}%"] == pytest.approx(100 * points, abs=0.051)
                   for name, density, points in rows)  # fmt: skip


def test_losses_of_objectives_never_share_a_chart_and_accuracies_may(runs, score, level) -> None:
    rows = [score(run="a", objective="byol"), score(run="b", objective="dino")]
    for objective, depth in product(("byol", "dino"), (0, 1)):
        metrics = {"loss": 3.0, "target entropy": 1.0, "retrieval": 0.5}
        rows.append(level(run=objective, objective=objective, level=depth, density=0.5**depth, metrics=metrics,
                          trained_level=0, trained_density=1.0, ticket_hash=f"{objective}{depth}"))  # fmt: skip
    charts = Content(table.read_rows([runs(*rows)])).learned_charts
    shown = [(chart.y.label, {curve.series for curve in chart.curves}) for chart in charts]
    assert ("retrieval", {"byol", "dino"}) in shown
    for measure in ("loss", "target entropy"):
        assert sorted(map(sorted, (series for label, series in shown if label == measure))) == [["byol"], ["dino"]]


def test_cost_is_in_forward_images_seconds_and_epochs() -> None:
    content = Content(table.read_rows([DOCS / "evaluation/agreement.parquet"]))
    charts = content.panels[0].cost_charts
    assert {"forward_images", "seconds", "epochs"} <= charts.keys()
    levels = content.levels
    epochs = levels.groupby(["tickets", "density"])["search_epochs"].mean()
    [chart] = charts["epochs"]
    for curve in chart.curves:
        wanted = sorted(float(value) for value in epochs.loc[curve.series] if value > 0)
        assert sorted({point.x for point in curve.points}) <= wanted
        assert len(curve.points) >= 3


@pytest.mark.parametrize(
    ("told", "inches"), [("3.25in", 3.25), ("8.255cm", 3.25), ("82.55mm", 3.25), ("234.8775pt", 3.25)]
)
def test_figures_are_as_wide_as_a_column(content, told: str, inches: float) -> None:
    assert commands._read_width(told) == pytest.approx(inches)
    chart = content.panels[0].accuracy_charts[0]
    assert figures.draw_charts([chart], content.styles, inches).get_size_inches()[0] == pytest.approx(inches)
    assert figures.draw_heat_map(content.panels[0].difference_maps[0], inches).get_size_inches()[0] == inches


def test_a_width_that_is_none_is_refused(tmp_path) -> None:
    with pytest.raises(BadInput, match=r"0.5 inches cannot be read; give --width between 2in and 20in"):
        report.write_report([DOCS / "transfer/rows.parquet"], tmp_path / "report.html", width=0.5)
    with pytest.raises(Exception, match=r"'3 ells' is no length; give a number and its unit"):
        commands._read_width("3 ells")


def test_no_entry_of_a_legend_is_cut(content) -> None:
    """Of sixteen series with long names every letter lies within the picture, and none over the axes."""
    chart = max((each for panel in content.panels for each in panel.accuracy_charts), key=lambda each: len(each.curves))
    drawn = figures.draw_charts([chart], content.styles, 3.25)
    canvas = FigureCanvasAgg(drawn)
    canvas.draw()
    width, height = canvas.get_width_height()
    [axes] = drawn.axes
    legend = axes.get_legend()
    assert len(legend.get_texts()) >= len(chart.curves) >= 13
    words = " ".join(text.get_text().replace("\n", " ") for text in legend.get_texts())
    assert all(curve.series in words for curve in chart.curves)
    renderer = canvas.get_renderer()
    for text in legend.get_texts():
        box = text.get_window_extent(renderer)
        assert 0 <= box.x0 < box.x1 <= width
        assert 0 <= box.y0 < box.y1 <= height
        assert box.y1 <= axes.get_window_extent(renderer).y0


def marks_of(spec: dict[str, Any]) -> list[str]:
    return [layer["mark"] if isinstance(layer["mark"], str) else layer["mark"]["type"] for layer in spec["layer"]]


def test_vega_lite_has_the_numbers_and_the_looks_of_the_chart(content) -> None:
    chart = content.panels[0].accuracy_charts[0]
    spec = json.loads(vega.chart_spec(chart, content.styles))
    assert spec["$schema"].startswith("https://vega.github.io/schema/vega-lite/v5")
    values = spec["data"]["values"]
    assert len(values) == sum(len(curve.points) for curve in chart.curves)
    assert {(each["series"], each["x"], each["y"]) for each in values} == {
        (curve.series, point.x, point.y) for curve in chart.curves for point in curve.points
    }
    assert marks_of(spec) == ["area", "line", "point", "point", "circle", "rule"]
    x = spec["encoding"]["x"]
    assert (x["scale"]["type"], x["scale"]["reverse"], x["axis"]["values"]) == (
        "log",
        True,
        [1.0, 0.25, 0.0625, 0.01564],
    )
    colours = spec["layer"][1]["encoding"]["color"]["scale"]
    assert dict(zip(colours["domain"], colours["range"], strict=True)) == {
        curve.series: content.styles[curve.series].hex for curve in chart.curves
    }
    heat = content.panels[0].difference_maps[0]
    cells = json.loads(vega.heat_spec(heat))["data"]["values"]
    assert len(cells) == sum(cell is not None for line in heat.cells for cell in line)
    assert all(-1 <= each["shade"] <= 1 for each in cells)


def test_vega_lite_is_valid(content) -> None:
    altair = pytest.importorskip("altair", reason="altair, whose schema this is, is not installed")
    for chart in content.charts():
        altair.LayerChart.from_dict(json.loads(vega.chart_spec(chart, content.styles)))
    for heat in content.heat_maps():
        altair.LayerChart.from_dict(json.loads(vega.heat_spec(heat)))


def test_a_band_that_is_not_there_is_no_number(content) -> None:
    spec = vega.chart_spec(flat_chart(1.0, 0.5), assign_styles([("rotnet", "rotnet", "ticket")]))
    assert b"NaN" not in spec
    assert all("low" not in each for each in json.loads(spec)["data"]["values"])
    assert math.isfinite(json.loads(spec)["encoding"]["y"]["scale"]["domain"][0])
