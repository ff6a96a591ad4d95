"""What the functions for scripts and notebooks say of wrong arguments: one line, before anything is computed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sslticket import (
    BadInput,
    Stability,
    Ticket,
    analyse_tickets,
    evaluate_tickets,
    find_tickets,
    load_recipe,
    read_rows,
    write_report,
)
from sslticket.evaluation.protocols import find_protocol
from tests.runs import recipe, search


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return search(tmp_path_factory.mktemp("runs")).run_dir.path


def refused(call: Callable[..., object], *args: object, **settings: object) -> str:
    with pytest.raises(BadInput) as error:
        call(*args, **settings)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("given", [None, 3, "", [], {}, [recipe()], type(recipe())])
def test_what_is_no_recipe_is_refused(given: Any, tmp_path: Path) -> None:
    assert refused(find_tickets, given, out=tmp_path).startswith("a recipe must be a Recipe, a name or a file, got ")
    assert refused(load_recipe, given).startswith("a recipe must be a Recipe, a name or a file, got ")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"out": None}, "out must be a path, got None; "),
        ({"runtime": "cpu"}, "runtime must be a RuntimeConfig or None, got 'cpu'; "),
        ({"runtime": {}}, "runtime must be a RuntimeConfig or None, got {}; "),
    ],
)
def test_a_search_refuses_what_is_no_setting(settings: dict[str, Any], words: str) -> None:
    assert refused(find_tickets, recipe(), **settings).startswith(words)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"protocol": None}, 'protocol must be a name, "file.py:NAME" or a Protocol, got None; '),
        ({"protocol": ["own", 3]}, 'protocol must be a name, "file.py:NAME" or a Protocol, got 3; '),
        ({"protocol": []}, "protocol must be at least one, got none; "),
        ({"controls": [3]}, 'a control must be a name, "file.py:NAME" or a subclass of Control, got 3'),
        ({"controls": None}, 'a control must be a name, "file.py:NAME" or a subclass of Control, got None'),
        ({"seeds": "0"}, "seeds must be whole numbers from 0, or None, got '0'; "),
        ({"seeds": [0.5]}, "seeds must be whole numbers from 0, or None, got [0.5]; "),
        ({"seeds": [True]}, "seeds must be whole numbers from 0, or None, got [True]; "),
        ({"seeds": [-1]}, "seeds must be whole numbers from 0, or None, got [-1]; "),
        ({"seeds": []}, "seeds must be whole numbers from 0, or None, got []; "),
        ({"levels": "all"}, "levels must be whole numbers from 0, or None, got 'all'; "),
        ({"heads": "none"}, 'heads must be "own", "new" or both, or None, got \'none\'; '),
        ({"part": "../x"}, "--part must be up to 40 letters, "),
        ({"part": "x", "protocol": find_protocol("digits-demo")}, "part must be None beside a Protocol, got 'x'; "),
        ({"data_root": 3}, "data_root must be a path, got 3; "),
        ({"runtime": "cpu"}, "runtime must be a RuntimeConfig or None, got 'cpu'; "),
        ({"precision": "fp64"}, "precision must be fp32, bf16, fp16 or None, got 'fp64'"),
    ],
)
def test_an_evaluation_and_an_analysis_refuse_what_is_no_setting(
    settings: dict[str, Any], words: str, run: Path
) -> None:
    settings = {"protocol": "digits-demo"} | settings
    assert refused(evaluate_tickets, run, **settings).startswith(words)
    assert refused(analyse_tickets, run, analysis="stability", **settings).startswith(words)
    assert not list(run.glob("rows/level-*"))


@pytest.mark.parametrize("where", [None, 3, "", [], [3], recipe()])
def test_what_is_no_place_of_tickets_or_rows_is_refused(where: Any, tmp_path: Path) -> None:
    assert refused(evaluate_tickets, where, protocol="own").startswith("where must be ")
    if where != []:
        assert refused(read_rows, where).startswith("where must be a path, got ")
        assert refused(write_report, where, tmp_path / "report.html").startswith("where must be a path, got ")


def test_a_report_refuses_a_format_that_it_does_not_draw(tmp_path: Path) -> None:
    words = refused(write_report, tmp_path, tmp_path / "a.html", figures=tmp_path, figure_format="gif")
    assert words == "figure_format must be one of png, pdf, svg, got 'gif'"


def test_an_analysis_is_a_name_a_class_or_itself(run: Path) -> None:
    words = "analysis must be a name or a TicketAnalysis or EndpointAnalysis, got None; "
    assert refused(analyse_tickets, run, analysis=None).startswith(words)
    found = [
        analyse_tickets(run, analysis=given, levels=1, progress=False)
        for given in ("stability", Stability, Stability())
    ]
    assert found[0].equals(found[1])
    assert found[0].equals(found[2])


def test_one_control_seed_level_or_head_needs_no_list(run: Path) -> None:
    one = evaluate_tickets(run, protocol="own", controls="random", seeds=0, levels=1, heads="new", progress=False)
    assert list(zip(one["level"], one["control"], one["seed"], strict=True)) == [(1, "ticket", 0), (1, "random", 0)]


def test_levels_choose_among_tickets_as_they_do_among_the_tickets_of_a_folder(run: Path) -> None:
    from sslticket.api import _ticket_files

    tickets = [Ticket.load(path) for path in _ticket_files(run, None)]
    assert len(tickets) == 4
    assert _ticket_files(tickets, [0, 2]) == _ticket_files(run, [0, 2])
    assert refused(_ticket_files, tickets, [9]).startswith("levels must be some of the tickets' levels, got [9]; ")
