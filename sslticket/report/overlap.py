"""Charts and heat maps of how much the masks of tickets have in common, beside what chance gives."""

from collections.abc import Hashable, Iterator, Sequence
from functools import partial
from typing import Any

import pandas as pd

from sslticket.report import section, text
from sslticket.report.accuracy import DENSITY
from sslticket.report.chart import Axis, Chart, Heat
from sslticket.report.curves import means
from sslticket.report.section import Choice, Pick, Section

MANY = 20
"""Pairs of which each has its heat maps; of more, layer by layer, a page would be megabytes."""

_EXPLAINED = (
    "Jaccard index: weights that both tickets keep, of those that either keeps. Dashed, and in brackets: what "
    "independent random masks with the same density of each layer are expected to have. Shades go from chance to equal "
    "masks. Searches with the same seed share their initialisation."
)
Rows = list[dict[Hashable, Any]]


def build(frame: pd.DataFrame) -> Section | None:
    """The section of all overlap rows in a frame of `statistics.named`; None where there are none."""
    own = _pairs(section.rows(frame, "overlap"), frame)
    picks: dict[str, list[Choice]] = {"Tickets:": [], "All tickets:": [], "Layers:": [], "Levels:": []}
    for number, (_, here) in enumerate(own.groupby("model")):
        same = here[here["level"] == here["other_level"]]
        picks["Tickets:"] += _charts(same, number)
        heats: dict[str, Iterator[Heat]] = {"All tickets:": _matrices(same, number)}
        if here["pair"].nunique() <= MANY:
            heats |= {"Layers:": _layers(same, number), "Levels:": _levels(here, number)}
        for label, drawn in heats.items():
            picks[label] += [Choice(heat.title, heats=(heat,)) for heat in drawn]
    held = tuple(Pick(label, tuple(choices)) for label, choices in picks.items() if choices)
    series = tuple((name, name, "ticket") for name in pd.concat([own["tickets"], own["other"]]).drop_duplicates())
    return Section("overlap", "Overlap of masks", _EXPLAINED, held, series) if held else None


def _pairs(own: pd.DataFrame, frame: pd.DataFrame) -> pd.DataFrame:
    """The rows with `other`, the name of the other ticket, `searches`, how they are related, and `pair`, all of it.

    Of two names the one that comes first is `tickets`, and of two of one name the denser ticket.
    """
    # Folders of several places may share a name, so the other ticket is known by its file, if any row is about it.
    known = frame[["run", "level", "ticket_hash", "tickets", "density"]].drop_duplicates()
    lines = list(known.itertuples(index=False, name=None))
    others: dict[tuple[Any, ...], tuple[Any, Any]] = {}
    for run, level, ticket, *rest in lines[::-1]:
        others[run, level] = others[run, level, ticket] = rest[0], rest[1]
    found: Rows = []
    for row in own.to_dict("records"):
        unknown = row["other_objective"], float(f"{row['other_density']:.4g}")
        at = row["other_run"], row["other_level"]
        row["other"], row["other_density"] = others.get((*at, row["other_hash"]), others.get(at, unknown))
        if (row["other"], -row["other_density"]) < (row["tickets"], -row["density"]):
            row |= _turned(row)
        row["searches"] = _related(row)
        row["pair"] = f"{row['tickets']} \N{MULTIPLICATION SIGN} {row['other']}, {row['searches']}"
        found.append(row)
    return pd.DataFrame(found, columns=[*own.columns, "other", "searches", "pair"]).sort_values("pair", kind="stable")


def _turned(row: dict[Hashable, Any]) -> dict[Hashable, Any]:
    """The names, levels, densities and seeds of the two, exchanged."""
    two = {"tickets": "other", "level": "other_level", "density": "other_density", "search_seed": "other_seed"}
    return {key: row[other] for key, other in two.items()} | {other: row[key] for key, other in two.items()}


def _related(row: dict[Hashable, Any]) -> str:
    if row["run"] == row["other_run"]:
        return "one search"
    return "same seed" if row["search_seed"] == row["other_seed"] else "other seeds"


