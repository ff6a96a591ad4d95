"""Evaluation: the tasks that have no row yet, the trainings that fill them, and doing these.

A training fills more than one row where a control owes nothing to the tickets that it stands beside. Processes that
were launched together compare what they see before anything is trained.
"""

import hashlib
import math
import shutil
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from sslticket import provenance
from sslticket.config.training import Span
from sslticket.data.datasets.arrays import register_made_up_dataset
from sslticket.data.datasets.catalogue import get_dataset
from sslticket.errors import BadInput, Diverged
from sslticket.evaluation.controls import NaturalMask, control_parts, get_control, make_control
from sslticket.evaluation.protocols import OWN_PROTOCOL, find_protocol
from sslticket.evaluation.tasks import EvalTask, TicketInfo, protocol_workload, read_task_row
from sslticket.evaluation.trainer import (
    EvalRun,
    Evaluator,
    SplitCache,
    control_mask_seed,
    evaluation_seeds,
    replicate_seeds,
)
from sslticket.objectives.supervised import Supervised
from sslticket.pruning import pruned_model
from sslticket.pruning.prunable import prunable_weights
from sslticket.results.rows import DivergedRow, ScoreRow
from sslticket.results.throughput import Busy, ProbedRun, Speed, Throughput, Workload, probe_speed, work_cost
from sslticket.results.work_queue import Job, Row, WorkQueue
from sslticket.storage.files import write_row
from sslticket.ticket import Ticket
from sslticket.training.engine import Engine, Invariant, flag_invariant
from sslticket.training.numerics import Numerics, numerics_of_row
from sslticket.training.progress import Progress
from sslticket.training.snapshots import SNAPSHOT_FOLDER, delete_snapshots
from sslticket.training.trackers import TrackerSet


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What the jobs of an evaluation need to run.

    Attributes:
        plan: Rows that were asked for.
        evaluator: Trains and measures.
        noted_cut: Tickets and controls of which a person has been told that their networks are cut.
    """

    plan: "EvaluationPlan"
    evaluator: Evaluator
    noted_cut: set[tuple[Path, str]] = field(default_factory=set)


@dataclass(frozen=True, kw_only=True)
class TrainingJob(Job[Evaluation]):
    """One training under a protocol, of a ticket or of a control, which fills rows.

    Attributes:
        tasks: Rows that it fills.
        info: The ticket of the first of them.
        start: Step of the protocol at which it begins.
        steps: Optimiser steps.
        numerics: How it computes.
        finished_row: Row file that this very training has filled before.
        natural_file: For a control that needs it, the file with the natural mask, there or to be written.
        measured: Images that are measured at its end.
    """

    tasks: tuple[EvalTask, ...]
    info: TicketInfo
    start: int
    steps: int
    numerics: str
    finished_row: Path | None = None
    natural_file: Path | None = None
    measured: int = 0

    @property
    def control(self) -> str:
        """Name of the control; "ticket" for a ticket."""
        return self.tasks[0].control

    @property
    def files(self) -> tuple[Path, ...]:
        """See the base class."""
        return tuple(task.row_file for task in self.tasks)

    @property
    def needs(self) -> tuple[Path, ...]:
        """See the base class."""
        return () if self.natural_file is None else (self.natural_file,)

    @property
    def group(self) -> tuple[str, str]:
        """See the base class."""
        return _group(self.tasks[0])

    @property
    def workload(self) -> Workload:
        """See the base class; there is nothing to train where its measurement is there already."""
        work = protocol_workload(self.tasks[0], self.info, self.numerics, self.steps, self.measured)
        return work if self.finished_row is None else work._replace(samples=0, measured=0)

    def is_done(self, file: Path, context: Evaluation) -> bool:
        """See the base class."""
        return any(context.plan.is_done(task) for task in self.tasks if task.row_file == file)

    def run(self, files: Sequence[Path], context: Evaluation) -> list[Row]:
        """Trains a ticket or a control from its weights, with its own head or a new one, and measures it.

        Rows have what `Evaluator.train_and_measure` returns, and the effective density of the mask; those of a control
        with a natural mask also the densities of that and of its own.

        Raises:
            BadInput: If the ticket is for another network.
            Diverged: If a loss is not finite.
        """
        plan, progress = context.plan, context.evaluator.progress
        earlier = None
        if context.evaluator.engine.is_main_process:
            earlier = plan.known_measurement(self)
            if earlier is None:
                name = f"{plan.count_done() + 1}/{len(plan.tasks)} {self.tasks[0].path.stem} {self.control}"
                _start_task(progress, name, self.tasks[0], self.start + self.steps)
        measured = context.evaluator.engine.broadcast(earlier)
        if measured is None:
            try:
                measured = self._measure(context)
            except Diverged as error:
                self._note_divergence(error, files, context)
                raise
            self._note_if_cut(measured, context)
        if context.evaluator.engine.is_main_process:
            for task in self.tasks:
                task.diverged_file.unlink(missing_ok=True)
        rows = [plan.row_fields(task) | measured for task in self.tasks if task.row_file in files]
        return [ScoreRow.from_dict(row).to_dict() for row in rows]

    def clean_up(self, context: Evaluation) -> None:
        """See the base class."""
        delete_snapshots(self.tasks[0].run, self.tasks[0].name)

    def _measure(self, context: Evaluation) -> Row:
        task, evaluator = self.tasks[0], context.evaluator
        own_seeds = evaluation_seeds(task.seed)
        control_seeds = replicate_seeds(own_seeds, self.info.seed)
        control = None if self.control == "ticket" else get_control(self.control)
        run = EvalRun(
            protocol=task.protocol,
            model=self.info.model,
            channels=self.info.channels,
            splits=context.plan.split_cache.get(task.protocol, self.info.channels),
            seeds=control_seeds if control is not None and not control.keeps_weights else own_seeds,
            start=self.start,
            run=task.run,
            name=task.name,
            curve=task.curve,
        )
        net, densities, other_pattern = run.build_net(), {}, {}
        network = ticket = Ticket.load(task.path)
        if control is not None:
            dense, natural = control.weights(task.path), None
            if self.natural_file is not None:
                mask = NaturalMask.load(self.natural_file)
                data_hash = run.splits.training.manifest.hash
                natural = mask.for_ticket(ticket, data_hash=data_hash, path=self.natural_file)
            network = make_control(
                ticket,
                control,
                initial=pruned_model.read_state(net.backbone) if dense is None else dense.weights,
                seed=control_mask_seed(control_seeds),
                natural=natural,
                head=None if dense is None else dense.head,
            )
            if natural is not None:
                densities = {"natural_density": natural.density, "control_density": network.mask.density}
            if ticket.pattern is not None and not ticket.pattern.holds(network.mask):
                other_pattern = {"pattern": "none"}
        network.apply(net.backbone, net.heads if task.head == "own" else None)
        densities["effective_density"] = evaluator.effective_density(network.mask, net, run)
        return evaluator.train_and_measure(net, run) | densities | other_pattern

    def _note_divergence(self, error: Diverged, files: Sequence[Path], context: Evaluation) -> None:
        """Writes the rows that say that the training diverged."""
        plan, engine = context.plan, context.evaluator.engine
        for task in self.tasks if engine.is_main_process else ():
            if task.row_file in files:
                row = {
                    **plan.row_fields(task),
                    "kind": DivergedRow.kind,
                    "data_hash": plan.split_cache.get(task.protocol, self.info.channels).training.manifest.hash,
                    "device": engine.device_name,
                    "precision": engine.precision,
                    "numerics": self.numerics,
                    **provenance.collect_provenance(),
                    "reason": str(error),
                    "at_step": error.step,
                    "of_steps": error.steps,
                    "learning_rate": error.lr,
                }
                write_row(task.diverged_file, DivergedRow.from_dict(row).to_dict())

    def _note_if_cut(self, measured: Row, context: Evaluation) -> None:
        name = (self.tasks[0].path, self.control)
        if not measured["effective_density"] and name not in context.noted_cut:
            context.noted_cut.add(name)
            context.evaluator.progress.note(
                f"{name[0].stem} {self.control}: no path leads from the image to the features; its score is chance"
            )


@dataclass(frozen=True, kw_only=True)
class NaturalJob(Job[Evaluation]):
    """The training of a dense network that shows which weights go to zero by themselves.

    Attributes:
        file: File of the natural mask.
        needed_by: A job that needs it.
    """

    file: Path
    needed_by: TrainingJob

    @property
    def files(self) -> tuple[Path, ...]:
        """See the base class."""
        return (self.file,)

    @property
    def group(self) -> tuple[str, str]:
        """See the base class."""
        return self.needed_by.tasks[0].protocol.name, "dense, for natural zeros"

    @property
    def _steps(self) -> int:
        return self.needed_by.start + self.needed_by.steps  # it starts from W_0, whatever the protocol does

    @property
    def workload(self) -> Workload:
        """See the base class."""
        job = self.needed_by
        return protocol_workload(job.tasks[0], job.info, job.numerics, self._steps, job.measured)

    def run(self, files: Sequence[Path], context: Evaluation) -> list[Row]:
        """Trains the dense network to the protocol's end, from weights of a stream of its own.

        Raises:
            BadInput: If all weights are zero there.
            Diverged: If a loss is not finite.
        """
        task, info, evaluator = self.needed_by.tasks[0], self.needed_by.info, context.evaluator
        if evaluator.engine.is_main_process:
            _start_task(evaluator.progress, f"dense {info.model} for natural zeros", task, self._steps)
        run = EvalRun(
            protocol=task.protocol,
            model=info.model,
            channels=info.channels,
            splits=context.plan.split_cache.get(task.protocol, info.channels),
            seeds=replicate_seeds(evaluation_seeds(task.seed, "natural"), info.seed),
            run=self.file.parents[1],
            name=self.file.stem,
        )
        net = run.build_net()
        measured = evaluator.train_and_measure(net, run)
        origin = {"model": info.model, "protocol": task.protocol.name, "seed": task.seed}
        weights, names = pruned_model.read_state(net.backbone), prunable_weights(net.backbone)
        natural = NaturalMask.from_weights(weights, names, origin | measured)
        if evaluator.engine.is_main_process:
            natural.save(self.file)
            density = f"{natural.mask.density:.3%} of the weights are not zero"
            evaluator.progress.note(f"{info.model} under {task.protocol.name}: {density}")
        return []

    def clean_up(self, context: Evaluation) -> None:
        """See the base class."""
        delete_snapshots(self.file.parents[1], self.file.stem)


@dataclass(frozen=True, eq=False)
class EvaluationPlan:
    """Checked rows to be.

    Attributes:
        tasks: All of them, done or not.
        ticket_infos: The tickets, by file.
        split_cache: The images.
        numerics: How the trainings compute.
        done: Rows that are known to be there and about these tickets, as file and curve; it grows as they are found.
    """

    tasks: Sequence[EvalTask]
    ticket_infos: Mapping[Path, TicketInfo]
    split_cache: SplitCache
    numerics: Numerics
    done: set[tuple[Path, str | None]] = field(default_factory=set)
    _natural_survivors: dict[tuple[Path, tuple[str, ...]], int] = field(default_factory=dict)
    _protocol_hashes: dict[tuple[int, str], str] = field(default_factory=dict)

    @classmethod
    def build(
        cls,
        tasks: Sequence[EvalTask],
        images: SplitCache | Path | None,
        numerics: Numerics,
    ) -> "EvaluationPlan":
        """Checks every ticket and opens all images before anything is trained.

        Args:
            tasks: Rows to be.
            images: The images, or the folder in which they lie; None for the usual places.
            numerics: How the trainings compute.

        Raises:
            BadInput: If a ticket is damaged or does not fit its protocols' images, or data is missing.
        """
        protocols = {
            path: {task.protocol.name: task.protocol for task in tasks if task.path == path}
            for path in dict.fromkeys(task.path for task in tasks)
        }
        infos = {path: TicketInfo.read(path, targets) for path, targets in protocols.items()}
        plan = cls(tasks, infos, images if isinstance(images, SplitCache) else SplitCache(images), numerics)
        plan.check()
        return plan

    def check(self) -> None:
        """Checks all tasks, and rows that are there, against the images.

        Raises:
            BadInput: If a ticket does not fit its protocols' images, a row is about others, or data is missing.
        """
        for task in self.tasks:
            row = read_task_row(task.row_file) if self.is_done(task) else None
            info = self.ticket_infos[task.path]
            self.split_cache.check_row(task.protocol, info.channels, row, task.row_file, info.header, task.path)
            if row is None:
                self.check_task(task)
        for path, kind in dict.fromkeys((task.path, task.control) for task in self.remaining_tasks()):
            if kind != "ticket":
                get_control(kind).weights(path)

    def remaining_tasks(self) -> list[EvalTask]:
        """Tasks whose rows are not there, or are about earlier tickets of these names.

        Raises:
            BadInput: If a row is damaged.
        """
        return [task for task in self.tasks if not self.is_done(task)]

    def count_done(self) -> int:
        """How many rows are there."""
        return len(self.tasks) - len(self.remaining_tasks())

    def is_done(self, task: EvalTask) -> bool:
        """Whether a task's row is there, about this very ticket."""
        row = task.row_file, task.curve
        if row in self.done:
            return True
        info = self.ticket_infos[task.path]
        if found := task.row_file.exists() and task.is_done(info.hash, task.protocol.hash_for(info.model)):
            self.done.add(row)
        return found

    def describe_other_origins(self, device: str) -> list[str]:
        """Lines about rows that are there and would now be computed or measured otherwise."""
        rows = [(task, row) for task in self.tasks if self.is_done(task) and (row := read_task_row(task.row_file))]
        others: Counter[tuple[str, str]] = Counter()
        for task, row in rows:
            if "precision" not in row:
                continue
            try:
                now = self._numerics_of(task, row.get("steps", 0))
            except BadInput:  # without its images nothing would be measured now
                continue
            others[numerics_of_row(row), now] += 1
        others = Counter({ways: count for ways, count in others.items() if ways[0] != ways[1]})
        lines = []
        if others:
            earlier = ", ".join(f"{count} at {there}" for (there, _), count in others.items())
            now = " or ".join(dict.fromkeys(now for _, now in others))
            lines.append(f"rows that are there stay, though not measured at {now}: {earlier}")
        note = provenance.mixed_provenance_note(({**row, "numerics": ""} for _, row in rows), device=device)
        return [*lines, *([note] if note else [])]

    def check_task(self, task: EvalTask) -> None:
        """Checks whether a task can be done.

        Raises:
            BadInput: If its protocol goes on from W_k and ends before it, or the ticket's classification layer, which
                is to be trained on, tells other classes.
        """
        self.step_range(task)
        info = self.ticket_infos[task.path]
        manifest = self.split_cache.get(task.protocol, info.channels).training.manifest
        if task.head != "own":
            return
        classes = len(manifest.classes)
        shapes = [info.head.get(name, (0,))[0] for name in ("weight", "bias")]
        known = (
            None if self.split_cache.planned() else manifest.classes_hash
        )  # of images that are not here, nobody knows
        if shapes != [classes] * 2 or known not in (None, info.classes_hash or known):
            raise BadInput(
                f"the classification layer of {task.path} tells other classes than the {classes} of {manifest.name}; "
                "give --head new"
            )

    def step_range(self, task: EvalTask) -> tuple[int, int]:
        """The steps of its protocol at which a task's training starts and stops.

        Raises:
            BadInput: If the protocol goes on from W_k and ends before it.
        """
        info = self.ticket_infos[task.path]
        images = len(self.split_cache.get(task.protocol, info.channels).training.manifest)
        return task.protocol.steps(info.model, self._samples_seen(task), images)

    def _numerics_of(self, task: EvalTask, steps: int) -> str:
        """How a task's training of so many steps computes."""
        info = self.ticket_infos[task.path]
        ghost_batch = task.protocol.training_for(info.model).ghost_batch
        files = self.split_cache.get(task.protocol, info.channels).training.images is None
        computes = self.numerics.for_training(
            steps, size=info.parameters, steady=Supervised.cuda_graph_safe, ghost_batch=ghost_batch, files=files
        )
        return str(computes)

    def _samples_seen(self, task: EvalTask) -> int | None:
        """Source images that the weights of a task have seen: W_0, to which `reset` goes back, none; None: unknown."""
        return 0 if task.control == "reset" else self.ticket_infos[task.path].rewind_samples

    def jobs(self) -> list[TrainingJob | NaturalJob]:
        """What has to be done for the rows that are left, tickets first, and natural masks before what needs them."""
        left = set(self.remaining_tasks())
        groups: dict[tuple[object, ...], list[EvalTask]] = defaultdict(list)
        for task in self.tasks:
            groups[self._training_key(task)].append(task)
        found = [self._make_job(group, left) for group in groups.values() if not left.isdisjoint(group)]
        found.sort(key=lambda job: (job.control != "ticket", job.natural_file is not None))
        naturals: dict[Path, NaturalJob] = {}
        for job in found:
            if job.natural_file is not None and not job.natural_file.exists():
                naturals.setdefault(job.natural_file, NaturalJob(file=job.natural_file, needed_by=job))
        first = [job for job in found if job.natural_file is None]
        return [*first, *naturals.values(), *found[len(first) :]]

    def row_fields(self, task: EvalTask) -> Row:
        """What a row says beside what was measured."""
        info = self.ticket_infos[task.path]
        parts = {**info.row_fields.get("parts", {}), **control_parts(task.control)}
        return {
            **info.row_fields,
            "control": task.control,
            "protocol": task.protocol.name,
            "protocol_hash": task.protocol.hash_for(info.model),
            "start": task.protocol.start,
            "head": task.head,
            "target": self.split_cache.get(task.protocol, info.channels).target,
            **task.protocol.spelling_field,
            "seed": task.seed,
            **({} if task.control == "ticket" else {"replicate": info.seed}),
            **({"parts": parts} if parts else {}),
        }

    def known_measurement(self, job: TrainingJob) -> Row | None:
        """What this very training has measured before, from a row that is there; None where there is none."""
        if job.finished_row is None:
            return None
        row = read_task_row(job.finished_row) or {}
        # What is said of the row's own ticket, which may have what older ones, or those of other searches, do not.
        told = (name for info in self.ticket_infos.values() for name in info.row_fields)
        about_ticket = {"source_hash", *told, *self.row_fields(job.tasks[0])} - {"pattern"}
        return {name: value for name, value in row.items() if name not in about_ticket}

    def _training_key(self, task: EvalTask) -> tuple[object, ...]:
        """Rows that agree in this are filled by one training."""
        info, protocol = self.ticket_infos[task.path], task.protocol
        network = (info.model, info.channels, info.parameters, info.layers)
        begins = self._samples_seen(task) if protocol.start == "k" else 0
        settings = self._protocol_hashes.get((id(protocol), info.model))
        if settings is None:
            settings = self._protocol_hashes[id(protocol), info.model] = protocol.hash_for(info.model)
        where = (protocol.label, settings, begins, task.seed, task.head, network)
        if task.control == "ticket":
            return (*where, "ticket", info.hash)
        control = get_control(task.control)
        pattern = () if info.pattern is None else (info.pattern,)
        key = control.training_key(
            ticket_hash=info.hash,
            search_seed=info.seed,
            survivors=info.survivors,
            dense=info.survivors == info.prunable,
            natural_survivors=self._count_natural(task) if control.needs_natural_mask else None,
        )
        return (*where, *pattern, *key)

    def _make_job(self, group: Sequence[EvalTask], left: set[EvalTask]) -> TrainingJob:
        tasks = tuple(task for task in group if task in left)
        finished = (task.row_file for task in group if task not in left)
        start, stop = self.step_range(tasks[0])
        numerics, control = self._numerics_of(tasks[0], stop - start), tasks[0].control
        needs_natural = control != "ticket" and get_control(control).needs_natural_mask
        return TrainingJob(
            tasks=tasks,
            info=self.ticket_infos[tasks[0].path],
            start=start,
            steps=stop - start,
            numerics=numerics,
            finished_row=next((row for row in finished if numerics_of_row(read_task_row(row) or {}) == numerics), None),
            natural_file=self._natural_file(tasks[0]) if needs_natural else None,
            measured=self._num_measured(tasks[0]),
        )

    def _num_measured(self, task: EvalTask) -> int:
        """Images that are measured in a training: at its end, and at the points of a curve on the way."""
        info = self.ticket_infos[task.path]
        splits, points = self.split_cache.get(task.protocol, info.channels), 1
        if task.curve is not None:
            clock = task.protocol.training_for(info.model).clock(len(splits.training.manifest))
            points = math.ceil(clock.samples(clock.length) / clock.samples(Span.parse(task.curve)))
        return points * len(splits.evaluation.manifest)

    def _natural_file(self, task: EvalTask) -> Path:
        """That of any run of the plan with this network and search seed; where none has it yet, of the first.

        Replicates have natural masks of their own, as they have random tickets.
        """
        info, protocol = self.ticket_infos[task.path], task.protocol
        # A ticket's own protocol has one name for all recipes.
        suffix = f"-{protocol.hash_for(info.model)}" if protocol.base == OWN_PROTOCOL else ""
        model = info.model.replace("/", "_")
        name = f"{model}.{protocol.label}{suffix}.seed{task.seed}.search{info.seed}.safetensors"
        network = (info.model, info.channels, info.parameters, info.seed)
        files = [run / "natural" / name for run in self._runs_by_network[network]]
        return next((file for file in files if file.exists()), files[0])

    @cached_property
    def _runs_by_network(self) -> dict[tuple[object, ...], dict[Path, None]]:
        """The runs of each network and search seed, in the order of the tasks."""
        found: dict[tuple[object, ...], dict[Path, None]] = defaultdict(dict)
        for task in self.tasks:
            info = self.ticket_infos[task.path]
            found[info.model, info.channels, info.parameters, info.seed][task.run] = None
        return found

    def _count_natural(self, task: EvalTask) -> int | None:
        file, layers = self._natural_file(task), self.ticket_infos[task.path].layers
        if (file, layers) not in self._natural_survivors and file.exists():
            self._natural_survivors[file, layers] = NaturalMask.load(file).mask.restrict(layers).survivors
        return self._natural_survivors.get((file, layers))

    def groups(self) -> list[tuple[tuple[str, str], bool]]:
        """For each task its protocol and control, and whether it is done; see `describe_queue`."""
        return [(_group(task), self.is_done(task)) for task in self.tasks]


