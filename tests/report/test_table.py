import json
import math
import subprocess
import sys
from pathlib import Path
from types import NoneType

import pandas as pd
import pytest

from sslticket.errors import BadInput
from sslticket.results import table, table_files
from sslticket.results.row_schema import keys_of
from sslticket.results.rows import ROW_TYPES, all_keys, row_columns
from tests.report import analysed


def test_a_folder_within_a_folder_is_read_once(runs, score):
    folder = runs(score(), score(seed=1))
    assert table.read_rows([folder, folder / "a"])["seed"].tolist() == [0, 1]


def test_only_whole_row_files_are_read(runs, score):
    folder = runs(score())
    runs(score(seed=1), file="a/rows/.half.jsonl")
    runs(score(seed=2), file="a/rows/half.jsonl.tmp")
    runs(score(seed=3), file="a/log.jsonl")
    assert table.read_rows([folder])["seed"].tolist() == [0]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"kind": "scores"}, "score, level, stability"),
        ({"top1": 97.2}, "top1 97.2, which must be a fraction"),
        ({"top1": math.nan}, "top1 nan"),
        ({"seed": "0"}, "seed '0'"),
        ({"seed": 10**25}, r"seed 1\d{25}, which must be from -9\.22337e\+18 to 9\.2"),
        ({"seed": True}, "seed True, which is of the wrong type"),
        ({"samples": -5}, "samples -5, which must be from 0"),
        ({"loss": math.inf}, "loss inf"),
        ({"kind": ["score"]}, "score, level, stability"),
        ({"bins": {}}, "bins {}, which is of the wrong type"),
        ({"later": 1}, "'later', which only a newer version can have written .update sslticket"),
        ({"density": 0.0}, "at least one weight"),
        ({"control": ""}, "control '', which must be a name"),
        ({"versions": {"torch": 2.11}}, "2.11 for 'torch' in its versions"),
    ],
)
def test_a_bad_row_is_named_with_file_and_line(runs, score, changes, named):
    with pytest.raises(BadInput, match=named) as error:
        table.read_rows([runs(score(), score(**changes))])
    assert "a/rows/rows.jsonl, line 2 " in str(error.value)


@pytest.mark.parametrize("line", [b'{"kind": "score", "top1": 0.', b"[1]", b"\xff\xfe", b""])
def test_a_line_cut_short_is_named(runs, score, line):
    folder = runs(score())
    with (folder / "a/rows/rows.jsonl").open("ab") as file:
        file.write(line + b"\n")
    with pytest.raises(BadInput, match=r"rows\.jsonl, line 2 is (no row|damaged)"):
        table.read_rows([folder])


def test_a_damaged_row_of_a_search_comes_back_only_with_its_training(runs, level):
    folder = runs(level(), file="a/rows/search.level-03.jsonl")
    (folder / "a/rows/search.level-03.jsonl").write_text('{"kind": "le')
    with pytest.raises(BadInput, match=r"level-03\.jsonl, line 1 is damaged .*; .* the tickets of level-03 and later"):
        table.read_rows([folder])


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"layers": {"first": [3]}}, r"\[3\] for 'first' in its layers"),
        ({"layers": {"first": [11, 10]}}, r"\[11, 10\] for 'first'"),
        ({"layers": {"first": 0.5}}, "0.5 for 'first'"),
        ({"metrics": {"loss": "low"}}, "'low' for 'loss' in its metrics"),
        ({"metrics": {"loss": math.inf}}, "inf for 'loss'"),
        ({"probe": {"10": 61.0}}, "61.0 for '10' in its probe"),
        ({"probe": {"end": 0.6}}, "0.6 for 'end'"),
    ],
)
def test_a_bad_level_row_is_named_too(runs, level, changes, named):
    with pytest.raises(BadInput, match=rf"line 1 has {named}"):
        table.read_rows([runs(level(**changes))])


@pytest.mark.parametrize(
    ("kind", "changes", "named"),
    [
        (analysed.OVERLAP, {"jaccard": 1.5}, "jaccard 1.5, which must be a fraction"),
        (analysed.OVERLAP, {"layers": {"first": [9, 8, 0.4]}}, r"\[9, 8, 0.4\] for 'first' in its layers"),
        (analysed.OVERLAP, {"layers": {"first": [4, 8]}}, r"\[4, 8\] for 'first'"),
        (analysed.CHANNELS, {"dead": {"first": [3, 2]}}, r"\[3, 2\] for 'first' in its dead"),
        (analysed.MAGNITUDES, {"bins": [-8.0, -7.0]}, "2 edges of bins for 4 counts"),
        (analysed.MAGNITUDES, {"bins": [-8.0, -7.0, -7.0, -1.0, 0.0]}, "bins that do not ascend"),
        (analysed.MAGNITUDES, {"counts": [5, 15, 5, -50]}, "-50 among its counts"),
        (analysed.CONNECTIVITY, {"points": [[0.0, 0.1, 0.4, 0.1]]}, r"\[0.0, 0.1, 0.4, 0.1\] among its points"),
        (analysed.CONNECTIVITY, {"points": [[1.5, 0.1, 0.4, 0.1, 0.4]]}, r"\[1.5, .*\] among its points"),
        (analysed.STABILITY, {"order_angle": None}, "order_angle None, which is of the wrong type"),
        (analysed.STABILITY, {"settings": {"lr": [0.1]}}, r"\[0.1\] for 'lr' in its settings"),
    ],
)
def test_a_bad_row_of_an_analysis_is_named_too(runs, kind, changes, named):
    with pytest.raises(BadInput, match=rf"line 1 has {named}"):
        table.read_rows([runs(analysed.row(kind, **changes))])


