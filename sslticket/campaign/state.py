"""What a campaign keeps beside its runs, in `.campaign/`, and how far it is, for a person; no torch, no images.

    runs/<name>/.campaign/
        cells.json                  the cells as the sweep's file last had them
        sweep.json                  the same with all their settings, from which workers take them
        cells/<key>.json            what a cell has become: the folder of its run, and whether its search is done
        failed/<name>.json          what failed or diverged, with the one line why
        workers/<host>.<pid>.json   who works, and on what
        planned.json                what each search and all measurements were planned to take, see `planned_work`
        queue.json                  how many rows were left when a worker last looked
        logs/worker-<n>.log         what workers of this machine print

Every file is renamed into place whole.
"""

import hashlib
import itertools
import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from sslticket.config.training import format_duration
from sslticket.errors import BadInput, out_of_memory_message, system_error_message
from sslticket.storage.files import process_exists, read_json, write_json
from sslticket.storage.leases import EXPIRY_SECONDS, hold_leases, lease_path
from sslticket.training.progress import read_statuses

if TYPE_CHECKING:  # they import numpy and torch, which `sslticket --help` does not need
    from sslticket.campaign.cost import CampaignCost
    from sslticket.campaign.sweep import Cell

Record = TypeVar("Record")

CAMPAIGN_FOLDER = ".campaign"
PARENT_VARIABLE = "SSLTICKET_CAMPAIGN_PARENT"
"""Names the process that started a worker on its own machine, without which the worker does not go on."""
MAX_DEATHS = 2
"""Times that the process that works on a piece may die before the piece is left alone."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why a piece of work has no result.

    Attributes:
        what: The piece, for people.
        error: The reason in one line.
        cell: Key of the cell whose search it was; None for an evaluation or an analysis.
        files: Files that the piece was to write.
        diverged: Whether its training diverged: it is not tried again unless asked for.
        deaths: Times that a process died of it; 0 where it ended with an error.
        host: Name of the machine.
        pid: Number of the process.
        time: When, in seconds since 1970.
    """

    what: str
    error: str
    cell: str | None = None
    files: tuple[str, ...] = ()
    diverged: bool = False
    deaths: int = 0
    host: str = ""
    pid: int = 0
    time: float = 0.0

    @property
    def is_final(self) -> bool:
        """Whether the piece is left alone until the campaign is started again."""
        return self.deaths in (0, *range(MAX_DEATHS, 1000))


@dataclass(frozen=True, kw_only=True)
class WorkerState:
    """A process that works on a campaign.

    Attributes:
        host: Name of the machine.
        pid: Number of the process.
        job: Its job under SLURM; "" where it is none.
        doing: What it works on, for people; "" for nothing.
        piece: The key of the cell, or the first file, that it works on.
        files: Files that the piece writes.
        since: When it began with that, in seconds since 1970.
    """

    host: str
    pid: int
    job: str = ""
    doing: str = ""
    piece: str = ""
    files: tuple[str, ...] = ()
    since: float = 0.0


@dataclass(frozen=True, kw_only=True)
class CellState:
    """What has become of a cell.

    Attributes:
        key: Key of the cell.
        name: Its name, for people.
        state: Whether its search is done, running, waiting, failed or diverged.
        run: The folder of its run; None before a worker has opened its images.
        samples: Images that the search has seen, at most, at each of its tickets; empty before.
        tickets: Tickets that are there.
        reason: Why it failed, in one line.
    """

    key: str
    name: str
    state: Literal["done", "running", "waiting", "failed", "diverged"]
    run: Path | None
    samples: tuple[int, ...]
    tickets: int
    reason: str = ""


