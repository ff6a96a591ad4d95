"""From tickets to rows: what an analysis is, and how several processes do one together.

One of your own is a subclass of `TicketAnalysis` or `EndpointAnalysis` in a file, named as
`sslticket analyse mine.py:Name`. Its fields are flags, and `section` is what the report shows of its rows.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from sslticket import provenance
from sslticket.analysis.endpoints import (
    AnalysisTarget,
    EndpointStore,
    FinalTraining,
    find_targets,
    make_analysis_tasks,
)
from sslticket.config.recipe import UNKNOWN, RecipeRecord
from sslticket.evaluation.jobs import evaluation_invariants
from sslticket.evaluation.protocols import Protocol
from sslticket.evaluation.tasks import EvalTask, read_task_row, ticket_row_fields
from sslticket.evaluation.trainer import SplitCache
from sslticket.registry import required_parts
from sslticket.results.rows import Row as TypedRow
from sslticket.results.work_queue import Job, Row, WorkQueue
from sslticket.storage.files import write_row
from sslticket.ticket import Ticket, run_folder_of
from sslticket.training.engine import Engine
from sslticket.training.numerics import Numerics, numerics_of_row

if TYPE_CHECKING:
    import pandas as pd


class Analysis(ABC):
    """What is measured of tickets; a frozen dataclass whose fields are flags of `sslticket analyse`.

    The class's docstring is the help of its command and explains its section in the report.

    Attributes:
        row_type: Class of its rows.
        title: Heading of its section in the report; "" for the kind of its rows.
    """

    row_type: ClassVar[type[TypedRow]]
    title: ClassVar[str] = ""

    @property
    def kind(self) -> str:
        """The kind of its rows."""
        return self.row_type.kind

    @classmethod
    def section(cls, rows: "pd.DataFrame") -> Any:
        """What the report shows of its rows, a `report.sections.Section`; None for a chart of each number by density.

        Args:
            rows: Rows of all kinds, as `report.stats.name_series` gives them.
        """
        return None

    @abstractmethod
    def describe_row(self, row: Mapping[str, Any]) -> str:
        """A row's result in a few words, for a person."""

    def summarize(self, rows: Sequence[Row]) -> str:
        """What all rows show together, for a person; "" where single rows say it all."""
        return ""

    def accepts_row(self, row: Mapping[str, Any]) -> bool:
        """Whether a row that is about this very ticket, and made by this very class, is what these settings ask for."""
        return True

    @property
    def parts(self) -> dict[str, str]:
        """The file of a class from outside the package and its hash, as rows have them."""
        return required_parts(type(self))

    def _typed(self, row: Row) -> Row:
        """A row whose keys and values have been checked."""
        if parts := {**row.get("parts", {}), **self.parts}:
            row = {**row, "parts": parts}
        return self.row_type.from_dict({**row, "kind": self.kind}).to_dict()


class TicketAnalysis(Analysis):
    """An analysis of tickets as they are: nothing is trained, and the images and numerics are those of the search."""

    @abstractmethod
    def measure(self, ticket: Ticket) -> dict[str, Any]:
        """What the row says of a ticket, by the keys of its kind."""

    def rows(self, paths: Sequence[Path]) -> Iterator[Row]:
        """A row for each ticket, written beside it before it is yielded; one ticket is in memory at a time.

        Args:
            paths: Paths of ticket files.

        Raises:
            BadInput: If a ticket is damaged.
        """
        for path in paths:
            ticket = Ticket.load(path).with_parts()
            row = self._typed({**self.row_fields(path, ticket), **self.measure(ticket)})
            write_row(run_folder_of(path) / "rows" / f"{path.stem}.{self.kind}.jsonl", row)
            yield row

    def row_fields(self, path: Path, ticket: Ticket) -> Row:
        """What a row says beside what was measured."""
        origin, precision = ticket.provenance, RecipeRecord(ticket.recipe).precision
        numerics = origin.get("numerics", precision)
        computed = {"device": "cpu", "precision": precision or UNKNOWN, **({"numerics": numerics} if numerics else {})}
        about = {"kind": self.kind, **ticket_row_fields(path, ticket), "data_hash": origin["data_hash"]}
        return about | computed | provenance.collect_provenance()

    def describe_row(self, row: Mapping[str, Any]) -> str:
        """See the base class."""
        return ""


