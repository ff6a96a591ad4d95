"""Parts by name: built-in ones, users' own from a file or an installed package, and settings of parts as JSON values.

A part is what a user may choose or bring along: an objective, a criterion, a search, a protocol and so on. Each package
has a `Registry` of its kind. A part is named on the command line by its public name, as `path/file.py:Name`, as
`package.module:Name`, or by the name of an entry point of the group `sslticket.<kind>`.

Files of users are code, so none is run because a run's folder, a ticket or a row names it, unless this user has run the
very same file here before, or names it now (`load_recorded_parts`).
"""

import dataclasses
import hashlib
import json
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, TypeVar

from sslticket.errors import BadInput, one_line, unknown_name
from sslticket.storage.files import cache_folder, file_lock, read_bytes, read_json, write_json

T = TypeVar("T")
Part = TypeVar("Part")

_MAX_SOURCE_BYTES = 1 << 24
_INTERACTIVE = "<interactive>"
"""What stands for the file of a part that was defined in a notebook or a shell."""

_reading_json: ContextVar[bool] = ContextVar("reading_json", default=False)
"""Whether settings are made of JSON values, which may come from anybody: no file of users is run for a name in them."""

_user_modules: dict[Path, tuple[str, ModuleType]] = {}
"""The hash and the module of each file of a user's that was loaded."""
_noted_parts: dict[str, dict[str, str]] = {}
"""For the name of a part, where a ticket says that it is, and the hash of its file."""
_loading: list[Path] = []
"""The files that are being loaded."""
_locations: dict[int, tuple[object, str]] = {}
"""Where parts are that have been asked for by a file and a name, or registered by a file; by their identity."""
_registered: dict[str, object] = {}
"""Parts that have been registered, by their names."""


