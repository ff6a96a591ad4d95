"""All rows as one tidy pandas frame, and that frame as a file for other programs; no torch, no drawing."""

import json
import re
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from sslticket.errors import BadInput
from sslticket.files import written_whole
from sslticket.report import notes, schema

_WHOLE = [key for key, kind in schema.KEYS.items() if kind is int]
_NESTED = [key for key, kind in schema.KEYS.items() if kind in (dict, list)]


def nothing(folders: Sequence[Path], what: str = "rows") -> BadInput:
    """The error for folders that hold no rows, or none of the kind that is needed."""
    looked = ", ".join(map(str, folders)) or "no folder at all"
    return BadInput(f"no {what} (rows/*.jsonl) below {looked}; make some with `sslticket evaluate RUN`")


def rows(folders: Sequence[Path]) -> pd.DataFrame:
    """Every row below `folders`, one measurement each, with a column for every key; what a kind lacks is missing.

    Rows of all kinds are in one frame: `frame[frame.kind == "score"]` picks one. Their order depends on what they
    say, not on where they were found.

    Raises:
        BadInput: if a folder is not there, holds no rows, or a line is no row; file and line number are named.
    """
    for folder in folders:
        if not folder.is_dir():
            raise BadInput(f"no folder {folder}; give the run folders, or the folder that holds them")
    # A set, since one given folder may lie within another.
    files = {file.resolve() for folder in folders for file in folder.rglob("*.jsonl") if file.parent.name == "rows"}
    found = [row for file in sorted(files) if not file.name.startswith(".") for row in _read(file)]
    if not found:
        raise nothing(folders)
    frame = pd.DataFrame(list(map(_as_text, found)), columns=schema.COLUMNS)
    order = ["run", "kind", "protocol", "level", "control", "seed", "search_seed", "ticket_hash", "other_hash"]
    return frame.sort_values(order, kind="stable", ignore_index=True)


def _as_text(row: dict[str, Any]) -> dict[str, Any]:
    """A row whose names pandas takes: bytes of a file's name that were no letters are written as their numbers."""
    return {
        name: value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value
        for name, value in row.items()
    }


def _read(file: Path) -> Iterator[dict[str, Any]]:
    lines = file.read_bytes().splitlines()
    # A row file is renamed into place when it is whole, but a disk that fails can still cut it to nothing.
    if not lines:
        raise BadInput(f"{file} is empty; {_remade(file)}")
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except ValueError:
            raise BadInput(f"{file}, line {number} is no JSON; {_remade(file)}") from None
        if fault := schema.wrong(row):
            raise BadInput(f"{file}, line {number} {fault}; {_remade(file)}")
        yield row


def _remade(file: Path) -> str:
    """How to get a damaged row again."""
    if level := re.fullmatch(r"search\.(level-\d+)\.jsonl", file.name):
        later = f"the tickets of {level[1]} and later levels"
        return f"delete the file and, to have its training measured again, {later}, and run the search again"
    return "delete the file and run the command that made it again"


class Exported(NamedTuple):
    """A table that was written: its lines, and what a reader of them must know, a sentence each."""

    rows: int
    notes: tuple[str, ...]


def export(folders: Sequence[Path], output: Path) -> Exported:
    """Write every row below `folders` as one tidy table: a line for each measurement, a column for each key.

    Keys that hold names and values (`versions`, `layers`, ...) or lists (`points`, ...) become JSON text. A row that a
    copied run folder repeats is written once. The same rows give the same table, and the file appears whole or not at
    all.

    Args:
        folders: of runs.
        output: a name that ends in .csv, or in .parquet, which needs pyarrow.

    Raises:
        BadInput: for another ending, where pyarrow is missing, or as `rows` does.
    """
    if output.suffix not in (".csv", ".parquet") or output.is_dir():
        raise BadInput(f"{output} is no name for a table; give -o a file name that ends in .parquet or .csv")
    if output.suffix == ".parquet" and find_spec("pyarrow") is None:
        raise BadInput(f"{output} needs pyarrow; `pip install pyarrow`, or give -o a file name that ends in .csv")
    found = rows(folders)
    frame = flat(found)
    with written_whole(output) as temporary:
        if output.suffix == ".csv":
            frame.to_csv(temporary, index=False, lineterminator="\n", errors="backslashreplace")
        else:
            frame.to_parquet(temporary, index=False, engine="pyarrow")
    return Exported(len(frame), tuple(notes.of(found)))


def flat(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame of `rows` with plain columns only: text, float64, and Int64 where whole numbers may be missing."""
    nested = {key: frame[key].map(_text, na_action="ignore") for key in _NESTED}
    return frame.assign(**nested).astype(dict.fromkeys(_WHOLE, "Int64")).drop_duplicates(ignore_index=True)


def _text(value: dict[str, Any] | list[Any]) -> str:
    return json.dumps(value, ensure_ascii=False)