class EndpointAnalysis(Analysis):
    """An analysis of networks at the end of their training under a protocol.

    Attributes:
        needs_dense: Whether the dense network is trained beside each subnetwork.
        default_levels: Levels of folders that are taken where none are asked for, such as "0"; "" for the usual ones.
    """

    needs_dense: ClassVar[bool] = False
    default_levels: ClassVar[str] = ""

    def trainings(self, target: AnalysisTarget) -> Sequence[FinalTraining]:
        """The trainings that a row rests on: by default one, in the first order."""
        return (target.training,)

    @abstractmethod
    def measure(self, target: AnalysisTarget, endpoints: EndpointStore) -> dict[str, Any]:
        """What the row says of the endpoints, which are there; called on all processes."""

    def rows(
        self,
        paths: Sequence[Path],
        protocol: Protocol | str,
        seeds: Sequence[int] | None,
        engine: Engine,
        *,
        controls: Sequence[str] = (),
    ) -> Iterator[Row]:
        """The rows of tickets, each written before it is yielded; those that are there already are not.

        Args:
            paths: Paths of ticket files.
            protocol: Protocol under which networks are trained.
            seeds: Seeds, one row each; None for the protocol's own.
            engine: Where trainings run.
            controls: ("local",) for a random subnetwork beside each ticket.

        Raises:
            BadInput: If a ticket cannot be analysed, or data is missing.
            Diverged: If a loss is not finite.
        """
        return run_analysis(self, make_analysis_tasks(paths, controls, [protocol], seeds), engine)

    def row_file(self, task: EvalTask) -> Path:
        """Where a task's row lies."""
        kind = self.kind if task.control == "ticket" else f"{self.kind}-{task.control}"
        name = f"{task.path.stem}.{kind}.{task.protocol.label}.{task.head_prefix}seed{task.seed}.jsonl"
        return task.run / "rows" / name

    def is_done(self, target: AnalysisTarget) -> bool:
        """Whether a target's row is there, about this very ticket.

        Raises:
            BadInput: If the row is damaged.
        """
        row = read_task_row(self.row_file(target.task))
        if row is None or row["ticket_hash"] != target.ticket_info.hash:
            return False
        # Earlier versions started every training at the rewind point, and did not say so.
        same_clock = row.get("start", "k") == target.task.protocol.start or not row.get("rewind_samples")
        own = target.task.control == "ticket" or "replicate" in row
        same_code = self.parts.items() <= row.get("parts", {}).items()
        return own and same_clock and same_code and self.accepts_row(row)


@dataclass(frozen=True, kw_only=True)
class AnalysisJob(Job[EndpointStore]):
    """The measuring of a row, when all trainings that it rests on are done.

    Attributes:
        analysis: What is measured.
        target: Of what it is measured.
    """

    analysis: EndpointAnalysis
    target: AnalysisTarget

    @property
    def files(self) -> tuple[Path, ...]:
        """See the base class."""
        return (self.analysis.row_file(self.target.task),)

    @property
    def needs(self) -> tuple[Path, ...]:
        """See the base class."""
        return tuple(training.endpoint_file for training in self.analysis.trainings(self.target))

    def is_done(self, file: Path, context: EndpointStore) -> bool:
        """See the base class."""
        return self.analysis.is_done(self.target)

    def run(self, files: Sequence[Path], context: EndpointStore) -> list[Row]:
        """Measures the row.

        Its cost is that of all trainings that it rests on, whoever did them and when.
        """
        task, info = self.target.task, self.target.ticket_info
        trainings = {each.endpoint_file: each for each in self.analysis.trainings(self.target)}
        costs = [context.measurements(training) for training in trainings.values()]
        splits = context.split_cache.get(task.protocol, info.channels)
        counts = ["steps", "samples"]
        counts += [name for name in ("forward_images", "backward_images") if all(name in each for each in costs)]
        kernels = "; ".join(dict.fromkeys(each["kernels"] for each in costs if each.get("kernels")))
        row = {
            **info.row_fields,
            "control": task.control,
            "protocol": task.protocol.name,
            "target": splits.target,
            **task.protocol.spelling_field,
            "seed": task.seed,
            "protocol_hash": task.protocol.hash_for(info.model),
            "start": task.protocol.start,
            "head": task.head,
            "data_hash": splits.training.manifest.hash,
            **({} if task.control == "ticket" else {"replicate": info.seed}),
            **self.analysis.measure(self.target, context),
            **{name: sum(each[name] for each in costs) for name in counts},
            "seconds": round(sum(each["seconds"] for each in costs), 3),
            "device": "; ".join(dict.fromkeys(each["device"] for each in costs)),
            "precision": context.engine.precision,
            "numerics": "; ".join(dict.fromkeys(map(numerics_of_row, costs))),
            **({"kernels": kernels} if kernels else {}),
            **provenance.collect_provenance(),
        }
        return [self.analysis._typed(row)]