class Registry(Generic[T]):
    """The parts of one kind, each imported when it is first asked for.

    Attributes:
        kind: What the parts are, in a word or two, such as "objective".
    """

    def __init__(self, kind: str, built_in: Mapping[str, str], *, base: str = "") -> None:
        """Lists the built-in parts.

        Args:
            kind: What the parts are, in a word or two.
            built_in: For each public name "package.module:Attribute", where the part is.
            base: In the same way the class that parts are subclasses or instances of; "" where anything will do.
        """
        self.kind = kind
        self._built_in = dict(built_in)
        self._base = base
        self._own: dict[str, T] = {}

    def names(self) -> list[str]:
        """The names of the built-in parts and of those that were registered, in alphabetical order."""
        return sorted({*self._built_in, *self._own})

    def is_built_in(self, name: str) -> bool:
        """Whether a name is that of a built-in part."""
        return name in self._built_in

    def own_part(self, name: str) -> T | None:
        """A user's own part by its plain name: registered, in a file that was loaded, or noted; None for none.

        Raises:
            BadInput: If it is noted by `note_recorded_parts` and may not be loaded, naming the file to give; or if
                several files that were loaded have a part of this name, and not the same one.
        """
        if name in self._built_in:
            return None
        found: T | None = self._own[name] if name in self._own else loaded_part(name)
        if found is not None:
            _check_one_file(name, found)
        if found is None and name in _noted_parts:
            found = load_recorded_parts(_noted_parts[name])[name]
        return found

    def get(self, name: str) -> T:
        """The part of a name.

        Args:
            name: A name among `names()`, "path/file.py:Name", "package.module:Name", or that of an entry point.

        Raises:
            BadInput: If there is no such part, naming the nearest ones; if its file or module cannot be imported; or if
                it is no part of this kind.
        """
        if name in self._built_in:
            built_in: T = _attribute(self._built_in[name])
            return built_in
        where, colon, attribute = name.rpartition(":")
        if name in self._own and not where.endswith(".py"):
            return self._own[name]
        if not colon:
            return self._entry_point(name)
        if _reading_json.get():
            raise BadInput(f"what a file records names {name}, which is not run for that; give it with --parts FILE.py")
        module = load_user_file(where) if where.endswith(".py") else _installed_module(where)
        public = [each for each in vars(module) if not each.startswith("_")]
        if attribute not in vars(module):
            raise unknown_name(f"{self.kind} in {where}", attribute, public)
        part = vars(module)[attribute]
        self._check_kind(name, part)
        if where.endswith(".py"):
            _locations[id(part)] = part, f"{Path(where).resolve()}:{attribute}"
        remember_parts(required_parts(part))  # whoever names a file runs it
        self._own[name] = part
        return self._own[name]

    def register(self, name: str | None = None) -> Callable[[Part], Part]:
        """A decorator that gives a part of one's own a name, by default that of the class or function.

        Raises:
            BadInput: If a built-in part has the name.
        """

        def add(part: Part) -> Part:
            chosen = name or str(getattr(part, "__name__", ""))
            if chosen in self._built_in:
                raise BadInput(
                    f"the name of a {self.kind} must be new, got {chosen!r}, which is built in; give another"
                )
            if _loading:
                _locations[id(part)] = part, f"{_loading[-1]}:{chosen}"
            _registered[chosen] = part
            self._own[chosen] = part  # type: ignore[assignment]  # a class of users is what it says
            return part

        return add

    def name_of(self, part: object) -> str:
        """How a part is named on screen and on the command line: "SimCLR", "mine.py:Mine", "package.module:Name".

        Args:
            part: The part, or an instance of it.
        """
        kinds = (part, type(part))
        for name, home in self._built_in.items():
            module, _, attribute = home.partition(":")
            found = getattr(sys.modules.get(module), attribute, None)
            if found is not None and any(found is each for each in kinds):
                return name
        for name, own in self._own.items():
            if any(own is each for each in kinds):
                where, colon, attribute = name.rpartition(":")
                return f"{Path(where).name}:{attribute}" if colon and where.endswith(".py") else name
        location = part_location(part)
        if location is None:
            return getattr(part, "__name__", type(part).__name__)
        where, _, attribute = location.rpartition(":")
        return f"{Path(where).name}:{attribute}"

    def _entry_point(self, name: str) -> T:
        from importlib.metadata import entry_points  # takes a while, and few commands need it

        group = f"sslticket.{self.kind.replace(' ', '_')}"
        offered = {each.name: each for each in entry_points(group=group)}
        if name not in offered:
            raise unknown_name(self.kind, name, [*self.names(), *offered])
        try:
            part = offered[name].load()
        except Exception as error:
            raise BadInput(
                f"{offered[name].value} cannot be imported ({one_line(error)}); update its package"
            ) from error
        self._check_kind(name, part)
        self._own[name] = part
        return self._own[name]

    def _check_kind(self, name: str, part: object) -> None:
        if not self._base:
            return
        base = _attribute(self._base)
        if isinstance(part, base) or (isinstance(part, type) and issubclass(part, base) and part is not base):
            return
        article = "an" if self.kind[0] in "aeiou" else "a"
        wanted = self._base.replace(":", ".")
        raise BadInput(f"{name} must be of the class {wanted} to be {article} {self.kind}, got {part!r}")


def _attribute(home: str) -> Any:
    module, _, name = home.partition(":")
    return getattr(import_module(module), name)


def _installed_module(name: str) -> ModuleType:
    try:
        return import_module(name)
    except Exception as error:
        raise BadInput(
            f"the module {name} cannot be imported ({one_line(error)}); install its package, or give path/file.py:Name"
        ) from error


