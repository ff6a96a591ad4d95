"""One self-contained HTML page from the rows: nothing fetched, every value escaped, whole without its script."""

import base64
import hashlib
import math
import re
from collections.abc import Collection, Mapping, Sequence
from importlib import resources
from string import Template
from typing import Any

import pandas as pd

from sslticket.escaping import escape_html as escaped
from sslticket.escaping import json_for_script
from sslticket.report import naming, notes, stats, text
from sslticket.report.chart import Chart, HeatMap, SeriesStyle, draw_svg, format_count, format_duration, svg_swatch
from sslticket.report.content import Content, Panel
from sslticket.report.sections import FigureGroup, Section
from sslticket.report.sections.scores import COST_AXES, COST_NAMES, fullest_map_index
from sslticket.report.stats import PANEL_KEYS, is_label_agnostic
from sslticket.report.text import MISSING
from sslticket.results import rows

SHADE_STEPS = 10
"""Cells are shaded in so many steps: classes h0 to h9 of the page's style, for its policy forbids styles in place."""


def html_card(inner: str, kind: str = "") -> str:
    """A box."""
    return f'<div class="{f"card {kind}".strip()}">{inner}</div>'


def html_section(name: str, title: str, inner: str, explained: str = "") -> str:
    """A part of the page with a heading, which links can lead to; "" for an empty one."""
    if not inner:
        return ""
    soft = f'<p class="soft">{escaped(explained)}</p>' if explained else ""
    return f'<section id="{name}"><h2>{escaped(title)}</h2>{soft}{inner}</section>'


def html_details(summary: str, inner: str) -> str:
    """What is unfolded on demand."""
    return f"<details><summary>{escaped(summary)}</summary>{inner}</details>"


def html_picker(label: str, parts: Sequence[tuple[str, str]], first: int = 0) -> str:
    """Parts of which a script shows one, named in a list; without it they follow one another. "" for no parts.

    Args:
        label: of the list.
        parts: name and content of each.
        first: the place of the one to show first.
    """
    if not parts:
        return ""
    inner = "".join(f'<div data-pick="{escaped(name)}">{part}</div>' for name, part in parts)
    return f'<div class="pick" data-label="{escaped(label)}" data-first="{first}">{inner}</div>'


def html_table(caption: str, head: Sequence[str], body: Sequence[Sequence[str]], words: Collection[int] = ()) -> str:
    """A table whose first column heads its lines.

    Args:
        caption: what a screen reader and the page say of it.
        head: a name for each column.
        body: lines of cells.
        words: columns of text, set to the left; all others hold numbers.
    """
    columns = "".join(
        f'<th scope="col"{_cell_class(place, words)}>{escaped(name)}</th>' for place, name in enumerate(head)
    )
    lines = "".join(
        f'<tr><th scope="row">{escaped(first)}</th>'
        + "".join(f"<td{_cell_class(place, words)}>{escaped(cell)}</td>" for place, cell in enumerate(rest, start=1))
        + "</tr>"
        for first, *rest in body
    )
    return _scroll_box(caption, f"<thead><tr>{columns}</tr></thead><tbody>{lines}</tbody>", "words" if words else "")


def _cell_class(place: int, words: Collection[int]) -> str:
    return ' class="num"' if words and place not in words else ""


def html_heat_map(heat: HeatMap) -> str:
    """A heat map as a table of shaded cells."""
    dense = len(heat.columns) > 12 or len(heat.rows) > 12
    columns = "".join(f'<th scope="col">{escaped(name)}</th>' for name in heat.columns)
    lines = "".join(
        f'<tr><th scope="row">{escaped(name)}</th>{"".join(map(_shaded_cell, cells))}</tr>'
        for name, cells in zip(heat.rows, heat.cells, strict=True)
    )
    inner = f'<thead><tr><th scope="col">{escaped(heat.corner)}</th>{columns}</tr></thead><tbody>{lines}</tbody>'
    return _scroll_box(heat.title, inner, "heat dense" if dense else "heat", "scroll tall")


