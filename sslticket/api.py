"""The front door for Python: find tickets, evaluate and analyse them, and write a report, in a script or a notebook.

    from sslticket import evaluate_tickets, find_tickets, load_recipe, write_report

    tickets = find_tickets(load_recipe("rotnet_digits"), out="runs")
    rows = evaluate_tickets(tickets, protocol="digits-demo", controls=["random"])
    write_report("runs", "report.html")

The command line is a thin layer over these functions. Each of them goes on from what earlier calls left in the run's
folder, raises `BadInput` with one line for a person, and leaves signals, logging and the process alone.
"""

import logging
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import replace
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from sslticket import processes
from sslticket.config.recipe import Precision, Recipe
from sslticket.config.recipe_files import load_recipe as load_recipe  # a part of the front door
from sslticket.config.recipe_files import load_recipes as load_recipes
from sslticket.config.recipe_files import published_recipes as published_recipes
from sslticket.config.runtime import RuntimeConfig
from sslticket.errors import BadInput

if TYPE_CHECKING:
    import pandas as pd

    from sslticket.analysis.base import Analysis
    from sslticket.campaign.sweep import Sweep
    from sslticket.evaluation.controls import Control
    from sslticket.evaluation.protocols import Protocol
    from sslticket.evaluation.tasks import Levels
    from sslticket.report import WrittenReport
    from sslticket.ticket import Ticket
    from sslticket.training.engine import Engine

log = logging.getLogger("sslticket")


def find_tickets(
    recipe: Recipe | str | Path,
    *,
    out: str | Path = "runs",
    runtime: RuntimeConfig | None = None,
    progress: bool = True,
) -> "list[Ticket]":
    """Run the search of a recipe, or go on with it, and return its tickets.

    Args:
        recipe: The recipe, or what `load_recipe` takes: a published name, or a file.
        out: The folder of all runs; this one's is `out/<recipe.key>`.
        runtime: Where the data lies and how it is computed; None for the defaults of this machine.
        progress: Whether a progress bar is shown, in a terminal or a notebook.

    Returns:
        One ticket for each level, from the dense network (level 0) to the sparsest. Each holds its weights.

    Raises:
        BadInput: If the recipe does not fit its data, its network or the folder; nothing has been written then.
        Diverged: If a loss is not finite.
    """
    from sslticket.search.plan import plan_search
    from sslticket.search.run_search import run_search
    from sslticket.ticket import Ticket

    runtime = _check_runtime(runtime)
    recipe = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    plan = plan_search(recipe, runtime, _check_path("out", out))
    if unreadable := run_search(plan, runtime, show_progress=progress):
        log.warning("%d images could not be read and were left out", len(unreadable))
    return [Ticket.load(plan.run_dir.ticket_path(level)) for level in range(plan.levels + 1)]


def evaluate_tickets(
    where: "str | Path | Ticket | Iterable[str | Path | Ticket]",
    *,
    protocol: "str | Protocol | Sequence[str | Protocol]",
    controls: "str | type[Control] | Sequence[str | type[Control]]" = ("random",),
    seeds: int | Sequence[int] | None = (0,),
    levels: "int | Sequence[int] | Levels | None" = None,
    heads: Literal["own", "new"] | Sequence[Literal["own", "new"]] | None = None,
    part: str | None = None,
    curve: str | None = None,
    data_root: str | Path | None = None,
    runtime: RuntimeConfig | None = None,
    precision: Precision | None = None,
    progress: bool = True,
) -> "pd.DataFrame":
    """Train tickets, and controls beside them, under fixed supervised protocols, and measure them.

    Args:
        where: The tickets: run folders, ticket files, names on the Hub, or tickets that `find_tickets` returned.
        protocol: The protocol or protocols, by name, as "file.py:NAME", or themselves; "own" is each ticket's own.
        controls: What is measured beside each ticket, such as "random" and "permuted", "file.py:NAME" or a class.
        seeds: The seeds of the evaluation; None for each protocol's own.
        levels: The levels that are taken of folders and of tickets; None for all.
        heads: Whether tickets are trained with their own classification layer or a new one; None for their own where
            they were found on the protocol's task.
        part: What the images of protocols given by name are, if they are not the whole official set.
        curve: Training between two measurements of top-1 on the way, such as "5ep"; None for the end alone.
        data_root: The folder of the images; None for that of `runtime`.
        runtime: Where and how it is computed; None for the defaults of this machine.
        precision: The precision of the passes; None for the device's own.
        progress: Whether a progress bar is shown, in a terminal or a notebook.

    Returns:
        One line for each ticket, control, protocol, head and seed that was asked for, measured now or before.
        The columns are those of docs/rows.md.

    Raises:
        BadInput: If a ticket is damaged or does not fit the protocol, or the images are missing.
        Diverged: If a loss is not finite.
    """
    from sslticket.evaluation.jobs import evaluate_tasks
    from sslticket.evaluation.tasks import make_tasks

    chosen = _as_protocols(protocol, part), _as_numbers("seeds", seeds), _as_heads(heads), part
    tasks = make_tasks(_ticket_files(where, levels), _as_list(controls), *chosen, curve=curve)
    for _ in evaluate_tasks(tasks, _make_engine(runtime, data_root, precision), show_progress=progress):
        pass
    return _frame_of_files([task.row_file for task in tasks])


