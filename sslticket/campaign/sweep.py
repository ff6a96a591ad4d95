"""A sweep: a grid over recipes and their settings, and what is measured of the tickets, as one file.

    from sslticket import Evaluate, Sweep

    sweep = Sweep(
        recipes=["supervised_digits"],
        grid={"subset": [0.1, 1.0]},
        seeds=[0, 1],
        evaluate=[Evaluate(protocols=["digits-demo"], controls=["random"])],
    )

Settings are named as flags are, short or dotted. A file of TOML has the same names. Nothing here opens images.
"""

import dataclasses
import functools
import itertools
import json
import tomllib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar

from sslticket.config import flags
from sslticket.config.recipe import Recipe
from sslticket.config.recipe_files import load_recipe, published_folder
from sslticket.errors import BadInput, unknown_name
from sslticket.models import RANDOM_INIT
from sslticket.models.pretrained import name_by_content
from sslticket.registry import has_registered_parts, load_user_file, settings_hash
from sslticket.storage.files import atomic_write, read_bytes, read_json

_MAX_FILE_BYTES = 2**20
_REWIND = {"rewind", "search.rewind"}
_NAMES = ("sweep", "sweeps")
"""What a file of Python calls a sweep, or several."""
_NAMED = {"Sweep": "a sweep", "Evaluate": "an evaluation (Evaluate)", "Analyse": "an analysis (Analyse)"}

Kind = TypeVar("Kind")


def _refuse_unknown_fields(kind: type[Kind]) -> type[Kind]:
    """Makes a dataclass answer a name that is none of its fields' with the nearest, as a file of TOML is answered."""
    build: Callable[..., None] = kind.__init__

    @functools.wraps(build)
    def init(self: object, **values: object) -> None:
        _check_fields(kind, values)
        build(self, **values)

    setattr(kind, "__init__", init)  # noqa: B010  # mypy has no other word for it
    return kind


def _check_fields(kind: type[Any], names: Collection[str]) -> None:
    known = sorted(each.name for each in dataclasses.fields(kind))
    for name in names:
        if name not in known:
            near = get_close_matches(name, known, n=3, cutoff=0.5)
            hint = f"did you mean {' or '.join(near)}?" if near else f"its fields are {', '.join(known)}"
            raise BadInput(f"there is no field {name!r} of {_NAMED[kind.__name__]}; {hint}")
    for each in dataclasses.fields(kind):
        required = each.default is dataclasses.MISSING and each.default_factory is dataclasses.MISSING
        if required and each.name not in names:
            raise BadInput(f"{kind.__name__.lower()} must have {each.name}, got {', '.join(names) or 'nothing'}")


@_refuse_unknown_fields
@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """One `sslticket evaluate` over the tickets of a sweep.

    Attributes:
        protocols: Names of protocols; "own" is each ticket's own.
        controls: What is measured beside each ticket, such as "random".
        levels: Levels of the tickets, such as "0 2 4-6", or "all"; None for 0-6 and then every third.
        seeds: Seeds of the evaluation; "search" for that of each ticket's search, None for each protocol's own.
        heads: "own", "new" or both; None for a ticket's own where it was found on the protocol's task.
        part: What the protocols' images are, if they are not the whole official set.
        curve: Where accuracies are measured on the way, such as "5ep" for every fifth epoch; None for the end alone.
    """

    protocols: Sequence[str] = ("own",)
    controls: Sequence[str] = ()
    levels: str | None = None
    seeds: Sequence[int] | Literal["search"] | None = None
    heads: Sequence[Literal["own", "new"]] | None = None
    part: str | None = None
    curve: str | None = None

    def __post_init__(self) -> None:
        _check_measured(self)

    def describe(self) -> str:
        """What is done, for people."""
        return f"evaluate {_describe(self)}"


