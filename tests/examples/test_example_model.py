"""The example of a model of one's own is searched, evaluated and reported, by commands and from Python."""

import subprocess
import sys
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


def test_models_of_one_name_in_two_files_are_never_taken_for_each_other(tmp_path: Path) -> None:
    text = Path(TINY_CNN.partition(":")[0]).read_text()
    for folder, width in (("one", "16"), ("two", "12")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.py").write_text(text.replace("16", width))
    first, second = ([*SHORT.split(), "--model", f"{tmp_path / each}/mine.py:tiny_cnn"] for each in ("one", "two"))
    command = [sys.executable, "-m", "sslticket", "run", "supervised_digits", "--out"]
    for words, out in ((first, "a"), (second, "b"), (first, "a")):
        subprocess.run([*command, str(tmp_path / out), *words], check=True, capture_output=True)
    done = subprocess.run([*command, str(tmp_path / "a"), *second], check=False, capture_output=True, text=True)
    assert done.returncode == 2
    assert " was begun with " in done.stderr.splitlines()[-1]
    evaluate, words = command[:3], ["--protocol", "own", "--levels", "1", "--seeds", "0"]
    both = [str(tmp_path / "a"), str(tmp_path / "b")]
    done = subprocess.run([*evaluate, "evaluate", *both, *words], check=False, capture_output=True, text=True)
    assert done.returncode == 2
    assert "tiny_cnn must be in one file, got " in done.stderr.splitlines()[-1]
    for folder in ("a", "b"):
        subprocess.run([*evaluate, "evaluate", str(tmp_path / folder), *words], check=True, capture_output=True)
        assert len(list((tmp_path / folder).rglob("level-01.ticket.*.jsonl"))) == 1
    (tmp_path / "one" / "mine.py").rename(tmp_path / "one" / "moved.py")
    first[-1] = first[-1].replace("mine.py", "moved.py")
    subprocess.run([*command, str(tmp_path / "a"), *first], check=True, capture_output=True)
