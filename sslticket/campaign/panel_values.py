"""The numbers of a panel: rows chosen by its filters, those that may be pooled brought together, the others named."""

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import sha256
from typing import Any

import numpy as np
import pandas as pd

from sslticket.campaign.panels import Between, Filter, Near, Panel
from sslticket.config.training import Span
from sslticket.report import naming, sections, stats
from sslticket.report.sections.training_analyses import LOG_PRECISION
from sslticket.report.stats import PANEL_KEYS, TICKET_KEYS
from sslticket.results.rows import shared_controls

_FRACTIONS = {
    *("top1", "top5", "dense_top1", "gain_on_dense", "natural_zeros", "natural_density", "layer_density", "sparsity"),
    *("rewind_percent", "jaccard", "chance", "share", "subset", "barrier"),
}


def is_fraction(column: str) -> bool:
    """Whether a column is of fractions, which are drawn in per cent."""
    return column.rpartition(".")[2] in _FRACTIONS


_COSTS = ["search_samples", "search_forward_images", "search_epochs"]

_KINDS = {
    "score": ("top1", "top5", "loss", "gain_on_dense", "curve"),
    "stability": ("order_distance", "order_angle", "pruning_distance", "pruning_angle", "dense_top1"),
    "magnitudes": ("natural_density", "natural_zeros", "share"),
    "connectivity": ("barrier", "barrier_recalibrated", "loss_barrier", "loss_barrier_recalibrated"),
    "overlap": ("jaccard",),
    "level": (
        *("layer_density", "layer_pruned_ratio", "parameters", "rewind_samples", "rewind_iterations", "rewind_epochs"),
        *("rewind_percent", *_COSTS, "sparsity", "metrics", "probe", "density"),
    ),
}
"""Kinds of rows, and the columns that panels take from them unless they name a kind."""

_POOLED = [*PANEL_KEYS, "series", *TICKET_KEYS, "control", "head", "numerics"]
"""In what rows must be alike to be averaged, as in reports: `series` has the recipe and what else tells it apart."""
_POOLED_FRONT = [*PANEL_KEYS, "source", "images", "head", "numerics"]
"""The same of a front, whose tickets are of several recipes."""

_ALIKE = (*PANEL_KEYS, "variant", "images", "source", "head", "numerics")
"""In what the series of a panel should be alike; of rows that could be taken, those are which agree with the first."""

VALUE_COLUMNS = ["series", "column", "x", "unit", "y", "trainings", "ticket", "recipe"]


@dataclass(frozen=True)
class PanelValues:
    """The numbers of a panel.

    Attributes:
        panel: The panel.
        values: A line for each series, `column` (of a table, else ""), `x` and `unit` (an independent search or draw),
            with `y`, the mean over its `trainings`; `ticket` tells which tickets these were of, `recipe` by which
            recipe they were found.
        dense: Lines of the dense networks of the same series.
        rows: The rows that agree with the filters of the series, drawn or not, and those of the dense networks.
        left_out: What is missing or was left out, a sentence each.
        densities: Those of the rows that are drawn, densest first.
    """

    panel: Panel
    values: pd.DataFrame
    dense: pd.DataFrame
    rows: pd.DataFrame
    left_out: list[str] = field(default_factory=list)
    densities: tuple[float, ...] = ()

    def series(self, label: str, column: str = "") -> pd.DataFrame:
        """The lines of a series, of one column of a table."""
        own = self.values[self.values["series"] == label]
        return own[own["column"] == column] if column else own