@_refuse_unknown_fields
@dataclass(frozen=True, kw_only=True)
class Analyse:
    """One `sslticket analyse` over the tickets of a sweep.

    Attributes:
        analysis: Name of the analysis, or "file.py:Name".
        settings: Its settings by the names of their flags.
        protocols: Names of protocols under which tickets are trained to their end.
        controls: What is analysed beside each ticket: "local", or nothing.
        levels: Levels of the tickets, such as "0 2 4-6", or "all"; None for the analysis' own.
        seeds: Seeds of the trainings; "search" for that of each ticket's search, None for each protocol's own.
        heads: "own" or "new"; None for a ticket's own where it was found on the protocol's task.
        part: What the protocols' images are, if they are not the whole official set.
    """

    analysis: str
    settings: Mapping[str, object] = field(default_factory=dict)
    protocols: Sequence[str] = ("own",)
    controls: Sequence[str] = ()
    levels: str | None = None
    seeds: Sequence[int] | Literal["search"] | None = None
    heads: Sequence[Literal["own", "new"]] | None = None
    part: str | None = None

    def __post_init__(self) -> None:
        _check_measured(self)
        _check_settings(self, "settings", self.settings)

    def describe(self) -> str:
        """What is done, for people."""
        settings = "".join(f", {_flag_name(name)} {_shown(value)}" for name, value in self.settings.items())
        return f"analyse {self.analysis}{settings} {_describe(self)}"


def _check_measured(measured: "Evaluate | Analyse") -> None:
    """Makes tuples of its lists, and refuses what would only be found out when the searches have ended."""
    kind = type(measured).__name__
    _make_tuples(measured, "protocols", "controls", "seeds", "heads")
    if isinstance(measured.levels, int):
        object.__setattr__(measured, "levels", str(measured.levels))
    named: tuple[tuple[str, Sequence[Any] | None, str], ...] = (
        ("protocols", measured.protocols, 'protocols=["own"]'),
        ("controls", measured.controls, 'controls=["random"]'),
        ("heads", measured.heads, 'heads=["own", "new"], or leave it out'),
    )
    for name, given, fix in named:
        known = ("own", "new") if name == "heads" else given or ()
        if given is not None and not all(isinstance(each, str) and each in known for each in given):
            raise BadInput(f"{name} of {kind}(...) must be names, got {_listed(given)}; give {fix}")
        if given is not None and not given and name != "controls":
            raise BadInput(f"{name} of {kind}(...) must be at least one, got none; give {fix}")
    if measured.seeds not in (None, "search") and not _are_seeds(measured.seeds):
        raise BadInput(
            f'seeds of {kind}(...) must be whole numbers from 0 on or "search", got {_listed(measured.seeds)}; give '
            "seeds=[0, 1]"
        )
    for name, value, fix in (("levels", measured.levels, '"0 2 4-6"'), ("part", measured.part, '"80 classes"')):
        if value is not None and not (isinstance(value, str) and value.split()):
            raise BadInput(f"{name} of {kind}(...) must be text, got {value!r}; give {fix}, or leave it out")


def _are_seeds(seeds: object) -> bool:
    return isinstance(seeds, tuple) and bool(seeds) and all(type(seed) is int and seed >= 0 for seed in seeds)


def _listed(values: Any) -> str:
    """Values as a person wrote them: one that stands alone is no list."""
    return repr(values[0]) if len(values) == 1 else str(list(values))


def _check_settings(owner: object, name: str, values: object) -> None:
    if not isinstance(values, Mapping) or not all(isinstance(each, str) for each in values):
        kind = type(owner).__name__.strip("_")
        raise BadInput(
            f'{name} of {kind}(...) must be settings by their names, got {values!r}; give {{"length": "400it"}}'
        )


def _describe(measured: Evaluate | Analyse) -> str:
    words = [f"under {', '.join(measured.protocols)}"]
    if measured.controls:
        words.append(f"beside {', '.join(measured.controls)}")
    if measured.levels is not None:
        words.append(f"levels {measured.levels}")
    if measured.seeds is not None:
        words.append("seeds of the searches" if measured.seeds == "search" else f"seeds {_shown(measured.seeds)}")
    if measured.heads is not None:
        words.append(f"heads {_shown(measured.heads)}")
    return ", ".join(words)


