"""All rows as one tidy pandas frame, and that frame as a file for other programs; no torch, no drawing."""

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from sslticket.errors import BadInput
from sslticket.escaping import escape_cell, escape_json
from sslticket.registry import load_recorded_parts, registry_of
from sslticket.results.rows import CONTROLS, ROW_TYPES, all_keys, row_columns, row_error
from sslticket.results.table_files import (
    TABLE_ENDINGS,
    FoundRow,
    check_pyarrow,
    join_tables,
    read_table,
    restore_values,
)
from sslticket.storage.files import atomic_write, parse_json, read_bytes

_MAX_BYTES = 1 << 26  # bytes of a file of rows, which holds one


def no_rows_error(folders: Sequence[Path], what: str = "rows") -> BadInput:
    """The error for folders that hold no rows, or none of the kind that is needed."""
    searched = ", ".join(map(str, folders)) or "no folder at all"
    fix = "make some with `sslticket evaluate RUN`"
    if tables := [path for place in folders if place.is_dir() for path in _tables_in(place)]:
        fix = f"give tables of rows by their names, such as {tables[0]}"
    return BadInput(f"no {what} (rows/*.jsonl) below {searched}; {fix}")


def _tables_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix in TABLE_ENDINGS and path.is_file())


def read_rows(places: Sequence[Path]) -> pd.DataFrame:
    """Every row below folders and in tables, one measurement each, with a column for every key.

    What a kind lacks is missing. Tables are .parquet and .csv files that `write_table` wrote, of this version or an
    older one. A measurement that is in a table and in a folder, or in two tables, is there once.

    Rows of all kinds are in one frame: `frame[frame.kind == "score"]` picks one. Their order depends on what they
    say, not on where they were found. Rows of an analysis from outside the package are left out where its file may not
    be loaded; `frame.attrs["left_out"]` says so, a sentence for each kind.

    Args:
        places: Folders of runs, or that hold such, and tables.

    Raises:
        BadInput: If a folder or table is not there, there are no rows, a line is no row, or two rows of one measurement
            say different things; file and line number are named.
    """
    folders = [place for place in places if place.suffix not in TABLE_ENDINGS or place.is_dir()]
    for folder in folders:
        if not folder.is_dir():
            raise BadInput(
                f"no folder {folder}; give the run folders, the folder that holds them, or tables of rows that end in "
                ".parquet or .csv"
            )
    tables = {place.resolve(): place for place in places if place not in folders}
    for table in tables.values():
        if not table.exists():
            raise BadInput(f"there is no table {table}; give one that `sslticket rows -o {table.name}` wrote")
    # A set, since one given folder may lie within another.
    files = {file for folder in folders for file in _row_files(folder)}
    _load_part.cache_clear()  # a file that was not there may be now
    notes: Counter[str] = Counter()
    read = [row for file in sorted(files, key=attrgetter("parts")) if file.name[0] != "." for row in _read_file(file)]
    tabled = [_with_parts(row) for path in sorted(tables) for row in read_table(tables[path])]
    # Only now: a kind that one row's file defines is known for all rows.
    found = [row for row in read if _may_be_read(row, notes)]
    if tables:
        found = join_tables(found, [row for row in map(restore_values, tabled) if _may_be_read(row, notes)])
    sentences = [f"{count:,} row{'s' * (count > 1)} {text}" for text, count in sorted(notes.items())]
    if not found:
        raise BadInput("; ".join(sentences)) if sentences else no_rows_error(places)
    frame = pd.DataFrame([each.row for each in found], columns=row_columns())
    if frame["search_seed"].isna().any():  # of imported tickets; floats would round the others
        frame["search_seed"] = pd.array([each.row.get("search_seed") for each in found], dtype="Int64")
    order = ["run", "kind", "protocol", "level", "control", "seed", "search_seed", "ticket_hash", "other_hash"]
    frame = frame.sort_values(order, kind="stable", ignore_index=True)
    frame.attrs["left_out"] = sentences
    return frame


