"""The 34 figures and tables of the papers: what they are made of at each scale, and the command that makes them."""

import math
import re
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import pandas as pd
import pytest

from sslticket.campaign.figure import SCALES, Figure, cells_left, figures, find_figure, planned_rows
from sslticket.campaign.panels import Near, Published
from sslticket.campaign.published_numbers import choose_numbers
from sslticket.campaign.sweep import Cell, expand, load_sweeps, measurements_of
from sslticket.campaign.worker import check_cells
from sslticket.cli import reproduce_command
from sslticket.cli.commands import run_command
from sslticket.config.recipe import Recipe
from sslticket.errors import BadInput
from sslticket.evaluation.protocols import resolve_protocol
from sslticket.results.table import read_rows
from sslticket.search.imp import RankedSearch
from tests.campaign.made_rows import likenesses_without_contrast

ROOT = Path(__file__).parents[2]
PLACES = {
    "one_ticket": ["Figure 1", "Figure 2", "Figure 3", "Figure 4", "Figure 5", "Figure A1"],
    "one_ticket_report": ["Figure 1", "Figure 2", "Figure 3", "Figure 4"],
    "limited_supervision": [*(f"Figure {number}" for number in range(1, 10)), "Table 1"],
    "stabilizing": [f"Figure {number}" for number in range(1, 13)],
    "continuous_sparsification": ["Figure 2", "Figure 3"],
}
DROPS_SGD, LOW_SHOT, LONG = ("50ep", "65ep", "80ep"), ("140ep", "160ep", "180ep"), ("700ep", "800ep", "900ep")
# Appendix A of the paper, and A.1 of Morcos et al.: length, batch, optimiser, rate, weight decay, warmup, drops.
PUBLISHED_TRAINING = {
    ("supervised", "alexnet", "imagenet"): ("90ep", 4096, "SGD", 0.4, 1e-4, "0ep", ("30ep", "60ep")),
    ("rotnet", "alexnet", "imagenet"): ("90ep", 8192, "SGD", 0.5, 1e-5, "2ep", ("30ep", "60ep")),
    ("exemplar", "alexnet", "imagenet"): ("30ep", 4096, "SGD", 0.1, 1e-4, "0ep", ("20ep",)),
    ("supervised", "resnet50", "imagenet"): ("90ep", 1536, "SGD", 0.1, 1e-4, "0ep", DROPS_SGD),
    ("rotnet", "resnet50", "imagenet"): ("90ep", 1536, "SGD", 1.0, 1e-5, "5ep", DROPS_SGD),
    ("exemplar", "resnet50", "imagenet"): ("30ep", 1536, "SGD", 1.0, 1e-5, "0ep", ("20ep", "25ep")),
    ("s4l-rotation", "resnet50", "imagenet"): ("200ep", 2048, "SGD", 0.1, 3e-4, "5ep", LOW_SHOT),
    ("supervised", "resnet50", "places365"): ("90ep", 2048, "SGD", 0.1, 1e-4, "0ep", DROPS_SGD),
    ("supervised", "resnet50", "imagenet 0.3 samples"): ("200ep", 1536, "SGD", 0.1, 3e-4, "5ep", LOW_SHOT),
    ("supervised", "resnet50", "imagenet 0.3 classes"): ("200ep", 1536, "SGD", 0.03, 1e-3, "5ep", LOW_SHOT),
    ("supervised", "resnet50", "imagenet 0.1 samples"): ("200ep", 768, "SGD", 0.1, 1e-3, "5ep", LOW_SHOT),
    ("supervised", "resnet50", "imagenet 0.1 classes"): ("200ep", 768, "SGD", 0.3, 3e-4, "5ep", LOW_SHOT),
    ("supervised", "resnet50", "imagenet 0.01 samples"): ("1000ep", 768, "SGD", 0.1, 1e-3, "0ep", LONG),
    ("supervised", "resnet50", "imagenet 0.01 classes"): ("1000ep", 768, "SGD", 0.01, 3e-3, "0ep", LONG),
    ("supervised", "vgg19", "cifar10"): ("160ep", 512, "Adam", 1e-3, 1e-4, "0ep", ("80ep", "120ep")),
    ("rotnet", "vgg19", "cifar10"): ("160ep", 512, "Adam", 1e-3, 1e-4, "0ep", ("80ep", "120ep")),
    ("exemplar", "vgg19", "cifar10"): ("180ep", 512, "Adam", 3e-4, 1e-4, "0ep", ("120ep",)),
    ("supervised-shuffled", "vgg19", "cifar10"): ("160ep", 512, "Adam", 1e-3, 1e-4, "0ep", ("80ep", "120ep")),
}
EVERY_SCALE = [(figure, scale) for figure in figures().values() for scale in SCALES if scale in figure.scales]
NAMED = [f"{figure.name}-{scale}" for figure, scale in EVERY_SCALE]