def evaluate_tasks(tasks: Sequence[EvalTask], engine: Engine, *, show_progress: bool = True) -> Iterator[Row]:
    """Does what is not done yet, and waits for what other processes are doing.

    Args:
        tasks: What is measured, see `make_tasks`.
        engine: Where trainings run.
        show_progress: Whether a bar shows progress.

    Yields:
        Each new row, when it has been written.

    Raises:
        BadInput: If a ticket is damaged or for another network, or data is missing.
        Diverged: If a loss is not finite.
    """
    plan = EvaluationPlan.build(tasks, engine.runtime.data_root, engine.numerics)
    rows = [(task, plan.ticket_infos[task.path]) for task in tasks]
    engine.check_invariants(evaluation_invariants(rows, plan.split_cache, engine.precision))
    with engine.show_progress(0, show=show_progress) as progress:
        queue = WorkQueue(plan.jobs, Evaluation(plan, Evaluator(engine, progress)), engine, progress)
        if show_progress and engine.is_main_process and (jobs := plan.jobs()):
            progress.note(_summarize(jobs, tasks, engine))
        for note in plan.describe_other_origins(engine.device_name) if engine.is_main_process else ():
            progress.note(note)
        for task in plan.remaining_tasks():
            engine.check_batch(task.protocol.training_for(plan.ticket_infos[task.path].model))
        for task in tasks if engine.is_main_process else ():
            # A process that was killed as soon as the row was there has left them.
            if (task.run / SNAPSHOT_FOLDER).exists() and plan.is_done(task):
                delete_snapshots(task.run, task.name)
        yield from queue.run(task.run for task in tasks)