def _row_files(folder: Path) -> Iterator[Path]:
    """The files of rows below a folder, without links in their paths."""
    home = folder.resolve()  # once: of each file of many thousands it takes longer than to read it
    for place, _, names in os.walk(folder):
        if Path(place).name == "rows" and any(name.endswith(".jsonl") for name in names):
            own = home / os.path.relpath(place, folder)
            with os.scandir(place) as entries:
                found = [(entry.name, entry.is_symlink()) for entry in entries if entry.name.endswith(".jsonl")]
            yield from ((own / name).resolve() if is_link else own / name for name, is_link in found)


def _may_be_read(found: FoundRow, notes: Counter[str]) -> bool:
    """Whether a row is one, and of a kind whose class may be loaded; what a reader must know is counted in `notes`."""
    row, reason = found.row, found.reason
    kind = row.get("kind") if isinstance(row, dict) else None
    if reason and kind not in ROW_TYPES:
        notes[f"of the kind {kind} left out: {reason}"] += 1
        return False
    if fault := row_error(row):
        if not reason:
            raise BadInput(f"{found.place} {fault}; {found.fix}")
        notes[f"of the kind {kind} left out: {reason}"] += 1
        return False
    if reason:
        notes[f"of the kind {kind} read with its file as it is now: {reason.partition(';')[0]}"] += 1
    return True


def _with_parts(found: FoundRow) -> FoundRow:
    """A row of a table whose analysis or control is imported, if that may be."""
    parts = found.row.get("parts")
    if isinstance(parts, str):
        parts = parse_json(parts, f"{found.place}, parts", fix=found.fix)
    return found._replace(reason=_load_parts({**found.row, "parts": parts}))


def _read_file(file: Path) -> Iterator[FoundRow]:
    """The rows in a file, which are not checked yet."""
    lines, fix = read_bytes(file, _MAX_BYTES).split(b"\n"), _how_to_remake(file)
    # A row file is renamed into place when it is whole, but a disk that fails can still cut it to nothing.
    if lines == [b""]:
        raise BadInput(f"{file} is empty; {fix}")
    for number, line in enumerate(lines[:-1] if lines[-1] == b"" else lines, start=1):
        place = f"{file}, line {number}"
        # A number that is none is named with its key, by the check of the row.
        row = parse_json(line, place, finite=False, fix=fix)
        if b"\\ud" in line.lower():
            # Names that are no UTF-8, such as of files in a command: columns of text cannot hold them.
            whole = json.dumps(row, ensure_ascii=False).encode("utf-8", "surrogateescape").decode("utf-8", "replace")
            row = parse_json(whole, place, finite=False, fix=fix)
        yield FoundRow(row, place, fix, _load_parts(row))


def _load_parts(row: Any) -> str:
    """Import the analysis or control that a row is of, if it is none that is known; why that cannot be, or ""."""
    if not isinstance(row, dict) or not isinstance(kind := row.get("kind"), str):
        return ""
    control = row.get("control")
    for name, known, what in ((kind, ROW_TYPES, "analysis"), (control, CONTROLS, "control")):
        if not isinstance(name, str) or name in known:
            continue
        if name in registry_of(what).names():
            registry_of(what).get(name)
        elif isinstance(parts := row.get("parts"), dict) and all(isinstance(each, str) for each in parts.values()):
            reasons = list(map(_load_part, parts.items()))
            if known is ROW_TYPES and kind not in known:
                return next(filter(None, reasons), "none of its parts defines them")
    return ""


@lru_cache(maxsize=1000)
def _load_part(part: tuple[str, str]) -> str:
    try:
        load_recorded_parts(dict([part]))
    except BadInput as error:
        return str(error)
    return ""


