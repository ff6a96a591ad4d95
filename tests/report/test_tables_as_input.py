"""Tables of rows that were written are read again, beside folders of runs."""

import json
import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from sslticket.api import read_rows, write_report
from sslticket.errors import BadInput
from sslticket.results import table, table_files
from tests.report import analysed

ROOT = Path(__file__).parents[2]
pytest.importorskip("pyarrow", reason="no pyarrow here; pip install pyarrow")
COMMITTED = sorted(ROOT.glob("docs/*/*.parquet"))


ANALYSES = (analysed.STABILITY, analysed.CONNECTIVITY, analysed.MAGNITUDES, analysed.OVERLAP, analysed.CHANNELS)


def every_kind(score: Any, level: Any) -> list[dict[str, Any]]:
    told = {"settings": {"rewind": "1ep", "frozen": False, "lr": 0.1}, "search": "IMP", "within": "up to conv3"}
    return [
        score(top1=0.1 + 0.2, seed=3, within="", curve=[[128, 0.5, 0.3], [256, 1.0, 0.3]], curve_every="128samples"),
        score(objective="-x", command="=1+1", model='a,"b"\nµ', seed=-4, search_seed=2**62, loss=None, **told),
        score(objective="'-x", versions={}, commit=""),
        level(probe={"10": 0.25}, metrics={"loss": 1}, loss=None, bad_hash="77"),
        *(analysed.row(kind, **told) for kind in ANALYSES),
    ]


