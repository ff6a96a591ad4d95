"""Sections of the analyses that only read masks: how much tickets have in common, and what is left of each layer."""

import math
from collections.abc import Hashable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from sslticket.report import sections, stats, text
from sslticket.report.chart import Axis, Chart, HeatMap
from sslticket.report.sections import DENSITY_AXIS, FigureGroup, Picker, Section, mean_curves
from sslticket.results.rows import compare_seeds

MAX_PAIR_MAPS = 20
"""Pairs of which each has its heat maps; of more, layer by layer, a page would be megabytes."""

_OVERLAP_TEXT = (
    "Jaccard index: weights that both tickets keep, of those that either keeps. Dashed, and in brackets: what "
    "independent random masks with the same density of each layer are expected to have. Shades go from chance to equal "
    "masks. Searches with the same seed share their initialisation."
)
_RowList = list[dict[Hashable, Any]]


def overlap_section(frame: pd.DataFrame) -> Section | None:
    """The section of all overlap rows in a frame of `stats.name_series`; None where there are none."""
    own = _name_pairs(sections.rows_of_kind(frame, "overlap"), frame)
    picks: dict[str, list[FigureGroup]] = {"Tickets:": [], "All tickets:": [], "Layers:": [], "Levels:": []}
    for number, (_, here) in enumerate(own.groupby("model")):
        same = here[here["level"] == here["other_level"]]
        picks["Tickets:"] += _overlap_groups(same, number)
        heats: dict[str, Iterator[HeatMap]] = {"All tickets:": _all_ticket_maps(same, number)}
        if here["pair"].nunique() <= MAX_PAIR_MAPS:
            heats |= {"Layers:": _layer_overlap_maps(same, number), "Levels:": _level_overlap_maps(here, number)}
        for label, maps in heats.items():
            picks[label] += [FigureGroup(heat.title, heat_maps=(heat,)) for heat in maps]
    known = tuple(Picker(label, tuple(choices)) for label, choices in picks.items() if choices)
    series = tuple((name, name, "ticket") for name in pd.concat([own["tickets"], own["other"]]).drop_duplicates())
    return Section("overlap", "Overlap of masks", _OVERLAP_TEXT, known, series) if known else None


def _name_pairs(own: pd.DataFrame, frame: pd.DataFrame) -> pd.DataFrame:
    """The rows with `other`, the name of the other ticket, `searches`, how they are related, and `pair`, all of it.

    Of two names the one that comes first is `tickets`, and of two of one name the denser ticket.
    """
    # Folders of several places may share a name, so the other ticket is known by its file, if any row is about it.
    known = frame[["run", "level", "ticket_hash", "tickets", "density"]].drop_duplicates()
    lines = list(known.itertuples(index=False, name=None))
    others: dict[tuple[Any, ...], tuple[Any, Any]] = {}
    for run, level, ticket, *rest in lines[::-1]:
        others[run, level] = others[run, level, ticket] = rest[0], rest[1]
    found: _RowList = []
    for row in own.to_dict("records"):
        unknown = row["other_objective"], float(f"{row['other_density']:.4g}")
        at = row["other_run"], row["other_level"]
        row["other"], row["other_density"] = others.get((*at, row["other_hash"]), others.get(at, unknown))
        if (row["other"], -row["other_density"]) < (row["tickets"], -row["density"]):
            two = {"tickets": "other", "level": "other_level", "density": "other_density", "search_seed": "other_seed"}
            row |= {key: row[other] for key, other in two.items()} | {other: row[key] for key, other in two.items()}
        related = compare_seeds(row["search_seed"], row["other_seed"])
        row["searches"] = "one search" if row["run"] == row["other_run"] else related
        row["pair"] = f"{row['tickets']} \N{MULTIPLICATION SIGN} {row['other']}, {row['searches']}"
        found.append(row)
    return pd.DataFrame(found, columns=[*own.columns, "other", "searches", "pair"]).sort_values("pair", kind="stable")


