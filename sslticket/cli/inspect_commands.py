"""The commands that only read files: `sslticket inspect` describes a ticket, `sslticket watch` runs and processes."""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sslticket.campaign.launch import describe_jobs
from sslticket.campaign.state import CampaignFolder, campaign_lines
from sslticket.config import flags
from sslticket.config.training import format_duration
from sslticket.errors import BadInput
from sslticket.escaping import escape_terminal
from sslticket.storage.files import read_json
from sslticket.training.progress import STATUS_FOLDER, Status, read_statuses

if TYPE_CHECKING:  # torch takes a second, which `sslticket watch` does without
    from sslticket.ticket import Ticket

_MAX_IMAGE_SIDE = 1024
"""Pixels. A network is made for no larger images, so that a stranger's ticket cannot cost gigabytes."""


def add_watch(commands: "argparse._SubParsersAction[flags.Parser]") -> None:
    """The command and its flags."""
    parser = commands.add_parser(
        "watch",
        help="show what searches and evaluations are running, done and left",
        description="Show for each run below the folders its tickets, its rows, and who is working on it, and for the\n"
        "folder of a campaign what is done, running and waiting, and what failed and why; renewed in place until\n"
        "Ctrl-C. Where standard output is no terminal, it is printed once.",
    )
    parser.add_argument("runs", nargs="+", type=Path, help="folders of runs, or the folder that holds them")
    parser.add_argument("--once", action="store_true", help="print once and end")
    parser.add_argument("--every", type=float, default=2.0, metavar="SECONDS", help="between two updates [2.0]")
    parser.set_defaults(command=_run_watch)


def _run_watch(given: argparse.Namespace) -> None:
    if not given.every > 0:
        raise BadInput(f"--every must be above 0 seconds, got {given.every:g}; give --every 2")
    lines = progress_lines(given.runs)
    if given.once or not sys.stdout.isatty():
        print("\n".join(lines))
        return
    from rich.live import Live
    from rich.text import Text

    with Live(auto_refresh=False, vertical_overflow="ellipsis") as live:
        while True:
            live.update(Text("\n".join(lines), no_wrap=True, overflow="ellipsis"), refresh=True)
            time.sleep(given.every)
            lines = progress_lines(given.runs)


def progress_lines(folders: Sequence[Path]) -> list[str]:
    """The lines of the picture: those of campaigns, a few for each other run, and at the end the sum of all of these.

    Raises:
        BadInput: If a folder is not there or holds no runs.
    """
    campaigns = [folder for folder in folders if CampaignFolder(folder).is_there]
    told = [line for folder in campaigns for line in (*campaign_lines(folder), *describe_jobs(folder))]
    if len(campaigns) == len(folders):
        return list(map(escape_terminal, told))
    lines, tickets, rows, working = told, 0, 0, 0
    for run in _find_runs([folder for folder in folders if folder not in campaigns]):
        statuses, found = read_statuses(run), _count_rows(run)
        lines += [str(run), *_search_lines(run), *_row_lines(found), *(_process_line(each) for each in statuses)]
        tickets += len(list((run / "tickets").glob("*.safetensors")))
        rows += found.total()
        working += sum(each.silent_seconds is None for each in statuses)
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


def _process_line(status: Status) -> str:
    """One process and what it is doing, or was when it was last heard of."""
    what = f"{status.task} step {status.step:,}/{status.steps:,}, {status.rate:,.0f} samples/s, loss {status.loss:.4g}"
    if status.probe is not None:
        what += f", nearest neighbours {status.probe:.1%}"
    where = f"{status.host}:{status.pid}"
    if status.silent_seconds is not None:
        return f"  stopped  {what} ({where}, not heard of for {format_duration(status.silent_seconds)})"
    left = "" if status.left is None else f", {format_duration(status.left)} left"
    return f"  running  {what}{left} ({where})"


def describe_ticket(ticket: "Ticket", place: str, size: int) -> str:
    """Describe a ticket: what it is, where it comes from, and how dense it is as a whole and in each layer.

    Args:
        ticket: The ticket, read from there.
        place: Where it is, as the user named it.
        size: Size of its file in bytes.

    Raises:
        BadInput: If no search wrote it, so that it lacks what a search records.
    """
    from sslticket.export.description import ticket_facts

    facts = {"ticket": f"{place}, {size:,} bytes, hash {ticket.hash}"} | ticket_facts(ticket)
    network, dense = _describe_network(ticket)
    lines = [f"{name:<10}{escape_terminal(value)}" for name, value in (facts | network).items()]
    counts = ticket.mask.layer_counts()
    # Vectors are biases and batch norm's; every other weight is of a layer that some search may prune.
    unpruned = {
        name: value.numel()
        for name, value in ticket.weights.items()
        if name in dense or (name.endswith(".weight") and value.dim() > 1)
    }
    layers = {name: escape_terminal(name) for name in ticket.weights if name in counts or name in unpruned}
    width = max(map(len, layers.values()), default=0)
    lines += ["", f"{'layer':<{width}}  {'kept':>12}  {'of':>12}  density"]
    for name, shown in layers.items():
        if name not in counts:
            lines.append(f"{shown:<{width}}  {unpruned[name]:>12,}  {unpruned[name]:>12,}  not pruned")
            continue
        alive, total = counts[name]
        bar = "█" * round(20 * alive / total)
        lines.append(f"{shown:<{width}}  {alive:>12,}  {total:>12,}  {alive / total:>8.3%}  {bar}".rstrip())
    return "\n".join(lines)


def _describe_network(ticket: "Ticket") -> tuple[dict[str, str], tuple[str, ...]]:
    """What only the network itself tells, and its dense matrices; nothing where it cannot be made here."""
    from sslticket import models
    from sslticket.data.datasets.catalogue import InputSpec
    from sslticket.pruning.effective_sparsity import effective_mask
    from sslticket.pruning.forward_graph import MaskCoverage
    from sslticket.pruning.prunable import shorten_names

    inputs = InputSpec.from_recipe(ticket.recipe)
    if inputs is None or inputs.image_size > _MAX_IMAGE_SIDE:
        return {}, ()
    model, images = ticket.record.model, {"channels": inputs.channels, "image_size": inputs.image_size}
    try:
        backbone = models.create_model(model, **images)
        ticket.apply(models.create_model(model, **images))  # the ticket may be for another version of the network
    except BadInput:
        return {}, ()
    coverage, mask = MaskCoverage.measure(backbone, **images), ticket.mask
    parameters = sum(parameter.numel() for parameter in backbone.parameters())
    left = parameters - mask.total + mask.survivors
    whole = f"density {left / parameters:.4%}: {left:,} of {parameters:,} parameters of the backbone"
    if coverage.unprunable:
        whole += f"; dense matrices: {shorten_names(coverage.unprunable)}"
    try:
        coverage.check(model, list(mask))
    except BadInput as error:
        return {"all": whole, "effective": str(error)}, coverage.unprunable
    found = effective_mask(backbone, mask, **images).survivors
    cut = "" if found else "; nothing gets through"
    on_paths = f"{found:,} weights lie on a path from the image to the features{cut}"
    return {"all": whole, "effective": f"density {found / mask.total:.4%}: {on_paths}"}, coverage.unprunable
