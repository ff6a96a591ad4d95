"""One training of the matrix: a ticket, a control of it, or the dense network that shows natural zeros."""

import time
from pathlib import Path
from typing import Any

from sslticket import origin
from sslticket.errors import BadInput
from sslticket.evaluation.controls import control
from sslticket.evaluation.images import Splits
from sslticket.evaluation.matrix import Training
from sslticket.evaluation.natural import Natural
from sslticket.masking import gate
from sslticket.masking.mask import Mask, prunable
from sslticket.objectives.supervised import Supervised
from sslticket.randomness import Seeds, derive
from sslticket.ticket import Ticket
from sslticket.training.measure import measure
from sslticket.training.net import Net
from sslticket.training.progress import Progress
from sslticket.training.workbench import Workbench


class Examiner:
    """Trains under protocols and measures on every evaluation image."""

    def __init__(self, bench: Workbench, progress: Progress) -> None:
        self._bench, self._progress = bench, progress

    def score(self, training: Training, splits: Splits) -> dict[str, Any]:
        """Train a ticket, or a control of it, from its W_k with a new head, and measure it.

        Returns:
            What was measured: top1, top5 (fractions), loss (nats), samples, steps, seconds of training, and where they
            are from; of an adjusted control the densities of its mask and of the natural one.

        Raises:
            BadInput: if the ticket is for another model.
            Diverged: if a loss is not finite.
        """
        # A stream of its own: under a seed that a search had too, a random ticket must not get that search's weights.
        seeds = Seeds.of(derive(training.like.seed, "evaluation"))
        net = _net(training, splits, seeds)
        start = ticket = Ticket.load(training.like.path)
        told = {}
        if training.control != "ticket":
            natural = _natural(training.natural, splits, ticket) if training.natural else None
            initial, seed = gate.read(net.backbone), derive(seeds.init, "control")
            start = control(ticket, training.control, initial=initial, seed=seed, natural=natural)
            told = {"natural_density": natural.density, "control_density": start.mask.density} if natural else {}
        start.apply(net.backbone)
        return self._trained(net, training, splits, seeds, training.like.run, training.like.name) | told

    def natural(self, training: Training, splits: Splits) -> Natural:
        """Train the dense network to the protocol's end, from weights of a stream of its own.

        Raises:
            BadInput: if all weights are zero there.
            Diverged: if a loss is not finite.
        """
        assert training.natural is not None, "natural zeros have a file"
        seeds = Seeds.of(derive(training.like.seed, "natural"))
        net = _net(training, splits, seeds)
        measured = self._trained(net, training, splits, seeds, training.natural.parents[1], training.natural.stem)
        told = {"model": training.model, "protocol": training.like.protocol.name, "seed": training.like.seed}
        return Natural.of(gate.read(net.backbone), prunable(net.backbone), told | measured)

    def _trained(
        self, net: Net, training: Training, splits: Splits, seeds: Seeds, run: Path, name: str
    ) -> dict[str, Any]:
        bench, manifest, protocol = self._bench, splits.training.manifest, training.like.protocol
        augmented, plain = protocol.views(splits.training.dataset)
        fit = protocol.fit_for(training.model)
        with bench.prepared(net) as wrapped, self._progress.heard_by(*bench.listeners(run, name)):
            batches = bench.loader(
                splits.training, (augmented,), batch_size=fit.batch_size, order=seeds.order, augment=seeds.augment
            )
            loop = bench.loop(
                net, wrapped, batches, fit, set_size=len(manifest), seed=seeds.augment, progress=self._progress
            )
            began = time.monotonic()
            loop.run(0, training.steps)
            seconds = time.monotonic() - began
            held_out = bench.loader(splits.evaluation, (plain,), batch_size=fit.batch_size, order=0, augment=0)
            metrics = measure(bench.accelerator, net, held_out)
            self._progress.measured(metrics)
            bad = bench.bad_images(batches, held_out)
        return {
            "loss": None,
            **metrics,
            "samples": training.steps * fit.batch_size,
            "steps": training.steps,
            "seconds": round(seconds, 3),
            "bad_images": len(bad),
            "device": bench.device_name,
            "precision": bench.precision,
            **origin.stamp(),
            "data_hash": manifest.hash,
        }


def _natural(file: Path, splits: Splits, ticket: Ticket) -> Mask:
    """The natural mask of the layers that the ticket's search might prune; it must be of these very images."""
    natural = Natural.load(file)
    if natural.told["data_hash"] != splits.training.manifest.hash:
        raise BadInput(f"{file} is of other images; delete it and run the same command again")
    mask = natural.mask.only(ticket.mask)
    if not mask.survivors:
        raise BadInput(
            f"every weight that the search might prune has gone to zero in {file}; there is no adjusted random "
            "baseline; leave --controls adjusted out"
        )
    return mask


def _net(training: Training, splits: Splits, seeds: Seeds) -> Net:
    return Net.build(
        training.model,
        Supervised(),
        channels=training.channels,
        image_size=training.like.protocol.views(splits.training.dataset)[0].size,
        classes=len(splits.training.manifest.classes),
        seed=seeds.init,
    )
