"""From tickets to rows: what an analysis is, and how several processes do one together."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from sslticket import origin
from sslticket.analysis.endpoints import Endpoints, left
from sslticket.analysis.subjects import Course, Subject, subjects
from sslticket.evaluation.agreement import facts
from sslticket.evaluation.claims import claimed, clear
from sslticket.evaluation.images import Gallery
from sslticket.evaluation.tasks import Task, row_of
from sslticket.evaluation.turns import in_turns
from sslticket.files import write_row
from sslticket.training.numerics import Numerics, computed
from sslticket.training.progress import Progress
from sslticket.training.workbench import Workbench


class Analysis(ABC):
    """What is measured of networks at the end of their training; a frozen dataclass of settings.

    Attributes:
        kind: of its rows.
        beside_dense: whether the dense network is trained beside each subnetwork.
    """

    kind: ClassVar[str]
    beside_dense: ClassVar[bool] = False

    @abstractmethod
    def courses(self, subject: Subject) -> Sequence[Course]:
        """The trainings that a row rests on."""

    @abstractmethod
    def measure(self, subject: Subject, ends: Endpoints) -> dict[str, Any]:
        """What the row says of the endpoints, which are there; called on all processes."""

    @abstractmethod
    def line(self, row: Mapping[str, Any]) -> str:
        """A row's result in a few words, for a person."""

    def has(self, row: Mapping[str, Any]) -> bool:
        """Whether a row that is about this very ticket is what these settings ask for."""
        return True

    def row_file(self, task: Task) -> Path:
        """Where a task's row lies."""
        kind = self.kind if task.control == "ticket" else f"{self.kind}-{task.control}"
        return task.run / "rows" / f"{task.path.stem}.{kind}.{task.protocol.label}.{task.variant}seed{task.seed}.jsonl"


@dataclass(frozen=True, eq=False)
class Survey:
    """An analysis of checked tickets.

    Attributes:
        analysis: what is measured.
        subjects: of what; each has a row, done or not.
        gallery: the images.
    """

    analysis: Analysis
    subjects: Sequence[Subject]
    gallery: Gallery

    @classmethod
    def of(cls, analysis: Analysis, tasks: Sequence[Task], data_root: Path | None, numerics: Numerics) -> "Survey":
        """Check every ticket and open all images before anything is trained.

        Raises:
            BadInput: see `subjects`.
        """
        gallery = Gallery(data_root)
        survey = cls(analysis, subjects(tasks, gallery, numerics, dense=analysis.beside_dense), gallery)
        for subject in survey.subjects:
            task, file = subject.task, analysis.row_file(subject.task)
            row = row_of(file) if survey.is_done(subject) else None
            gallery.check(task.protocol, subject.entrant.channels, row, file)
        return survey

    def is_done(self, subject: Subject) -> bool:
        """Whether its row is there, about this very ticket.

        Raises:
            BadInput: if the row is damaged.
        """
        row = row_of(self.analysis.row_file(subject.task))
        if row is None or row["ticket_hash"] != subject.entrant.hash:
            return False
        # Earlier versions started every training at the rewind point, and did not say so.
        told, clock = row.get("start", "k"), subject.task.protocol.start
        own = subject.task.control == "ticket" or "replicate" in row
        return own and (told == clock or not row.get("rewind_samples")) and self.analysis.has(row)

    def left(self) -> list[Subject]:
        """Those whose rows are not done."""
        return [subject for subject in self.subjects if not self.is_done(subject)]

    def measured_elsewhere(self, device: str) -> str:
        """One line about rows that are there and would now be measured otherwise, or ""."""
        done = [each for each in self.subjects if self.is_done(each)]
        ways = {course.numerics for each in done for course in self.analysis.courses(each)}
        now = {"device": device} | ({"numerics": ways.pop()} if len(ways) == 1 else {})
        return origin.apart(filter(None, (row_of(self.analysis.row_file(each.task)) for each in done)), **now)

    def trainings(self, some: Sequence[Subject]) -> list[Course]:
        """What has to be trained for them; subjects share trainings."""
        return left(course for subject in some for course in self.analysis.courses(subject))

    def about(self, subject: Subject) -> dict[str, Any]:
        """What a row says beside what was measured."""
        task, manifest = (
            subject.task,
            self.gallery.splits(subject.task.protocol, subject.entrant.channels).training.manifest,
        )
        own = {"control": task.control, "protocol": task.protocol.name, "target": manifest.name, "seed": task.seed}
        own |= {"protocol_hash": task.protocol.hash_for(subject.entrant.model), "start": task.protocol.start}
        own |= {"head": task.head, "data_hash": manifest.hash}
        drawn = {} if task.control == "ticket" else {"replicate": subject.entrant.seed}
        return dict(subject.entrant.about) | {"kind": self.analysis.kind} | own | drawn