@_refuse_unknown_fields
@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Searches that differ in some settings, and what is measured of their tickets.

    Attributes:
        recipes: Published names, "file.py:NAME", or recipes.
        settings: Settings that all searches have, by the names of their flags: {"length": "400it"}.
        grid: Settings that are crossed: {"subset": [0.01, 0.1, 1]}.
        points: Settings that go together, one search a point, each crossed with the grid:
            [{"subset": 0.1, "batch-size": 64}, {"subset": 1, "batch-size": 128}].
        seeds: Seeds of the searches.
        evaluate: What is evaluated.
        analyse: What is analysed.
        title: What the sweep is about, for people.
    """

    recipes: Sequence[str | Recipe]
    settings: Mapping[str, object] = field(default_factory=dict)
    grid: Mapping[str, Sequence[object]] = field(default_factory=dict)
    points: Sequence[Mapping[str, object]] = ()
    seeds: Sequence[int] = (0,)
    evaluate: Sequence[Evaluate] = ()
    analyse: Sequence[Analyse] = ()
    title: str = ""

    def __post_init__(self) -> None:
        _make_tuples(self, "recipes", "points", "seeds", "evaluate", "analyse")
        if not self.recipes:
            raise BadInput('recipes of a sweep must be at least one, got none; give recipes=["supervised_digits"]')
        if wrong := [each for each in self.recipes if not isinstance(each, (str, Recipe))]:
            raise BadInput(f"recipes of a sweep must be names or recipes, got {wrong[0]!r}; give a published name")
        if not _are_seeds(self.seeds):
            raise BadInput(
                f"seeds of a sweep must be whole numbers from 0 on, got {list(self.seeds)}; give seeds=[0, 1]"
            )
        _check_settings(self, "settings", self.settings)
        _check_settings(self, "grid", self.grid)
        for point in self.points:
            _check_settings(self, "points", point)
        for name, values in self.grid.items():
            if isinstance(values, str) or not isinstance(values, Iterable) or not list(values):
                raise BadInput(f"{name} in the grid must be a list of values, got {values!r}; give [0.1, 1.0]")
        for name, kind in {"evaluate": Evaluate, "analyse": Analyse}.items():
            if wrong := [each for each in getattr(self, name) if not isinstance(each, kind)]:
                raise BadInput(f"{name} of a sweep must be a list of {kind.__name__}(...), got {wrong[0]!r}")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One search of a sweep, and what is measured of its tickets.

    Attributes:
        recipe: The recipe with its settings, before its images are opened.
        name: What tells it from the others, for people: "supervised_digits, subset 0.1, seed 0".
        number: Its place among the cells.
        evaluate: What is evaluated.
        analyse: What is analysed.
        trial: Whether a length was given without a rewind point, see `sslticket.search.plan.plan_search`.
        rewind_given: Whether a rewind point was given.
        weights: What `recipe.init` was when the campaign began, a file's by its content.
    """

    recipe: Recipe
    name: str
    number: int
    evaluate: tuple[Evaluate, ...] = ()
    analyse: tuple[Analyse, ...] = ()
    trial: bool = False
    rewind_given: bool = False
    weights: str = RANDOM_INIT

    @property
    def last_level(self) -> int:
        """Number of its search's last level or round."""
        return int(getattr(self.recipe.search, "levels", 0) or getattr(self.recipe.search, "rounds", 1))

    @cached_property
    def key(self) -> str:
        """What tells the cell from all others, whatever becomes of the sweep around it: 8 hexadecimal digits."""
        recipe = self.recipe.to_dict()
        if "init" in recipe:  # a file's path, behind which others may lie another time
            recipe["init"] = self.weights
        return settings_hash({"recipe": recipe, "trial": self.trial})


def _make_tuples(tree: object, *names: str) -> None:
    """Lists of a frozen dataclass as tuples; a name that is given alone is a list of one."""
    for name in names:
        value = getattr(tree, name)
        if value is None or (name == "seeds" and value == "search"):
            continue
        listed = (value,) if isinstance(value, (str, int, Mapping, Recipe)) else value
        if not isinstance(listed, Iterable):
            raise BadInput(f"{name} of {type(tree).__name__}(...) must be a list, got {value!r}")
        object.__setattr__(tree, name, tuple(listed))


