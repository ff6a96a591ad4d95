"""Which rows are of the same thing, and the shortest names that tell tickets and panels apart.

Names alone do not tell: two folders of images are both called "folder", and a protocol's settings may have changed.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

import pandas as pd

from sslticket.results.rows import DEFAULT_HEAD, ROW_TYPES, TargetFields, shared_controls

MEASURED_ON = ["protocol", "target", "model", "within"]
"""The names of where something was measured."""
CONDITIONS = {
    "protocol_hash": "settings {}",
    "start": "start {}",
    "data_hash": "training images {}",
    "eval_hash": "evaluation images {}",
}
"""What must be the same behind those names, and the words for it where it is not."""
SEARCH_PROTOCOL = "search"
"""The protocol of rows about a search's own dense training."""
_RECIPE_KEYS = ["model", "objective", "source", "subset", "subset_by", "recipe"]
RENAMED_SETTINGS = {"settled": "early_bird", "settled_window": "early_bird_window", "settled_every": "early_bird_every"}
"""Today's names of a search's settings that rows have by earlier ones, see `registry.stored_as`."""
_MIN_HASH_DIGITS = 4  # digits of a hash that a name shows


def protocol_kinds() -> dict[str, str]:
    """Kinds of rows that were trained under a protocol, and where the schedule of rows that do not say so started."""
    return {kind: each.default_start for kind, each in ROW_TYPES.items() if issubclass(each, TargetFields)}