def analyse_tickets(
    where: "str | Path | Ticket | Iterable[str | Path | Ticket]",
    *,
    analysis: "str | Analysis | type[Analysis]",
    protocol: "str | Protocol | Sequence[str | Protocol]" = "own",
    controls: str | Sequence[str] = (),
    seeds: int | Sequence[int] | None = (0,),
    levels: "int | Sequence[int] | Levels | None" = None,
    heads: Literal["own", "new"] | Sequence[Literal["own", "new"]] | None = None,
    part: str | None = None,
    data_root: str | Path | None = None,
    runtime: RuntimeConfig | None = None,
    precision: Precision | None = None,
    progress: bool = True,
) -> "pd.DataFrame":
    """Measure what tickets are like: stability, connectivity, magnitudes, overlap of masks, or an analysis of your own.

    Args:
        where: The tickets: run folders, ticket files, names on the Hub, or tickets that `find_tickets` returned.
        analysis: The analysis, by name, as "file.py:NAME", its class, or itself with its settings: `Connectivity(5)`.
        protocol: The protocols under which tickets are trained to their end; "own" is each ticket's own.
        controls: What is analysed beside each ticket: "local", or nothing.
        seeds: The seeds of the trainings; None for each protocol's own.
        levels: The levels that are taken of folders and of tickets; None for all.
        heads: Whether tickets are trained with their own classification layer or a new one.
        part: What the images of protocols given by name are, if they are not the whole official set.
        data_root: The folder of the images; None for that of `runtime`.
        runtime: Where and how it is computed; None for the defaults of this machine.
        precision: The precision of the passes; None for the device's own.
        progress: Whether a progress bar is shown, in a terminal or a notebook.

    Returns:
        One line for each row that the analysis wrote for these tickets, now or before.

    Raises:
        BadInput: If a ticket cannot be analysed so, or the images are missing.
        Diverged: If a loss is not finite.
    """
    from sslticket.analysis import ANALYSES
    from sslticket.analysis.base import EndpointAnalysis, TicketAnalysis, run_analysis
    from sslticket.analysis.endpoints import make_analysis_tasks

    chosen = ANALYSES.get(analysis) if isinstance(analysis, str) else analysis
    if isinstance(chosen, type) and issubclass(chosen, (TicketAnalysis, EndpointAnalysis)):
        chosen = chosen()
    how = _as_list(controls), _as_protocols(protocol, part), _as_numbers("seeds", seeds), _as_heads(heads), part
    paths = _ticket_files(where, levels)
    if isinstance(chosen, TicketAnalysis):
        return _frame_of_rows(chosen.rows(paths))
    if not isinstance(chosen, EndpointAnalysis):
        raise BadInput(
            f'analysis must be a name or a TicketAnalysis or EndpointAnalysis, got {_shorten(chosen)}; give "overlap"'
        )
    tasks = make_analysis_tasks(paths, *how)
    for _ in run_analysis(chosen, tasks, _make_engine(runtime, data_root, precision), show_progress=progress):
        pass
    return _frame_of_files([chosen.row_file(task) for task in tasks])


