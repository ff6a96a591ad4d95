"""One self-contained HTML page from the rows: nothing fetched, every value escaped, whole without its script.

`page.html.j2` has the page's elements and its words; the functions here say what stands in them.
"""

import base64
import hashlib
import math
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any

import pandas as pd
from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from sslticket.escaping import escape_html, escape_terminal, json_for_script
from sslticket.report import naming, stats, text, verdicts
from sslticket.report.chart import (
    BADGES,
    CARDS,
    COLOURS,
    DARK_COLOURS,
    MAX_SERIES,
    TINTS,
    Chart,
    HeatMap,
    SeriesStyle,
    direct_labels,
    format_count,
    format_duration,
    tinted,
)
from sslticket.report.content import Content, Panel, kind_title
from sslticket.report.sections.scores import COST_AXES, COST_NAMES, fullest_map_index
from sslticket.report.stats import PANEL_KEYS, is_label_agnostic
from sslticket.report.svg import draw_svg, svg_badge, svg_mark, svg_swatch
from sslticket.results.rows import CONTROLS

WIDE, NARROW = (1080, 420), (360, 310)
"""Sizes of charts in CSS pixels: text is as large in both, on a desktop's screen and on a phone's."""

SHADE_STEPS = 10
"""Cells are shaded in so many steps: classes h0 to h9 of the page's style, for its policy forbids styles in place."""

_DIFFERENCE_STEPS = 5
"""The same of differences, on either side of 0: classes dm5 to dp5."""
_MAX_NAMED_SERIES = 4  # series that a sentence can name one by one
_MAX_OPEN_NOTES = 6  # notes that are shown unasked
_MEAN_KEYS = [*PANEL_KEYS, "series", "density"]
_MADE_KEYS = ["run", "command", "commit", "data_hash"]
_PROVENANCE_KEYS = ["kind", "command", "commit", "data_hash", "device", "numerics", "versions"]
_SUBSET_OF = {"classes": "the classes of ", "random": "the images, whatever they show, of "}


@dataclass(frozen=True)
class Table:
    """A table of text whose first column heads its lines.

    Attributes:
        caption: What a screen reader and the page say of it.
        head: A name for each column.
        lines: Cells of each line.
        text_columns: Places of the columns of words, set to the left; empty where all but the first hold numbers.
        bold: Line and column of cells in bold.
    """

    caption: str
    head: list[str]
    lines: list[list[str]]
    text_columns: tuple[int, ...] = ()
    bold: frozenset[tuple[int, int]] = frozenset()


def render_page(content: Content) -> str:
    """The page; the same rows give the same text."""
    shared = content.shared_styles
    page = (
        _environment(content.styles)
        .get_template("page.html.j2")
        .render(
            content=content,
            subjects=content.subjects,
            headlines=[_headline(panel, content.styles) for panel in content.panels],
            panels=[_panel_view(panel) for panel in content.panels],
            notes=[re.split("`([^`]*)`", note) for note in content.notes],
            transfer_names=[heat.title.partition(":")[0] for _, heat in content.transfer_maps],
            transfer_first=fullest_map_index(content.transfer_maps) if content.transfer_maps else 0,
            own_styles={
                part.name: {name: content.styles[name] for name, *_ in part.series if name not in shared}
                for part in content.sections
            },
            search_table=_search_table(content),
            means=Table(
                "", _MEAN_HEAD, [_mean_cells(row) for row in content.summary.to_dict("records")], text_columns=(0, 1, 2)
            ),
            provenance=_provenance(content),
            style=Markup(_style_sheet(content.styles)),
            script=Markup(_read_asset("page.js")),
            data=Markup(_trainings_json(content)),
        )
    )
    return page + "\n"


def render_figure_page(content: Any, styles: Mapping[str, SeriesStyle], **words: Any) -> str:
    """The page of a figure of a paper; the same rows give the same text.

    Args:
        content: What `figure.html.j2` shows: a `campaign.drawing.FigureContent`.
        styles: The style of every series.
        words: Other words for the page.
    """
    style = Markup(_style_sheet(styles))
    page = (
        _environment(styles).get_template("figure.html.j2").render(content=content, styles=styles, style=style, **words)
    )
    return page + "\n"