@cache
def cells_of(name: str, scale: str) -> tuple[Cell, ...]:
    return expand(find_figure(name).sweeps(scale))


def training(recipe: Recipe) -> tuple[object, ...]:
    fit = recipe.training
    optimizer = fit.optimizer
    decay = optimizer.weight_decay  # type: ignore[attr-defined]
    return fit.length, fit.batch_size, type(optimizer).__name__, optimizer.lr, decay, fit.warmup, fit.drops


def test_there_are_34_figures_and_tables_in_the_order_of_the_papers() -> None:
    found: dict[str, list[str]] = {}
    for figure in figures().values():
        found.setdefault(figure.paper, []).append(figure.place)
    assert found == PLACES
    assert sum(map(len, found.values())) == 34
    assert list(found) == list(PLACES)


def test_every_figure_has_a_docstring_a_question_and_words_for_every_scale() -> None:
    for figure in figures().values():
        file = ROOT / "sweeps" / figure.paper / f"{figure.stem}.py"
        assert file.read_text().startswith(f'"""{figure.place}: '), file
        assert figure.question.endswith("?")
        for scale in ("small", "trial"):
            assert (scale in figure.means) == (scale in figure.scales), (figure.name, scale)


def test_a_statement_that_series_are_alike_has_a_control_that_shows_where_they_are_not() -> None:
    """Else nothing could ever bear it out, at any scale."""
    assert [(figure.name, text) for figure, scale in EVERY_SCALE
            for text in likenesses_without_contrast(figure.at(scale))] == []  # fmt: skip


@pytest.mark.parametrize(("figure", "scale"), EVERY_SCALE, ids=NAMED)
def test_a_scale_expands_without_data_to_searches_that_differ(figure: Figure, scale: str) -> None:
    cells = cells_of(figure.name, scale)
    keys = [cell.recipe.key for cell in cells]
    assert len(set(keys)) == len(keys)
    check_cells(cells)


@pytest.mark.parametrize(("figure", "scale"), EVERY_SCALE, ids=NAMED)
def test_every_panel_is_about_a_network_a_target_and_a_source_that_its_searches_have(
    figure: Figure, scale: str
) -> None:
    cells = cells_of(figure.name, scale)
    models = {cell.recipe.model for cell in cells}
    sources = {cell.recipe.data.name for cell in cells}
    ranked = [cell.recipe.search for cell in cells if isinstance(cell.recipe.search, RankedSearch)]
    densities = {(1 - search.rate) ** level for search in ranked for level in range(search.levels + 1)}
    measured = [(cell, name) for cell in cells for each in measurements_of([cell]) for name in each.protocols]
    protocols = {"search", *(name for _, name in measured)}
    scored = [resolve_protocol(name, cell.recipe.to_dict()) for cell, name in measured]
    targets = {f"{protocol.dataset}{protocol.half or ''}" for protocol in scored}
    held = {"model": models, "source": sources, "target": targets, "protocol": protocols}
    for panel in figure.at(scale).panels:
        for column, known in held.items():
            wanted = panel.where.get(column)
            if wanted is not None:
                values = wanted if isinstance(wanted, tuple) else (wanted,)
                assert known & {*values}, (panel.title, column, wanted)
        for filters in panel.series.values():
            near = {**panel.where, **filters}.get("density")
            assert not isinstance(near, Near) or any(map(near.reaches, densities)), (panel.title, near)
        sourced = [each["source"] for each in panel.series.values() if "source" in each]
        assert set(sourced) <= sources, panel.title


@pytest.mark.parametrize("figure", figures().values(), ids=list(figures()))
def test_published_numbers_that_a_figure_names_are_published(figure: Figure) -> None:
    for scale in figure.scales:
        shown = figure.at(scale)
        named = [each for panel in shown.panels for each in panel.published]
        named += [
            published
            for finding in shown.findings
            if isinstance(published := getattr(finding.check, "published", None), Published)
        ]
        for each in named:
            assert choose_numbers(each, figure.published_as)


def test_titles_and_labels_say_what_stands_for_what() -> None:
    figure = find_figure("limited_supervision_figure5").at("small")
    own, other = figure.panels
    assert own.title == "(a) Access to images and labels [conv3, cifar10]"
    assert other.order == (
        "ImageNet [cifar10]",
        "10% of ImageNet [cifar10]",
        "Places365 [fashion_mnist]",
        "CIFAR-10 [digits]",
    )
    assert figure.findings[1].check.series == other.order[1:]  # type: ignore[attr-defined]
    assert figure.findings[1].check.panel == other.title