def run_sweep(
    sweep: "Sweep | Sequence[Sweep] | str | Path",
    *,
    out: str | Path | None = None,
    workers: int | None = 1,
    runtime: RuntimeConfig | None = None,
    precision: Precision | None = None,
    retry: bool = False,
    progress: bool = True,
) -> "pd.DataFrame":
    """Run a sweep, or go on with it: its searches, then its evaluations and analyses.

    One search that fails stops no other; a warning is logged for each, and the next call tries it again.

    Args:
        sweep: The sweep or sweeps, a file that defines them, or the name of a published one.
        out: The folder of the campaign; None for "runs/" and the file's name.
        workers: How many processes share the work, which takes a file; 1 is this process. None for as many as there are
            GPUs, or cores where there is none.
        runtime: Where the data lies and how it is computed; None for the defaults of this machine.
        precision: The precision of the passes where a recipe leaves it open; None for the device's own.
        retry: Whether what diverged before is tried again, too.
        progress: Whether a progress bar is shown, in a terminal or a notebook.

    Returns:
        One line for each measurement below the folder, as `read_rows` gives them; none where every search failed.

    Raises:
        BadInput: If the sweep does not fit; nothing has been started or written then.
    """
    from sslticket.campaign import local, worker
    from sslticket.campaign.cost import estimate_cells
    from sslticket.campaign.state import CampaignFolder
    from sslticket.campaign.sweep import Sweep, expand, find_sweep_file, load_sweeps
    from sslticket.training.trackers import TrackerSet

    runtime = _check_runtime(runtime)
    file = find_sweep_file(sweep) if isinstance(sweep, (str, Path)) else None
    sweeps = [sweep] if isinstance(sweep, Sweep) else load_sweeps(file) if file else list(cast(Sequence[Sweep], sweep))
    if file is None and workers != 1:
        raise BadInput(f"workers must be 1 for a sweep that lies in no file, got {workers}; save it as a file")
    cells, name = expand(sweeps), file.stem if file else "sweep"
    folder = CampaignFolder(Path("runs") / name if out is None else _check_path("out", out))
    folder.compare(cells)
    worker.check_cells(cells)
    if workers != 1:
        local.count_workers(local.visible_devices(), workers, 1)
    title = next((each.title for each in sweeps if each.title), name)
    worker.check_data(title, cells, folder, runtime.data_root)
    TrackerSet(runtime.trackers).check()
    cost = estimate_cells(cells, rows=folder.some_rows(), runtime=runtime, searched=folder.searched(cells))
    folder.begin(cells, title, retry=retry, cost=cost)
    if file is None or workers == 1:
        worker.work(cells, folder.out, runtime, precision=precision, show_progress=progress)
    else:
        words = ["sweep", str(file.absolute())]
        local.launch_local(local.worker_command(words, folder, runtime, precision), folder, workers=workers)
    for failure in folder.failures():
        log.warning("%s %s: %s", failure.what, "diverged" if failure.diverged else "failed", failure.error)
    rows = [*folder.out.glob("*/rows/*.jsonl")]
    return read_rows(folder.out) if rows else _frame_of_rows([])


def write_report(
    where: str | Path | Iterable[str | Path],
    output: str | Path = "report.html",
    *,
    figures: str | Path | None = None,
    figure_format: Literal["png", "pdf", "svg"] = "pdf",
    latex: str | Path | None = None,
) -> "WrittenReport":
    """Draw all rows below some folders as one page that fetches nothing, and a PNG of the same name beside it.

    Args:
        where: The run folders, or the folder that holds them, and tables of rows that end in .parquet or .csv.
        output: The page, a name that ends in .html.
        figures: A folder for each figure as a file of its own; None for none.
        figure_format: The format of these files.
        latex: A name that ends in .tex, for the means as a table; None for none.

    Returns:
        The files that were written, the table of means as text, and notes for the reader.

    Raises:
        BadInput: If a name has another ending, or rows are missing or damaged.
    """
    from sslticket import report
    from sslticket.report.figures import FORMATS

    if figure_format not in FORMATS:
        raise BadInput(f"figure_format must be one of {', '.join(FORMATS)}, got {figure_format!r}")
    return report.write_report(
        [_check_path("where", place) for place in _as_list(where)],
        _check_path("output", output),
        figures=None if figures is None else _check_path("figures", figures),
        kind=figure_format,
        latex=None if latex is None else _check_path("latex", latex),
    )


def read_rows(where: str | Path | Iterable[str | Path]) -> "pd.DataFrame":
    """Every row below some folders, of searches, evaluations and analyses: one line for each measurement.

    Args:
        where: The run folders, or the folder that holds them, and tables of rows that end in .parquet or .csv.

    Raises:
        BadInput: If a folder or table is missing, holds no rows, or a line is damaged; if two rows of one measurement
            say different things.
    """
    from sslticket.results import table

    return table.read_rows([_check_path("where", place) for place in _as_list(where)])


def _make_engine(runtime: RuntimeConfig | None, data_root: str | Path | None, precision: Precision | None) -> "Engine":
    from sslticket.training.engine import Engine

    runtime = _check_runtime(runtime)
    if precision not in (None, *get_args(Precision)):
        raise BadInput(f"precision must be {', '.join(get_args(Precision))} or None, got {precision!r}")
    if data_root is not None:
        runtime = replace(runtime, data_root=_check_path("data_root", data_root))
    return Engine.create(runtime, precision)


