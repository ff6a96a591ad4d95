"""Rows in, one page and one picture out; tickets are never opened here."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from sslticket.errors import BadInput
from sslticket.files import written_whole


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
    with written_whole(written.png) as png, written_whole(written.html) as html:
        png.write_bytes(figures.png(figures.curves(summary)))
        html.write_text(page.render(frame, summary), encoding="utf-8")
    return written
