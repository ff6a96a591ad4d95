"""Charts and heat maps of how much the masks of tickets have in common, beside what chance gives."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import pandas as pd

from sslticket.report import section, text
from sslticket.report.accuracy import DENSITY
from sslticket.report.chart import Axis, Chart, Heat
from sslticket.report.curves import means
from sslticket.report.section import Choice, Pick, Section

Cell = tuple[str, float] | None

_EXPLAINED = (
    "Jaccard index: weights that both tickets keep, of those that either keeps. Dashed, and in brackets: what "
    "independent random masks with the same density of each layer are expected to have. Shades go from chance to equal "
    "masks. Searches with the same seed share their initialisation."
)


def build(frame: pd.DataFrame) -> Section | None:
    """The section of all overlap rows in a frame of `statistics.named`; None where there are none."""
    own = _pairs(section.rows(frame, "overlap"), frame)
    charts, layers, levels = [], [], []
    for number, (model, here) in enumerate(own.groupby("model")):
        same = here[here["level"] == here["other_level"]]
        if len(same):
            charts.append(Choice(str(model), (_chart(same, number, str(model)),)))
        layers += [Choice(heat.title, heats=(heat,)) for heat in _layers(same, number)]
        levels += [Choice(heat.title, heats=(heat,)) for heat in _levels(here, number)]
    kinds = {"Network:": charts, "Layers:": layers, "Levels:": levels}
    picks = tuple(Pick(label, tuple(choices)) for label, choices in kinds.items() if choices)
    series = tuple((name, name, "ticket") for name in own["pair"].drop_duplicates())
    return Section("overlap", "Overlap of masks", _EXPLAINED, picks, series) if picks else None


def _pairs(own: pd.DataFrame, frame: pd.DataFrame) -> pd.DataFrame:
    """The rows with `pair`, the name of what they compare; the ticket whose name comes first is the row's own."""
    names = dict(frame[["run", "tickets"]].drop_duplicates("run").itertuples(index=False, name=None))
    found = []
    for row in own.to_dict("records"):
        one, other = row["tickets"], names.get(row["other_run"], row["other_objective"])
        turned: dict[str, Any] = {}
        if (other, -row["other_density"]) < (one, -row["density"]):
            for key in ("level", "density"):
                turned[key], turned[f"other_{key}"] = row[f"other_{key}"], row[key]
            one, other = other, one
        found.append({**row, **turned, "pair": f"{one} \N{MULTIPLICATION SIGN} {other}, {_kinship(row)}"})
    return pd.DataFrame(found, columns=[*own.columns, "pair"]).sort_values("pair", kind="stable")


def _kinship(row: dict[Any, Any]) -> str:
    if row["run"] == row["other_run"]:
        return "of one search"
    return "same seed" if row["search_seed"] == row["other_seed"] else "other seeds"


def _chart(same: pd.DataFrame, number: int, model: str) -> Chart:
    # Searches that come to densities of their own have one for both tickets only on average.
    same = same.assign(middle=[float(f"{each:.4g}") for each in (same["density"] + same["other_density"]) / 2])
    percents = same.assign(**{key: 100 * same[key].astype(float) for key in ("jaccard", "chance")})
    index = partial(means, percents, "middle", DENSITY, what="Jaccard index in %", by=("pair",))
    return Chart(
        name=f"overlap-{number}",
        title=f"{model}: overlap of masks of the same level",
        x=DENSITY,
        y=Axis("Jaccard index, %"),
        curves=(*index("jaccard"), *index("chance", dash="3 3", called="chance", bare=True)),
        bounds=(0, 100),
    )


def _layers(same: pd.DataFrame, number: int) -> Iterator[Heat]:
    """The overlap of each layer (down) at each density (across), a map for each pair."""
    for place, (pair, own) in enumerate(same.groupby("pair")):
        densities = sorted(own["density"].unique(), reverse=True)
        names = list(own["layers"].iloc[0])
        columns = [own.loc[own["density"] == density, "layers"] for density in densities]
        yield Heat(
            name=f"overlap-layers-{number}-{place}",
            title=f"{own['model'].iloc[0]}, {pair}",
            corner="layer",
            rows=tuple(names),
            columns=tuple(f"{text.percent(density)}%" for density in densities),
            cells=tuple(tuple(_layer([row[name] for row in rows]) for rows in columns) for name in names),
        )


def _layer(counts: Sequence[Sequence[float]]) -> Cell:
    """From [both, either, chance] of several pairs; None for a layer that all emptied."""
    held = [(both / either, chance) for both, either, chance in counts if either]
    return _cell(*(sum(values) / len(held) for values in zip(*held, strict=True))) if held else None


def _levels(here: pd.DataFrame, number: int) -> Iterator[Heat]:
    """The overlap of tickets of different densities, a map for each pair that was compared across levels."""
    for place, (pair, own) in enumerate(here.groupby("pair")):
        if (own["level"] == own["other_level"]).all():
            continue
        means = own.groupby(["density", "other_density"])[["jaccard", "chance"]].mean()
        rows, columns = (sorted(own[key].unique(), reverse=True) for key in ("density", "other_density"))
        yield Heat(
            name=f"overlap-levels-{number}-{place}",
            title=f"{own['model'].iloc[0]}, {pair}, across levels",
            corner="density",
            rows=tuple(f"{text.percent(density)}%" for density in rows),
            columns=tuple(f"{text.percent(density)}%" for density in columns),
            cells=tuple(
                tuple(_cell(*means.loc[(one, other)]) if (one, other) in means.index else None for other in columns)
                for one in rows
            ),
        )


def _cell(jaccard: float, chance: float) -> tuple[str, float]:
    shade = (jaccard - chance) / (1 - chance) if chance < 1 else 1.0
    return f"{100 * jaccard:.0f} ({100 * chance:.0f})", min(1.0, max(0.0, float(shade)))