def _ticket_files(
    where: "str | Path | Ticket | Iterable[str | Path | Ticket]", levels: "int | Sequence[int] | Levels | None"
) -> list[Path]:
    """The files of tickets that are given in any of these ways; those on the Hub are fetched."""
    from sslticket import hub
    from sslticket.evaluation.tasks import Levels, find_ticket_files
    from sslticket.ticket import Ticket

    numbers = None if isinstance(levels, Levels) else _as_numbers("levels", levels)
    chosen = levels if isinstance(levels, Levels) else Levels(None if numbers is None else tuple(numbers))
    files: list[Path] = []
    for place in _as_list(where):
        if isinstance(place, Ticket):
            if place.path is None:
                raise BadInput(f"{place!r} lies in no file; save it, and give the file's path")
            files += [place.path] if chosen.includes(place.level) else []
        else:
            path = _check_path("where", place)
            path = hub.copy_from_hub(path, Path("runs")) if hub.is_hub_name(path) else path
            files += find_ticket_files([path], chosen)
    if not files:
        if numbers and where:
            raise BadInput(f"levels must be some of the tickets' levels, got {numbers}; leave levels out to take all")
        raise BadInput("where must be run folders, ticket files or tickets, got none; give for instance runs/<key>")
    return list(dict.fromkeys(files))


def _as_protocols(given: "str | Protocol | Sequence[str | Protocol]", part: str | None) -> "list[str | Protocol]":
    """Protocols; one that is not built in has a hash of its settings in its name."""
    from sslticket.data.datasets.base import check_part
    from sslticket.evaluation.protocols import OWN_PROTOCOL, Protocol, find_protocol

    found: list[str | Protocol] = []
    for each in _as_list(given):
        if isinstance(each, Protocol):
            if part is not None:
                raise BadInput(f"part must be None beside a Protocol, got {part!r}; give Protocol(part=...)")
            found.append(each.pinned())
        elif isinstance(each, str):
            if each.partition("@")[0] != OWN_PROTOCOL:
                check_part(find_protocol(each).dataset, part)
            found.append(each)
        else:
            raise BadInput(f'protocol must be a name, "file.py:NAME" or a Protocol, got {_shorten(each)}; give "own"')
    if not found:
        raise BadInput('protocol must be at least one, got none; give "own" for that of each ticket')
    return found


def _as_numbers(name: str, given: int | Sequence[int] | None) -> list[int] | None:
    """Seeds or levels."""
    if given is None:
        return None
    numbers = _as_list(given)
    if not numbers or not all(
        isinstance(each, Integral) and not isinstance(each, bool) and 0 <= int(each) < 2**63 for each in numbers
    ):
        raise BadInput(f"{name} must be whole numbers from 0, or None, got {_shorten(given)}; give for instance [0, 1]")
    return [int(each) for each in numbers]


def _as_heads(given: str | Sequence[Any] | None) -> list[Literal["own", "new"]] | None:
    if given is None:
        return None
    heads = _as_list(given)
    if not heads or not all(each in ("own", "new") for each in heads):
        raise BadInput(f'heads must be "own", "new" or both, or None, got {_shorten(given)}; give for instance ["new"]')
    return heads


def _frame_of_files(files: Iterable[Path]) -> "pd.DataFrame":
    """The rows in some files, in their order, with the columns that any of them has."""
    from sslticket.evaluation.tasks import read_task_row

    return _frame_of_rows(row for file in files if (row := read_task_row(file)) is not None)


def _frame_of_rows(rows: Iterable[dict[str, Any]]) -> "pd.DataFrame":
    import pandas as pd

    return pd.DataFrame(list(rows))


def _as_list(given: Any) -> list[Any]:
    """A list of what is given once or several times; a string is one thing."""
    return [given] if isinstance(given, str) or not isinstance(given, Iterable) else list(given)


def _check_path(name: str, given: object) -> Path:
    if not isinstance(given, (str, Path)) or not str(given):
        raise BadInput(f"{name} must be a path, got {_shorten(given)}; give a str or a Path")
    return Path(given)


def _check_runtime(given: RuntimeConfig | None) -> RuntimeConfig:
    processes.check_system()
    if given is not None and not isinstance(given, RuntimeConfig):
        raise BadInput(f"runtime must be a RuntimeConfig or None, got {_shorten(given)}; give RuntimeConfig()")
    return given or RuntimeConfig()


def _shorten(given: object) -> str:
    """A value as an error shows it: on one line, and not a page of it."""
    return textwrap.shorten(repr(given), 80, placeholder=" ...")
