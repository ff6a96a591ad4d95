"""The published numbers: all are there, each is found by a filter, and each belongs to a figure or says why not."""

import csv
import math
from collections import Counter
from importlib import resources

import pytest

from sslticket.campaign import figure, published_numbers
from sslticket.campaign.panels import Published
from sslticket.errors import BadInput


def chosen(paper: str = "", **words: str) -> tuple[published_numbers.PublishedNumber, ...]:
    return published_numbers.choose_numbers(Published(drawn="note", **words), paper)


def test_all_lines_of_the_table_are_read() -> None:
    text = resources.files("sslticket.campaign").joinpath("published.csv").read_text("utf-8")
    lines = list(csv.DictReader(text.splitlines()))
    numbers = published_numbers.published_numbers()
    assert len(lines) == len(numbers) == 264
    assert Counter(number.paper for number in numbers) == {"000": 9, "001": 8, "002": 40, "003": 179, "004": 28}
    assert [number.quantity for number in numbers] == [line["quantity"] for line in lines]
    cells = [
        (line[name], getattr(number, name)) for number, line in zip(numbers, lines, strict=True)
        for name in ("value", "value_low", "value_high", "error", "n")
    ]  # fmt: skip
    assert all(read == (float(cell) if cell else None) for cell, read in cells)


def test_a_number_is_found_by_what_is_told_of_it() -> None:
    [ticket] = chosen(
        "003", place="Figure 3 table", network="lenet", method="IMP ticket", condition="standard*", quantity="top1"
    )
    assert (ticket.value, ticket.error, ticket.n, ticket.words) == (98.3, 0.1, 3, "98.3 ± 0.1%")
    assert len(chosen("003", place="Figure 3 table")) == 59
    # 7 dense networks in Figure 2, 14 in Figure 3, 11 of these again in Figure 10, one in Figure 6.
    assert len(chosen("003", quantity="top1")) == 7 + 14 + 11 + 1


def test_every_number_is_reachable_by_a_filter_on_its_own_words() -> None:
    for number in published_numbers.published_numbers():
        words = {name: getattr(number, name).replace("[", "[[]") for name in published_numbers.WORDS}
        assert number in chosen(number.paper, **words)


def test_every_number_belongs_to_a_figure_that_can_be_made_or_says_why_not() -> None:
    places = {(each.published_as, each.place) for each in figure.figures().values()}
    numbers = published_numbers.published_numbers()
    with_figure = [number for number in numbers if number.figure]
    assert {(number.paper, number.figure) for number in with_figure} <= places
    assert sum(len(published_numbers.numbers_of_figure(*place)) for place in places) == len(with_figure)
    others = [number for number in numbers if not number.figure]
    assert len(with_figure) + len(others) == 264
    assert all(number.reason_without_figure.endswith(".") for number in others)
    # What is left is about others' work, costs on the authors' machines, a setting or no measurement at all.
    assert Counter(number.paper for number in others) == {"000": 4, "001": 8, "003": 7, "004": 5}


def test_every_cell_of_a_table_belongs_to_the_figure_that_it_is_in() -> None:
    counts = Counter(
        (number.paper, number.figure) for number in published_numbers.published_numbers() if number.kind == "table"
    )
    assert counts == {
        ("002", "Table 1"): 16,
        ("003", "Figure 2"): 17,
        ("003", "Figure 3"): 59,
        ("003", "Figure 6"): 5,
        ("003", "Figure 10"): 56,
    }


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ({"place": "Figur 3 table"}, "did you mean Figure 3 table"),
        ({"place": "Figure 3 table", "quantity": "angle"}, "unknown quantity of published numbers 'angle'"),
        ({"network": "AlexNet"}, "unknown network of published numbers 'AlexNet'"),
    ],
)
def test_a_filter_that_matches_nothing_is_named(words: dict[str, str], told: str) -> None:
    with pytest.raises(BadInput, match=told):
        chosen("003", **words)


def test_one_number_is_asked_for_where_one_is_needed() -> None:
    with pytest.raises(BadInput, match="one published number was asked for, and 33 match"):
        published_numbers.only_number(Published(drawn="note", quantity="top1"), "003")


def ends(column: str, paper: str, **words: str) -> tuple[float, float]:
    return published_numbers.ends_in_column(
        published_numbers.only_number(Published(drawn="note", **words), paper), column
    )


def test_numbers_are_turned_into_the_unit_of_a_column() -> None:
    zeros = {"place": "Figure 6 caption", "network": "VGG-19"}
    assert ends("natural_zeros", "002", **zeros) == pytest.approx((0.845, 0.845))
    assert ends("density", "002", **zeros) == pytest.approx((0.155, 0.155))
    # "Over 77% pruned" is a density of at most 0.23; "5 to 10% remaining" is one from 0.05 to 0.1.
    over = {"place": "section 4.1 (Figure 3 left)", "quantity": "sparsity_percent"}
    assert ends("density", "004", **over) == (-math.inf, pytest.approx(0.23))
    assert ends("density", "000", quantity="remaining_percent") == pytest.approx((0.05, 0.1))
    assert ends("rewind_epochs", "003", network="Squeezenet", quantity="rewind_epoch") == (10, 10)
    assert ends("metrics.top1", "004", method="CS", quantity="top1") == (0.75, math.inf)


def test_a_quantity_is_not_drawn_against_a_column_of_another() -> None:
    with pytest.raises(BadInput, match=r"rewind_epoch \(003, section 5\) are no values of rewind_iterations; draw"):
        ends("rewind_iterations", "003", network="Squeezenet", quantity="rewind_epoch")


def test_what_is_known_to_be_amiss_is_told_of_the_numbers_that_it_is_about() -> None:
    def told(paper: str, **words: str) -> str:
        return " ".join(published_numbers.known_ambiguities(chosen(paper, **words)))

    assert "4.7, is not that of the angles" in told("003", place="Figure 10 table", quantity="order_angle_ratio")
    assert "4.7" not in told("003", place="Figure 3 table")
    assert "exchanges (a) and (b)" in told("002", place="Figure 1 caption")
    assert "27.1M" in told("003", place="Figure 6 table", network="Inception*", quantity="top1")
    assert told("003", place="section 3") == ""


def test_ranges_and_bounds_are_written_as_the_papers_mean_them() -> None:
    assert chosen("002", quantity="gap_points")[0].words == "1 to 4 points"
    assert chosen("004", method="SS", quantity="top1")[0].words == "at most 40%"
    assert chosen("003", quantity="winning_ticket_found", network="Lenet")[0].words == "yes"
    assert (
        chosen("002", quantity="speedup", place="section 4.2", condition="subset 10*")[0].words
        == "5\N{MULTIPLICATION SIGN}"
    )
