"""What an analysis is about, and the networks at the end of the trainings that it rests on.

Endpoints are whole networks, kept so that analyses share them and a killed command goes on. They are a cache and may be
deleted at any time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sslticket.errors import BadInput, unknown_name
from sslticket.evaluation.controls import DENSE_FILE, find_dense_ticket, get_control, make_control
from sslticket.evaluation.protocols import Protocol
from sslticket.evaluation.tasks import EvalTask, Head, TicketInfo, make_tasks, protocol_workload, search_number
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
from sslticket.pruning.mask import StateDict
from sslticket.results.throughput import Workload
from sslticket.results.work_queue import Job, Row
from sslticket.seeds import Seeds, derive_seed
from sslticket.storage import tensorfile
from sslticket.ticket import Ticket, run_folder_of
from sslticket.training.engine import Engine
from sslticket.training.numerics import Numerics
from sslticket.training.progress import Progress
from sslticket.training.snapshots import delete_snapshots

LOCAL_CONTROL = "local"
"""A random subnetwork: the ticket's mask permuted within each layer, over the dense network's W_k."""


@dataclass(frozen=True, eq=False)
class Endpoint:
    """A network at the end of its training.

    Attributes:
        state: All its parameters and buffers, backbone and head, under clean names; pruned entries are 0.
        measurements: What was measured there, as the training's score row would have it, and where it is from.
    """

    state: StateDict
    measurements: Mapping[str, Any]

    @property
    def backbone(self) -> StateDict:
        """The state of the backbone, under the names that tickets have."""
        prefix = "backbone."
        return {name.removeprefix(prefix): value for name, value in self.state.items() if name.startswith(prefix)}

    @classmethod
    def load(cls, path: Path, *, weights: bool) -> "Endpoint":
        """Reads an endpoint's file.

        Args:
            path: Path of the file.
            weights: Whether the state is read too.

        Raises:
            BadInput: If the file is damaged.
        """
        fix = "delete it and run the same command again"
        header, state = tensorfile.read_tensor_file(path, "endpoint", what="endpoint", fix=fix, whole=weights)
        if not isinstance(header.get("data_hash"), str):
            raise BadInput(f"{path} is damaged (it does not name its images); {fix}")
        header.pop("hash", None)
        return cls(state, header)


class EndpointStore:
    """Trains networks to the end, and reads where they ended.

    Attributes:
        engine: Where they are trained.
        evaluator: Trains and measures.
        progress: Where progress is shown.
        split_cache: Images of the protocols.
    """

    def __init__(self, split_cache: SplitCache, engine: Engine, progress: Progress) -> None:
        self.engine, self.evaluator, self.progress = engine, Evaluator(engine, progress), progress
        self.split_cache = split_cache

    def read(self, training: "FinalTraining") -> Endpoint:
        """The endpoint of a training that is done.

        Raises:
            BadInput: If the file is damaged, or of other images.
        """
        return self._checked(training, Endpoint.load(training.endpoint_file, weights=True))

    def measurements(self, training: "FinalTraining") -> Mapping[str, Any]:
        """What was measured at an endpoint; the weights are not read.

        Raises:
            BadInput: If the file is damaged, or of other images.
        """
        return self._checked(training, Endpoint.load(training.endpoint_file, weights=False)).measurements

    def eval_run(self, training: "FinalTraining") -> EvalRun:
        """A training as the evaluator takes it.

        Orders differ in the order and augmentation of images; head and masks are the seed's. The first is that of an
        evaluation with this seed.
        """
        task = training.task
        seeds = evaluation_seeds(task.seed)
        if training.order:
            other = Seeds.from_seed(derive_seed(task.seed, "evaluation", "order", training.order))
            seeds = replace(seeds, order=other.order, augment=other.augment)
        return EvalRun(
            protocol=task.protocol,
            model=training.info.model,
            channels=training.info.channels,
            splits=self.split_cache.get(task.protocol, training.info.channels),
            seeds=seeds,
            start=training.start,
            run=task.run,
            name=training._watched_name,
        )

    def _checked(self, training: "FinalTraining", endpoint: Endpoint) -> Endpoint:
        images = self.split_cache.get(training.task.protocol, training.info.channels).training.manifest
        if endpoint.measurements["data_hash"] != images.hash:
            raise BadInput(f"{training.endpoint_file} is of other images; delete it and run the same command again")
        return endpoint


@dataclass(frozen=True, kw_only=True)
class FinalTraining(Job[EndpointStore]):
    """A training from W_k to the end of a protocol.

    Attributes:
        task: The ticket, or the random subnetwork in its place, with protocol and seed.
        info: The ticket.
        order: Which of the orders in which the seed shows the images.
        numerics: How it computes.
        start: Step of the protocol at which training begins: 0, or that of the rewind point.
        stop: The protocol's last step.
        measured: Images that are measured at its end.
    """

    task: EvalTask
    info: TicketInfo
    order: int
    numerics: str
    start: int
    stop: int
    measured: int = 0

    @property
    def name(self) -> str:
        """All that decides where the training ends, but for the images.

        One that starts at the rewind point is named as earlier versions did, which knew no other.
        """
        protocol = self.task.protocol.label_for(self.task.protocol.base)
        how = f"{protocol}.{self.task.head_prefix}seed{self.task.seed}.order{self.order}"
        clock = ".start0" if self.info.rewind_samples != 0 and self.task.protocol.start == "0" else ""
        # Earlier versions drew one random subnetwork for all replicates of a search.
        control = self.task.control if self.task.control == "ticket" else f"{self.task.control}-replicate"
        return f"{self.info.hash}.{control}.{how}.{self.numerics.replace(' ', '-')}{clock}"

    @property
    def endpoint_file(self) -> Path:
        """Where its endpoint is kept."""
        return self.task.run / "endpoints" / f"{self.name}.safetensors"

    @property
    def files(self) -> tuple[Path, ...]:
        """See the base class."""
        return (self.endpoint_file,)

    @property
    def group(self) -> tuple[str, str]:
        """See the base class."""
        return self.task.protocol.name, self.task.control

    @property
    def workload(self) -> Workload:
        """See the base class."""
        return protocol_workload(self.task, self.info, self.numerics, self.stop - self.start, self.measured)

    def run(self, files: Sequence[Path], context: EndpointStore) -> list[Row]:
        """Trains the network to the end, and keeps its endpoint.

        Raises:
            Diverged: If a loss is not finite.
        """
        task, run = self.task, context.eval_run(self)
        net = run.build_net()
        load_subnetwork(task).apply(net.backbone, net.heads if task.head == "own" else None)
        what = f"{task.path.stem} {task.control} {task.protocol.name} seed {task.seed} order {self.order}"
        context.progress.start_task(what, self.stop)
        measured = context.evaluator.train_and_measure(net, run)
        if context.engine.is_main_process:
            tensorfile.write_tensor_file(self.endpoint_file, "endpoint", measured, pruned_model.read_state(net))
        return []

    def clean_up(self, context: EndpointStore) -> None:
        """See the base class."""
        delete_snapshots(self.task.run, self._watched_name)

    @property
    def _watched_name(self) -> str:
        return f"endpoint.{self.name}"


@dataclass(frozen=True, eq=False)
class AnalysisTarget:
    """A ticket, or a random subnetwork in its place, under a protocol with a seed.

    Attributes:
        task: Which one.
        ticket_info: The ticket.
        training: Its training, in the first order.
        dense_training: That of the dense network, from the same W_k in the same order; None where it is not needed.
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
    """The rows that an analysis of these tickets has, see `evaluation.tasks.make_tasks`.

    A random subnetwork of an analysis has the ticket's W_k, so its classification layer too.
    """
    return make_tasks(paths, controls, protocols, seeds, heads, part, both_heads=False, own_weights=True)


