"""What was split, and what differs all the same, is told in words."""

import pandas as pd
import pytest

from sslticket.report import content
from sslticket.results import table
from sslticket.results.rows import row_columns
from tests.report import analysed, conditions
from tests.report.analysed import LEVEL, SCORE, STABILITY, Row, row

OWN = "\N{LEFT DOUBLE QUOTATION MARK}supervised, own head\N{RIGHT DOUBLE QUOTATION MARK}"


def told(*rows: Row) -> list[str]:
    return content.notes_of_rows(pd.DataFrame(rows, columns=row_columns()))


def test_rows_that_are_alike_need_no_notes() -> None:
    assert told(row(SCORE), row(SCORE, search_seed=1, ticket_hash="b"), row(LEVEL), row(STABILITY)) == []
    assert content.notes_of_rows(pd.DataFrame(analysed.rows(), columns=row_columns())) == []


def test_labels_that_were_scored_with_their_own_head_only_are_told_with_the_command() -> None:
    own = row(SCORE, run="s-1", objective="supervised", head="own")
    found = told(own, row(SCORE, head="new"))
    assert found[1] == (
        f"{OWN}: scored with the own head only (conv on digits), so rotnet cannot be compared with it. "
        "For the missing rows: `sslticket evaluate RUN --protocol digits --head new` with the folder of s-1 as RUN."
    )
    assert found[0].startswith("Own head: the classification layer of the ticket's W_k is trained on")
    # With both there is nothing to make up for; alone, supervised tickets wait for nobody.
    for rows in ((own, own | {"head": "new"}, row(SCORE)), (own,)):
        assert len(told(*rows)) == 1


def test_protocols_settings_that_differ_are_told() -> None:
    rows = [row(SCORE, seed=seed, protocol_hash=told, data_hash=told) for seed, told in enumerate(("aaaa", "bbbb"))]
    assert told(*rows) == [
        "Scores of conv under digits are split, and not compared across the parts, since they differ in the protocol's "
        "settings and the training images: settings aaaa; settings bbbb."
    ]


def test_images_that_differ_behind_one_name_are_told() -> None:
    rows = [
        row(SCORE, run=run, objective=objective, source_hash=images, source="folder")
        for run, objective, images in (("a", "rotnet", "aaaa"), ("b", "rotnet", "bbbb"), ("c", "supervised", "aaaa"))
    ]
    assert told(*rows) == [
        "Tickets of conv from folder were found on different images, though these have one name, so they are neither "
        "pooled nor compared with one another: aaaa: rotnet (images aaaa) and supervised; bbbb: rotnet (images bbbb)."
    ]
    assert told(*(each for each in rows if each["source_hash"] == "aaaa")) == []


def test_precisions_that_differ_are_told() -> None:
    rows = [row(SCORE, precision="bf16"), row(SCORE, run="s", objective="supervised", precision="fp32")]
    assert told(*rows) == [
        "Scores of conv under digits differ in how numbers were computed: bf16: rotnet; fp32: supervised."
    ]


def test_searches_that_computed_otherwise_and_are_pooled_are_told() -> None:
    plain = row(LEVEL, numerics="fp32")
    found = told(plain, plain | {"search_seed": 1, "run": "b", "numerics": "fp32 channels-last"})
    assert found == [
        "Levels of the search of rotnet were made with numbers computed in 2 ways (fp32 and fp32 channels-last), and "
        "are pooled."
    ]
    assert told(plain, plain | {"search_seed": 1, "run": "b"}) == []


@pytest.mark.parametrize("kind", [SCORE, LEVEL, STABILITY])
def test_commits_and_versions_that_were_pooled_are_told(kind: Row) -> None:
    rows = [
        row(kind, search_seed=0, commit="aaa", versions={"torch": "2.10", "timm": "1"}),
        row(kind, search_seed=1, commit="bbb", versions={"torch": "2.11", "timm": "1"}, ticket_hash="b"),
    ]
    name = content.kind_title(kind["kind"])
    assert told(*rows) == [
        f"{name} of rotnet were made with 2 commits (aaa and bbb), and are pooled.",
        f"{name} of rotnet were made with torch 2.10 and 2.11, and are pooled.",
    ]
    # Of two series each has one.
    assert told(rows[0], rows[1] | {"objective": "supervised"}) == []


def test_older_rows_beside_newer_ones_are_told() -> None:
    rows = [row(SCORE, protocol_hash="aaaa", eval_hash="bbbb"), row(SCORE, run="s", objective="supervised")]
    assert told(*rows) == [
        "Older rows do not tell the protocol's settings and the evaluation images (scores of supervised under digits); "
        "they are taken to be those of the others."
    ]


@pytest.mark.parametrize(
    ("changes", "cut"),
    [
        ({"effective_density": 0.0}, True),
        ({"effective_density": 0.1249}, True),
        ({"effective_density": 0.125}, False),
        ({}, False),
        # An adjusted ticket may be sparser than the one whose density it has: its own counts.
        ({"effective_density": 0.1, "control": "adjusted", "natural_density": 0.1, "control_density": 0.1}, False),
        ({"effective_density": 0.04, "control": "adjusted", "natural_density": 0.1, "control_density": 0.1}, True),
    ],
)
def test_networks_of_which_little_is_left_are_told(changes: Row, cut: bool) -> None:
    found = told(row(SCORE, **changes))
    assert len(found) == cut
    assert all("only" in each and "at level 2 (25%)" in each for each in found)


def test_a_table_comes_with_the_notes_of_its_rows(runs, tmp_path) -> None:
    found = table.write_table([runs(*conditions.rows())], tmp_path / "rows.csv")
    assert found.rows == len(conditions.rows())
    notes = content.notes_of_rows(found.frame)
    assert [each.partition(":")[0] for each in notes] == [
        "Own head",
        "rotnet of conv",
        "Scores of conv under digits are split, and not compared across the parts, since they differ in where the "
        "schedule starts",
        next(each for each in notes if each.endswith("made with 2 commits (0123abc and 4567def), and are pooled.")),
    ]


def test_many_names_are_cut_short() -> None:
    assert content.join_names("abc") == "a, b and c"
    assert (
        content.join_names(["a, b", "c"]) == "\N{LEFT DOUBLE QUOTATION MARK}a, b\N{RIGHT DOUBLE QUOTATION MARK} and c"
    )
    assert content.join_names("abcdefgh") == "a, b, c, d, e and 3 more"
    assert content.join_names("aab") == "a and b"
