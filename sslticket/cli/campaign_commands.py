"""The command `sslticket sweep`, and what every command has that runs a campaign: its flags, and how it is run."""

import argparse
import os
import sys
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import nullcontext
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from sslticket import processes
from sslticket.campaign import launch
from sslticket.campaign.launch import SlurmSettings
from sslticket.campaign.state import CampaignFolder, campaign_lines
from sslticket.config import flags
from sslticket.config.runtime import RuntimeConfig
from sslticket.errors import BadInput
from sslticket.escaping import escape_lines, escape_terminal, shell_quote

if TYPE_CHECKING:
    from rich.live import Live

    from sslticket.campaign.cost import CampaignCost
    from sslticket.campaign.sweep import Cell

MAX_CELLS = 1_000
"""Cells of a campaign that are run without --yes."""
_SLURM_PATIENCE = 300.0
"""Seconds after which a job leaves where all that is left is in the hands of others."""
_LINE_SECONDS = 30.0
"""Between two lines of progress where standard output is no terminal."""


def add_sweep(commands: "argparse._SubParsersAction[flags.Parser]") -> None:
    """The command and its flags."""
    parser = commands.add_parser(
        "sweep",
        help="run a grid over recipes, measure its tickets and draw the report: one file, on a laptop or a cluster",
        description="Plan and run the searches of a sweep, then its evaluations and analyses, then the report. The\n"
        "same command goes on from what is finished. docs/campaigns.md shows such a file; sslticket watch OUT\n"
        "shows how far it is.",
    )
    parser.add_argument("sweep", metavar="FILE", help="a file such as sweeps/lowshot.py, or a published name: lowshot")
    add_campaign_flags(parser)
    parser.set_defaults(command=_run_sweep)


def add_campaign_flags(parser: flags.Parser) -> None:
    """The flags of commands that run a campaign: where its files lie, where it runs, and the machine's settings."""
    parser.add_argument("--out", type=Path, metavar="PATH", help="folder of the campaign [runs/<name>]")
    parser.add_argument("--dry-run", action="store_true", help="print the plan; train and write nothing")
    parser.add_argument(
        "--on", metavar="DEVICE", help="with --dry-run: plan for a device of the tables, such as A100 [this one]"
    )
    parser.add_argument(
        "--rows",
        nargs="+",
        type=Path,
        default=[],
        metavar="PATH",
        help="tables or folders of rows that are there, see docs/report.md; nothing of theirs is trained again [none]",
    )
    parser.add_argument("--yes", action="store_true", help=f"run more than {MAX_CELLS:,} searches")
    parser.add_argument("--retry", action="store_true", help="try again what diverged, too")
    parser.add_argument(
        "--launch",
        choices=("local", "slurm", "print"),
        default="local",
        help="start workers here, as jobs of SLURM, or write the scripts and start nothing [local]",
    )
    parser.add_argument("--workers", type=int, metavar="N", help="how many [one a GPU, or a core where there is none]")
    parser.add_argument("--per-device", type=int, default=1, metavar="K", help="workers that share a GPU [1]")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument(
        "--precision", choices=("fp32", "bf16", "fp16"), help="of the passes [bf16 on CUDA without --exact, else fp32]"
    )
    flags.add_flags(parser, RuntimeConfig())
    flags.add_flags(parser, SlurmSettings())


def _run_sweep(given: argparse.Namespace) -> None:
    from sslticket.campaign.sweep import count_cells, expand, find_sweep_file, load_sweeps

    file = find_sweep_file(given.sweep)
    sweeps = load_sweeps(given.sweep)
    check_count(count_cells(sweeps), given)
    title = next((sweep.title for sweep in sweeps if sweep.title), "") or file.stem
    words, cells, out = ["sweep", str(file.absolute())], list(expand(sweeps)), Path("runs") / file.stem
    if given.rows:
        from sslticket.campaign.figure import cells_left
        from sslticket.results.table import read_rows

        words += ["--rows", *(str(path.absolute()) for path in given.rows)]
        left = cells_left(cells, read_rows(given.rows))
        if not given.worker:
            print(f"{len(cells) - len(left):,} of {len(cells):,} searches are in the rows that are given")
        if not left:
            if not given.dry_run:
                write_report(given.out or out, given.rows)
            return
        cells = left
    run_campaign(given, cells, words, title=title, default_out=out)


