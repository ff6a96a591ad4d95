"""A worker: a process that does the pieces of a campaign which nobody else does, until none is left.

A piece is the search of a cell, or a job of an evaluation or an analysis of finished tickets. Searches of one seed come
first, then what is measured of them, then the next seed's: so a whole picture is there early. A piece is leased while
it is done, so any number of workers share a campaign, on one machine or on many; launchers do nothing but start them. A
piece that fails is written down with the reason in one line, and stops no other.
"""

import gc
import logging
import os
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from socket import gethostname
from typing import Any, NamedTuple, TypeVar

import torch

from sslticket import processes
from sslticket.analysis import ANALYSES
from sslticket.analysis.base import Analysis, AnalysisPlan, EndpointAnalysis, TicketAnalysis
from sslticket.analysis.endpoints import EndpointStore, make_analysis_tasks
from sslticket.campaign.state import PARENT_VARIABLE, CampaignFolder, error_line
from sslticket.campaign.sweep import Analyse, Cell, Evaluate, measurements_of
from sslticket.config import flags
from sslticket.config.recipe import Precision
from sslticket.config.runtime import RuntimeConfig
from sslticket.data.datasets.base import Dataset
from sslticket.data.datasets.catalogue import get_dataset
from sslticket.data.datasets.locate import find_dataset
from sslticket.errors import BadInput, Diverged, is_out_of_memory
from sslticket.escaping import escape_terminal
from sslticket.evaluation.controls import get_control
from sslticket.evaluation.jobs import Evaluation, EvaluationPlan
from sslticket.evaluation.protocols import Protocol, resolve_protocol
from sslticket.evaluation.tasks import (
    ALL_LEVELS,
    DEFAULT_LEVELS,
    EvalTask,
    Levels,
    TicketInfo,
    check_network,
    make_tasks,
)
from sslticket.evaluation.trainer import Evaluator, SplitCache
from sslticket.processes import signals
from sslticket.results.run_dir import is_in_hand
from sslticket.results.work_queue import Job, WorkQueue
from sslticket.search.plan import plan_search
from sslticket.search.run_search import run_search
from sslticket.storage.files import read_json, write_json
from sslticket.storage.leases import InHand, hold_leases, remove_abandoned
from sslticket.ticket import run_folder_of
from sslticket.training.engine import Engine
from sslticket.training.progress import Progress
from sslticket.training.trackers import TrackerSet

Value = TypeVar("Value")
log = logging.getLogger("sslticket")

_POLL_SECONDS = 2.0
"""Seconds between looks at what other workers have finished."""


def parse_levels(text: str | None, default: Levels = DEFAULT_LEVELS) -> Levels:
    """The levels that a sweep names: "0 2 4-6", "all", or None for the default.

    Raises:
        BadInput: If a word is no number and no range.
    """
    if text is None:
        return default
    if str(text).split() == ["all"]:
        return ALL_LEVELS
    return Levels(tuple(flags.parse_numbers(str(text).split(), "levels")))


def levels_of(measured: Evaluate | Analyse) -> Levels:
    """The levels of which an evaluation or an analysis is made; where it names none, the usual ones of its kind."""
    if isinstance(measured, Evaluate):
        return parse_levels(measured.levels)
    analysis = make_analysis(measured)
    if not isinstance(analysis, EndpointAnalysis):
        return parse_levels(measured.levels, ALL_LEVELS)
    return parse_levels(measured.levels, parse_levels(analysis.default_levels or None))


def make_analysis(analyse: Analyse) -> Analysis:
    """The analysis that a sweep names, with its settings.

    Raises:
        BadInput: If it or a setting is unknown.
    """
    analysis: Analysis = ANALYSES.get(analyse.analysis)()
    parser = flags.Parser(prog=f"sslticket analyse {analyse.analysis}", add_help=False)
    flags.add_flags(parser, analysis)
    given = vars(parser.parse_args(flags.words_of(analyse.settings)))
    return flags.override_fields(analysis, given)


def check_cells(cells: Sequence[Cell]) -> None:
    """Checks what can be told of a campaign before any image is opened.

    Raises:
        BadInput: If a protocol, a control or an analysis is unknown, a protocol is not for a cell's network, or a cell
            has none of the levels that are measured of it.
    """
    for measured in measurements_of(cells):
        levels_of(measured)
        for name in measured.controls:
            get_control(name)
    for cell in cells:
        for measured in measurements_of([cell]):
            if not any(levels_of(measured).includes(level) for level in range(cell.last_level + 1)):
                raise BadInput(
                    f"{cell.name}: levels of {type(measured).__name__}(...) must have one of 0 to {cell.last_level}, "
                    f'got {measured.levels}; give levels="all"'
                )
        for name in dict.fromkeys(name for each in measurements_of([cell]) for name in each.protocols):
            try:
                protocol = resolve_protocol(name, cell.recipe.to_dict())
                channels = cell.recipe.data.channels or get_dataset(cell.recipe.data.dataset).channels
                check_network(protocol, cell.recipe.model, channels)
            except BadInput as error:
                raise BadInput(f"{cell.name}: {error}") from error


