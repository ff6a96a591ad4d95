"""The plan of an evaluation: the images, the rows that are not there yet, and the trainings that fill them."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sslticket import provenance
from sslticket.data.datasets.base import SPLITS
from sslticket.data.manifest import take_half
from sslticket.data.source import DataSource, check_complete, convert_channels, open_split
from sslticket.data.unreadable import log_empty_classes, log_left_out
from sslticket.errors import BadInput
from sslticket.evaluation.controls import REINITIALIZED, NaturalMask, load_control_weights
from sslticket.evaluation.protocols import OWN_PROTOCOL, Protocol
from sslticket.evaluation.tasks import EvalTask, TicketInfo, read_task_row
from sslticket.objectives.supervised import Supervised
from sslticket.training.numerics import Numerics, numerics_of_row


@dataclass(frozen=True)
class Splits:
    """A protocol's two sets of images."""

    training: DataSource
    evaluation: DataSource

    @classmethod
    def open(cls, protocol: Protocol, data_root: Path | None) -> "Splits":
        """Find both sets.

        Raises:
            BadInput: if one is missing or not the official one, or their classes differ.
        """
        both = [open_split(protocol.dataset, split, data_root) for split in SPLITS]
        training, evaluation = check_complete(both, protocol.part)
        if protocol.half is not None:
            training = replace(training, manifest=take_half(training.manifest, protocol.half))
        if training.manifest.classes != evaluation.manifest.classes:
            odd = set(training.manifest.classes) ^ set(evaluation.manifest.classes)
            raise BadInput(
                f"the training and evaluation images of {protocol.dataset} have different classes, {min(odd)!r} is in "
                "one only; check the data"
            )
        for source in (training, evaluation):
            log_empty_classes(source.manifest)
            log_left_out(source.manifest, source.left_out)
        return cls(training, evaluation)

    def with_channels(self, channels: int) -> "Splits":
        """The same images, grey or in colour."""
        return Splits(convert_channels(self.training, channels), convert_channels(self.evaluation, channels))


class SplitCache:
    """Opens each set, or half of it, once for all protocols, and turns it once for each number of channels."""

    def __init__(self, data_root: Path | None) -> None:
        self._data_root = data_root
        self._open: dict[tuple[str, str | None, str | None, int | None], Splits] = {}

    def get(self, protocol: Protocol, channels: int) -> Splits:
        """The protocol's images with so many channels.

        Raises:
            BadInput: if they are not there, or cannot have these channels.
        """
        whole, turned = ((protocol.dataset, protocol.part, protocol.half, each) for each in (None, channels))
        if whole not in self._open:
            self._open[whole] = Splits.open(protocol, self._data_root)
        if turned not in self._open:
            self._open[turned] = self._open[whole].with_channels(channels)
        return self._open[turned]

    def describe(self) -> list[str]:
        """How many images of each set are open, with their hashes, for a person; in the order of their names."""
        found = [
            f"{len(splits.training.manifest):,} training and {len(splits.evaluation.manifest):,} evaluation images of "
            f"{splits.training.manifest.name} with the hashes {splits.training.manifest.hash} and "
            f"{splits.evaluation.manifest.hash}"
            for (*_, channels), splits in self._open.items()
            if channels is None
        ]
        return sorted(found)

    def check_row(self, protocol: Protocol, channels: int, row: Mapping[str, Any] | None, path: Path) -> None:
        """Whether a row that is there already is about the protocol's images as they are here.

        What is measured needs no images any more, so where they cannot be opened, it stands.

        Raises:
            BadInput: if there is no row and the images cannot be opened, or the row is about others.
        """
        try:
            splits = self.get(protocol, channels)
        except BadInput:
            if row is None:
                raise
            return
        for key, manifest in (("data_hash", splits.training.manifest), ("eval_hash", splits.evaluation.manifest)):
            if row is not None and row.get(key, manifest.hash) != manifest.hash:
                raise BadInput(
                    f"{path} was measured on other images of {row.get('target', manifest.name)}, with the hash "
                    f"{row[key]} and not {manifest.hash}; give the --data-root of those, name these with --part, "
                    "or move that row away"
                )


