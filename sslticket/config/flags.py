"""Flags from dataclasses: every setting of a recipe and of the machine is a flag, with a dotted name and a short one.

The dotted name is where the setting is: `--training.optimizer.lr`, `--search.levels`, `--runtime.threads`. The short
name is the field's own, `--lr`. It belongs to one setting: a setting of ours keeps its short name whatever fields a
class of a user has, and of several others none has it. `--objective`, `--search`, `--criterion`, `--gate` and
`--optimizer` choose a class, whose settings then are flags.
"""

import argparse
import dataclasses
import functools
import math
import re
import sys
import types
import typing
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import Field, dataclass
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeVar, get_args, get_origin

from sslticket.config.runtime import RuntimeConfig
from sslticket.errors import BadInput, unknown_name
from sslticket.registry import registry_of

if TYPE_CHECKING:  # it imports numpy, which `sslticket --help` does not need
    from sslticket.config.recipe import Recipe

Tree = TypeVar("Tree")

CHOICES = {
    "objective": ("objective",),
    "search": ("search",),
    "criterion": ("search", "criterion"),
    "gate": ("search", "gate"),
    "optimizer": ("training", "optimizer"),
}
"""The kinds of parts that a flag chooses, and where a recipe has them."""
_COMMAND_FLAGS = frozenset(
    {"help", "out", "dry_run", "no_dry_run", "trial", "on", "probe_speed", "output", "images", "sheet_width", *CHOICES}
)
"""What commands that take a recipe call flags of their own."""
_RANK = {"training": 1, "search": 2, "objective": 3}
"""Which of our own settings has the short name, should two have it: the first, and those of the data before all."""


class Parser(argparse.ArgumentParser):
    """A parser of argparse whose errors are one line with the nearest known flag."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=_Formatter, **settings)

    def error(self, message: str) -> NoReturn:
        """Raise argparse's complaint in place of printing a page of usage."""
        message = re.sub(r"^(argument --[\w-]+)/\S+:", r"\1:", message)  # the dotted name says no more
        raise BadInput(f"{message}; {self.prog} --help lists the flags")

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """The parsed flags; an unknown one is answered with the nearest that there is."""
        words = sys.argv[1:] if args is None else list(args)
        try:
            parsed, rest = self.parse_known_args(words, namespace)
        except BadInput as error:
            if "arguments are required" in str(error) and (taken := _path_behind_flag(words)):
                flag, path = taken
                raise BadInput(f"{path} stands behind {flag}, which takes it; write it before {flag}") from None
            raise
        for word in rest:
            asked = _addressed_parser(self, words)
            known = [flag for flag in asked._option_string_actions if flag.startswith("--")]
            if word.startswith("-"):
                raise unknown_flag_error(word, known)
            fix = unexpected_word_hint(word, known) or f"{asked.prog} --help lists the flags"
            raise BadInput(f"unexpected argument {word!r}; {fix}")
        return parsed


def _path_behind_flag(words: Sequence[str]) -> tuple[str, str] | None:
    """The first path behind a flag's first value, with the flag: one of several values takes it, too."""
    flag = ""
    for before, word in pairwise(words):
        flag = before if before.startswith("--") else flag
        if flag and before != flag and not word.startswith("-") and ("/" in word or Path(word).exists()):
            return flag, word
    return None


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Names the value of a flag once, after all of its names."""

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings or action.nargs == 0:
            return super()._format_action_invocation(action)
        value = self._format_args(action, self._get_default_metavar_for_optional(action))
        return f"{', '.join(action.option_strings)} {value}"


def _addressed_parser(parser: argparse.ArgumentParser, words: Sequence[str]) -> argparse.ArgumentParser:
    """The parser of the command that the words name, or of the commands."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for place, word in enumerate(words):
                if word in action.choices:
                    return _addressed_parser(action.choices[word], words[place + 1 :])
    return parser


@dataclass(frozen=True)
class Setting:
    """A field that can be written on a command line.

    Attributes:
        path: Names of the fields that lead to it, such as ("training", "optimizer", "lr").
        owner: The dataclass that has the field.
        field: The field.
        kind: Its type.
        short: Whether the field's own name is the setting's, too.
    """

    path: tuple[str, ...]
    owner: object
    field: Field[Any]
    kind: Any
    short: bool = False

    @property
    def dest(self) -> str:
        """Name of the value among parsed flags: the short one if it is the setting's, else the dotted one."""
        return self.field.name if self.short else self.dotted

    @property
    def dotted(self) -> str:
        """Its full name: "training.optimizer.lr"."""
        return ".".join(self.path)

    @property
    def old_name(self) -> str:
        """What the field was once called; "" where it always had its name."""
        return str(self.field.metadata.get("stored", ""))