def load_user_file(path: Path | str) -> ModuleType:
    """The module that a user's Python file defines; nothing else imports files of users.

    A file is loaded once, and anew when it has changed; the script that runs is not loaded a second time. Modules
    beside it can be imported while it is loaded. No compiled files are left behind.

    Args:
        path: Path of the file.

    Raises:
        BadInput: If there is no such file, or it cannot be imported, naming the line.
    """
    path = Path(path)
    if path.suffix != ".py" or not path.is_file():
        raise BadInput(f"there is no Python file {path}; give the path of a .py file")
    real = path.resolve()
    main = sys.modules.get("__main__")
    if main is not None and _file_of(main) == real:
        return main
    source = read_bytes(real, _MAX_SOURCE_BYTES)
    digest = _source_hash(source)
    if real in _user_modules and _user_modules[real][0] == digest:
        return _user_modules[real][1]
    if real not in _user_modules and (imported := _imported_module(real)) is not None:
        _user_modules[real] = digest, imported  # its classes are those that a script or a notebook passes
        return imported
    module = ModuleType(f"_sslticket_{real.stem}_{_source_hash(bytes(real))[:8]}")
    module.__file__ = str(real)
    earlier = sys.modules.get(module.__name__)
    sys.modules[module.__name__] = module  # dataclasses look for their module by its name
    _loading.append(real)
    try:
        with _folder_on_path(real.parent):
            exec(compile(source, str(path), "exec"), module.__dict__)  # an import would leave compiled files
    except (Exception, SystemExit) as error:
        del sys.modules[module.__name__]
        if earlier is not None:
            sys.modules[module.__name__] = earlier
        raise BadInput(f"{path} cannot be imported: {_import_error(error, path)}") from error
    finally:
        _loading.pop()
    _user_modules[real] = digest, module
    return module


def _imported_module(file: Path) -> ModuleType | None:
    """The module that an `import` made of a file; None if there is none."""
    for name, module in list(sys.modules.items()):
        # Some libraries' modules import more when they are asked for a name; their dictionaries do not.
        if not name.startswith("_sslticket_") and getattr(module, "__dict__", {}).get("__file__") == str(file):
            return module
    return None


@contextmanager
def _folder_on_path(folder: Path) -> Iterator[None]:
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        with suppress(ValueError):  # the file may have taken it away
            sys.path.remove(str(folder))


def _import_error(error: BaseException, path: Path) -> str:
    """One line: what went wrong, and in which line of the file if it was there."""
    if isinstance(error, SystemExit):
        return 'it ends the program; put run(recipe) below if __name__ == "__main__":'
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return f"{one_line(error)} (line {lines[-1]})" if lines else one_line(error)


def _file_of(module: ModuleType) -> Path | None:
    file = getattr(module, "__file__", None)
    return Path(file).resolve() if file and Path(file).suffix == ".py" else None


def _source_hash(source: bytes) -> str:
    return hashlib.sha256(source).hexdigest()[:16]


def part_location(part: object) -> str | None:
    """Where a part of a user's is, "<absolute path>:Name"; None for one that is built in.

    Args:
        part: The part, or an instance of it.
    """
    if id(part) in _locations and _locations[id(part)][0] is part:
        return _locations[id(part)][1]
    named = part if isinstance(part, type) or hasattr(part, "__qualname__") else type(part)
    module = str(getattr(named, "__module__", ""))
    if module.split(".")[0] == "sslticket" or module == "builtins":
        return None
    file = _file_of(sys.modules[module]) if module in sys.modules else None
    return f"{file or _INTERACTIVE}:{getattr(named, '__qualname__', type(part).__name__)}"


def required_parts(*settings: object) -> dict[str, str]:
    """The parts of a user's that settings are made of, as recipes, tickets and rows record them.

    Args:
        *settings: Frozen dataclasses, such as a recipe, whose fields are looked through, or parts themselves.

    Returns:
        16 hexadecimal digits over the file by "<absolute path>:Name"; empty where everything is built in. A part that
            was defined in a notebook or a shell has no file, and no digits.
    """
    found: dict[str, str] = {}
    todo = list(settings)
    for each in todo:
        if dataclasses.is_dataclass(each) and not isinstance(each, type):
            todo += [getattr(each, field.name) for field in dataclasses.fields(each)]
        elif isinstance(each, (list, tuple)):
            todo += each
            continue
        elif isinstance(each, Mapping):
            todo += each.values()
            continue
        elif each is None or isinstance(each, (str, int, float, bool, bytes, Path)):
            continue
        if location := part_location(each):
            file = Path(location.rpartition(":")[0])
            found[location] = _source_hash(read_bytes(file, _MAX_SOURCE_BYTES)) if file.is_file() else ""
    return dict(sorted(found.items()))