NATURAL_CONTROL = "natural"


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """One training under a protocol.

    Attributes:
        control: "ticket", one of the controls, or "natural" for the dense network that shows natural zeros.
        tasks: what it fills: more than one where a control owes nothing to the tickets that it stands beside.
        first_task: a row's task, which gives protocol and seed; of "natural", one that needs it.
        model: the network.
        channels: of the images.
        start: the step of the protocol at which it begins.
        steps: optimiser steps.
        search_seed: the seed of the search for which a control is drawn.
        batch_size: images in a step.
        numerics: how it computes.
        finished_row_file: a row that this very training has filled before.
        natural_file: of "adjusted" and "natural", the file with the natural mask, there or to be written.
    """

    control: str
    tasks: tuple[EvalTask, ...] = ()
    first_task: EvalTask
    model: str
    channels: int
    start: int
    steps: int
    batch_size: int
    numerics: str
    search_seed: int
    finished_row_file: Path | None = None
    natural_file: Path | None = None

    @property
    def samples(self) -> int:
        """Source images that it sees; none where its measurement is there already."""
        return 0 if self.finished_row_file else self.steps * self.batch_size

    @property
    def waits_for_natural(self) -> bool:
        """Whether the natural mask that it needs is not there yet."""
        return self.control == "adjusted" and self.natural_file is not None and not self.natural_file.exists()


