"""Numbers as words: cells, tables for the terminal and for LaTeX."""

import math

import pandas as pd

from sslticket.report.statistics import PANEL

MISSING = "\N{EN DASH}"
_LATEX = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    '"': "''",
}


def percent(density: float) -> str:
    """A density in per cent to three digits: "100", "51.2", "1.07"."""
    return f"{100 * density:.3g}"


def spread(mean: float, sd: float) -> str:
    """A fraction and its standard deviation in per cent: "97.2 ± 0.3", or "97.2" for a single training."""
    return f"{100 * mean:.1f}" if math.isnan(sd) else f"{100 * mean:.1f} ± {100 * sd:.1f}"


def points(difference: float) -> str:
    """A difference of fractions in percentage points, with its sign: "+1.3", "−5.8"."""
    return f"{100 * difference:+.1f}".replace("-", "\N{MINUS SIGN}")


def interval(low: float, high: float) -> str:
    """A 95% interval in percentage points: "−8.1 to −4.0"; "–" where there is none."""
    return MISSING if math.isnan(low) else f"{points(low)} to {points(high)}"


def trainings(n: int, searches: int) -> str:
    """How often something was measured: "6 trainings of 3 searches"."""
    told = f"{n} training{'s' * (n != 1)}"
    return f"{told} of {searches} search{'es' * (searches != 1)}" if searches else told


def grid(panel: pd.DataFrame) -> pd.DataFrame:
    """One panel of a summary as cells of text: densities down (densest first), series across, "–" for unmeasured.

    Where not all cells have the same n, a column's name tells it, or each cell of a column that mixes them.
    """
    columns = {}
    for name, series in panel.groupby("series", sort=False):
        counts = series["n"].unique()
        told = "" if panel["n"].nunique() == 1 or len(counts) > 1 else f" (n={counts[0]})"
        columns[f"{name}{told}"] = {
            row["density"]: spread(row["top1"], row["top1_sd"]) + (f" (n={row['n']})" if len(counts) > 1 else "")
            for row in series.to_dict("records")
        }
    return pd.DataFrame(columns).sort_index(ascending=False).fillna(MISSING)


def where(panel: pd.DataFrame) -> str:
    """The network, pruned where, and the images that a panel's numbers are of."""
    first = panel.iloc[0]
    return f"{network(first['model'], first['within'])} on {first['target']}"


def network(model: str, within: str) -> str:
    """A network, with the layers that might be pruned where these are not all."""
    return f"{model} pruned {within}" if within else model


def caption(panel: pd.DataFrame) -> str:
    """What a panel's numbers are, in one line."""
    counts = panel["n"].unique()
    repeats = f", n = {counts[0]}" if len(counts) == 1 else ""
    of = f"{where(panel)} (protocol {panel['protocol'].iloc[0]})"
    return f"Top-1 in % of {of}: mean ± standard deviation{repeats}"


def terminal(summary: pd.DataFrame) -> str:
    """The summary for the terminal: for every protocol and model a table, densities in per cent of the weights."""
    tables = []
    for _, panel in summary.groupby(PANEL, sort=False):
        cells = grid(panel)
        columns = [["density", *(f"{percent(density)}%" for density in cells.index)]]
        columns += [[name, *cells[name]] for name in cells.columns]
        widths = [max(map(len, column)) for column in columns]
        columns = [
            [cell.rjust(width) for cell in (column[0], "-" * width, *column[1:])]
            for column, width in zip(columns, widths, strict=True)
        ]
        lines = ["  ".join(line) for line in zip(*columns, strict=True)]
        tables.append("\n".join([caption(panel), "", *lines]))
    return "\n\n".join(tables)


def latex(summary: pd.DataFrame) -> str:
    r"""The summary as one LaTeX table for every protocol and model, to be read with \input; needs booktabs."""
    tables = []
    for _, panel in summary.groupby(PANEL, sort=False):
        cells = grid(panel)
        head = " & ".join(["Weights left", *map(escaped, cells.columns)])
        lines = [
            " & ".join([rf"{percent(density)}\,\%", *map(_cell, line)]) + r" \\"
            for density, line in zip(cells.index, cells.to_numpy(), strict=True)
        ]
        tables.append(
            "\n".join(
                [
                    *(r"\begin{table}", r"\centering", rf"\caption{{{escaped(caption(panel))}.}}"),
                    *(rf"\begin{{tabular}}{{r{'r' * len(cells.columns)}}}", r"\toprule", rf"{head} \\", r"\midrule"),
                    *(*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}", ""),
                ]
            )
        )
    return "% \\usepackage{booktabs}\n" + "\n".join(tables)


def _cell(words: str) -> str:
    return "--" if words == MISSING else escaped(words)


def escaped(words: str) -> str:
    """Text in which LaTeX sees no command."""
    return "".join(_LATEX.get(sign, sign) for sign in words).replace("±", r"$\pm$")