class NamedRows:
    """Rows as panels take them, and what is computed of all of them once.

    Args:
        frame: Frame of `stats.name_series`.
    """

    def __init__(self, frame: pd.DataFrame) -> None:
        self.frame = frame
        self._unique: dict[str, pd.DataFrame] = {}

    def unique(self, kind: str) -> pd.DataFrame:
        """Each measurement of a kind once, though two runs list it or a run folder was copied."""
        if kind not in self._unique:
            found = stats.unique_trainings(self.frame) if kind == "score" else sections.rows_of_kind(self.frame, kind)
            if kind == "level":
                found = found.drop_duplicates(["run", "level", "ticket_hash"])
            self._unique[kind] = found
        return self._unique[kind]

    @cached_property
    def epoch_samples(self) -> dict[str, float]:
        """Images in a pass over the data of each run, as its level rows tell."""
        levels = self.frame[self.frame["kind"] == "level"]
        levels = levels[levels["search_epochs"].astype(float).fillna(0) > 0]
        per_epoch = levels["search_samples"].astype(float) / levels["search_epochs"].astype(float)
        return dict(per_epoch.groupby(levels["run"]).median())

    @cached_property
    def costs(self) -> pd.DataFrame:
        """What the search of each ticket cost, by run and level, as its level rows tell."""
        levels = self.frame[self.frame["kind"] == "level"].drop_duplicates(["run", "level"])
        return levels.set_index(["run", "level"])[_COSTS]

    def epochs(self, row: Any) -> float:
        """Length of a training of a row's search, in passes over its images; NaN where that is not known."""
        settings = self.frame.at[row, "settings"]
        length = settings.get("length") if isinstance(settings, dict) else None
        if not isinstance(length, str):
            return math.nan
        span = Span.parse(length)
        if span.unit == "ep":
            return float(span.amount)
        samples = span.amount * (settings.get("batch_size", math.nan) if span.unit == "it" else 1)
        return float(samples / self.epoch_samples.get(self.frame.at[row, "run"], math.nan))


def name_rows(frame: pd.DataFrame, x: str = "density") -> NamedRows:
    """The frame of `read_rows` as `stats.name_series` names it, where `x` is no setting that tells recipes apart.

    Searches that differ in nothing but what a panel has on its x are points of one series.
    """
    setting = "rewind" if x.startswith("rewind") else x
    varied = frame["settings"].map(lambda own: isinstance(own, dict) and setting in own)
    if x == "density" or not varied.any():
        return NamedRows(stats.name_series(frame))
    settings = [
        {name: value for name, value in own.items() if name != setting} if isinstance(own, dict) else own
        for own in frame["settings"]
    ]
    recipes = [
        sha256(json.dumps([own, model], sort_keys=True).encode()).hexdigest()[:8] if isinstance(own, dict) else recipe
        for own, model, recipe in zip(settings, frame["model"], frame["recipe"], strict=True)
    ]
    values = [own.get(setting) if isinstance(own, dict) else None for own in frame["settings"]]
    anew = frame.assign(settings=pd.Series(settings, frame.index, object), recipe=recipes)
    if x == "subset":
        anew = anew.assign(subset=1.0)
    named = stats.name_series(anew).assign(**{f"own_{setting}": pd.Series(values, frame.index, object)})
    # Levels of searches with other rewind points are of the same density to the last weight, or not to be pooled.
    return NamedRows(named.assign(density=named["exact"]))


def panel_values(panel: Panel, named: NamedRows) -> PanelValues:
    """The numbers of a panel, from a frame of `name_rows`."""
    columns = panel.columns or {"": "share" if panel.kind == "histogram" else panel.y}
    parts: list[PanelValues] = []
    first: dict[str, pd.Series[Any]] = {}
    for label in panel.series:
        for title, column in columns.items():
            parts.append(_series_values(panel, label, named, title, column, first.get(title)))
            if len(parts[-1].values) and title not in first:
                first[title] = parts[-1].rows.iloc[0]
    used = pd.concat([part.rows for part in parts]) if parts else named.frame[:0]
    missing: dict[str, list[str]] = {}
    for part, (label, title) in zip(parts, ((one, two) for one in panel.series for two in columns), strict=True):
        if part.values.empty:
            missing.setdefault(label, []).append(title)
    told = []
    for label, titles in missing.items():
        whole = len(titles) == len(columns)
        told.append(f"no rows of {label}" + ("" if whole else f" for {', '.join(titles)}"))
    told += [sentence for part in parts for sentence in part.left_out]
    return PanelValues(
        panel,
        pd.concat([part.values for part in parts], ignore_index=True),
        pd.concat([part.dense for part in parts], ignore_index=True),
        used.loc[~used.index.duplicated()],
        list(dict.fromkeys(told)),
        _falling(each for part in parts for each in part.densities),
    )


def _falling(densities: Iterable[float]) -> tuple[float, ...]:
    return tuple(sorted({float(f"{each:.3g}") for each in densities}, reverse=True))


