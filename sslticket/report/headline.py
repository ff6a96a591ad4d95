"""The answer in words: label-agnostic against supervised against random, at the sparsest density that all have."""

import math
from typing import Any

import pandas as pd

from sslticket.escaping import html as escaped
from sslticket.report import html, statistics, text
from sslticket.report.chart import Look
from sslticket.report.content import Panel
from sslticket.report.statistics import label_agnostic
from sslticket.report.svg import swatch

_MANY = 4  # series that a sentence can name one by one


def headline(panel: Panel, looks: dict[str, Look]) -> str:
    """The sentence, a tile for each series, and whether they differ."""
    common = panel.common
    if common.empty:
        return f"<h1>{sentence(panel)}</h1>"
    shown = pd.concat([common, panel.beside])
    tiles = "".join(_tile(row, looks[row["series"]]) for row in shown.to_dict("records"))
    return f'<h1>{sentence(panel)}</h1><ul class="tiles">{tiles}</ul>{_findings(panel)}'


def sentence(panel: Panel) -> str:
    """One sentence, as HTML."""
    where, common = escaped(text.where(panel.summary)), panel.common
    if common.empty:
        names = escaped(", ".join(statistics.alike(panel.summary)["series"].unique()))
        return f"{where}: no density was measured for any two of {names}, so no one number compares them."
    parts = [_part(row) for row in _few(common).to_dict("records")]
    joined = " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
    return (
        f"With {text.percent(panel.density)}% of its weights, {where} reaches {joined}.{_beside(panel)}{_absent(panel)}"
    )


def _beside(panel: Panel) -> str:
    """Tickets that start with their own head are no match for those that cannot."""
    told = [f"{escaped(row['series'])} <b>{_percent(row)}</b>" for row in panel.beside.to_dict("records")]
    return f" Beside them: {', '.join(told)}." if 0 < len(told) <= _MANY else ""


def _percent(row: dict[Any, Any]) -> str:
    return f"{text.spread(row['top1'], row['top1_sd'])}%"


def _absent(panel: Panel) -> str:
    """The tickets that were not measured at this density."""
    names = [
        name for name in statistics.alike(panel.summary)["series"].unique() if name not in set(panel.common["series"])
    ]
    if len(names) > _MANY:
        return f" {len(names)} other series were not measured there."
    return f" Not measured there: {escaped(', '.join(names))}." if names else ""


def _few(common: pd.DataFrame) -> pd.DataFrame:
    """All series, or the best of each kind where they are many."""
    kinds = common["objective"].map(label_agnostic).where(common["control"] != "random", "random")
    if len(common) <= _MANY:
        return common.assign(of=1)
    common = common.assign(of=kinds.groupby(kinds).transform("size"))
    return common.loc[common.groupby(kinds, sort=False)["top1"].idxmax()]


def _part(row: dict[Any, Any]) -> str:
    name = escaped(row["series"])
    source = f"{_kind(row)} tickets ({name}, the best of {row['of']})" if row["of"] > 1 else f"{name} tickets"
    return f"<b>{_percent(row)}</b> from {source}"


def _kind(row: dict[Any, Any]) -> str:
    if row["control"] == "random":
        return "random"
    return "label-agnostic" if label_agnostic(row["objective"]) else "labelled"


def _tile(row: dict[Any, Any], look: Look) -> str:
    basis = text.basis(row["n"], row["what"], row["trainings"])
    warned = text.effective(row["effective"], row["cut"], row["n"])
    mean, _, sd = text.spread(row["top1"], row["top1_sd"]).partition(" ")
    return (
        f'<li class="card s{look.place}"><span>{swatch(look)} {escaped(row["series"])}</span>'
        f"<strong>{mean}%{f' <small>{sd}</small>' if sd else ''}</strong>"
        f'<span class="soft">{_kind(row)}, {basis}{warned}</span></li>'
    )


def _findings(panel: Panel) -> str:
    found = panel.comparisons[panel.comparisons["density"] == panel.density]
    # What the report is about comes first: label-agnostic against labels.
    found = found.loc[(found["against"] == "random").sort_values(kind="stable").index]
    items = "".join(f"<li>{finding(row)}</li>" for row in found.to_dict("records"))
    if not items:
        return ""
    listed = f'<ul class="findings">{items}</ul>'
    return listed if len(found) <= 2 * _MANY else html.details(f"{len(found)} comparisons", listed)


def finding(row: dict[Any, Any]) -> str:
    """A comparison in a sentence, as HTML: "rotnet less supervised: −5.8 points (95% interval ...)."."""
    what = "draws" if row["against"].startswith("random") else "searches"
    basis = f"{text.basis(row['n'], 'search', row['n'])} against {row['n_against']} {what}"
    told = ""
    if not math.isnan(row["low"]):
        corrected = f" corrected for {row['densities']} densities" if row["densities"] > 1 else ""
        told = f"95% interval {text.interval(row['low'], row['high'])}, p = {row['p']:.2g}{corrected}; "
    return (
        f"{escaped(row['series'])} less {escaped(row['against'])}: <b>{text.points(row['difference'])} points</b> "
        f'<span class="soft">({told}{basis})</span>: {_VERDICTS.get(row["verdict"], f"{text.verdict(row)}.")}'
    )


_VERDICTS = {
    "more": "<b>more</b>.",
    "less": "<b>less</b>.",
    "no difference shown": "no difference shown.",
}
