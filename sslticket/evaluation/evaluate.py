"""The matrix, done: each row is claimed, trained and measured once, by whichever process comes first."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from sslticket.evaluation.agreement import facts
from sslticket.evaluation.claims import claimed, clear
from sslticket.evaluation.images import Splits
from sslticket.evaluation.matrix import NATURAL, Matrix, Training
from sslticket.evaluation.score import Examiner
from sslticket.evaluation.tasks import Task
from sslticket.evaluation.turns import in_turns
from sslticket.files import write_row
from sslticket.training.progress import Progress
from sslticket.training.workbench import Workbench


def evaluate(tasks: Sequence[Task], bench: Workbench) -> Iterator[dict[str, Any]]:
    """Do what is not done yet, and wait for what other processes are doing; each row is written before it is yielded.

    Raises:
        BadInput: if a ticket is damaged or for another model, or data is missing.
        Diverged: if a loss is not finite.
    """
    matrix = Matrix.of(tasks, bench.machine.data_root, bench.numerics)
    rows = [(task, matrix.entrants[task.path]) for task in tasks]
    bench.compare(facts(rows, matrix.gallery, bench.precision))
    if bench.first:
        clear(dict.fromkeys(task.run for task in tasks))
    with Progress(0, show=bench.first) as progress:
        hand = _Hand(matrix, bench, progress)
        if others := matrix.measured_otherwise():
            told = ", ".join(f"{count} at {there}" for (there, _), count in others.items())
            now = " or ".join(dict.fromkeys(now for _, now in others))
            progress.note(f"rows that are there stay, though not measured at {now}: {told}")
        if bench.first and (told := matrix.measured_elsewhere(bench.device_name)):
            progress.note(told)
        for training in hand.left():
            bench.check_batch(training.like.protocol.fit_for(training.model))
        yield from in_turns(
            hand.left,
            hand.do,
            progress,
            samples=lambda left: sum(training.samples for training in left),
            rows=lambda left: sum(len(training.rows) for training in left),
        )


class _Hand:
    """This process's part in the work.

    Where files decide, the first of several launched processes looks and the others follow: they must not disagree.
    """

    def __init__(self, matrix: Matrix, bench: Workbench, progress: Progress) -> None:
        self._matrix, self._bench, self._progress = matrix, bench, progress
        self._examiner = Examiner(bench, progress)
        self._cut: set[tuple[Path, str]] = set()

    def left(self) -> list[Training]:
        """What has to be trained."""
        return self._bench.agreed(self._matrix.trainings() if self._bench.first else [])

    def do(self, training: Training) -> list[dict[str, Any]] | None:
        """Train, measure and write; returns the rows, or None where others have them in hand.

        Natural zeros have no rows.
        """
        if self._bench.agreed(training.waits):
            return None
        if training.control == NATURAL:
            return self._natural(training)
        with ExitStack() as held:
            mine: list[Task] = []
            if self._bench.first:
                taken = held.enter_context(claimed([task.row for task in training.rows]))
                # Another process may have finished some since we looked.
                mine = [task for task in training.rows if task.row in taken and not self._matrix.is_done(task)]
            mine = self._bench.agreed(mine)
            if not mine:
                return None
            measured = self._bench.agreed(self._matrix.measured(training) if self._bench.first else None)
            if measured is None:
                self._tell(training)
                if training.natural is not None:
                    self._bench.shared(training.natural)
                measured = self._examiner.score(training, self._splits(training))
                self._warn(training, measured)
            rows = [self._matrix.about(task) | measured for task in mine]
            for task, row in zip(mine, rows, strict=True):
                if self._bench.first:
                    write_row(task.row, row)
            return rows

    def _natural(self, training: Training) -> list[dict[str, Any]] | None:
        file = training.natural
        assert file is not None, "natural zeros have a file"
        with ExitStack() as held:
            free = False
            if self._bench.first:
                free = bool(held.enter_context(claimed([file]))) and not file.exists()
            if not self._bench.agreed(free):
                return None
            self._tell(training)
            natural = self._examiner.natural(training, self._splits(training))
            if self._bench.first:
                natural.save(file)
                protocol, density = training.like.protocol.name, natural.mask.density
                self._progress.note(f"{training.model} under {protocol}: {density:.3%} of the weights are not zero")
            self._bench.shared(file)
        return []

    def _splits(self, training: Training) -> Splits:
        return self._matrix.gallery.splits(training.like.protocol, training.channels)

    def _warn(self, training: Training, measured: dict[str, Any]) -> None:
        """Say once of a ticket, or a control of it, that its network is cut: it scores as chance does."""
        name = (training.like.path, training.control)
        if measured["effective_density"] or name in self._cut:
            return
        self._cut.add(name)
        self._progress.note(
            f"{training.like.path.stem} {training.control}: no path leads from the image to the features; its score is "
            "chance"
        )

    def _tell(self, training: Training) -> None:
        """Say what is trained, and which row it is; the line has to fit a terminal."""
        if not self._bench.first:
            return
        like, total = training.like, len(self._matrix.tasks)
        if training.control == NATURAL:
            name = f"dense {training.model} for natural zeros"
        else:
            done = total - len(self._matrix.left())
            name = f"{done + 1}/{total} {like.path.stem} {training.control}"
        self._progress.task(f"{name} {like.protocol.name} seed {like.seed}", training.start + training.steps)