def datasets_of(cells: Sequence[Cell]) -> dict[str, Dataset]:
    """The data sets that cells search and measure on, by name."""
    found: dict[str, Dataset] = {}
    for cell in cells:
        tree = cell.recipe.to_dict()
        targets = {
            resolve_protocol(name, tree).dataset: None for each in measurements_of([cell]) for name in each.protocols
        }
        for name in (cell.recipe.data.dataset, *targets):
            found.setdefault(name, get_dataset(name))
    return found


def check_data(title: str, cells: Sequence[Cell], folder: CampaignFolder, data_root: Path | None) -> None:
    """Looks for the data sets of cells before anything is started; what torchvision can download, it downloads.

    A campaign whose searches and rows are all there needs none.

    Args:
        title: What the campaign is called.
        cells: The cells.
        folder: Its folder.
        data_root: Where the data lies; None for the usual places.

    Raises:
        BadInput: If one is not here, naming all that are not, and how to get the first.
    """
    rows, left, _ = folder.queue
    measured = not left if rows else not measurements_of(cells)
    if measured and folder.is_there and all(folder.cell_run(cell.key)[2] for cell in cells):
        return
    missing: dict[str, BadInput] = {}
    for name, dataset in datasets_of(cells).items():
        try:
            find_dataset(dataset, data_root)
        except BadInput as error:
            missing[name] = error
    if missing:
        raise BadInput(f"{title} needs {' and '.join(missing)}: {next(iter(missing.values()))}")


def work(
    cells: Sequence[Cell],
    out: Path,
    runtime: RuntimeConfig,
    *,
    precision: Precision | None = None,
    patience: float | None = None,
    show_progress: bool = True,
) -> None:
    """Does what is left of a campaign, and waits for what other workers have in hand.

    Args:
        cells: The cells, as `CampaignFolder.begin` wrote them down.
        out: The folder of the campaign.
        runtime: Where the data lies and how this machine computes.
        precision: Precision of the passes where a recipe leaves it open; None for the device's own.
        patience: Seconds after which the worker leaves where all that is left is in others' hands; None for never.
        show_progress: Whether a bar shows how far each piece is.
    """
    folder = CampaignFolder(out)
    signals.set_activity(lambda: "between two pieces of work")
    worker = _Worker(cells, folder, runtime, precision, show_progress)
    with folder.enrolled(worker.engine.is_main_process):
        try:
            worker.run(patience)
        except BadInput as error:  # between two pieces: another worker would meet it, too
            if worker.main and PARENT_VARIABLE not in os.environ:  # who started it here writes it down
                folder.record_failure(f"it ended for good: {error_line(error)}", what=f"worker on {gethostname()}")
            raise


class _Queue(NamedTuple):
    """The jobs of one evaluation plan or analysis that are left, and what does them."""

    queue: WorkQueue[Any]
    jobs: Sequence[Job[Any]]


