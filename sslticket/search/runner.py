"""What runs a search: it reaches W_k, trains, scores weights and saves tickets; what the run folder has is kept."""

import time
from collections.abc import Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from sslticket.config.training import Clock
from sslticket.data.unreadable import unreadable_fields
from sslticket.errors import BadInput
from sslticket.pruning import pruned_model
from sslticket.pruning.criteria import Criterion, Scores
from sslticket.pruning.effective_sparsity import EffectivePaths
from sslticket.pruning.mask import Mask, StateDict
from sslticket.pruning.prunable import magnitude_statistics
from sslticket.results.rows import MagnitudesRow, TicketRow
from sslticket.search.base import DynamicMask, EarlyBird, SearchCost, search_of
from sslticket.search.plan import SearchPlan
from sslticket.search.scoring import Monitor, Scorer
from sslticket.seeds import derive_seed
from sslticket.storage.files import write_row
from sslticket.ticket import Ticket
from sslticket.training import checkpoint
from sslticket.training.engine import Engine
from sslticket.training.loop import TrainingLoop
from sslticket.training.network import MaskedNetwork, sync_buffers
from sslticket.training.progress import Progress
from sslticket.training.snapshots import delete_snapshots, resumable
from sslticket.training.trial import Kernels, changing_mask, computing_with

_NO_TRAINING: dict[str, Any] = {
    "loss": None,
    "seconds": 0.0,
    "steps": 0,
    "samples": 0,
    "forward_images": 0,
    "backward_images": 0,
    "saved_samples": 0,
    "metrics": {},
    "probe": {},
}
"""What a ticket's row says where nothing was trained for it."""


