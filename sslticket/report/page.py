"""One self-contained HTML page from the rows: no script, nothing fetched, every value escaped."""

import json
import math
from collections.abc import Sequence
from html import escape
from importlib import resources
from string import Template

import pandas as pd

from sslticket.report import figures, table


def render(frame: pd.DataFrame, summary: pd.DataFrame) -> str:
    """The page for the rows of `table.rows` and their `table.summary`; the same rows give the same text."""
    panels = [panel for _, panel in summary.groupby(table.PANEL, sort=False)]
    levels = frame[frame["kind"] == "level"].drop_duplicates(["run", "level"])
    first, *more = map(_sentence, panels)
    template = Template(resources.files(__package__).joinpath("page.html").read_text("utf-8"))
    return template.substitute(
        title=escape("Tickets: " + ", ".join(map(_where, panels))),
        headline=f"<h1>{first}</h1>{''.join(f'<p>{sentence}</p>' for sentence in more)}",
        panels="".join(_panel(panel, f"curves-{place}", len(panels) > 1) for place, panel in enumerate(panels)),
        layers=_layers(levels),
        cost=_cost(levels),
        made=_made(frame),
    )


def _where(panel: pd.DataFrame) -> str:
    return f"{panel['model'].iloc[0]} on {panel['target'].iloc[0]}"


def _sentence(panel: pd.DataFrame) -> str:
    where, common = escape(_where(panel)), table.sparsest_common(panel)
    if common.empty:
        names = escape(", ".join(panel.loc[panel["control"].isin(["ticket", "random"]), "series"].unique()))
        return f"{where}: no density was measured for each of {names}, so no one number compares them."
    counts = common["n"].unique()
    parts = [
        f"<b>{table.spread(row['top1'], row['top1_sd'])}%</b> from {escape(row['series'])} tickets"
        + (f" (n = {row['n']})" if len(counts) > 1 else "")
        for row in common.to_dict("records")
    ]
    joined = " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
    each = f" (n = {counts[0]}{' each' if len(parts) > 1 else ''})" if len(counts) == 1 else ""
    return f"With {table.percent(common['density'].iloc[0])}% of its weights, {where} reaches {joined}{each}."


def _panel(panel: pd.DataFrame, name: str, titled: bool) -> str:
    title = f"{_where(panel)}, protocol {panel['protocol'].iloc[0]}" if titled else "Top-1 against density"
    series = ", ".join(panel["series"].unique())
    label = escape(f"Top-1 of {_where(panel)} against density for {series}; the table below has the numbers")
    drawn = "".join(
        f'<div class="{kind}">{figures.svg(figures.curves(panel, *size), f"{name}-{kind}", label)}</div>'
        for kind, size in {"wide": (7.6, 4.0), "narrow": (3.9, 3.9)}.items()
    )
    top5 = panel.assign(top1=panel["top5"], top1_sd=math.nan)
    return (
        f"<section><h2>{escape(title)}</h2>"
        f'<p class="soft">Lines are means, bands ±1 standard deviation over trainings; '
        f"the dashed line is the dense network.</p>"
        f'<div class="card">{drawn}</div>'
        f'<div class="card">{_grid(table.grid(panel), table.caption(panel))}'
        f"<details><summary>Top-5</summary>{_grid(table.grid(top5), 'Mean top-5 in %')}</details></div></section>"
    )


def _grid(cells: pd.DataFrame, caption: str) -> str:
    body = [[f"{table.percent(density)}%", *line] for density, line in zip(cells.index, cells.to_numpy(), strict=True)]
    return _html(caption, ["Weights left", *cells.columns], body)


def _html(caption: str, head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    columns = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    lines = "".join(
        f'<tr><th scope="row">{escape(first)}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in rest)}</tr>'
        for first, *rest in body
    )
    # A region that takes the focus can be scrolled with the keyboard.
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(caption)}"><table>'
        f"<caption><span>{escape(caption)}</span></caption><thead><tr>{columns}</tr></thead><tbody>{lines}</tbody></table></div>"
    )