KEPT_FILE = "sweep.json"
"""The cells that a campaign was begun with, in its `.campaign/`: workers take these, whatever becomes of the file."""
_MAX_KEPT_BYTES = 2**30


@dataclass(frozen=True, kw_only=True)
class _KeptCell(Sweep):
    """A cell of a campaign that has begun, as a sweep of one.

    Attributes:
        name: Its name.
        key: Its key when the campaign began.
        trial: See `Cell`.
        rewind_given: See `Cell`.
        weights: See `Cell`.
    """

    name: str
    key: str
    trial: bool
    rewind_given: bool
    weights: str


def keep_cells(cells: Sequence[Cell], path: Path) -> None:
    """Writes cells down for the workers of a campaign, which then need not read the sweep's file.

    Where code of a user is needed there is none: workers read the file, which is where they have the code from.

    Args:
        cells: The cells.
        path: The file.
    """
    if has_registered_parts() or any(cell.recipe.parts() for cell in cells):
        path.unlink(missing_ok=True)
        return
    trees = [
        {
            "recipe": cell.recipe.to_dict(),
            "name": cell.name,
            "key": cell.key,
            "trial": cell.trial,
            "rewind_given": cell.rewind_given,
            "weights": cell.weights,
            "evaluate": [dataclasses.asdict(each) for each in cell.evaluate],
            "analyse": [dataclasses.asdict(each) for each in cell.analyse],
        }
        for cell in cells
    ]
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps({"cells": trees}, default=str), encoding="utf-8")


def _kept_sweeps(path: Path) -> tuple[Sweep, ...]:
    fix = "type the command of the sweep again"
    try:
        return tuple(
            _KeptCell(
                recipes=[Recipe.from_dict(tree["recipe"])],
                evaluate=[Evaluate(**each) for each in tree["evaluate"]],
                analyse=[Analyse(**each) for each in tree["analyse"]],
                **{name: tree[name] for name in ("name", "key", "trial", "rewind_given", "weights")},
            )
            for tree in read_json(path, most=_MAX_KEPT_BYTES, finite=False, fix=fix)["cells"]
        )
    except (KeyError, TypeError) as error:
        raise BadInput(f"{path} is damaged (it holds no cells); {fix}") from error


def published_sweeps() -> dict[str, Path]:
    """The file of each published sweep by its name; folders hold the papers' figures, which are more than sweeps."""
    folder = published_folder("sweeps")
    files = [*sorted(folder.glob("*.toml")), *sorted(folder.glob("*.py"))]  # of two, the one of Python
    return {file.stem: file for file in files}


def find_sweep_file(name: str | Path) -> Path:
    """The file of a sweep: a path, or that of a published sweep.

    Raises:
        BadInput: If there is none.
    """
    text = str(name)
    if Path(text).suffix in (".py", ".toml") or (Path(text).name == KEPT_FILE and Path(text).is_file()):
        if not Path(text).is_file():
            raise BadInput(f"there is no sweep at {text}; give a file such as sweeps/lowshot.py, or a published name")
        return Path(text)
    known = published_sweeps()
    if text not in known:
        raise unknown_name("sweep", text, known)
    return known[text]


def load_sweeps(name: str | Path) -> tuple[Sweep, ...]:
    """The sweeps that a file defines; recipes that lie beside the file are found there.

    A file of Python defines `sweep = Sweep(...)` or `sweeps = [Sweep(...), ...]`. A file of TOML has the fields of one
    sweep, or several under `[[sweeps]]`.

    Args:
        name: Path of a file, or the name of a published sweep.

    Raises:
        BadInput: If there is no such file, or it defines no sweep.
    """
    path = find_sweep_file(name)
    if path.name == KEPT_FILE:
        return _kept_sweeps(path)
    found = _sweeps_of_toml(path) if path.suffix == ".toml" else _sweeps_of_module(path)

    def beside(recipe: str | Recipe) -> str | Recipe:
        if isinstance(recipe, Recipe) or ".py" not in recipe:
            return recipe
        name, _, wanted = recipe.partition(".py")
        file = path.parent / f"{name}.py"
        return f"{file}{wanted}" if file.is_file() and not Path(f"{name}.py").is_file() else recipe

    return tuple(dataclasses.replace(sweep, recipes=tuple(map(beside, sweep.recipes))) for sweep in found)