def _shaded_cell(cell: tuple[str, float] | None) -> str:
    if cell is None:
        return f"<td>{MISSING}</td>"
    told, shade = cell
    kind = "cut" if math.isnan(shade) else f"h{min(SHADE_STEPS - 1, max(0, int(shade * SHADE_STEPS)))}"
    return f'<td class="{kind}">{escaped(told)}</td>'


def _scroll_box(caption: str, inner: str, kind: str, box: str = "scroll") -> str:
    # A region that takes the focus can be scrolled with the keyboard.
    named = f' class="{kind}"' if kind else ""
    return (
        f'<div class="{box}" role="region" tabindex="0" aria-label="{escaped(caption)}"><table{named}>'
        f"<caption><span>{escaped(caption)}</span></caption>{inner}</table></div>"
    )


_MAX_NAMED_SERIES = 4  # series that a sentence can name one by one


def panel_headline(panel: Panel, looks: dict[str, SeriesStyle]) -> str:
    """The sentence, a tile for each series, and whether they differ."""
    common = panel.common_rows
    if common.empty:
        return f"<h1>{panel_sentence(panel)}</h1>"
    shown = pd.concat([common, panel.own_head_rows])
    tiles = "".join(_series_tile(row, looks[row["series"]]) for row in shown.to_dict("records"))
    return f'<h1>{panel_sentence(panel)}</h1><ul class="tiles">{tiles}</ul>{_finding_list(panel)}'


def panel_sentence(panel: Panel) -> str:
    """One sentence, as HTML."""
    where, common = escaped(text.describe_panel(panel.summary)), panel.common_rows
    if common.empty:
        names = escaped(", ".join(stats.comparable_rows(panel.summary)["series"].unique()))
        return f"{where}: no density was measured for any two of {names}, so no one number compares them."
    parts = [_sentence_part(row) for row in _few_series(common).to_dict("records")]
    joined = " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
    return f"With {text.format_percent(panel.density)}% of its weights, {where} reaches {joined}.{_own_head_sentence(panel)}{_absent_sentence(panel)}"


def _own_head_sentence(panel: Panel) -> str:
    """Tickets that start with their own head are no match for those that cannot."""
    told = [f"{escaped(row['series'])} <b>{_mean_percent(row)}</b>" for row in panel.own_head_rows.to_dict("records")]
    return f" Beside them: {', '.join(told)}." if 0 < len(told) <= _MAX_NAMED_SERIES else ""


def _mean_percent(row: dict[Any, Any]) -> str:
    return f"{text.format_mean_sd(row['top1'], row['top1_sd'])}%"


def _absent_sentence(panel: Panel) -> str:
    """The tickets that were not measured at this density."""
    names = [
        name
        for name in stats.comparable_rows(panel.summary)["series"].unique()
        if name not in set(panel.common_rows["series"])
    ]
    if len(names) > _MAX_NAMED_SERIES:
        return f" {len(names)} other series were not measured there."
    return f" Not measured there: {escaped(', '.join(names))}." if names else ""


def _few_series(common: pd.DataFrame) -> pd.DataFrame:
    """All series, or the best of each kind where they are many."""
    kinds = common["objective"].map(is_label_agnostic).where(common["control"] != "random", "random")
    if len(common) <= _MAX_NAMED_SERIES:
        return common.assign(of=1)
    common = common.assign(of=kinds.groupby(kinds).transform("size"))
    return common.loc[common.groupby(kinds, sort=False)["top1"].idxmax()]


def _sentence_part(row: dict[Any, Any]) -> str:
    name = escaped(row["series"])
    source = f"{_ticket_kind(row)} tickets ({name}, the best of {row['of']})" if row["of"] > 1 else f"{name} tickets"
    return f"<b>{_mean_percent(row)}</b> from {source}"


def _ticket_kind(row: dict[Any, Any]) -> str:
    if row["control"] == "random":
        return "random"
    return "label-agnostic" if is_label_agnostic(row["objective"]) else "labelled"


def _series_tile(row: dict[Any, Any], look: SeriesStyle) -> str:
    basis = text.format_sample_size(row["n"], row["what"], row["trainings"])
    warned = text.disconnection_warning(row["effective"], row["cut"], row["n"])
    mean, _, sd = text.format_mean_sd(row["top1"], row["top1_sd"]).partition(" ")
    return (
        f'<li class="card s{look.index}"><span>{svg_swatch(look)} {escaped(row["series"])}</span>'
        f"<strong>{mean}%{f' <small>{sd}</small>' if sd else ''}</strong>"
        f'<span class="soft">{_ticket_kind(row)}, {basis}{warned}</span></li>'
    )