class CampaignFolder:
    """The files of a campaign.

    Attributes:
        out: The folder of the campaign, in which the runs lie.
        path: The folder of these files.
    """

    def __init__(self, out: Path) -> None:
        self.out, self.path = out, out / CAMPAIGN_FOLDER

    @property
    def is_there(self) -> bool:
        """Whether there is a campaign."""
        return self._cells_file.is_file()

    @property
    def _cells_file(self) -> Path:
        return self.path / "cells.json"

    @property
    def kept_file(self) -> Path:
        """The cells with all their settings, see `sslticket.campaign.sweep.keep_cells`; it may not be there."""
        return self.path / "sweep.json"

    def compare(self, cells: "Sequence[Cell]") -> str:
        """What is new in a sweep since its campaign was last started, in one line; "" for nothing.

        Raises:
            BadInput: If the folder is that of another sweep.
        """
        if (self.out / "recipe.json").exists():
            raise BadInput(f"{self.out} is itself the folder of a run; give another folder with --out")
        if self.out.exists() and not self.out.is_dir():
            raise BadInput(f"{self.out} is a file; give a folder with --out")
        if not self.is_there:
            return ""
        known, now = self.recorded_cells(), {cell.key for cell in cells}
        if not known.keys() & now:
            raise BadInput(
                f"{self.out} holds the campaign of another sweep, whose {len(known):,} cells are none of these "
                f"{len(now):,}; give another folder with --out"
            )
        told = []
        if new := len(now - known.keys()):
            told.append(f"{new:,} of {len(now):,} cells are new")
        if gone := len(known.keys() - now):
            told.append(f"{gone:,} cells of before are no longer in the sweep, and their runs stay as they are")
        return "; ".join(told)

    def recorded_cells(self) -> dict[str, dict[str, Any]]:
        """Name and number of the cells that the campaign was last started with, by their keys.

        Raises:
            BadInput: If the file is damaged.
        """
        fix = "delete it and start the campaign again"
        found = read_json(self._cells_file, fix=fix)
        cells = found.get("cells") if isinstance(found, dict) else None
        if not isinstance(cells, dict) or not all(isinstance(each, dict) for each in cells.values()):
            raise BadInput(f"{self._cells_file} is damaged (it holds no cells); {fix}")
        return cells

    @property
    def title(self) -> str:
        """What the campaign is called."""
        return str(_read_or_empty(self._cells_file).get("title") or self.out.name)

    def searched(self, cells: "Sequence[Cell]") -> set[str]:
        """The keys of the cells whose searches are done."""
        return {cell.key for cell in cells if self.cell_run(cell.key)[2]} if self.is_there else set()

    def begin(self, cells: "Sequence[Cell]", title: str, *, retry: bool, cost: "CampaignCost | None" = None) -> None:
        """Writes the cells down, and forgets what failed before, so that it is tried again.

        Args:
            cells: The cells.
            title: What the campaign is called.
            retry: Whether what diverged is tried again, too.
            cost: What the cells come to, from which the time left is told; None tells none.
        """
        from sslticket.campaign.sweep import keep_cells

        keep_cells(cells, self.kept_file)
        listed = {cell.key: {"name": cell.name, "number": cell.number} for cell in cells}
        write_json(self._cells_file, {"title": title, "cells": listed})
        if cost is not None:
            write_json(self._planned_file, _planned_work(cost))
        for path, failure in self._failures():
            if retry or not failure.diverged:
                path.unlink(missing_ok=True)

    def cell_file(self, key: str) -> Path:
        """The file on what a cell has become; the lease of its search lies beside it."""
        return self.path / "cells" / f"{key}.json"

    def write_cell(self, key: str, run: str, samples: Sequence[int], *, done: bool) -> None:
        """Writes what a cell has become."""
        write_json(self.cell_file(key), {"run": run, "samples": list(samples), "done": done})

    def begun_cells(self) -> set[str]:
        """The keys of the cells on which something is written."""
        return {path.stem for path in (self.path / "cells").glob("*.json")}

    def cell_run(self, key: str) -> tuple[Path | None, tuple[int, ...], bool]:
        """The folder of a cell's run, the images seen at each ticket, and whether all tickets are there."""
        found = _read_or_empty(self.cell_file(key))
        run, samples = found.get("run"), found.get("samples")
        if not isinstance(run, str) or not isinstance(samples, list) or not samples:
            return None, (), False
        tickets = self.out / run / "tickets"
        done = bool(found.get("done")) and {f"level-{level:02d}.safetensors" for level in range(len(samples))} <= (
            {path.name for path in tickets.glob("level-*.safetensors")}
        )
        return self.out / run, tuple(samples), done

    def failures(self) -> list[Failure]:
        """What failed or diverged and has no result since."""
        return [failure for _, failure in self._failures()]

    def _failures(self) -> Iterator[tuple[Path, Failure]]:
        for path in sorted((self.path / "failed").glob("*.json")):
            failure = _from_json(Failure, _read_or_empty(path))
            written = [Path(file).exists() for file in failure.files] if failure else []
            if failure and not (written and all(written)):
                yield path, failure

    def record_failure(
        self,
        error: BaseException | str,
        *,
        what: str,
        cell: str | None = None,
        files: Sequence[Path] = (),
        diverged: bool = False,
        died: bool = False,
    ) -> Failure:
        """Writes down that a piece failed, and why.

        Args:
            error: What was raised, or one line.
            what: The piece, for people.
            cell: Key of the cell whose search it was.
            files: Files that the piece was to write.
            diverged: Whether its training diverged.
            died: Whether the process died of it; a piece is tried again until `MAX_DEATHS` died.
        """
        path = self.path / "failed" / f"{cell or _short_hash([what, *map(str, files)])}.json"
        before = _from_json(Failure, _read_or_empty(path))
        failure = Failure(
            what=what,
            error=error if isinstance(error, str) else error_line(error),
            cell=cell,
            files=tuple(map(str, files)),
            diverged=diverged,
            deaths=(before.deaths if before else 0) + 1 if died else 0,
            host=socket.gethostname(),
            pid=os.getpid(),
            time=time.time(),
        )
        write_json(path, asdict(failure))
        return failure

    def has_failed(self, cell: str) -> bool:
        """Whether a cell's search is given up until the campaign is started again."""
        failure = _from_json(Failure, _read_or_empty(self.path / "failed" / f"{cell}.json"))
        return failure is not None and failure.is_final

    def forget_failure(self, cell: str) -> None:
        """Deletes what is written of a cell's failures: its search is done."""
        (self.path / "failed" / f"{cell}.json").unlink(missing_ok=True)

    @contextmanager
    def enrolled(self, writes: bool) -> Iterator[None]:
        """While this lasts the process is one of the campaign's workers, and its file says so.

        Args:
            writes: Whether this process writes: the first of several that were launched together.
        """
        if not writes:
            yield
            return
        self._own_file.parent.mkdir(parents=True, exist_ok=True)
        with hold_leases([self._own_file]):
            self.write_work("")
            try:
                yield
            finally:
                self._own_file.unlink(missing_ok=True)

    @cached_property
    def _own_file(self) -> Path:
        return self.path / "workers" / f"{socket.gethostname()}.{os.getpid()}.json"

    def write_work(self, doing: str, piece: str = "", files: Sequence[Path] = ()) -> None:
        """Writes what this process works on from now."""
        job = os.environ.get("SLURM_ARRAY_JOB_ID", os.environ.get("SLURM_JOB_ID", ""))
        if "SLURM_ARRAY_TASK_ID" in os.environ:
            job = f"{job}_{os.environ['SLURM_ARRAY_TASK_ID']}"
        worker = WorkerState(
            host=socket.gethostname(),
            pid=os.getpid(),
            job=job,
            doing=doing,
            piece=piece,
            files=tuple(map(str, files)),
            since=time.time(),
        )
        write_json(self._own_file, asdict(worker))

    def worker(self, pid: int) -> WorkerState | None:
        """What a process of this machine works on, or did when it died."""
        return _from_json(WorkerState, _read_or_empty(self._file_of_worker(pid)))

    def forget_worker(self, pid: int) -> None:
        """Deletes the file of a process of this machine that is gone."""
        self._file_of_worker(pid).unlink(missing_ok=True)

    def _file_of_worker(self, pid: int) -> Path:
        return self.path / "workers" / f"{socket.gethostname()}.{pid}.json"

    def workers(self) -> list[WorkerState]:
        """The processes that work on the campaign now."""
        found = []
        for path in sorted((self.path / "workers").glob("*.json")):
            worker = _from_json(WorkerState, _read_or_empty(path))
            if worker and _is_alive(worker, path):
                found.append(worker)
        return found

    def write_queue(self, rows: int, left: int, cells: int) -> None:
        """Writes how many rows were asked for of the tickets of so many finished searches, and are left of them."""
        write_json(self.path / "queue.json", {"rows": rows, "left": left, "cells": cells})

    def count_done(self, rows: int) -> None:
        """Takes rows that were written since from what is left."""
        known, left, cells = self.queue
        self.write_queue(known, max(0, left - rows), cells)

    @property
    def queue(self) -> tuple[int, int, int]:
        """Rows that were asked for when a worker last looked, those that were left, and the searches they are of."""
        found = _read_or_empty(self.path / "queue.json")
        rows, left, cells = (
            found.get(name, 0) for name in ("rows", "left", "cells")
        )  # earlier versions wrote no cells
        return (rows, left, cells) if type(rows) is type(left) is type(cells) is int else (0, 0, 0)

    @property
    def _planned_file(self) -> Path:
        return self.path / "planned.json"

    @property
    def planned_work(self) -> tuple[Mapping[str, float], float, bool]:
        """The planned work of each search, by its cell's key, and that of all measurements; nothing where none is.

        The last value says whether it is in seconds of one worker; where no speed was known, it is in images that go
        through the network.
        """
        found = _read_or_empty(self._planned_file)
        searches, measuring, unit = (found.get(name) for name in ("searches", "measuring", "unit"))
        if not isinstance(searches, dict) or not isinstance(measuring, int | float):
            return {}, 0.0, False
        known = {key: work for key, work in searches.items() if isinstance(work, int | float)}
        return known, measuring, unit == "seconds"

    def some_rows(self, most: int = 300) -> list[Mapping[str, Any]]:
        """Rows that the campaign has measured, not all where there are many: what a plan needs to know of speeds."""
        files = itertools.islice(self.out.glob("*/rows/*.jsonl"), most)
        return [row for file in files if (row := _read_or_empty(file))]

    def log_file(self, number: int) -> Path:
        """Where a worker of this machine prints."""
        return self.path / "logs" / f"worker-{number}.log"

    def cell_states(self) -> list[CellState]:
        """What has become of each cell, in their order."""
        failures = {each.cell: each for each in self.failures() if each.cell and each.is_final}
        working = {worker.piece for worker in self.workers()}
        found = []
        listed = sorted(self.recorded_cells().items(), key=lambda each: each[1].get("number", 0))
        for key, cell in listed:
            run, samples, done = self.cell_run(key)
            failure = failures.get(key)
            state: Literal["done", "running", "waiting", "failed", "diverged"] = "waiting"
            if done:
                state = "done"
            elif key in working:
                state = "running"
            elif failure:
                state = "diverged" if failure.diverged else "failed"
            tickets = len(samples) if done else len(list(run.glob("tickets/level-*.safetensors"))) if run else 0
            reason = failure.error if failure else ""
            name = str(cell.get("name"))
            found.append(
                CellState(key=key, name=name, state=state, run=run, samples=samples, tickets=tickets, reason=reason)
            )
        return found