def find_targets(
    tasks: Sequence[EvalTask], split_cache: SplitCache, numerics: Numerics, *, dense: bool
) -> list[AnalysisTarget]:
    """What tasks are about; of their tickets one or two are in memory at a time.

    Args:
        tasks: Tasks whose control is "ticket" or "local".
        split_cache: Images of the protocols.
        numerics: How the trainings compute.
        dense: Whether the dense network is trained beside each.

    Raises:
        BadInput: If a ticket is damaged, does not fit the images, is rewound to beyond the end of a protocol that
            starts there, or has no dense network of the same W_k beside it where one is needed; for an unknown
            control; or if data is missing.
    """
    for task in tasks:
        if task.control not in ("ticket", LOCAL_CONTROL):
            raise unknown_name("control of an analysis", task.control, [LOCAL_CONTROL])
    runs = dict.fromkeys(task.run for task in tasks)
    protocols = {run: {task.protocol.name: task.protocol for task in tasks if task.run == run} for run in runs}
    paths = dict.fromkeys(task.path for task in tasks)
    infos = {path: TicketInfo.read(path, protocols[run_folder_of(path)]) for path in paths}
    for path in dict.fromkeys(task.path for task in tasks if dense or task.control == LOCAL_CONTROL):
        if infos[path].survivors < infos[path].prunable:
            beside = find_dense_ticket(path)
            if beside not in infos:
                infos[beside] = TicketInfo.read(beside, protocols[run_folder_of(path)])
    return targets_of(tasks, infos, split_cache, numerics, dense=dense)


