"""What an analysis is about, and the trainings to the end that it rests on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sslticket.errors import BadInput, unknown
from sslticket.evaluation.controls import DENSE, control, dense_beside
from sslticket.evaluation.entrants import Entrant
from sslticket.evaluation.images import Gallery
from sslticket.evaluation.protocols import Protocol
from sslticket.evaluation.score import control_seed, replicated, seeds_of
from sslticket.evaluation.tasks import Head, Task, matrix
from sslticket.objectives.supervised import Supervised
from sslticket.ticket import Ticket, run_of
from sslticket.training.numerics import Numerics

LOCAL = "local"
"""A random subnetwork: the ticket's mask permuted within each layer, over the dense network's W_k."""


@dataclass(frozen=True, kw_only=True)
class Course:
    """A training from W_k to the end of a protocol.

    Attributes:
        task: the ticket, or the random subnetwork in its place, with protocol and seed.
        hash: the ticket's.
        order: which of the orders in which the seed shows the images.
        numerics: how it computes.
        model: the network.
        channels: of the images.
        rewind_samples: source images that W_k has seen.
        start: the step of the protocol at which training begins: 0, or that of the rewind point.
        stop: the protocol's last step.
    """

    task: Task
    hash: str
    order: int
    numerics: str
    model: str
    channels: int
    rewind_samples: int
    start: int
    stop: int

    @property
    def name(self) -> str:
        """All that decides where the training ends, but for the images.

        One that starts at the rewind point is named as earlier versions did, which knew no other.
        """
        protocol = self.task.protocol.label_of(self.task.protocol.base)
        how = f"{protocol}.{self.task.variant}seed{self.task.seed}.order{self.order}"
        clock = ".start0" if self.rewind_samples and self.task.protocol.start == "0" else ""
        # Earlier versions drew one random subnetwork for all replicates of a search.
        control = self.task.control if self.task.control == "ticket" else f"{self.task.control}-replicate"
        return f"{self.hash}.{control}.{how}.{self.numerics.replace(' ', '-')}{clock}"

    @property
    def file(self) -> Path:
        """Where its endpoint is kept."""
        return self.task.run / "endpoints" / f"{self.name}.safetensors"

    @property
    def samples(self) -> int:
        """Source images that it sees."""
        return (self.stop - self.start) * self.batch_size

    @property
    def batch_size(self) -> int:
        """Images in a step."""
        return self.task.protocol.fit_for(self.model).batch_size


@dataclass(frozen=True, eq=False)
class Subject:
    """A ticket, or a random subnetwork in its place, under a protocol with a seed.

    Attributes:
        task: which one.
        entrant: the ticket.
        course: its training, in the first order.
        dense: the dense network's, from the same W_k in the same order; None where it is not needed.
    """

    task: Task
    entrant: Entrant
    course: Course
    dense: Course | None

    def reordered(self, order: int) -> Course:
        """The training in another order; everything else stays."""
        return replace(self.course, order=order)


def wanted(
    paths: Sequence[Path],
    controls: Sequence[str],
    protocols: Sequence[Protocol | str],
    seeds: Sequence[int] | None,
    heads: Sequence[Head] | None = None,
    part: str | None = None,
) -> list[Task]:
    """The rows that an analysis of these tickets has, see `evaluation.tasks.matrix`.

    A random subnetwork of an analysis has the ticket's W_k, so its classification layer too.
    """
    return matrix(paths, controls, protocols, seeds, heads, part, beside=False, anew=())


def subjects(tasks: Sequence[Task], gallery: Gallery, numerics: Numerics, *, dense: bool) -> list[Subject]:
    """What these tasks are about; of their tickets one or two are in memory at a time.

    Args:
        tasks: whose control is "ticket" or "local".
        gallery: the protocols' images.
        numerics: how the trainings compute.
        dense: whether the dense network is trained beside each.

    Raises:
        BadInput: if a ticket is damaged, does not fit the images, is rewound to beyond the end of a protocol that
            starts there, or has no dense network of the same W_k beside it where one is needed; for an unknown
            control; or if data is missing.
    """
    for task in tasks:
        if task.control not in ("ticket", LOCAL):
            raise unknown("control of an analysis", task.control, [LOCAL])
    protocols = {run: {task.protocol.name: task.protocol for task in tasks if task.run == run} for run in _runs(tasks)}
    entrants = {path: Entrant.read(path, protocols[run_of(path)]) for path in dict.fromkeys(t.path for t in tasks)}
    for path in dict.fromkeys(task.path for task in tasks if dense or task.control == LOCAL):
        if entrants[path].kept < entrants[path].total:
            beside = dense_beside(path)
            if beside not in entrants:
                entrants[beside] = Entrant.read(beside, protocols[run_of(path)])
    return [_subject(task, entrants, gallery, numerics, dense) for task in tasks]


def subnetwork(task: Task) -> Ticket:
    """The sparse network that a task is about: a ticket file's, or the random one in its place.

    The random one's mask has the ticket's survivors in every layer, at places that the seed draws, and its weights are
    the dense network's at W_k, the same that the ticket has (Stabilizing the Lottery Ticket Hypothesis, section 2: "a
    random mask m of a given size with the same layer-wise proportions"), as is its classification layer. Replicates of
    a search have random subnetworks of their own.
    """
    ticket = Ticket.load(task.path)
    if task.control == "ticket":
        return ticket
    dense = Ticket.load(task.path.with_name(DENSE))
    seeds = replicated(seeds_of(task.seed), ticket.provenance["seed"])
    return control(ticket, LOCAL, initial=dense.weights, seed=control_seed(seeds), head=ticket.head)


def _runs(tasks: Sequence[Task]) -> list[Path]:
    return list(dict.fromkeys(task.run for task in tasks))


def _subject(
    task: Task, entrants: Mapping[Path, Entrant], gallery: Gallery, numerics: Numerics, dense: bool
) -> Subject:
    entrant = entrants[task.path]
    whole = entrant.kept == entrant.total
    # A mask of ones has no random one beside it.
    own = _course(replace(task, control="ticket") if whole else task, entrant, gallery, numerics)
    if not dense:
        return Subject(task, entrant, own, None)
    start = task.path if whole else task.path.with_name(DENSE)
    beside = _course(replace(task, path=start, control="ticket"), entrants[start], gallery, numerics)
    return Subject(task, entrant, own, beside)


def _course(task: Task, entrant: Entrant, gallery: Gallery, numerics: Numerics) -> Course:
    images = gallery.splits(task.protocol, entrant.channels).training.manifest
    rewound = entrant.about["rewind_samples"]
    try:
        start, stop = task.protocol.steps(entrant.model, rewound, len(images))
    except BadInput as error:
        raise BadInput(f"{task.path}: {error}") from error
    ghost_batch = task.protocol.fit_for(entrant.model).ghost_batch
    computes = numerics.over(stop - start, size=entrant.size, steady=Supervised.steady, ghost_batch=ghost_batch)
    return Course(
        task=task,
        hash=entrant.hash,
        order=0,
        numerics=str(computes),
        model=entrant.model,
        channels=entrant.channels,
        rewind_samples=rewound,
        start=start,
        stop=stop,
    )
