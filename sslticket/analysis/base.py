"""From tickets to rows: what an analysis is, and how several processes do one together."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from sslticket import provenance
from sslticket.analysis.endpoints import AnalysisTarget, EndpointStore, FinalTraining, find_targets, untrained
from sslticket.config.training import format_duration
from sslticket.evaluation.jobs import SplitCache
from sslticket.evaluation.protocols import Throughput
from sslticket.evaluation.tasks import EvalTask, read_task_row
from sslticket.evaluation.worker import align_columns, evaluation_facts, work_through_queue
from sslticket.storage.files import write_row
from sslticket.storage.leases import hold_leases, remove_abandoned
from sslticket.training.engine import Engine
from sslticket.training.numerics import Numerics, numerics_of_row
from sslticket.training.progress import Progress


class Analysis(ABC):
    """What is measured of networks at the end of their training; a frozen dataclass of settings.

    Attributes:
        kind: of its rows.
        needs_dense: whether the dense network is trained beside each subnetwork.
    """

    kind: ClassVar[str]
    needs_dense: ClassVar[bool] = False

    @abstractmethod
    def trainings(self, subject: AnalysisTarget) -> Sequence[FinalTraining]:
        """The trainings that a row rests on."""

    @abstractmethod
    def measure(self, subject: AnalysisTarget, ends: EndpointStore) -> dict[str, Any]:
        """What the row says of the endpoints, which are there; called on all processes."""

    @abstractmethod
    def describe_row(self, row: Mapping[str, Any]) -> str:
        """A row's result in a few words, for a person."""

    def accepts_row(self, row: Mapping[str, Any]) -> bool:
        """Whether a row that is about this very ticket is what these settings ask for."""
        return True

    def row_file(self, task: EvalTask) -> Path:
        """Where a task's row lies."""
        kind = self.kind if task.control == "ticket" else f"{self.kind}-{task.control}"
        return (
            task.run / "rows" / f"{task.path.stem}.{kind}.{task.protocol.label}.{task.head_prefix}seed{task.seed}.jsonl"
        )


@dataclass(frozen=True, eq=False)
class AnalysisPlan:
    """An analysis of checked tickets.

    Attributes:
        analysis: what is measured.
        targets: of what; each has a row, done or not.
        split_cache: the images.
    """

    analysis: Analysis
    targets: Sequence[AnalysisTarget]
    split_cache: SplitCache

    @classmethod
    def build(
        cls, analysis: Analysis, tasks: Sequence[EvalTask], data_root: Path | None, numerics: Numerics
    ) -> "AnalysisPlan":
        """Check every ticket and open all images before anything is trained.

        Raises:
            BadInput: see `subjects`.
        """
        gallery = SplitCache(data_root)
        survey = cls(analysis, find_targets(tasks, gallery, numerics, dense=analysis.needs_dense), gallery)
        for subject in survey.targets:
            task, file = subject.task, analysis.row_file(subject.task)
            row = read_task_row(file) if survey.is_done(subject) else None
            gallery.check_row(task.protocol, subject.ticket_info.channels, row, file)
        return survey

    def is_done(self, subject: AnalysisTarget) -> bool:
        """Whether its row is there, about this very ticket.

        Raises:
            BadInput: if the row is damaged.
        """
        row = read_task_row(self.analysis.row_file(subject.task))
        if row is None or row["ticket_hash"] != subject.ticket_info.hash:
            return False
        # Earlier versions started every training at the rewind point, and did not say so.
        told, clock = row.get("start", "k"), subject.task.protocol.start
        own = subject.task.control == "ticket" or "replicate" in row
        return own and (told == clock or not row.get("rewind_samples")) and self.analysis.accepts_row(row)

    def remaining_targets(self) -> list[AnalysisTarget]:
        """Those whose rows are not done."""
        return [subject for subject in self.targets if not self.is_done(subject)]

    def describe_other_origins(self, device: str) -> str:
        """One line about rows that are there and would now be measured otherwise, or ""."""
        done = [each for each in self.targets if self.is_done(each)]
        ways = {course.numerics for each in done for course in self.analysis.trainings(each)}
        now = {"device": device} | ({"numerics": ways.pop()} if len(ways) == 1 else {})
        return provenance.mixed_provenance_note(
            filter(None, (read_task_row(self.analysis.row_file(each.task)) for each in done)), **now
        )

    def remaining_trainings(self, some: Sequence[AnalysisTarget]) -> list[FinalTraining]:
        """What has to be trained for them; subjects share trainings."""
        return untrained(course for subject in some for course in self.analysis.trainings(subject))

    def row_fields(self, subject: AnalysisTarget) -> dict[str, Any]:
        """What a row says beside what was measured."""
        task, manifest = (
            subject.task,
            self.split_cache.get(subject.task.protocol, subject.ticket_info.channels).training.manifest,
        )
        own = {"control": task.control, "protocol": task.protocol.name, "target": manifest.name, "seed": task.seed}
        own |= {"protocol_hash": task.protocol.hash_for(subject.ticket_info.model), "start": task.protocol.start}
        own |= {"head": task.head, "data_hash": manifest.hash}
        drawn = {} if task.control == "ticket" else {"replicate": subject.ticket_info.seed}
        return dict(subject.ticket_info.row_fields) | {"kind": self.analysis.kind} | own | drawn