def _overlap_groups(same: pd.DataFrame, number: int) -> Iterator[FigureGroup]:
    """For each ticket the overlap with all others of its level, those that share its seed by themselves.

    A search may be in several pairs: their mean is what it counts with.
    """
    of_other = {"run": same["other_run"], "search_seed": same["other_seed"]}
    turned = same.assign(tickets=same["other"], other=same["tickets"], **of_other)
    both = pd.concat([same.assign(search_seed=same["search_seed"].astype(object)), turned])
    both = both.assign(unit=stats.search_units(both["search_seed"], both["run"]))
    for index, (name, own) in enumerate(both.groupby("tickets")):
        model = sections.network_of_rows(own)
        charts = [
            _overlap_chart(here, f"overlap-{number}-{index}-{related}", f"{model}, {name}: beside others, {related}")
            for related, here in sorted(own.groupby("searches"), reverse=True, key=lambda each: str(each[0]))
        ]
        yield FigureGroup(f"{model}, {name}", tuple(charts))


def _overlap_chart(here: pd.DataFrame, name: str, title: str) -> Chart:
    percents = here.assign(cut=False, **{key: 100 * here[key].astype(float) for key in ("jaccard", "chance")})
    index = partial(
        mean_curves, percents, "density", DENSITY_AXIS, what="Jaccard index in %", by=("other",), row="pair"
    )
    return Chart(
        name=name,
        title=title,
        x=DENSITY_AXIS,
        y=Axis("Jaccard index, %"),
        curves=(*index("jaccard"), *index("chance", dash="3 3", label="chance", no_markers=True)),
        y_bounds=(0, 100),
    )


def _all_ticket_maps(same: pd.DataFrame, number: int) -> Iterator[HeatMap]:
    """All tickets down and across, at each density, the sparsest first; where there are three or more."""
    names = sorted({*same["tickets"], *same["other"]})
    if len(names) < 3:
        return
    for (level, related), own in sorted(same.groupby(["level", "searches"]), key=lambda each: each[0], reverse=True):
        cells = own.groupby(["tickets", "other"])[["jaccard", "chance"]].mean()
        shown = {pair: _overlap_cell(*means) for pair, *means in cells.itertuples(name=None)}
        weights = f"{text.format_percent(own['density'].mean())}%"
        yield HeatMap(
            name=f"overlap-all-{number}-{level}-{related}",
            title=f"{sections.network_of_rows(own)} with {weights} of its weights, {related}",
            corner="tickets",
            rows=tuple(names),
            columns=tuple(names),
            cells=tuple(tuple(shown.get((min(one, two), max(one, two))) for two in names) for one in names),
        )


def _layer_overlap_maps(same: pd.DataFrame, number: int) -> Iterator[HeatMap]:
    """The overlap of each layer (down) at each density (across), a map for each pair."""
    for index, (pair, own) in enumerate(same.groupby("pair")):
        densities = sorted(own["density"].unique(), reverse=True)
        columns = [own.loc[own["density"] == density, "layers"] for density in densities]
        yield HeatMap(
            name=f"overlap-layers-{number}-{index}",
            title=f"{sections.network_of_rows(own)}, {pair}",
            corner="layer",
            rows=tuple(own["layers"].iloc[0]),
            columns=tuple(f"{text.format_percent(density)}%" for density in densities),
            cells=tuple(
                tuple(_layer_overlap_cell([row[name] for row in rows]) for rows in columns)
                for name in own["layers"].iloc[0]
            ),
        )


def _layer_overlap_cell(counts: Sequence[Sequence[float]]) -> tuple[str, float] | None:
    """From [both, either, chance] of several pairs; None for a layer that all emptied."""
    known = [(both / either, chance) for both, either, chance in counts if either]
    return _overlap_cell(*(sum(values) / len(known) for values in zip(*known, strict=True))) if known else None