def _sweeps_of_module(path: Path) -> tuple[Sweep, ...]:
    try:
        module = load_user_file(path)
    except BadInput as error:
        if isinstance(error.__cause__, BadInput):  # the file can be read; what it gives is refused
            raise BadInput(f"{path}: {error.__cause__}") from error
        raise
    one, several = (getattr(module, name, None) for name in _NAMES)
    found = [one] if isinstance(one, Sweep) else several
    if isinstance(found, Sequence) and found and all(isinstance(each, Sweep) for each in found):
        return tuple(found)
    raise BadInput(f"{path} defines no sweep; a file of a sweep has a line that starts with: sweep = Sweep(")


def _sweeps_of_toml(path: Path) -> tuple[Sweep, ...]:
    try:
        tree = tomllib.loads(read_bytes(path, _MAX_FILE_BYTES).decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} is no file of TOML ({error}); docs/campaigns.md shows one") from error
    several = tree.pop("sweeps", None)
    if several is not None and tree:
        raise BadInput(f"{path} must have [[sweeps]] alone, got {next(iter(tree))} beside it; move it into one of them")
    trees = [tree] if several is None else several
    if not tree and not several:
        raise BadInput(f'{path} defines no sweep; it needs a line such as: recipes = ["supervised_digits"]')
    with _named(path):
        return tuple(_from_toml(Sweep, each) for each in trees)


def _from_toml(kind: type[Any], tree: object) -> Any:
    """A dataclass of this file from a table of TOML, which has its fields' names, with dashes if one likes."""
    if not isinstance(tree, Mapping):
        raise BadInput(f"{kind.__name__.lower()} must be a table of names and values, got {tree!r}")
    values = {str(name).replace("-", "_"): value for name, value in tree.items()}
    _check_fields(kind, values)
    for name, inner in {"evaluate": Evaluate, "analyse": Analyse}.items():
        if kind is Sweep and name in values:
            given = values[name] if isinstance(values[name], list) else [values[name]]
            values[name] = [_from_toml(inner, each) for each in given]
    return kind(**values)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Errors inside the block say which file they are about."""
    try:
        yield
    except BadInput as error:
        raise BadInput(f"{path}: {error}") from error


def expand(sweeps: Sweep | Sequence[Sweep]) -> tuple[Cell, ...]:
    """The cells of sweeps, those of all first seeds first; a search that two sweeps share is one cell.

    Args:
        sweeps: The sweeps of one campaign.

    Raises:
        BadInput: If a recipe or a setting is unknown or does not fit, a setting is given twice, or two cells of one
            sweep are the same search.
    """
    listed = [sweeps] if isinstance(sweeps, Sweep) else list(sweeps)
    if not listed:
        raise BadInput("a campaign needs at least one sweep, got none; give Sweep(recipes=[...])")
    found: dict[str, Cell] = {}
    places: dict[str, int] = {}
    for sweep in listed:
        own: dict[str, Cell] = {}
        for cell in _cells_of(sweep):
            if other := own.get(cell.key):
                raise BadInput(
                    f"cells of a sweep must differ, got the same search twice: {other.name!r} and {cell.name!r}; "
                    "leave one of them out"
                )
            own[cell.key] = cell
        for key, cell in own.items():
            if before := found.get(key):
                cell = dataclasses.replace(
                    before,
                    evaluate=tuple(_without_repeats([*before.evaluate, *cell.evaluate])),
                    analyse=tuple(_without_repeats([*before.analyse, *cell.analyse])),
                )
            found[key] = cell
            place = 0 if isinstance(sweep, _KeptCell) else sweep.seeds.index(cell.recipe.seed)  # kept as they were
            places[key] = min(place, places.get(key, place))
    cells = _name_apart(sorted(found.values(), key=lambda cell: places[cell.key]))
    return tuple(dataclasses.replace(cell, number=number) for number, cell in enumerate(cells))


def _name_apart(cells: Sequence[Cell]) -> list[Cell]:
    """The cells with names of which no two are equal: those that were say what else tells them apart."""
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(cell.name, []).append(cell)
    names = {cell.key: cell.name for cell in cells}
    for name, group in groups.items():
        if len(group) > 1:
            start, _, seed = name.rpartition(", ")
            told = _differences([_flat(cell.recipe.to_dict()) | {"trial": str(cell.trial)} for cell in group])
            names |= {
                cell.key: ", ".join([start, *words, seed]) for cell, words in zip(group, told, strict=True) if words
            }
    shared = [name for name, number in Counter(names.values()).items() if number > 1]
    names = {key: f"{name} ({key})" if name in shared else name for key, name in names.items()}
    return [dataclasses.replace(cell, name=names[cell.key]) for cell in cells]


def _flat(tree: Mapping[str, Any], path: str = "") -> dict[str, str]:
    """Settings of nested JSON values, by dotted names; a part's own name is its class."""
    found: dict[str, str] = {}
    for name, value in tree.items():
        where = path if name == "is" else f"{path}.{name}" if path else name
        found |= _flat(value, where) if isinstance(value, Mapping) else {where: _shown(value)}
    return found