def check_count(count: int, given: argparse.Namespace) -> None:
    """Refuses a campaign that is larger than anybody may have meant, before its cells are made.

    Raises:
        BadInput: If it has more than `MAX_CELLS` cells and --yes was not given.
    """
    if count > MAX_CELLS and not (given.yes or given.worker):
        raise BadInput(f"the sweep has {count:,} cells, which is more than {MAX_CELLS:,}; give --yes if it is meant")


def run_campaign(
    given: argparse.Namespace,
    cells: "Sequence[Cell]",
    words: Sequence[str],
    *,
    title: str,
    default_out: Path,
    finish: Callable[[Path], None] | None = None,
) -> None:
    """Plans a campaign and starts its workers, or is one of them.

    Args:
        given: The parsed flags of `add_campaign_flags`.
        cells: The cells.
        words: The words after `sslticket` with which a worker is started, such as ["sweep", "/x/lowshot.py"].
        title: What the campaign is called.
        default_out: Its folder where --out is not given.
        finish: What is done when all is measured, with the folder; None for the report.

    Raises:
        BadInput: If anything does not fit; nothing has been started or written then.
        SystemExit: With code 2, if something failed.
    """
    folder = CampaignFolder(given.out or default_out)
    first = processes.rank() == 0
    runtime = flags.override_fields(RuntimeConfig(), vars(given))
    if given.worker:
        _be_worker(given, cells, folder, runtime, finish)
        return
    if processes.world_size() > 1:
        raise BadInput("a campaign starts its workers itself; give the command without accelerate launch or torchrun")
    if given.on and not given.dry_run:
        raise BadInput("--on is for plans; give --dry-run too, or leave it out")
    if given.launch == "local" and (jobs := [each.name for each in fields(SlurmSettings) if each.name in given]):
        named = ", ".join(f"--{name.replace('_', '-')}" for name in jobs)
        raise BadInput(f"{named} must go with --launch slurm or --launch print, got --launch local; give one of these")
    note = folder.compare(cells)
    from sslticket.campaign import local, worker  # torch, which bad names need not wait for
    from sslticket.campaign.cost import estimate_cells
    from sslticket.results.throughput import find_device
    from sslticket.training.trackers import TrackerSet

    device = find_device(given.on) if given.on else None
    worker.check_cells(cells)
    settings = flags.override_fields(SlurmSettings(), vars(given))
    if given.launch != "local" and given.per_device != 1:
        raise BadInput(f"--per-device is for --launch local, got {given.per_device}; give --workers, and leave it out")
    if given.launch == "local":
        local.count_workers(local.visible_devices(), given.workers, given.per_device)
    elif given.launch == "slurm":
        launch.check_slurm(settings)
    done = folder.searched(cells)
    with local.worker_threads() if given.launch == "local" else nullcontext():
        cost = estimate_cells(cells, device=device, rows=folder.some_rows(), runtime=runtime, searched=done)
    if not given.dry_run and given.launch != "print":
        worker.check_data(title, cells, folder, runtime.data_root)
    if first:
        print(escape_lines("\n".join(plan_lines(cells, folder.out, note, cost, done))), flush=True)
    if given.dry_run:
        return
    if given.launch != "print":
        TrackerSet(runtime.trackers).check()
    folder.begin(cells, title, retry=given.retry, cost=cost)
    command = local.worker_command(words, folder, runtime, given.precision)
    if given.launch != "local":
        left = sum(not folder.cell_run(cell.key)[2] for cell in cells)
        _submit(given, command, folder, max(1, left), settings)
        return
    with _ProgressView(folder) as show:
        local.launch_local(command, folder, workers=given.workers, per_device=given.per_device, show=show)
    _end(given, folder, finish)


def _be_worker(
    given: argparse.Namespace,
    cells: "Sequence[Cell]",
    folder: CampaignFolder,
    runtime: RuntimeConfig,
    finish: Callable[[Path], None] | None,
) -> None:
    """Work on a campaign that is there; the last one draws the report where nobody waits for it."""
    from sslticket.campaign import local, worker

    if not folder.is_there:
        raise BadInput(f"{folder.out} holds no campaign; start it without --worker")
    recorded = folder.recorded_cells()
    local.leave_with_parent()
    alone = local.PARENT_VARIABLE not in os.environ
    worker.work(
        [cell for cell in cells if cell.key in recorded],
        folder.out,
        runtime,
        precision=given.precision,
        patience=_SLURM_PATIENCE if alone else None,
    )
    if processes.rank():
        return  # it waits for the first one, and ends as that does
    if alone and not folder.workers():
        _end(given, folder, finish)
    elif any(each.is_final for each in folder.failures()):
        raise SystemExit(2)