def _finding_list(panel: Panel) -> str:
    found = panel.comparisons[panel.comparisons["density"] == panel.density]
    # What the report is about comes first: label-agnostic against labels.
    found = found.loc[(found["against"] == "random").sort_values(kind="stable").index]
    items = "".join(f"<li>{finding_html(row)}</li>" for row in found.to_dict("records"))
    if not items:
        return ""
    listed = f'<ul class="findings">{items}</ul>'
    return listed if len(found) <= 2 * _MAX_NAMED_SERIES else html_details(f"{len(found)} comparisons", listed)


def finding_html(row: dict[Any, Any]) -> str:
    """A comparison in a sentence, as HTML: "rotnet less supervised: −5.8 points (95% interval ...)."."""
    what = "draws" if row["against"].startswith("random") else "searches"
    basis = f"{text.format_sample_size(row['n'], 'search', row['n'])} against {row['n_against']} {what}"
    told = ""
    if not math.isnan(row["low"]):
        corrected = f" corrected for {row['densities']} densities" if row["densities"] > 1 else ""
        told = f"95% interval {text.format_interval(row['low'], row['high'])}, p = {row['p']:.2g}{corrected}; "
    return (
        f"{escaped(row['series'])} less {escaped(row['against'])}: <b>{text.format_points(row['difference'])} points</b> "
        f'<span class="soft">({told}{basis})</span>: {_VERDICT_HTML.get(row["verdict"], f"{text.format_verdict(row)}.")}'
    )


_VERDICT_HTML = {
    "more": "<b>more</b>.",
    "less": "<b>less</b>.",
    "no difference shown": "no difference shown.",
}


_PROVENANCE_KEYS = ["kind", "command", "commit", "data_hash", "device", "numerics", "versions"]
_MEAN_KEYS = [*PANEL_KEYS, "series", "density"]

_SUBSET_OF = {"classes": "the classes of ", "random": "the images, whatever they show, of "}


def search_table(content: Content) -> str:
    """What each search cost, and how its own measures went; "" without level rows."""
    body = []
    for (run, _), own in content.levels.groupby(["run", "tickets"]):
        last = own.iloc[-1]
        body.append(
            [
                str(run),
                f"{_subset_text(last)} of {_SUBSET_OF.get(last['subset_by'], '')}{last['source']}",
                str(last["search_seed"]),
                str(own["level"].max()),
                _count_text(last["cost_forward_images"]),
                _count_text(last["cost_samples"]),
                f"{last['cost_steps']:,.0f}",
                format_duration(last["cost_seconds"]),
                f"{own['bad_images'].max():.0f}",
                _metric_change(own),
            ]
        )
    head = ["Run", "Found on", "Seed", "Levels", "Images through the network", "Source images", "Steps", "Time"]
    head += ["Bad images", "First → last training"]
    caption = "What each search cost, and how well its networks learned their own task"
    return html_card(html_table(caption, head, body, words=(0, 1, 9)), "cost") if body else ""


def _subset_text(row: "pd.Series[Any]") -> str:
    count = naming.shots_per_class(row["settings"])
    return f"{count} images a class" if count else f"{100 * row['subset']:g}%"


def _count_text(value: float) -> str:
    return text.MISSING if math.isnan(value) else f"{value:,.0f}"


def _metric_change(own: pd.DataFrame) -> str:
    """How the search's own measures went, "with 100% → 25% of the weights: rotation accuracy 0.93 → 0.71"."""
    trained = own[own["trained"].notna()]  # the row of level 0 tells of the few steps up to W_k
    if trained.empty:
        return ""
    first, last = trained.iloc[0], trained.iloc[-1]
    before, after = ({"loss": row["loss"], **row["metrics"]} for row in (first, last))
    ends = " → ".join(dict.fromkeys(f"{text.format_percent(row['trained'])}%" for row in (first, last)))
    held = [name for name in before if name in after and before[name] is not None and after[name] is not None]
    if not held:
        return ""
    return f"with {ends} of the weights: " + ", ".join(
        f"{name} {before[name]:.3g} → {after[name]:.3g}" for name in held
    )