def test_every_finding_is_told_at_the_scale_of_the_paper() -> None:
    for figure in figures().values():
        assert len(figure.at("paper").findings) == len(figure.findings), figure.name


def test_recipes_at_the_scale_paper_have_the_published_settings() -> None:
    seen = set()
    for number in (1, 2, 3, 4, 5, 8):
        for cell in cells_of(f"limited_supervision_figure{number}", "paper"):
            recipe, data = cell.recipe, cell.recipe.data
            part = f" {data.subset:g} {data.subset_by}" if data.subset < 1 else ""
            key = (recipe.task, recipe.model.replace("resnet18_cifar", "vgg19"), f"{data.dataset}{part}")
            if key in PUBLISHED_TRAINING:
                assert training(recipe) == PUBLISHED_TRAINING[key], cell.name
                assert recipe.search.levels == 30  # type: ignore[attr-defined]
                assert recipe.search.rate == 0.2  # type: ignore[attr-defined]
                seen.add(key)
            else:  # Figure 5 follows Morcos et al. for CIFAR-10
                assert key == ("supervised", "resnet50", "cifar10")
                assert training(recipe) == ("90ep", 512, "SGD", 0.1, 1e-4, "0ep", DROPS_SGD)
    assert seen == set(PUBLISHED_TRAINING)


def test_transfers_at_the_scale_paper_are_six_seeds_and_thirty_levels_of_each_source() -> None:
    for name, model, length in (("figure3", "vgg19", "160ep"), ("figure4", "resnet50", "90ep")):
        cells = cells_of(f"one_ticket_{name}", "paper")
        assert {cell.recipe.seed for cell in cells} == set(range(6))
        rewinds = {cell.recipe.data.dataset: cell.recipe.search.rewind for cell in cells}  # type: ignore[attr-defined]
        small = dict.fromkeys(["cifar10", "cifar100", "svhn", "fashion_mnist"], "1ep")
        assert rewinds == small | dict.fromkeys(["imagenet", "places365"], "3ep")
        for cell in cells:
            assert (cell.recipe.model, cell.recipe.training.length) == (model, length)
            assert cell.recipe.search.levels == 30  # type: ignore[attr-defined]


def test_resetting_is_from_iteration_0_and_levels_are_those_that_the_paper_studies() -> None:
    cells = cells_of("stabilizing_figure3", "paper")
    found = {
        (cell.recipe.model, cell.recipe.training.optimizer.lr, cell.recipe.training.warmup): (
            round(100 * 0.8 ** int(cell.recipe.search.levels), 1)  # type: ignore[attr-defined]
        )
        for cell in cells
    }
    assert found == {
        ("lenet300", 1.2e-3, "0ep"): 10.7,
        ("resnet20", 0.1, "0ep"): 16.8,
        ("resnet20", 0.01, "0ep"): 16.8,
        ("resnet20", 0.03, "20000it"): 16.8,
        ("vgg19", 0.1, "0ep"): 2.3,
        ("vgg19", 0.01, "0ep"): 2.3,
        ("vgg19", 0.1, "10000it"): 2.3,
    }
    assert {cell.recipe.search.rewind for cell in cells} == {"0it"}  # type: ignore[attr-defined]
    pairs = {seed for cell in cells for each in cell.analyse for seed in each.seeds or ()}
    assert len(pairs) * len({cell.recipe.seed for cell in cells}) == 18


@pytest.mark.parametrize(
    "name",
    ["stabilizing_figure3", "003:figure3", "stabilizing/figure3.py", "Stabilizing Figure 3", "003-fig3", "3:figure3"],
)
def test_a_figure_goes_by_several_names(name: str) -> None:
    assert find_figure(name).name == "stabilizing_figure3"


def test_an_unknown_figure_is_answered_with_the_nearest() -> None:
    with pytest.raises(BadInput, match=re.escape("unknown figure 'stabilizing_figure13'; did you mean ")):
        find_figure("003:figure13")


def test_table_1_of_rewind_points_is_as_published() -> None:
    rows = planned_rows(cells_of("limited_supervision_table1", "paper")).set_index("subset")
    assert dict(rows["steps"]) == {1.0: 2500, 0.3: 2500, 0.1: 5000, 0.01: 5000}
    assert set(rows["rewind_samples"]) == {3_840_000}
    epochs = rows["search_epochs"].round().astype(int)
    assert dict(epochs) == {1.0: 3, 0.3: 10, 0.1: 30, 0.01: 300}
    lengths = {1.0: 90, 0.3: 200, 0.1: 200, 0.01: 1000}
    shares = {part: round(100 * rows["search_epochs"][part] / length, 1) for part, length in lengths.items()}
    assert shares == {1.0: 3.3, 0.3: 5.0, 0.1: 15.0, 0.01: 30.0}


