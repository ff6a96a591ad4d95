"""What a reader must know of the rows before comparing their means: what was split, and what differs all the same."""

from collections.abc import Iterable, Iterator
from typing import Any

import pandas as pd

from sslticket.escaping import shell
from sslticket.report import identity, schema, statistics, text
from sslticket.report.statistics import PANEL

KINDS = {
    "score": "Scores",
    "level": "Levels of the search",
    "stability": "Stability",
    "connectivity": "Linear mode connectivity",
    "magnitudes": "Magnitudes",
    "overlap": "Overlap of masks",
    "channels": "Layers and channels",
}
"""What rows of a kind are called."""
assert KINDS.keys() == schema.KINDS.keys()

_CONDITIONS = {
    "protocol_hash": "the protocol's settings",
    "start": "where the schedule starts",
    "data_hash": "the training images",
    "eval_hash": "the evaluation images",
}
assert _CONDITIONS.keys() == identity.CONDITIONS.keys()
_MANY = 6


def notes(frame: pd.DataFrame) -> list[str]:
    """Sentences about a frame of `statistics.named`; what stands in backquotes is to be typed."""
    parts = (_heads, _cut, _images, _panels, _unsaid, _numerics, _code)
    return list(dict.fromkeys(sentence for part in parts for sentence in part(frame)))


def _heads(frame: pd.DataFrame) -> Iterator[str]:
    """Which supervised tickets others cannot be compared with, and how to get what is missing."""
    scores = frame[(frame["kind"] == "score") & (frame["control"] == "ticket")]
    if (scores["head"] == "own").any():
        yield (
            "Own head: the classification layer of the ticket's W_k is trained on, which label-agnostic tickets lack. "
            "All other series start with a layer drawn anew, and only these are compared between objectives."
        )
    for _, panel in scores.groupby(PANEL):
        labels = panel[panel["objective"] == "supervised"]
        others = panel[(panel["objective"] != "supervised") & (panel["head"] == "new")]
        for source, own in labels.groupby("source"):
            waiting = others[others["source"] == source]
            if (own["head"] == "own").all() and len(waiting):
                runs = sorted(own["run"].unique())
                yield (
                    f"{listed(own['series'])}: scored with the own head only ({text.where(panel)}), so "
                    f"{listed(waiting['series'])} cannot be compared with it. For the missing rows: "
                    f"`sslticket evaluate RUN --protocol {shell(own['protocol'].iloc[0])} --head new` "
                    f"with the folder of {listed(runs)} as RUN."
                )


def _cut(frame: pd.DataFrame) -> Iterator[str]:
    """Which networks are cut, or nearly."""
    found = frame[frame["cut"]]
    least = found.groupby(["model", "series", "level", "exact"])["effective_density"].min().reset_index()
    for (model, series), own in least.groupby(["model", "series"], sort=False):
        told = [
            f"{text.percent(row['effective_density'])}% at level {row['level']} ({text.percent(row['exact'])}%)"
            for row in own.sort_values("exact", ascending=False).to_dict("records")
        ]
        dead = " With 0%, nothing of an image reaches the output." if (own["effective_density"] == 0).any() else ""
        yield (
            f"{series} of {model}: few of the weights left lie on a path from input to output. The effective density "
            f"is only {', '.join(told)}.{dead}"
        )


def _images(frame: pd.DataFrame) -> Iterator[str]:
    """Data sets of one name whose images differ."""
    own = frame[~frame["control"].isin(schema.SHARED_CONTROLS)]
    # A search whose images nobody told is another only where the same search told them elsewhere.
    named = own["tickets"].str.contains("images unknown)", regex=False)
    for (model, source), here in own[(own["images"] != "") | named].groupby(["model", "source"]):
        if here["images"].nunique() > 1:
            yield (
                f"Tickets of {model} from {source} were found on different images, though these have one name, so they "
                f"are neither pooled nor compared with one another: {_by(here, 'images', 'tickets')}."
            )


def _panels(frame: pd.DataFrame) -> Iterator[str]:
    """Numbers of one protocol's name that may not be compared."""
    for (kind, protocol, *_), own in _places(frame):
        if own["apart"].nunique() > 1:
            known = identity.settled(own)
            differ = [words for key, words in _CONDITIONS.items() if known[key].nunique() > 1]
            yield (
                f"{KINDS[kind]} of {text.network(own['model'].iloc[0], own['within'].iloc[0])} under {protocol} are "
                f"split, and not compared across the parts, since they differ in {_and(differ)}: "
                f"{'; '.join(sorted(own['apart'].unique()))}.{_remedy(known)}"
            )


