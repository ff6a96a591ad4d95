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
        bad_images: that could not be read, with reasons.
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
        self.bad_images: dict[str, str] = {}

    def loop(self, level: int, finetune: bool = False) -> TrainingLoop:
        """A training of a level, with a fresh optimiser and images in an order of its own.

        Args:
            level: of the ticket that is trained.
            finetune: at the last rate of the schedule.
        """
        recipe, images = self._plan.recipe, self._plan.images
        set_size = images.epoch(recipe.fit.batch_size)
        seeds = recipe.seeds
        self._batches = self._bench.loader(
            images.source,
            images.views,
            batch_size=recipe.fit.batch_size,
            order=derive_seed(seeds.order, level),
            augment=derive_seed(seeds.augment, level),
            labelled=images.labelled,
        )
        return self._bench.loop(
            self._net,
            self._wrapped,
            self._batches,
            recipe.fit.finetuned(set_size) if finetune else recipe.fit,
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
        self._progress.task(f"level {level + 1}/{self._plan.levels}", self._plan.clock.total)
        with self._progress.heard_by(*self._bench.listeners(self._plan.folder.path, f"search.level-{finds:02d}")):
            reached, seconds, probed = self._train(loop, start, stop, settling)
            sync_buffers(self._net)  # what is kept from here on is the first process's
            metrics = self._watch.metrics()
            self._progress.measured(metrics)
        self.bad_images |= self._bench.bad_images(self._batches)
        if reached < stop:
            self._progress.remaining(self._plan.samples(self._plan.levels) - self._plan.samples(finds))
        batch_size = self._plan.recipe.fit.batch_size
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
        probes = self._watch.steps(start, stop)
        looks = settling.steps(self._plan.clock, start, stop) if settling else []
        seconds, probed = 0.0, {}
        for first, last in pairwise([start, *sorted({*probes, *looks}), stop]):
            began = time.monotonic()
            loop.run(first, last)
            self.step = last
            ended = last == stop
            if settling and last in looks:
                ended = self._bench.agreed(settling.look())  # one process decides for all: they must not part
            seconds += time.monotonic() - began
            if self._watch.every is not None and (ended or last in probes):
                probed[last] = round(self._watch.probe(), 6)
                self._progress.probe(probed[last])
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
        spent: what the search has cost up to now, or up to the ticket that it found last.
        bad_images: that could not be read, with reasons.
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
        self._recipe, self._stages, self._folder = plan.recipe, plan.stages, plan.folder
        self._progress, self._numerics = progress, str(bench.numerics_of(net, plan.steps, plan.recipe.fit))
        self._trainings = LevelTrainer(plan, bench, net, wrapped, watch, progress)
        self._scoring = Scorer(plan, bench, net, progress)
        self._measured, self._shown = dict(_NO_TRAINING), dict[str, Any]()  # since the last ticket was kept; until then
        self.spent = record.SearchCost()
        self.bad_images: dict[str, str] = dict(plan.images.source.bad)

    @property
    def net(self) -> MaskedNetwork:
        """What is trained."""
        return self._net

    def seed(self, *path: str | int) -> int:
        """Of something that the search draws for itself."""
        return derive_seed(self._recipe.seed, "search", *path)

    def note(self, text: str) -> None:
        """Say something to who looks on."""
        self._progress.note(text)

    def dense_mask(self) -> Mask:
        """The mask of ones."""
        return Mask.ones_like(
            pruned_model.stored_state(self._net.backbone), self._recipe.search.layers(self._net.backbone)
        )

    def weights(self) -> StateDict:
        """The backbone's weights as they are now."""
        return pruned_model.read_state(self._net.backbone)

    def found(self, level: int) -> Ticket | None:
        """The ticket of a level that is finished."""
        path = self._folder.ticket(level)
        # One process looks: another might not see yet, or see already, what a third has just written.
        if not self._bench.agreed(path.exists()):
            return None
        ticket = Ticket.load(path)
        if set(ticket.mask) != set(self._recipe.search.layers(self._net.backbone)):
            raise BadInput(f"{path} has a mask of other layers than this version prunes; give another --out")
        self.spent = record.SearchCost.up_to(ticket)
        if self._bench.first:
            self.bad_images |= self._folder.unreadable(level)
            self._drop_carried(level)  # which a process that was killed had not come to
        return ticket

    def reach_rewind_point(self) -> None:
        """Train the dense net from its initialisation to step k and keep everything at that point."""
        # The ticket of level 0 is written after the snapshot, so where it is, the snapshot is too.
        if self._bench.agreed(self._folder.ticket(0).exists()):
            return
        self._keep_initial()
        loop = self._trainings.loop(level=0)
        self._run(loop, 0, self._stages.rewind, level=0, finds=0)
        if self._bench.first:
            checkpoint.save_checkpoint(self._folder.early, loop, self._stages.rewind, self._bench.accelerator)
        self._bench.shared(self._folder.early)

    def _keep_initial(self) -> None:
        """Keep W_0 for the control `reset`; on another machine or under another torch no seed brings it back."""
        if self._bench.first and not self._folder.initial.exists():
            provenance = record.ticket_provenance(
                self._plan, weights="initial", spent=record.SearchCost(), numerics=self._numerics, rewind=0
            )
            Ticket.make(
                self.dense_mask(),
                self.weights(),
                level=0,
                recipe=self._recipe.to_dict(),
                provenance=provenance,
                head=self._head(),
            ).save(self._folder.initial)

    def _head(self, state: StateDict | None = None) -> StateDict:
        """The layer that tells classes, as it stands or in a snapshot of the whole net; empty where there is none."""
        layer = self._net.classifier
        if layer is None:
            return {}
        path = next(path for path, module in self._net.named_modules() if module is layer)
        whole = pruned_model.read_state(self._net) if state is None else state
        return {name: whole[f"{path}.{name}"] for name in pruned_model.stored_state(layer)}

    def _head_mask(self) -> dict[str, Tensor]:
        """What a search keeps of a classification layer that it masks too; empty where it does not."""
        return {name: one.chosen().cpu() for name, one in self._net.head_gates.items()}

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
        loop = self._trainings.loop(ticket.level, finetune and ticket.level > 0)
        start = self._stages.rewind if start is None else start
        if ticket.level == 0:
            there = checkpoint.restore_checkpoint(self._folder.early, loop, self._bench.accelerator)
            assert start == there, "the dense network goes on where it was"
        else:
            kept = self._folder.carried(ticket.level) if carried else self._folder.early
            pruned_model.write_state(self._net, checkpoint.load_network(self._there(kept, ticket.level)))
            loop.begins = start
        closed = ticket.mask
        if self._net.learning is not None:
            if ticket.level:
                kept = self._there(self._folder.carried(ticket.level), ticket.level)
                pruned_model.write_gate_scores(self._net, checkpoint.load_gate_scores(kept))
            closed = pruned_model.current_mask(self._net.backbone)
        pruned_model.set_mask_everywhere(self._net, closed)
        self._run(loop, start, self._plan.clock.total, level=ticket.level, finds=ticket.level + 1, settling=settling)
        self._measured |= {"trained_level": ticket.level, "trained_density": self._measured_density(ticket)}
        if ticket.level == 0 and self._net.learning is None and self._bench.first:
            where = {"device": self._bench.device_name, "numerics": self._numerics}
            row = record.magnitudes_row(self._plan, ticket, self.weights(), **where)
            write_row(self._folder.magnitudes, row)
        return self.weights()

    def _measured_density(self, ticket: Ticket) -> float:
        """Of the network that metrics are of: a mask that is still learnt is measured as it stands at the end."""
        found = pruned_model.learned_gates(self._net.backbone)
        if not found:
            return ticket.mask.density
        return Mask({name: one.chosen().cpu() for name, one in found.items()}).density

    def told_before(self) -> None:
        """What was done since the last ticket is what the row of an earlier one tells; the next does not tell it."""
        self._measured = dict(_NO_TRAINING)

    def rewind(self) -> None:
        """Bring the net, heads included, to W_k."""
        pruned_model.write_state(self._net, checkpoint.load_network(self._folder.early))
        self._trainings.step = self._stages.rewind

    def scores(self, criterion: Criterion, mask: Mask) -> Scores:
        """What a criterion says of the net's weights as they stand, under a mask; the net stays as it is.

        Raises:
            BadInput: if the scores rank no weights.
        """
        began, samples, forward = time.monotonic(), self._scoring.samples(criterion), self._scoring.forward_images
        scores = self._scoring.scores(criterion, mask, self._trainings.step)
        self.bad_images |= self._scoring.bad_images
        forward = self._scoring.forward_images - forward
        self.spent = self.spent.plus(samples, forward)
        self._measured["samples"] += samples
        self._measured["forward_images"] += forward
        self._measured["seconds"] = round(self._measured["seconds"] + time.monotonic() - began, 3)
        return scores

    def _there(self, kept: Path, level: int) -> Path:
        if not self._bench.agreed(kept.exists()):
            raise BadInput(
                f"{kept}, from which level {level} is trained on, is gone; delete the tickets of level 1 and beyond "
                "and run the same command again"
            )
        self._bench.shared(kept)
        return kept

    def carry(self, level: int) -> None:
        """Keep the whole net as it is, for the training of this level's ticket; call it before that one is kept.

        So where the ticket is, its net is too. What was kept for earlier levels goes when the ticket is there.
        """
        if self._bench.first:
            checkpoint.save_network(self._folder.carried(level), self._net)
        self._bench.shared(self._folder.carried(level))

    def keep(
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
        if self._bench.first:
            kind: Literal["early", "trained"] = "early" if weights is None else "trained"
            provenance = record.ticket_provenance(
                self._plan, weights=kind, spent=self.spent, numerics=self._numerics
            ) | dict(told or {})
            early = checkpoint.load_network(self._folder.early)
            names = [name.removeprefix("backbone.") for name in early if name.startswith("backbone.")]
            # In one order whatever they are: the mask of a random ticket is drawn over the layers as they come.
            head = self._head(early if weights is None else None)
            if level and head and (chosen := self._head_mask()):
                head |= {name: head[name] * layer for name, layer in chosen.items()}
                kept, total = (
                    sum(int(count(layer)) for layer in chosen.values()) for count in (Tensor.sum, Tensor.numel)
                )
                provenance |= {"head_kept": kept, "head_total": total}
            own = {name: early[f"backbone.{name}"] if weights is None else weights[name] for name in names}
            ticket = Ticket.make(
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
                effective=self._paths.effective(mask).survivors / mask.total,
                bad=self.bad_images,
                device=self._bench.device_name,
                numerics=self._numerics,
            )
            self._folder.keep_unreadable(level, self.bad_images)
            write_row(self._folder.row(level), row)
            ticket.save(self._folder.ticket(level))
            self._drop_carried(level)
        self._bench.shared(self._folder.ticket(level))
        return Ticket.load(self._folder.ticket(level))

    def _drop_carried(self, level: int) -> None:
        """The ticket of a level is there: the nets from which earlier ones were trained are needed no more."""
        for earlier in range(level):
            self._folder.carried(earlier).unlink(missing_ok=True)

    def effective(self, level: int) -> float | None:
        """Fraction of the weights on a path from the image to the features, which rows of earlier versions lack.

        Only the first process looks: it is for who looks on.
        """
        if not self._bench.first:
            return None
        path = self._folder.row(level)
        row = read_json(path) if path.exists() else {}
        found = row.get("effective_density") if isinstance(row, dict) else None
        return found if isinstance(found, float) else None

    @cached_property
    def _paths(self) -> EffectivePaths:
        images = self._plan.images
        return EffectivePaths.of(
            self._net.backbone, channels=images.source.dataset.channels, image_size=images.views[0].size
        )

    def summary(self, level: int) -> str:
        """What training showed on the way to a ticket, in one line; "already there" for one that was found."""
        return record.training_summary(self._shown, level) if self._shown else "already there"

    def _run(
        self, loop: TrainingLoop, start: int, stop: int, *, level: int, finds: int, settling: EarlyBird | None = None
    ) -> None:
        """Train, and remember what the row of the ticket that this finds will say."""
        trained = self._trainings.run(loop, start, stop, level=level, finds=finds, settling=settling)
        self.bad_images |= self._trainings.bad_images
        self.spent = self.spent.plus(trained["samples"], trained["forward_images"])
        # What looks at a settling mask saw is counted already.
        self._measured = trained | {
            name: trained[name] + self._measured[name] for name in ("samples", "forward_images")
        }
