"""One self-contained HTML page from the rows: nothing fetched, every value escaped, whole without its script."""

import base64
import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from string import Template

import pandas as pd

from sslticket.escaping import html as escaped
from sslticket.report import html, making, schema, svg, text
from sslticket.report.accuracy import usual
from sslticket.report.chart import Chart, Heat, Look
from sslticket.report.content import Content, Panel
from sslticket.report.headline import headline, sentence
from sslticket.report.searches import WORDS
from sslticket.report.section import Choice, Section

WIDE, NARROW = (1080, 420), (360, 310)
"""Sizes of charts in CSS pixels: text is as large in both, on a desktop's screen and on a phone's."""


_FEW = 6  # notes that are shown unasked


def render(content: Content) -> str:
    """The page; the same rows give the same text."""
    style, script = _style(content), _file("page.js")
    return Template(_file("page.html")).substitute(
        policy=f"default-src 'none'; base-uri 'none'; form-action 'none'; img-src data:; "
        f"style-src '{_digest(style)}'; script-src '{_digest(script)}'",
        title=escaped(f"Tickets: {', '.join(content.places)}"),
        style=style,
        headline=_headline(content),
        legend=_legend(content.shared, "Series shown in the charts"),
        sections="".join(_sections(content)),
        footer=escaped(making.footer(content)),
        data=making.data(content),
        script=script,
    )


def _headline(content: Content) -> str:
    if not content.panels:
        return f"<h1>{escaped(', '.join(content.places))}: tickets analysed, none scored.</h1>"
    first, *more = content.panels
    others = "".join(f"<p>{sentence(panel)}</p>" for panel in more)
    return headline(first, content.looks) + (html.details(f"{len(more)} more", others) if more else "")