def _level_overlap_maps(here: pd.DataFrame, number: int) -> Iterator[HeatMap]:
    """The overlap of tickets of different densities, a map for each pair that was compared across levels."""
    for index, (pair, own) in enumerate(here.groupby("pair")):
        if (own["level"] == own["other_level"]).all():
            continue
        cells = own.groupby(["density", "other_density"])[["jaccard", "chance"]].mean()
        shown = {at: _overlap_cell(*means) for at, *means in cells.itertuples(name=None)}
        rows, columns = (sorted(own[key].unique(), reverse=True) for key in ("density", "other_density"))
        yield HeatMap(
            name=f"overlap-levels-{number}-{index}",
            title=f"{sections.network_of_rows(own)}, {pair}, across levels",
            corner="density",
            rows=tuple(f"{text.format_percent(density)}%" for density in rows),
            columns=tuple(f"{text.format_percent(density)}%" for density in columns),
            cells=tuple(tuple(shown.get((one, other)) for other in columns) for one in rows),
        )


def _overlap_cell(jaccard: float, chance: float) -> tuple[str, float]:
    shade = (jaccard - chance) / (1 - chance) if chance < 1 else 1.0
    return f"{100 * jaccard:.0f} ({100 * chance:.0f})", min(1.0, max(0.0, float(shade)))


_DEAD_CHANNELS_TEXT = (
    "Output channels that lost every weight, in % of the layer's, the input at the top, from the densest ticket to the "
    "sparsest. Orange: a layer all of whose channels are dead."
)


def layer_density_maps(rows: pd.DataFrame) -> Iterator[HeatMap]:
    """The density of each layer (down, in the network's order) in each ticket (across), a map for each recipe.

    Numbers are means over the recipe's searches, in %. Shades are logarithmic. A layer that lost every weight in each
    of them has the shade NaN: the network is cut there.

    Args:
        rows: Rows of levels, or of channels, each ticket once.
    """
    for number, own in enumerate(_split_recipes(rows)):
        left = _layer_fractions(own, "layers")
        least = math.log(min(0.1, left[left > 0].min()))
        shades = np.where(left > 0, 1 - np.log(left, where=left > 0, out=np.zeros_like(left)) / least, math.nan)
        yield _layer_map(own, "layers", f"layers-{number}", left, shades)


def dead_channels_section(frame: pd.DataFrame) -> Section | None:
    """The section of dead channels, of all such rows in a frame of `stats.name_series`; None where there are none."""
    choices = []
    for number, own in enumerate(_split_recipes(sections.rows_of_kind(frame, "channels"))):
        dead = _layer_fractions(own, "dead")
        heat = _layer_map(own, "dead", f"dead-{number}", dead, np.where(dead < 1, dead, math.nan))
        choices.append(FigureGroup(heat.title, heat_maps=(heat,)))
    return (
        Section("dead", "Dead channels", _DEAD_CHANNELS_TEXT, (Picker("Tickets:", tuple(choices)),))
        if choices
        else None
    )


def _split_recipes(rows: pd.DataFrame) -> Iterator[pd.DataFrame]:
    for _, own in rows.groupby(["model", "tickets"]):
        yield own


def _layer_fractions(own: pd.DataFrame, key: str) -> npt.NDArray[np.float64]:
    """(layers, densities): of `key`, names to [some, all], means over the searches at a density, densest first."""
    names = list(own[key].iloc[0])
    shares = pd.DataFrame([[row[name][0] / row[name][1] for name in names] for row in own[key]], own.index)
    searches = shares.groupby([own["density"], own["unit"]]).mean()
    return searches.groupby(level="density").mean().loc[_sorted_densities(own)].to_numpy(np.float64).T


def _sorted_densities(own: pd.DataFrame) -> list[float]:
    return sorted(own["density"].unique(), reverse=True)


def _layer_map(
    own: pd.DataFrame, key: str, name: str, values: npt.NDArray[np.float64], shades: npt.NDArray[np.float64]
) -> HeatMap:
    searches = own["unit"].nunique()
    of = f": mean of {searches} searches" if searches > 1 else ""
    return HeatMap(
        name=name,
        title=f"{sections.network_of_rows(own)}, {own['tickets'].iloc[0]}{of}",
        corner="layer",
        rows=tuple(own[key].iloc[0]),
        columns=tuple(f"{text.format_percent(density)}%" for density in _sorted_densities(own)),
        cells=tuple(
            tuple((text.format_percent(value), float(shade)) for value, shade in zip(*line, strict=True))
            for line in zip(values, shades, strict=True)
        ),
    )