def _layers(levels: pd.DataFrame) -> str:
    if levels.empty:
        return ""
    cards = []
    for place, (run, own) in enumerate(levels.groupby("run")):
        label = escape(f"Density of each layer of each ticket of {run}")
        drawing = figures.svg(figures.layers(own), f"layers-{place}", label)
        cards.append(f'<div class="card"><h3>{escape(str(run))}</h3>{drawing}</div>')
    grid = f'<div class="grid">{"".join(cards)}</div>'
    # Runs beyond a comparison's two or three would push all that follows off the screen.
    if len(cards) > 4:
        grid = f"<details><summary>{len(cards)} runs</summary>{grid}</details>"
    explained = (
        "What remains of each layer, in %, the input at the top, from the dense network to the sparsest ticket. "
        "Orange: a layer that lost every weight."
    )
    return f'<section><h2>Density of each layer</h2><p class="soft">{explained}</p>{grid}</section>'


def _cost(levels: pd.DataFrame) -> str:
    if levels.empty:
        return ""
    body = []
    for run, own in levels.sort_values("level").groupby("run"):
        last = own.iloc[-1]
        body.append(
            [
                str(run),
                f"{100 * last['subset']:g}% of {'the classes of ' * (last['subset_by'] == 'classes')}{last['source']}",
                str(own["level"].max()),
                f"{own['search_samples'].max():,.0f}",
                f"{own['steps'].sum():,}",
                _time(own["seconds"].sum()),
                f"{own['bad_images'].max():.0f}",
                _change(own),
            ]
        )
    head = ["Run", "Images", "Levels", "Samples seen", "Steps", "Time", "Bad images", "Dense → sparsest"]
    caption = "What each search cost, and how well its networks learned their own task"
    return f'<section><h2>Search cost</h2><div class="card cost">{_html(caption, head, body)}</div></section>'


def _change(own: pd.DataFrame) -> str:
    """How the search's own measures went from the dense training to the last, "rotation accuracy 0.93 → 0.71"."""
    trained = own[own["level"] > 0]  # the row of level 0 tells of the few steps up to W_k
    if trained.empty:
        return ""
    first, last = trained.iloc[0], trained.iloc[-1]
    before, after = ({"loss": row["loss"], **row["metrics"]} for row in (first, last))
    return ", ".join(f"{name} {before[name]:.3g} → {after[name]:.3g}" for name in before if name in after)


def _time(seconds: float) -> str:
    minutes, hours = seconds / 60, seconds / 3600
    if hours >= 1:
        return f"{hours:,.1f} h"
    return f"{minutes:.1f} min" if minutes >= 1 else f"{seconds:.1f} s"


def _made(frame: pd.DataFrame) -> str:
    """For each run, the commands that made its rows and what they ran on; rows made alike are told together."""
    alike = ["kind", "command", "commit", "data_hash", "device", "precision", "versions"]
    frame = frame.assign(versions=frame["versions"].map(lambda each: json.dumps(each, sort_keys=True)))
    runs = []
    for run, own in frame.groupby("run"):
        parts = []
        for key, made in own.groupby(alike, sort=False):
            kind, *values = map(str, key)
            versions = ", ".join(f"{name} {version}" for name, version in json.loads(values.pop()).items())
            what = "Levels of the search" if kind == "level" else f"Scores ({', '.join(made['protocol'].unique())})"
            facts = dict(zip(["Command", "Commit", "Data", "Device", "Precision"], values, strict=True))
            facts |= {"Versions": versions, "Rows": str(len(made))}
            items = "".join(f"<dt>{name}</dt><dd><code>{escape(fact)}</code></dd>" for name, fact in facts.items())
            parts.append(f"<h3>{escape(what)}</h3><dl>{items}</dl>")
        runs.append(f"<details><summary>{escape(str(run))}</summary>{''.join(parts)}</details>")
    return f'<section><h2>How each number was made</h2><div class="card">{"".join(runs)}</div></section>'
