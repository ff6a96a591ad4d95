"""What a search may do: reach W_k, train a ticket, keep a ticket; what the folder has is not done again."""

import time
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from torch import nn

from sslticket.errors import BadInput
from sslticket.files import write_row
from sslticket.masking import gate
from sslticket.masking.mask import Mask, State
from sslticket.randomness import derive
from sslticket.search import record
from sslticket.search.plan import Plan
from sslticket.search.settling import Settling
from sslticket.search.watch import Watch
from sslticket.ticket import Ticket
from sslticket.training import checkpoint
from sslticket.training.loop import Loop
from sslticket.training.net import Net
from sslticket.training.progress import Progress
from sslticket.training.workbench import Workbench


class Lab:
    """The means of one search: a net, its images, and the folder where tickets are kept."""

    def __init__(
        self,
        plan: Plan,
        bench: Workbench,
        net: Net,
        wrapped: nn.Module,
        watch: Watch,
        progress: Progress,
    ) -> None:
        self._plan, self._bench, self._net, self._wrapped = plan, bench, net, wrapped
        self._recipe, self._stages, self._folder, self._images = plan.recipe, plan.stages, plan.folder, plan.images
        self._watch, self._progress = watch, progress
        self._measured: dict[str, Any] = {}
        self._spent = 0  # samples that the search has seen up to the last ticket that it found or kept
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
        if not path.exists():
            return None
        ticket = Ticket.load(path)
        self._spent = int(ticket.provenance["search_samples"])
        return ticket

    def reach_rewind_point(self) -> None:
        """Train the dense net from its initialisation to step k and keep everything at that point."""
        # The ticket of level 0 is written after the snapshot, so where it is, the snapshot is too.
        if self._folder.ticket(0).exists():
            return
        loop = self._loop(level=0)
        self._run(loop, 0, self._stages.rewind, level=0, finds=0)
        if self._bench.first:
            checkpoint.save(self._folder.early, loop, self._stages.rewind, self._bench.accelerator)
        self._bench.accelerator.wait_for_everyone()

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
        loop = self._loop(ticket.level, finetune and ticket.level > 0)
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
        return self.weights()

    def _there(self, kept: Path, level: int) -> Path:
        if not kept.exists():
            raise BadInput(
                f"{kept}, from which level {level} is trained on, is gone; delete the tickets of level 1 and beyond "
                "and run the same command again"
            )
        return kept

    def carry(self, level: int) -> None:
        """Keep the whole net as it is, for the training of this level's ticket; call it before that one is kept.

        So where the ticket is, its net is too. What was kept for earlier levels goes when the ticket is there.
        """
        if self._bench.first:
            checkpoint.save_net(self._folder.carried(level), self._net)
        self._bench.accelerator.wait_for_everyone()

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
        if self._bench.first:
            kind: Literal["early", "trained"] = "early" if weights is None else "trained"
            provenance = record.provenance(self._plan, weights=kind, samples=self._spent)
            early = checkpoint.load_net(self._folder.early)
            names = [name.removeprefix("backbone.") for name in early if name.startswith("backbone.")]
            # In one order whatever they are: the mask of a random ticket is drawn over the layers as they come.
            own = {name: early[f"backbone.{name}"] if weights is None else weights[name] for name in names}
            ticket = Ticket.make(
                mask, own, level=level, recipe=self._recipe.to_dict(), provenance=provenance | (told or {})
            )
            row = record.row(
                self._plan,
                ticket,
                self._measured | (told or {}),
                bad_images=len(self.bad_images),
                device=self._bench.device_name,
            )
            write_row(self._folder.row(level), row)
            ticket.save(self._folder.ticket(level))
            for earlier in range(level):
                self._folder.carried(earlier).unlink(missing_ok=True)
        self._bench.accelerator.wait_for_everyone()
        kept = self.found(level)
        if kept is None:
            raise BadInput(
                f"{self._folder.ticket(level)} is not visible to all processes; give --out on a shared folder"
            )
        return kept

    def summary(self, level: int) -> str:
        """What training showed on the way to a ticket, in one line; "already there" for one that was found."""
        if not self._measured:
            return "already there"
        shown = {name: value for name, value in self._measured["metrics"].items() if name != "loss"}
        if self._measured["probe"]:
            shown["nearest neighbours"] = list(self._measured["probe"].values())[-1]
        metrics = "".join(f", {name} {value:.4g}" for name, value in shown.items())
        loss = "untrained" if self._measured["loss"] is None else f"loss {self._measured['loss']:.4g}"
        saved = self._measured["saved_samples"]
        settled = f", settled with {saved:,} samples saved" if saved else ""
        return f"{loss}{metrics}{settled}, {self._measured['seconds']:.0f} s"

    def _loop(self, level: int, finetune: bool = False) -> Loop:
        recipe, images = self._recipe, self._images
        set_size = images.epoch(recipe.fit.batch_size)
        seeds = recipe.seeds
        self._batches = self._bench.loader(
            images.source,
            images.views,
            batch_size=recipe.fit.batch_size,
            order=derive(seeds.order, level),
            augment=derive(seeds.augment, level),
            labelled=images.labelled,
        )
        return self._bench.loop(
            self._net,
            self._wrapped,
            self._batches,
            recipe.fit.finetuned(set_size) if finetune else recipe.fit,
            set_size=set_size,
            seed=derive(seeds.augment, level),
            progress=self._progress,
        )

    def _run(
        self, loop: Loop, start: int, stop: int, *, level: int, finds: int, settling: Settling | None = None
    ) -> None:
        """Train at a level, and remember what the row of the ticket that it finds will say."""
        self._progress.task(f"level {level + 1}/{self._stages.levels}", self._plan.clock.total)
        with self._progress.heard_by(*self._bench.listeners(self._folder.path, f"search.level-{finds:02d}")):
            reached, seconds, probed = self._train(loop, start, stop, settling)
            metrics = self._watch.metrics()
            self._progress.measured(metrics)
        self.bad_images |= self._bench.bad_images(self._batches)
        batch_size = self._recipe.fit.batch_size
        self._measured = {
            "loss": loop.loss if stop > start else None,  # W_k may be the initialisation itself
            "seconds": round(seconds, 3),
            "steps": reached - start,
            "samples": (reached - start) * batch_size,
            "saved_samples": (stop - reached) * batch_size,
            "metrics": metrics,
            "probe": probed,
        }
        self._spent += self._measured["samples"]
        if reached < stop:
            self._progress.remaining(self._plan.samples(self._plan.levels) - self._plan.samples(finds))

    def _train(
        self, loop: Loop, start: int, stop: int, settling: Settling | None
    ) -> tuple[int, float, dict[int, float]]:
        """Train until the end or until the mask has settled; the step reached, seconds, and what the probe saw."""
        probes = self._watch.steps(start, stop)
        looks = settling.steps(self._plan.clock, start, stop) if settling else []
        seconds, probed = 0.0, {}
        for first, last in pairwise([start, *sorted({*probes, *looks}), stop]):
            began = time.monotonic()
            loop.run(first, last)
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