def _charts(same: pd.DataFrame, number: int) -> Iterator[Choice]:
    """For each ticket the overlap with all others of its level, those that share its seed by themselves.

    A search may be in several pairs: their mean is what it counts with.
    """
    turned = same.assign(tickets=same["other"], other=same["tickets"], search_seed=same["other_seed"])
    both = pd.concat([same, turned])
    both = both.assign(unit="search " + both["search_seed"].astype(int).astype(str))
    for place, (name, own) in enumerate(both.groupby("tickets")):
        model = section.network(own)
        charts = [
            _chart(here, f"overlap-{number}-{place}-{related}", f"{model}, {name}: beside others, {related}")
            for related, here in sorted(own.groupby("searches"), reverse=True, key=lambda each: str(each[0]))
        ]
        yield Choice(f"{model}, {name}", tuple(charts))


def _chart(here: pd.DataFrame, name: str, title: str) -> Chart:
    percents = here.assign(cut=False, **{key: 100 * here[key].astype(float) for key in ("jaccard", "chance")})
    index = partial(means, percents, "density", DENSITY, what="Jaccard index in %", by=("other",), row="pair")
    return Chart(
        name=name,
        title=title,
        x=DENSITY,
        y=Axis("Jaccard index, %"),
        curves=(*index("jaccard"), *index("chance", dash="3 3", called="chance", bare=True)),
        bounds=(0, 100),
    )


def _matrices(same: pd.DataFrame, number: int) -> Iterator[Heat]:
    """All tickets down and across, at each density, the sparsest first; where there are three or more."""
    names = sorted({*same["tickets"], *same["other"]})
    if len(names) < 3:
        return
    for (level, related), own in sorted(same.groupby(["level", "searches"]), key=lambda each: each[0], reverse=True):
        cells = own.groupby(["tickets", "other"])[["jaccard", "chance"]].mean()
        shown = {pair: _cell(*means) for pair, *means in cells.itertuples(name=None)}
        weights = f"{text.percent(own['density'].mean())}%"
        yield Heat(
            name=f"overlap-all-{number}-{level}-{related}",
            title=f"{section.network(own)} with {weights} of its weights, {related}",
            corner="tickets",
            rows=tuple(names),
            columns=tuple(names),
            cells=tuple(tuple(shown.get((min(one, two), max(one, two))) for two in names) for one in names),
        )


def _layers(same: pd.DataFrame, number: int) -> Iterator[Heat]:
    """The overlap of each layer (down) at each density (across), a map for each pair."""
    for place, (pair, own) in enumerate(same.groupby("pair")):
        densities = sorted(own["density"].unique(), reverse=True)
        columns = [own.loc[own["density"] == density, "layers"] for density in densities]
        yield Heat(
            name=f"overlap-layers-{number}-{place}",
            title=f"{section.network(own)}, {pair}",
            corner="layer",
            rows=tuple(own["layers"].iloc[0]),
            columns=tuple(f"{text.percent(density)}%" for density in densities),
            cells=tuple(
                tuple(_layer([row[name] for row in rows]) for rows in columns) for name in own["layers"].iloc[0]
            ),
        )


def _layer(counts: Sequence[Sequence[float]]) -> tuple[str, float] | None:
    """From [both, either, chance] of several pairs; None for a layer that all emptied."""
    held = [(both / either, chance) for both, either, chance in counts if either]
    return _cell(*(sum(values) / len(held) for values in zip(*held, strict=True))) if held else None


def _levels(here: pd.DataFrame, number: int) -> Iterator[Heat]:
    """The overlap of tickets of different densities, a map for each pair that was compared across levels."""
    for place, (pair, own) in enumerate(here.groupby("pair")):
        if (own["level"] == own["other_level"]).all():
            continue
        cells = own.groupby(["density", "other_density"])[["jaccard", "chance"]].mean()
        shown = {at: _cell(*means) for at, *means in cells.itertuples(name=None)}
        rows, columns = (sorted(own[key].unique(), reverse=True) for key in ("density", "other_density"))
        yield Heat(
            name=f"overlap-levels-{number}-{place}",
            title=f"{section.network(own)}, {pair}, across levels",
            corner="density",
            rows=tuple(f"{text.percent(density)}%" for density in rows),
            columns=tuple(f"{text.percent(density)}%" for density in columns),
            cells=tuple(tuple(shown.get((one, other)) for other in columns) for one in rows),
        )


def _cell(jaccard: float, chance: float) -> tuple[str, float]:
    shade = (jaccard - chance) / (1 - chance) if chance < 1 else 1.0
    return f"{100 * jaccard:.0f} ({100 * chance:.0f})", min(1.0, max(0.0, float(shade)))