def probe_training(task: EvalTask, info: TicketInfo, engine: Engine, evaluation: int) -> Speed:
    """Measures the speed of trainings under a protocol on this device: short ones, on made-up images of the right size.

    Images are in memory, so that what decoding files takes is not in it.

    Args:
        task: One of the measurements.
        info: Its ticket, which is copied.
        engine: Where trainings run.
        evaluation: Images that are measured at the end of a training.
    """
    protocol, training = task.protocol, task.protocol.training_for(info.model)
    engine = replace(engine, tracker_set=TrackerSet(()))  # nobody wants to follow these
    like = replace(get_dataset(protocol.dataset), channels=info.channels)

    def run(batch: int, steps: int, measured: int) -> ProbedRun:
        entry = register_made_up_dataset(like, classes, max(batch, classes), max(measured, classes))
        ghost = training.ghost_batch if batch == training.batch_size else None
        short = replace(
            training, batch_size=batch, ghost_batch=ghost, length=f"{steps}it", warmup="0it", drops=(), decay="drops"
        )
        under = replace(
            protocol, name="probe", dataset=entry.name, half=None, part=None, models=(), training=short, start="0"
        )
        under = replace(under, training_by_model={}, early_sizes=())
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "run" / "tickets" / task.path.name
            path.parent.mkdir(parents=True)
            shutil.copyfile(task.path, path)
            tasks = [EvalTask(path, "ticket", under, seed) for seed in range(3)]
            with Busy() as busy:
                rows = list(evaluate_tasks(tasks, engine, show_progress=False))
            return ProbedRun.of_rows(rows, [each.row_file for each in tasks], busy)

    classes = like.classes or 10
    work = protocol_workload(task, info, str(engine.numerics), 1, evaluation)
    return probe_speed(work, run, evaluation=evaluation)


