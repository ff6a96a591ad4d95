"""Tables of rows as files, read back: what `sslticket rows` wrote, here or long ago, and how it joins rows of folders.

A table may come from anywhere and from an older version. Its lines become rows again, and the same check says what is
wrong with them as with a row of a run's folder.
"""

import io
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from textwrap import shorten
from types import NoneType
from typing import Any, NamedTuple

import pandas as pd

from sslticket.errors import BadInput, one_line
from sslticket.escaping import unescape_cell
from sslticket.results.row_schema import Key, keys_of
from sslticket.results.rows import ROW_TYPES, all_keys
from sslticket.storage.files import parse_json, read_bytes

TABLE_ENDINGS = (".parquet", ".csv")
TABLE_FIX = "give a table that `sslticket rows -o` wrote, or the run folders themselves"
_MAX_BYTES = 1 << 29  # of a table, as a file and unpacked


class FoundRow(NamedTuple):
    """A row and where it was found.

    Attributes:
        row: The row, as decoded JSON.
        place: File and line, for a person.
        fix: What to do if it is no row.
        reason: Why its class may not be loaded, where that is so.
    """

    row: dict[str, Any]
    place: str
    fix: str
    reason: str = ""


def check_pyarrow(path: Path, fix: str) -> None:
    """Checks that a .parquet file can be read and written here.

    Args:
        path: The file.
        fix: What to do without pyarrow.

    Raises:
        BadInput: If pyarrow is missing.
    """
    if path.suffix == ".parquet" and find_spec("pyarrow") is None:
        raise BadInput(f"{path} needs pyarrow; `pip install pyarrow`, or {fix}")


def read_table(path: Path) -> Iterator[FoundRow]:
    """The lines of a .parquet or .csv file as `results.table.write_table` writes it, with the cells that have a value.

    What is nested is text still, see `restore_values`.

    Raises:
        BadInput: If it is no such table, or is damaged or too large, or pyarrow is missing.
    """
    check_pyarrow(path, "give the same rows as a .csv file")
    names, columns = _read_parquet(path) if path.suffix == ".parquet" else _read_csv(path)
    if "kind" not in names or len({*names}) < len(names):
        raise BadInput(f"{path} is no table of rows (it has no column kind, or one column twice); {TABLE_FIX}")
    for number, values in enumerate(zip(*columns, strict=True)):
        cells = dict(zip(names, values, strict=True))
        row = {name: cell for name, cell in cells.items() if not _is_missing(cell)}
        if path.suffix == ".csv":
            # A file of text has one sign for what is empty and for what is missing.
            row = {name: unescape_cell(cell) for name, cell in row.items() if cell}
            texts = {name for name, key in _own_keys(row).items() if key.types == (str,) and not key.optional}
            row |= dict.fromkeys({*texts, "within"} & {*names} - row.keys(), "")
        yield FoundRow(row, f"{path}, row {number + 1}", TABLE_FIX)


def _read_parquet(path: Path) -> tuple[list[str], list[list[Any]]]:
    """Names of the columns, and their values."""
    import pyarrow
    from pyarrow import parquet

    content = read_bytes(path, _MAX_BYTES)
    try:
        file = parquet.ParquetFile(pyarrow.BufferReader(content))
        groups = range(file.metadata.num_row_groups)
        if sum(file.metadata.row_group(number).total_byte_size for number in groups) > _MAX_BYTES:
            raise ValueError(f"it unpacks to more than {_MAX_BYTES:,} bytes")
        table = file.read()
        return table.column_names, [column.to_pylist() for column in table.columns]
    except (pyarrow.ArrowException, OSError, ValueError, TypeError, KeyError, RecursionError, OverflowError) as error:
        raise BadInput(_damage(path, error)) from None


def _read_csv(path: Path) -> tuple[list[str], list[list[Any]]]:
    """Names of the columns, and their cells, which are text."""
    content = read_bytes(path, _MAX_BYTES)
    try:
        frame = pd.read_csv(io.BytesIO(content), dtype=str, header=None, na_filter=False, encoding="utf-8-sig")
    except (ValueError, pd.errors.ParserError, pd.errors.EmptyDataError, RecursionError, OverflowError) as error:
        raise BadInput(_damage(path, error)) from None
    lines = frame.to_numpy().T.tolist()
    return [column[0] for column in lines], [column[1:] for column in lines]