def _series_values(
    panel: Panel, label: str, named: NamedRows, title: str, column: str, like: "pd.Series[Any] | None"
) -> PanelValues:
    """The numbers of one series in one column; of several that could be meant those that are like a row."""
    kind = panel.rows or next((kind for kind, own in _KINDS.items() if column.partition(".")[0] in own), "score")
    rows = named.unique(kind)
    filters = {"control": "ticket", **panel.where, **panel.series[label]}
    nearest = {name: wanted for name, wanted in filters.items() if isinstance(wanted, Near)}
    rows = filter_rows(rows, {name: wanted for name, wanted in filters.items() if name not in nearest})
    front = label in panel.fronts
    dense_rows = named.unique(kind)
    at_density = {"density", "level", "sparsity"}
    dense_rows = filter_rows(dense_rows, {name: want for name, want in filters.items() if name not in at_density})
    dense_rows = dense_rows[dense_rows["density"] == 1]
    same = _POOLED_FRONT if front else _POOLED
    matched = pd.concat([rows, dense_rows])
    rows, left_out = _poolable_rows(rows, label, same, like)
    matched = pd.concat([rows, matched.drop(rows.index)])  # those that are drawn come first
    for name, wanted in nearest.items():
        rows = _nearest_rows(rows, name, wanted)
    if len(rows):
        key = rows[same].iloc[0]
        dense_rows = dense_rows[[all(_same(a, b) for a, b in zip(own, key, strict=True))
                                 for own in dense_rows[same].itertuples(index=False)]]  # fmt: skip
    if kind == "stability" and column == "top1":  # each row has the dense network of its search, trained alike
        dense_rows = rows.assign(top1=rows["dense_top1"], density=1.0)
    long = _measurements(rows, panel, column, named)
    values = _by_unit(long, label, title)
    dense = _by_unit(_measurements(dense_rows, replace(panel, x="density"), column, named), label, title)
    return PanelValues(panel, values, dense, matched, left_out, _falling(rows["density"]))


def _same(one: Any, other: Any) -> bool:
    return bool(one == other) or (pd.isna(one) and pd.isna(other))


def filter_rows(rows: pd.DataFrame, where: Filter) -> pd.DataFrame:
    """The rows that agree with a filter, see `panels.Filter`; `Near` is none that a row alone can agree with."""
    shared = rows["control"].isin(shared_controls())
    for name, wanted in where.items():
        values = _column(rows, name)
        # A control that all runs share owes nothing to the search beside which it stands.
        free = shared.loc[rows.index] if name in TICKET_KEYS or name not in rows else shared.loc[rows.index] & False
        if isinstance(wanted, Between):
            numbers = pd.to_numeric(values, errors="coerce")
            rows = rows[free | ((numbers >= wanted.low) & (numbers <= wanted.high))]
        else:
            allowed = wanted if isinstance(wanted, (tuple, list, set, frozenset)) else (wanted,)
            words = {_word(each) for each in allowed}
            if name == "control" and "ticket" in words:
                words.add("")  # rows of a search are of its tickets
            rows = rows[free | np.array([_word(value) in words for value in values], bool)]
    return rows


def _word(value: Any) -> str:
    """A value as what it is compared by: 1, 1.0 and "1" are the same, and so are "" and one that is missing."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
        return str(value)
    return f"{float(value):.10g}"


def _column(rows: pd.DataFrame, name: str) -> "pd.Series[Any]":
    """A column of the rows, an entry of one that holds several ("metrics.top1"), or a setting of their recipes."""
    setting = name.rpartition(".")[2].replace("-", "_")
    if f"own_{setting}" in rows:  # what a panel has on its x, of which the column no longer tells
        return rows[f"own_{setting}"]
    if name in rows:
        return rows[name]
    holder, _, entry = name.partition(".")
    if holder in rows and holder != "settings":
        found = [own.get(entry) if isinstance(own, dict) else None for own in rows[holder]]
        return pd.Series(found, rows.index, object)
    found = [own.get(setting) if isinstance(own, dict) else None for own in rows["settings"]]
    return pd.Series(found, rows.index, object)


def _nearest_rows(rows: pd.DataFrame, name: str, wanted: Near) -> pd.DataFrame:
    numbers = pd.to_numeric(_column(rows, name), errors="coerce")
    near = [value for value in numbers.dropna().unique() if value > 0 and wanted.reaches(float(value))]
    if not near:
        return rows[:0]
    best = min(near, key=lambda value: abs(math.log(value / wanted.value)))
    nearest: pd.DataFrame = rows[numbers == best]
    return nearest


def _poolable_rows(
    rows: pd.DataFrame, label: str, keys: Sequence[str], like: "pd.Series[Any] | None"
) -> tuple[pd.DataFrame, list[str]]:
    """Of rows that differ in data or settings those which are most like the panel's first, and words for the others."""
    groups = [own for _, own in rows.groupby(list(keys), dropna=False, sort=True)]
    if len(groups) < 2:
        return rows, []

    def rank(own: pd.DataFrame) -> tuple[int, int, int]:
        first = own.iloc[0]
        alike = 0 if like is None else sum(_same(first[name], like[name]) for name in _ALIKE)
        return -alike, -own["unit"].nunique(), -len(own)

    groups.sort(key=rank)
    kept, others = groups[0], groups[1:]
    told = []
    for own in others:
        differ = [name for name in (*_ALIKE, "series") if not _same(own.iloc[0][name], kept.iloc[0][name])]
        differ = [name for name in differ if name != "series" or len(differ) == 1]  # it names what the others tell
        words = "; ".join(f"{name} {own.iloc[0][name]!s}, not {kept.iloc[0][name]!s}" for name in differ[:3])
        told.append(f"{len(own)} rows of {label}, never averaged with the others: {words}")
    return kept, told


