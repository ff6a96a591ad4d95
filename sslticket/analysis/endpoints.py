"""What an analysis is about, and the networks at the end of the trainings that it rests on.

Endpoints are whole networks, kept so that analyses share them and a killed command goes on. They are a cache and may be deleted at any time.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sslticket.errors import BadInput, unknown_name
from sslticket.evaluation.controls import DENSE_FILE, find_dense_ticket, make_control
from sslticket.evaluation.jobs import SplitCache
from sslticket.evaluation.protocols import Protocol
from sslticket.evaluation.tasks import EvalTask, Head, TicketInfo, make_tasks
from sslticket.evaluation.trainer import EvalRun, Evaluator, control_mask_seed, evaluation_seeds, replicate_seeds
from sslticket.objectives.supervised import Supervised
from sslticket.pruning import pruned_model
from sslticket.pruning.mask import StateDict
from sslticket.seeds import Seeds, derive_seed
from sslticket.storage import tensorfile
from sslticket.storage.leases import hold_leases
from sslticket.ticket import Ticket, run_folder_of
from sslticket.training.engine import Engine
from sslticket.training.numerics import Numerics
from sslticket.training.progress import Progress

LOCAL_CONTROL = "local"
"""A random subnetwork: the ticket's mask permuted within each layer, over the dense network's W_k."""


@dataclass(frozen=True, kw_only=True)
class FinalTraining:
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

    task: EvalTask
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
        protocol = self.task.protocol.label_for(self.task.protocol.base)
        how = f"{protocol}.{self.task.head_prefix}seed{self.task.seed}.order{self.order}"
        clock = ".start0" if self.rewind_samples and self.task.protocol.start == "0" else ""
        # Earlier versions drew one random subnetwork for all replicates of a search.
        control = self.task.control if self.task.control == "ticket" else f"{self.task.control}-replicate"
        return f"{self.hash}.{control}.{how}.{self.numerics.replace(' ', '-')}{clock}"

    @property
    def endpoint_file(self) -> Path:
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
class AnalysisTarget:
    """A ticket, or a random subnetwork in its place, under a protocol with a seed.

    Attributes:
        task: which one.
        ticket_info: the ticket.
        training: its training, in the first order.
        dense_training: the dense network's, from the same W_k in the same order; None where it is not needed.
    """

    task: EvalTask
    ticket_info: TicketInfo
    training: FinalTraining
    dense_training: FinalTraining | None

    def training_in_order(self, order: int) -> FinalTraining:
        """The training in another order; everything else stays."""
        return replace(self.training, order=order)


def make_analysis_tasks(
    paths: Sequence[Path],
    controls: Sequence[str],
    protocols: Sequence[Protocol | str],
    seeds: Sequence[int] | None,
    heads: Sequence[Head] | None = None,
    part: str | None = None,
) -> list[EvalTask]:
    """The rows that an analysis of these tickets has, see `evaluation.tasks.matrix`.

    A random subnetwork of an analysis has the ticket's W_k, so its classification layer too.
    """
    return make_tasks(paths, controls, protocols, seeds, heads, part, beside=False, anew=())


def find_targets(
    tasks: Sequence[EvalTask], gallery: SplitCache, numerics: Numerics, *, dense: bool
) -> list[AnalysisTarget]:
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
        if task.control not in ("ticket", LOCAL_CONTROL):
            raise unknown_name("control of an analysis", task.control, [LOCAL_CONTROL])
    protocols = {
        run: {task.protocol.name: task.protocol for task in tasks if task.run == run} for run in _run_folders(tasks)
    }
    entrants = {
        path: TicketInfo.read(path, protocols[run_folder_of(path)]) for path in dict.fromkeys(t.path for t in tasks)
    }
    for path in dict.fromkeys(task.path for task in tasks if dense or task.control == LOCAL_CONTROL):
        if entrants[path].survivors < entrants[path].prunable:
            beside = find_dense_ticket(path)
            if beside not in entrants:
                entrants[beside] = TicketInfo.read(beside, protocols[run_folder_of(path)])
    return [_make_target(task, entrants, gallery, numerics, dense) for task in tasks]


def load_subnetwork(task: EvalTask) -> Ticket:
    """The sparse network that a task is about: a ticket file's, or the random one in its place.

    The random one's mask has the ticket's survivors in every layer, at places that the seed draws, and its weights are
    the dense network's at W_k, the same that the ticket has (Stabilizing the Lottery Ticket Hypothesis, section 2: "a
    random mask m of a given size with the same layer-wise proportions"), as is its classification layer. Replicates of
    a search have random subnetworks of their own.
    """
    ticket = Ticket.load(task.path)
    if task.control == "ticket":
        return ticket
    dense = Ticket.load(task.path.with_name(DENSE_FILE))
    seeds = replicate_seeds(evaluation_seeds(task.seed), ticket.provenance["seed"])
    return make_control(ticket, LOCAL_CONTROL, initial=dense.weights, seed=control_mask_seed(seeds), head=ticket.head)


def _run_folders(tasks: Sequence[EvalTask]) -> list[Path]:
    return list(dict.fromkeys(task.run for task in tasks))


def _make_target(
    task: EvalTask, entrants: Mapping[Path, TicketInfo], gallery: SplitCache, numerics: Numerics, dense: bool
) -> AnalysisTarget:
    entrant = entrants[task.path]
    whole = entrant.survivors == entrant.prunable
    # A mask of ones has no random one beside it.
    own = _make_final_training(replace(task, control="ticket") if whole else task, entrant, gallery, numerics)
    if not dense:
        return AnalysisTarget(task, entrant, own, None)
    start = task.path if whole else task.path.with_name(DENSE_FILE)
    beside = _make_final_training(replace(task, path=start, control="ticket"), entrants[start], gallery, numerics)
    return AnalysisTarget(task, entrant, own, beside)


def _make_final_training(task: EvalTask, entrant: TicketInfo, gallery: SplitCache, numerics: Numerics) -> FinalTraining:
    images = gallery.get(task.protocol, entrant.channels).training.manifest
    rewound = entrant.row_fields["rewind_samples"]
    try:
        start, stop = task.protocol.steps(entrant.model, rewound, len(images))
    except BadInput as error:
        raise BadInput(f"{task.path}: {error}") from error
    ghost_batch = task.protocol.fit_for(entrant.model).ghost_batch
    computes = numerics.for_training(
        stop - start, size=entrant.parameters, steady=Supervised.cuda_graph_safe, ghost_batch=ghost_batch
    )
    return FinalTraining(
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


@dataclass(frozen=True, eq=False)
class Endpoint:
    """A network at the end of its training.

    Attributes:
        state: all its parameters and buffers, backbone and head, under clean names; pruned entries are 0.
        measurements: what was measured there, as the training's score row would tell it, and where it is from.
    """

    state: StateDict
    measurements: Mapping[str, Any]

    @property
    def backbone(self) -> StateDict:
        """The backbone's part, under the names that tickets have."""
        own = "backbone."
        return {name.removeprefix(own): value for name, value in self.state.items() if name.startswith(own)}

    def save(self, path: Path) -> None:
        """Write the endpoint, whole or not at all."""
        tensorfile.write_tensor_file(path, "endpoint", self.measurements, self.state)


