"""A figure of a paper, drawn from rows with the published numbers over it: files, a page, and lines about agreement."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import pandas as pd

from sslticket.campaign import agreement, published_numbers
from sslticket.campaign.figure import PAPERS
from sslticket.campaign.panel_values import (
    PanelValues,
    is_fraction,
    name_rows,
    non_dominated,
    panel_values,
    series_means,
    unused_rows,
)
from sslticket.campaign.panels import Finding, Panel, Published
from sslticket.campaign.published_numbers import PublishedNumber
from sslticket.errors import BadInput, unknown_name
from sslticket.report import figures, page, text
from sslticket.report.chart import (
    COLOURS,
    TINTS,
    Axis,
    Chart,
    Curve,
    Mark,
    NumberTable,
    Point,
    SeriesStyle,
    assign_styles,
)
from sslticket.report.sections.training_analyses import LOG_PRECISION
from sslticket.results import table
from sslticket.results.rows import shared_controls
from sslticket.storage.files import atomic_write


class DrawableFigure(Protocol):
    """What is drawn: a `campaign.figure.Figure`, or anything with its words and panels."""

    @property
    def name(self) -> str:
        """Name of its files."""
        ...

    @property
    def published_as(self) -> str:
        """Number of its paper in the table of published numbers."""
        ...

    @property
    def place(self) -> str:
        """Where it is in the paper."""
        ...

    @property
    def title(self) -> str:
        """What it shows."""
        ...

    @property
    def question(self) -> str:
        """What it answers."""
        ...

    @property
    def panels(self) -> Sequence[Panel]:
        """Its panels, at the scale that is drawn."""
        ...

    @property
    def findings(self) -> Sequence[Finding]:
        """What the paper states about them."""
        ...


class DrawnFigure(NamedTuple):
    """What drawing a figure left.

    Attributes:
        files: Its pictures.
        page: Its page.
        lines: What a person is told in the terminal: agreement, findings, what is left out.
        verdicts: What became of each finding.
        left_out: What is missing or was left out, a sentence each.
    """

    files: tuple[Path, ...]
    page: Path
    lines: tuple[str, ...]
    verdicts: tuple[agreement.Verdict, ...]
    left_out: tuple[str, ...]


_AXES: dict[str, Axis] = {
    "density": Axis("weights that remain, %", "density"),
    "sparsity": Axis("weights pruned, %"),
    "rewind_samples": Axis("rewound to, images seen", "count"),
    "rewind_iterations": Axis("rewound to iteration", "count"),
    "rewind_epochs": Axis("rewound to epoch"),
    "rewind_percent": Axis("rewound to, % of the training"),
    "epoch": Axis("epoch", "count"),
    "layer": Axis("layer, from the input", "count"),
    "share": Axis("weights that are smaller, %"),
}
_MAX_NAMED = 4
"""Densities that the small print names."""
_POINTS = ("gain_on_dense", "barrier")
"""Columns of differences of fractions."""
_WORDS = {
    "top1": "top-1, %",
    "top5": "top-5, %",
    "gain_on_dense": "top-1 minus the dense network's, points",
    "natural_zeros": "natural zeros, % of the weights",
    "order_distance": "L2 distance, data order",
    "order_angle": "angle in degrees, data order",
    "pruning_distance": "L2 distance, pruning",
    "pruning_angle": "angle in degrees, pruning",
    "layer_density": "weights of the layer remaining, %",
    "layer_pruned_ratio": "pruned share of the layer over that of the network",
    "search_forward_images": "images through the network in the search",
}


def draw_figure(
    figure: DrawableFigure,
    rows: pd.DataFrame,
    output: Path,
    *,
    formats: Sequence[str] = ("png", "pdf"),
    scale: str = "",
    command: str = "",
    failed: Sequence[str] = (),
) -> DrawnFigure:
    """Draw a figure's panels from rows, with the published numbers over them, and judge its findings.

    Every file appears whole or not at all, and the same rows give the same bytes.

    Args:
        figure: What to draw; its panels are those of the scale.
        rows: Frame of `read_rows`.
        output: Folder of the files.
        formats: Formats of the picture, of `figures.FORMATS`; the page NAME.html is always there.
        scale: Scale at which the rows were made; published values are compared with ours at "paper" only.
        command: Command that made the rows, for the page; "" for those that the rows tell.
        failed: What of the campaign failed, a line each.

    Raises:
        BadInput: If a format is unknown, a panel asks for published numbers that are not there, or no row is of the
            figure.
    """
    for kind in formats:
        if kind not in figures.FORMATS:
            raise unknown_name("format", kind, figures.FORMATS)
    content = FigureContent(figure, rows, scale=scale, failed=failed)
    name = figure.name
    drawn: list[Path] = []
    with ExitStack() as stack:
        if content.parts:
            picture = figures.draw_panels(content.parts, content.styles, content.footer)
            for kind in formats:
                drawn.append(output / f"{name}.{kind}")
                stack.enter_context(atomic_write(drawn[-1])).write_bytes(figures.figure_bytes(picture, kind))
        html = output / f"{name}.html"
        made = page.render_figure_page(content, content.styles, command=command)
        stack.enter_context(atomic_write(html)).write_bytes(made.encode(errors="backslashreplace"))
    return DrawnFigure(tuple(drawn), html, content.lines, tuple(content.verdicts), content.left_out)


@dataclass(frozen=True)
class PanelView:
    """A panel as it is shown.

    Attributes:
        values: Its numbers.
        part: Its chart or table; None where nothing of it is there.
        notes: What is known to be amiss in the published numbers over it, and other things to know.
        published: Published numbers that belong to it and are not drawn.
    """

    values: PanelValues
    part: Chart | NumberTable | None
    notes: tuple[str, ...]
    published: tuple[str, ...]

    def means_table(self) -> page.Table:
        """All means of the panel."""
        panel = self.values.panel
        means = series_means(self.values.values)
        x, place = {
            "table": ("density", "Weights left"),
            "histogram": ("magnitude", "log10 of the magnitude"),
        }.get(panel.kind, (panel.x, _x_axis(panel).label))
        if panel.kind == "histogram":  # the natural zeros
            means = means[means["x"] == means["x"].min()]
        column = ["Column"] if panel.columns else []
        head = ["Series", *column, place, "Mean", "95% interval", "n", "Trainings"]
        lines = []
        for row in means.to_dict("records"):
            y = _column_of(panel, row["column"])
            known = not math.isnan(row["low"])
            interval = f"{_format(y, row['low'])} to {_format(y, row['high'])}" if known else text.MISSING
            words = [row["series"], *([row["column"]] if column else []), _format_x(x, row["x"]), _format(y, row["y"])]
            lines.append([*words, interval, str(row["n"]), str(row["trainings"])])
        caption = f"{panel.title}: means over searches, of controls over draws, with Student's 95% interval"
        return page.Table(caption, head, lines)


class FigureContent:
    """Everything that a figure shows, computed once."""

    def __init__(
        self, figure: DrawableFigure, rows: pd.DataFrame, *, scale: str = "", failed: Sequence[str] = ()
    ) -> None:
        self.figure, self.scale = figure, scale
        told = list(rows.attrs.get("left_out", []))
        rows = table.printable_rows(rows).reset_index(drop=True)
        named = {x: name_rows(rows, x) for x in dict.fromkeys(panel.x for panel in figure.panels)}
        found = [panel_values(panel, named[panel.x]) for panel in figure.panels]
        if not any(len(each.values) for each in found):
            raise BadInput(
                f"none of the {len(rows):,} rows is of {figure.name}: no series of its panels has one; "
                f"`sslticket reproduce {figure.name}` makes them"
            )
        self.rows = pd.concat([each.rows for each in found])
        self.rows = self.rows[~self.rows.index.duplicated()]
        self.styles = series_styles(figure.panels)
        self.views = tuple(self._view(values) for values in found)
        self.parts = [view.part for view in self.views if view.part is not None]
        judged = agreement.Judge(found, paper=figure.published_as, scale=scale)
        self.agreement = tuple(line for values in found for line in judged.agreement_lines(values))
        self.verdicts = judged.verdicts(figure.findings)
        own = [f"{each.panel.title}: {sentence}" for each in found for sentence in each.left_out]
        unused = unused_rows(next(iter(named.values())), [each.rows for each in found])
        self.other_left_out = tuple(dict.fromkeys([*unused, *told, *failed]))
        self.left_out = tuple(dict.fromkeys([*own, *self.other_left_out]))

    @property
    def has_charts(self) -> bool:
        """Whether anything but tables is drawn."""
        return any(isinstance(part, Chart) for part in self.parts)

    @property
    def footer(self) -> str:
        """Small print: the scale, how many searches, and how the two kinds of numbers are told apart."""
        counts = sorted({int(n) for view in self.views for n in series_means(view.values.values)["n"]})
        searches = " to ".join(str(n) for n in dict.fromkeys((counts[0], counts[-1])))
        scale = f"{self.scale} scale, " if self.scale else ""
        marks = [mark for part in self.parts if isinstance(part, Chart) for mark in part.marks]
        tables = [part for part in self.parts if isinstance(part, NumberTable)]
        ways = ["white stars"] * any(mark.is_point for mark in marks)
        ways += ["dotted lines (P)"] * any(not mark.is_point for mark in marks)
        ways += ["[in brackets]"] * any(theirs for part in tables for _, cells in part.lines for _, theirs in cells)
        spread = "bands and \N{PLUS-MINUS SIGN} are Student's 95% intervals" if counts[-1] > 1 else "so no interval"
        return (
            f"Ours: {scale}{searches} search{'' if counts[-1] == 1 else 'es'} a mean, {spread}; "
            f"commit {', '.join(self.commits)}." + f" Published: {', '.join(ways)}." * bool(ways)
        ) + "".join(f" {sentence}" for sentence in (*self._density_words(), *self._missing_panels()))

    def _density_words(self) -> Iterator[str]:
        """At which densities the panels are whose axis does not tell."""
        found: dict[str, list[str]] = {}
        for view in self.views:
            panel = view.values.panel
            if view.part is None or panel.kind == "table" or panel.x in ("density", "sparsity"):
                continue
            sparse = [each for each in view.values.densities if each < 1]
            if 0 < len(sparse) <= _MAX_NAMED:
                words = ", ".join(f"{text.format_percent(each)}%" for each in sparse)
                found.setdefault(words, []).append(panel.title)
        drawn = sum(view.part is not None for view in self.views)
        for words, titles in found.items():
            yield f"Tickets of {words} of the weights" + ("." if len(titles) == drawn else f": {'; '.join(titles)}.")

    def _missing_panels(self) -> Iterator[str]:
        """The panels that are not drawn."""
        missing = [view.values.panel.title for view in self.views if view.part is None]
        if missing:
            yield f"Not drawn, for there are no rows: {'; '.join(missing)}."

    @property
    def commits(self) -> list[str]:
        """Commits of the code that made the rows."""
        return sorted(set(self.rows["commit"].astype(str)))

    @property
    def commands(self) -> list[str]:
        """Commands that made the rows."""
        return sorted(set(self.rows["command"].astype(str)))

    @property
    def seeds(self) -> str:
        """Seeds of the searches."""
        return ", ".join(str(seed) for seed in sorted({int(seed) for seed in self.rows["search_seed"].dropna()}))

    @property
    def paper(self) -> str:
        """The paper in words, or the number by which it is known."""
        known = (each for each in PAPERS.values() if each.number == self.figure.published_as)
        return ", ".join(f"{each.title} ({each.source})" for each in known) or f"paper {self.figure.published_as}"

    @property
    def lines(self) -> tuple[str, ...]:
        """What a person is told in the terminal."""
        told = [f"agreement: {line}" for line in self.agreement]
        told += [f"finding: {each.line}" for each in self.verdicts]
        return (*told, *(f"left out: {sentence}" for sentence in self.left_out))

    @property
    def other_numbers(self) -> list[str]:
        """Published numbers that belong to the figure and that no panel shows."""
        shown = {
            number.line
            for panel in self.figure.panels
            for wanted in panel.published
            for number in published_numbers.choose_numbers(wanted, self.figure.published_as)
        }
        whole = published_numbers.numbers_of_figure(self.figure.published_as, self.figure.place)
        return [_describe(number) for number in whole if number.line not in shown]

    def _view(self, values: PanelValues) -> PanelView:
        panel, paper = values.panel, self.figure.published_as
        chosen = [(wanted, published_numbers.choose_numbers(wanted, paper)) for wanted in panel.published]
        part: Chart | NumberTable | None = None
        if len(values.values):
            name = f"{self.figure.name}-{list(self.figure.panels).index(panel)}"
            if panel.kind == "table":
                part = _number_table(values, chosen, name)
            else:
                part = _chart(values, list(_marks(panel, chosen)), name)
        notes = published_numbers.known_ambiguities(number for _, numbers in chosen for number in numbers)
        beside = [_describe(number) for wanted, numbers in chosen for number in numbers if wanted.drawn == "note"]
        return PanelView(values, part, tuple(filter(None, [panel.note, *notes])), tuple(beside))


def series_styles(panels: Sequence[Panel]) -> dict[str, SeriesStyle]:
    """The style of each label: that of its objective; a control has the colour of what it is a control of.

    Where all are of one objective, and more than there are shades of its colour, each has a colour of its own.
    """
    found: dict[str, tuple[str, str, str]] = {}
    objectives: dict[str, str] = {}
    for panel in panels:
        for label, where in panel.series.items():
            control = where.get("control", "ticket")
            objective = where.get("objective", panel.where.get("objective", "supervised"))
            base = str(sorted((name, str(value)) for name, value in where.items() if name != "control")) or label
            if control in shared_controls():
                base = ""
            found.setdefault(label, (label, base, control if isinstance(control, str) else "ticket"))
            objectives.setdefault(base, objective if isinstance(objective, str) else label)
    styles = assign_styles(list(found.values()), objectives=objectives)
    tickets = [base for base in objectives if base]
    if len({objectives[base] for base in tickets}) == 1 and len(tickets) > len(TINTS):
        for label, base, _ in found.values():
            if base:
                styles[label] = replace(styles[label], colour=tickets.index(base) % len(COLOURS), tint=0)
    for panel in panels:
        for label in panel.fronts:
            name = _beside_front(label)
            styles[name] = replace(styles[label], index=len(styles), hollow=True)
    return styles


def _beside_front(label: str) -> str:
    return f"{label}, other tickets"


def _describe(number: PublishedNumber) -> str:
    of = ", ".join(filter(None, [number.network, number.dataset, number.method, number.condition]))
    note = f" ({number.note})" if number.note else ""
    return f"{number.quantity.replace('_', ' ')} of {of}: {number.words}, {number.place}{note}"


def _x_axis(panel: Panel) -> Axis:
    axis = _AXES.get(panel.x, Axis(panel.x.replace("_", " ")))
    log = panel.x_scale == "log" or (not panel.x_scale and (panel.x == "density" or panel.x.startswith("rewind_")))
    return replace(axis, label=panel.x_label or axis.label, log=log)


def _y_words(column: str) -> str:
    name = column.rpartition(".")[2]
    return _WORDS.get(name, name.replace("_", " "))


def _column_of(panel: Panel, title: str) -> str:
    if panel.kind == "histogram":
        return "share"
    return panel.columns.get(title, panel.y)


def _times(column: str) -> float:
    return 100.0 if is_fraction(column) else 1.0


def _format(column: str, value: float) -> str:
    value *= _times(column)
    digits = 1 if is_fraction(column) else 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f}".replace("-", "\N{MINUS SIGN}")


def _format_x(x: str, value: float) -> str:
    return f"{text.format_percent(value)}%" if x == "density" else f"{_times(x) * value:.4g}"


def _chart(values: PanelValues, marks: list[Mark], name: str) -> Chart:
    """The chart of a panel that is no table."""
    panel = values.panel
    if panel.kind == "histogram":
        return _magnitude_chart(values, marks, name)
    x, times = _x_axis(panel), _times(panel.x)
    means = series_means(values.values)
    if x.log and (means["x"] <= 0).any():
        positive = means.loc[means["x"] > 0, "x"]
        x = replace(x, zero_at=times * (float(positive.min()) / 3 if len(positive) else 1.0))
    unit = _times(panel.y)
    curves = []
    for label in panel.series:
        own = means[means["series"] == label]
        if own.empty:
            continue
        if label in panel.fronts:
            best = non_dominated(own, panel.x)
            others = own.loc[~own.index.isin(best.index)]
            curves.append(_curve(label, best, panel, x))
            if len(others):
                curves.append(replace(_curve(_beside_front(label), others, panel, x, band=False), no_line=True))
        else:
            curves.append(_curve(label, own, panel, x))
    # Only one line across fits: that of the first series which has a dense network.
    dense = values.dense[values.dense["column"] == ""].groupby("series", sort=False)["y"].mean()
    line = (unit * float(dense.iloc[0]), "dense network") if len(dense) and panel.y in ("top1", "top5") else None
    percent = is_fraction(panel.y) and panel.y not in _POINTS
    floor = 0.0 if panel.y.endswith(("_distance", "_angle")) else -math.inf
    return Chart(
        name=name,
        title=panel.title,
        x=x,
        y=Axis(panel.y_label or _y_words(panel.y)),
        curves=tuple(curves),
        horizontal_line=None if panel.x == "epoch" else line,
        y_bounds=(0, 100) if percent else (floor, math.inf),
        marks=tuple(replace(mark, x=_scaled(mark.x, times), y=_scaled(mark.y, unit), error=unit * mark.error)
                    for mark in marks),
    )  # fmt: skip


def _scaled(ends: tuple[float, float] | None, times: float) -> tuple[float, float] | None:
    return None if ends is None else (times * ends[0], times * ends[1])


def _curve(label: str, means: pd.DataFrame, panel: Panel, x: Axis, *, band: bool = True) -> Curve:
    ordered = means.sort_values("x", ascending=x.kind != "density")
    unit, times = _times(panel.y), _times(panel.x)
    points = []
    for row in ordered.to_dict("records"):
        ends = (row["low"], row["high"]) if band else (math.nan, math.nan)
        interval = "" if math.isnan(row["low"]) else f", 95% interval {_format(panel.y, row['low'])} to "
        interval += "" if not interval else _format(panel.y, row["high"])
        of = f" ({row['recipe']})" if label in panel.fronts or not band else ""
        told = f"{label}{of} at {_format_x(panel.x, row['x'])}: {_format(panel.y, row['y'])}{interval}, n = {row['n']}"
        at = max(times * row["x"], x.zero_at)
        points.append(Point(at, unit * row["y"], told, unit * ends[0], unit * ends[1]))
    return Curve(label, tuple(points), no_markers=panel.x == "epoch" and len(points) > 12)


def _magnitude_chart(values: PanelValues, marks: list[Mark], name: str) -> Chart:
    """Weights sorted by magnitude, cut off at machine precision, below which they are natural zeros."""
    panel = values.panel
    curves = []
    for label in panel.series:
        own = series_means(values.series(label)).sort_values("x")
        points = tuple(
            Point(100 * row["y"], row["x"], f"{label}: {100 * row['y']:.1f}% of the weights are below 1e{row['x']:.2g}")
            for row in own.to_dict("records")
        )
        if points:
            curves.append(Curve(label, points, no_markers=True))
    across = tuple(replace(mark, x=_scaled(mark.x, 100)) for mark in marks)
    label = panel.y_label or "log10 of the magnitude"
    return Chart(name, panel.title, _AXES["share"], Axis(label), tuple(curves), (LOG_PRECISION, "machine precision"),
                 marks=across)  # fmt: skip


def _marks(panel: Panel, chosen: Sequence[tuple[Published, tuple[PublishedNumber, ...]]]) -> Iterator[Mark]:
    """The published numbers over a chart, in the unit of its columns."""
    x = "natural_zeros" if panel.kind == "histogram" else panel.x
    count = 0
    seen = set()
    for wanted, numbers in chosen:
        for number in numbers:
            if wanted.drawn == "points":
                at = float(wanted.at or 0.0)
                ends = published_numbers.ends_in_column(number, panel.y)
                error = published_numbers.error_in_column(number, panel.y)
                words = wanted.words or f"published: {wanted.series} {number.words}"
                yield Mark("", words, (at, at), ends, math.nan if error is None else error, wanted.series)
            elif wanted.drawn in ("threshold-x", "threshold-y", "band"):
                across = wanted.drawn == "threshold-x" or (wanted.drawn == "band" and _is_of(number, x))
                ends = published_numbers.ends_in_column(number, x if across else panel.y)
                if (across, ends) in seen:  # a number that is repeated in the text is drawn once
                    continue
                seen.add((across, ends))
                count += 1
                brief = _brief(number)
                words = wanted.words if number.words in wanted.words else f"{wanted.words} ({brief})"
                told = f"published: {words if wanted.words else brief}"
                yield Mark(f"P{count}", told, ends if across else None, None if across else ends)


def _is_of(number: PublishedNumber, column: str) -> bool:
    try:
        published_numbers.ends_in_column(number, column)
    except BadInput:
        return False
    return True


def _brief(number: PublishedNumber) -> str:
    """A number in few words: "84.5% natural zeros", "rewind to at most 100 iterations"."""
    if number.quantity.startswith("rewind_"):
        return f"rewind to {number.words}{' of the training' * number.quantity.endswith('_training')}"
    words = number.quantity.removesuffix("_percent").replace("_", " ")
    return f"{number.words} {({'sparsity': 'pruned', 'top1': 'top-1'}).get(words, words)}"


def _number_table(
    values: PanelValues, chosen: Sequence[tuple[Published, tuple[PublishedNumber, ...]]], name: str
) -> NumberTable:
    """A line for each series, ours and the published numbers in the same cells."""
    panel = values.panel
    theirs: dict[tuple[str, str], list[str]] = {}
    for wanted, numbers in chosen:
        if wanted.drawn == "cells":
            for number in numbers:
                if number.unit != "percent" and not number.unit.startswith("1 yes"):
                    words = f"{number.ends[0]:,.10g}" + (f" ± {number.error:g}" if number.error is not None else "")
                else:
                    words = number.words.removesuffix("%")
                theirs.setdefault((wanted.series, wanted.column), []).append(words)
    means = series_means(values.values)
    lines = []
    for label in panel.series:
        cells = []
        for title, column in panel.columns.items():
            own = means[(means["series"] == label) & (means["column"] == title)]
            ours = "" if own.empty else _cell(column, own.iloc[0].to_dict())
            cells.append((ours, ", ".join(dict.fromkeys(theirs.get((label, title), [])))))
        lines.append((label, tuple(cells)))
    titles = tuple(_with_unit(title, column) for title, column in panel.columns.items())
    return NumberTable(name, panel.title, titles, tuple(lines))


def _with_unit(title: str, column: str) -> str:
    if column in _POINTS:
        return f"{title}, points"
    return f"{title}, %" if is_fraction(column) and "%" not in title else title


def _cell(column: str, row: Mapping[Any, Any]) -> str:
    half = (row["high"] - row["low"]) / 2
    reach = f" ± {_format(column, half)}" if half > 0 else ""  # numbers that follow from settings do not vary
    return f"{_format(column, row['y'])}{reach}"