def _end(given: argparse.Namespace, folder: CampaignFolder, finish: Callable[[Path], None] | None) -> None:
    """Draw the report, list what failed, and leave with what the campaign has come to."""
    undrawn = False
    try:
        if finish is None:
            write_report(folder.out, given.rows, flags.override_fields(RuntimeConfig(), vars(given)).trackers)
        else:
            finish(folder.out)
    except BadInput as error:
        undrawn = any(folder.out.glob("*/rows/*.jsonl"))  # else there is nothing to draw: every search failed
        print(f"error: {error}" if undrawn else f"note: {error}", file=sys.stderr if undrawn else sys.stdout)
    print(escape_lines("\n".join(campaign_lines(folder.out))), flush=True)
    cells = [cell for cell in folder.cell_states() if cell.state != "done"]
    if undrawn or cells or any(each.is_final for each in folder.failures()):
        raise SystemExit(2)


def write_report(out: Path, rows: Sequence[Path] = (), trackers: Sequence[str] = ()) -> None:
    """Draw the report of a campaign, with rows that others made beside its own; trackers get page and picture."""
    from sslticket import report
    from sslticket.training.trackers import TrackerSet

    folders = [out] if any(out.glob("*/rows/*.jsonl")) else []
    written = report.write_report([*folders, *rows], out / "report.html")
    for note in written.notes:
        print(f"note: {escape_terminal(note)}")
    print(f"report: {written.html}")
    TrackerSet(trackers).log_report(out, out.name, [written.html, written.png], lambda text: print(f"note: {text}"))


def plan_lines(cells: "Sequence[Cell]", out: Path, note: str, cost: "CampaignCost", done: Collection[str]) -> list[str]:
    """What a campaign comes to, for a person.

    Args:
        cells: The cells.
        out: Its folder.
        note: What has changed since it was last started; "" for nothing.
        cost: What the cells come to.
        done: Keys of those whose searches are done.
    """
    from sslticket.campaign.sweep import measurements_of

    lines = [f"{len(cells):,} searches in {out}" + (f", {len(done):,} of them done" if done else "")]
    lines += [f"note: {note}"] if note else []
    lines += [f"  {cell.name}" for cell in cells[:_MOST_NAMED]]
    if len(cells) > _MOST_NAMED:
        lines.append(f"  and {len(cells) - _MOST_NAMED:,} more")
    measured = measurements_of(cells)
    lines += [f"then {each.describe()}" for each in measured]
    if done:
        also = " and all that is measured, also what of it is done" if measured else ""
        lines.append(
            f"counted: {len(cells) - len(done):,} of {len(cells):,} searches, those not done, each whole{also}"
        )
    told = cost.total(done).lines()
    width, fix = max(len(name) for name, _ in told) + 2, "sslticket run RECIPE --dry-run --probe-speed measures it"
    return [*lines, *(f"{name:<{width}}{value.replace('give --probe-speed', fix)}" for name, value in told)]


_MOST_NAMED = 30
"""Cells that a plan names."""


def _submit(
    given: argparse.Namespace, command: Sequence[str], folder: CampaignFolder, pieces: int, settings: SlurmSettings
) -> None:
    start = launch.launch_slurm if given.launch == "slurm" else launch.print_scripts
    for line in start(command, folder.out, workers=given.workers, pieces=pieces, settings=settings):
        print(escape_terminal(line))
    print(f"next: sslticket watch {shell_quote(str(folder.out))}")


class _ProgressView:
    """While this lasts its method shows how far a campaign is: in place on a terminal, else a line now and then."""

    def __init__(self, folder: CampaignFolder) -> None:
        self._folder, self._told = folder, ""
        self._last = self._next = 0.0
        self._live: Live | None = None

    def __enter__(self) -> Callable[[], None]:
        if sys.stdout.isatty():
            from rich.live import Live

            self._live = Live(auto_refresh=False, transient=True, vertical_overflow="ellipsis")
            self._live.start()
        return self._show

    def __exit__(self, *error: object) -> None:
        if self._live is not None:
            self._live.stop()

    def _show(self) -> None:
        began = time.monotonic()
        if began < self._next:
            return
        lines = campaign_lines(self._folder.out)
        now = time.monotonic()
        self._next = now + max(2.0, 4 * (now - began))  # thousands of cells take a while to look at
        if self._live is not None:
            from rich.text import Text

            self._live.update(Text("\n".join(lines), no_wrap=True, overflow="ellipsis"), refresh=True)
        elif lines[0] != self._told and now - self._last >= _LINE_SECONDS:
            self._told, self._last = lines[0], now
            print(escape_terminal(lines[0]), flush=True)