def has_registered_parts() -> bool:
    """Whether a user has registered parts in this process, which another knows only by loading the same files."""
    return bool(_registered)


def remember_parts(parts: Mapping[str, str]) -> None:
    """Note in the user's cache folder that these parts were run by this user, so that later commands may load them.

    Args:
        parts: What `required_parts` returned.
    """
    new = {location.rpartition(":")[0]: digest for location, digest in parts.items() if digest}
    if not new or new.items() <= _remembered().items():
        return
    with suppress(OSError), file_lock(_list_of_parts()):  # who has no home folder names the files again
        write_json(_list_of_parts(), _remembered() | new)


def _list_of_parts() -> Path:
    return cache_folder() / "parts.json"


def _remembered() -> dict[str, str]:
    try:
        known = read_json(_list_of_parts())
    except (OSError, RuntimeError, BadInput):
        return {}
    return known if isinstance(known, dict) else {}


def load_recorded_parts(recorded: Mapping[str, str], *, strict: bool = True) -> dict[str, Any]:
    """The parts that a run's folder, a ticket or a row records, by their names.

    A file is loaded only if it still has the recorded hash and this user has run it before, or if it has been loaded
    already, because a flag names it or it is the script that runs. No code is run because a downloaded file names it.

    Args:
        recorded: What `required_parts` returned when the run began.
        strict: Whether every part is needed; those that may not be loaded are else left out.

    Raises:
        BadInput: If a part that is needed may not be loaded, naming the file to give with --parts.
    """
    found: dict[str, Any] = {}
    known = _remembered() if recorded else {}
    for location, digest in recorded.items():
        where, _, name = str(location).rpartition(":")
        why = "" if Path(where) in _user_modules else _why_not_loaded(name, where, digest, known)
        if (why or Path(where) in _user_modules) and (given := loaded_part(name, Path(where))) is not None:
            found[name] = given  # the file itself, or another that was given for it
        elif why:
            if strict:
                raise BadInput(why)
        else:
            module = load_user_file(where)
            found[name] = _registered[name] if name in _registered else _named_part(module, name)
    return found


def _why_not_loaded(name: str, where: str, digest: str, known: Mapping[str, str]) -> str:
    """Why a recorded part may not be loaded, and the fix; "" if it may."""
    if where == _INTERACTIVE or not digest:
        return f"{name} was defined in a notebook or a shell; save it in a file and give --parts FILE.py"
    if not Path(where).is_file():
        return f"{name} was defined in {where}, which is not there; give its file with --parts FILE.py"
    if _source_hash(read_bytes(Path(where), _MAX_SOURCE_BYTES)) != digest:
        return f"{where}, which defines {name}, has changed since; give --parts {where} to take it as it is"
    if known.get(where) != digest:
        return f"{where}, which defines {name}, has not been run by you here; give --parts {where} to run it"
    return ""


def loaded_part(name: str, file: Path | None = None) -> Any | None:
    """The part of this name in the files of users that have been loaded and in the script that runs; None for none.

    Args:
        name: Name of the class or object in its module.
        file: The file that is looked into before others.
    """
    main = sys.modules.get("__main__")
    first = [_user_modules[file][1]] if file in _user_modules else []
    modules = [*first, *(module for _, module in reversed(_user_modules.values())), *([main] if main else [])]
    for module in modules:
        with suppress(AttributeError):
            part = _named_part(module, name)
            # What a file imports is not its own; objects such as protocols have the module of their class.
            if module in first or not hasattr(part, "__qualname__") or part.__module__ == module.__name__:
                return part
    return None