def cost_table(panel: Panel) -> str:
    """What the ringed tickets cost, and how many times less than the supervised ones; "" where no row tells."""
    own = panel.common_rows[panel.common_rows["control"] == "ticket"] if len(panel.common_rows) else panel.common_rows
    own = own.drop_duplicates("tickets").merge(panel.costs, on=["model", "tickets", "density"])
    if own.empty:
        return ""
    labels = own[own["objective"] == "supervised"].sort_values(["subset", "series"], ascending=[False, True])
    # Older rows tell source images only, whose number of views differs between objectives.
    unit = "forward_images" if own["cost_forward_images"].notna().all() else "samples"
    told = [each for each in COST_AXES if own[f"cost_{each}"].notna().any()]
    body = []
    for row in own.to_dict("records"):
        line = [row["tickets"], *(_cost_text(each, row[f"cost_{each}"]) for each in told)]
        if len(labels):
            line.append(_ratio_text(labels.iloc[0][f"cost_{unit}"], row[f"cost_{unit}"]))
        body.append(line)
    head = ["Tickets", *(_capitalize(COST_NAMES[each]) for each in told)]
    head += [f"{_capitalize(COST_NAMES[unit])}, {labels.iloc[0]['tickets']} ÷ this"] if len(labels) else []
    caption = f"What the tickets of {text.format_percent(panel.density)}%, ringed in the chart of cost, took to find"
    return html_details("Cost of the headline's tickets", html_table(caption, head, body))


def _cost_text(unit: str, value: float) -> str:
    if math.isnan(value):
        return text.MISSING
    return format_duration(value) if unit == "seconds" else format_count(value)


def _capitalize(words: str) -> str:
    return words[0].upper() + words[1:]


def _ratio_text(reference: float, own: float) -> str:
    return f"{reference / own:.3g}\N{MULTIPLICATION SIGN}" if own else text.MISSING


def all_means_table(content: Content) -> str:
    """The table of all means, which the page's script sorts and filters; "" without scores."""
    if content.summary.empty:
        return ""
    head = [
        *(
            "Series",
            "Model",
            "Protocol",
            "Weights left",
            "Top-1, %",
            "± sd",
            "95% interval",
            "Top-5, %",
            "n",
            "Trainings",
        )
    ]
    texts = {0, 1, 2}
    kinds = ["" if place in texts else ' class="num"' for place in range(len(head))]
    columns = "".join(f'<th scope="col"{kind}>{name}</th>' for kind, name in zip(kinds, head, strict=True))
    lines = "".join(map(_mean_row, range(len(content.summary)), content.summary.to_dict("records")))
    tools = (
        '<div class="tools"><label hidden>Filter <input type="search" id="filter" placeholder="words, such as '
        'random 1.56%"></label><span class="soft" id="count" role="status"></span></div>'
    )
    caption = "Mean top-1 and top-5 of every series at every density; n counts searches, and of controls the draws"
    return html_card(
        f'{tools}<div class="scroll tall" role="region" tabindex="0" aria-label="{caption}">'
        f'<table class="words" id="numbers"><caption><span>{caption}</span></caption><thead><tr>{columns}</tr></thead>'
        f"<tbody>{lines}</tbody></table></div>"
    )


def _mean_row(place: int, row: dict[Any, Any]) -> str:
    sd = text.MISSING if math.isnan(row["top1_sd"]) else f"{100 * row['top1_sd']:.2f}"
    ends = text.MISSING if math.isnan(row["low"]) else f"{100 * row['low']:.2f} to {100 * row['high']:.2f}"
    numbers = [
        f"{text.format_percent(row['density'])}%",
        f"{100 * row['top1']:.2f}",
        sd,
        ends,
        f"{100 * row['top5']:.2f}",
    ]
    numbers += [str(row["n"]), str(row["trainings"])]
    cells = "".join(f'<td class="num">{each}</td>' for each in numbers)
    network = text.describe_network(row["model"], row["within"])
    return (
        f'<tr data-mean="{place}"><th scope="row">{escaped(row["series"])}</th><td>{escaped(network)}</td>'
        f"<td>{escaped(row['protocol'] + text.add_condition(row['apart']))}</td>{cells}</tr>"
    )