def _how_to_remake(file: Path) -> str:
    """How to get a damaged row again."""
    if level := re.fullmatch(r"search\.(level-\d+)\.jsonl", file.name):
        later = f"the tickets of {level[1]} and later levels"
        return f"delete the file and, to have its training measured again, {later}, and run the search again"
    return "delete the file and run the command that made it again"


def curve_rows(frame: pd.DataFrame) -> pd.DataFrame:
    """The measurements of `sslticket evaluate --curve`, one line each; empty where there are none.

    Of a frame of `read_rows` it has the columns of the score rows, but `kind` is "curve", `top1` that of the moment,
    `samples_seen` and `epoch` the place on the protocol's schedule. Means over seeds are to be taken of one
    `curve_every`, since other intervals have other moments; the last moment is the end of the training in all.
    """
    scores = frame[frame["curve"].notna()]
    points = scores["curve"].explode()
    values = pd.DataFrame(points.tolist(), columns=["samples_seen", "epoch", "top1"], index=points.index)
    found = scores.drop(columns=["top1", "top5", "loss", "curve"]).assign(kind="curve").join(values)
    return found.reset_index(drop=True)


class WrittenTable(NamedTuple):
    """A table that was written.

    Attributes:
        rows: Number of its lines.
        frame: The rows that it was written from, as `read_rows` gives them.
    """

    rows: int
    frame: pd.DataFrame


def write_table(places: Sequence[Path], output: Path) -> WrittenTable:
    """Write every row below folders and in tables as one table: a line for each measurement, a column for each key.

    Keys that hold names and values (`versions`, `layers`, ...) or lists (`points`, ...) become JSON text. A row that a
    copied run folder repeats is written once. The same rows give the same table, and the file appears whole or not at
    all.

    Args:
        places: Folders of runs, and tables.
        output: A name that ends in .csv, or in .parquet, which needs pyarrow.

    Raises:
        BadInput: For another ending, where pyarrow is missing, or as `read_rows` does.
    """
    if output.suffix not in TABLE_ENDINGS or output.is_dir():
        raise BadInput(f"{output} is no name for a table; give -o a file name that ends in .parquet or .csv")
    check_pyarrow(output, "give -o a file name that ends in .csv")
    found = read_rows(places)
    frame = flatten_rows(found)
    with atomic_write(output) as temporary:
        if output.suffix == ".csv":
            cells = frame.assign(**dict(_map_text_columns(frame, escape_cell)))
            cells.to_csv(temporary, index=False, lineterminator="\n")
        else:
            frame.to_parquet(temporary, index=False, engine="pyarrow")
    return WrittenTable(len(frame), found)


def flatten_rows(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame of `rows` with plain columns only: text, float64, and Int64 where whole numbers may be missing."""
    keys = all_keys()
    nested = [name for name, key in keys.items() if {dict, list} & {*key.types}]
    texts = {name: frame[name].map(partial(json.dumps, ensure_ascii=False), na_action="ignore") for name in nested}
    integers = dict.fromkeys((name for name, key in keys.items() if key.types == (int,)), "Int64")
    return frame.assign(**texts).astype(integers).drop_duplicates(ignore_index=True)


def printable_rows(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame of `rows` for pictures and pages: what cannot be seen in its words is told."""
    return frame.assign(**dict(_map_text_columns(frame, escape_json)))


def _mapped(value: Any, way: Callable[[Any], Any], seen: dict[str, Any]) -> Any:
    if isinstance(value, str):
        if value not in seen:
            seen[value] = way(value)
        return seen[value]
    return way(value) if isinstance(value, (dict, list)) else value


def _map_text_columns(frame: pd.DataFrame, way: Callable[[Any], Any]) -> Iterator[tuple[str, pd.Series]]:
    for key, values in frame.items():
        if values.dtype == object or pd.api.types.is_string_dtype(values):
            seen: dict[str, Any] = {}  # words are few, rows are many
            told = [_mapped(value, way, seen) for value in values.tolist()]
            yield str(key), pd.Series(told, frame.index, values.dtype)
