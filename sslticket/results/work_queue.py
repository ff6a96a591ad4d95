"""Work that several processes share: each job is leased, done and written once, by whichever process comes first.

Evaluations and analyses are queues of jobs. What another process is doing is waited for, and taken over if that process
dies. Before anything runs, `describe_queue` estimates how long what is left takes.
"""

import time
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Generic, TypeVar

from sslticket.results.throughput import Throughput, Workload
from sslticket.storage.files import write_row
from sslticket.storage.leases import (
    HEARTBEAT_SECONDS,
    Held,
    Holder,
    hold_leases,
    lease_path,
    look_at_lease,
    remove_abandoned,
)
from sslticket.training.engine import Engine
from sslticket.training.progress import Progress

Row = dict[str, Any]
Context = TypeVar("Context")
_POLL_SECONDS = 2.0
"""Seconds between looks at what other processes have finished."""


class Job(ABC, Generic[Context]):
    """A piece of work that leaves files; a frozen dataclass that can be pickled, since one process tells the others.

    `Context` is what `run` needs beside the job: the class of what the queue was made with.
    """

    @property
    @abstractmethod
    def files(self) -> tuple[Path, ...]:
        """Files that the job writes; each is leased while it is at work. Those of rows end in ".jsonl"."""

    @property
    def needs(self) -> tuple[Path, ...]:
        """Files of other jobs, without which this one cannot be done."""
        return ()

    @property
    def workload(self) -> Workload | None:
        """The training that the job does; None where it trains nothing."""
        return None

    @property
    def group(self) -> tuple[str, str]:
        """The line of the estimate in which the job is counted: its protocol, and what is trained."""
        return "", ""

    @property
    def key(self) -> str:
        """What tells the job from all others: its first file."""
        return str(self.files[0])

    @property
    def samples(self) -> int:
        """Source images that the job will see."""
        return self.workload.samples if self.workload else 0

    @property
    def rows(self) -> int:
        """The number of rows that the job writes."""
        return sum(file.suffix == ".jsonl" for file in self.files)

    def is_done(self, file: Path, context: Context) -> bool:
        """Whether one of its files is there and is what the job would write; called on the main process only."""
        return file.exists()

    @abstractmethod
    def run(self, files: Sequence[Path], context: Context) -> Sequence[Row]:
        """Does the work; called on all processes that were launched together.

        The queue writes rows. A job with other files writes these itself, on the main process.

        Args:
            files: Those of its files that are to be written, which nobody else is writing.
            context: What the queue was made with.

        Returns:
            The rows of those files, in their order, which the queue writes.
            A job with other files writes these itself, on the main process, and returns none.
        """

    def clean_up(self, context: Context) -> None:  # most jobs leave nothing else
        """Deletes what was only needed until its files were there; called on the main process only."""