def without_gaps(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows with what they tell, in an order of their own; before layers could be chosen all were meant."""
    frame = frame.assign(within=frame["within"].fillna(""))
    rows = [
        {key: value for key, value in row.items() if isinstance(value, (list, dict)) or not pd.isna(value)}
        for row in frame.to_dict("records")
    ]
    return sorted(rows, key=lambda row: json.dumps(row, sort_keys=True, default=float))


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_table_gives_back_every_row_as_it_was(runs, score, level, tmp_path, ending):
    folder = runs(*every_kind(score, level))
    table.write_table([folder], tmp_path / f"rows.{ending}")
    first, again = read_rows(folder), read_rows(tmp_path / f"rows.{ending}")
    assert without_gaps(again) == without_gaps(first)
    both = read_rows([folder, tmp_path / f"rows.{ending}"])
    assert without_gaps(both) == without_gaps(first), "what is in both counts once"
    table.write_table([tmp_path / f"rows.{ending}"], tmp_path / "again.csv")
    table.write_table([folder], tmp_path / "first.csv")
    assert (tmp_path / "again.csv").read_bytes() == (tmp_path / "first.csv").read_bytes()


def test_the_page_of_a_table_is_that_of_the_folder(folder, tmp_path):
    table.write_table([folder], tmp_path / "rows.csv")
    table.write_table([tmp_path / "rows.csv", folder], tmp_path / "rows.parquet")
    write_report(folder, tmp_path / "folder.html")
    write_report(tmp_path / "rows.parquet", tmp_path / "table.html")
    assert (tmp_path / "table.html").read_bytes() == (tmp_path / "folder.html").read_bytes()


def test_rows_of_tables_and_folders_that_differ_stand_side_by_side(runs, score, tmp_path):
    table.write_table([runs(score(seed=0), score(seed=1))], tmp_path / "first.csv")
    table.write_table([runs(score(seed=1), score(seed=2))], tmp_path / "second.csv")
    found = read_rows([tmp_path / "first.csv", runs(score(seed=3)), tmp_path / "second.csv", tmp_path / "first.csv"])
    assert found["seed"].tolist() == [0, 1, 2, 3]


def test_of_one_measurement_the_row_that_tells_more_is_told(runs, score, tmp_path):
    table.write_table([runs(score(commit="old", seconds=9.0))], tmp_path / "old.csv")
    table.write_table([runs(score(commit="new", numerics="fp32"))], tmp_path / "new.csv")
    (row,) = read_rows([tmp_path / "old.csv", tmp_path / "new.csv"]).to_dict("records")
    assert (row["commit"], row["numerics"]) == ("new", "fp32")
    curved = runs(score(curve=[[1280, 1.0, 0.9]], curve_every="1ep"))
    (row,) = read_rows([curved, tmp_path / "new.csv"]).to_dict("records")
    assert row["curve"] == [[1280, 1.0, 0.9]]


def test_kernels_are_a_circumstance_as_devices_are(runs, score, tmp_path):
    table.write_table([runs(score(device="a", kernels="channels-last"))], tmp_path / "old.csv")
    assert len(read_rows([tmp_path / "old.csv", runs(score(device="b", kernels="3 of 3 layers sparse"))])) == 1


@pytest.mark.parametrize(
    "changes", [{"numerics": "fp32 compiled"}, {"head": "own"}, {"protocol_hash": "cc"}, {"precision": "bf16"}]
)
def test_what_was_measured_in_another_way_is_another_measurement(runs, score, tmp_path, changes):
    told = {"numerics": "fp32", "head": "new", "protocol_hash": "aa"}
    table.write_table([runs(score(**told))], tmp_path / "rows.csv")
    assert len(read_rows([tmp_path / "rows.csv", runs(score(**told | changes, top1=0.1))])) == 2


def test_two_tellings_of_one_measurement_are_named_in_one_line(runs, score, level, tmp_path):
    table.write_table([runs(score(), score(seed=1))], tmp_path / "rows.csv")
    with pytest.raises(BadInput, match=r"row 2 says top1 0\.9 and .*rows\.jsonl, line 1 0\.8 of one measurement"):
        read_rows([tmp_path / "rows.csv", runs(score(seed=1, top1=0.8))])
    table.write_table([runs(level())], tmp_path / "rows.csv")
    with pytest.raises(BadInput, match=r"row 1 says search_samples 3840 and .* 99 of one measurement; give one of the"):
        read_rows([tmp_path / "rows.csv", runs(level(search_samples=99))])


@pytest.mark.parametrize(
    ("name", "content", "answer"),
    [
        ("rows.csv", b"", r"rows\.csv is damaged or no \.csv file"),
        ("rows.csv", b"\xff\xfe\x00", r"rows\.csv is damaged or no \.csv file"),
        ("rows.csv", b"a,b\n1,2\n", r"rows\.csv is no table of rows \(it has no column kind"),
        ("rows.csv", b"kind,kind\nscore,score\n", r"rows\.csv"),
        ("rows.csv", b"kind,run\nscore,x\n", r"rows\.csv, row 1 lacks recipe, "),
        ("rows.csv", b"kind,run\nother,x\n", r"rows\.csv, row 1 is no row of a known kind"),
        ("rows.parquet", b"", r"rows\.parquet is damaged or no \.parquet file"),
        ("rows.parquet", b"PAR1 and no more PAR1", r"rows\.parquet is damaged or no \.parquet file"),
    ],
)
def test_files_that_are_no_tables_of_rows_are_refused_in_one_line(tmp_path, name, content, answer):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadInput, match=answer) as error:
        read_rows(tmp_path / name)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("column", "value", "answer"),
    [
        ("top1", "much", "row 1 has top1 'much', which is of the wrong type"),
        ("seed", "0.5", "row 1 has seed '0.5', which is of the wrong type"),
        ("density", "1.5", "row 1 has density 1.5, which must be a fraction"),
        ("versions", '{"torch"', r"row 1, versions is damaged \(no JSON"),
        ("versions", "[]", "row 1 has versions"),
        ("later", "1", "row 1 has 'later', which only a newer version can have written"),
    ],
)
def test_a_value_that_cannot_be_is_named_with_its_row(runs, score, tmp_path, column, value, answer):
    table.write_table([runs(score())], tmp_path / "rows.csv")
    frame = pd.read_csv(tmp_path / "rows.csv", dtype=str)
    frame.assign(**{column: value}).to_csv(tmp_path / "rows.csv", index=False)
    with pytest.raises(BadInput, match=answer):
        read_rows(tmp_path / "rows.csv")


def test_columns_that_older_versions_lacked_or_nobody_filled_are_no_fault(runs, score, tmp_path):
    table.write_table([runs(score())], tmp_path / "rows.csv")
    frame = pd.read_csv(tmp_path / "rows.csv", dtype=str).dropna(axis="columns")
    frame.to_csv(tmp_path / "rows.csv", index=False)
    (row,) = read_rows(tmp_path / "rows.csv").to_dict("records")
    assert row["top1"] == 0.9
    assert math.isnan(row["numerics"]) if isinstance(row["numerics"], float) else row["numerics"] is None


def test_without_pyarrow_one_line_says_what_to_install_or_to_give(tmp_path, monkeypatch):
    monkeypatch.setattr(table_files, "find_spec", lambda name: None)
    (tmp_path / "rows.parquet").touch()
    with pytest.raises(BadInput, match=r"rows\.parquet needs pyarrow; `pip install pyarrow`, or give the same"):
        read_rows(tmp_path / "rows.parquet")


def test_a_table_that_is_not_there_and_a_folder_of_tables_are_named(runs, score, tmp_path):
    with pytest.raises(BadInput, match=r"there is no table .*nowhere\.csv"):
        read_rows(tmp_path / "nowhere.csv")
    (tmp_path / "kept").mkdir()
    table.write_table([runs(score())], tmp_path / "kept" / "rows.csv")
    with pytest.raises(BadInput, match=r"no rows .* below .*kept; give tables of rows by their names, .*rows\.csv"):
        read_rows(tmp_path / "kept")


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: "/".join(path.parts[-2:]))
def test_committed_evidence_is_read_and_loses_nothing(path, tmp_path):
    found, plain = read_rows(path), pd.read_parquet(path)
    assert len(found) == len(plain) > 50  # the smallest is of 12 searches
    for key in ("settings", "commit", "seed", "search_seed", "top1"):
        assert found[key].notna().sum() == plain[key].notna().sum()
    assert all(isinstance(settings, dict) for settings in found["settings"].dropna())