def _check_one_file(name: str, part: object) -> None:
    """Check that no other file of users that was loaded has another part of this name.

    Raises:
        BadInput: If one has, naming both.
    """
    here = next(iter(required_parts(part).items()), None)
    for file, (digest, module) in _user_modules.items():
        there = vars(module).get(name)
        if here is None or there is None or getattr(there, "__module__", None) != module.__name__:
            continue
        if here[0].rpartition(":")[0] != str(file) and here[1] != digest:
            raise BadInput(
                f"{name} must be in one file, got {here[0]} and {file}:{name}; give one of them another name, or use "
                "them one at a time"
            )


def loaded_parts(base: type[T]) -> list[T]:
    """The instances of a class in the files of users that have been loaded and in the script that runs, latest first.

    Args:
        base: The class.
    """
    main = sys.modules.get("__main__")
    modules = [*(module for _, module in reversed(_user_modules.values())), *([main] if main else [])]
    return [value for module in modules for value in vars(module).values() if isinstance(value, base)]


def note_recorded_parts(recorded: Mapping[str, str]) -> None:
    """Note which parts of a user a ticket records, so that `Registry.own_part` can load them when they are needed.

    Args:
        recorded: What `required_parts` returned when the search began.
    """
    for location, digest in recorded.items():
        _noted_parts[str(location).rpartition(":")[2]] = {str(location): str(digest)}


def _named_part(module: ModuleType, name: str) -> Any:
    part: Any = module
    for each in name.split("."):
        part = getattr(part, each)
    return part


OMIT_DEFAULT: dict[str, object] = {"added": True}
"""Metadata of fields that a class had once done without: while such a field has its default it is left out of the
values, so that keys, families and folders of runs stay what they were before the field was there."""

NO_FLAGS: dict[str, object] = {"flags": False}
"""Metadata of fields that hold dataclasses whose fields are not to be flags of the command line."""


def stored_as(name: str) -> dict[str, object]:
    """Metadata of a field that was once called `name`: JSON values keep that name, so that keys stay what they were.

    A class that was once called otherwise has that name as its class attribute `stored_name`.
    """
    return {"stored": name}


def settings_to_json(settings: object, *, stored: bool = True) -> Any:
    """JSON values; a dataclass becomes its fields, and its name under "is".

    Args:
        settings: Dataclasses, lists and plain values.
        stored: Fields have the names that they had when they were first written; False for today's.
    """
    if dataclasses.is_dataclass(settings) and not isinstance(settings, type):
        fields = {
            field.metadata.get("stored", field.name) if stored else field.name: settings_to_json(value, stored=stored)
            for field in dataclasses.fields(settings)
            if (value := getattr(settings, field.name)) != field.default or not field.metadata.get("added")
        }
        return {"is": vars(type(settings)).get("stored_name", type(settings).__name__), **fields}
    if isinstance(settings, (list, tuple)):
        return [settings_to_json(item, stored=stored) for item in settings]
    return str(settings) if isinstance(settings, Path) else settings


