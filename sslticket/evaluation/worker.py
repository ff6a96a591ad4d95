"""Doing an evaluation: each row is leased, trained and measured once, by whichever process comes first.

What other processes have in hand is waited for, and taken over where they die. Before anything is trained, the processes compare what they see, and a table tells what is left and how long it takes.
"""

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

from sslticket.config.training import format_duration
from sslticket.evaluation.jobs import NATURAL_CONTROL, EvaluationPlan, SplitCache, Splits, TrainingJob
from sslticket.evaluation.protocols import Throughput
from sslticket.evaluation.tasks import EvalTask, TicketInfo
from sslticket.evaluation.trainer import Evaluator
from sslticket.storage.files import write_row
from sslticket.storage.leases import hold_leases, remove_abandoned
from sslticket.training.engine import Engine, Invariant, flag_invariant
from sslticket.training.progress import Progress

Work = TypeVar("Work")
Row = dict[str, Any]
_POLL_SECONDS = 2.0  # seconds between looks at what other processes have finished


def work_through_queue(
    left: Callable[[], Sequence[Work]],
    do: Callable[[Work], Sequence[Row] | None],
    progress: Progress,
    *,
    samples: Callable[[Sequence[Work]], int],
    rows: Callable[[Sequence[Work]], int],
) -> Iterator[Row]:
    """Do all that is left, and yield its rows.

    Args:
        left: what is not done yet, by whomever.
        do: does a piece of it; None where another process has it in hand.
        progress: is told what remains.
        samples: that some pieces will see.
        rows: that some pieces will fill.
    """
    works, waited = left(), False
    while works:
        idle = True
        for number, work in enumerate(works):
            progress.set_remaining(samples(works[number:]))
            done = do(work)
            idle = idle and done is None
            yield from done or ()
        works = left()
        if works and idle:
            if not waited:
                progress.note(f"waiting for other processes, which have {rows(works)} of these rows in hand")
            waited = True
            time.sleep(_POLL_SECONDS)


def evaluation_facts(
    rows: Iterable[tuple[EvalTask, TicketInfo]], gallery: SplitCache, precision: str
) -> dict[str, Invariant]:
    """What this process sees of tickets, rows to be and images.

    Args:
        rows: that were asked for, each with its ticket, done or not.
        gallery: in which all images are open.
        precision: of the passes.
    """
    tickets, asked = set(), []
    for task, entrant in rows:
        tickets.add(f"{task.run.name}/{task.path.name} {entrant.hash}")
        protocol = f"{task.protocol.label} {task.protocol.hash_for(entrant.model)}"
        asked.append(f"{task.path.name} {task.control} {protocol} {task.seed} {task.head}")
    images = "; ".join(gallery.describe()) or "no images"
    return {
        "precision": flag_invariant("precision", precision),
        "tickets": Invariant(
            f"sees {len(tickets):,} tickets with the hash {_digest_of_lines(sorted(tickets))}",
            "give the same tickets to every process, on a folder that all machines see",
        ),
        "rows": Invariant(
            f"is asked for {len(asked):,} rows with the hash {_digest_of_lines(asked)}",
            "give the same flags to every process",
        ),
        "images": Invariant(f"sees {images}", "--data-root must show the same images to all"),
    }