def fill_defaults(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame of `table.read_rows` with what older rows lack.

    `within` is "" for all layers, `head` "new", `start` "0" for scores and "k" for analyses, `numerics` the precision,
    which is all that they have. `images` is the `source_hash`, "" where no row of the ticket has it and
    nothing speaks against that it is that of all others. `settings` have today's names.
    """
    heads, starts = (frame[key].astype(object) for key in ("head", "start"))
    within, numerics = (frame[key].astype(object) for key in ("within", "numerics"))
    return frame.assign(
        within=within.where(within.notna(), ""),
        head=heads.where(heads.notna(), DEFAULT_HEAD),
        numerics=numerics.where(numerics.notna(), frame["precision"]),
        start=starts.where(starts.notna(), frame["kind"].map(protocol_kinds())),
        images=_source_images(frame),
        settings=frame["settings"].map(_rename_settings),
    )


def _rename_settings(settings: Any) -> Any:
    if not isinstance(settings, dict) or RENAMED_SETTINGS.keys().isdisjoint(settings):
        return settings
    return {RENAMED_SETTINGS.get(name, name): value for name, value in settings.items()}


def _source_images(frame: pd.DataFrame) -> "pd.Series[Any]":
    """Of each row, what stands for the whole set of images that its ticket was found on."""
    hashes = frame["source_hash"].astype(object)
    known = frame[hashes.notna()].drop_duplicates("ticket_hash").set_index("ticket_hash")["source_hash"]
    hashes = hashes.where(hashes.notna(), frame["ticket_hash"].map(known))
    missing = hashes.isna()
    if missing.any():
        hashes = hashes.where(~missing, _source_images_of_old_rows(frame[missing]).reindex(frame.index))
    return hashes.where(hashes.notna(), "")


def _source_images_of_old_rows(old: pd.DataFrame) -> "pd.Series[Any]":
    """Of rows without `source_hash`: the images that the search itself saw, where recipes show that they differ.

    Searches of one recipe saw the same images if their seeds draw nothing: no subset, no shuffled or hidden labels.
    Where a seed draws, only two searches of one seed show it.
    """
    own = old[~old["kind"].isin(protocol_kinds())]  # in other rows, `data_hash` is of the protocol's images
    if own.empty:
        return pd.Series(dtype=object)
    seen = own.drop_duplicates("ticket_hash").set_index("ticket_hash")["data_hash"]
    by = [*_RECIPE_KEYS, "search_seed"]
    differ = own.groupby(by, dropna=False)["data_hash"].transform("nunique") > 1
    whole = (
        ~own["settings"].map(_labels_depend_on_seed)
        & (own["subset"] == 1)
        & ~own["objective"].str.endswith("-shuffled")
    )
    differ |= whole & (own[whole].groupby(_RECIPE_KEYS)["data_hash"].transform("nunique").reindex(own.index) > 1)
    mixed = own.loc[differ, _RECIPE_KEYS].drop_duplicates().assign(mixed=True)
    is_mixed = old[_RECIPE_KEYS].merge(mixed, on=_RECIPE_KEYS, how="left")["mixed"].notna().to_numpy()
    return old["ticket_hash"].map(seen).where(is_mixed)


def _labels_depend_on_seed(settings: Any) -> bool:
    """Whether the seed of a search decides which labels its images have."""
    return not isinstance(settings, dict) or settings.get("labels", 1) != 1 or settings.get("shuffle_labels", 0) != 0


def panel_conditions(frame: pd.DataFrame) -> "pd.Series[Any]":
    """What tells panels of one MEASURED_ON apart, in words: "start k", "settings 3f2a"; "" where nothing has to.

    Args:
        frame: Rows with the columns of `fill_defaults` and `tickets`.
    """
    words: dict[Any, str] = {}
    for _, own in frame[frame["kind"].isin(protocol_kinds())].groupby(["kind", *MEASURED_ON]):
        known = resolve_conditions(own)
        found = list(known.itertuples(index=False, name=None))
        named = dict(_shortest_conditions(set(found)))
        words |= zip(own.index, [named[each] for each in found], strict=True)
    return pd.Series([words.get(row, "") for row in frame.index], frame.index, object)


def resolve_conditions(own: pd.DataFrame) -> pd.DataFrame:
    """The CONDITIONS of rows of one MEASURED_ON; what older rows lack is that of the others, if nothing forbids it.

    It is a value of its own where others have several, or where rows of one series have it and others do not.
    """
    control = own["control"].astype(object).where(own["control"].notna(), "")
    series = own["tickets"].mask(control.isin(shared_controls()), "") + "," + control + "," + own["head"]
    found = {}
    for key in CONDITIONS:
        values = own[key].astype(object).where(own[key].notna(), "")
        if key == "data_hash":
            # Of a search's own training it is that of a subset or of shuffled labels, which the seed draws.
            values = values.where(own["protocol"] != SEARCH_PROTOCOL, own["images"])
        others = set(values) - {""}
        both = (values == "").groupby(series).nunique().max() > 1
        found[key] = values.replace("", next(iter(others))) if len(others) == 1 and not both else values
    return pd.DataFrame(found)


def _shortest_conditions(found: Collection[tuple[str, ...]]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Each combination of CONDITIONS with the fewest words that tell it from the others."""
    ordered = sorted(found)
    if len(ordered) == 1:
        yield ordered[0], ""
        return
    columns = [shorten_hashes({each[i] for each in ordered}) for i in range(len(CONDITIONS))]
    for count in range(1, len(CONDITIONS) + 1):
        for chosen in combinations(range(len(CONDITIONS)), count):
            if len({tuple(each[i] for i in chosen) for each in ordered}) == len(ordered):
                words = list(CONDITIONS.values())
                for each in ordered:
                    yield each, ", ".join(words[i].format(columns[i][each[i]]) for i in chosen)
                return


def shorten_hashes(values: Collection[str]) -> dict[str, str]:
    """Each value by as few of its first digits as tell it from the others; "unknown" for a missing one."""
    known = sorted(value for value in values if value)
    length = next(
        size
        for size in range(_MIN_HASH_DIGITS, 2 + max([_MIN_HASH_DIGITS, *map(len, known)]))
        if len({v[:size] for v in known}) == len(known)
    )
    return {value: value[:length] or "unknown" for value in values}


def differ_within(frame: pd.DataFrame, by: Sequence[str], key: str) -> "pd.Series[bool]":
    """Of each row, whether those that are alike in `by` differ in `key`; a value that is missing is one, too."""
    counts = frame.assign(value=frame[key].astype(object).where(frame[key].notna(), "")).groupby(list(by))["value"]
    return counts.transform("nunique") > 1


_SUBSET_SUFFIXES = {"classes": " of classes", "random": " at random"}
"""What a subset is of, or how it was drawn; nothing for a fraction of each class's images."""
_MAX_SETTINGS = 4
"""Settings that a name takes at most; where so many do not tell recipes apart, their hashes do."""


def name_tickets(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame of `naming.fill_defaults` with the columns `tickets`, what found them, and `variant`.

    A name is the objective, the N:M pattern, the subset or the shots, where a model has several, the source, and the
    weights that the search started from where its seed did not draw them; then, in brackets, the search, where a model
    has several, and the fewest settings of the recipe that tell those apart which are still alike; these two are
    `variant`. Recipes of rows that hold no settings are told apart by their hash. Last come the images, where searches
    of one recipe were of several. Seeds are never in a name.

    `search` and `settings` are filled in where any row of a recipe has them; else they are "" and None.
    """
    recipes = _collect_recipes(frame)
    sources, searches = (_models_with_several(recipes, key) for key in ("source", "search"))
    # Where one does not tell its search, the search tells nobody apart.
    silent = {key[:-1] for key, recipe in recipes.items() if not recipe["search"]}
    alike: dict[Any, list[Any]] = defaultdict(list)
    for key, recipe in recipes.items():
        settings = recipe["settings"]
        told = shots_per_class(settings), asked_pattern(settings), init_words(settings)
        alike[key[:-1], "" if key[:-1] in silent else recipe["search"], told].append(key)
    images = {key: list(own["images"].unique()) for key, own in frame.groupby(_RECIPE_KEYS)}
    names = {}
    for keys in alike.values():
        variants = _distinguishing_settings(
            [recipes[key]["settings"] for key in keys], [recipes[key]["recipe"] for key in keys]
        )
        for key, variant in zip(keys, variants, strict=True):
            model = recipes[key]["model"]
            way = ", ".join(filter(None, [recipes[key]["search"] if model in searches else "", variant]))
            words = _base_name(recipes[key], model in sources)
            for seen, brief in shorten_hashes(images[key]).items():
                details = ", ".join(filter(None, [way, f"images {brief}" if len(images[key]) > 1 else ""]))
                names[*key, seen] = f"{words} ({details})" if details else words, way
    keys = list(frame[[*_RECIPE_KEYS, "images"]].itertuples(index=False, name=None))
    facts = {name: pd.Series([recipes[key[:-1]][name] for key in keys], frame.index, object) for name in _RECIPE_FACTS}
    return frame.assign(tickets=[names[key][0] for key in keys], variant=[names[key][1] for key in keys], **facts)


_RECIPE_FACTS = ["search", "settings"]


def _collect_recipes(frame: pd.DataFrame) -> dict[Any, dict[str, Any]]:
    """Each recipe, with the search and the settings that any of its rows has; "" and None where none does."""
    keys = frame[_RECIPE_KEYS].drop_duplicates().itertuples(index=False, name=None)
    unknown = {"search": "", "settings": None}
    found: dict[Any, dict[str, Any]] = {key: dict(zip(_RECIPE_KEYS, key, strict=True)) | unknown for key in keys}
    for name in _RECIPE_FACTS:
        known = frame[frame[name].notna()].drop_duplicates(_RECIPE_KEYS)
        for *key, value in known[[*_RECIPE_KEYS, name]].itertuples(index=False, name=None):
            found[tuple(key)][name] = value
    return found


def _models_with_several(recipes: Mapping[Any, Mapping[str, Any]], key: str) -> set[str]:
    """The models whose recipes differ in this."""
    values_of: dict[str, set[str]] = defaultdict(set)
    for recipe in recipes.values():
        values_of[recipe["model"]] |= {recipe[key]} - {""}
    return {model for model, values in values_of.items() if len(values) > 1}


def shots_per_class(settings: Any) -> int | None:
    """Images of each class, where a search took so many; None where it took a fraction of them, or rows do not tell."""
    count = settings.get("shots") if isinstance(settings, dict) else None
    return count if isinstance(count, int) else None


def asked_pattern(settings: Any) -> str:
    """The N:M pattern that a search was asked for; "" for none, or where rows do not tell."""
    return str(settings.get("pattern") or "") if isinstance(settings, dict) else ""


def init_words(settings: Any) -> str:
    """The weights that a search of a network started from, in short: "init dino"; "" where its seed drew them.

    A network's weights go by their tag, those of a file by the first digits of its hash.
    """
    name = settings.get("init") if isinstance(settings, dict) else None
    if not isinstance(name, str):
        return ""
    kind, colon, rest = name.partition(":")
    if colon:
        return f"init {kind} {rest[:8]}" if kind == "file" else f"init {rest}"
    return f"init {name.partition('.')[2] or name}"


def _base_name(recipe: Mapping[str, Any], source: bool) -> str:
    words = " ".join(filter(None, [str(recipe["objective"]), asked_pattern(recipe["settings"])]))
    if recipe["subset"] < 1:
        words += f" {100 * recipe['subset']:g}%{_SUBSET_SUFFIXES.get(recipe['subset_by'], '')}"
    if count := shots_per_class(recipe["settings"]):
        words += f" {count} shot{'' if count == 1 else 's'}"
    words += f" from {recipe['source']}" if source else ""
    return ", ".join(filter(None, [words, init_words(recipe["settings"])]))


def _distinguishing_settings(settings: Sequence[dict[str, Any] | None], recipes: Sequence[str]) -> Iterator[str]:
    """What tells recipes apart that have all other words of a name in common; "" for a single one."""
    if len(recipes) == 1:
        yield ""
        return
    known = [each for each in settings if each is not None]
    names = {name: None for each in known for name in each}  # in their order: those of the search come first
    differ = [name for name in names if len({str(each.get(name)) for each in known}) > 1]
    if len(known) == len(recipes):
        for count in range(1, _MAX_SETTINGS + 1):
            for chosen in combinations(differ, count):
                texts = [
                    ", ".join(_setting_text(name, each[name]) for name in chosen if name in each) for each in known
                ]
                if len(set(texts)) == len(texts):
                    yield from texts
                    return
    yield from recipes


def _setting_text(name: str, value: Any) -> str:
    words = name.replace("_", " ")
    if value == "":
        return f"no {words}"
    if isinstance(value, bool):
        return words if value else f"no {words}"
    return f"{words} {value:g}" if isinstance(value, float) else f"{words} {value}"