@dataclass(frozen=True, eq=False)
class AnalysisPlan:
    """An analysis of checked tickets.

    Attributes:
        analysis: What is measured.
        targets: Of what it is measured; each has a row, done or not.
        split_cache: The images.
    """

    analysis: EndpointAnalysis
    targets: Sequence[AnalysisTarget]
    split_cache: SplitCache

    @classmethod
    def build(
        cls, analysis: EndpointAnalysis, tasks: Sequence[EvalTask], images: SplitCache | Path | None, numerics: Numerics
    ) -> "AnalysisPlan":
        """Checks every ticket and opens all images before anything is trained.

        Args:
            analysis: What is measured.
            tasks: Of what it is measured.
            images: The images, or the folder in which they lie; None for the usual places.
            numerics: How the trainings compute.

        Raises:
            BadInput: See `find_targets`.
        """
        split_cache = images if isinstance(images, SplitCache) else SplitCache(images)
        plan = cls(analysis, find_targets(tasks, split_cache, numerics, dense=analysis.needs_dense), split_cache)
        for target in plan.targets:
            file = analysis.row_file(target.task)
            row = read_task_row(file) if analysis.is_done(target) else None
            info = target.ticket_info
            split_cache.check_row(target.task.protocol, info.channels, row, file, info.header, target.task.path)
        return plan

    def remaining_targets(self) -> list[AnalysisTarget]:
        """Targets whose rows are not done."""
        return [target for target in self.targets if not self.analysis.is_done(target)]

    def jobs(self) -> list[FinalTraining | AnalysisJob]:
        """What has to be done for the rows that are left: each row after the trainings that it rests on."""
        jobs: list[FinalTraining | AnalysisJob] = []
        listed: set[Path] = set()
        for target in self.remaining_targets():
            for training in self.analysis.trainings(target):
                if training.endpoint_file not in listed and not training.endpoint_file.exists():
                    jobs.append(training)
                listed.add(training.endpoint_file)
            jobs.append(AnalysisJob(analysis=self.analysis, target=target))
        return jobs

    def groups(self) -> list[tuple[tuple[str, str], bool]]:
        """For each row its protocol and control, and whether it is done; see `describe_queue`."""
        return [
            ((target.task.protocol.name, target.task.control), self.analysis.is_done(target)) for target in self.targets
        ]

    def describe_other_origins(self, device: str) -> str:
        """One line about rows that are there and would now be measured otherwise, or ""."""
        done = [each for each in self.targets if self.analysis.is_done(each)]
        ways = {training.numerics for each in done for training in self.analysis.trainings(each)}
        now = {"device": device} | ({"numerics": ways.pop()} if len(ways) == 1 else {})
        rows = (read_task_row(self.analysis.row_file(each.task)) for each in done)
        return provenance.mixed_provenance_note(filter(None, rows), **now)


def run_analysis(
    analysis: EndpointAnalysis, tasks: Sequence[EvalTask], engine: Engine, *, show_progress: bool = True
) -> Iterator[Row]:
    """Does what is not done yet, and waits for what other processes are doing.

    Args:
        analysis: What is measured.
        tasks: Of what it is measured, see `make_analysis_tasks`.
        engine: Where trainings run.
        show_progress: Whether a bar shows progress.

    Yields:
        Each new row, when it has been written.

    Raises:
        BadInput: If a ticket cannot be analysed, see `find_targets`, or data is missing.
        Diverged: If a loss is not finite.
    """
    plan = AnalysisPlan.build(analysis, tasks, engine.runtime.data_root, engine.numerics)
    rows = [(target.task, target.ticket_info) for target in plan.targets]
    engine.check_invariants(evaluation_invariants(rows, plan.split_cache, engine.precision))
    with engine.show_progress(0, show=show_progress) as progress:
        queue = WorkQueue(plan.jobs, EndpointStore(plan.split_cache, engine, progress), engine, progress)
        if engine.is_main_process and (note := plan.describe_other_origins(engine.device_name)):
            progress.note(note)
        for target in plan.remaining_targets():
            engine.check_batch(target.task.protocol.training_for(target.ticket_info.model))
        yield from queue.run(task.run for task in tasks)
