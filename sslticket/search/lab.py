"""What a search may do: reach W_k, train a ticket, keep a ticket; what the folder has is not done again."""

import time
from itertools import pairwise
from typing import Any

from torch import nn

from sslticket import origin
from sslticket.errors import BadInput
from sslticket.files import write_row
from sslticket.masking import gate
from sslticket.masking.mask import Mask, State, prunable
from sslticket.randomness import derive
from sslticket.recipe import family, search_name, settings
from sslticket.search.plan import Plan
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
        self.bad_images: dict[str, str] = dict(plan.images.source.bad)

    def dense_mask(self) -> Mask:
        """The mask of ones."""
        return Mask.ones_like(gate.stored(self._net.backbone), prunable(self._net.backbone))

    def found(self, level: int) -> Ticket | None:
        """The ticket of a level that is finished."""
        path = self._folder.ticket(level)
        return Ticket.load(path) if path.exists() else None

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

    def train(self, ticket: Ticket) -> State:
        """Train a ticket from W_k to the end; returns the backbone's weights there.

        The dense network goes on where it was at step k, optimiser and all; every later ticket starts there with a
        fresh optimiser, and with data in a new order.
        """
        loop = self._loop(ticket.level)
        if ticket.level == 0:
            start = checkpoint.restore(self._folder.early, loop, self._bench.accelerator)
            assert start == self._stages.rewind
        else:
            gate.write(self._net, checkpoint.load_net(self._folder.early))
        gate.set_mask_everywhere(self._net, ticket.mask)
        self._run(loop, self._stages.rewind, self._stages.steps[0], level=ticket.level, finds=ticket.level + 1)
        return gate.read(self._net.backbone)

    def keep(self, level: int, mask: Mask) -> Ticket:
        """Write the ticket of a level, the mask with W_k; its row goes first, so none is ever missing."""
        if self._bench.first:
            early = checkpoint.load_net(self._folder.early)
            weights = {
                name.removeprefix("backbone."): value for name, value in early.items() if name.startswith("backbone.")
            }
            provenance = self._provenance(level)
            ticket = Ticket.make(mask, weights, level=level, recipe=self._recipe.to_dict(), provenance=provenance)
            write_row(self._folder.row(level), self._row(ticket))
            ticket.save(self._folder.ticket(level))
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
        return f"{loss}{metrics}, {self._measured['seconds']:.0f} s"

    def _loop(self, level: int) -> Loop:
        recipe, images = self._recipe, self._images
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
            recipe.fit,
            set_size=images.epoch(recipe.fit.batch_size),
            seed=derive(seeds.augment, level),
            progress=self._progress,
        )

    def _run(self, loop: Loop, start: int, stop: int, *, level: int, finds: int) -> None:
        """Train at a level, and remember what the row of the ticket that it finds will say."""
        self._progress.task(f"level {level + 1}/{len(self._stages.steps)}", self._stages.steps[0])
        seconds, probed = 0.0, {}
        with self._progress.heard_by(*self._bench.listeners(self._folder.path, f"search.level-{finds:02d}")):
            for first, last in pairwise([start, *self._looks(start, stop)]):
                began = time.monotonic()
                loop.run(first, last)
                seconds += time.monotonic() - began
                if self._watch.every is not None:
                    probed[last] = round(self._watch.probe(), 6)
                    self._progress.probe(probed[last])
            metrics = self._watch.metrics()
            self._progress.measured(metrics)
        self.bad_images |= self._bench.bad_images(self._batches)
        self._measured = {
            "loss": loop.loss if stop > start else None,  # W_k may be the initialisation itself
            "seconds": round(seconds, 3),
            "steps": stop - start,
            "samples": (stop - start) * self._recipe.fit.batch_size,
            "metrics": metrics,
            "probe": probed,
        }

    def _looks(self, start: int, stop: int) -> list[int]:
        """The steps after which to look: every probe's, and the last."""
        every = self._watch.every or stop + 1
        return [*range((start // every + 1) * every, stop, every), stop]

    def _provenance(self, level: int) -> dict[str, Any]:
        """Where the ticket comes from; nothing in it depends on the clock, so a repeated search repeats the file."""
        manifest, true = self._images.source.manifest, self._images.true.manifest
        recipe, permutation = self._recipe, self._images.permutation
        shuffled = {} if permutation is None else {"permutation": permutation}
        half = {} if self._images.half is None else {"half": self._images.half}
        return {
            "dataset": manifest.dataset,
            "images": len(true),
            **half,
            **shuffled,
            "classes": len(manifest.classes),
            "data_hash": manifest.hash,
            "objective": recipe.task,
            "seed": recipe.seed,
            "rewind_samples": self._stages.rewind * recipe.fit.batch_size,
            "search_samples": self._plan.samples(level),
            "versions": origin.versions(),
            "commit": origin.commit(),
        }

    def _row(self, ticket: Ticket) -> dict[str, Any]:
        recipe = self._recipe
        return {
            "kind": "level",
            "run": self._folder.path.name,
            "recipe": family(ticket.recipe),
            "objective": recipe.task,
            "model": recipe.model,
            "source": recipe.data.name,
            "subset": recipe.data.subset,
            "subset_by": recipe.data.subset_by,
            "level": ticket.level,
            "density": ticket.mask.density,
            "ticket_hash": ticket.hash,
            "search_seed": recipe.seed,
            "search": search_name(ticket.recipe),
            "settings": settings(ticket.recipe),
            "rewind_samples": ticket.provenance["rewind_samples"],
            **self._measured,
            "search_samples": ticket.provenance["search_samples"],
            "layers": {name: list(count) for name, count in ticket.mask.counts().items()},
            "bad_images": len(self.bad_images),
            **origin.stamp(),
            "data_hash": ticket.provenance["data_hash"],
            "device": self._bench.device_name,
            "precision": recipe.precision,
        }