def _measurements(rows: pd.DataFrame, panel: Panel, column: str, named: NamedRows) -> pd.DataFrame:
    """A line for each measurement, with `x` and `y`."""
    if rows.empty:
        return rows.assign(x=pd.Series(dtype=float), y=pd.Series(dtype=float))
    if panel.kind == "histogram":
        return _sorted_magnitudes(rows)
    if panel.x == "epoch" and column == "top1":
        return _curve_points(rows)
    if panel.x == "layer" or column.startswith("layer_"):
        return _layer_points(rows, column)
    x = rows["density"] if panel.kind == "table" else position(rows, panel.x, named)
    return rows.assign(x=x.astype(float), y=_derived(rows, column, named).astype(float)).dropna(subset=["x", "y"])


def _by_unit(long: pd.DataFrame, label: str, title: str) -> pd.DataFrame:
    """Means of each search, or draw of a control, over its evaluation seeds."""
    if long.empty:
        return pd.DataFrame(columns=VALUE_COLUMNS).astype({"x": float, "y": float})
    # Rows of a search, which have no control, are of its tickets.
    control = long["control"].map(lambda own: "ticket" if pd.isna(own) else str(own))
    ticket = long["run"].astype(str) + " " + long["level"].astype(str) + " " + control
    grouped = long.assign(ticket=ticket).groupby(["series", "x", "unit"], sort=True)
    found = grouped.agg(
        y=("y", "mean"), trainings=("y", "size"), ticket=("ticket", lambda own: tuple(sorted(set(own))))
    )
    found = found.reset_index().rename(columns={"series": "recipe"}).assign(series=label, column=title)
    return found[VALUE_COLUMNS]


def position(rows: pd.DataFrame, x: str, named: NamedRows) -> "pd.Series[Any]":
    """The place of each row on an x; missing where a row does not tell."""
    if x == "rewind_iterations":
        return rows["rewind_samples"].astype(float) / pd.to_numeric(_column(rows, "batch_size"))
    if x in ("rewind_epochs", "rewind_percent"):
        epochs = rows["rewind_samples"].astype(float) / rows["run"].map(named.epoch_samples)
        return epochs if x == "rewind_epochs" else epochs / [named.epochs(row) for row in rows.index]
    if x in _COSTS:
        told = pd.to_numeric(rows[x], errors="coerce")
        known = named.costs[x].reindex(pd.MultiIndex.from_frame(rows[["run", "level"]])).to_numpy(float)
        # Of searches that stop by themselves no two cost the same: their tickets of a density are one point.
        costs = told.fillna(pd.Series(known, rows.index))
        return costs.groupby([rows["recipe"], rows["density"]], dropna=False).transform("mean")
    if x == "sparsity":
        return 1 - rows["density"]
    return pd.to_numeric(_column(rows, x), errors="coerce")


def _derived(rows: pd.DataFrame, column: str, named: NamedRows) -> "pd.Series[Any]":
    """The values of a column, be it one of the rows or derived from them."""
    if column == "natural_zeros":
        return 1 - rows["natural_density"].astype(float)
    if column == "parameters":
        totals = [sum(entry[1] for entry in own.values()) if isinstance(own, dict) else None for own in rows["layers"]]
        return pd.Series(totals, rows.index, float)
    if column == "gain_on_dense":
        keys = ["run", *naming.MEASURED_ON, "condition", "head", "seed"]
        dense = named.unique("score")
        dense = dense[(dense["density"] == 1) & (dense["control"] == "ticket")].drop_duplicates(keys)
        known = dense.set_index(keys)["top1"]
        found = [known.get(own, math.nan) for own in rows[keys].itertuples(index=False, name=None)]
        return rows["top1"].astype(float) - _column(rows, "dense_top1").astype(float).fillna(
            pd.Series(found, rows.index)
        )
    if column.startswith("rewind_") or column == "sparsity":
        return position(rows, column, named)
    return pd.to_numeric(_column(rows, column), errors="coerce")