def test_committed_rows_take_the_place_of_searches() -> None:
    cells = cells_of("stabilizing_figure7", "small")
    rows = read_rows([ROOT / "docs" / "searches" / "conv3.parquet"])
    assert cells_left(cells, rows) == []
    fewer = rows[~((rows["kind"] == "stability") & (rows["control"] == "local") & (rows["search_seed"] == 1))]
    assert {cell.recipe.seed for cell in cells_left(cells, fewer)} == {1}
    assert len(cells_left(cells, fewer)) == 5


@pytest.mark.parametrize("name", ["natural_zeros", "transfer"])
def test_rows_of_a_sweep_are_known_whatever_its_recipes_leave_open(name: str) -> None:
    """Lengths of a trial and of the images, the precision, which images a part is, a protocol's own name and seeds."""
    cells = expand(load_sweeps(ROOT / "sweeps" / "findings" / f"{name}.py"))
    assert any(cell.trial for cell in cells) == (name == "natural_zeros")
    assert any(cell.recipe.data.part for cell in cells) == (name == "transfer")
    rows = read_rows([ROOT / "docs" / "findings" / f"{name}.parquet"])
    assert cells_left(cells, rows) == []
    cell = next(cell for cell in cells if cell.evaluate)
    own = cell.evaluate[0]
    for more in (
        {"seeds": None, "protocols": ["cifar10-sgd"]},  # its own six
        {"seeds": [0, 99]},
        {"heads": ["own", "new"]},
        {"curve": "50it"},
        {"part": "2 classes"},
        {"controls": ["reset"]},
    ):
        wanted = [replace(cell, evaluate=(replace(own, **more),))]
        assert wanted == cells_left(wanted, rows), more


def test_data_that_is_not_there_is_named_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSLTICKET_DATA", str(tmp_path / "nothing"))
    words = ["reproduce", "limited_supervision_figure3", "--scale", "paper", "--out", str(tmp_path / "out")]
    with pytest.raises(BadInput, match=r"^limited_supervision_figure3 at the scale paper needs imagenet: no images of"):
        run_command(words)
    assert not list(tmp_path.iterdir())


def test_a_scale_that_there_is_not_says_why_and_names_others() -> None:
    with pytest.raises(BadInput, match=r"table of three networks on ImageNet.*give --scale paper or --scale trial$"):
        find_figure("stabilizing_figure6").sweeps("small")


@pytest.mark.slow
def test_a_figure_is_reproduced_and_then_redrawn_from_its_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["sslticket"])
    out, again, table = tmp_path / "out", tmp_path / "again", tmp_path / "rows.csv"
    words = ["reproduce", "one_ticket_figurea1", "--scale", "trial", "--format", "svg"]
    run_command([*words, "--out", str(out), "--workers", "1"])
    printed = capfd.readouterr().out
    assert "One Ticket to Win Them All, Figure A1: Random masks\n" in printed
    assert "winning ticket > preserved mask > locally permuted mask > globally permuted mask" in printed
    assert "8 of 8 rows" in printed
    picture = (out / "one_ticket_figurea1.svg").read_text()
    assert "globally permuted mask" in picture
    run_command(["rows", str(out), "-o", str(table)])
    scores = pd.read_csv(table).query("kind == 'score'")
    assert set(scores["control"]) == {"ticket", "preserved", "local", "random"}
    capfd.readouterr()
    run_command([*words, "--out", str(again), "--rows", str(table)])
    assert "1 of 1 searches are in the rows that are given\n" in capfd.readouterr().out
    assert (again / "one_ticket_figurea1.svg").read_text() == picture
    assert not list(again.glob("supervised-*"))
    assert reproduce_command.scale_line(find_figure("one_ticket_figurea1"), "trial", out).endswith("; 1 done")


def test_scales_of_the_command_are_those_of_the_figures() -> None:
    assert reproduce_command.SCALES == SCALES


def test_hours_are_told_with_two_digits_at_least() -> None:
    assert [reproduce_command.short_hours(hours) for hours in (0.0123, 3.14159, 1234.5)] == ["0.012", "3.1", "1,234"]
    assert not math.isnan(float(reproduce_command.short_hours(1e-3)))