def _file(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text("utf-8")


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _style(content: Content) -> str:
    """The style sheet, and what depends on the rows: each series' colour and switch."""
    # Between the sixth shade and the seventh is a gap: no text could be read there, dark or light.
    alphas = [0.04, 0.13, 0.22, 0.3, 0.39, 0.48, 0.56, 0.8, 0.9, 1.0]
    assert len(alphas) == html.SHADES
    shades = [
        f".heat td.h{step}{{background:rgb(var(--heat) / {alpha}){';color:var(--deep)' if alpha > 0.7 else ''}}}"
        for step, alpha in enumerate(alphas)
    ]
    series = [
        f".s{look.place}{{--s:var(--{'random' if look.colour is None else f'c{look.colour}'})}}"
        f"main:has(#t{look.place}:not(:checked)) .chart .s{look.place}{{display:none}}"
        for look in content.looks.values()
    ]
    # Bands of many series would hide the lines.
    band = f":root{{--band:{0.14 if len(series) <= 4 else 0.07}}}"
    return _file("page.css") + "\n".join([*shades, *series, band])


def _legend(looks: Mapping[str, Look], label: str, kind: str = "") -> str:
    if not looks:
        return ""
    labels = "".join(
        f'<label><input type="checkbox" id="t{look.place}" checked>{svg.swatch(look)}{escaped(name)}</label>'
        for name, look in looks.items()
    )
    return f'<div class="{f"legend {kind}".strip()}" role="group" aria-label="{escaped(label)}">{labels}</div>'


def _sections(content: Content) -> list[str]:
    panels = [(_title(panel), _panel(panel, content)) for panel in content.panels]
    return [
        html.section("notes", "Notes", _notes(content)),
        html.section("accuracy", "Accuracy against density", html.pick("Measured:", panels), _READING),
        html.section("transfer", "Transfer", _transfer(content), _TRANSFER),
        html.section("learnt", "What the searches learnt", _grid(content.learnt, content), _LEARNT),
        html.section("layers", "Density of each layer", _heats("Tickets:", content.layers), _LAYERS),
        *(_analysis(part, content) for part in content.analyses),
        html.section("searches", "Search cost", making.searches(content)),
        html.section("all", "All numbers", making.numbers(content), _NUMBERS),
        html.section("made", "How each number was made", making.made(content)),
    ]


_READING = (
    "Lines are means, bands one standard deviation over searches: trainings of one search are averaged first. In "
    "differences, bands are 95% intervals (Welch's t) of each density by itself. The dashed line is the dense network, "
    "or what is compared with."
)
_TRANSFER = (
    "A row for what tickets were found by, a column for each protocol, shaded from its least to its greatest mean."
)
_LEARNT = (
    "Each search's own measures at the end of each of its trainings, against the density of the network that was "
    "trained there: not the ticket that came of it, but what it was cut from."
)
_LAYERS = (
    "What remains of each layer, in %, the input at the top, from the dense network to the sparsest ticket; "
    "shades are logarithmic. Orange: a layer that lost every weight."
)
_NUMBERS = (
    "Every mean of the report, over searches, and of controls over draws. A heading sorts; the number of trainings "
    "opens those that the mean is of."
)


def _title(panel: Panel) -> str:
    return f"{text.where(panel.summary)}, protocol {panel.summary['protocol'].iloc[0]}"


def _panel(panel: Panel, content: Content) -> str:
    chart = panel.accuracy()
    drawn = "".join(
        f'<div class="{kind}">{svg.draw(chart, content.looks, *size)}</div>'
        for kind, size in {"wide": WIDE, "narrow": NARROW}.items()
    )
    top5 = panel.summary.assign(top1=panel.summary["top5"], top1_sd=math.nan)
    tables = (
        _table(text.grid(panel.summary), text.caption(panel.summary))
        + html.details("Top-5", _table(text.grid(top5), "Mean top-5 in %"))
        + (html.details("Differences and their intervals", _compared(panel)) if len(panel.comparisons) else "")
        + making.bargain(panel)
    )
    small = "".join(html.card(_small(each, content)) for each in panel.differences())
    costs = [(WORDS[unit], _small(each, content)) for unit, each in panel.cost().items()]
    if costs:
        small += html.card(html.pick("Cost in", costs))
    return (
        f"<article><h3>{escaped(_title(panel))}</h3>{html.card(drawn)}"
        f'{_controls(panel)}<div class="grid">{small}</div>{html.card(tables)}</article>'
    )


def _controls(panel: Panel) -> str:
    """What the controls are that this panel has."""
    found = [control for control in schema.CONTROL_WORDS if control in set(panel.summary["control"])]
    told = "; ".join(f"{control}: {schema.CONTROL_WORDS[control]}" for control in found)
    return f'<p class="soft">Controls. {escaped(told)}.</p>' if found else ""


def _notes(content: Content) -> str:
    """What was split, and what differs all the same; what is to be typed is set as code."""
    told = [re.sub("`([^`]*)`", r"<code>\1</code>", escaped(note)) for note in content.notes]
    listed = f'<ul class="notes">{"".join(f"<li>{note}</li>" for note in told)}</ul>'
    if len(told) > _FEW:
        return html.card(html.details(f"{len(told)} notes", listed))
    return html.card(listed) if told else ""


def _small(chart: Chart, content: Content) -> str:
    return svg.draw(chart, content.looks, *NARROW)


def _grid(charts: Sequence[Chart], content: Content, of: str = "") -> str:
    """Small charts side by side, below their titles; `of`, with which all begin, is hidden where a list says it."""
    cards = []
    for chart in charts:
        said = f'<span class="of">{escaped(of)}</span>' if of and chart.title.startswith(of) else ""
        title = f"{said}{escaped(chart.title.removeprefix(of))}"
        cards.append(html.card(f"<h3>{title}</h3>{_small(chart, content)}"))
    return f'<div class="grid">{"".join(cards)}</div>' if cards else ""


def _analysis(part: Section, content: Content) -> str:
    own = {name: content.looks[name] for name, *_ in part.series if name not in content.shared}
    picks = [
        html.pick(pick.label, [(choice.name, _choice(choice, content)) for choice in pick.choices])
        for pick in part.picks
    ]
    legend = _legend(own, f"Series of {part.title}", "here")
    return html.section(part.name, part.title, legend + "".join(picks), part.explained)


def _choice(choice: Choice, content: Content) -> str:
    return _grid(choice.charts, content, f"{choice.name}: ") + "".join(
        html.card(html.heat(heat)) for heat in choice.heats
    )


def _transfer(content: Content) -> str:
    if not content.transfer:
        return ""
    parts = [(heat.title.partition(":")[0], html.heat(heat)) for _, heat in content.transfer]
    return html.card(html.pick("Shown:", parts, usual(content.transfer)))


def _heats(label: str, heats: list[Heat]) -> str:
    return html.card(html.pick(label, [(heat.title, html.heat(heat)) for heat in heats])) if heats else ""


def _table(cells: pd.DataFrame, caption: str) -> str:
    body = [[f"{text.percent(density)}%", *line] for density, line in zip(cells.index, cells.to_numpy(), strict=True)]
    return html.table(caption, ["Weights left", *cells.columns], body)


def _compared(panel: Panel) -> str:
    body = [
        [
            *(f"{row['series']} less {row['against']}", f"{text.percent(row['density'])}%"),
            *(text.points(row["difference"]), text.interval(row["low"], row["high"]), f"{row['p']:.2g}"),
            *(str(row["n"]), str(row["n_against"]), str(row["trainings"]), str(row["trainings_against"])),
            text.verdict(row),
        ]
        for row in panel.comparisons.to_dict("records")
    ]
    head = ["Series", "Weights left", "Difference", "95% interval", "p", "n", "n against"]
    head += ["Trainings", "Trainings against", "Verdict"]
    caption = (
        "Differences of mean top-1 in points; n counts searches, of random tickets draws; p is corrected for the "
        "number of densities (Holm)"
    )
    return html.table(caption, head, body, words=(0, 9))
