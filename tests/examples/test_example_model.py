"""The example of a model of one's own is searched, evaluated and reported, by commands and from Python."""

from pathlib import Path

import pytest

from sslticket import Recipe, evaluate_tickets, find_tickets, models, write_report
from sslticket.errors import BadInput
from tests.examples.own_parts import SHORT, evaluate_and_report_by_commands, example, search_by_commands
from tests.runs import recipe

TINY_CNN = example("tiny_cnn.py:tiny_cnn")


def test_a_model_of_ones_own_is_searched_evaluated_and_reported_by_commands(tmp_path: Path) -> None:
    run = search_by_commands([*SHORT.split(), "--model", TINY_CNN], tmp_path)
    assert run.name.startswith("supervised-tiny_cnn-digits-")
    rows = evaluate_and_report_by_commands(run)
    assert set(rows.model) == {"tiny_cnn"}


def test_a_model_of_ones_own_is_searched_evaluated_and_reported_from_python(tmp_path: Path) -> None:
    which = recipe(model=TINY_CNN)
    assert which.model == "tiny_cnn"
    assert list(which.parts()) == [TINY_CNN]
    tickets = find_tickets(which, out=tmp_path / "runs", progress=False)
    assert tickets[-1].recipe["model"] == "tiny_cnn"
    assert not evaluate_tickets(tickets[-1], protocol="own", progress=False).empty
    write_report(tmp_path / "runs", tmp_path / "report.html")


def test_a_recorded_recipe_runs_no_file_that_its_model_names() -> None:
    tree = recipe().to_dict() | {"model": TINY_CNN}
    with pytest.raises(BadInput, match="must have a plain name"):
        Recipe.from_dict(tree)


def test_a_name_of_the_papers_is_never_a_users(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def resnet20(channels, image_size): ...\n")
    with pytest.raises(BadInput, match="the name of a model must be new, got 'resnet20'"):
        models.load_model(f"{tmp_path / 'mine.py'}:resnet20")