def _differences(trees: Sequence[Mapping[str, str]]) -> list[list[str]]:
    """The fewest settings that tell trees apart, as words for each; first the one that tells most apart."""
    left = list(dict.fromkeys(name for tree in trees for name in tree))
    chosen: list[str] = []

    def parts(names: Sequence[str]) -> int:
        return len({tuple(tree.get(name) for name in names) for tree in trees})

    while parts(chosen) < len(trees) and left:
        best = max(left, key=lambda name: parts([*chosen, name]))
        if parts([*chosen, best]) == parts(chosen):
            break
        left.remove(best)
        chosen.append(best)
    short = Counter(name.rpartition(".")[2] for name in chosen)
    flags_of = {
        name: _flag_name(name.rpartition(".")[2] if short[name.rpartition(".")[2]] == 1 else name) for name in chosen
    }
    return [[f"{flags_of[name]} {tree.get(name, 'default')}" for name in chosen] for tree in trees]


def count_cells(sweeps: Sweep | Sequence[Sweep]) -> int:
    """How many cells sweeps have at most, without making any."""
    total = 0
    for sweep in [sweeps] if isinstance(sweeps, Sweep) else sweeps:
        cells = len(sweep.recipes) * max(1, len(sweep.points)) * len(sweep.seeds)
        for values in sweep.grid.values():
            cells *= len(values)
        total += cells
    return total


def measurements_of(cells: Sequence[Cell]) -> list[Evaluate | Analyse]:
    """What is evaluated and analysed of any of the cells, each once: first what is evaluated."""
    return [
        *_without_repeats([each for cell in cells for each in cell.evaluate]),
        *_without_repeats([each for cell in cells for each in cell.analyse]),
    ]


def _without_repeats(items: Sequence[Any]) -> list[Any]:
    found: list[Any] = []
    for item in items:  # an analysis' settings cannot be hashed
        if item not in found:
            found.append(item)
    return found


