"""Flags from dataclasses: every field of a recipe is a flag of the same name, flat."""

import argparse
import dataclasses
import math
import sys
import types
import typing
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import Field
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar, get_args, get_origin

from sslticket.cli import hints
from sslticket.errors import BadInput

TreeT = TypeVar("TreeT")


class Parser(argparse.ArgumentParser):
    """argparse whose errors are one line with the nearest known flag."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **settings)

    def error(self, message: str) -> NoReturn:
        """Raise argparse's complaint in place of printing a page of usage."""
        raise BadInput(f"{message}; {self.prog} --help lists the flags")

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """The parsed flags; an unknown one is answered with the nearest that there is."""
        words = sys.argv[1:] if args is None else list(args)
        parsed, rest = self.parse_known_args(words, namespace)
        for word in rest:
            asked = _addressed_parser(self, words)
            known = [flag for flag in asked._option_string_actions if flag.startswith("--")]
            if word.startswith("-"):
                raise hints.unknown_flag_error(word, known)
            fix = hints.unexpected_word_hint(word, known) or f"{asked.prog} --help lists the flags"
            raise BadInput(f"unexpected argument {word!r}; {fix}")
        return parsed


def _addressed_parser(parser: argparse.ArgumentParser, words: Sequence[str]) -> argparse.ArgumentParser:
    """The parser of the command that the words name, or of the commands."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for place, word in enumerate(words):
                if word in action.choices:
                    return _addressed_parser(action.choices[word], words[place + 1 :])
    return parser


def add_flags(parser: argparse.ArgumentParser, tree: object, *, without: Collection[str] = ()) -> None:
    """One flag for each leaf field of a tree of dataclasses but those `without`; the tree's values are the defaults.

    Fields whose type cannot be written on a command line (a view, a mapping) are left to the recipe file.
    """
    group = parser.add_argument_group(type(tree).__name__.lower())
    for owner, field, kind in _leaf_fields(tree):
        if field.name in without:
            continue
        default = getattr(owner, field.name)
        settings: dict[str, Any] = {
            "default": argparse.SUPPRESS,
            "help": f"{_field_help(owner, field.name)} [{_default_text(default)}]",
        }
        inner = _strip_optional(kind)
        if inner is bool:
            settings["action"] = argparse.BooleanOptionalAction
        elif get_origin(inner) is Literal:
            settings["choices"] = get_args(inner)
        elif get_origin(inner) is tuple:
            settings |= {"nargs": "*", "type": _value_parser(get_args(inner)[0]), "metavar": field.name.upper()}
        else:
            settings |= {"type": _value_parser(inner), "metavar": inner.__name__.upper()}
        group.add_argument(f"--{field.name.replace('_', '-')}", **settings)


def check_flag_names(parser: argparse.ArgumentParser, *trees: object) -> None:
    """Whether each flag of trees of dataclasses would be of one field, and of none that the parser has already.

    Raises:
        BadInput: naming the field, and both classes that have it.
    """
    taken = {action.dest for action in parser._actions}
    owners: dict[str, list[str]] = {}
    written = set(taken)
    for tree in trees:
        for owner, name, is_flag in _field_names(tree):
            owners.setdefault(name, []).append(_class_name(owner))
            written |= {name} if is_flag else set()
    for name, classes in owners.items():
        flag = f"--{name.replace('_', '-')}"
        own = next((each for each in classes if "." in each), classes[-1])
        if name in taken:
            raise BadInput(f"{own} has a field {name!r}, and {flag} is a flag of the command; rename the field")
        if name in written and len(classes) > 1:
            both = " and ".join(classes)
            raise BadInput(f"{both} have a field {name!r} each, and {flag} must be of one; rename the field of {own}")


def _field_names(tree: object) -> Iterator[tuple[object, str, bool]]:
    """What fields of a tree are called, by the dataclass that has them, and whether flags are called so."""
    leaves = {(id(owner), field.name): kind for owner, field, kind in _leaf_fields(tree)}
    todo = [tree]
    for owner in todo:
        for field in dataclasses.fields(owner):  # type: ignore[arg-type]  # any dataclass instance
            value, kind = getattr(owner, field.name), leaves.get((id(owner), field.name))
            yield owner, field.name, kind is not None
            if _strip_optional(kind) is bool:
                yield owner, f"no_{field.name}", True
            if dataclasses.is_dataclass(value) and not hasattr(value, "draw"):
                todo.append(value)


def _class_name(owner: object) -> str:
    """The class of a dataclass; one that is not ours with its module, "__main__.Mine"."""
    kind = type(owner)
    return kind.__name__ if kind.__module__.startswith("sslticket.") else f"{kind.__module__}.{kind.__name__}"


def override_fields(tree: TreeT, flags: Mapping[str, Any]) -> TreeT:
    """A copy of the tree with the fields that were given as flags; every dataclass checks its values anew."""
    changes: dict[str, Any] = {}
    for field in dataclasses.fields(tree):  # type: ignore[arg-type]  # any dataclass instance
        value = getattr(tree, field.name)
        if field.name in flags:
            given = flags[field.name]
            changes[field.name] = tuple(given) if isinstance(given, list) else given
        elif dataclasses.is_dataclass(value):
            changes[field.name] = override_fields(value, flags)
    return dataclasses.replace(tree, **changes)  # type: ignore[type-var]  # any dataclass instance


def _leaf_fields(tree: object) -> Iterator[tuple[object, Field[Any], Any]]:
    hints = typing.get_type_hints(type(tree), localns=_DEFERRED_TYPES)
    for field in dataclasses.fields(tree):  # type: ignore[arg-type]  # any dataclass instance
        value, kind = getattr(tree, field.name), hints[field.name]
        if dataclasses.is_dataclass(value) and not hasattr(value, "draw"):
            yield from _leaf_fields(value)
        elif _has_flag_form(_strip_optional(kind)):
            yield tree, field, kind


def _value_parser(kind: type) -> Callable[[str], Any]:
    return _parse_number if kind is float else kind


def _parse_number(text: str) -> float:
    """A number, or a percentage: "10%" is 0.1, to the last bit."""
    digits = text.strip().removesuffix("%")
    try:
        found = Decimal(digits) / 100 if text.strip().endswith("%") else Decimal(digits)
        number = float(found)
    except (ArithmeticError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"must be a number such as 0.1 or 10%, got {text!r}")
    return number


# Types that recipe.py names without importing them; their values are walked, so the types do not matter.
_DEFERRED_TYPES: dict[str, Any] = {"Objective": object, "Search": object}


def _strip_optional(kind: Any) -> Any:
    if get_origin(kind) in (typing.Union, types.UnionType):
        inner = [part for part in get_args(kind) if part is not type(None)]
        return inner[0] if len(inner) == 1 else kind
    return kind


def _has_flag_form(kind: Any) -> bool:
    if get_origin(kind) is tuple:
        return get_args(kind)[0] in (str, int, float)
    return get_origin(kind) is Literal or kind in (str, int, float, bool, Path)


def _field_help(owner: object, name: str) -> str:
    """The field's line under Attributes, in the docstring of its class or of one that this is derived from."""
    lines = [line for kind in type(owner).__mro__ for line in (kind.__doc__ or "").splitlines()]
    found, text = False, []
    for line in lines:
        words = line.strip()
        if words.startswith(f"{name}: "):
            found = True
            words = words.removeprefix(f"{name}: ")
        elif found and (not words or not line.startswith(" " * 12)):
            break
        if found:
            text.append(words)
    return " ".join(text).rstrip(".").replace("%", "%%") or name.replace("_", " ")


def _default_text(value: object) -> str:
    if isinstance(value, tuple):
        return " ".join(map(str, value)).replace("%", "%%") or "none"
    return "none" if value is None else str(value).replace("%", "%%")