def targets_of(
    tasks: Sequence[EvalTask],
    infos: Mapping[Path, TicketInfo],
    split_cache: SplitCache,
    numerics: Numerics,
    *,
    dense: bool,
) -> list[AnalysisTarget]:
    """What tasks are about, of tickets that are there or that a plan knows of; see `find_targets`.

    Args:
        tasks: Tasks whose control is "ticket" or "local".
        infos: What is known of their tickets, and of the dense ones beside them where these are needed.
        split_cache: Images of the protocols.
        numerics: How the trainings compute.
        dense: Whether the dense network is trained beside each.

    Raises:
        BadInput: If a ticket is rewound to beyond the end of a protocol that starts there.
    """

    def final_training(task: EvalTask) -> FinalTraining:
        info = infos[task.path]
        splits = split_cache.get(task.protocol, info.channels)
        try:
            start, stop = task.protocol.steps(info.model, info.rewind_samples, len(splits.training.manifest))
        except BadInput as error:
            raise BadInput(f"{task.path}: {error}") from error
        ghost_batch, steady = task.protocol.training_for(info.model).ghost_batch, Supervised.cuda_graph_safe
        computes = numerics.for_training(
            stop - start,
            size=info.parameters,
            steady=steady,
            ghost_batch=ghost_batch,
            files=splits.training.images is None,
        )
        return FinalTraining(
            task=task,
            info=info,
            order=0,
            numerics=str(computes),
            start=start,
            stop=stop,
            measured=len(splits.evaluation.manifest),
        )

    targets = []
    for task in tasks:
        info, of_ticket = infos[task.path], replace(task, control="ticket")
        is_dense = info.survivors == info.prunable
        # A mask of ones has no random one beside it.
        training = final_training(of_ticket if is_dense else task)
        dense_file = task.path if is_dense else task.path.with_name(DENSE_FILE)
        beside_it = final_training(replace(of_ticket, path=dense_file)) if dense else None
        targets.append(AnalysisTarget(task, info, training, beside_it))
    return targets


def load_subnetwork(task: EvalTask) -> Ticket:
    """The sparse network that a task is about: a ticket file's, or the random one in its place.

    The random one's mask has the ticket's survivors in every layer, at positions that the seed draws, and its weights
    are the dense network's at W_k, the same that the ticket has (Stabilizing the Lottery Ticket Hypothesis, section 2:
    "a random mask m of a given size with the same layer-wise proportions"), as is its classification layer. Replicates
    of a search have random subnetworks of their own.
    """
    ticket = Ticket.load(task.path)
    if task.control == "ticket":
        return ticket
    dense = Ticket.load(task.path.with_name(DENSE_FILE))
    seeds = replicate_seeds(evaluation_seeds(task.seed), search_number(ticket.provenance))
    local = get_control(LOCAL_CONTROL)
    return make_control(ticket, local, initial=dense.weights, seed=control_mask_seed(seeds), head=ticket.head)
