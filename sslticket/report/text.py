"""Numbers as words: cells, tables for the terminal and for LaTeX."""

import math
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pandas as pd

from sslticket import escaping
from sslticket.report.stats import PANEL_KEYS

MISSING = "\N{EN DASH}"


def format_percent(density: float) -> str:
    """A density in per cent to three digits: "100", "51.2", "1.07"."""
    return f"{100 * density:.3g}"


def format_mean_sd(mean: float, sd: float) -> str:
    """A fraction and its standard deviation in per cent: "97.2 ± 0.3", or "97.2" for a single training."""
    return f"{100 * mean:.1f}" if math.isnan(sd) else f"{100 * mean:.1f} ± {100 * sd:.1f}"


def format_points(difference: float) -> str:
    """A difference of fractions in percentage points, with its sign: "+1.3", "−5.8"."""
    return f"{100 * difference:+.1f}".replace("-", "\N{MINUS SIGN}")


def format_interval(low: float, high: float) -> str:
    """A 95% interval in percentage points: "−8.1 to −4.0"; "–" where there is none."""
    return MISSING if math.isnan(low) else f"{format_points(low)} to {format_points(high)}"


def format_verdict(row: Mapping[Any, Any]) -> str:
    """That of a row of `stats.compare_series`, with the reason: "too few to tell: one search"."""
    return f"{row['verdict']}: {row['why']}" if row["why"] else str(row["verdict"])


def format_sample_size(n: int, what: str, rows: int, row: str = "training") -> str:
    """What a mean rests on: "3 searches", "3 searches, 6 trainings".

    Args:
        n: Number of independent ones.
        what: What these are, "search" or "draw".
        rows: Number of measurements.
        row: What a measurement is.
    """
    words = f"{n} {what}{('es' if what.endswith('ch') else 's') * (n != 1)}"
    return words if rows == n else f"{words}, {rows} {row}{'s' * (rows != 1)}"


def disconnection_warning(least: float, cut: int, n: int) -> str:
    """A warning of the weights that are on no path from input to output; "" where none of the searches needs it.

    Args:
        least: Least effective density of the searches, a fraction.
        cut: Number of searches of which it is 0 or below half of the density.
        n: Number of searches.
    """
    where = f" in {cut} of {n}" if n > 1 else ""
    return f", effective density {format_percent(least)}%{where}" if cut else ""


def means_grid(panel: pd.DataFrame) -> pd.DataFrame:
    """One panel of a summary as cells of text: densities down (densest first), series across, "–" for unmeasured.

    n counts searches. Where not all cells have the same, a column's name tells it, or each cell of one that mixes them.
    """
    cells: dict[str, dict[float, tuple[float, float, int]]] = {}
    columns = (panel[key].tolist() for key in ("series", "density", "top1", "top1_sd", "n"))
    for name, density, *values in zip(*columns, strict=True):
        cells.setdefault(name, {})[density] = values[0], values[1], values[2]
    all_alike = panel["n"].nunique() == 1
    found = {}
    for name, own in cells.items():
        counts = {n for *_, n in own.values()}
        words = "" if all_alike or len(counts) > 1 else f" (n={min(counts)})"
        found[f"{name}{words}"] = {
            density: format_mean_sd(mean, sd) + (f" (n={n})" if len(counts) > 1 else "")
            for density, (mean, sd, n) in own.items()
        }
    return pd.DataFrame(found).sort_index(ascending=False).fillna(MISSING)


BOLD_WORDS = "bold: matching, within one standard error of the dense network, or of one search within 1 point"


def bold_cells(panel: pd.DataFrame, cells: pd.DataFrame, bold: Mapping[str, Collection[float]]) -> set[tuple[int, int]]:
    """Line and column of the cells of `means_grid` that are in bold.

    Args:
        panel: What the cells were made of.
        cells: The cells.
        bold: For each series the densities whose means are.
    """
    columns = {name: place for place, name in enumerate(dict.fromkeys(panel["series"].tolist()))}
    lines = {density: place for place, density in enumerate(cells.index)}
    return {
        (lines[each], columns[name])
        for name, densities in bold.items()
        if name in columns
        for each in densities
        if each in lines
    }


