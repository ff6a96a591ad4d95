"""Pieces of the page, every value escaped."""

import math
from collections.abc import Collection, Sequence

from sslticket.escaping import html as escaped
from sslticket.report.chart import Heat
from sslticket.report.text import MISSING

SHADES = 10
"""Cells are shaded in so many steps: classes h0 to h9 of the page's style, for its policy forbids styles in place."""


def card(inner: str, kind: str = "") -> str:
    """A box."""
    return f'<div class="{f"card {kind}".strip()}">{inner}</div>'


def section(name: str, title: str, inner: str, explained: str = "") -> str:
    """A part of the page with a heading, which links can lead to; "" for an empty one."""
    if not inner:
        return ""
    soft = f'<p class="soft">{escaped(explained)}</p>' if explained else ""
    return f'<section id="{name}"><h2>{escaped(title)}</h2>{soft}{inner}</section>'


def details(summary: str, inner: str) -> str:
    """What is unfolded on demand."""
    return f"<details><summary>{escaped(summary)}</summary>{inner}</details>"


def pick(label: str, parts: Sequence[tuple[str, str]], first: int = 0) -> str:
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


def table(caption: str, head: Sequence[str], body: Sequence[Sequence[str]], words: Collection[int] = ()) -> str:
    """A table whose first column heads its lines.

    Args:
        caption: what a screen reader and the page say of it.
        head: a name for each column.
        body: lines of cells.
        words: columns of text, set to the left; all others hold numbers.
    """
    columns = "".join(f'<th scope="col"{_kind(place, words)}>{escaped(name)}</th>' for place, name in enumerate(head))
    lines = "".join(
        f'<tr><th scope="row">{escaped(first)}</th>'
        + "".join(f"<td{_kind(place, words)}>{escaped(cell)}</td>" for place, cell in enumerate(rest, start=1))
        + "</tr>"
        for first, *rest in body
    )
    return _scroll(caption, f"<thead><tr>{columns}</tr></thead><tbody>{lines}</tbody>", "words" if words else "")


def _kind(place: int, words: Collection[int]) -> str:
    return ' class="num"' if words and place not in words else ""


def heat(heat: Heat) -> str:
    """A heat map as a table of shaded cells."""
    dense = len(heat.columns) > 12 or len(heat.rows) > 12
    columns = "".join(f'<th scope="col">{escaped(name)}</th>' for name in heat.columns)
    lines = "".join(
        f'<tr><th scope="row">{escaped(name)}</th>{"".join(map(_shaded, cells))}</tr>'
        for name, cells in zip(heat.rows, heat.cells, strict=True)
    )
    inner = f'<thead><tr><th scope="col">{escaped(heat.corner)}</th>{columns}</tr></thead><tbody>{lines}</tbody>'
    return _scroll(heat.title, inner, "heat dense" if dense else "heat", "scroll tall")


def _shaded(cell: tuple[str, float] | None) -> str:
    if cell is None:
        return f"<td>{MISSING}</td>"
    told, shade = cell
    kind = "cut" if math.isnan(shade) else f"h{min(SHADES - 1, max(0, int(shade * SHADES)))}"
    return f'<td class="{kind}">{escaped(told)}</td>'


def _scroll(caption: str, inner: str, kind: str, box: str = "scroll") -> str:
    # A region that takes the focus can be scrolled with the keyboard.
    named = f' class="{kind}"' if kind else ""
    return (
        f'<div class="{box}" role="region" tabindex="0" aria-label="{escaped(caption)}"><table{named}>'
        f"<caption><span>{escaped(caption)}</span></caption>{inner}</table></div>"
    )
