"""Linear mode connectivity: what lies on the line between two trainings that share a ticket.

An interpolated network's batch-norm statistics are those of neither end, so they are also measured anew on training images.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from sslticket.analysis.base import Analysis, run_analysis
from sslticket.analysis.endpoints import AnalysisTarget, EndpointStore, FinalTraining, make_analysis_tasks
from sslticket.data.loader import Batch, Loader
from sslticket.errors import BadInput
from sslticket.evaluation.protocols import Protocol
from sslticket.pruning import pruned_model
from sslticket.pruning.mask import StateDict
from sslticket.training.engine import Engine
from sslticket.training.network import MaskedNetwork, measure_metrics

RECALIBRATION_IMAGES = 10_000
"""On how many training images statistics are measured, up to whole batches; once each where a set has fewer. Ours."""


def batch_norm_layers(net: MaskedNetwork) -> list[_BatchNorm]:
    """The layers of the backbone that keep running statistics."""
    return [
        module for module in net.backbone.modules() if isinstance(module, _BatchNorm) and module.track_running_stats
    ]


@torch.no_grad()
def recalibrate_batch_norm(
    accelerator: Accelerator, net: MaskedNetwork, batches: Iterable[Batch], parts: int = 1
) -> None:
    """Set all running statistics to their means over the batches, those of all processes together.

    Means and variances are a part's own, as in training; each counts as much as every other. Whatever else behaves
    otherwise in training, such as dropout, is as in evaluation.

    Args:
        accelerator: of the process.
        net: as `Workbench.arranged` leaves it.
        batches: this process's share of each.
        parts: in which a share goes through the network in training.
    """
    layers = batch_norm_layers(net)
    momenta = [layer.momentum for layer in layers]
    net.eval()
    for layer in layers:
        layer.reset_running_stats()
        layer.train()
    every = (part for batch in batches for part in batch.chunk(parts))
    for number, part in enumerate(every, 1):
        for layer in layers:
            # The mean over all batches, as without a momentum; torch would then ask the device for the number.
            layer.momentum = 1 / number
        with accelerator.autocast():
            net.backbone(part.views[0])
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
        for statistic in (layer.running_mean, layer.running_var):
            assert isinstance(statistic, torch.Tensor), "normalised layers have both"
            statistic.copy_(accelerator.reduce(statistic, reduction="mean"))
    net.eval()


@dataclass(frozen=True)
class Connectivity(Analysis):
    """Error and loss on the line between a subnetwork trained in one order and in another.

    Attributes:
        points: on the line, evenly spaced, both ends among them.
    """

    kind: ClassVar[str] = "connectivity"
    points: int = 11

    def __post_init__(self) -> None:
        if self.points < 3:
            raise BadInput(f"{self.points} points show no barrier between two ends; give --points at least 3")

    def trainings(self, subject: AnalysisTarget) -> Sequence[FinalTraining]:
        """See the base class."""
        return subject.training, subject.training_in_order(1)

    def accepts_row(self, row: Mapping[str, Any]) -> bool:
        """See the base class: a row has as many points as are asked for."""
        return len(row["points"]) == self.points

    def measure(self, subject: AnalysisTarget, ends: EndpointStore) -> dict[str, Any]:
        """See the base class; two networks are in memory beside the one that is measured."""
        one, other = (ends.read(course).state for course in self.trainings(subject))
        bench, exam = ends.engine, ends.eval_run(subject.training)
        net, points, task = exam.build_net(), [], subject.task
        ends.progress.start_task(f"the line of {task.path.stem} {task.control} seed {task.seed}", self.points)
        with bench.prepare(net):
            held_out, training = ends.evaluator.evaluation_loader(exam), ends.evaluator.training_loader(exam)
            parts = bench.set_batchnorm_scheme(net, exam.fit)
            steps = math.ceil(min(RECALIBRATION_IMAGES, len(exam.splits.training.manifest)) / exam.fit.batch_size)
            for alpha in np.linspace(0, 1, self.points).tolist():
                pruned_model.write_state(net, interpolate(one, other, alpha))
                plain = again = _error_and_loss(bench.accelerator, net, held_out)
                if batch_norm_layers(net):
                    recalibrate_batch_norm(bench.accelerator, net, training.train(0, steps), parts)
                    again = _error_and_loss(bench.accelerator, net, held_out)
                points.append([alpha, *plain, *again])
                ends.progress.advance(len(points), 0)
        _, errors, losses, recalibrated_errors, recalibrated_losses = zip(*points, strict=True)
        return {
            "points": points,
            "barrier": barrier_height(errors),
            "barrier_recalibrated": barrier_height(recalibrated_errors),
            "loss_barrier": barrier_height(losses),
            "loss_barrier_recalibrated": barrier_height(recalibrated_losses),
        }

    def describe_row(self, row: Mapping[str, Any]) -> str:
        """See the base class."""
        barriers = f"{row['barrier']:.2%}, {row['barrier_recalibrated']:.2%} with batch norm recalibrated"
        return f"error barrier {barriers}; error at the ends {row['points'][0][1]:.2%} and {row['points'][-1][1]:.2%}"


def measure_connectivity(
    paths: Sequence[Path],
    protocol: Protocol,
    seeds: Sequence[int] | None,
    bench: Engine,
    *,
    controls: Sequence[str] = (),
    points: int = 11,
) -> Iterator[dict[str, Any]]:
    """Rows of these tickets' linear mode connectivity, each written before it is yielded; those there are not.

    Args:
        paths: of ticket files.
        protocol: under which networks are trained and measured.
        seeds: one row each; None for the protocol's own.
        bench: where they are trained.
        controls: ("local",) for a random subnetwork beside each ticket.
        points: on the line.

    Raises:
        BadInput: if a ticket cannot be analysed, or data is missing.
        Diverged: if a loss is not finite.
    """
    return run_analysis(Connectivity(points), make_analysis_tasks(paths, controls, [protocol], seeds), bench)


def interpolate(one: Mapping[str, Tensor], other: Mapping[str, Tensor], alpha: float) -> StateDict:
    """The state (1 - alpha) * one + alpha * other, exactly the ends at 0 and 1; what counts steps stays one's."""
    return {
        name: torch.lerp(value, other[name], alpha) if value.is_floating_point() else value
        for name, value in one.items()
    }


def barrier_height(values: Sequence[float | None]) -> float | None:
    """The highest value on the line above the mean of its ends; None where a value is not finite."""
    finite = [value for value in values if value is not None]
    return max(finite) - (finite[0] + finite[-1]) / 2 if len(finite) == len(values) else None


def _error_and_loss(accelerator: Accelerator, net: MaskedNetwork, images: Loader) -> tuple[float, float | None]:
    """Top-1 error, and the mean loss where it is finite."""
    found = measure_metrics(accelerator, net, images)
    return 1 - found["top1"], found.get("loss")