class SearchRunner:
    """Trains one network, level after level, and saves its tickets in a run folder; see the protocol `Runner`.

    Attributes:
        network: The network that is trained.
        cost: What the search has cost up to now, or up to the ticket that was loaded last.
        measured: What the row of the last ticket says of its training; empty where the ticket was there.
        unreadable_images: Images that could not be read, with reasons.
    """

    def __init__(
        self,
        plan: SearchPlan,
        engine: Engine,
        network: MaskedNetwork,
        wrapped: nn.Module,
        monitor: Monitor,
        progress: Progress,
    ) -> None:
        """Takes over what was built for the plan.

        Args:
            plan: The search.
            engine: The engine of this process.
            network: The plan's network.
            wrapped: The same in the wrappers of `Engine.prepare`.
            monitor: What measures the network meanwhile.
            progress: The bar, which also prints notes.
        """
        self._plan, self._engine, self.network, self._wrapped = plan, engine, network, wrapped
        self._run_dir, self._monitor, self._progress = plan.run_dir, monitor, progress
        numerics = str(engine.numerics_for(network, plan.total_steps, plan.recipe.training, plan.images.source))
        self._computing = self._computed = {"device": engine.device_name, "numerics": numerics}
        self._scorer = Scorer(plan, engine, network, progress)
        self._step = 0
        self._since_last, self.measured = dict(_NO_TRAINING), dict[str, Any]()
        self.cost = SearchCost()
        self.unreadable_images: dict[str, str] = dict(plan.images.source.unreadable)

    @property
    def clock(self) -> Clock:
        """See the protocol."""
        return self._plan.clock

    def derive_seed(self, *path: str | int) -> int:
        """See the protocol."""
        return derive_seed(self._plan.recipe.seed, "search", *path)

    def note(self, text: str) -> None:
        """See the protocol."""
        self._progress.note(text)

    def dense_mask(self) -> Mask:
        """See the protocol."""
        backbone = self.network.backbone
        return Mask.ones_like(
            pruned_model.stored_state(backbone), search_of(self._plan.recipe).prunable_layers(backbone)
        )

    def reach_rewind_point(self) -> None:
        """See the protocol; W_0 is kept too, for the control `reset`: on another machine no seed brings it back."""
        # The ticket of level 0 is written after the checkpoint, so where it is, the checkpoint is too.
        if self._engine.broadcast(self._run_dir.ticket_path(0).exists()):
            return
        if self._engine.is_main_process and not self._run_dir.initial_path.exists():
            backbone = pruned_model.read_state(self.network.backbone)
            self._make_ticket(0, self.dense_mask(), backbone, "initial", {}).save(self._run_dir.initial_path)
        loop, rewind = self._make_loop(level=0), self._plan.stages.rewind
        self._train(loop, 0, rewind, level=0, finds=0)
        if self._engine.is_main_process:
            self._run_dir.check_still_locked()
            checkpoint.save_checkpoint(self._run_dir.rewind_path, loop, rewind, self._engine.accelerator)
        self._engine.wait_for_file(self._run_dir.rewind_path)

    def load_ticket(self, level: int) -> Ticket | None:
        """See the protocol."""
        path = self._run_dir.ticket_path(level)
        # One process decides: another might not see yet, or see already, what a third has just written.
        if not self._engine.broadcast(path.exists()):
            return None
        ticket = Ticket.load(path)
        if set(ticket.mask) != set(search_of(self._plan.recipe).prunable_layers(self.network.backbone)):
            raise BadInput(f"{path} has a mask of other layers than this version prunes; give another --out")
        self.cost = SearchCost.of_ticket(ticket)
        if self._engine.is_main_process:
            self.unreadable_images |= self._run_dir.unreadable_images(level)
            self._remove_continuations(level)  # a process that was killed may have left them
        return ticket

    def train(
        self,
        ticket: Ticket,
        *,
        continued: bool = False,
        start: int | None = None,
        at_last_lr: bool = False,
        early_bird: EarlyBird | None = None,
        dynamic: DynamicMask | None = None,
    ) -> StateDict:
        """See the protocol.

        Every ticket but the dense network starts with a fresh optimiser, and with data in a new order. Masks that are
        learned go on from what `save_for_next_level` kept, and close what that had pruned for good, not what the ticket
        lacks.

        Raises:
            BadInput: If what was kept for this level is gone.
        """
        network, level = self.network, ticket.level
        loop = self._make_loop(level, at_last_lr and level > 0)
        start = self._plan.stages.rewind if start is None else start
        kept = self._run_dir.continuation_path(level)
        if level == 0:
            reached = checkpoint.restore_checkpoint(self._run_dir.rewind_path, loop, self._engine.accelerator)
            assert start == reached, "the dense network goes on where it was"
        else:
            path = self._wait_for_checkpoint(kept if continued else self._run_dir.rewind_path, level)
            pruned_model.write_state(network, checkpoint.load_network(path))
            loop.mask_start = start
        if network.mask_learning is None:
            pruned_model.set_mask_everywhere(network, ticket.mask if dynamic is None else dynamic.start)
        else:
            if level:
                scores = checkpoint.load_gate_scores(self._wait_for_checkpoint(kept, level))
                pruned_model.write_gate_scores(network, scores)
            pruned_model.set_mask_everywhere(network, pruned_model.current_mask(network.backbone))
        stop = self._plan.clock.total_steps
        self._train(loop, start, stop, level=level, finds=level + 1, early_bird=early_bird, dynamic=dynamic)
        # A mask that is still learned is measured as it stands at the end.
        learned = {name: gate.hard_mask() for name, gate in pruned_model.learned_gates(network.backbone).items()}
        density = (
            Mask({name: layer.cpu() for name, layer in learned.items()}).density
            if learned
            else (ticket.mask if dynamic is None else dynamic.start).density
        )
        self._since_last |= {"trained_level": level, "trained_density": density}
        weights = pruned_model.read_state(network.backbone)
        dense = level == 0 and network.mask_learning is None and dynamic is None
        if dense and self._engine.is_main_process:
            recipe = self._plan.recipe
            row = MagnitudesRow(
                **self._row_fields(ticket),
                **magnitude_statistics(weights, list(ticket.mask)),
                protocol="search",
                start="0",
                target=recipe.data.name,
                seed=recipe.seed,
            )
            write_row(self._run_dir.magnitudes_path, row.to_dict())
        return weights

    def rewind(self) -> None:
        """See the protocol."""
        pruned_model.write_state(self.network, checkpoint.load_network(self._run_dir.rewind_path))
        self._step, self._computed = self._plan.stages.rewind, self._computing

    def scores(self, criterion: Criterion, mask: Mask) -> Scores:
        """See the protocol.

        Raises:
            BadInput: If the scores rank no weights.
        """
        began, samples, earlier = time.monotonic(), self._scorer.num_samples(criterion), self._scorer.forward_images
        scores = self._scorer.scores(criterion, mask, self._step)
        self.unreadable_images |= self._scorer.unreadable_images
        forward = self._scorer.forward_images - earlier
        self.cost = self.cost.plus(samples, forward)
        self._since_last["samples"] += samples
        self._since_last["forward_images"] += forward
        self._since_last["seconds"] = round(self._since_last["seconds"] + time.monotonic() - began, 3)
        return scores

    def save_for_next_level(self, level: int) -> None:
        """See the protocol: where the ticket is, its network is too; it goes when the next ticket is there."""
        if self._engine.is_main_process:
            self._run_dir.check_still_locked()
            checkpoint.save_network(self._run_dir.continuation_path(level), self.network)
        self._engine.wait_for_file(self._run_dir.continuation_path(level))

    def save_ticket(
        self, level: int, mask: Mask, weights: StateDict | None = None, *, details: dict[str, Any] | None = None
    ) -> Ticket:
        """See the protocol; the row is written first, so none is ever missing."""
        self.measured, self._since_last = self._since_last | (details or {}), dict(_NO_TRAINING)
        path = self._run_dir.ticket_path(level)
        if self._engine.is_main_process:
            ticket = self._make_ticket(level, mask, weights, "early" if weights is None else "trained", details or {})
            samples = self.cost.samples
            row = TicketRow(
                **self._row_fields(ticket),
                **self.measured,
                **unreadable_fields(self.unreadable_images),
                effective_density=self._effective_paths.effective_mask(mask).survivors / mask.total,
                search_samples=samples,
                search_forward_images=self.cost.forward_images,
                search_epochs=samples / self._plan.clock.set_size,
                layers={name: list(count) for name, count in mask.layer_counts().items()},
            )
            self._run_dir.check_still_locked()
            self._run_dir.save_unreadable_images(level, self.unreadable_images)
            values, row_path = row.to_dict(), self._run_dir.row_path(level)
            write_row(row_path, values)
            ticket.save(path)
            self._remove_continuations(level)
            name = _training_name(level)
            self._engine.log_rows(self._progress, self._run_dir.path, name, {row_path: values}, path)
        self._engine.wait_for_file(path)
        return Ticket.load(path)

    def forget_measurements(self) -> None:
        """See the protocol."""
        self._since_last = dict(_NO_TRAINING)

    def forget_snapshots(self) -> None:
        """Deletes the snapshots of trainings: all tickets are there."""
        if self._engine.is_main_process:
            delete_snapshots(self._run_dir.path, _training_name())

    def _make_ticket(
        self, level: int, mask: Mask, weights: StateDict | None, kind: str, details: dict[str, Any]
    ) -> Ticket:
        """A ticket with these weights of the backbone, or with W_k, and with the layer that classifies, if any."""
        classifier, head, early = self.network.classifier, StateDict(), StateDict()
        cost, rewind = (SearchCost(), 0) if kind == "initial" else (self.cost, self._plan.stages.rewind)
        provenance = self._plan.provenance(kind, cost, self._computed["numerics"], rewind) | details
        if kind != "initial":
            early = checkpoint.load_network(self._run_dir.rewind_path)
            # In one order whatever they are: the mask of a random ticket is drawn over the layers as they come.
            names = [name.removeprefix("backbone.") for name in early if name.startswith("backbone.")]
            weights = {name: early[f"backbone.{name}"] if weights is None else weights[name] for name in names}
        if classifier is not None:
            path = next(path for path, module in self.network.named_modules() if module is classifier)
            whole = early if kind == "early" else pruned_model.read_state(self.network)
            head = {name: whole[f"{path}.{name}"] for name in pruned_model.stored_state(classifier)}
        masks = {name: gate.hard_mask().cpu() for name, gate in self.network.head_gates.items()}
        if level and head and masks:
            head |= {name: head[name] * layer for name, layer in masks.items()}
            provenance["head_kept"] = sum(int(layer.sum()) for layer in masks.values())
            provenance["head_total"] = sum(layer.numel() for layer in masks.values())
        recipe = self._plan.recipe.to_dict()
        assert weights is not None, "the weights are given or those of W_k"
        return Ticket.from_dense_weights(mask, weights, level=level, recipe=recipe, provenance=provenance, head=head)

    def _row_fields(self, ticket: Ticket) -> dict[str, Any]:
        return self._plan.row_fields(ticket) | self._computed

    def _make_loop(self, level: int, at_last_lr: bool = False) -> TrainingLoop:
        """A training of a level, with a fresh optimiser and images in an order of its own."""
        recipe, images = self._plan.recipe, self._plan.images
        training, seeds = recipe.training, recipe.seeds
        set_size = images.epoch_samples(training.batch_size)
        self._loader = self._engine.make_loader(
            images.source,
            images.views,
            batch_size=training.batch_size,
            order=derive_seed(seeds.order, level),
            augment=derive_seed(seeds.augment, level),
            labelled=images.labelled,
        )
        return self._engine.make_loop(
            self.network,
            self._wrapped,
            self._loader,
            training.at_last_lr(set_size) if at_last_lr else training,
            set_size=set_size,
            seed=derive_seed(seeds.augment, level),
            progress=self._progress,
        )

    def _train(
        self,
        loop: TrainingLoop,
        start: int,
        stop: int,
        *,
        level: int,
        finds: int,
        early_bird: EarlyBird | None = None,
        dynamic: DynamicMask | None = None,
    ) -> None:
        """Trains from one step to another, or until the mask has converged, and notes what the next row says of it."""
        plan, progress, monitor = self._plan, self._progress, self._monitor
        probes = monitor.probe_steps(start, stop)
        checks = early_bird.check_steps(plan.clock, start, stop) if early_bird else []
        name = _training_name(finds)
        # The first file is of the dense network, whatever is trained then.
        tried = level if dynamic is None else finds
        kernels = self._kernels_of(tried) if start < stop else self._engine.kernels
        loop.rewiring, loop.plain_kernels = dynamic, partial(changing_mask, kernels, self.network)
        beside = _Beside(self, loop, early_bird, dynamic)
        about = {"level": finds} | ({} if (density := plan.trained_density(level)) is None else {"density": density})
        progress.start_task(f"level {level + 1}/{plan.levels}", plan.clock.total_steps, about)
        if self._engine.is_main_process:
            delete_snapshots(self._run_dir.path, _training_name(), but=name)
        with (
            progress.log_to(*self._engine.trackers(self._run_dir.path, name, about, progress.note)),
            computing_with(kernels, self.network),
        ):
            with resumable(
                self._engine,
                loop,
                progress,
                run=self._run_dir.path,
                name=name,
                about=self._describe_training(level, start, stop),
                start=start,
                computed=self._computing | {"kernels": str(kernels)},
                companion=beside,
            ) as training:
                cuts = sorted({*probes, *checks, stop})
                for reached in cuts if training.resumed_at is None else [cut for cut in cuts if cut > training.step]:
                    if training.ended:
                        break
                    training.run_to(reached)
                    self._step, training.ended = reached, reached == stop
                    if early_bird and reached in checks:
                        with training.timed():  # one process decides for all
                            training.ended = self._engine.broadcast(early_bird.has_converged())
                    if monitor.probe_interval is not None and (training.ended or reached in probes):
                        beside.probed[reached] = round(monitor.probe(), 6)
                        progress.log_probe(beside.probed[reached])
                training.finish()
            self._step = reached = training.step
            sync_buffers(self.network)  # what is kept from here on is the first process's
            metrics = monitor.metrics()
            progress.log_metrics(metrics)
        self.unreadable_images |= training.unreadable_images()
        self._computed = training.computed
        if reached < stop:
            progress.set_remaining(plan.cumulative_samples(plan.levels) - plan.cumulative_samples(finds))
        batch_size = plan.recipe.training.batch_size
        samples = (reached - start) * batch_size
        self.cost = self.cost.plus(samples, loop.forward_images)
        self._since_last = {
            "loss": loop.loss if stop > start else None,  # W_k may be the initialisation itself
            "seconds": round(training.seconds, 3),
            "steps": reached - start,
            # What an early bird's scores saw is counted already.
            "samples": samples + self._since_last["samples"],
            "forward_images": loop.forward_images + self._since_last["forward_images"],
            "backward_images": loop.backward_images,
            "saved_samples": (stop - reached) * batch_size,
            "metrics": metrics,
            "probe": beside.probed,
        }

    def _kernels_of(self, level: int) -> Kernels:
        """By which kernels a level's network computes; decided before its first step, and once."""
        plan = self._plan
        return self._engine.choose_kernels(
            plan.run_dir.kernels_path(level),
            self.network,
            plan.build_network,
            lambda: self._loader,
            plan.recipe.training,
            plan.clock.total_steps,
            earlier=self._engine.kernels,
        )

    def _describe_training(self, level: int, start: int, stop: int) -> dict[str, object]:
        """What decides where a training ends, beside the network that it starts from."""
        recipe, images = self._plan.recipe, self._plan.images.source.manifest
        return {"recipe": recipe.key, "set of images": images.hash, "level": level, "length": f"{start}-{stop}"}

    def _wait_for_checkpoint(self, path: Path, level: int) -> Path:
        if not self._engine.broadcast(path.exists()):
            raise BadInput(
                f"{path}, from which level {level} is trained on, is gone; delete the tickets of level 1 and beyond "
                "and run the same command again"
            )
        self._engine.wait_for_file(path)
        return path

    def _remove_continuations(self, level: int) -> None:
        """Deletes the networks from which levels before this one were trained: its ticket is there."""
        for earlier in range(level):
            self._run_dir.continuation_path(earlier).unlink(missing_ok=True)

    @cached_property
    def _effective_paths(self) -> EffectivePaths:
        images = self._plan.images
        channels, size = images.source.dataset.channels, images.views[0].size
        return EffectivePaths.trace(self.network.backbone, channels=channels, image_size=size)


