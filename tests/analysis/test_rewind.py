import json
from pathlib import Path

import pytest

from sslticket.errors import BadInput
from sslticket.report.sections.training_analyses import describe_rewinding
from tests.report.analysed import STABILITY, Row, row
from tests.report.conftest import SCORE


def searched(at: str, samples: int, **changes: object) -> Row:
    about = {"run": at, "recipe": at, "search": "IMP", "rewind_samples": samples}
    return about | {"settings": {"search": "IMP", "rewind": at, "rate": 0.5}} | changes


def write(folder: Path, *rows: Row) -> Path:
    (folder / "rows").mkdir()
    (folder / "rows" / "all.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows))
    return folder


def test_a_table_of_means_by_rewind_point_and_density(tmp_path: Path) -> None:
    """By hand: 0.90 and 0.94, of two trainings, have the mean 0.92 and the standard deviation 0.028."""
    scores = [
        row(SCORE, **searched("0it", 0, seed=0, top1=0.5)),
        row(SCORE, **searched("1ep", 1280, seed=0, top1=0.90)),
        row(SCORE, **searched("1ep", 1280, seed=0, search_seed=1, top1=0.93)),
        row(SCORE, **searched("1ep", 1280, seed=1, search_seed=1, top1=0.95)),
        row(SCORE, **searched("1ep", 1280, seed=0, top1=0.25, level=3, density=0.125, ticket_hash="deep")),
    ]
    stable = [row(STABILITY, **searched(at, samples)) for at, samples in (("0it", 0), ("1ep", 1280))]
    tables = describe_rewinding([write(tmp_path, *scores, *stable)]).split("\n\n")
    assert tables[0].startswith("Top-1 in % of rotnet, conv on digits, protocol digits, by images seen at W_k")
    assert tables[1].splitlines() == [
        "  W_k             25%     12.5%",
        "-----  --------------  --------",
        "    0        50.0 (1)         \N{EN DASH}",
        "1,280  92.0 ± 2.8 (2)  25.0 (1)",
    ]
    assert tables[2].startswith("Distance from the pruned dense network of rotnet")
    assert tables[3].splitlines()[2:] == ["    0  19.8 (1)", "1,280  19.8 (1)"]


def test_searches_that_differ_in_more_are_not_put_side_by_side(tmp_path: Path) -> None:
    """Neither another rate, nor rows that do not tell their settings."""
    other = searched("1ep", 1280, settings={"search": "IMP", "rewind": "1ep", "rate": 0.2})
    old = {key: value for key, value in row(SCORE, run="old", recipe="old").items() if key != "settings"}
    folder = write(tmp_path, row(SCORE, **searched("0it", 0)), row(SCORE, **other), old)
    with pytest.raises(BadInput, match="differ in their rewind point only; search with several --rewind"):
        describe_rewinding([folder])


def test_older_rows_are_told_apart_by_newer_ones_of_their_recipe(tmp_path: Path) -> None:
    """What one row of a recipe says of it, all others may use."""
    rows = [
        row(SCORE, **searched(at, samples, search_seed=seed))
        for at, samples in (("0it", 0), ("1ep", 9))
        for seed in (0, 1)
    ]
    for each in rows[::2]:
        del each["settings"], each["search"]
    assert "90.0 ± 0.0 (2)" in describe_rewinding([write(tmp_path, *rows)])