def settings_of(tree: object) -> list[Setting]:
    """The settings of a recipe or of the machine, with the short names that are theirs beside all others.

    Those of an analysis have none to themselves: `add_flags` gives them what the flags of its command leave.
    """
    own = list(_leaves(tree, _root(tree)))
    if _is_analysis(tree):
        return own
    others = [] if isinstance(tree, RuntimeConfig) else list(_leaves(RuntimeConfig(), ("runtime",)))
    owners: dict[str, list[Setting]] = {}
    for each in [*own, *others]:
        owners.setdefault(each.field.name, []).append(each)
        if _without_none(each.kind) is bool:
            owners.setdefault(f"no_{each.field.name}", []).append(each)
    firsts = {name: _first(settings) for name, settings in owners.items()}
    return [
        dataclasses.replace(each, short=firsts[each.field.name] is each and each.field.name not in _COMMAND_FLAGS)
        for each in own
    ]


def _first(settings: list[Setting]) -> Setting | None:
    """The one that has the short name; None where none may."""
    ours = [each for each in settings if type(each.owner).__module__.startswith("sslticket.")]
    if ours:
        return min(ours, key=lambda each: _RANK.get(each.path[0], 0))
    return settings[0] if len(settings) == 1 else None


def _root(tree: object) -> tuple[str, ...]:
    if _is_analysis(tree):
        return ("analysis",)
    return ("runtime",) if isinstance(tree, RuntimeConfig) else ()


def _is_analysis(tree: object) -> bool:
    """Whether it is an `Analysis`, whose import takes as long as torch's."""
    return hasattr(tree, "row_type")


def add_flags(parser: argparse.ArgumentParser, tree: object, *, without: Collection[str] = ()) -> None:
    """Add a flag for each setting of a tree of dataclasses but those `without`; the tree's values are the defaults.

    Fields whose type cannot be written on a command line (a view, a mapping) are left to the recipe file.

    Args:
        parser: The parser of a command.
        tree: A recipe, the settings of the machine, or an analysis.
        without: Names of fields that the command does not use.
    """
    group = parser.add_argument_group(type(tree).__name__.lower())
    if hasattr(tree, "objective"):
        for kind, path in CHOICES.items():
            if (part := _at(tree, path)) is not None:
                registry = registry_of(kind)
                text = f"{kind}: {', '.join(registry.names())}, or file.py:Name [{registry.name_of(part)}]"
                both = dict.fromkeys((f"--{kind}", f"--{'.'.join(path)}"))
                group.add_argument(*both, dest=f"chosen_{kind}", metavar="NAME", default=argparse.SUPPRESS, help=text)
    settings = [each for each in settings_of(tree) if each.field.name not in without]
    for each in settings:
        default = getattr(each.owner, each.field.name)
        arguments: dict[str, Any] = {
            "dest": each.dest,
            "default": argparse.SUPPRESS,
            "help": f"{_explain(each.owner, each.field.name)} [{_text(default)}]",
        }
        inner = _without_none(each.kind)
        if part_kind := each.field.metadata.get("part"):
            arguments |= {"nargs": "*", "type": functools.partial(_part, part_kind), "metavar": "NAME"}
        elif inner is bool:
            arguments["action"] = argparse.BooleanOptionalAction
        elif get_origin(inner) is Literal:
            arguments["choices"] = get_args(inner)
        elif get_origin(inner) is tuple:
            arguments |= {"nargs": "*", "type": _reader(get_args(inner)[0]), "metavar": each.field.name.upper()}
        else:
            arguments |= {"type": _reader(inner), "metavar": inner.__name__.upper()}
        free = _is_analysis(tree) and _flag(each.field.name) not in parser._option_string_actions
        names = [each.field.name, each.dotted] if each.short or free else [each.dotted]
        action = group.add_argument(*dict.fromkeys(_flag(name) for name in names), **arguments)
        _add_hidden_names(parser, action, each, settings)