def _damage(path: Path, error: Exception) -> str:
    return (
        f"{path} is damaged or no {path.suffix} file ({shorten(one_line(error), 120, placeholder='...')}); {TABLE_FIX}"
    )


def _is_missing(cell: object) -> bool:
    return cell is None or (isinstance(cell, float) and cell != cell)


def _own_keys(row: Mapping[str, Any]) -> Mapping[str, Key]:
    row_type = ROW_TYPES.get(row["kind"]) if isinstance(row.get("kind"), str) else None
    return {} if row_type is None else keys_of(row_type)


def restore_values(found: FoundRow) -> FoundRow:
    """The row with its values as JSON has them; those that cannot be stay, for the check of the row to name.

    Raises:
        BadInput: If what is nested is no JSON.
    """
    keys = all_keys()
    empty = {name: None for name, key in _own_keys(found.row).items() if NoneType in key.types and not key.optional}
    row = {
        name: _restored(value, keys[name], f"{found.place}, {name}") if name in keys else value
        for name, value in found.row.items()
    }
    return found._replace(row=empty | row)


def _restored(value: Any, key: Key, place: str) -> Any:
    if {dict, list} & {*key.types}:
        return parse_json(value, place, finite=False, fix=TABLE_FIX) if isinstance(value, str) else value
    if float in key.types or int in key.types:
        whole = float not in key.types
        return _number(value, int if whole else float)
    return value


def _number(value: Any, kind: Callable[[Any], Any]) -> Any:
    """A number of this kind, if it is one."""
    if isinstance(value, bool) or (kind is int and isinstance(value, float) and not value.is_integer()):
        return value
    try:
        return kind(value)
    except (ValueError, TypeError, OverflowError):
        return value


IDENTITY = (
    *("kind", "run", "recipe", "level", "search_seed", "ticket_hash", "precision"),
    *("control", "protocol", "target", "seed", "other_run", "other_hash"),
)
"""Keys by which two rows that have them all alike may be of one measurement."""
IDENTITY_IF_TOLD = ("protocol_hash", "start", "head", "replicate", "numerics", "data_hash", "eval_hash", "source_hash")
"""Keys that must not differ either, and that older rows lack."""
_CIRCUMSTANCES = ("command", "commit", "versions", "device", "kernels", "seconds", "parts", "curve", "curve_every")
"""Keys in which a measurement that was made twice may differ."""
_ONE_EACH = ("score", "level")
"""Kinds of which there is one row for an identity; analyses may have several, by their settings."""


def join_tables(rows: list[FoundRow], tables: Iterable[FoundRow]) -> list[FoundRow]:
    """The rows with those of tables, where a measurement that is in both counts once: the row that tells more.

    Args:
        rows: Rows of folders.
        tables: Checked rows of tables.

    Raises:
        BadInput: If two rows of one measurement say different things, naming both.
    """
    found = list(rows)
    places: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    for place, each in enumerate(found):
        places[_identity(each.row)].append(place)
    for new in tables:
        same = places[_identity(new.row)]
        alike = [place for place in same if _agree(found[place].row, new.row, IDENTITY_IF_TOLD)]
        for place in alike:
            old = found[place]
            differing = [name for name in old.row if name in new.row and not _may_differ(name, old.row, new.row)]
            if not differing:
                found[place] = max(old, new, key=lambda each: len(each.row))
                break
            if new.row["kind"] in _ONE_EACH:
                name = differing[0]
                raise BadInput(
                    f"{new.place} says {name} {new.row[name]!r:.60} and {old.place} {old.row[name]!r:.60} of one "
                    "measurement; give one of the two"
                )
        else:
            same.append(len(found))
            found.append(new)
    return found


def _identity(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row.get(name) for name in IDENTITY)


def _agree(row: Mapping[str, Any], other: Mapping[str, Any], names: Iterable[str]) -> bool:
    return all(row[name] == other[name] for name in names if name in row and name in other)


def _may_differ(name: str, row: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return name in _CIRCUMSTANCES or row[name] == other[name]
