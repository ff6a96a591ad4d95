"""Names of tickets in a report: as brief as tells those of one model apart."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

import pandas as pd

from sslticket.report import identity

SAME = ["model", "objective", "source", "subset", "subset_by"]
"""What the first words of a name tell, within a model."""
_DRAWN = {"classes": " of classes", "random": " at random"}
"""What a share is of, or how it was drawn; nothing for a share of each class's images."""
_MOST = 4
"""Settings that a name takes at most; where so many do not tell recipes apart, their hashes do."""


def named(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame of `identity.completed` with the columns `tickets`, what found them, and `variant`.

    A name is the objective, the subset or the shots and, where a model has several, the source; then, in brackets, the
    search, where a model has several, and the fewest settings of the recipe that tell those apart which are still
    alike; these two are `variant`. Recipes of rows that hold no settings are told apart by their hash. Last come the
    images, where searches of one recipe were of several. Seeds are never in a name.

    `search` and `settings` are filled in where any row of a recipe has them; else they are "" and None.
    """
    recipes = _recipes(frame)
    sources, searches = (_several(recipes, key) for key in ("source", "search"))
    # Where one does not tell its search, the search tells nobody apart.
    silent = {key[:-1] for key, recipe in recipes.items() if not recipe["search"]}
    alike: dict[Any, list[Any]] = defaultdict(list)
    for key, recipe in recipes.items():
        alike[key[:-1], "" if key[:-1] in silent else recipe["search"], shots(recipe["settings"])].append(key)
    images = {key: list(own["images"].unique()) for key, own in frame.groupby(_KEY)}
    names = {}
    for keys in alike.values():
        variants = _variants([recipes[key]["settings"] for key in keys], [recipes[key]["recipe"] for key in keys])
        for key, variant in zip(keys, variants, strict=True):
            model = recipes[key]["model"]
            way = ", ".join(filter(None, [recipes[key]["search"] if model in searches else "", variant]))
            words = _words(recipes[key], model in sources)
            for seen, brief in _images(images[key]):
                names[*key, seen] = _bracketed(words, way, brief), way
    keys = list(frame[[*_KEY, "images"]].itertuples(index=False, name=None))
    told = {name: pd.Series([recipes[key[:-1]][name] for key in keys], frame.index, object) for name in _TOLD}
    return frame.assign(tickets=[names[key][0] for key in keys], variant=[names[key][1] for key in keys], **told)


def _images(values: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Each set of images that searches of one recipe saw, and the words that tell it from the others."""
    for seen, brief in identity.brief(values).items():
        yield seen, f"images {brief}" if len(values) > 1 else ""


def _bracketed(words: str, *told: str) -> str:
    inner = ", ".join(filter(None, told))
    return f"{words} ({inner})" if inner else words


_KEY = [*SAME, "recipe"]
_TOLD = ["search", "settings"]


def _recipes(frame: pd.DataFrame) -> dict[Any, dict[str, Any]]:
    """Each recipe, with the search and the settings that any of its rows tells; "" and None where none does."""
    keys = frame[_KEY].drop_duplicates().itertuples(index=False, name=None)
    unknown = {"search": "", "settings": None}
    found: dict[Any, dict[str, Any]] = {key: dict(zip(_KEY, key, strict=True)) | unknown for key in keys}
    for name in _TOLD:
        told = frame[frame[name].notna()].drop_duplicates(_KEY)
        for *key, value in told[[*_KEY, name]].itertuples(index=False, name=None):
            found[tuple(key)][name] = value
    return found


def _several(recipes: Mapping[Any, Mapping[str, Any]], key: str) -> set[str]:
    """The models whose recipes differ in this."""
    told: dict[str, set[str]] = defaultdict(set)
    for recipe in recipes.values():
        told[recipe["model"]] |= {recipe[key]} - {""}
    return {model for model, values in told.items() if len(values) > 1}


def shots(settings: Any) -> int | None:
    """Images of each class, where a search took so many; None where it took a share of them, or rows do not tell."""
    count = settings.get("shots") if isinstance(settings, dict) else None
    return count if isinstance(count, int) else None


def _words(recipe: Mapping[str, Any], source: bool) -> str:
    words = str(recipe["objective"])
    if recipe["subset"] < 1:
        words += f" {100 * recipe['subset']:g}%{_DRAWN.get(recipe['subset_by'], '')}"
    if count := shots(recipe["settings"]):
        words += f" {count} shot{'' if count == 1 else 's'}"
    return words + (f" from {recipe['source']}" if source else "")


def _variants(settings: Sequence[dict[str, Any] | None], recipes: Sequence[str]) -> Iterator[str]:
    """What tells recipes apart that have all other words of a name in common; "" for a single one."""
    if len(recipes) == 1:
        yield ""
        return
    known = [each for each in settings if each is not None]
    names = {name: None for each in known for name in each}  # in their order: those of the search come first
    differ = [name for name in names if len({str(each.get(name)) for each in known}) > 1]
    if len(known) == len(recipes):
        for count in range(1, _MOST + 1):
            for chosen in combinations(differ, count):
                told = [", ".join(_setting(name, each[name]) for name in chosen if name in each) for each in known]
                if len(set(told)) == len(told):
                    yield from told
                    return
    yield from recipes


def _setting(name: str, value: Any) -> str:
    words = name.replace("_", " ")
    if value == "":
        return f"no {words}"
    if isinstance(value, bool):
        return words if value else f"no {words}"
    return f"{words} {value:g}" if isinstance(value, float) else f"{words} {value}"