def run_analysis(analysis: Analysis, tasks: Sequence[EvalTask], bench: Engine) -> Iterator[dict[str, Any]]:
    """Do what is not done yet, and wait for what other processes are doing; each row is written before it is yielded.

    Raises:
        BadInput: if a ticket cannot be analysed, see `subjects`, or data is missing.
        Diverged: if a loss is not finite.
    """
    survey = AnalysisPlan.build(analysis, tasks, bench.runtime.data_root, bench.numerics)
    rows = [(subject.task, subject.ticket_info) for subject in survey.targets]
    bench.check_invariants(evaluation_facts(rows, survey.split_cache, bench.precision))
    if bench.is_main_process:
        remove_abandoned(dict.fromkeys(task.run for task in tasks))
    with Progress(0, show=bench.is_main_process) as progress:
        hand = AnalysisWorker(survey, bench, progress)
        if bench.is_main_process and (told := survey.describe_other_origins(bench.device_name)):
            progress.note(told)
        for subject in hand.left():
            bench.check_batch(subject.task.protocol.fit_for(subject.ticket_info.model))
        yield from work_through_queue(hand.left, hand.do, progress, samples=lambda _: hand.samples, rows=len)


class AnalysisWorker:
    """This process's part in the work; where files decide, the first of several launched processes looks."""

    def __init__(self, survey: AnalysisPlan, bench: Engine, progress: Progress) -> None:
        self._survey, self._bench = survey, bench
        self._ends = EndpointStore(survey.split_cache, bench, progress)
        self._todo: dict[Path, int] = {}  # samples of each training that is left

    def left(self) -> list[AnalysisTarget]:
        """What has no row yet."""
        found = self._bench.broadcast(self._survey.remaining_targets() if self._bench.is_main_process else [])
        if self._bench.is_main_process:
            self._todo = {course.endpoint_file: course.samples for course in self._survey.remaining_trainings(found)}
        return found

    @property
    def samples(self) -> int:
        """Source images that are left to be seen."""
        return sum(self._todo.values())

    def do(self, subject: AnalysisTarget) -> list[dict[str, Any]] | None:
        """Train, measure and write; None where others have the row, or a training that it rests on, in hand."""
        analysis = self._survey.analysis
        file, courses = analysis.row_file(subject.task), analysis.trainings(subject)
        with ExitStack() as held:
            mine = False
            if self._bench.is_main_process:
                # Another process may have finished it since we looked.
                mine = bool(held.enter_context(hold_leases([file]))) and not self._survey.is_done(subject)
            if not self._bench.broadcast(mine):
                return None
            # Each that is free is trained, also where another has to be waited for.
            there = [self._reached(course) for course in courses]
            if not all(there):
                return None
            row = self._survey.row_fields(subject) | analysis.measure(subject, self._ends) | self._cost(courses)
            if self._bench.is_main_process:
                write_row(file, row)
            return [row]

    def _reached(self, course: FinalTraining) -> bool:
        there = self._ends.ensure(course)
        if there:
            self._todo.pop(course.endpoint_file, None)
        return there

    def _cost(self, courses: Sequence[FinalTraining]) -> dict[str, Any]:
        """What the trainings that a row rests on took together, whoever did them and when."""
        told = [
            self._ends.measurements(course) for course in {course.endpoint_file: course for course in courses}.values()
        ]
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
            "numerics": "; ".join(dict.fromkeys(map(numerics_of_row, told))),
            **provenance.collect_provenance(),
        }


_PLAN_COLUMNS = ("protocol", "control", "rows", "done", "trainings left", "samples", "training time")


def describe_analysis_plan(survey: AnalysisPlan, pace: Throughput) -> str:
    """A table for a person: a line for each protocol and control, and what it comes to.

    A training that several lines share is counted in the first of them. Time is that of training alone, at the median
    speed of the rows that are there; "unknown" where this device has measured none.
    """
    left, lines = survey.remaining_targets(), [_PLAN_COLUMNS]
    counted: set[str] = set()
    for key in dict.fromkeys((subject.task.protocol.name, subject.task.control) for subject in survey.targets):
        own, here = (
            [each for each in some if (each.task.protocol.name, each.task.control) == key]
            for some in (survey.targets, left)
        )
        trainings = [course for course in survey.remaining_trainings(here) if str(course.endpoint_file) not in counted]
        counted |= {str(course.endpoint_file) for course in trainings}
        samples = sum(course.samples for course in trainings)
        numbers = f"{len(own):,}", f"{len(own) - len(here):,}", f"{len(trainings):,}", f"{samples:,}"
        lines.append((*key, *numbers, _estimated_time(trainings, pace)))
    trainings = survey.remaining_trainings(left)
    ends = (
        f"{len(survey.targets):,} rows, {len(survey.targets) - len(left):,} done",
        f"left: {len(trainings):,} trainings, {sum(course.samples for course in trainings):,} samples, "
        f"training time {_estimated_time(trainings, pace)}",
    )
    return "\n".join([align_columns(lines), *ends])


def _estimated_time(trainings: Sequence[FinalTraining], pace: Throughput) -> str:
    """Training alone: measuring comes on top."""
    seconds = 0.0
    for course in trainings:
        rate = pace.images_per_second(course.model, course.task.protocol, course.numerics)
        if rate is None:
            return "unknown"
        seconds += course.samples / rate
    return f"about {format_duration(seconds)}" if seconds else "none"
