"""Settings as JSON values and back: frozen dataclasses of numbers, words, lists and further such dataclasses."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from sslticket.errors import BadInput, one_line, unknown_name

T = TypeVar("T")

OMIT_DEFAULT: dict[str, object] = {"added": True}
"""Metadata of fields that a class had once done without: while such a field has its default it is left out of the
values, so that keys, families and folders of runs stay what they were before the field was there."""


def stored_as(name: str) -> dict[str, object]:
    """Metadata of a field that was once called `name`: JSON values keep that name, so that keys stay what they were.

    A class that was once called otherwise has that name as its class attribute `stored_name`.
    """
    return {"stored": name}


def settings_to_json(settings: object) -> Any:
    """JSON values; a dataclass becomes its fields, and its name under "is"."""
    if dataclasses.is_dataclass(settings) and not isinstance(settings, type):
        fields = {
            field.metadata.get("stored", field.name): settings_to_json(value)
            for field in dataclasses.fields(settings)
            if (value := getattr(settings, field.name)) != field.default or not field.metadata.get("added")
        }
        return {"is": vars(type(settings)).get("stored_name", type(settings).__name__), **fields}
    if isinstance(settings, (list, tuple)):
        return [settings_to_json(item) for item in settings]
    return str(settings) if isinstance(settings, Path) else settings


def settings_from_json(tree: object, kinds: Mapping[str, type[T]], what: str) -> T:
    """The dataclass that JSON values of `values` describe; fields that they lack keep their defaults.

    Args:
        tree: the values; dataclasses in it have been read before. Lists become tuples.
        kinds: the classes that may be described, by their names.
        what: they are, in a complaint.

    Raises:
        BadInput: naming the class or the field that is unknown, or what else the class cannot be made of.
    """
    if not isinstance(tree, Mapping):
        raise BadInput(f"{tree!r} describes no {what}")
    name = str(tree.get("is"))
    if name not in kinds:
        raise unknown_name(what, name, kinds)
    kind = kinds[name]
    fields = dataclasses.fields(kind)  # type: ignore[arg-type]  # no type says "a dataclass"
    names = {field.metadata.get("stored", field.name): field.name for field in fields}
    if odd := [key for key in tree if key != "is" and key not in names]:
        raise unknown_name(f"field of {name}", odd[0], names)
    given = {
        names[key]: tuple(value) if isinstance(value, list) else value for key, value in tree.items() if key != "is"
    }
    try:
        return kind(**given)
    except BadInput:
        raise
    except (TypeError, ValueError, AttributeError) as error:
        raise BadInput(f"these values make no {what} {name}: {one_line(error)}") from error


def settings_hash(tree: object) -> str:
    """8 hex digits over JSON values; the order of keys does not matter."""
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()[:8]