def _curve_points(rows: pd.DataFrame) -> pd.DataFrame:
    """A line for each moment at which a protocol's training was measured; intervals that differ are not mixed."""
    told = rows[rows["curve"].notna()] if "curve" in rows else rows[:0]
    if told.empty:
        return told.assign(x=pd.Series(dtype=float), y=pd.Series(dtype=float))
    every = told["curve_every"].mode().iloc[0]
    points: pd.DataFrame = told[told["curve_every"] == every].explode("curve")
    return points.assign(x=[float(each[1]) for each in points["curve"]], y=[float(each[2]) for each in points["curve"]])


def _layer_points(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    """A line for each layer, numbered from the input."""
    lines = []
    for row in rows.to_dict("records"):
        overall = 1 - row["density"]
        for number, (kept, total) in enumerate(row["layers"].values(), start=1):
            density = kept / total
            ratio = (1 - density) / overall if overall else math.nan
            lines.append(row | {"x": float(number), "y": density if column == "layer_density" else ratio})
    return pd.DataFrame(lines).dropna(subset=["y"])


def _sorted_magnitudes(rows: pd.DataFrame) -> pd.DataFrame:
    """For each edge of the bins of log10 |w| from machine precision on: the share of the weights that are smaller.

    Bins reach as far as a row has weights: below them it has those of 0 only, above them none.
    """
    edges = sorted({round(float(edge), 4) for own in rows["bins"] for edge in own if edge > LOG_PRECISION})
    lines = []
    for row in rows.to_dict("records"):
        total = sum(whole for _, whole in row["layers"].values())
        ends = np.array([-math.inf, *(round(float(edge), 4) for edge in row["bins"][1:])])
        below = np.cumsum([row["zeros"], *row["counts"]]) / total
        lines.append(row | {"x": LOG_PRECISION, "y": 1 - row["natural_density"]})
        lines += [row | {"x": edge, "y": below[ends <= edge][-1]} for edge in edges]
    return pd.DataFrame(lines)


def series_means(values: pd.DataFrame) -> pd.DataFrame:
    """Means of each series at each x over its searches, with `low` and `high`, Student's 95% interval, and `n`."""
    grouped = values.groupby(["series", "column", "recipe", "x"], sort=False)
    means = grouped.agg(y=("y", "mean"), sd=("y", "std"), n=("y", "size"), trainings=("trainings", "sum")).reset_index()
    low, high = stats.student_interval(*(means[name].to_numpy() for name in ("y", "sd", "n")))
    return means.assign(low=low, high=high)


def density_of(x: str, value: float) -> float:
    """What a place on an x is as a density, of which less is better."""
    return 1 - value if x == "sparsity" else value


def non_dominated(means: pd.DataFrame, x: str = "density") -> pd.DataFrame:
    """Those lines than which none is both as sparse and better, or sparser and as good; from sparse to dense."""
    density = means["x"].map(lambda value: density_of(x, value))
    ordered = means.assign(density=density).sort_values(["density", "y"], ascending=[True, False])
    best = ordered["y"].cummax().shift(fill_value=-math.inf)
    front: pd.DataFrame = ordered[ordered["y"] > best]
    return front


def unused_rows(named: NamedRows, used: Sequence[pd.DataFrame]) -> Iterator[str]:
    """How many rows are of no series of any panel, by kind and protocol; and those that diverged."""
    drawn = set().union(*(own.index for own in used)) if used else set()
    # A control that several runs share is counted once, as it is drawn.
    rows = named.frame
    repeated = rows[rows["kind"] == "score"].index.difference(named.unique("score").index)
    rest = rows[~rows.index.isin(drawn) & ~rows.index.isin(repeated)]
    diverged = rows[rows["kind"] == "diverged"]
    if len(diverged):
        yield f"{len(diverged)} trainings diverged: {', '.join(sorted(set(diverged['run'].astype(str))))}"
    rest = rest[~rest["kind"].isin(["diverged", "level"])]
    for (kind, protocol), own in rest.groupby(["kind", rest["protocol"].fillna("")]):
        where = f" under {protocol}" if protocol else ""
        yield f"{len(own)} rows of the kind {kind}{where} belong to no series of this figure"