def _training_name(finds: int | None = None) -> str:
    """The name of the training that finds a level's ticket; of all of them with a star."""
    return "search.level-*" if finds is None else f"search.level-{finds:02d}"


_DYNAMIC = "dynamic"  # before the names of layers, in snapshots of a mask that changes


class _Beside:
    """What a runner keeps beside a training: probes, what an early bird compares, a mask that changes, and costs.

    Attributes:
        probed: The probe's accuracies by step.
    """

    def __init__(
        self, runner: SearchRunner, loop: TrainingLoop, early_bird: EarlyBird | None, dynamic: DynamicMask | None
    ) -> None:
        self.probed: dict[int, float] = {}
        self._runner, self._loop, self._early_bird, self._dynamic = runner, loop, early_bird, dynamic

    def snapshot_state(self) -> tuple[dict[str, Any], StateDict]:
        """See `Companion`."""
        runner, masks = self._runner, [] if self._early_bird is None else self._early_bird.earlier_masks
        values: dict[str, Any] = {
            "probe": {str(step): value for step, value in self.probed.items()},
            "since_last": runner._since_last,
            "cost": list(runner.cost),
            "unreadable": runner.unreadable_images,
        }
        tensors = {f"{n:03d}/{name}": layer for n, mask in enumerate(masks) for name, layer in mask.items()}
        if self._dynamic is not None:
            values["left_out"] = self._dynamic.left_out
            mask = pruned_model.current_mask(runner.network.backbone)
            tensors |= {f"{_DYNAMIC}/{name}": layer for name, layer in mask.items()}
        return values, tensors

    def restore_state(self, values: Mapping[str, Any], tensors: StateDict) -> None:
        """See `Companion`."""
        runner = self._runner
        self.probed |= {int(step): value for step, value in values["probe"].items()}
        runner._since_last, runner.cost = dict(values["since_last"]), SearchCost(*values["cost"])
        runner.unreadable_images |= values["unreadable"]
        if self._dynamic is not None:
            self._dynamic.left_out = values["left_out"]
            mask = Mask({name.removeprefix(f"{_DYNAMIC}/"): layer for name, layer in tensors.items()})
            with self._loop.plain_kernels():
                pruned_model.set_mask_everywhere(runner.network, mask)
        if self._early_bird is not None:
            masks: dict[str, dict[str, Tensor]] = {}
            for name, layer in tensors.items():
                number, _, weight = name.partition("/")
                masks.setdefault(number, {})[weight] = layer
            self._early_bird.earlier_masks.extend(Mask(masks[number]) for number in sorted(masks))