def _cells_of(sweep: Sweep) -> Iterator[Cell]:
    if isinstance(sweep, _KeptCell):
        (recipe,) = sweep.recipes
        assert isinstance(recipe, Recipe), "it is kept whole"
        cell = Cell(
            recipe=recipe,
            name=sweep.name,
            number=0,
            evaluate=tuple(sweep.evaluate),
            analyse=tuple(sweep.analyse),
            trial=sweep.trial,
            rewind_given=sweep.rewind_given,
            weights=sweep.weights,
        )
        if cell.key != sweep.key:
            raise BadInput(f"{sweep.name} was begun by another version; type the command of the sweep again")
        yield cell
        return
    names = [*sweep.settings, *sweep.grid, *dict.fromkeys(name for point in sweep.points for name in point)]
    plain = [_flag_name(name) for name in names]
    if twice := [name for name in plain if plain.count(name) > 1]:
        raise BadInput(f"{twice[0]} must be in one of settings, grid and points, got it in two; leave one out")
    if "seed" in plain:
        raise BadInput("seed must not be a setting of a sweep; give seeds=[0, 1]")
    bases = [
        (_label(recipe), recipe if isinstance(recipe, Recipe) else load_recipe(recipe)) for recipe in sweep.recipes
    ]
    crossed = [dict(zip(sweep.grid, values, strict=True)) for values in itertools.product(*sweep.grid.values())]
    parsers: dict[str, flags.Parser] = {}
    weights = cache(name_by_content)  # a file is read once, however many cells begin with it
    for seed in sweep.seeds:
        for label, base in bases:
            for point in sweep.points or ({},):
                for chosen in crossed:
                    varied = {**point, **chosen}
                    told = [f"{_flag_name(name)} {_shown(value)}" for name, value in varied.items()]
                    said = {_flag_name(name).rpartition(".")[2] for name in varied}
                    words = ", ".join([label, *told, f"seed {seed}"])
                    try:
                        recipe, given = apply_settings(base, {**sweep.settings, **varied, "seed": seed}, parsers)
                    except BadInput as error:
                        raise BadInput(f"{words}: {error}") from error
                    changed = [words for name, words in _changes(base, recipe).items() if name not in said]
                    yield Cell(
                        recipe=recipe,
                        name=", ".join([label, *changed, *told, f"seed {seed}"]),
                        number=0,
                        evaluate=tuple(sweep.evaluate),
                        analyse=tuple(sweep.analyse),
                        trial="length" in given and not given & _REWIND,
                        rewind_given=bool(given & _REWIND),
                        weights=weights(recipe.init),
                    )


def _changes(base: Recipe, recipe: Recipe) -> dict[str, str]:
    """What a recipe's name says and its settings have changed, in words by the names of flags."""
    found = {}
    if recipe.task != base.task:
        found["objective"] = f"objective {_shown(recipe.objective)}"
    if recipe.model != base.model:
        found["model"] = f"model {recipe.model}"
    if recipe.data.dataset != base.data.dataset:
        found["dataset"] = f"dataset {recipe.data.dataset}"
    return found


def _label(recipe: str | Recipe) -> str:
    if isinstance(recipe, Recipe):
        return f"{recipe.task} {recipe.model} {recipe.data.path_name}"
    return recipe.rpartition(".py:")[2] if ".py:" in recipe else Path(recipe).stem


def _shown(value: object) -> str:
    if isinstance(value, (list, tuple)):
        return " ".join(map(str, value))
    return type(value).__name__ if dataclasses.is_dataclass(value) else str(value)


def _flag_name(name: str) -> str:
    return name.removeprefix("--").replace("_", "-")


def apply_settings(
    recipe: Recipe, settings: Mapping[str, object], parsers: dict[str, flags.Parser] | None = None
) -> tuple[Recipe, set[str]]:
    """A recipe with settings by the names of their flags, which mean what they mean on the command line.

    A value that cannot be typed, such as None, RotNet() or a View, takes the field's place as it is.

    Args:
        recipe: The recipe.
        settings: Values by name, short or dotted.
        parsers: Parsers that were made before, by hashes of recipes: making one takes longer than all else.

    Returns:
        The recipe, and the settings that were given, by the names of parsed flags.

    Raises:
        BadInput: If a setting is unknown, naming the nearest, or its value does not fit.
    """
    objects = {name: value for name, value in settings.items() if not _is_typed(value)}
    for name, value in objects.items():
        recipe = flags.set_field(recipe, _flag_name(name), value)
    words = flags.words_of({name: value for name, value in settings.items() if name not in objects})
    chosen = flags.choose_parts(recipe, words)
    known = {} if parsers is None else parsers
    key = settings_hash(chosen.to_dict())
    if key not in known:
        known[key] = _parser_of(chosen)
    given = vars(known[key].parse_args(words))
    return flags.resolve_recipe(chosen, given), set(given)


def _is_typed(value: object) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_is_typed, value))
    return isinstance(value, (str, int, float, Path))


def _parser_of(recipe: Recipe) -> flags.Parser:
    """A parser of the flags of a recipe."""
    parser = flags.Parser(prog="sslticket run RECIPE", add_help=False)
    flags.add_flags(parser, recipe)
    return parser
