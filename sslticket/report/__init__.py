"""Rows in; one page, figures and tables out; tickets are never opened here."""

import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from sslticket.errors import BadInput
from sslticket.storage.files import atomic_write

if TYPE_CHECKING:
    from sslticket.report.content import Content


MIN_WIDTH, MAX_WIDTH = 2.0, 20.0
"""Widths of figures, in inches."""


class WrittenReport(NamedTuple):
    """What a report left: its files, its table of means as text for the terminal, and what its reader must know."""

    html: Path
    png: Path
    figures: tuple[Path, ...]
    latex: Path | None
    text: str
    notes: tuple[str, ...]


def write_report(
    places: Sequence[Path],
    output: Path,
    *,
    figures: Path | None = None,
    kind: str = "pdf",
    latex: Path | None = None,
    width: float = 7.2,
) -> WrittenReport:
    """Draw all rows of folders and tables as the page `output` and, beside it, the curves as a PNG of the same stem.

    Where nothing was scored, the PNG has the first figures of the analyses.

    Each file appears whole or not at all, none where one of them cannot be made, and the same rows give the same bytes.

    Args:
        places: Folders of runs, and tables of rows, see `table.read_rows`.
        output: Name of the page, which ends in .html.
        figures: Folder for each figure as a file of its own, and beside it as Vega-Lite (NAME.vl.json); None for none.
        kind: Format of these files: png, pdf or svg.
        latex: Name of a file for the means as a table, which ends in .tex; None for none.
        width: Width of each of these figures in inches.

    Raises:
        BadInput: If a name has another ending, or the rows are missing or broken (see `table.read_rows`).
    """
    if output.suffix not in (".html", ".htm") or output.is_dir():
        raise BadInput(f"{output} is no name for a page; give -o a file name that ends in .html")
    if latex is not None and (latex.suffix != ".tex" or latex.is_dir()):
        raise BadInput(f"{latex} is no name for a LaTeX table; give --latex a file name that ends in .tex")
    if figures is not None and figures.exists() and not figures.is_dir():
        raise BadInput(f"{figures} is a file; give --figures the name of a folder")
    if not MIN_WIDTH <= width <= MAX_WIDTH:
        raise BadInput(
            f"a figure of {width:g} inches cannot be read; give --width between {MIN_WIDTH:g}in and {MAX_WIDTH:g}in"
        )
    # Not at the top: matplotlib and pandas take a second, which `sslticket --help` must not pay.
    from sslticket.report import page, text
    from sslticket.report.content import Content
    from sslticket.results import table

    frame = table.read_rows(places)
    if frame["kind"].isin(["level", "diverged"]).all():
        raise table.no_rows_error(places, "score rows")
    content = Content(frame)
    drawn: list[Path] = []
    with ExitStack() as stack:

        def put(path: Path, made: bytes) -> None:
            stack.enter_context(atomic_write(path)).write_bytes(made)

        if figures:
            for name, made, spec in _figure_files(content, kind, width):
                path = figures / name
                drawn.append(path.with_stem(f"{path.stem}-{len(drawn)}") if path in drawn else path)
                put(drawn[-1], made)
                put(drawn[-1].with_name(f"{drawn[-1].stem}.vl.json"), spec)
        if latex:
            put(latex, text.latex_tables(content.summary, content.bold).encode(errors="backslashreplace"))
        png = output.with_suffix(".png")
        put(png, _overview_figure(content))
        put(output, page.render_page(content).encode(errors="backslashreplace"))
    return WrittenReport(output, png, tuple(drawn), latex, text.terminal_tables(content.summary), content.notes)


_MAX_OVERVIEW = 4
"""Charts of the PNG where panels are split into parts."""


def _overview_figure(content: "Content") -> bytes:
    from sslticket.report import figures
    from sslticket.report.content import join_names

    by_panel = [panel.accuracy_charts for panel in content.panels]
    drawn, footer = [chart for parts in by_panel for chart in parts], ""
    if len(by_panel) < len(drawn) > _MAX_OVERVIEW:  # the first part of each panel, then the second ...
        drawn = [chart for parts in zip_longest(*by_panel) for chart in parts if chart is not None]
        drawn, left_out = drawn[:_MAX_OVERVIEW], drawn[_MAX_OVERVIEW:]
        footer = f"{len(left_out)} more charts are on the page: {join_names(chart.title for chart in left_out)}"
    drawn = drawn or list(content.charts())[:4]
    if drawn:
        return figures.figure_bytes(figures.draw_charts(drawn, content.styles, footer=footer), "png")
    return figures.figure_bytes(figures.draw_heat_map(next(content.heat_maps())), "png")


def _figure_files(content: "Content", kind: str, width: float) -> Iterator[tuple[str, bytes, bytes]]:
    """The name and content of a file for each figure of the page, and its Vega-Lite."""
    from sslticket.report import figures, vega

    for chart in content.charts():
        yield (
            figures.figure_filename(_told_name(chart.name, chart.title), kind),
            figures.figure_bytes(figures.draw_charts([chart], content.styles, width), kind),
            vega.chart_spec(chart, content.styles),
        )
    for heat in content.heat_maps():
        name = figures.figure_filename(_told_name(heat.name, heat.title), kind)
        yield name, figures.figure_bytes(figures.draw_heat_map(heat, width), kind), vega.heat_spec(heat)


def _told_name(name: str, title: str) -> str:
    """A name that says what is shown: of those with a number at the end, the words of the title."""
    if (plain := re.sub(r"(-\d+)+$", "", name)) == name or re.fullmatch(r"transfer-.*", name):
        return name
    words = re.sub(r"[^\w.%]+", "-", title).strip("-")
    return f"{plain}-{words}"[:_MAX_NAME]


_MAX_NAME = 140
"""Letters of a figure's name."""