def _remedy(known: pd.DataFrame) -> str:
    """What to do with rows of one series of which only some tell a condition."""
    lacking = [f"`{key}`" for key in known if (known[key] == "").any() and known[key].nunique() > 1]
    if not lacking:
        return ""
    return f" Older rows do not tell {_and(lacking)}; move them away, and `sslticket evaluate` measures them anew."


def _unsaid(frame: pd.DataFrame) -> Iterator[str]:
    """Older rows that are drawn beside newer ones."""
    for (kind, protocol, *_), own in _places(frame):
        known = identity.settled(own)
        lacking = [key for key in _CONDITIONS if (own[key].isna() & (known[key] != "")).any()]
        if lacking:
            old = own[own[lacking].isna().any(axis=1)]
            yield (
                f"Older rows do not tell {_and([_CONDITIONS[key] for key in lacking])} ({KINDS[kind].lower()} of "
                f"{listed(old['series'])} under {protocol}); they are taken to be those of the others."
            )


def _numerics(frame: pd.DataFrame) -> Iterator[str]:
    """Numbers that are drawn together though their trainings did not compute alike."""
    for (kind, protocol, *_), own in _places(frame):
        if own.groupby("apart")["numerics"].nunique().max() > 1:
            yield (
                f"{KINDS[kind]} of {text.network(own['model'].iloc[0], own['within'].iloc[0])} under {protocol} "
                f"differ in how numbers were computed: {_by(own, 'numerics', 'series')}."
            )


def _code(frame: pd.DataFrame) -> Iterator[str]:
    """Series of several commits, versions of a library, or searches that computed otherwise: pooled all the same."""
    told: dict[tuple[str, str], list[str]] = {}
    for (kind, *_, series), own in frame.groupby(["kind", *PANEL, "model", "series"], dropna=False):
        for words in _mixed(own):
            told.setdefault((str(kind), words), []).append(str(series))
    for (kind, words), names in told.items():
        yield f"{KINDS[kind]} of {listed(names)} were made with {words}, and are pooled."


def _mixed(own: pd.DataFrame) -> Iterator[str]:
    commits = sorted(own["commit"].unique())
    if len(commits) > 1:
        yield f"{len(commits)} commits ({listed(commits)})"
    ways = sorted(own["numerics"].unique())
    if len(ways) > 1 and own["kind"].iloc[0] not in identity.TARGETED:  # of those `_numerics` tells
        yield f"numbers computed in {len(ways)} ways ({listed(ways)})"
    versions: dict[str, set[str]] = {}
    for each in {tuple(sorted(each.items())) for each in own["versions"]}:
        for library, version in each:
            versions.setdefault(library, set()).add(version)
    several = [f"{library} {_and(sorted(found))}" for library, found in sorted(versions.items()) if len(found) > 1]
    if several:
        yield ", ".join(several)


def _places(frame: pd.DataFrame) -> Iterable[tuple[Any, pd.DataFrame]]:
    targeted: Iterable[tuple[Any, pd.DataFrame]] = frame[frame["kind"].isin(identity.TARGETED)].groupby(
        ["kind", *identity.PLACE]
    )
    return targeted


def _by(own: pd.DataFrame, key: str, names: str) -> str:
    """Names by what they have in `key`: "8d3f: rotnet; 77aa: supervised"."""
    brief = identity.brief(own[key].unique()) if key == "images" else {each: each for each in own[key].unique()}
    return "; ".join(f"{brief[str(value)]}: {listed(here[names])}" for value, here in own.groupby(key))


def listed(names: Iterable[Any]) -> str:
    """Names, each once, of very many the first; those that hold a comma in quotation marks."""
    found = [
        f"\N{LEFT DOUBLE QUOTATION MARK}{each}\N{RIGHT DOUBLE QUOTATION MARK}" if "," in each else each
        for each in dict.fromkeys(map(str, names))
    ]
    return _and(found if len(found) <= _MANY else [*found[: _MANY - 1], f"{len(found) - _MANY + 1} more"])


def _and(words: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def of(frame: pd.DataFrame) -> list[str]:
    """Those about the frame of `table.rows`."""
    return notes(statistics.named(frame))