def test_rows_of_every_analysis_are_exported_with_what_is_nested_as_json(runs, tmp_path):
    kinds = (analysed.STABILITY, analysed.CONNECTIVITY, analysed.MAGNITUDES, analysed.OVERLAP, analysed.CHANNELS)
    told = {"search": "IMP", "settings": {"rewind": "1ep"}, "rewind_samples": 640}
    assert table.write_table([runs(*(analysed.row(kind, **told) for kind in kinds))], tmp_path / "rows.csv").rows == 5
    back = pd.read_csv(tmp_path / "rows.csv").set_index("kind")
    assert set(back["settings"]) == {'{"rewind": "1ep"}'}
    assert set(back["rewind_samples"]) == {640}
    for kind in kinds:
        for key, value in kind.items():
            if key != "kind":
                found = back.loc[kind["kind"], key]
                assert (json.loads(found) if isinstance(value, (dict, list)) else found) == value or pd.isna(found)


def test_a_file_that_a_failing_disk_emptied_is_named(runs, score):
    folder = runs(score())
    (folder / "a/rows/level-01.ticket.jsonl").touch()
    with pytest.raises(BadInput, match=r"level-01\.ticket\.jsonl is empty; delete"):
        table.read_rows([folder])


def test_a_level_row_from_before_there_were_probes_is_read(runs, level):
    old = {key: value for key, value in level().items() if key != "probe"}
    assert table.read_rows([runs(old)])["probe"].isna().all()


def test_missing_keys_are_named(runs, score):
    short = {key: value for key, value in score().items() if key not in ("top1", "commit")}
    with pytest.raises(BadInput, match="line 1 lacks commit, top1"):
        table.read_rows([runs(short)])


def test_folders_without_rows_are_named_with_the_command_that_makes_rows(tmp_path):
    with pytest.raises(BadInput, match=f"{tmp_path}.*sslticket evaluate"):
        table.read_rows([tmp_path])
    with pytest.raises(BadInput, match=r"no folder .*nowhere"):
        table.read_rows([tmp_path / "nowhere"])


def test_tables_need_neither_torch_nor_matplotlib():
    code = "import sys; import sslticket.results.table; print({'torch', 'matplotlib'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


def read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path)


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_an_exported_table_holds_every_value_of_every_row_once(runs, score, level, tmp_path, ending):
    if ending == "parquet":
        pytest.importorskip("pyarrow", reason="no pyarrow here; pip install pyarrow")
    rows = [score(top1=0.1 + 0.2, seed=3), score(objective='a,"b"\n\u00b5'), level(level=12, loss=None)]
    folder = runs(*rows)
    runs(*rows[:2], file="copy/rows/rows.jsonl")
    output = tmp_path / f"rows.{ending}"
    assert table.write_table([folder], output).rows == 3
    back = read(output)
    assert list(back.columns) == row_columns()
    first = back[back["seed"] == 3].iloc[0]
    assert first["top1"] == 0.1 + 0.2
    assert first["versions"] == '{"torch": "2.11"}'
    assert set(back["objective"]) == {"rotnet", 'a,"b"\n\u00b5'}
    told = back[back["kind"] == "level"].iloc[0]
    assert (told["level"], told["layers"]) == (12, '{"first": [9, 10], "last": [16, 90]}')
    assert pd.isna(told["seed"])
    assert pd.isna(told["loss"])
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == [output.name]


def test_whole_numbers_stay_whole_in_text(runs, score, level, tmp_path):
    table.write_table([runs(score(seed=3), level())], tmp_path / "rows.csv")
    assert set(pd.read_csv(tmp_path / "rows.csv", dtype=str)["seed"].dropna()) == {"3"}


def test_tables_of_other_kinds_are_refused_by_name(runs, score, tmp_path):
    with pytest.raises(BadInput, match=r"rows\.xlsx is no name for a table; .*\.parquet or \.csv"):
        table.write_table([runs(score())], tmp_path / "rows.xlsx")


def test_without_pyarrow_one_line_says_what_to_install(runs, score, tmp_path, monkeypatch):
    monkeypatch.setattr(table_files, "find_spec", lambda name: None)
    with pytest.raises(BadInput, match=r"rows\.parquet needs pyarrow; `pip install pyarrow`"):
        table.write_table([runs(score())], tmp_path / "rows.parquet")


def test_the_documented_keys_are_those_of_the_rows():
    """Key, type and kinds of row, as docs/rows.md tells them."""
    names = {str: "text", int: "whole number", float: "number", dict: "names and values", list: "list"}
    wanted = {"kind": ("text", "all")}
    ours = {kind: each for kind, each in ROW_TYPES.items() if each.__module__.startswith("sslticket.")}
    for name, key in all_keys().items():
        having = [kind for kind, row_type in ours.items() if name in keys_of(row_type)]
        nullable = " or nothing" if NoneType in key.types else ""
        if having:  # a class of another test's may have keys of its own
            wanted[name] = names[key.types[0]] + nullable, "all" if len(having) == len(ours) else ", ".join(having)
    text = (Path(__file__).parents[2] / "docs/rows.md").read_text("utf-8")
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| `")]
    assert {name.strip("`"): (kind, of) for name, kind, of, meaning in lines if meaning} == wanted
