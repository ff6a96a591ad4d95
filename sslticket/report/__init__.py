"""Rows in, one page and one picture out; tickets are never opened here."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from sslticket.errors import BadInput


class Written(NamedTuple):
    """The files of a report."""

    html: Path
    png: Path


def write(folders: Sequence[Path], output: Path) -> Written:
    """Draw all rows below `folders` as the page `output` and, beside it, the curves as a PNG of the same stem.

    Each file appears whole or not at all, and the same rows give the same bytes.

    Raises:
        BadInput: if `output` is no name of a page, or the rows are missing or broken (see `table.rows`).
    """
    if output.suffix not in (".html", ".htm") or output.is_dir():
        raise BadInput(f"{output} is no name for a page; give -o a file name that ends in .html")
    # Not at the top: matplotlib and pandas take a second, which `sslticket --help` must not pay.
    from sslticket.report import figures, page, table

    frame = table.rows(folders)
    summary = table.summary(frame)
    if summary.empty:
        raise table.nothing(folders, "score rows")
    written = Written(output, output.with_suffix(".png"))
    output.parent.mkdir(parents=True, exist_ok=True)
    _replace(written.png, figures.png(figures.curves(summary)))
    _replace(written.html, page.render(frame, summary).encode())
    return written


def _replace(path: Path, content: bytes) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(content)
    partial.replace(path)