def settings_from_json(
    tree: object, kinds: Mapping[str, type[T]], what: str, parts: Mapping[str, Any] | None = None
) -> T:
    """The dataclass that JSON values of `settings_to_json` describe; fields that they lack keep their defaults.

    Args:
        tree: The values, with further dataclasses in them. Lists become tuples.
        kinds: The classes that the values may describe, by the names that they have in JSON.
        what: What the values describe, for an error.
        parts: Classes of users by their names, see `load_recorded_parts`; they go before built-in ones.

    Raises:
        BadInput: If the class or a field is unknown, or the class cannot be made of the values.
    """
    if not isinstance(tree, Mapping):
        raise BadInput(f'a {what} must be a JSON object with its class under "is", got {str(tree)[:80]!r}')
    name = str(tree.get("is"))
    if name not in kinds:
        raise unknown_name(what, name, kinds)
    kind = kinds[name]
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]  # no type for them
    names = {str(field.metadata.get("stored", field.name)): field.name for field in fields.values()}
    given = {}
    for key, value in tree.items():
        if key == "is":
            continue
        if (field_name := names.get(key, key)) not in fields:
            raise unknown_name(f"field of {name}", key, names)
        found = _from_json(value, parts)
        is_path = isinstance(found, str) and "Path" in str(fields[field_name].type)
        given[field_name] = Path(found) if is_path else found
    reading = _reading_json.set(True)
    try:
        return kind(**given)
    except BadInput:
        raise
    except (TypeError, ValueError, AttributeError) as error:
        raise BadInput(f"a {what} {name} cannot be made of its values ({one_line(error)}); correct the file") from error
    finally:
        _reading_json.reset(reading)


def _from_json(value: Any, parts: Mapping[str, Any] | None) -> Any:
    if isinstance(value, list):
        return tuple(_from_json(each, parts) for each in value)
    if isinstance(value, dict) and "is" in value:
        name = str(value["is"])
        return settings_from_json(value, {name: settings_class(name, parts)}, "setting", parts)
    return value


_SETTINGS = {
    "Fit": "sslticket.config.training:TrainConfig",
    "Data": "sslticket.config.recipe:Data",
    "Origin": "sslticket.config.recipe:ImageIdentity",
    "View": "sslticket.data.augment:View",
}
"""Where the classes of a recipe are that are no parts, by their names in JSON."""
_REGISTRIES = {
    "objective": "sslticket.objectives:OBJECTIVES",
    "search": "sslticket.search:SEARCHES",
    "criterion": "sslticket.pruning:CRITERIA",
    "optimizer": "sslticket.config:OPTIMIZERS",
    "transform": "sslticket.data:TRANSFORMS",
    "gate": "sslticket.pruning:GATES",
    "model": "sslticket.models:MODELS",
    "data set": "sslticket.data.datasets:DATASETS",
    "protocol": "sslticket.evaluation:PROTOCOLS",
    "control": "sslticket.evaluation:CONTROLS",
    "analysis": "sslticket.analysis:ANALYSES",
    "tracker": "sslticket.training:TRACKERS",
}
"""Where the registry of each kind of part is; imported when it is asked for, since all lie above this module."""


def registry_of(kind: str) -> Registry[Any]:
    """The registry of a kind of part, such as "objective" or "data set"."""
    found: Registry[Any] = _attribute(_REGISTRIES[kind])
    return found


def settings_class(name: str, parts: Mapping[str, Any] | None = None) -> type:
    """The class that JSON values name under "is".

    Args:
        name: Name of the class.
        parts: Classes of users by their names; they go before built-in ones.

    Raises:
        BadInput: If there is no such class here, naming the flag that a file of users is given with.
    """
    if parts and name in parts:
        return _as_class(name, parts[name])
    if name in _SETTINGS:
        return _as_class(name, _attribute(_SETTINGS[name]))
    known = list(_SETTINGS)
    for kind in ("objective", "search", "criterion", "gate", "optimizer", "transform"):
        registry = registry_of(kind)
        if name in registry.names():
            return _as_class(name, registry.get(name))
        known += registry.names()
    if (own := loaded_part(name)) is not None:
        return _as_class(name, own)
    unknown = unknown_name("class", name, known)
    raise BadInput(f"{unknown}, or give the file that defines it with --parts FILE.py")


def _as_class(name: str, found: object) -> type:
    if isinstance(found, type) and dataclasses.is_dataclass(found):
        return found
    raise BadInput(f"{name} must be a dataclass to be a setting of a recipe, got {found!r}")


def settings_hash(tree: object) -> str:
    """8 hex digits over JSON values; the order of keys does not matter."""
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()[:8]