def describe_panel(panel: pd.DataFrame) -> str:
    """The network, the images that a panel's numbers are of, and the condition that tells it from others of those."""
    first = panel.iloc[0]
    return (
        f"{describe_network(first['model'], first['within'])} on {first['target']}{add_condition(first['condition'])}"
    )


def add_condition(condition: str) -> str:
    """What tells panels apart, in brackets: " (start k)"; "" for nothing."""
    return f" ({condition})" if condition else ""


def describe_network(model: str, within: str) -> str:
    """A network, with the layers that might be pruned where these are not all."""
    return f"{model} pruned {within}" if within else model


def panel_caption(panel: pd.DataFrame) -> str:
    """What a panel's numbers are, in one line."""
    counts = panel["n"].unique()
    repeats = f", n = {counts[0]}" if len(counts) == 1 else ""
    first = panel.iloc[0]
    protocol = ", ".join(filter(None, [f"protocol {first['protocol']}", first["condition"]]))
    of = f"{describe_network(first['model'], first['within'])} on {first['target']} ({protocol})"
    return f"Top-1 in % of {of}: mean ± standard deviation over searches{repeats}"


def terminal_tables(summary: pd.DataFrame) -> str:
    """The summary for the terminal: for every protocol and model a table, densities in per cent of the weights."""
    tables = []
    for _, panel in summary.groupby(PANEL_KEYS, sort=False):
        cells = means_grid(panel)
        words = [["density", *(f"{format_percent(density)}%" for density in cells.index)]]
        words += [[name, *cells[name]] for name in cells.columns]
        tables.append(f"{panel_caption(panel)}\n\n{align_columns(words)}")
    return "\n\n".join(tables)


def align_columns(cells: Sequence[Sequence[str]]) -> str:
    """Columns, each with its heading first, set to the right and with a rule below the headings."""
    widths = [max(map(len, column)) for column in cells]
    ruled = [
        [cell.rjust(width) for cell in (column[0], "-" * width, *column[1:])]
        for column, width in zip(cells, widths, strict=True)
    ]
    return "\n".join("  ".join(line) for line in zip(*ruled, strict=True))


def latex_tables(summary: pd.DataFrame, bold: Sequence[Mapping[str, Collection[float]]] = ()) -> str:
    r"""The summary as one LaTeX table for every protocol and model, to be read with \input; needs booktabs.

    Args:
        summary: The frame of `stats.summarize`.
        bold: For each panel, in its order, the densities of each series whose means are bold.
    """
    tables, labels = [], Counter[str]()
    for number, (_, panel) in enumerate(summary.groupby(PANEL_KEYS, sort=False)):
        cells = means_grid(panel)
        marked = bold_cells(panel, cells, bold[number]) if number < len(bold) else set()
        head = " & ".join(["Weights left", *map(escaping.escape_latex, cells.columns)])
        lines = [
            " & ".join(
                [
                    rf"{format_percent(density)}\,\%",
                    *(_latex_cell(cell, (place, column) in marked) for column, cell in enumerate(line)),
                ]
            )
            + r" \\"
            for place, (density, line) in enumerate(zip(cells.index, cells.to_numpy(), strict=True))
        ]
        first = panel.iloc[0]
        label = "-".join(filter(None, [first["model"], first["target"], first["protocol"], first["condition"]]))
        label = re.sub("[^a-z0-9]+", "-", label.lower()).strip("-")
        labels[label] += 1
        label += f"-{labels[label]}" if labels[label] > 1 else ""
        caption = escaping.escape_latex(panel_caption(panel) + (f"; {BOLD_WORDS}" if marked else ""))
        tables.append(
            "\n".join(
                [
                    *(r"\begin{table}", r"\centering", rf"\caption{{{caption}.}}", rf"\label{{tab:{label}}}"),
                    *(rf"\begin{{tabular}}{{r{'r' * len(cells.columns)}}}", r"\toprule", rf"{head} \\", r"\midrule"),
                    *(*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}", ""),
                ]
            )
        )
    return "% \\usepackage{booktabs}\n" + "\n".join(tables)


def _latex_cell(cell: str, bold: bool) -> str:
    if cell == MISSING:
        return "--"
    return rf"\textbf{{{escaping.escape_latex(cell)}}}" if bold else escaping.escape_latex(cell)
