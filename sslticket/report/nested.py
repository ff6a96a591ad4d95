"""What may be within a row's names and values, and within its lists."""

from collections.abc import Callable, Collection
from itertools import pairwise
from textwrap import shorten
from typing import Any

_MOST = 1e39  # of any number, be it the loss of a training that has lost its way


def wrong(row: dict[str, Any], keys: Collection[str]) -> str | None:
    """What keeps the names and values, and the lists, of a row from being right; None for good ones.

    Args:
        row: of a known kind, in which each of `keys` has the right type.
        keys: that this kind of row has.
    """
    nested = _NESTED | _OF_KIND.get(row["kind"], {})
    for key in [key for key in keys if key in row]:
        if key in nested:
            odd = [(name, value) for name, value in row[key].items() if not nested[key](name, value)]
            if odd:
                return f"has {_shown(odd[0][1])} for {odd[0][0][:80]!r} in its {key}, which cannot be"
        if key in _LISTS:
            odd = [value for value in row[key] if not _LISTS[key](value)]
            if odd:
                return f"has {_shown(odd[0])} among its {key}, which cannot be"
    if "bins" in row and len(row["bins"]) != len(row.get("counts", [])) + 1:
        return f"has {len(row['bins'])} edges of bins for {len(row.get('counts', []))} counts"
    if any(low >= high for low, high in pairwise(row.get("bins", []))):
        return "has bins that do not ascend"
    return None


def _shown(value: Any) -> str:
    return shorten(repr(value), 80, placeholder="...")


def _number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= _MOST  # which NaN is not


def _of(value: Any) -> bool:
    """Whether it is [some, all of them]."""
    if not isinstance(value, list) or [type(count) for count in value] != [int, int]:
        return False
    some, everything = value
    return bool(0 <= some <= everything > 0 and everything <= _MOST)


def _shared(value: Any) -> bool:
    """Whether it is [both, either, chance]; a layer that both masks emptied has [0, 0, 1]."""
    if not isinstance(value, list) or len(value) != 3 or not all(map(_number, value)):
        return False
    both, either, chance = value
    return bool(0 <= both <= either and 0 <= chance <= 1)


_NESTED: dict[str, Callable[[str, Any], bool]] = {
    "versions": lambda _, value: isinstance(value, str),
    "settings": lambda _, value: isinstance(value, (str, bool)) or _number(value),
    "metrics": lambda _, value: _number(value),
    "probe": lambda step, value: (
        step.isascii() and step.isdigit() and len(step) < 16 and _number(value) and 0 <= value <= 1
    ),
    "layers": lambda _, value: _of(value),
    "dead": lambda _, value: _of(value),
}
_OF_KIND: dict[str, dict[str, Callable[[str, Any], bool]]] = {"overlap": {"layers": lambda _, value: _shared(value)}}
_LISTS: dict[str, Callable[[Any], bool]] = {
    "points": lambda point: (
        isinstance(point, list)
        and len(point) == 5
        and _number(point[0])
        and all(value is None or _number(value) for value in point[1:])
        and 0 <= point[0] <= 1
    ),
    "bins": _number,
    "counts": lambda count: type(count) is int and 0 <= count <= _MOST,
}
