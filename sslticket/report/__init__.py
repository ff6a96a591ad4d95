"""Rows in; one page, figures and tables out; tickets are never opened here."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from sslticket.errors import BadInput
from sslticket.files import written_whole

if TYPE_CHECKING:
    from sslticket.report.content import Content


class Written(NamedTuple):
    """What a report left: its files, its table of means as text for the terminal, and what its reader must know."""

    html: Path
    png: Path
    figures: tuple[Path, ...]
    latex: Path | None
    text: str
    notes: tuple[str, ...]


def write(
    folders: Sequence[Path],
    output: Path,
    *,
    figures: Path | None = None,
    kind: str = "pdf",
    latex: Path | None = None,
) -> Written:
    """Draw all rows below `folders` as the page `output` and, beside it, the curves as a PNG of the same stem.

    Where nothing was scored, the PNG has the first figures of the analyses.

    Each file appears whole or not at all, none where one of them cannot be made, and the same rows give the same bytes.

    Args:
        folders: of runs.
        output: the page, a name that ends in .html.
        figures: a folder for each figure as a file of its own; None for none.
        kind: of these: png, pdf or svg.
        latex: a name that ends in .tex, for the means as a table; None for none.

    Raises:
        BadInput: if a name has another ending, or the rows are missing or broken (see `table.rows`).
    """
    if output.suffix not in (".html", ".htm") or output.is_dir():
        raise BadInput(f"{output} is no name for a page; give -o a file name that ends in .html")
    if latex is not None and (latex.suffix != ".tex" or latex.is_dir()):
        raise BadInput(f"{latex} is no name for a LaTeX table; give --latex a file name that ends in .tex")
    if figures is not None and figures.exists() and not figures.is_dir():
        raise BadInput(f"{figures} is a file; give --figures the name of a folder")
    # Not at the top: matplotlib and pandas take a second, which `sslticket --help` must not pay.
    from sslticket.report import page, table, text
    from sslticket.report.content import Content

    frame = table.rows(folders)
    if (frame["kind"] == "level").all():
        raise table.nothing(folders, "score rows")
    content = Content(frame)
    drawn: list[Path] = []
    with ExitStack() as stack:

        def put(path: Path, made: bytes) -> None:
            stack.enter_context(written_whole(path)).write_bytes(made)

        if figures:
            for name, made in _figures(content, kind):
                path = figures / name
                drawn.append(path.with_stem(f"{path.stem}-{len(drawn)}") if path in drawn else path)
                put(drawn[-1], made)
        if latex:
            put(latex, text.latex(content.summary).encode(errors="backslashreplace"))
        png = output.with_suffix(".png")
        put(png, _curves(content))
        put(output, page.render(content).encode(errors="backslashreplace"))
    return Written(output, png, tuple(drawn), latex, text.terminal(content.summary), content.notes)


def _curves(content: "Content") -> bytes:
    from sslticket.report import figures

    drawn = [panel.accuracy() for panel in content.panels] or list(content.charts())[:4]
    if drawn:
        return figures.content(figures.charts(drawn, content.looks), "png")
    return figures.content(figures.heat(next(content.heats())), "png")


def _figures(content: "Content", kind: str) -> Iterator[tuple[str, bytes]]:
    """The name and content of a file for each figure of the page."""
    from sslticket.report import figures

    for chart in content.charts():
        yield figures.filename(chart.name, kind), figures.content(figures.charts([chart], content.looks), kind)
    for heat in content.heats():
        yield figures.filename(heat.name, kind), figures.content(figures.heat(heat), kind)