def _environment(styles: Mapping[str, SeriesStyle]) -> Environment:
    # Signs that cannot be printed are spelled out before a word is escaped; our own drawings come as Markup.
    environment = Environment(
        autoescape=True,
        loader=FunctionLoader(_read_asset),
        undefined=StrictUndefined,
        finalize=lambda value: escape_terminal(value) if type(value) is str else value,
    )
    environment.globals.update(
        draw=lambda chart, size=NARROW: Markup(draw_svg(chart, styles, *size)),
        direct_labels=direct_labels,
        badges_of=_badges_of,
        badge=lambda kind: Markup(svg_badge(kind)),
        swatch=lambda style: Markup(svg_swatch(style)),
        svg_mark=lambda mark: Markup(svg_mark(mark, styles)),
        table_body=_table_body,
        heat_body=_heat_body,
        digest=_digest,
        wide=WIDE,
        max_named=_MAX_NAMED_SERIES,
        max_series=MAX_SERIES,
        styles=styles,
        max_open_notes=_MAX_OPEN_NOTES,
    )
    return environment


def _read_asset(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text("utf-8")


def _digest(element: str) -> str:
    """The hash by which the page's policy allows a style or a script."""
    return "sha256-" + base64.b64encode(hashlib.sha256(element.encode()).digest()).decode()


def _badges_of(chart: Chart) -> list[tuple[str, str]]:
    """The marks of a chart's points and what they mean."""
    found = {each for curve in chart.curves for point in curve.points for each in point.badges}
    return [(kind, words) for kind, words in BADGES.items() if kind in found]


def _table_body(table: Table, counted: str = "") -> Markup:
    """The lines of a table as HTML: Jinja takes seconds for the cells of ten thousand rows.

    Args:
        table: The table.
        counted: Name of an attribute that has the number of each line; "" for none.
    """
    numeric = {*range(1, len(table.head))} - {*table.text_columns} if table.text_columns else set()
    opened = ['<td class="num">' if column in numeric else "<td>" for column in range(len(table.head))]
    lines = []
    for number, (head, *cells) in enumerate(table.lines):
        told = [_escaped(cell) for cell in cells]
        for line, column in table.bold:
            if line == number:
                told[column - 1] = f"<b>{told[column - 1]}</b>"
        start = f'<tr data-{counted}="{number}">' if counted else "<tr>"
        middle = "".join(f"{opened[column]}{cell}</td>" for column, cell in enumerate(told, start=1))
        lines.append(f'{start}<th scope="row">{_escaped(head)}</th>{middle}</tr>')
    return Markup("".join(lines))


def _heat_body(heat: HeatMap) -> Markup:
    """The lines of a heat map as HTML."""
    lines = []
    for name, cells in zip(heat.rows, heat.cells, strict=True):
        told = (
            "<td>\N{EN DASH}</td>" if cell is None
            else f'<td class="{_shade_class(cell[1], heat.of_differences)}">{_escaped(cell[0])}</td>'
            for cell in cells
        )  # fmt: skip
        lines.append(f'<tr><th scope="row">{_escaped(name)}</th>{"".join(told)}</tr>')
    return Markup("".join(lines))


@lru_cache(maxsize=1 << 14)
def _escaped(words: str) -> str:
    return escape_html(escape_terminal(words))


def _shade_class(shade: float, of_differences: bool = False) -> str:
    if of_differences:
        step = min(_DIFFERENCE_STEPS, math.ceil(abs(shade) * _DIFFERENCE_STEPS))
        return "d0" if not step else f"d{'m' if shade < 0 else 'p'}{step}"
    return "cut" if math.isnan(shade) else f"h{min(SHADE_STEPS - 1, max(0, int(shade * SHADE_STEPS)))}"


def _style_sheet(styles: Mapping[str, SeriesStyle]) -> str:
    """The style sheet, and what depends on the rows: each series' colour and switch."""
    # Between the sixth shade and the seventh is a gap: no text could be read there, dark or light.
    alphas = [0.04, 0.13, 0.22, 0.3, 0.39, 0.48, 0.56, 0.8, 0.9, 1.0]
    assert len(alphas) == SHADE_STEPS
    shades = [
        f".heat td.h{step}{{background:rgb(var(--heat) / {alpha}){';color:var(--deep)' if alpha > 0.7 else ''}}}"
        for step, alpha in enumerate(alphas)
    ]
    shades += [
        f".heat td.d{sign}{step}{{background:rgb(var(--heat{sign}) / {alpha})"
        f"{f';color:var(--deep{sign})' if alpha > 0.7 else ''}}}"
        for sign in "mp"
        for step, alpha in enumerate([0.12, 0.26, 0.42, 0.8, 1.0], start=1)
    ]
    series = [
        f".s{style.index}{{--s:{_css_colour(style)}}}"
        f"main:has(#t{style.index}:not(:checked)) .chart .s{style.index}{{display:none}}"
        for style in styles.values()
    ]
    light, dark = (
        "".join(
            f"--c{number}{f't{tint}' * bool(tint)}:{tinted(colour, tint, card)};"
            for tint in range(len(TINTS))
            for number, colour in enumerate(colours)
        )
        for colours, card in zip((COLOURS, DARK_COLOURS), CARDS, strict=True)
    )
    palette = f":root{{{light}}}@media (prefers-color-scheme: dark){{:root{{{dark}}}}}"
    # Bands of many series would hide the lines.
    band = f":root{{--band:{0.14 if len(series) <= 4 else 0.07}}}"
    return _read_asset("page.css") + "\n".join([palette, *shades, *series, band])


def _css_colour(style: SeriesStyle) -> str:
    """A series' colour in words of the style sheet, which has others on a dark screen."""
    tint = f"t{style.tint}" if style.tint else ""
    return "var(--random)" if style.colour is None else f"var(--c{style.colour}{tint})"


def _mean_percent(row: dict[Any, Any]) -> str:
    return f"{text.format_mean_sd(row['top1'], row['top1_sd'])}%"


def _ticket_kind(row: dict[Any, Any]) -> str:
    if row["control"] == "random":
        return "random"
    return "label-agnostic" if is_label_agnostic(row["objective"]) else "labelled"


def _headline(panel: Panel, styles: dict[str, SeriesStyle]) -> dict[str, Any]:
    """What the sentence about a panel says, a tile for each series, and whether they differ."""
    common, beside = panel.common_rows, panel.own_head_rows.to_dict("records")
    compared = stats.comparable_rows(panel.summary)["series"].unique()
    found = panel.comparisons[panel.comparisons["density"] == panel.density]
    # What the report is about comes first: label-agnostic against labels.
    found = found.loc[found["against"].map(stats.is_random_series).sort_values(kind="stable").index]
    shown = pd.concat([common, panel.own_head_rows]) if len(common) else common
    return {
        "where": text.describe_panel(panel.summary),
        "density": text.format_percent(panel.density),
        "means": _told_means(common),
        # Tickets that start with their own head are no match for those that cannot.
        "own_head": [(_mean_percent(row), row["series"]) for row in beside] if len(beside) <= _MAX_NAMED_SERIES else [],
        "absent": [name for name in compared if name not in set(common["series"])],
        "verdicts": [
            verdicts.describe_verdict(each)
            for name, each in panel.verdicts.items()
            if name in set(compared) and not stats.is_random_series(name)
        ],
        "tiles": [_tile(row, styles[row["series"]]) for row in shown.to_dict("records")],
        "findings": [_finding(row) for row in found.to_dict("records")] if len(common) else [],
    }


def _told_means(common: pd.DataFrame) -> list[tuple[str, str]]:
    """The mean of each series, or of each kind of many the range: the best of several would be luck."""
    rows = common.to_dict("records")
    if len(rows) <= _MAX_NAMED_SERIES:
        return [(_mean_percent(row), f"{row['series']} tickets") for row in rows]
    kinds: dict[str, list[dict[Any, Any]]] = {}
    for row in rows:
        kinds.setdefault(_ticket_kind(row), []).append(row)
    found = []
    for kind, own in kinds.items():
        low, high = (100 * pick(row["top1"] for row in own) for pick in (min, max))
        words = f"{low:.1f} to {high:.1f}%" if len(own) > 1 else _mean_percent(own[0])
        named = "" if own[0]["series"] == kind else f" ({own[0]['series']})"
        beside = f" ({len(own)} series)" if len(own) > 1 else named
        found.append((words, f"{kind} tickets{beside}"))
    return found


def _tile(row: dict[Any, Any], style: SeriesStyle) -> dict[str, Any]:
    mean, _, sd = text.format_mean_sd(row["top1"], row["top1_sd"]).partition(" ")
    basis = f"{_ticket_kind(row)}, {text.format_sample_size(row['n'], row['what'], row['trainings'])}"
    warning = text.disconnection_warning(row["effective"], row["cut"], row["n"])
    return {"series": row["series"], "style": style, "mean": mean, "sd": sd, "basis": basis + warning}


def _finding(row: dict[Any, Any]) -> dict[str, Any]:
    """What a sentence about a row of `stats.compare_series` says."""
    what = "draws" if stats.is_random_series(row["against"]) else "searches"
    basis = f"{text.format_sample_size(row['n'], 'search', row['n'])} against {row['n_against']} {what}"
    if not math.isnan(row["low"]):
        corrected = f" corrected for {row['densities']} densities" if row["densities"] > 1 else ""
        interval = text.format_interval(row["low"], row["high"])
        basis = f"95% interval {interval}, p = {row['p']:.2g}{corrected}; {basis}"
    return {
        "series": row["series"],
        "against": row["against"],
        "points": text.format_points(row["difference"]),
        "basis": basis,
        "verdict": text.format_verdict(row),
        "differs": row["verdict"] in ("more", "less"),
    }


_BALANCED_WORDS = (
    "Mean over the classes of top-1 of each, in %, mean ± standard deviation: each class counts alike, however many "
    "evaluation images it has"
)


def _panel_view(panel: Panel) -> dict[str, Any]:
    """The charts and tables of a panel."""
    top5 = panel.summary.assign(top1=panel.summary["top5"], top1_sd=math.nan)
    balanced = panel.summary.assign(top1=panel.summary["balanced"], top1_sd=panel.summary["balanced_sd"])
    measured = set(panel.summary["control"])
    controls = [
        f"{name}: {each.description}" for name, each in CONTROLS.items() if name in measured and each.description
    ]
    return {
        "title": f"{text.describe_panel(panel.summary)}, protocol {panel.summary['protocol'].iloc[0]}",
        "accuracy": panel.accuracy_charts,
        "errors": panel.error_charts,
        "verdicts": _verdict_table(panel) if panel.verdicts else None,
        "difference_maps": panel.difference_maps,
        "controls": "; ".join(controls),
        "differences": panel.difference_charts,
        "costs": {
            ", ".join(filter(None, [COST_NAMES[unit], chart.part])): chart
            for unit, parts in panel.cost_charts.items()
            for chart in parts
        },
        "means": _means_table(panel.summary, text.panel_caption(panel.summary), panel.bold),
        "top5": _means_table(top5, "Mean top-5 in %"),
        "balanced": None if balanced["top1"].isna().any() else _means_table(balanced, _BALANCED_WORDS),
        "facets": _panel_facets(panel),
        "comparisons": _comparison_table(panel) if len(panel.comparisons) else None,
        "cost_table": _cost_table(panel),
    }


def _panel_facets(panel: Panel) -> list[tuple[str, str]]:
    """What a panel is of, by which it is chosen among many."""
    first = panel.summary.iloc[0]
    network = text.describe_network(first["model"], first["within"])
    named = {
        "network": network,
        "images": first["target"],
        "protocol": first["protocol"],
        "settings": first["condition"],
    }
    return [(name, str(value)) for name, value in named.items()]


def _verdict_table(panel: Panel) -> Table:
    """Where each series matches the dense network and wins, over all searches and for each."""
    caption = (
        "The sparsest tickets that match the dense network, and whether they win: over all searches, and of each "
        "search by its seed"
    )
    return Table(caption, verdicts.VERDICT_HEAD, verdicts.verdict_lines(panel.verdicts), tuple(range(6)))


def _means_table(panel: pd.DataFrame, caption: str, bold: Mapping[str, Collection[float]] | None = None) -> Table:
    cells = text.means_grid(panel)
    lines = list(zip(map(text.format_percent, cells.index), cells.to_numpy(), strict=True))
    marked = text.bold_cells(panel, cells, bold or {})
    caption += f"; {text.BOLD_WORDS}" if marked else ""
    return Table(
        caption, ["Weights left", *cells.columns], [[f"{density}%", *line] for density, line in lines],
        bold=frozenset((line, column + 1) for line, column in marked),
    )  # fmt: skip


def _comparison_table(panel: Panel) -> Table:
    lines = [
        [
            *(f"{row['series']} minus {row['against']}", f"{text.format_percent(row['density'])}%"),
            *(text.format_points(row["difference"]), text.format_interval(row["low"], row["high"]), f"{row['p']:.2g}"),
            *(str(row[key]) for key in ("n", "n_against", "trainings", "trainings_against")),
            text.format_verdict(row),
        ]
        for row in panel.comparisons.to_dict("records")
    ]
    head = ["Series", "Weights left", "Difference", "95% interval", "p", "n", "n against"]
    caption = (
        "Differences of mean top-1 in points; n counts searches, of random tickets draws; p is corrected for the "
        "number of densities (Holm)"
    )
    return Table(caption, [*head, "Trainings", "Trainings against", "Verdict"], lines, (0, 9))


def _cost_table(panel: Panel) -> Table | None:
    """What the ringed tickets cost, and how many times less than the supervised ones; None where no row tells."""
    own = panel.common_rows[panel.common_rows["control"] == "ticket"] if len(panel.common_rows) else panel.common_rows
    own = own.drop_duplicates("tickets").merge(panel.costs, on=["model", "tickets", "density"])
    if own.empty:
        return None
    supervised = own[own["objective"] == "supervised"].sort_values(["subset", "series"], ascending=[False, True])
    # Older rows tell source images only, whose number of views differs between objectives.
    unit = "forward_images" if own["cost_forward_images"].notna().all() else "samples"
    known = [each for each in COST_AXES if own[f"cost_{each}"].notna().any()]
    head = ["Tickets", *(COST_NAMES[each].capitalize() for each in known)]
    lines = [
        [row["tickets"], *(_cost_text(each, row[f"cost_{each}"]) for each in known)] for row in own.to_dict("records")
    ]
    if len(supervised):
        first = supervised.iloc[0]
        head.append(f"{COST_NAMES[unit].capitalize()}, {first['tickets']} ÷ this")
        for line, cost in zip(lines, own[f"cost_{unit}"], strict=True):
            line.append(f"{first[f'cost_{unit}'] / cost:.3g}\N{MULTIPLICATION SIGN}" if cost else text.MISSING)
    density = text.format_percent(panel.density)
    return Table(f"What the tickets of {density}%, ringed in the chart of cost, took to find", head, lines)


def _cost_text(unit: str, value: float) -> str:
    if math.isnan(value):
        return text.MISSING
    return format_duration(value) if unit == "seconds" else format_count(value)


def _search_table(content: Content) -> Table:
    """What each search cost, and how its own measures went; without lines where there are no level rows."""
    head = [
        "Run",
        "Found on",
        "Seed",
        "Levels",
        "Images through the network",
        "Source images",
        "Epochs",
        "Steps",
        "Time",
    ]
    head += ["Bad images", "First → last training"]
    caption = "What each search cost, and how well its networks learned their own task"
    lines = [_search_cells(str(run), own) for (run, _), own in content.levels.groupby(["run", "tickets"])]
    return Table(caption, head, lines, (0, 1, 10))


def _search_cells(run: str, own: pd.DataFrame) -> list[str]:
    last = own.iloc[-1]
    shots = naming.shots_per_class(last["settings"])
    subset = f"{shots} images a class" if shots else f"{100 * last['subset']:g}%"
    images = (last["cost_forward_images"], last["cost_samples"])
    return [
        run,
        f"{subset} of {_SUBSET_OF.get(last['subset_by'], '')}{last['source']}",
        str(last["search_seed"]),
        str(own["level"].max()),
        *(text.MISSING if math.isnan(count) else f"{count:,.0f}" for count in images),
        text.MISSING if math.isnan(last["cost_epochs"]) else format_count(last["cost_epochs"]),
        f"{last['cost_steps']:,.0f}",
        format_duration(last["cost_seconds"]),
        f"{own['bad_images'].max():.0f}",
        _metric_change(own),
    ]


def _metric_change(own: pd.DataFrame) -> str:
    """How the search's own measures went, "with 100% → 25% of the weights: rotation accuracy 0.93 → 0.71"."""
    trained = own[own["trained"].notna()]  # the row of level 0 tells of the few steps up to W_k
    if trained.empty:
        return ""
    first, last = trained.iloc[0], trained.iloc[-1]
    before, after = ({"loss": row["loss"], **row["metrics"]} for row in (first, last))
    ends = " → ".join(dict.fromkeys(f"{text.format_percent(row['trained'])}%" for row in (first, last)))
    common = [name for name in before if before[name] is not None and after.get(name) is not None]
    changes = ", ".join(f"{name} {before[name]:.3g} → {after[name]:.3g}" for name in common)
    return f"with {ends} of the weights: {changes}" if common else ""


_MEAN_HEAD = ["Series", "Model", "Protocol", "Weights left", "Top-1, %", "\N{PLUS-MINUS SIGN} sd", "95% interval"]
_MEAN_HEAD += ["Top-5, %", "n", "Trainings"]


def _mean_cells(row: dict[Any, Any]) -> list[str]:
    """A line of the table of all means, which the page's script sorts and filters."""
    return [
        row["series"],
        text.describe_network(row["model"], row["within"]),
        row["protocol"] + text.add_condition(row["condition"]),
        f"{text.format_percent(row['density'])}%",
        f"{100 * row['top1']:.2f}",
        text.MISSING if math.isnan(row["top1_sd"]) else f"{100 * row['top1_sd']:.2f}",
        text.MISSING if math.isnan(row["low"]) else f"{100 * row['low']:.2f} to {100 * row['high']:.2f}",
        f"{100 * row['top5']:.2f}",
        str(row["n"]),
        str(row["trainings"]),
    ]


def _trainings_json(content: Content) -> str:
    """The trainings that each mean is of, as JSON that no value can end early."""
    scores = content.trainings.sort_values(["search_seed", "seed"])
    makings: dict[tuple[str, ...], int] = {}
    means: dict[tuple[Any, ...], list[list[Any]]] = {}
    hows, keys = (zip(*(scores[key].tolist() for key in names), strict=True) for names in (_MADE_KEYS, _MEAN_KEYS))
    numbers = zip(*(scores[key].tolist() for key in ("unit", "search_seed", "replicate", "seed", "top1")), strict=True)
    for how, key, (unit, search_seed, replicate, seed, top1) in zip(hows, keys, numbers, strict=True):
        search = search_seed if unit.startswith("search") else replicate
        search = None if pd.isna(search) else int(search)
        training = [search, int(seed), top1, makings.setdefault(how, len(makings))]
        means.setdefault(key, []).append(training)
    ordered = [means[tuple(row)] for row in content.summary[_MEAN_KEYS].itertuples(index=False)]
    return json_for_script({"made": [tuple(map(str, each)) for each in makings], "means": ordered})


def _provenance(content: Content) -> dict[str, list[tuple[str, dict[str, str]]]]:
    """For each run, the commands that made its rows and what they ran on; rows made alike are listed together."""
    versions = content.rows["versions"].map(
        lambda known: ", ".join(f"{name} {version}" for name, version in sorted(known.items()))
    )
    return {str(run): list(_makings(own)) for run, own in content.rows.assign(versions=versions).groupby("run")}


def _makings(own: pd.DataFrame) -> Iterator[tuple[str, dict[str, str]]]:
    for key, alike in own.groupby(_PROVENANCE_KEYS, sort=False):
        kind, *values = map(str, key)
        protocols = ", ".join(alike["protocol"].dropna().unique())
        names = ["Command", "Commit", "Data", "Device", "Numerics", "Versions"]
        facts = dict(zip(names, values, strict=True)) | {"Rows": str(len(alike))}
        yield kind_title(kind) + (f" ({protocols})" if protocols else ""), facts
