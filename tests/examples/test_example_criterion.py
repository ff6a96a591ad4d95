"""The example of a criterion of one's own is searched, evaluated and reported, by commands and from Python."""

from pathlib import Path

from sslticket import IMP, evaluate_tickets, find_tickets, write_report
from sslticket.pruning import CRITERIA
from tests.examples.own_parts import SHORT, evaluate_and_report_by_commands, example, search_by_commands
from tests.runs import recipe

GRADIENT_SIZE = example("gradient_size.py:GradientSize")


def test_a_criterion_of_ones_own_is_searched_evaluated_and_reported_by_commands(tmp_path: Path) -> None:
    flags = ["--criterion", GRADIENT_SIZE, "--score-images", "32", "--power", "0.5"]
    run = search_by_commands([*SHORT.split(), *flags], tmp_path)
    rows = evaluate_and_report_by_commands(run)
    assert rows.search.str.contains("GradientSize").any()


def test_a_criterion_of_ones_own_is_searched_evaluated_and_reported_from_python(tmp_path: Path) -> None:
    criterion = CRITERIA.get(GRADIENT_SIZE)(score_images=32)
    which = recipe(search=IMP(levels=1, rate=0.5, rewind="2it", criterion=criterion))
    assert which.family != recipe(search=IMP(levels=1, rate=0.5, rewind="2it")).family
    tickets = find_tickets(which, out=tmp_path / "runs", progress=False)
    assert tickets[-1].mask.density == 0.5
    assert not evaluate_tickets(tickets[-1], protocol="own", progress=False).empty
    write_report(tmp_path / "runs", tmp_path / "report.html")