@dataclass(frozen=True, eq=False)
class EvaluationPlan:
    """Checked rows to be.

    Attributes:
        tasks: all of them, done or not.
        ticket_infos: the tickets, by file.
        split_cache: the images.
        numerics: how the trainings compute.
    """

    tasks: Sequence[EvalTask]
    ticket_infos: Mapping[Path, TicketInfo]
    split_cache: SplitCache
    numerics: Numerics
    _natural_survivors: dict[tuple[Path, tuple[str, ...]], int] = field(
        default_factory=dict
    )  # what is left, by file and layers

    @classmethod
    def build(cls, tasks: Sequence[EvalTask], data_root: Path | None, numerics: Numerics) -> "EvaluationPlan":
        """Check every ticket and open all images before anything is trained.

        Raises:
            BadInput: if a ticket is damaged or does not fit its protocols' images, or data is missing.
        """
        targets = {
            path: {task.protocol.name: task.protocol for task in tasks if task.path == path}
            for path in dict.fromkeys(task.path for task in tasks)
        }
        entrants = {path: TicketInfo.read(path, protocols) for path, protocols in targets.items()}
        matrix = cls(tasks, entrants, SplitCache(data_root), numerics)
        for task in tasks:
            row = read_task_row(task.row_file) if matrix.is_done(task) else None
            matrix.split_cache.check_row(task.protocol, entrants[task.path].channels, row, task.row_file)
            if row is None:
                matrix.check_task(task)
        for path, kind in dict.fromkeys((task.path, task.control) for task in matrix.remaining_tasks()):
            load_control_weights(path, kind)
        return matrix

    def remaining_tasks(self) -> list[EvalTask]:
        """Rows that are not there, or are about earlier tickets of these names.

        Raises:
            BadInput: if a row is damaged.
        """
        return [task for task in self.tasks if not self.is_done(task)]

    def is_done(self, task: EvalTask) -> bool:
        """Whether its row is there, about this very ticket."""
        entrant = self.ticket_infos[task.path]
        return task.is_done(entrant.hash, task.protocol.hash_for(entrant.model))

    def count_other_numerics(self) -> Counter[tuple[str, str]]:
        """How many rows are there that were computed otherwise than they would be now: by that, and by this."""
        found: Counter[tuple[str, str]] = Counter()
        for task in self.tasks:
            row = read_task_row(task.row_file) if self.is_done(task) else None
            if row is not None and "precision" in row:
                told, now = numerics_of_row(row), self._numerics_of(task, row.get("steps", 0))
                found[told, now] += told != now
        return +found

    def describe_other_origins(self, device: str) -> str:
        """One line about rows that are there and that other code, other versions or another device measured, or ""."""
        done = (read_task_row(task.row_file) for task in self.tasks if self.is_done(task))
        # Of numerics `measured_otherwise` tells.
        return provenance.mixed_provenance_note(
            ({**row, "numerics": ""} for row in done if row is not None), device=device
        )

    def check_task(self, task: EvalTask) -> None:
        """Whether a task can be done.

        Raises:
            BadInput: if its protocol goes on from W_k and ends before it, or the ticket's classification layer, which
                is to be trained on, tells other classes.
        """
        self.step_range(task)
        entrant = self.ticket_infos[task.path]
        manifest = self.split_cache.get(task.protocol, entrant.channels).training.manifest
        if task.head != "own":
            return
        classes = len(manifest.classes)
        shapes = [entrant.head.get(name, (0,))[0] for name in ("weight", "bias")]
        if shapes != [classes] * 2 or entrant.classes_hash not in (None, manifest.classes_hash):
            raise BadInput(
                f"the classification layer of {task.path} tells other classes than the {classes} of {manifest.name}; "
                "give --head new"
            )

    def step_range(self, task: EvalTask) -> tuple[int, int]:
        """The steps of its protocol at which a task's training starts and stops.

        Raises:
            BadInput: if the protocol goes on from W_k and ends before it.
        """
        entrant = self.ticket_infos[task.path]
        images = len(self.split_cache.get(task.protocol, entrant.channels).training.manifest)
        return task.protocol.steps(entrant.model, self._samples_seen(task), images)

    def _numerics_of(self, task: EvalTask, steps: int) -> str:
        """How a task's training of so many steps computes."""
        entrant = self.ticket_infos[task.path]
        ghosts = task.protocol.fit_for(entrant.model).ghost_batch
        return str(
            self.numerics.for_training(
                steps, size=entrant.parameters, steady=Supervised.cuda_graph_safe, ghost_batch=ghosts
            )
        )

    def _samples_seen(self, task: EvalTask) -> int:
        """Source images that the weights of a task have seen: W_0, to which `reset` goes back, none."""
        return 0 if task.control == "reset" else self.ticket_infos[task.path].rewind_samples

    def jobs(self) -> list[TrainingJob]:
        """What has to be done for the rows that are left, tickets first, and natural masks before what needs them."""
        left = set(self.remaining_tasks())
        groups: dict[tuple[object, ...], list[EvalTask]] = defaultdict(list)
        for task in self.tasks:
            groups[self._training_key(task)].append(task)
        found = [self._make_job(group, left) for group in groups.values() if not left.isdisjoint(group)]
        naturals = {each.natural_file: self._make_natural_job(each) for each in found if each.waits_for_natural}
        found.sort(key=lambda each: (each.control != "ticket", each.control == "adjusted"))
        first = [each for each in found if each.control != "adjusted"]
        return [*first, *naturals.values(), *found[len(first) :]]

    def row_fields(self, task: EvalTask) -> dict[str, Any]:
        """What a row says beside what was measured."""
        target = self.split_cache.get(task.protocol, self.ticket_infos[task.path].channels).training.manifest.name
        entrant = self.ticket_infos[task.path]
        own = {
            "control": task.control,
            "protocol": task.protocol.name,
            "protocol_hash": task.protocol.hash_for(entrant.model),
            "start": task.protocol.start,
            "head": task.head,
            "target": target,
            "seed": task.seed,
        }
        drawn = {} if task.control == "ticket" else {"replicate": entrant.seed}
        return dict(entrant.row_fields) | own | drawn

    def known_measurement(self, training: TrainingJob) -> dict[str, Any] | None:
        """What this very training has shown before, from the donor's row; None where there is none."""
        if training.finished_row_file is None:
            return None
        row = read_task_row(training.finished_row_file) or {}
        # Of the donor's own ticket, which may tell what older ones do not.
        about = {"source_hash", *self.row_fields(training.first_task)}
        return {name: value for name, value in row.items() if name not in about}

    def _training_key(self, task: EvalTask) -> tuple[object, ...]:
        """Rows that agree in this are filled by one training.

        A random ticket owes nothing to the ticket that it stands beside but its layers, the number of its weights and
        the seed of its search: replicates have random tickets of their own. A dense network drawn anew is the same
        under every control but the adjusted, and one with W_k is the ticket.
        """
        entrant, protocol = self.ticket_infos[task.path], task.protocol
        network = (entrant.model, entrant.channels, entrant.parameters, entrant.layers)
        begins = self._samples_seen(task) if protocol.start == "k" else 0
        where = (protocol.label, protocol.hash_for(entrant.model), begins, task.seed, task.head, network)
        if task.control not in REINITIALIZED:
            dense = task.control == "permuted" and entrant.survivors == entrant.prunable
            return (*where, "ticket" if dense else task.control, entrant.hash)
        if task.control == "adjusted":
            natural = self._count_natural_survivors(self._natural_file(task), entrant.layers)
            return (
                *where,
                entrant.seed,
                "adjusted",
                entrant.survivors if natural is None else min(entrant.survivors, natural),
            )
        if task.control == "random" or entrant.survivors == entrant.prunable:
            return (*where, entrant.seed, "random", entrant.survivors)
        return (*where, task.control, entrant.hash)

    def _make_job(self, group: Sequence[EvalTask], left: set[EvalTask]) -> TrainingJob:
        rows = tuple(task for task in group if task in left)
        like, entrant = rows[0], self.ticket_infos[rows[0].path]
        done = (task.row_file for task in group if task not in left)
        start, stop = self.step_range(like)
        numerics = self._numerics_of(like, stop - start)
        return TrainingJob(
            control=like.control,
            tasks=rows,
            first_task=like,
            model=entrant.model,
            channels=entrant.channels,
            start=start,
            steps=stop - start,
            batch_size=like.protocol.fit_for(entrant.model).batch_size,
            numerics=numerics,
            search_seed=entrant.seed,
            finished_row_file=next((row for row in done if _numerics_in_row_file(row) == numerics), None),
            natural_file=self._natural_file(like) if like.control == "adjusted" else None,
        )

    def _make_natural_job(self, needs: TrainingJob) -> TrainingJob:
        return TrainingJob(
            control=NATURAL_CONTROL,
            first_task=needs.first_task,
            model=needs.model,
            channels=needs.channels,
            start=0,
            steps=needs.start + needs.steps,  # it starts from W_0, whatever the protocol does
            batch_size=needs.batch_size,
            numerics=needs.numerics,
            search_seed=needs.search_seed,
            natural_file=needs.natural_file,
        )

    def _natural_file(self, task: EvalTask) -> Path:
        """Of any run of the matrix with this network and search seed; where none has it yet, of the first.

        Replicates have natural zeros of their own, as they have random tickets.
        """
        entrant, protocol = self.ticket_infos[task.path], task.protocol
        # A ticket's own protocol has one name for all recipes.
        under = (
            f"{protocol.label}-{protocol.hash_for(entrant.model)}" if protocol.base == OWN_PROTOCOL else protocol.label
        )
        name = f"{entrant.model.replace('/', '_')}.{under}.seed{task.seed}.search{entrant.seed}.safetensors"
        alike = (
            other.run
            for other in self.tasks
            if (mine := self.ticket_infos[other.path]).model == entrant.model
            and (mine.channels, mine.parameters, mine.seed) == (entrant.channels, entrant.parameters, entrant.seed)
        )
        files = [run / "natural" / name for run in dict.fromkeys(alike)]
        return next((file for file in files if file.exists()), files[0])

    def _count_natural_survivors(self, file: Path, layers: tuple[str, ...]) -> int | None:
        if (file, layers) not in self._natural_survivors and file.exists():
            self._natural_survivors[file, layers] = NaturalMask.load(file).mask.restrict(layers).survivors
        return self._natural_survivors.get((file, layers))


def _numerics_in_row_file(row: Path) -> str:
    return numerics_of_row(read_task_row(row) or {})