def trainings_json(content: Content) -> str:
    """The trainings that each mean is of, as JSON that no value can end early."""
    scores = stats.unique_trainings(content.rows)
    makings: dict[tuple[str, ...], int] = {}
    means: dict[tuple[Any, ...], list[list[Any]]] = {}
    for row in scores.sort_values(["search_seed", "seed"]).to_dict("records"):
        how = tuple(str(row[key]) for key in ("run", "command", "commit", "data_hash"))
        search = row["search_seed"] if row["unit"].startswith("search") else row["replicate"]
        search = None if pd.isna(search) else int(search)
        training = [search, int(row["seed"]), row["top1"], makings.setdefault(how, len(makings))]
        means.setdefault(tuple(row[key] for key in _MEAN_KEYS), []).append(training)
    ordered = [means[tuple(row)] for row in content.summary[_MEAN_KEYS].itertuples(index=False)]
    return json_for_script({"made": list(makings), "means": ordered})


def provenance_table(content: Content) -> str:
    """For each run, the commands that made its rows and what they ran on; rows made alike are told together."""
    frame = content.rows
    frame = frame.assign(versions=frame["versions"].map(_version_list))
    runs = []
    for run, own in frame.groupby("run"):
        parts = []
        for key, alike in own.groupby(_PROVENANCE_KEYS, sort=False):
            kind, *values = map(str, key)
            versions = values.pop()
            what = notes.KIND_TITLES[kind]
            if len(protocols := alike["protocol"].dropna().unique()):
                what += f" ({', '.join(protocols)})"
            facts = dict(zip(["Command", "Commit", "Data", "Device", "Numerics"], values, strict=True))
            facts |= {"Versions": versions, "Rows": str(len(alike))}
            items = "".join(f"<dt>{name}</dt><dd><code>{escaped(fact)}</code></dd>" for name, fact in facts.items())
            parts.append(f"<h3>{escaped(what)}</h3><dl>{items}</dl>")
        runs.append(html_details(str(run), "".join(parts)))
    return html_card("".join(runs))


def _version_list(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))


def page_footer(content: Content) -> str:
    """What the page was drawn from."""
    frame = content.rows
    return f"Drawn by sslticket from {len(frame):,} rows of {frame['run'].nunique():,} runs."


WIDE, NARROW = (1080, 420), (360, 310)
"""Sizes of charts in CSS pixels: text is as large in both, on a desktop's screen and on a phone's."""


_MAX_OPEN_NOTES = 6  # notes that are shown unasked


def render_page(content: Content) -> str:
    """The page; the same rows give the same text."""
    style, script = _style_sheet(content), _read_asset("page.js")
    return Template(_read_asset("page.html")).substitute(
        policy=f"default-src 'none'; base-uri 'none'; form-action 'none'; img-src data:; "
        f"style-src '{_digest(style)}'; script-src '{_digest(script)}'",
        title=escaped(f"Tickets: {', '.join(content.subjects)}"),
        style=style,
        headline=_page_headline(content),
        legend=_legend(content.shared_styles, "Series shown in the charts"),
        sections="".join(_page_sections(content)),
        footer=escaped(page_footer(content)),
        data=trainings_json(content),
        script=script,
    )


def _page_headline(content: Content) -> str:
    if not content.panels:
        return f"<h1>{escaped(', '.join(content.subjects))}: tickets analysed, none scored.</h1>"
    first, *more = content.panels
    others = "".join(f"<p>{panel_sentence(panel)}</p>" for panel in more)
    return panel_headline(first, content.styles) + (html_details(f"{len(more)} more", others) if more else "")


