"""What the keys of rows may hold: types of JSON with checks of their values, taken from the fields of dataclasses."""

from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, fields
from functools import cache
from textwrap import shorten
from types import NoneType, UnionType
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin, get_type_hints

_MAX_NUMBER = 1e39
"""Largest magnitude of any number, be it the loss of a training that has diverged."""


class Bounds(NamedTuple):
    """The least and the greatest value of a number."""

    least: float
    greatest: float


class Entries(NamedTuple):
    """Whether a name and its value may be in a key that holds names and values."""

    accepts: Callable[[str, Any], bool]


class Items(NamedTuple):
    """Whether a value may be in a key that holds a list."""

    accepts: Callable[[Any], bool]


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= _MAX_NUMBER  # which NaN is not


def _is_count_of_total(_: str, value: Any) -> bool:
    """Whether a value is [some, all of them]."""
    if not isinstance(value, list) or [type(count) for count in value] != [int, int]:
        return False
    some, everything = value
    return bool(0 <= some <= everything > 0 and everything <= _MAX_NUMBER)


def _is_overlap_count(_: str, value: Any) -> bool:
    """Whether a value is [both, either, chance]; a layer that both masks emptied has [0, 0, 1]."""
    if not isinstance(value, list) or len(value) != 3 or not all(map(_is_number, value)):
        return False
    both, either, chance = value
    return bool(0 <= both <= either and 0 <= chance <= 1)


def _is_probe(step: str, value: Any) -> bool:
    """Whether a step and a probe's accuracy there may be such."""
    return step.isascii() and step.isdigit() and len(step) < 16 and _is_number(value) and 0 <= value <= 1


def _is_curve_point(point: Any) -> bool:
    """Whether a value is [samples, epochs, accuracy]."""
    if not isinstance(point, list) or len(point) != 3 or not all(map(_is_number, point)):
        return False
    samples, epochs, accuracy = point
    return type(samples) is int and samples >= 0 and epochs >= 0 and 0 <= accuracy <= 1


def _is_point(point: Any) -> bool:
    """Whether a value is [alpha, error, loss, recalibrated error, recalibrated loss]."""
    if not isinstance(point, list) or len(point) != 5 or not _is_number(point[0]):
        return False
    return 0 <= point[0] <= 1 and all(value is None or _is_number(value) for value in point[1:])


Count = Annotated[int, Bounds(0, 2**53)]
Amount = Annotated[float, Bounds(0, 2**53)]
Fraction = Annotated[float, Bounds(0, 1)]
Angle = Annotated[float, Bounds(0, 180)]
Rate = Annotated[float, Bounds(0, 1e308)]
Loss = Annotated[float | None, Bounds(-_MAX_NUMBER, _MAX_NUMBER)]
Seed = Annotated[int, Bounds(-(2**63), 2**63 - 1)]
Words = Annotated[dict[str, str], Entries(lambda _, value: isinstance(value, str))]
Settings = Annotated[dict[str, Any], Entries(lambda _, value: isinstance(value, (str, bool)) or _is_number(value))]
Numbers = Annotated[dict[str, float], Entries(lambda _, value: _is_number(value))]
Probe = Annotated[dict[str, float], Entries(_is_probe)]
LayerCounts = Annotated[dict[str, list[int]], Entries(_is_count_of_total)]
LayerOverlaps = Annotated[dict[str, list[float]], Entries(_is_overlap_count)]
Points = Annotated[list[list[float | None]], Items(_is_point)]
Curve = Annotated[list[list[float]], Items(_is_curve_point)]
Edges = Annotated[list[float], Items(_is_number)]
Counts = Annotated[list[int], Items(lambda value: type(value) is int and 0 <= value <= _MAX_NUMBER)]


class Key(NamedTuple):
    """What a key may hold.

    Attributes:
        types: Types of decoded JSON.
        optional: Whether a row may lack it.
        checks: What its values must keep to: `Bounds`, `Entries`, `Items`.
    """

    types: tuple[type, ...]
    optional: bool
    checks: tuple[Any, ...]


def keys_of(row_type: type) -> Mapping[str, Key]:
    """The keys of a class of rows, in the order of its fields; `extra` is none of them."""
    return _keys_of(row_type)


@cache
def _keys_of(row_type: Any) -> dict[str, Key]:
    hints = get_type_hints(row_type, include_extras=True)
    return {each.name: _key(hints[each.name], each) for each in fields(row_type) if each.name != "extra"}


def _key(hint: Any, each: "Field[Any]") -> Key:
    """The rule of a field: `T`, `T | None`, where T may be annotated with checks."""
    types: list[type] = []
    checks: list[Any] = []

    def collect(part: Any) -> None:
        if get_origin(part) is Annotated:
            checks.extend(part.__metadata__)
            collect(part.__origin__)
        elif get_origin(part) in (Union, UnionType):
            for option in get_args(part):
                collect(option)
        else:
            types.append(get_origin(part) or part)

    collect(hint)
    optional = each.default is not MISSING
    if optional:
        types.remove(NoneType)  # a row lacks the key then, and does not hold null
    types += [int] * (float in types)  # JSON's 1 is a number, too
    return Key(tuple(types), optional, tuple(checks))


def value_error(name: str, key: Key, value: Any) -> str | None:
    """What keeps a value from being that of a key; None for a good one."""
    # Not isinstance: JSON's true is no number.
    if type(value) not in key.types:
        return f"has {name} {_short_repr(value)}, which is of the wrong type: it must be {type_names(key.types)}"
    for check in key.checks:
        if isinstance(check, Bounds) and value is not None and not check.least <= value <= check.greatest:
            limits = "a fraction from 0 to 1" if check == (0, 1) else f"from {check.least:g} to {check.greatest:g}"
            return f"has {name} {_short_repr(value)}, which must be {limits}"
        if isinstance(check, Entries):
            for entry, each in value.items():
                if not check.accepts(entry, each):
                    return f"has {_short_repr(each)} for {entry[:80]!r} in its {name}, which cannot be"
        if isinstance(check, Items):
            for each in value:
                if not check.accepts(each):
                    return f"has {_short_repr(each)} among its {name}, which cannot be"
    return None


_TYPE_NAMES = {str: "text", int: "a whole number", float: "a number", dict: "names and values", list: "a list"}


def type_names(types: tuple[type, ...]) -> str:
    """Types of JSON in words: "a number or null"."""
    told = [_TYPE_NAMES.get(each, "null") for each in types if not (each is int and float in types)]
    return " or ".join(told)


def _short_repr(value: Any) -> str:
    return shorten(repr(value), 80, placeholder="...")