def _add_hidden_names(
    parser: argparse.ArgumentParser, action: argparse.Action, setting: Setting, all_settings: list[Setting]
) -> None:
    """Further names that work and are not listed: what a field was once called, and the last parts of a dotted name."""
    ends = [".".join(setting.path[start:]) for start in range(1, len(setting.path) - 1)]
    ends = [end for end in ends if sum(each.dotted.endswith(f".{end}") for each in all_settings) == 1]
    for name in [*ends, *filter(None, [setting.old_name])]:
        parser._option_string_actions.setdefault(_flag(name), action)
        if isinstance(action, argparse.BooleanOptionalAction):
            parser._option_string_actions.setdefault(f"--no-{_flag(name)[2:]}", action)


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def override_fields(tree: Tree, given: Mapping[str, Any]) -> Tree:
    """A copy of the tree with the settings that were given as flags; every dataclass checks its values anew.

    Args:
        tree: A recipe, the settings of the machine, or an analysis.
        given: The parsed flags by name, short or dotted; others than those of settings are ignored.
    """
    changes: dict[tuple[str, ...], Any] = {}
    root = len(_root(tree))
    for each in settings_of(tree):
        names = [each.dotted, *([each.field.name] if each.short else []), each.old_name]
        if found := [given[name] for name in names if name in given]:
            changes[each.path[root:]] = tuple(found[0]) if isinstance(found[0], list) else found[0]
    return _replace(tree, changes)


def resolve_recipe(recipe: "Recipe", given: Mapping[str, object]) -> "Recipe":
    """The recipe with the given flags in it; a length alone stretches warmup and drops with it, a batch the rate."""
    if isinstance(length := given.get("length"), str):
        recipe = dataclasses.replace(recipe, training=recipe.training.with_length(length))
    held_batch = recipe.training.held_batch
    if "lr" not in given and isinstance(batch := given.get("batch_size"), int):
        recipe = dataclasses.replace(recipe, training=recipe.training.scaled_to_batch(batch))
    recipe = override_fields(recipe, given)
    if recipe.training.hold == "steps" and recipe.training.hold_batch is None:
        # Steps are held as they are at the recipe's own batch.
        recipe = dataclasses.replace(recipe, training=dataclasses.replace(recipe.training, hold_batch=held_batch))
    return recipe


TRIAL_LENGTH, TRIAL_BATCH = "40it", 16
"""Steps of each training of a trial, and its images a batch: minutes on a laptop for any recipe."""


def fill_in_trial(recipe: "Recipe", given: dict[str, Any]) -> None:
    """Add the settings of a trial to parsed flags: short trainings of small batches, and one level; those given stay.

    Args:
        recipe: The recipe whose flags they are.
        given: The parsed flags by name, which are added to.
    """
    wanted: dict[tuple[str, ...], object] = {
        ("training", "length"): TRIAL_LENGTH,
        ("training", "batch_size"): min(TRIAL_BATCH, recipe.training.batch_size),
        ("search", "levels"): 1,
        ("search", "rounds"): 1,
    }
    for each in settings_of(recipe):
        if each.path in wanted and not {each.dest, each.dotted, each.old_name} & given.keys():
            given[each.dest] = wanted[each.path]


def set_field(recipe: "Recipe", name: str, value: object) -> "Recipe":
    """A copy of a recipe with a value that no flag can hold, such as None, a view or an objective with its settings.

    Args:
        recipe: The recipe.
        name: The field's name with dashes, short or dotted, or a kind of part such as "objective".
        value: Its value.

    Raises:
        BadInput: If there is no such field, or several, or it cannot be None.
    """
    wanted = tuple(name.replace("-", "_").split("."))
    paths = [*CHOICES.values(), *_paths(recipe, ())]
    found = list(dict.fromkeys(path for path in paths if path[-len(wanted) :] == wanted))
    found = [path for path in found if path == wanted] or found
    if not found:
        raise unknown_name("field", name, {path[-1].replace("_", "-") for path in paths})
    if len(found) > 1:
        raise BadInput(f"{name} is a field of several parts; give one of {', '.join(map('.'.join, found))}")
    hints = _type_hints(typing.cast(Hashable, type(_at(recipe, found[0][:-1]))))
    if value is None and type(None) not in typing.get_args(hints[found[0][-1]]):
        raise BadInput(f"{name} must have a value, got None; leave it out for that of the recipe")
    return _replace(recipe, {found[0]: value})


