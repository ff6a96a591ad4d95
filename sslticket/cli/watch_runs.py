"""`sslticket watch`: what searches and evaluations are doing, from their files alone."""

import argparse
import shutil
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from sslticket.cli import flags
from sslticket.config.training import format_duration
from sslticket.errors import BadInput
from sslticket.escaping import escape_terminal
from sslticket.storage.files import read_json
from sslticket.training.progress import STATUS_FOLDER, Status, read_statuses


def add_watch(commands: "argparse._SubParsersAction[flags.Parser]") -> None:
    """The command and its flags."""
    parser = commands.add_parser(
        "watch",
        help="show what searches and evaluations are running, done and left",
        description="Show for each run below the folders its tickets, its rows, and who is working on it; renewed in\n"
        "place until Ctrl-C. Where standard output is no terminal, it is printed once.",
    )
    parser.add_argument("runs", nargs="+", type=Path, help="folders of runs, or the folder that holds them")
    parser.add_argument("--once", action="store_true", help="print once and end")
    parser.add_argument("--every", type=float, default=2.0, metavar="SECONDS", help="between two looks [2.0]")
    parser.set_defaults(command=_run_watch)


def _run_watch(given: argparse.Namespace) -> None:
    if not given.every > 0:
        raise BadInput(f"--every {given.every:g} is no time between two looks; give seconds above 0")
    lines = progress_lines(given.runs)
    if given.once or not sys.stdout.isatty():
        print("\n".join(lines))
        return
    drawn = 0
    while True:
        size = shutil.get_terminal_size()
        shown = [line[: size.columns - 1] for line in lines]
        if len(shown) >= size.lines:
            shown = [*shown[: size.lines - 2], f"... {len(shown) - size.lines + 2} more lines"]
        # Up to where the last picture began, and everything below it cleared.
        print((f"\x1b[{drawn}F" if drawn else "") + "\x1b[J" + "\n".join(shown), flush=True)
        drawn = len(shown)
        time.sleep(given.every)
        lines = progress_lines(given.runs)


def progress_lines(folders: Sequence[Path]) -> list[str]:
    """The lines of the picture: a few for each run, and at the end the sum of all.

    Raises:
        BadInput: if a folder is not there or holds no runs.
    """
    lines, tickets, rows, working = [], 0, 0, 0
    for run in _find_runs(folders):
        told, found = read_statuses(run), _count_rows(run)
        lines += [str(run), *_search_lines(run), *_row_lines(found), *(_process_line(each) for each in told)]
        tickets += len(list((run / "tickets").glob("*.safetensors")))
        rows += found.total()
        working += sum(each.silent_seconds is None for each in told)
    return [*map(escape_terminal, lines), f"{tickets:,} tickets, {rows:,} rows, {working} at work"]


def _find_runs(folders: Sequence[Path]) -> list[Path]:
    found: set[Path] = set()
    for folder in folders:
        if not folder.is_dir():
            raise BadInput(f"there is no folder {folder}; give folders of runs, such as runs/<key>, or of all runs")
        marks = ("recipe.json", "tickets", "rows", STATUS_FOLDER)
        here = {path.parent for mark in marks for path in folder.glob(f"**/{mark}")}
        if not here:
            raise BadInput(f"{folder} holds no runs; give folders of runs, such as runs/<key>, or of all runs")
        found |= here
    return sorted(found)


def _search_lines(run: Path) -> list[str]:
    """How far the search is."""
    try:
        search = read_json(run / "recipe.json")["recipe"]["search"]
        levels = int(search.get("levels") or search.get("rounds") or 1)  # one that says neither finds one ticket
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []  # a lone ticket's folder
    there = len(list((run / "tickets").glob("level-*.safetensors")))
    state = "done" if there > levels else f"{levels + 1 - there} left"
    return [f"  search   {there} of {levels + 1} tickets, {state}"]


def _count_rows(run: Path) -> Counter[tuple[str, str]]:
    """Rows by protocol and control, from the names of their files: a look must not read thousands of files."""
    names = [path.name.removesuffix(".jsonl").split(".") for path in (run / "rows").glob("*.jsonl")]
    # A control and a protocol hold no dot; a lone ticket's name may.
    return Counter((name[-2], name[-3]) for name in names if len(name) >= 4 and name[-1].startswith("seed"))


def _row_lines(found: Counter[tuple[str, str]]) -> list[str]:
    by_protocol: dict[str, list[str]] = {}
    for (protocol, control), count in sorted(found.items(), key=_ticket_first_order):
        by_protocol.setdefault(protocol, []).append(f"{control} {count:,}")
    return [f"  rows     {protocol}: {', '.join(counts)}" for protocol, counts in by_protocol.items()]


def _ticket_first_order(item: tuple[tuple[str, str], int]) -> tuple[str, bool, str]:
    (protocol, control), _ = item
    return protocol, control != "ticket", control


def _process_line(told: Status) -> str:
    """One process and what it is doing, or was when it was last heard of."""
    what = f"{told.task} step {told.step:,}/{told.steps:,}, {told.rate:,.0f} samples/s, loss {told.loss:.4g}"
    if told.probe is not None:
        what += f", nearest neighbours {told.probe:.1%}"
    where = f"{told.host}:{told.pid}"
    if told.silent_seconds is not None:
        return f"  stopped  {what} ({where}, not heard of for {format_duration(told.silent_seconds)})"
    left = "" if told.left is None else f", {format_duration(told.left)} left"
    return f"  running  {what}{left} ({where})"