def analyse(analysis: Analysis, tasks: Sequence[Task], bench: Workbench) -> Iterator[dict[str, Any]]:
    """Do what is not done yet, and wait for what other processes are doing; each row is written before it is yielded.

    Raises:
        BadInput: if a ticket cannot be analysed, see `subjects`, or data is missing.
        Diverged: if a loss is not finite.
    """
    survey = Survey.of(analysis, tasks, bench.machine.data_root, bench.numerics)
    rows = [(subject.task, subject.entrant) for subject in survey.subjects]
    bench.compare(facts(rows, survey.gallery, bench.precision))
    if bench.first:
        clear(dict.fromkeys(task.run for task in tasks))
    with Progress(0, show=bench.first) as progress:
        hand = _Hand(survey, bench, progress)
        if bench.first and (told := survey.measured_elsewhere(bench.device_name)):
            progress.note(told)
        for subject in hand.left():
            bench.check_batch(subject.task.protocol.fit_for(subject.entrant.model))
        yield from in_turns(hand.left, hand.do, progress, samples=lambda _: hand.samples, rows=len)


class _Hand:
    """This process's part in the work; where files decide, the first of several launched processes looks."""

    def __init__(self, survey: Survey, bench: Workbench, progress: Progress) -> None:
        self._survey, self._bench = survey, bench
        self._ends = Endpoints(survey.gallery, bench, progress)
        self._todo: dict[Path, int] = {}  # samples of each training that is left

    def left(self) -> list[Subject]:
        """What has no row yet."""
        found = self._bench.agreed(self._survey.left() if self._bench.first else [])
        if self._bench.first:
            self._todo = {course.file: course.samples for course in self._survey.trainings(found)}
        return found

    @property
    def samples(self) -> int:
        """Source images that are left to be seen."""
        return sum(self._todo.values())

    def do(self, subject: Subject) -> list[dict[str, Any]] | None:
        """Train, measure and write; None where others have the row, or a training that it rests on, in hand."""
        analysis = self._survey.analysis
        file, courses = analysis.row_file(subject.task), analysis.courses(subject)
        with ExitStack() as held:
            mine = False
            if self._bench.first:
                # Another process may have finished it since we looked.
                mine = bool(held.enter_context(claimed([file]))) and not self._survey.is_done(subject)
            if not self._bench.agreed(mine):
                return None
            # Each that is free is trained, also where another has to be waited for.
            there = [self._reached(course) for course in courses]
            if not all(there):
                return None
            row = self._survey.about(subject) | analysis.measure(subject, self._ends) | self._cost(courses)
            if self._bench.first:
                write_row(file, row)
            return [row]

    def _reached(self, course: Course) -> bool:
        there = self._ends.reach(course)
        if there:
            self._todo.pop(course.file, None)
        return there

    def _cost(self, courses: Sequence[Course]) -> dict[str, Any]:
        """What the trainings that a row rests on took together, whoever did them and when."""
        told = [self._ends.told(course) for course in {course.file: course for course in courses}.values()]
        return {
            "steps": sum(each["steps"] for each in told),
            "samples": sum(each["samples"] for each in told),
            "seconds": round(sum(each["seconds"] for each in told), 3),
            **{
                name: sum(each[name] for each in told)
                for name in ("forward_images", "backward_images")
                if all(name in each for each in told)  # older endpoints do not tell
            },
            "device": "; ".join(dict.fromkeys(each["device"] for each in told)),
            "precision": self._bench.precision,
            "numerics": "; ".join(dict.fromkeys(map(computed, told))),
            **origin.stamp(),
        }