def _read_asset(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text("utf-8")


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _style_sheet(content: Content) -> str:
    """The style sheet, and what depends on the rows: each series' colour and switch."""
    # Between the sixth shade and the seventh is a gap: no text could be read there, dark or light.
    alphas = [0.04, 0.13, 0.22, 0.3, 0.39, 0.48, 0.56, 0.8, 0.9, 1.0]
    assert len(alphas) == SHADE_STEPS
    shades = [
        f".heat td.h{step}{{background:rgb(var(--heat) / {alpha}){';color:var(--deep)' if alpha > 0.7 else ''}}}"
        for step, alpha in enumerate(alphas)
    ]
    series = [
        f".s{look.index}{{--s:var(--{'random' if look.colour is None else f'c{look.colour}'})}}"
        f"main:has(#t{look.index}:not(:checked)) .chart .s{look.index}{{display:none}}"
        for look in content.styles.values()
    ]
    # Bands of many series would hide the lines.
    band = f":root{{--band:{0.14 if len(series) <= 4 else 0.07}}}"
    return _read_asset("page.css") + "\n".join([*shades, *series, band])


def _legend(looks: Mapping[str, SeriesStyle], label: str, kind: str = "") -> str:
    if not looks:
        return ""
    labels = "".join(
        f'<label><input type="checkbox" id="t{look.index}" checked>{svg_swatch(look)}{escaped(name)}</label>'
        for name, look in looks.items()
    )
    return f'<div class="{f"legend {kind}".strip()}" role="group" aria-label="{escaped(label)}">{labels}</div>'


def _page_sections(content: Content) -> list[str]:
    panels = [(_panel_title(panel), _panel_article(panel, content)) for panel in content.panels]
    return [
        html_section("notes", "Notes", _note_list(content)),
        html_section("accuracy", "Accuracy against density", html_picker("Measured:", panels), _ACCURACY_TEXT),
        html_section("transfer", "Transfer", _transfer_maps(content), _TRANSFER_TEXT),
        html_section("learnt", "What the searches learnt", _chart_grid(content.learned_charts, content), _LEARNED_TEXT),
        html_section("layers", "Density of each layer", _heat_map_picker("Tickets:", content.layer_maps), _LAYERS_TEXT),
        *(_analysis_section(part, content) for part in content.sections),
        html_section("searches", "Search cost", search_table(content)),
        html_section("all", "All numbers", all_means_table(content), _NUMBERS_TEXT),
        html_section("made", "How each number was made", provenance_table(content)),
    ]


_ACCURACY_TEXT = (
    "Lines are means, bands one standard deviation over searches: trainings of one search are averaged first. In "
    "differences, bands are 95% intervals (Welch's t) of each density by itself. The dashed line is the dense network, "
    "or what is compared with."
)
_TRANSFER_TEXT = (
    "A row for what tickets were found by, a column for each protocol, shaded from its least to its greatest mean."
)
_LEARNED_TEXT = (
    "Each search's own measures at the end of each of its trainings, against the density of the network that was "
    "trained there: not the ticket that came of it, but what it was cut from."
)
_LAYERS_TEXT = (
    "What remains of each layer, in %, the input at the top, from the dense network to the sparsest ticket; "
    "shades are logarithmic. Orange: a layer that lost every weight."
)
_NUMBERS_TEXT = (
    "Every mean of the report, over searches, and of controls over draws. A heading sorts; the number of trainings "
    "opens those that the mean is of."
)


def _panel_title(panel: Panel) -> str:
    return f"{text.describe_panel(panel.summary)}, protocol {panel.summary['protocol'].iloc[0]}"


def _panel_article(panel: Panel, content: Content) -> str:
    chart = panel.accuracy_chart()
    drawn = "".join(
        f'<div class="{kind}">{draw_svg(chart, content.styles, *size)}</div>'
        for kind, size in {"wide": WIDE, "narrow": NARROW}.items()
    )
    top5 = panel.summary.assign(top1=panel.summary["top5"], top1_sd=math.nan)
    tables = (
        _means_table(text.means_grid(panel.summary), text.panel_caption(panel.summary))
        + html_details("Top-5", _means_table(text.means_grid(top5), "Mean top-5 in %"))
        + (html_details("Differences and their intervals", _comparison_table(panel)) if len(panel.comparisons) else "")
        + cost_table(panel)
    )
    small = "".join(html_card(_small_chart(each, content)) for each in panel.difference_charts())
    costs = [(COST_NAMES[unit], _small_chart(each, content)) for unit, each in panel.cost_charts().items()]
    if costs:
        small += html_card(html_picker("Cost in", costs))
    return (
        f"<article><h3>{escaped(_panel_title(panel))}</h3>{html_card(drawn)}"
        f'{_control_list(panel)}<div class="grid">{small}</div>{html_card(tables)}</article>'
    )


def _control_list(panel: Panel) -> str:
    """What the controls are that this panel has."""
    found = [control for control in rows.CONTROL_DESCRIPTIONS if control in set(panel.summary["control"])]
    told = "; ".join(f"{control}: {rows.CONTROL_DESCRIPTIONS[control]}" for control in found)
    return f'<p class="soft">Controls. {escaped(told)}.</p>' if found else ""


def _note_list(content: Content) -> str:
    """What was split, and what differs all the same; what is to be typed is set as code."""
    told = [re.sub("`([^`]*)`", r"<code>\1</code>", escaped(note)) for note in content.notes]
    listed = f'<ul class="notes">{"".join(f"<li>{note}</li>" for note in told)}</ul>'
    if len(told) > _MAX_OPEN_NOTES:
        return html_card(html_details(f"{len(told)} notes", listed))
    return html_card(listed) if told else ""


def _small_chart(chart: Chart, content: Content) -> str:
    return draw_svg(chart, content.styles, *NARROW)


def _chart_grid(charts: Sequence[Chart], content: Content, of: str = "") -> str:
    """Small charts side by side, below their titles; `of`, with which all begin, is hidden where a list says it."""
    cards = []
    for chart in charts:
        said = f'<span class="of">{escaped(of)}</span>' if of and chart.title.startswith(of) else ""
        title = f"{said}{escaped(chart.title.removeprefix(of))}"
        cards.append(html_card(f"<h3>{title}</h3>{_small_chart(chart, content)}"))
    return f'<div class="grid">{"".join(cards)}</div>' if cards else ""


def _analysis_section(part: Section, content: Content) -> str:
    own = {name: content.styles[name] for name, *_ in part.series if name not in content.shared_styles}
    picks = [
        html_picker(pick.label, [(choice.name, _choice_figures(choice, content)) for choice in pick.groups])
        for pick in part.pickers
    ]
    legend = _legend(own, f"Series of {part.title}", "here")
    return html_section(part.name, part.title, legend + "".join(picks), part.explanation)


def _choice_figures(choice: FigureGroup, content: Content) -> str:
    return _chart_grid(choice.charts, content, f"{choice.name}: ") + "".join(
        html_card(html_heat_map(heat)) for heat in choice.heat_maps
    )


def _transfer_maps(content: Content) -> str:
    if not content.transfer_maps:
        return ""
    parts = [(heat.title.partition(":")[0], html_heat_map(heat)) for _, heat in content.transfer_maps]
    return html_card(html_picker("Shown:", parts, fullest_map_index(content.transfer_maps)))


def _heat_map_picker(label: str, heats: list[HeatMap]) -> str:
    return html_card(html_picker(label, [(heat.title, html_heat_map(heat)) for heat in heats])) if heats else ""


def _means_table(cells: pd.DataFrame, caption: str) -> str:
    body = [
        [f"{text.format_percent(density)}%", *line] for density, line in zip(cells.index, cells.to_numpy(), strict=True)
    ]
    return html_table(caption, ["Weights left", *cells.columns], body)


def _comparison_table(panel: Panel) -> str:
    body = [
        [
            *(f"{row['series']} less {row['against']}", f"{text.format_percent(row['density'])}%"),
            *(text.format_points(row["difference"]), text.format_interval(row["low"], row["high"]), f"{row['p']:.2g}"),
            *(str(row["n"]), str(row["n_against"]), str(row["trainings"]), str(row["trainings_against"])),
            text.format_verdict(row),
        ]
        for row in panel.comparisons.to_dict("records")
    ]
    head = ["Series", "Weights left", "Difference", "95% interval", "p", "n", "n against"]
    head += ["Trainings", "Trainings against", "Verdict"]
    caption = (
        "Differences of mean top-1 in points; n counts searches, of random tickets draws; p is corrected for the "
        "number of densities (Holm)"
    )
    return html_table(caption, head, body, words=(0, 9))