@dataclass
class _Worker:
    cells: Sequence[Cell]
    folder: CampaignFolder
    runtime: RuntimeConfig
    precision: Precision | None
    show: bool
    engine: Engine = field(init=False)
    settled: set[str] = field(default_factory=set)
    infos: dict[Path, TicketInfo] = field(default_factory=dict)
    refused: set[tuple[str, int]] = field(default_factory=set)
    accepted: set[tuple[str, int]] = field(default_factory=set)
    rows_done: set[tuple[Path, str | None]] = field(default_factory=set)
    seeds_begun: int = 1
    waited: bool = False

    def __post_init__(self) -> None:
        self.trackers = TrackerSet(self.runtime.trackers)
        if processes.rank() == 0:
            self.trackers.check(log.warning)  # one that is away for an hour stops no worker
        self.engine = Engine.create(self.runtime, self.precision, self.trackers)
        self.splits = SplitCache(self.runtime.data_root)
        self.measurements = measurements_of(self.cells)
        self.seeds = list(dict.fromkeys(cell.recipe.seed for cell in self.cells))

    @property
    def main(self) -> bool:
        return self.engine.is_main_process

    def run(self, patience: float | None) -> None:
        """Does pieces until none is left."""
        if self.main:
            remove_abandoned([self.folder.path])
        last_worked = time.monotonic()
        while True:
            worked, began = self._search_all(), time.monotonic()
            left, measured = self._measure()
            if self.engine.broadcast(not left and not self._pending()):
                return
            if not (worked or measured) and self.seeds_begun < len(self.seeds):
                self.seeds_begun += 1  # of the seeds before, all is done or in others' hands
                continue
            self.waited = not (worked or measured)
            if not self.waited:
                last_worked = time.monotonic()
                continue
            if self.engine.broadcast(patience is not None and time.monotonic() - last_worked > patience):
                return
            self._say("")
            # Looking takes long where there are many rows.
            time.sleep(max(_POLL_SECONDS, 4 * (time.monotonic() - began)))

    # Searches

    def _pending(self) -> list[Cell]:
        """The cells whose search is neither done nor given up; on the main process."""
        if not self.main or len(self.settled) == len(self.cells):
            return []
        failed = {each.cell for each in self.folder.failures() if each.cell and each.is_final}
        begun = self.folder.begun_cells()  # one look at a folder, where thousands of files are missing
        for cell in self.cells:
            if cell.key in begun and cell.key not in self.settled and self.folder.cell_run(cell.key)[2]:
                self.settled.add(cell.key)
        return [cell for cell in self.cells if cell.key not in self.settled and cell.key not in failed]

    def _search_all(self) -> bool:
        """Does every search of the seeds that are begun which nobody else does; returns whether there was one."""
        worked, begun = False, set(self.seeds[: self.seeds_begun])
        while True:
            with ExitStack() as held:
                cell = None
                for each in (each for each in self._pending() if each.recipe.seed in begun):
                    if held.enter_context(hold_leases([self.folder.cell_file(each.key)])) and self._is_left(each):
                        cell = each
                        break
                    held.close()
                number = self.engine.broadcast(None if cell is None else self.cells.index(cell))
                if number is None:
                    return worked
                worked = True
                self._search(self.cells[number])

    def _is_left(self, cell: Cell) -> bool:
        """Whether a search is still to be done, and nobody without the campaign is at it.

        That may be a person, or the worker of a cell that names the same search in other words.
        """
        run, _, done = self.folder.cell_run(cell.key)
        return not (done or self.folder.has_failed(cell.key) or (run is not None and is_in_hand(run)))

    def _search(self, cell: Cell) -> None:
        self._say(cell.name, cell.key)

        def search() -> None:
            given = {"trial": cell.trial, "rewind_given": cell.rewind_given}
            plan = plan_search(cell.recipe, self.runtime, self.folder.out, **given)
            seen = [plan.cumulative_samples(level) for level in range(plan.levels + 1)]
            run = plan.run_dir.path.name
            if self.main:
                for note in filter(None, (plan.notice, *plan.notes)):
                    print(escape_terminal(f"note: {cell.name}: {note}"), flush=True)
                self.folder.write_cell(cell.key, run, seen, done=False)
            run_search(plan, self.runtime, show_progress=self.show, trackers=self.trackers)
            if self.main:
                self.folder.write_cell(cell.key, run, seen, done=True)
                self.folder.forget_failure(cell.key)

        self._attempt(search, cell.name, cell=cell.key)
        # What the search's engine set for the process is set anew for what comes.
        self.engine = Engine.create(self.runtime, self.precision, self.trackers)

    def _attempt(
        self, piece: Callable[[], Any], what: str, *, cell: str | None = None, files: Sequence[Path] = ()
    ) -> Any:
        """Does a piece; what it raises is written down, and nothing else is stopped by it."""
        try:
            return piece()
        except InHand:  # a search that somebody started without the campaign
            log.warning("%s is in the hands of another process", what)
        except (BadInput, Diverged) as error:
            self._fail(error, what, cell, files)
        except Exception as error:
            if self.main:
                log.error("%s failed", what, exc_info=True)
            self._fail(error, what, cell, files)
            # Of several processes, the others wait for this one where it cannot come; a device's error stays.
            if processes.world_size() > 1 or ("CUDA error" in str(error) and not is_out_of_memory(error)):
                raise
        finally:
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        return None

    def _fail(self, error: Exception, what: str, cell: str | None, files: Sequence[Path]) -> None:
        if self.main:
            diverged = isinstance(error, Diverged)
            failure = self.folder.record_failure(error, what=what, cell=cell, files=files, diverged=diverged)
            print(f"{'diverged' if diverged else 'failed'}: {what}: {failure.error}", flush=True)

    def _say(self, doing: str, piece: str = "", files: Sequence[Path] = ()) -> None:
        if self.main:
            self.folder.write_work(doing, piece, files)
            if doing:
                print(f"{time.strftime('%H:%M:%S')} {doing}", flush=True)

    # Evaluations and analyses

    def _measure(self) -> tuple[bool, bool]:
        """Does what nobody else does of the rows of finished searches.

        Returns:
            Whether something is left, and whether something was done.
        """
        with self.engine.show_progress(0, show=self.show and not self.waited) as progress:
            queues = self._queues(progress)
            failed = {file for each in self.folder.failures() if each.is_final for file in each.files}
            left = worked = False
            for queue, jobs in queues:
                for job in jobs:
                    if self.engine.broadcast(self._is_given_up(job, failed)):
                        continue
                    left = True
                    progress.set_remaining(job.samples)
                    what = _describe_job(job)
                    self._say(what, job.key, job.files)
                    done = self._attempt(partial(queue.attempt, job), what, files=job.files)
                    worked = worked or done is not None
                    if done is not None and self.main:
                        self.folder.count_done(len(done))
                    if done is not None and self._search_all():
                        return True, True  # other tickets are there now
        if self.engine.broadcast(not self._pending()):
            self._attempt_ticket_analyses()
        return left, worked

    def _is_given_up(self, job: Job[Any], failed: set[str]) -> bool:
        if not self.main:
            return False
        if any(str(file) in failed for file in job.files):
            return True
        if lacking := [str(file) for file in job.needs if str(file) in failed]:
            error = f"it needs {Path(lacking[0]).name}, which failed"
            self.folder.record_failure(error, what=_describe_job(job), files=job.files)
            failed.update(map(str, job.files))
            return True
        return False

    def _queues(self, progress: Progress) -> list[_Queue]:
        """The jobs that are left, of evaluations and then of each analysis."""
        engine = self.engine
        evaluator = Evaluator(engine, progress)
        found: list[_Queue] = []
        rows = left = 0

        def add(plan: EvaluationPlan | AnalysisPlan, context: Any) -> None:
            nonlocal rows, left
            queue = WorkQueue(plan.jobs, context, engine, progress)
            jobs = queue.pending()
            found.append(_Queue(queue, jobs))
            if self.main:
                done = [is_done for _, is_done in plan.groups()]
                rows, left = rows + len(done), left + done.count(False)

        tasks: list[EvalTask] = []
        for number, measured in enumerate(self.measurements):
            if isinstance(measured, Evaluate):
                tasks += self._tasks(number, measured)
        if tasks := list(dict.fromkeys(tasks)):
            infos = {task.path: self.infos[task.path] for task in tasks}
            plan = EvaluationPlan(tasks, infos, self.splits, engine.numerics, self.rows_done)
            add(plan, Evaluation(plan, evaluator))
        for number, measured in enumerate(self.measurements):
            analysis = make_analysis(measured) if isinstance(measured, Analyse) else None
            if isinstance(analysis, EndpointAnalysis) and (own := self._tasks(number, measured)):
                analysis_plan = AnalysisPlan.build(analysis, own, self.splits, engine.numerics)
                add(analysis_plan, EndpointStore(analysis_plan.split_cache, engine, progress))
        if self.main and rows:
            self.folder.write_queue(rows, left, len(self.settled))
        return found

    def _tasks(self, number: int, measured: Evaluate | Analyse) -> list[EvalTask]:
        """The rows of one evaluation or analysis that finished searches have; those that cannot be are written down."""
        cells = [cell for cell in self.cells if measured in (*cell.evaluate, *cell.analyse)]
        # Which searches are done is the main process's to say.
        done = self.engine.broadcast({cell.key: self._levels(cell) for cell in cells if cell.key in self.settled})
        by_seed: dict[int, list[Path]] = defaultdict(list)
        for cell in cells:
            if cell.key in done and (paths := self._checked_paths(number, measured, cell, done[cell.key])):
                by_seed[cell.recipe.seed if measured.seeds == "search" else 0] += paths
        return [task for seed, paths in by_seed.items() for task in self._make_tasks(measured, paths, seed)]

    def _make_tasks(self, measured: Evaluate | Analyse, paths: Sequence[Path], seed: int) -> list[EvalTask]:
        seeds = [seed] if measured.seeds == "search" else measured.seeds
        how = measured.controls, measured.protocols, seeds, measured.heads, measured.part
        if isinstance(measured, Evaluate):
            return make_tasks(paths, *how, curve=measured.curve)
        return make_analysis_tasks(paths, *how)

    def _levels(self, cell: Cell) -> list[Path]:
        """The tickets of a finished search, by level."""
        run, samples, _ = self.folder.cell_run(cell.key)
        assert run is not None, "its search is done"
        return [run / "tickets" / f"level-{level:02d}.safetensors" for level in range(len(samples))]

    def _checked_paths(
        self, number: int, measured: Evaluate | Analyse, cell: Cell, tickets: Sequence[Path]
    ) -> list[Path]:
        """The tickets of a finished search of which an evaluation or analysis can be made; none where it cannot."""
        if (cell.key, number) in self.refused:
            return []
        levels = levels_of(measured)
        paths = [path for level, path in enumerate(tickets) if levels.includes(level)]
        if (cell.key, number) not in self.accepted:
            what = f"{cell.name}, {measured.describe()}"
            if self._attempt(lambda: self._check(measured, paths, cell), what) is None:
                self.refused.add((cell.key, number))
                return []
            self.accepted.add((cell.key, number))
        return paths

    def _check(self, measured: Evaluate | Analyse, paths: Sequence[Path], cell: Cell) -> bool:
        """Whether tickets can be measured so.

        Raises:
            BadInput: If they cannot.
        """
        if not paths:
            raise BadInput(f"no ticket has one of the levels {measured.levels}; give other levels")
        tasks = self._make_tasks(measured, paths, cell.recipe.seed)
        if isinstance(measured, Analyse):
            analysis = make_analysis(measured)
            if isinstance(analysis, EndpointAnalysis):
                AnalysisPlan.build(analysis, tasks, self.splits, self.engine.numerics)
            return True
        targets: dict[Path, dict[str, Protocol]] = {task.path: {} for task in tasks}
        for task in tasks:
            targets[task.path][task.protocol.name] = task.protocol
        self.infos |= {path: TicketInfo.read(path, protocols) for path, protocols in targets.items()}
        EvaluationPlan(tasks, self.infos, self.splits, self.engine.numerics, self.rows_done).check()
        for task in tasks:
            self.engine.check_batch(task.protocol.training_for(self.infos[task.path].model))
        return True

    def _attempt_ticket_analyses(self) -> None:
        """Does the analyses that train nothing, once all searches have ended; one worker does each, in one go."""
        if not self.main:
            return
        for number, measured in enumerate(self.measurements):
            analysis = make_analysis(measured) if isinstance(measured, Analyse) else None
            if not isinstance(measured, Analyse) or not isinstance(analysis, TicketAnalysis):
                continue
            levels = levels_of(measured)
            cells = [cell for cell in self.cells if measured in cell.analyse and cell.key in self.settled]
            tickets = [enumerate(self._levels(cell)) for cell in cells]
            paths = [path for each in tickets for level, path in each if levels.includes(level)]
            marker = self.folder.path / "analyses" / f"{number}.json"
            content = {
                "analysis": repr(analysis),
                "tickets": [str(path.relative_to(self.folder.out)) for path in paths],
            }
            with hold_leases([marker]) as held:
                if paths and held and not self._is_analysed(marker, content):
                    self._say(measured.describe(), str(marker), [marker])
                    if self._attempt(partial(_do_analysis, analysis, paths), measured.describe()) is not None:
                        folders = dict.fromkeys(run_folder_of(path) / "rows" for path in paths)
                        files = [file for each in folders for file in sorted(each.glob(f"*.{analysis.kind}.*jsonl"))]
                        rows = [str(file.relative_to(self.folder.out)) for file in files]
                        write_json(marker, {**content, "rows": rows})

    def _is_analysed(self, marker: Path, content: dict[str, Any]) -> bool:
        """Whether an analysis was done of the same tickets, and its rows are still there."""
        known = read_json(marker) if marker.exists() else {}
        rows = known.pop("rows", None)
        return known == content and rows is not None and all((self.folder.out / row).exists() for row in rows)


def _do_analysis(analysis: TicketAnalysis, paths: Sequence[Path]) -> int:
    """Writes the rows of an analysis that trains nothing; returns how many there are."""
    return sum(1 for _ in analysis.rows(paths))


def _describe_job(job: Job[Any]) -> str:
    """A job for people: the run, and the file that it writes."""
    file = job.files[0]
    more = f" and {len(job.files) - 1} more" if len(job.files) > 1 else ""
    return f"{file.parent.parent.name}: {file.stem}{more}"