def _paths(tree: object, above: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for each in dataclasses.fields(tree):  # type: ignore[arg-type]  # any dataclass instance
        yield (*above, each.name)
        if dataclasses.is_dataclass(value := getattr(tree, each.name)):
            yield from _paths(value, (*above, each.name))


def words_of(settings: Mapping[str, object]) -> list[str]:
    """The words that one would type for settings, by the names of their flags."""
    words: list[str] = []
    for name, value in settings.items():
        flag = _flag(name.removeprefix("--"))
        if isinstance(value, bool):
            words.append(flag if value else f"--no-{flag[2:]}")
        elif isinstance(value, (list, tuple)):
            words += [flag, *map(str, value)]
        else:
            words.append(f"{flag}={value}")
    return words


def _replace(tree: Tree, changes: Mapping[tuple[str, ...], Any]) -> Tree:
    """A copy of a tree of dataclasses with the values at these paths; each dataclass on the way is made once."""
    values: dict[str, Any] = {path[0]: value for path, value in changes.items() if len(path) == 1}
    for name in {path[0] for path in changes} - values.keys():
        inner = {path[1:]: value for path, value in changes.items() if path[0] == name}
        values[name] = _replace(getattr(tree, name), inner)
    return dataclasses.replace(tree, **values) if values else tree  # type: ignore[type-var]  # any dataclass instance


def choose_parts(recipe: "Recipe", words: Sequence[str]) -> "Recipe":
    """The recipe with the classes that --objective, --search, --criterion, --gate and --optimizer name.

    A class that takes the place of another keeps the settings of the classes that both are derived from, such as the
    learning rate of an optimiser; others have their defaults.

    Args:
        recipe: The recipe of the file.
        words: The words of the command line, in which other flags may stand.

    Raises:
        BadInput: If there is no such class, or a setting that it needs is not given.
    """
    parser = Parser(add_help=False)
    for kind, path in CHOICES.items():
        parser.add_argument(f"--{kind}", f"--{'.'.join(path)}", dest=kind)
    given, _ = parser.parse_known_args(list(words))
    for kind, path in CHOICES.items():
        if (name := getattr(given, kind)) is None:
            continue
        chosen = registry_of(kind).get(name)
        holder = _at(recipe, path[:-1])
        if path[-1] not in {field.name for field in dataclasses.fields(holder)}:
            raise BadInput(f"--{kind} must be left out, since {type(holder).__name__} has no {kind}, got {name}")
        recipe = _replace(recipe, {path: _instance(kind, chosen, _at(recipe, path), path, words)})
    return recipe


def _instance(kind: str, chosen: Any, old: object, path: tuple[str, ...], words: Sequence[str]) -> object:
    """A part of a chosen class, with what it has in common with the one whose place it takes."""
    if not isinstance(chosen, type):
        return chosen
    if not dataclasses.is_dataclass(chosen):
        raise BadInput(f"--{kind} must name a dataclass, got {chosen.__name__}; write @dataclass(frozen=True) above it")
    if type(old) is chosen:
        return old
    common = {
        field.name
        for base in set(chosen.__mro__) & set(type(old).__mro__)
        if dataclasses.is_dataclass(base)
        for field in dataclasses.fields(base)
    }
    values = {name: getattr(old, name) for name in common}
    hints = typing.get_type_hints(chosen)
    for field in dataclasses.fields(chosen):
        has_default = field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
        if field.name in values or has_default or not field.init:
            continue
        small = Parser(add_help=False)
        names = (_flag(field.name), _flag(".".join((*path, field.name))))
        small.add_argument(*names, dest="value", type=_reader(_without_none(hints[field.name])))
        if (value := small.parse_known_args(list(words))[0].value) is None:
            raise BadInput(f"--{kind} {chosen.__name__} needs {names[0]}, which has no default; give it, too")
        values[field.name] = value
    return chosen(**values)


def _at(tree: object, path: Sequence[str]) -> Any:
    return functools.reduce(lambda part, name: getattr(part, name, None), path, tree)


@functools.cache
def _type_hints(kind: Hashable) -> dict[str, Any]:
    """The types of a class's fields; a sweep asks for them a thousand times."""
    return typing.get_type_hints(kind)


def _leaves(tree: object, above: tuple[str, ...]) -> Iterator[Setting]:
    hints = _type_hints(typing.cast(Hashable, type(tree)))
    for field in dataclasses.fields(tree):  # type: ignore[arg-type]  # any dataclass instance
        value, kind = getattr(tree, field.name), hints[field.name]
        if dataclasses.is_dataclass(value) and field.metadata.get("flags", True):
            yield from _leaves(value, (*above, field.name))
        elif "part" in field.metadata or _is_writable(_without_none(kind)):
            yield Setting((*above, field.name), tree, field, kind)


def _part(kind: str, name: str) -> object:
    """A part of a kind with its default settings."""
    part = registry_of(kind).get(name)
    try:
        return part() if isinstance(part, type) else part
    except TypeError as error:
        raise BadInput(f"the {kind} {name} must have defaults to be named on the command line ({error})") from error


def _reader(kind: Any) -> Callable[[str], Any]:
    return _number if kind is float else kind


def _number(text: str) -> float:
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


_MOST_NUMBERS = 10_000
"""Of a range; more were never meant."""


def parse_numbers(words: Sequence[str], flag: str) -> list[int]:
    """Numbers and ranges: "0 2 4-6" is 0, 2, 4, 5, 6.

    Raises:
        BadInput: If a word is no number and no range.
    """
    found: list[int] = []
    for word in words:
        first, dash, last = word.partition("-")
        if not first.isdigit() or (dash and not last.isdigit()):
            raise BadInput(f"{flag} must be numbers or ranges, got {word!r}; write it like 0 1 2 or 0-5")
        some = range(int(first), int(last or first) + 1)
        if len(some) > _MOST_NUMBERS:
            raise BadInput(f"{flag} must be at most {_MOST_NUMBERS:,} numbers, got {word!r}; give a shorter range")
        if not some:
            raise BadInput(f"{flag} must be a range that rises, got {word!r}; write it like {last}-{first}")
        found += some
    return list(dict.fromkeys(found))


def _without_none(kind: Any) -> Any:
    if get_origin(kind) in (typing.Union, types.UnionType):
        inner = [part for part in get_args(kind) if part is not type(None)]
        return inner[0] if len(inner) == 1 else kind
    return kind


def _is_writable(kind: Any) -> bool:
    if get_origin(kind) is tuple:
        return get_args(kind)[0] in (str, int, float)
    return get_origin(kind) is Literal or kind in (str, int, float, bool, Path)


def _explain(owner: object, name: str) -> str:
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


def _text(value: object) -> str:
    if isinstance(value, tuple):
        return " ".join(map(str, value)).replace("%", "%%") or "none"
    return "none" if value is None else str(value).replace("%", "%%")


@functools.cache
def flag_hints() -> Mapping[str, str]:
    """What to type, by the words that other tools have for it, without dashes."""
    hints: dict[str, str] = {}
    words: list[str] = []
    text = ""
    for line in Path(__file__).with_name("flag_hints.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith(" "):
            text = f"{text} {line.strip()}".strip()
            hints |= dict.fromkeys(words, text)
        else:
            words = [*([] if text else words), *line.split()]
            text = ""
    return hints


_PROTOCOL_HINT = "a protocol's own settings are no flags: --protocol chooses one, docs/evaluation.md lists them"
_PROTOCOL_FLAGS = {
    *("--length", "--lr", "--batch-size", "--drops", "--decay"),
    *("--weight-decay", "--momentum", "--warmup", "--image-size", "--optimizer"),
}


def unknown_flag_error(word: str, known: Collection[str]) -> BadInput:
    """The error for a flag that there is none of, with what to type in its place.

    Args:
        word: The word as it was typed, with its dashes.
        known: The long flags of the command.
    """
    flag = word.split("=")[0]
    # "--optimizer.lr" and "--batch_size" are how others write flags.
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", "-", flag.lstrip("-")).rpartition(".")[2].replace("_", "-").lower()
    if f"--{name}" in known:
        return BadInput(f"unknown flag {flag!r}; it is written --{name}")
    dotted = sorted(each for each in known if each.endswith(f".{name}"))
    if dotted := [each for each in dotted if not any(other.endswith(f".{each[2:]}") for other in dotted)]:
        return BadInput(f"unknown flag {flag!r}; it is written {' or '.join(dotted)}")
    hints = flag_hints()
    text = hints.get(name) or hints.get(name.removeprefix("no-"))
    wanted = flags_in_hint(text) if text else {f"--{name}"}
    if "--protocol" in known and wanted & _PROTOCOL_FLAGS - {*known}:
        return BadInput(f"unknown flag {flag!r}; {_PROTOCOL_HINT}")
    # Without flags to type, a hint is about recipes and what trains.
    if text and wanted <= {*known} and ("--data-root" in known or wanted - {"--help"}):
        return BadInput(f"unknown flag {flag!r}; {text}")
    return unknown_name("flag", flag, known)


def flags_in_hint(text: str) -> set[str]:
    """The flags of the command at hand that a hint names; what stands in backquotes is another command."""
    return set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", re.sub(r"`[^`]*`", "", text)))


def unexpected_word_hint(word: str, known: Collection[str]) -> str:
    """What is to be said of a word that belongs to no flag; "" for nothing in particular."""
    name, equals, value = word.partition("=")
    flag = f"--{name.rpartition('.')[2].replace('_', '-')}"
    if equals and flag in known:
        return f"write {flag} {value}"
    if equals and (text := flag_hints().get(flag.removeprefix("--"))) and flags_in_hint(text) <= {*known}:
        return text
    if "--data-root" in known and ("/" in word or word in (".", "..")):
        return f"if images lie there, write --data-root {word}"
    return ""
