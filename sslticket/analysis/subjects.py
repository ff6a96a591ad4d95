"""What an analysis is about, and the trainings to the end that it rests on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from sslticket.errors import BadInput, unknown
from sslticket.evaluation.controls import control
from sslticket.evaluation.entrants import Entrant
from sslticket.evaluation.images import Gallery
from sslticket.evaluation.protocols import Protocol
from sslticket.evaluation.score import control_seed, seeds_of
from sslticket.evaluation.tasks import Task, run_of
from sslticket.ticket import Ticket
from sslticket.units import Span

LOCAL = "local"
"""A random subnetwork: the ticket's mask permuted within each layer, over the dense network's W_k."""

DENSE = "level-00.safetensors"
"""The dense network at W_k, beside the tickets of its search."""


@dataclass(frozen=True, kw_only=True)
class Course:
    """A training from W_k to the end of a protocol.

    Attributes:
        task: the ticket, or the random subnetwork in its place, with protocol and seed.
        hash: the ticket's.
        order: which of the orders in which the seed shows the images.
        precision: of the passes.
        model: the network.
        channels: of the images.
        start: the step of the protocol that the rewind point corresponds to.
        stop: the protocol's last step.
    """

    task: Task
    hash: str
    order: int
    precision: str
    model: str
    channels: int
    start: int
    stop: int

    @property
    def name(self) -> str:
        """All that decides where the training ends, but for the images."""
        protocol = f"{self.task.protocol.label}.seed{self.task.seed}.order{self.order}"
        return f"{self.hash}.{self.task.control}.{protocol}.{self.precision}"

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


def subjects(tasks: Sequence[Task], gallery: Gallery, precision: str, *, dense: bool) -> list[Subject]:
    """What these tasks are about; of their tickets one or two are in memory at a time.

    Args:
        tasks: whose control is "ticket" or "local".
        gallery: the protocols' images.
        precision: of the passes.
        dense: whether the dense network is trained beside each.

    Raises:
        BadInput: if a ticket is damaged, does not fit the images, is rewound to beyond a protocol's end, or has no
            dense network of the same W_k beside it where one is needed; for an unknown control; or if data is missing.
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
    return [_subject(task, entrants, gallery, precision, dense) for task in tasks]


def dense_beside(path: Path) -> Path:
    """The file of the dense network from whose W_k a ticket trains.

    Raises:
        BadInput: if it is not there, or has other early weights.
    """
    beside = path.with_name(DENSE)
    if not beside.is_file():
        raise BadInput(f"{path} needs the dense network of its search, {DENSE}, beside it; give a whole run's folder")
    if odd := _differs(Ticket.load(path), Ticket.load(beside)):
        raise BadInput(
            f"{path} does not start from the W_k of {beside}: {odd} differs; stability and random subnetworks need "
            "tickets that are rewound to one W_k"
        )
    return beside


def _differs(ticket: Ticket, dense: Ticket) -> str | None:
    """The first tensor in which a ticket is not the dense network with its mask."""
    for name, value in ticket.weights.items():
        early = dense.weights.get(name)
        if early is not None and early.shape == value.shape and name in ticket.mask:
            early = early * ticket.mask[name]
        if early is None or not torch.equal(early, value):
            return name
    return None


def subnetwork(task: Task) -> Ticket:
    """The sparse network that a task is about: a ticket file's, or the random one in its place.

    The random one's mask has the ticket's survivors in every layer, at places that the seed draws, and its weights are
    the dense network's at W_k, the same that the ticket has (Stabilizing the Lottery Ticket Hypothesis, section 2: "a
    random mask m of a given size with the same layer-wise proportions").
    """
    ticket = Ticket.load(task.path)
    if task.control == "ticket":
        return ticket
    dense = Ticket.load(task.path.with_name(DENSE))
    return control(ticket, LOCAL, initial=dense.weights, seed=control_seed(seeds_of(task.seed)))


def _runs(tasks: Sequence[Task]) -> list[Path]:
    return list(dict.fromkeys(task.run for task in tasks))


def _subject(task: Task, entrants: Mapping[Path, Entrant], gallery: Gallery, precision: str, dense: bool) -> Subject:
    entrant = entrants[task.path]
    whole = entrant.kept == entrant.total
    # A mask of ones has no random one beside it.
    own = _course(replace(task, control="ticket") if whole else task, entrant, gallery, precision)
    if not dense:
        return Subject(task, entrant, own, None)
    start = task.path if whole else task.path.with_name(DENSE)
    beside = _course(replace(task, path=start, control="ticket"), entrants[start], gallery, precision)
    return Subject(task, entrant, own, beside)


def _course(task: Task, entrant: Entrant, gallery: Gallery, precision: str) -> Course:
    images = gallery.splits(task.protocol, entrant.channels).training.manifest
    start, stop = _steps(task.path, task.protocol, entrant, len(images))
    return Course(
        task=task,
        hash=entrant.hash,
        order=0,
        precision=precision,
        model=entrant.model,
        channels=entrant.channels,
        start=start,
        stop=stop,
    )


def _steps(path: Path, protocol: Protocol, entrant: Entrant, images: int) -> tuple[int, int]:
    """The steps at which training starts and stops: of T steps, the T - k after the rewind point."""
    clock, rewound = protocol.fit_for(entrant.model).clock(images), entrant.about["rewind_samples"]
    start, stop = clock.steps(Span(rewound, "samples")), clock.total
    if start >= stop:
        raise BadInput(
            f"{path} is rewound to {rewound:,} samples, step {start:,} of {protocol.name}, which has {stop:,} steps; "
            "give a longer --protocol, or search with an earlier --rewind"
        )
    return start, stop
