"""The trainings of a search: where their batches come from, what is looked at meanwhile, and what they cost."""

import time
from itertools import pairwise
from typing import Any

from torch import nn

from sslticket.randomness import derive
from sslticket.search.plan import Plan
from sslticket.search.settling import Settling
from sslticket.search.watch import Watch
from sslticket.training.loop import Loop
from sslticket.training.measure import share_buffers
from sslticket.training.net import Net
from sslticket.training.progress import Progress
from sslticket.training.workbench import Workbench


class Trainings:
    """Trains one net, level after level.

    Attributes:
        step: of its training, that the net has reached.
        bad_images: that could not be read, with reasons.
    """

    def __init__(
        self, plan: Plan, bench: Workbench, net: Net, wrapped: nn.Module, watch: Watch, progress: Progress
    ) -> None:
        self._plan, self._bench, self._net, self._wrapped = plan, bench, net, wrapped
        self._watch, self._progress = watch, progress
        self.step = 0
        self.bad_images: dict[str, str] = {}

    def loop(self, level: int, finetune: bool = False) -> Loop:
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

    def run(
        self, loop: Loop, start: int, stop: int, *, level: int, finds: int, settling: Settling | None = None
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
            share_buffers(self._net)  # what is kept from here on is the first process's
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
        self, loop: Loop, start: int, stop: int, settling: Settling | None
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