def _read_or_empty(path: Path) -> Mapping[str, Any]:
    """The names and values in a file; none where it is missing or damaged: all of them are written anew."""
    with suppress(OSError, ValueError):
        found = read_json(path)
        if isinstance(found, dict):
            return found
    return {}


def _from_json(kind: type[Record], tree: Mapping[str, Any]) -> Record | None:
    """A dataclass of this module as a file has it; None where it has none."""
    names = {each.name for each in fields(kind)}  # type: ignore[arg-type]  # any dataclass of this module
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in tree.items() if name in names}
    try:
        return kind(**values)
    except TypeError:
        return None


def _is_alive(worker: WorkerState, path: Path) -> bool:
    if worker.host == socket.gethostname():
        return process_exists(worker.pid)
    try:
        return time.time() - lease_path(path).stat().st_mtime < EXPIRY_SECONDS
    except OSError:
        return False


def _short_hash(words: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(words).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def error_line(error: BaseException) -> str:
    """Why a piece failed in one line; of an error that nobody foresaw the place in the code, too."""
    if message := out_of_memory_message(error) or system_error_message(error):
        return " ".join(message.split())
    text = " ".join(str(error).split())
    if isinstance(error, (BadInput, ArithmeticError)) and text:
        return text
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = ""
    if trace is not None:
        where = f" ({Path(trace.tb_frame.f_code.co_filename).name}, line {trace.tb_lineno})"
    return f"{type(error).__name__}: {text}{where}"


_MOST_LINES = 20
"""Of cells in one state, so many are named."""


def campaign_lines(out: Path) -> list[str]:
    """The picture of a campaign for a terminal: one line for all, then who works, what waits, failed and diverged.

    Raises:
        BadInput: If its files are damaged.
    """
    folder = CampaignFolder(out)
    cells, workers, failures = folder.cell_states(), folder.workers(), folder.failures()
    counts = {state: [cell for cell in cells if cell.state == state] for state in _STATES}
    rows, left, _ = folder.queue
    told = [f"{len(found):,} {state}" for state, found in counts.items() if found]
    first = f"{folder.title}: {len(cells):,} searches, {', '.join(told)}"
    if rows:
        first += f"; {rows - left:,} of {rows:,} rows"
    if seconds := _seconds_left(folder, cells, workers):
        first += f"; about {format_duration(seconds)} left"
    lines = [first]
    statuses = {
        (status.host, status.pid): status
        for run in {cell.run for cell in cells if cell.run} & _runs_at_work(workers, cells, out)
        for status in read_statuses(run)
    }
    for worker in workers:
        where = f"{worker.host}:{worker.pid}" + (f", job {worker.job}" if worker.job else "")
        status = statuses.get((worker.host, worker.pid))
        what = worker.doing or "waits for what others have in hand"
        if status is not None:
            what += f": {status.task} step {status.step:,}/{status.steps:,}, {status.rate:,.0f} samples/s"
            what += f", loss {status.loss:.4g}"
        lines.append(f"  running   {what} ({where})")
    for state in ("failed", "diverged"):
        others = [each for each in failures if not each.cell and each.diverged == (state == "diverged")]
        named = [(cell.name, cell.reason) for cell in counts[state]] + [(each.what, each.error) for each in others]
        lines += [f"  {state:<9} {name}: {reason}" for name, reason in named[:_MOST_LINES]]
        lines += [f"  {state:<9} and {len(named) - _MOST_LINES:,} more"] if len(named) > _MOST_LINES else []
    lines += [f"  died once {each.what}: {each.error}" for each in failures if not each.is_final]
    if waiting := [cell.name for cell in counts["waiting"]]:
        more = f" and {len(waiting) - 3:,} more" if len(waiting) > 3 else ""
        lines.append(f"  waiting   {'; '.join(waiting[:3])}{more}")
    return lines


_STATES = ("done", "running", "waiting", "failed", "diverged")


def _runs_at_work(workers: Sequence[WorkerState], cells: Sequence[CellState], out: Path) -> set[Path | None]:
    by_key = {cell.key: cell.run for cell in cells}
    files = {Path(file).absolute() for worker in workers for file in worker.files}
    here = out.absolute()  # as workers name it, whatever way a person does
    runs = {out / file.relative_to(here).parts[0] for file in files if file != here and file.is_relative_to(here)}
    return {by_key.get(worker.piece) for worker in workers} | runs


def _planned_work(cost: "CampaignCost") -> dict[str, Any]:
    parts = [*cost.searches.values(), cost.measuring]
    known = all(part.seconds is not None for part in parts)
    *searches, measuring = [(part.seconds if known else part.forward_images) or 0 for part in parts]
    unit = "seconds" if known else "images"
    return {"searches": dict(zip(cost.searches, searches, strict=True)), "measuring": measuring, "unit": unit}


_MOST_TIMED = 20
"""Searches whose times are read, to tell how fast the campaign is: thousands would take long."""


def _seconds_left(folder: CampaignFolder, cells: Sequence[CellState], workers: Sequence[WorkerState]) -> float | None:
    """How long what is left takes: as planned, and as much faster or slower as the searches were until now.

    None where nobody works, nothing was planned, or no speed is known.
    """
    searches, measuring, in_seconds = folder.planned_work
    if not workers or not searches:
        return None
    begun = [cell for cell in cells if cell.key in searches and cell.tickets]
    timed = begun[:: 1 + len(begun) // _MOST_TIMED]
    planned, taken = sum(searches[cell.key] * _share(cell) for cell in timed), sum(map(_seconds_taken, timed))
    if not (planned and taken) and not in_seconds:
        return None
    open_cells = [cell for cell in cells if cell.state in ("running", "waiting")]
    left = sum(searches.get(cell.key, 0.0) * (1 - _share(cell)) for cell in open_cells)
    rows, rows_left, measured = folder.queue
    count = len(open_cells) + sum(cell.state == "done" for cell in cells)
    done = (1 - rows_left / rows) * min(1.0, measured / count) if rows and count else 0.0
    left += measuring * (1 - done)
    return left * (taken / planned if planned and taken else 1.0) / len(workers)


def _share(cell: CellState) -> float:
    """How much of a search is done, by the images that it saw at its last ticket."""
    if cell.state == "done":
        return 1.0
    return cell.samples[cell.tickets - 1] / max(1, cell.samples[-1]) if cell.samples and cell.tickets else 0.0


def _seconds_taken(cell: CellState) -> float:
    """Seconds that a search has taken for the tickets that are there."""
    files = (cell.run / "rows").glob("search.level-*.jsonl") if cell.run else ()
    found = [_read_or_empty(file).get("seconds") for file in files]
    return sum(seconds for seconds in found if isinstance(seconds, int | float))