class WorkQueue(Generic[Context]):
    """The jobs that are left, and this process's part in doing them.

    Where files decide, the main one of several launched processes looks and the others follow: they must not disagree.
    """

    def __init__(
        self, pending: Callable[[], Sequence[Job[Context]]], context: Context, engine: Engine, progress: Progress
    ) -> None:
        """Makes a queue.

        Args:
            pending: Finds the jobs that nobody has done yet, in the order in which they are to be done.
            context: What jobs need to run.
            engine: Where trainings run.
            progress: What shows how many samples are left.
        """
        self._pending, self._context, self._engine, self._progress = pending, context, engine, progress

    def pending(self) -> Sequence[Job[Context]]:
        """The jobs that nobody has done yet, the same on all processes."""
        return self._engine.broadcast(self._pending() if self._engine.is_main_process else [])

    def run(self, folders: Iterable[Path]) -> Iterator[Row]:
        """Does all that is left, and waits for what other processes are doing; yields each row once it is written.

        Args:
            folders: Folders of runs, from which what killed processes left is deleted first.
        """
        if self._engine.is_main_process:
            remove_abandoned(dict.fromkeys(folders))
        jobs, told = self.pending(), set[tuple[Holder, bool]]()
        while jobs:
            idle = True
            for number, job in enumerate(jobs):
                self._progress.set_remaining(sum(each.samples for each in jobs[number:]))
                rows = self.attempt(job)
                idle = idle and rows is None
                yield from rows or ()
            jobs = self.pending()
            if jobs and idle:
                self._tell_holders(jobs, told)
                time.sleep(_POLL_SECONDS)

    def _tell_holders(self, jobs: Sequence[Job[Context]], told: set[tuple[Holder, bool]]) -> None:
        """Notes whom this process waits for and until when: once, and again when one has fallen silent.

        Args:
            jobs: Those that are left.
            told: Whom a person knows of, and whether as one that is silent; added to.
        """
        files = [file for job in jobs for file in job.files] if self._engine.is_main_process else []
        by_holder: dict[Holder, list[tuple[Path, Held]]] = defaultdict(list)
        for file in files:
            if held := look_at_lease(lease_path(file)):
                by_holder[replace(held.holder, since="")].append((file, held))
        for holder, found in by_holder.items():
            last = min((held for _, held in found), key=lambda held: held.silent)
            state = (holder, not last.by_lock and last.silent > 2 * HEARTBEAT_SECONDS)
            if state not in told:
                told.add(state)
                kind = "row" if all(file.suffix == ".jsonl" for file, _ in found) else "file"
                many, are = (f"{len(found):,} {kind}s", "they are") if len(found) > 1 else (f"a {kind}", "it is")
                who = f"{holder}," if "," in str(holder) else str(holder)
                self._progress.note(f"waiting for {many} that {who} has in hand; {are} free {last.until}")

    def attempt(self, job: Job[Context]) -> list[Row] | None:
        """Does a job as far as nobody else does it.

        Returns:
            Its rows; None where another process has all its files in hand, or has to do another job before.
        """
        engine = self._engine
        if not engine.broadcast(all(file.exists() for file in job.needs)):
            return None
        with ExitStack() as held:
            files: list[Path] = []
            if engine.is_main_process:
                leased = held.enter_context(hold_leases(job.files))
                # Another process may have finished some since the jobs were listed.
                files = [file for file in leased if not job.is_done(file, self._context)]
            files = engine.broadcast(files)
            if not files:
                return None
            for file in job.needs:
                engine.wait_for_file(file)
            rows = list(job.run(files, self._context))
            if engine.is_main_process:
                written = dict(zip(files, rows, strict=False))
                for file, row in written.items():
                    write_row(file, row)
                engine.log_rows(self._progress, files[0].parents[1], files[0].stem, written)
                job.clean_up(self._context)
            return rows


_COLUMNS = ("protocol", "control", "rows", "done", "trainings", "steps each", "samples", "training time")


def describe_queue(
    rows: Sequence[tuple[tuple[str, str], bool]], jobs: Sequence[Job[Any]], throughput: Throughput
) -> str:
    """A table for a person: a line for each protocol and control, and what they come to together.

    Time is that of training alone, at the median speed of the rows that are there; "unknown" where this device has
    measured no row of the model, under the protocol or on images of its size.

    Args:
        rows: For each row that was asked for its protocol and control, and whether it is done.
        jobs: Those that are left.
        throughput: How fast the device is.
    """
    works = [(job.group, job.workload) for job in jobs if job.workload is not None]
    lines: list[Sequence[str]] = [_COLUMNS]
    for group in dict.fromkeys([*(group for group, _ in rows), *(group for group, _ in works)]):
        done = [is_done for other, is_done in rows if other == group]
        own = [work for other, work in works if other == group]
        steps = ", ".join(f"{count:,}" for count in dict.fromkeys(work.steps for work in own))
        samples = f"{sum(work.samples for work in own):,}"
        lines.append(
            (*group, f"{len(done):,}", f"{sum(done):,}", f"{len(own):,}", steps, samples, throughput.estimate(own))
        )
    left = [work for _, work in works]
    done_rows = sum(is_done for _, is_done in rows)
    ends = [
        f"{len(rows):,} rows, {done_rows:,} done",
        f"left: {len(left):,} trainings, {sum(work.samples for work in left):,} samples, training time "
        f"{throughput.estimate(left)}",
    ]
    if shared := len(rows) - done_rows - sum(1 for job in jobs if job.rows):
        ends.append(f"{shared:,} rows share the training of another")
    return "\n".join([align_columns(lines), *ends])


def align_columns(lines: Sequence[Sequence[str]]) -> str:
    """Lines of columns of one width: the first two, text, to the left, and the numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )
