"""What runs a search: it reaches W_k, trains, scores weights and saves tickets; what the run folder has is not done again."""

import time
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from sslticket.errors import BadInput
from sslticket.pruning import pruned_model
from sslticket.pruning.criteria import Criterion, Scores
from sslticket.pruning.effective_sparsity import EffectivePaths
from sslticket.pruning.mask import Mask, StateDict
from sslticket.search import record
from sslticket.search.base import search_of
from sslticket.search.early_bird import EarlyBird
from sslticket.search.monitor import Monitor
from sslticket.search.plan import SearchPlan
from sslticket.search.scoring import Scorer
from sslticket.seeds import derive_seed
from sslticket.storage.files import read_json, write_row
from sslticket.ticket import Ticket
from sslticket.training import checkpoint
from sslticket.training.engine import Engine
from sslticket.training.loop import TrainingLoop
from sslticket.training.metrics import sync_buffers
from sslticket.training.network import MaskedNetwork
from sslticket.training.progress import Progress


class LevelTrainer:
    """Trains one net, level after level.

    Attributes:
        step: of its training, that the net has reached.
        unreadable_images: that could not be read, with reasons.
    """

    def __init__(
        self,
        plan: SearchPlan,
        bench: Engine,
        net: MaskedNetwork,
        wrapped: nn.Module,
        watch: Monitor,
        progress: Progress,
    ) -> None:
        self._plan, self._bench, self._net, self._wrapped = plan, bench, net, wrapped
        self._watch, self._progress = watch, progress
        self.step = 0
        self.unreadable_images: dict[str, str] = {}

    def make_loop(self, level: int, finetune: bool = False) -> TrainingLoop:
        """A training of a level, with a fresh optimiser and images in an order of its own.

        Args:
            level: of the ticket that is trained.
            finetune: at the last rate of the schedule.
        """
        recipe, images = self._plan.recipe, self._plan.images
        set_size = images.epoch_samples(recipe.training.batch_size)
        seeds = recipe.seeds
        self._batches = self._bench.make_loader(
            images.source,
            images.views,
            batch_size=recipe.training.batch_size,
            order=derive_seed(seeds.order, level),
            augment=derive_seed(seeds.augment, level),
            labelled=images.labelled,
        )
        return self._bench.make_loop(
            self._net,
            self._wrapped,
            self._batches,
            recipe.training.at_last_lr(set_size) if finetune else recipe.training,
            set_size=set_size,
            seed=derive_seed(seeds.augment, level),
            progress=self._progress,
        )

    def run(
        self, loop: TrainingLoop, start: int, stop: int, *, level: int, finds: int, settling: EarlyBird | None = None
    ) -> dict[str, Any]:
        """Train from one step to another, or until the mask has settled; returns what a row tells of it.

        Args:
            loop: that `loop` has made.
            start: the first step.
            stop: the step after the last.
            level: of the ticket that is trained.
            finds: the level of the ticket that this finds.
            settling: ends the training early.
        """
        self._progress.start_task(f"level {level + 1}/{self._plan.levels}", self._plan.clock.total_steps)
        with self._progress.log_to(*self._bench.trackers(self._plan.run_dir.path, f"search.level-{finds:02d}")):
            reached, seconds, probed = self._train(loop, start, stop, settling)
            sync_buffers(self._net)  # what is kept from here on is the first process's
            metrics = self._watch.metrics()
            self._progress.log_metrics(metrics)
        self.unreadable_images |= self._bench.unreadable_images(self._batches)
        if reached < stop:
            self._progress.set_remaining(
                self._plan.cumulative_samples(self._plan.levels) - self._plan.cumulative_samples(finds)
            )
        batch_size = self._plan.recipe.training.batch_size
        return {
            "loss": loop.loss if stop > start else None,  # W_k may be the initialisation itself
            "seconds": round(seconds, 3),
            "steps": reached - start,
            "samples": (reached - start) * batch_size,
            "forward_images": loop.forward_images,
            "backward_images": loop.backward_images,
            "saved_samples": (stop - reached) * batch_size,
            "metrics": metrics,
            "probe": probed,
        }

    def _train(
        self, loop: TrainingLoop, start: int, stop: int, settling: EarlyBird | None
    ) -> tuple[int, float, dict[int, float]]:
        """Train until the end or until the mask has settled; the step reached, seconds, and what the probe saw."""
        probes = self._watch.probe_steps(start, stop)
        looks = settling.check_steps(self._plan.clock, start, stop) if settling else []
        seconds, probed = 0.0, {}
        for first, last in pairwise([start, *sorted({*probes, *looks}), stop]):
            began = time.monotonic()
            loop.run(first, last)
            self.step = last
            ended = last == stop
            if settling and last in looks:
                ended = self._bench.broadcast(
                    settling.has_converged()
                )  # one process decides for all: they must not part
            seconds += time.monotonic() - began
            if self._watch.probe_interval is not None and (ended or last in probes):
                probed[last] = round(self._watch.probe(), 6)
                self._progress.log_probe(probed[last])
            if ended:
                break
        return last, seconds, probed


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
    """The means of one search: a net, its images, and the folder where tickets are kept.

    Attributes:
        cost: what the search has cost up to now, or up to the ticket that it found last.
        unreadable_images: that could not be read, with reasons.
    """

    def __init__(
        self,
        plan: SearchPlan,
        bench: Engine,
        net: MaskedNetwork,
        wrapped: nn.Module,
        watch: Monitor,
        progress: Progress,
    ) -> None:
        self._plan, self._bench, self._net = plan, bench, net
        self._recipe, self._stages, self._folder = plan.recipe, plan.stages, plan.run_dir
        self._progress, self._numerics = progress, str(bench.numerics_for(net, plan.total_steps, plan.recipe.training))
        self._trainings = LevelTrainer(plan, bench, net, wrapped, watch, progress)
        self._scoring = Scorer(plan, bench, net, progress)
        self._measured, self._shown = dict(_NO_TRAINING), dict[str, Any]()  # since the last ticket was kept; until then
        self.cost = record.SearchCost()
        self.unreadable_images: dict[str, str] = dict(plan.images.source.unreadable)

    @property
    def network(self) -> MaskedNetwork:
        """What is trained."""
        return self._net

    def derive_seed(self, *path: str | int) -> int:
        """Of something that the search draws for itself."""
        return derive_seed(self._recipe.seed, "search", *path)

    def note(self, text: str) -> None:
        """Say something to who looks on."""
        self._progress.note(text)

    def dense_mask(self) -> Mask:
        """The mask of ones."""
        return Mask.ones_like(
            pruned_model.stored_state(self._net.backbone), search_of(self._recipe).prunable_layers(self._net.backbone)
        )

    def weights(self) -> StateDict:
        """The backbone's weights as they are now."""
        return pruned_model.read_state(self._net.backbone)

    def load_ticket(self, level: int) -> Ticket | None:
        """The ticket of a level that is finished."""
        path = self._folder.ticket_path(level)
        # One process looks: another might not see yet, or see already, what a third has just written.
        if not self._bench.broadcast(path.exists()):
            return None
        ticket = Ticket.load(path)
        if set(ticket.mask) != set(search_of(self._recipe).prunable_layers(self._net.backbone)):
            raise BadInput(f"{path} has a mask of other layers than this version prunes; give another --out")
        self.cost = record.SearchCost.of_ticket(ticket)
        if self._bench.is_main_process:
            self.unreadable_images |= self._folder.unreadable_images(level)
            self._remove_continuations(level)  # which a process that was killed had not come to
        return ticket

    def reach_rewind_point(self) -> None:
        """Train the dense net from its initialisation to step k and keep everything at that point."""
        # The ticket of level 0 is written after the snapshot, so where it is, the snapshot is too.
        if self._bench.broadcast(self._folder.ticket_path(0).exists()):
            return
        self._save_initial()
        loop = self._trainings.make_loop(level=0)
        self._train_steps(loop, 0, self._stages.rewind, level=0, finds=0)
        if self._bench.is_main_process:
            checkpoint.save_checkpoint(self._folder.rewind_path, loop, self._stages.rewind, self._bench.accelerator)
        self._bench.wait_for_file(self._folder.rewind_path)

    def _save_initial(self) -> None:
        """Keep W_0 for the control `reset`; on another machine or under another torch no seed brings it back."""
        if self._bench.is_main_process and not self._folder.initial_path.exists():
            provenance = record.ticket_provenance(
                self._plan, weights="initial", spent=record.SearchCost(), numerics=self._numerics, rewind=0
            )
            Ticket.from_dense_weights(
                self.dense_mask(),
                self.weights(),
                level=0,
                recipe=self._recipe.to_dict(),
                provenance=provenance,
                head=self._classifier_state(),
            ).save(self._folder.initial_path)

    def _classifier_state(self, state: StateDict | None = None) -> StateDict:
        """The layer that tells classes, as it stands or in a snapshot of the whole net; empty where there is none."""
        layer = self._net.classifier
        if layer is None:
            return {}
        path = next(path for path, module in self._net.named_modules() if module is layer)
        whole = pruned_model.read_state(self._net) if state is None else state
        return {name: whole[f"{path}.{name}"] for name in pruned_model.stored_state(layer)}

    def _classifier_mask(self) -> dict[str, Tensor]:
        """What a search keeps of a classification layer that it masks too; empty where it does not."""
        return {name: one.hard_mask().cpu() for name, one in self._net.head_gates.items()}

    def train(
        self,
        ticket: Ticket,
        *,
        carried: bool = False,
        start: int | None = None,
        finetune: bool = False,
        settling: EarlyBird | None = None,
    ) -> StateDict:
        """Train a ticket to the end; returns the backbone's weights there.

        The dense network goes on where it was at step k, optimiser and all; every later ticket starts with a fresh
        optimiser, and with data in a new order. Masks that are learnt go on from what `carry` kept for the level, and
        close what that had pruned for good, not what the ticket lacks.

        Args:
            ticket: of the level that is trained.
            carried: from the net that `carry` kept for this level, in place of W_k.
            start: the step at which training begins; None for k.
            finetune: a ticket that was carried is trained at the last rate of the schedule.
            settling: ends the training early.

        Raises:
            BadInput: if what was kept for this level is gone.
        """
        loop = self._trainings.make_loop(ticket.level, finetune and ticket.level > 0)
        start = self._stages.rewind if start is None else start
        if ticket.level == 0:
            there = checkpoint.restore_checkpoint(self._folder.rewind_path, loop, self._bench.accelerator)
            assert start == there, "the dense network goes on where it was"
        else:
            kept = self._folder.continuation_path(ticket.level) if carried else self._folder.rewind_path
            pruned_model.write_state(self._net, checkpoint.load_network(self._wait_for_checkpoint(kept, ticket.level)))
            loop.mask_start = start
        closed = ticket.mask
        if self._net.mask_learning is not None:
            if ticket.level:
                kept = self._wait_for_checkpoint(self._folder.continuation_path(ticket.level), ticket.level)
                pruned_model.write_gate_scores(self._net, checkpoint.load_gate_scores(kept))
            closed = pruned_model.current_mask(self._net.backbone)
        pruned_model.set_mask_everywhere(self._net, closed)
        self._train_steps(
            loop, start, self._plan.clock.total_steps, level=ticket.level, finds=ticket.level + 1, settling=settling
        )
        self._measured |= {"trained_level": ticket.level, "trained_density": self._measured_density(ticket)}
        if ticket.level == 0 and self._net.mask_learning is None and self._bench.is_main_process:
            where = {"device": self._bench.device_name, "numerics": self._numerics}
            row = record.magnitudes_row(self._plan, ticket, self.weights(), **where)
            write_row(self._folder.magnitudes_path, row)
        return self.weights()

    def _measured_density(self, ticket: Ticket) -> float:
        """Of the network that metrics are of: a mask that is still learnt is measured as it stands at the end."""
        found = pruned_model.learned_gates(self._net.backbone)
        if not found:
            return ticket.mask.density
        return Mask({name: one.hard_mask().cpu() for name, one in found.items()}).density

    def forget_measurements(self) -> None:
        """What was done since the last ticket is what the row of an earlier one tells; the next does not tell it."""
        self._measured = dict(_NO_TRAINING)

    def rewind(self) -> None:
        """Bring the net, heads included, to W_k."""
        pruned_model.write_state(self._net, checkpoint.load_network(self._folder.rewind_path))
        self._trainings.step = self._stages.rewind

    def scores(self, criterion: Criterion, mask: Mask) -> Scores:
        """What a criterion says of the net's weights as they stand, under a mask; the net stays as it is.

        Raises:
            BadInput: if the scores rank no weights.
        """
        began, samples, forward = time.monotonic(), self._scoring.num_samples(criterion), self._scoring.forward_images
        scores = self._scoring.scores(criterion, mask, self._trainings.step)
        self.unreadable_images |= self._scoring.unreadable_images
        forward = self._scoring.forward_images - forward
        self.cost = self.cost.plus(samples, forward)
        self._measured["samples"] += samples
        self._measured["forward_images"] += forward
        self._measured["seconds"] = round(self._measured["seconds"] + time.monotonic() - began, 3)
        return scores

    def _wait_for_checkpoint(self, kept: Path, level: int) -> Path:
        if not self._bench.broadcast(kept.exists()):
            raise BadInput(
                f"{kept}, from which level {level} is trained on, is gone; delete the tickets of level 1 and beyond "
                "and run the same command again"
            )
        self._bench.wait_for_file(kept)
        return kept

    def save_for_next_level(self, level: int) -> None:
        """Keep the whole net as it is, for the training of this level's ticket; call it before that one is kept.

        So where the ticket is, its net is too. What was kept for earlier levels goes when the ticket is there.
        """
        if self._bench.is_main_process:
            checkpoint.save_network(self._folder.continuation_path(level), self._net)
        self._bench.wait_for_file(self._folder.continuation_path(level))

    def save_ticket(
        self, level: int, mask: Mask, weights: StateDict | None = None, *, told: dict[str, Any] | None = None
    ) -> Ticket:
        """Write the ticket of a level; its row goes first, so none is ever missing.

        Args:
            level: of the ticket.
            mask: its mask.
            weights: of the backbone; None for W_k.
            told: what else its provenance and its row say.
        """
        self._shown, self._measured = self._measured, dict(_NO_TRAINING)
        if self._bench.is_main_process:
            kind: Literal["early", "trained"] = "early" if weights is None else "trained"
            provenance = record.ticket_provenance(
                self._plan, weights=kind, spent=self.cost, numerics=self._numerics
            ) | dict(told or {})
            early = checkpoint.load_network(self._folder.rewind_path)
            names = [name.removeprefix("backbone.") for name in early if name.startswith("backbone.")]
            # In one order whatever they are: the mask of a random ticket is drawn over the layers as they come.
            head = self._classifier_state(early if weights is None else None)
            if level and head and (chosen := self._classifier_mask()):
                head |= {name: head[name] * layer for name, layer in chosen.items()}
                kept, total = (
                    sum(int(count(layer)) for layer in chosen.values()) for count in (Tensor.sum, Tensor.numel)
                )
                provenance |= {"head_kept": kept, "head_total": total}
            own = {name: early[f"backbone.{name}"] if weights is None else weights[name] for name in names}
            ticket = Ticket.from_dense_weights(
                mask,
                own,
                level=level,
                recipe=self._recipe.to_dict(),
                provenance=provenance,
                head=head,
            )
            row = record.level_row(
                self._plan,
                ticket,
                self._shown | dict(told or {}),
                effective=self._effective_paths.effective_mask(mask).survivors / mask.total,
                bad=self.unreadable_images,
                device=self._bench.device_name,
                numerics=self._numerics,
            )
            self._folder.save_unreadable_images(level, self.unreadable_images)
            write_row(self._folder.row_path(level), row)
            ticket.save(self._folder.ticket_path(level))
            self._remove_continuations(level)
        self._bench.wait_for_file(self._folder.ticket_path(level))
        return Ticket.load(self._folder.ticket_path(level))

    def _remove_continuations(self, level: int) -> None:
        """The ticket of a level is there: the nets from which earlier ones were trained are needed no more."""
        for earlier in range(level):
            self._folder.continuation_path(earlier).unlink(missing_ok=True)

    def effective_density(self, level: int) -> float | None:
        """Fraction of the weights on a path from the image to the features, which rows of earlier versions lack.

        Only the first process looks: it is for who looks on.
        """
        if not self._bench.is_main_process:
            return None
        path = self._folder.row_path(level)
        row = read_json(path) if path.exists() else {}
        found = row.get("effective_density") if isinstance(row, dict) else None
        return found if isinstance(found, float) else None

    @cached_property
    def _effective_paths(self) -> EffectivePaths:
        images = self._plan.images
        return EffectivePaths.trace(
            self._net.backbone, channels=images.source.dataset.channels, image_size=images.views[0].size
        )

    def summary(self, level: int) -> str:
        """What training showed on the way to a ticket, in one line; "already there" for one that was found."""
        return record.training_summary(self._shown, level) if self._shown else "already there"

    def _train_steps(
        self, loop: TrainingLoop, start: int, stop: int, *, level: int, finds: int, settling: EarlyBird | None = None
    ) -> None:
        """Train, and remember what the row of the ticket that this finds will say."""
        trained = self._trainings.run(loop, start, stop, level=level, finds=finds, settling=settling)
        self.unreadable_images |= self._trainings.unreadable_images
        self.cost = self.cost.plus(trained["samples"], trained["forward_images"])
        # What looks at a settling mask saw is counted already.
        self._measured = trained | {
            name: trained[name] + self._measured[name] for name in ("samples", "forward_images")
        }
