"""What of a search was found with other code, versions or numbers than those it goes on with."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from sslticket import origin
from sslticket.files import read_json
from sslticket.search.folder import RunFolder


def changed(folder: RunFolder, levels: Sequence[int], **now: str) -> str:
    """One line for a person about what differs from now, level by level; "" where nothing does.

    Args:
        folder: of the run, as it was left.
        levels: whose tickets are there.
        **now: how numbers are computed, and on which device, as rows tell it.
    """
    here = origin.stamp() | now
    by_difference: dict[str, list[int]] = {}
    for level in levels:
        if words := origin.differences(_read(folder.row(level)), here):
            by_difference.setdefault(words, []).append(level)
    told = [f"{_levels(found)} with {words}" for words, found in by_difference.items()]
    began = _read(folder.path / "recipe.json")
    # What is not committed shows in no commit.
    if not told and began.get("code", origin.code()) != origin.code():
        told = [f"it was begun with other code or another recipe file (hash {began['code']}, now {origin.code()})"]
    return (
        f"this search goes on otherwise than it was left, and its rows tell of each level how: {'; '.join(told)}"
        if told
        else ""
    )


def _levels(levels: Sequence[int]) -> str:
    first, last = levels[0], levels[-1]
    run = last - first + 1 == len(levels) > 1
    return (
        f"levels {first} to {last}" if run else f"level{'s' if len(levels) > 1 else ''} {', '.join(map(str, levels))}"
    )


def _read(path: Path) -> Mapping[str, Any]:
    """What a file of one JSON object says; nothing where there is none that can be read, which others complain of."""
    with suppress(OSError, ValueError):
        found = read_json(path)
        if isinstance(found, dict):
            return found
    return {}