class EndpointStore:
    """Trains networks to the end, or reads where they ended.

    Attributes:
        engine: where they are trained.
        evaluator: how.
        progress: is told.
    """

    def __init__(self, gallery: SplitCache, bench: Engine, progress: Progress) -> None:
        self.engine, self.evaluator, self.progress = bench, Evaluator(bench, progress), progress
        self._gallery = gallery

    def ensure(self, course: FinalTraining) -> bool:
        """Train to the end where that is neither done nor in another process's hands; returns whether it is done.

        Raises:
            Diverged: if a loss is not finite.
        """
        with ExitStack() as held:
            there = free = False
            if self.engine.is_main_process:
                free = bool(held.enter_context(hold_leases([course.endpoint_file])))
                there = course.endpoint_file.exists()
            there, free = self.engine.broadcast((there, free))
            if free and not there:
                self._train(course)
            if there or free:
                self.engine.wait_for_file(course.endpoint_file)
            return there or free

    def read(self, course: FinalTraining) -> Endpoint:
        """What `reach` left.

        Raises:
            BadInput: if the file is damaged, or of other images.
        """
        return self._checked(course, _read_endpoint(course.endpoint_file, whole=True))

    def measurements(self, course: FinalTraining) -> Mapping[str, Any]:
        """What was measured there; the weights are not read.

        Raises:
            BadInput: if the file is damaged, or of other images.
        """
        return self._checked(course, _read_endpoint(course.endpoint_file, whole=False)).measurements

    def eval_run(self, course: FinalTraining) -> EvalRun:
        """The training as the examiner takes it."""
        task = course.task
        return EvalRun(
            protocol=task.protocol,
            model=course.model,
            channels=course.channels,
            splits=self._gallery.get(task.protocol, course.channels),
            seeds=_seeds_of_order(task.seed, course.order),
            start=course.start,
            run=task.run,
            name=f"endpoint.{course.name}",
        )

    def _train(self, course: FinalTraining) -> None:
        task, exam = course.task, self.eval_run(course)
        net = exam.build_net()
        load_subnetwork(task).apply(net.backbone, net.heads if task.head == "own" else None)
        what = f"{task.path.stem} {task.control} {task.protocol.name} seed {task.seed} order {course.order}"
        self.progress.start_task(what, course.stop)
        told = self.evaluator.train_and_measure(net, exam)
        if self.engine.is_main_process:
            Endpoint(pruned_model.read_state(net), told).save(course.endpoint_file)

    def _checked(self, course: FinalTraining, endpoint: Endpoint) -> Endpoint:
        images = self._gallery.get(course.task.protocol, course.channels).training.manifest
        if endpoint.measurements["data_hash"] != images.hash:
            raise BadInput(f"{course.endpoint_file} is of other images; delete it and run the same command again")
        return endpoint


def untrained(courses: Iterable[FinalTraining]) -> list[FinalTraining]:
    """Those that are not trained yet, each once."""
    return [
        course
        for course in {course.endpoint_file: course for course in courses}.values()
        if not course.endpoint_file.exists()
    ]


def _seeds_of_order(seed: int, order: int) -> Seeds:
    """Orders differ in the images' order and augmentation; head and masks are the seed's.

    The first order is that of an evaluation with this seed.
    """
    own = evaluation_seeds(seed)
    if order == 0:
        return own
    other = Seeds.from_seed(derive_seed(seed, "evaluation", "order", order))
    return replace(own, order=other.order, augment=other.augment)


def _read_endpoint(path: Path, *, whole: bool) -> Endpoint:
    fix = "delete it and run the same command again"
    told, state = tensorfile.read_tensor_file(path, "endpoint", what="endpoint", fix=fix, whole=whole)
    if not isinstance(told.get("data_hash"), str):
        raise BadInput(f"{path} is damaged (it does not tell its images); {fix}")
    told.pop("hash", None)
    return Endpoint(state, told)