def evaluation_invariants(
    rows: Iterable[tuple[EvalTask, TicketInfo]], split_cache: SplitCache, precision: str
) -> dict[str, Invariant]:
    """What this process sees of tickets, rows to be and images, which must be the same on all processes.

    Args:
        rows: Tasks that were asked for, each with its ticket, done or not.
        split_cache: The images, all of them open.
        precision: Precision of the passes.
    """
    tickets, asked = set(), []
    for task, info in rows:
        tickets.add(f"{task.run.name}/{task.path.name} {info.hash}")
        protocol = f"{task.protocol.label} {task.protocol.hash_for(info.model)}"
        asked.append(f"{task.path.name} {task.control} {protocol} {task.seed} {task.head} {task.curve}")
    images = "; ".join(split_cache.describe()) or "no images"
    return {
        "precision": flag_invariant("precision", precision),
        "tickets": Invariant(
            f"sees {len(tickets):,} tickets with the hash {_hash_lines(sorted(tickets))}",
            "give the same tickets to every process, on a folder that all machines see",
        ),
        "rows": Invariant(
            f"is asked for {len(asked):,} rows with the hash {_hash_lines(asked)}",
            "give the same flags to every process",
        ),
        "images": Invariant(f"sees {images}", "--data-root must show the same images to all"),
    }


def _summarize(jobs: Sequence[TrainingJob | NaturalJob], tasks: Sequence[EvalTask], engine: Engine) -> str:
    """What is left comes to, in the line that is printed before it begins."""
    sizes = {task.protocol.name: task.protocol.input_size for task in tasks}

    def input_size(name: str) -> int:
        return sizes[name] if name in sizes else find_protocol(name).input_size

    known = Throughput.known(engine.device_name, input_size, runs=dict.fromkeys(task.run for task in tasks))
    return work_cost([job.workload for job in jobs], known, devices=engine.accelerator.num_processes).summary()


def _hash_lines(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _group(task: EvalTask) -> tuple[str, str]:
    return task.protocol.name, task.control + (", own head" if task.head == "own" else "")


def _start_task(progress: Progress, name: str, task: EvalTask, steps: int) -> None:
    """Says what is trained, and which row it is; the line has to fit a terminal."""
    about = {"ticket": task.path.stem, "control": task.control, "protocol": task.protocol.name, "seed": task.seed}
    progress.start_task(f"{name} {task.protocol.name} seed {task.seed}", steps, about)
