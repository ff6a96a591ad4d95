"""What a search may do: reach W_k, train, score weights, keep a ticket; what the folder has is not done again."""

import time
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from sslticket.errors import BadInput
from sslticket.files import read_json, write_row
from sslticket.masking import gate
from sslticket.masking.criteria.base import Criterion, Scores
from sslticket.masking.mask import Mask, State
from sslticket.masking.paths import Paths
from sslticket.randomness import derive
from sslticket.search import record
from sslticket.search.plan import Plan
from sslticket.search.scoring import Scoring
from sslticket.search.settling import Settling
from sslticket.search.trainings import Trainings
from sslticket.search.watch import Watch
from sslticket.ticket import Ticket
from sslticket.training import checkpoint
from sslticket.training.loop import Loop
from sslticket.training.net import Net
from sslticket.training.progress import Progress
from sslticket.training.workbench import Workbench

_IDLE: dict[str, Any] = {
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


class Lab:
    """The means of one search: a net, its images, and the folder where tickets are kept.

    Attributes:
        spent: what the search has cost up to now, or up to the ticket that it found last.
        bad_images: that could not be read, with reasons.
    """

    def __init__(
        self,
        plan: Plan,
        bench: Workbench,
        net: Net,
        wrapped: nn.Module,
        watch: Watch,
        progress: Progress,
    ) -> None:
        self._plan, self._bench, self._net = plan, bench, net
        self._recipe, self._stages, self._folder = plan.recipe, plan.stages, plan.folder
        self._progress, self._numerics = progress, str(bench.numerics_of(net, plan.steps, plan.recipe.fit))
        self._trainings = Trainings(plan, bench, net, wrapped, watch, progress)
        self._scoring = Scoring(plan, bench, net, progress)
        self._measured, self._shown = dict(_IDLE), dict[str, Any]()  # since the last ticket was kept; until then
        self.spent = record.Spent()
        self.bad_images: dict[str, str] = dict(plan.images.source.bad)

    @property
    def net(self) -> Net:
        """What is trained."""
        return self._net

    def seed(self, *path: str | int) -> int:
        """Of something that the search draws for itself."""
        return derive(self._recipe.seed, "search", *path)

    def note(self, text: str) -> None:
        """Say something to who looks on."""
        self._progress.note(text)

    def dense_mask(self) -> Mask:
        """The mask of ones."""
        return Mask.ones_like(gate.stored(self._net.backbone), self._recipe.search.layers(self._net.backbone))

    def weights(self) -> State:
        """The backbone's weights as they are now."""
        return gate.read(self._net.backbone)

    def found(self, level: int) -> Ticket | None:
        """The ticket of a level that is finished."""
        path = self._folder.ticket(level)
        # One process looks: another might not see yet, or see already, what a third has just written.
        if not self._bench.agreed(path.exists()):
            return None
        ticket = Ticket.load(path)
        if set(ticket.mask) != set(self._recipe.search.layers(self._net.backbone)):
            raise BadInput(f"{path} has a mask of other layers than this version prunes; give another --out")
        self.spent = record.Spent.up_to(ticket)
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
            checkpoint.save(self._folder.early, loop, self._stages.rewind, self._bench.accelerator)
        self._bench.shared(self._folder.early)

    def _keep_initial(self) -> None:
        """Keep W_0 for the control `reset`; on another machine or under another torch no seed brings it back."""
        if self._bench.first and not self._folder.initial.exists():
            provenance = record.provenance(
                self._plan, weights="initial", spent=record.Spent(), numerics=self._numerics, rewind=0
            )
            Ticket.make(
                self.dense_mask(),
                self.weights(),
                level=0,
                recipe=self._recipe.to_dict(),
                provenance=provenance,
                head=self._head(),
            ).save(self._folder.initial)

    def _head(self, state: State | None = None) -> State:
        """The layer that tells classes, as it stands or in a snapshot of the whole net; empty where there is none."""
        layer = self._net.classifier
        if layer is None:
            return {}
        path = next(path for path, module in self._net.named_modules() if module is layer)
        whole = gate.read(self._net) if state is None else state
        return {name: whole[f"{path}.{name}"] for name in gate.stored(layer)}

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
        settling: Settling | None = None,
    ) -> State:
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
            there = checkpoint.restore(self._folder.early, loop, self._bench.accelerator)
            assert start == there, "the dense network goes on where it was"
        else:
            kept = self._folder.carried(ticket.level) if carried else self._folder.early
            gate.write(self._net, checkpoint.load_net(self._there(kept, ticket.level)))
            loop.begins = start
        closed = ticket.mask
        if self._net.learning is not None:
            if ticket.level:
                kept = self._there(self._folder.carried(ticket.level), ticket.level)
                gate.write_scores(self._net, checkpoint.load_scores(kept))
            closed = gate.masks(self._net.backbone)
        gate.set_mask_everywhere(self._net, closed)
        self._run(loop, start, self._plan.clock.total, level=ticket.level, finds=ticket.level + 1, settling=settling)
        self._measured |= {"trained_level": ticket.level, "trained_density": self._measured_density(ticket)}
        if ticket.level == 0 and self._net.learning is None and self._bench.first:
            where = {"device": self._bench.device_name, "numerics": self._numerics}
            row = record.magnitudes(self._plan, ticket, self.weights(), **where)
            write_row(self._folder.magnitudes, row)
        return self.weights()

    def _measured_density(self, ticket: Ticket) -> float:
        """Of the network that metrics are of: a mask that is still learnt is measured as it stands at the end."""
        found = gate.learnt(self._net.backbone)
        if not found:
            return ticket.mask.density
        return Mask({name: one.chosen().cpu() for name, one in found.items()}).density

    def told_before(self) -> None:
        """What was done since the last ticket is what the row of an earlier one tells; the next does not tell it."""
        self._measured = dict(_IDLE)

    def rewind(self) -> None:
        """Bring the net, heads included, to W_k."""
        gate.write(self._net, checkpoint.load_net(self._folder.early))
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
            checkpoint.save_net(self._folder.carried(level), self._net)
        self._bench.shared(self._folder.carried(level))

    def keep(
        self, level: int, mask: Mask, weights: State | None = None, *, told: dict[str, Any] | None = None
    ) -> Ticket:
        """Write the ticket of a level; its row goes first, so none is ever missing.

        Args:
            level: of the ticket.
            mask: its mask.
            weights: of the backbone; None for W_k.
            told: what else its provenance and its row say.
        """
        self._shown, self._measured = self._measured, dict(_IDLE)
        if self._bench.first:
            kind: Literal["early", "trained"] = "early" if weights is None else "trained"
            provenance = record.provenance(self._plan, weights=kind, spent=self.spent, numerics=self._numerics) | dict(
                told or {}
            )
            early = checkpoint.load_net(self._folder.early)
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
            row = record.row(
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
    def _paths(self) -> Paths:
        images = self._plan.images
        return Paths.of(self._net.backbone, channels=images.source.dataset.channels, image_size=images.views[0].size)

    def summary(self, level: int) -> str:
        """What training showed on the way to a ticket, in one line; "already there" for one that was found."""
        return record.summary(self._shown, level) if self._shown else "already there"

    def _run(
        self, loop: Loop, start: int, stop: int, *, level: int, finds: int, settling: Settling | None = None
    ) -> None:
        """Train, and remember what the row of the ticket that this finds will say."""
        trained = self._trainings.run(loop, start, stop, level=level, finds=finds, settling=settling)
        self.bad_images |= self._trainings.bad_images
        self.spent = self.spent.plus(trained["samples"], trained["forward_images"])
        # What looks at a settling mask saw is counted already.
        self._measured = trained | {
            name: trained[name] + self._measured[name] for name in ("samples", "forward_images")
        }