def _digest_of_lines(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()[:16]


_PLAN_COLUMNS = ("protocol", "control", "rows", "done", "trainings", "steps each", "samples", "training time")


def describe_evaluation_plan(matrix: EvaluationPlan, pace: Throughput) -> str:
    """A table for a person: a line for each protocol and control, and what it comes to.

    Time is that of training alone, at the median speed of the rows that are there; "unknown" where this device has
    measured no row of the model, under the protocol or on images of its size.
    """
    left, trainings = set(matrix.remaining_tasks()), matrix.jobs()
    kinds = [_plan_line_of(task, task.control) for task in matrix.tasks]
    kinds += [_plan_line_of(each.first_task, each.control) for each in trainings]
    lines = [_PLAN_COLUMNS]
    for protocol, control in dict.fromkeys(kinds):
        rows = [task for task in matrix.tasks if _plan_line_of(task, task.control) == (protocol, control)]
        own = [each for each in trainings if _plan_line_of(each.first_task, each.control) == (protocol, control)]
        lines.append(
            (
                protocol,
                control,
                f"{len(rows):,}",
                f"{len(rows) - len(left.intersection(rows)):,}",
                f"{len(own):,}",
                ", ".join(f"{steps:,}" for steps in dict.fromkeys(each.steps for each in own)),
                f"{sum(each.samples for each in own):,}",
                _estimated_time(own, pace),
            )
        )
    shared = len(left) - sum(1 for each in trainings if each.tasks)
    ends = [
        f"{len(matrix.tasks):,} rows, {len(matrix.tasks) - len(left):,} done",
        f"left: {len(trainings):,} trainings, {sum(each.samples for each in trainings):,} samples, "
        f"training time {_estimated_time(trainings, pace)}",
    ]
    if shared:
        ends.append(f"{shared:,} rows share the training of another")
    return "\n".join([align_columns(lines), *ends])


def _plan_line_of(task: EvalTask, control: str) -> tuple[str, str]:
    """A line's protocol and control, in words."""
    if control == NATURAL_CONTROL:
        return task.protocol.name, "dense, for natural zeros"
    return task.protocol.name, control + (", own head" if task.head == "own" else "")


def _estimated_time(trainings: Sequence[TrainingJob], pace: Throughput) -> str:
    """Training alone: measuring and loading come on top."""
    seconds = 0.0
    for training in trainings:
        rate = pace.images_per_second(training.model, training.first_task.protocol, training.numerics)
        if rate is None and training.samples:
            return "unknown"
        seconds += training.samples / (rate or 1)
    return f"about {format_duration(seconds)}" if seconds else "none"


def align_columns(lines: Sequence[Sequence[str]]) -> str:
    """Lines of columns of one width: the first two, text, to the left, and the numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if place < 2 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def evaluate(tasks: Sequence[EvalTask], bench: Engine) -> Iterator[dict[str, Any]]:
    """Do what is not done yet, and wait for what other processes are doing; each row is written before it is yielded.

    Raises:
        BadInput: if a ticket is damaged or for another model, or data is missing.
        Diverged: if a loss is not finite.
    """
    matrix = EvaluationPlan.build(tasks, bench.runtime.data_root, bench.numerics)
    rows = [(task, matrix.ticket_infos[task.path]) for task in tasks]
    bench.check_invariants(evaluation_facts(rows, matrix.split_cache, bench.precision))
    if bench.is_main_process:
        remove_abandoned(dict.fromkeys(task.run for task in tasks))
    with Progress(0, show=bench.is_main_process) as progress:
        hand = EvaluationWorker(matrix, bench, progress)
        if others := matrix.count_other_numerics():
            told = ", ".join(f"{count} at {there}" for (there, _), count in others.items())
            now = " or ".join(dict.fromkeys(now for _, now in others))
            progress.note(f"rows that are there stay, though not measured at {now}: {told}")
        if bench.is_main_process and (told := matrix.describe_other_origins(bench.device_name)):
            progress.note(told)
        for training in hand.left():
            bench.check_batch(training.first_task.protocol.fit_for(training.model))
        yield from work_through_queue(
            hand.left,
            hand.do,
            progress,
            samples=lambda left: sum(training.samples for training in left),
            rows=lambda left: sum(len(training.tasks) for training in left),
        )


class EvaluationWorker:
    """This process's part in the work.

    Where files decide, the first of several launched processes looks and the others follow: they must not disagree.
    """

    def __init__(self, matrix: EvaluationPlan, bench: Engine, progress: Progress) -> None:
        self._matrix, self._bench, self._progress = matrix, bench, progress
        self._examiner = Evaluator(bench, progress)
        self._cut: set[tuple[Path, str]] = set()

    def left(self) -> list[TrainingJob]:
        """What has to be trained."""
        return self._bench.broadcast(self._matrix.jobs() if self._bench.is_main_process else [])

    def do(self, training: TrainingJob) -> list[dict[str, Any]] | None:
        """Train, measure and write; returns the rows, or None where others have them in hand.

        Natural zeros have no rows.
        """
        if self._bench.broadcast(training.waits_for_natural):
            return None
        if training.control == NATURAL_CONTROL:
            return self._natural(training)
        with ExitStack() as held:
            mine: list[EvalTask] = []
            if self._bench.is_main_process:
                taken = held.enter_context(hold_leases([task.row_file for task in training.tasks]))
                # Another process may have finished some since we looked.
                mine = [task for task in training.tasks if task.row_file in taken and not self._matrix.is_done(task)]
            mine = self._bench.broadcast(mine)
            if not mine:
                return None
            measured = self._bench.broadcast(
                self._matrix.known_measurement(training) if self._bench.is_main_process else None
            )
            if measured is None:
                self._tell(training)
                if training.natural_file is not None:
                    self._bench.wait_for_file(training.natural_file)
                measured = self._examiner.score(training, self._splits(training))
                self._warn(training, measured)
            rows = [self._matrix.row_fields(task) | measured for task in mine]
            for task, row in zip(mine, rows, strict=True):
                if self._bench.is_main_process:
                    write_row(task.row_file, row)
            return rows

    def _natural(self, training: TrainingJob) -> list[dict[str, Any]] | None:
        file = training.natural_file
        assert file is not None, "natural zeros have a file"
        with ExitStack() as held:
            free = False
            if self._bench.is_main_process:
                free = bool(held.enter_context(hold_leases([file]))) and not file.exists()
            if not self._bench.broadcast(free):
                return None
            self._tell(training)
            natural = self._examiner.find_natural_mask(training, self._splits(training))
            if self._bench.is_main_process:
                natural.save(file)
                protocol, density = training.first_task.protocol.name, natural.mask.density
                self._progress.note(f"{training.model} under {protocol}: {density:.3%} of the weights are not zero")
            self._bench.wait_for_file(file)
        return []

    def _splits(self, training: TrainingJob) -> Splits:
        return self._matrix.split_cache.get(training.first_task.protocol, training.channels)

    def _warn(self, training: TrainingJob, measured: dict[str, Any]) -> None:
        """Say once of a ticket, or a control of it, that its network is cut: it scores as chance does."""
        name = (training.first_task.path, training.control)
        if measured["effective_density"] or name in self._cut:
            return
        self._cut.add(name)
        self._progress.note(
            f"{training.first_task.path.stem} {training.control}: no path leads from the image to the features; its score is "
            "chance"
        )

    def _tell(self, training: TrainingJob) -> None:
        """Say what is trained, and which row it is; the line has to fit a terminal."""
        if not self._bench.is_main_process:
            return
        like, total = training.first_task, len(self._matrix.tasks)
        if training.control == NATURAL_CONTROL:
            name = f"dense {training.model} for natural zeros"
        else:
            done = total - len(self._matrix.remaining_tasks())
            name = f"{done + 1}/{total} {like.path.stem} {training.control}"
        self._progress.start_task(f"{name} {like.protocol.name} seed {like.seed}", training.start + training.steps)
