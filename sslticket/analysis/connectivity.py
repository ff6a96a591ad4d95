"""Linear mode connectivity: what lies on the line between two trainings that share a ticket.

An interpolated network's batch-norm statistics are those of neither end, so they are also measured anew on training
images (Frankle et al. 2020, Linear Mode Connectivity and the Lottery Ticket Hypothesis,
https://arxiv.org/abs/1912.05671).
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from sslticket.analysis.base import EndpointAnalysis
from sslticket.analysis.endpoints import AnalysisTarget, EndpointStore, FinalTraining
from sslticket.data.loader import Batch, Loader
from sslticket.errors import BadInput
from sslticket.pruning import pruned_model
from sslticket.pruning.mask import StateDict
from sslticket.results.rows import ConnectivityRow, Row
from sslticket.training.network import MaskedNetwork, measure_metrics

RECALIBRATION_IMAGES = 10_000
"""Training images on which statistics are measured, up to whole batches; once each where a set has fewer. Our own."""


def batch_norm_layers(net: MaskedNetwork) -> list[_BatchNorm]:
    """The layers of the backbone that keep running statistics."""
    return [
        module for module in net.backbone.modules() if isinstance(module, _BatchNorm) and module.track_running_stats
    ]


@torch.no_grad()
def recalibrate_batch_norm(
    accelerator: Accelerator, net: MaskedNetwork, batches: Iterable[Batch], parts: int = 1
) -> None:
    """Sets all running statistics to their means over the batches, those of all processes together.

    Means and variances are those of each micro-batch, as in training; each counts as much as every other. Whatever else
    behaves otherwise in training, such as dropout, is as in evaluation.

    Args:
        accelerator: The process's accelerator.
        net: A net as `Engine.set_batchnorm_scheme` leaves it.
        batches: This process's images of each batch.
        parts: Number of micro-batches in which these go through the network in training.
    """
    layers = batch_norm_layers(net)
    momenta = [layer.momentum for layer in layers]
    net.eval()
    for layer in layers:
        layer.reset_running_stats()
        layer.train()
    micro_batches = (micro_batch for batch in batches for micro_batch in batch.chunk(parts))
    for number, micro_batch in enumerate(micro_batches, 1):
        for layer in layers:
            # The mean over all batches, as without a momentum; torch would then ask the device for the number.
            layer.momentum = 1 / number
        with accelerator.autocast():
            net.backbone(micro_batch.views[0])
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
        for statistic in (layer.running_mean, layer.running_var):
            assert isinstance(statistic, torch.Tensor), "normalised layers have both"
            statistic.copy_(accelerator.reduce(statistic, reduction="mean"))
    net.eval()


@dataclass(frozen=True)
class Connectivity(EndpointAnalysis):
    """Error and loss on the line between two trainings of a ticket.

    Trains each ticket from W_k in two orders of the data to the end of a protocol, and measures error and loss on the
    line between both ends, with and without batch-norm statistics recalibrated.

    Attributes:
        points: Points on the line, evenly spaced, both ends among them.
    """

    row_type: ClassVar[type[Row]] = ConnectivityRow
    points: int = 11

    def __post_init__(self) -> None:
        if self.points < 3:
            raise BadInput(
                f"--points must be at least 3, to show a barrier between two ends, got {self.points}; "
                "give --points 3 or more"
            )

    def trainings(self, target: AnalysisTarget) -> Sequence[FinalTraining]:
        """See the base class."""
        return target.training, target.training_in_order(1)

    def accepts_row(self, row: Mapping[str, Any]) -> bool:
        """See the base class: a row has as many points as are asked for."""
        return len(row["points"]) == self.points

    def measure(self, target: AnalysisTarget, endpoints: EndpointStore) -> dict[str, Any]:
        """See the base class; two networks are in memory beside the one that is measured."""
        one, other = (endpoints.read(training).state for training in self.trainings(target))
        engine, run, task = endpoints.engine, endpoints.eval_run(target.training), target.task
        net, points = run.build_net(), []
        endpoints.progress.start_task(f"the line of {task.path.stem} {task.control} seed {task.seed}", self.points)
        with engine.prepare(net):
            held_out, training = endpoints.evaluator.evaluation_loader(run), endpoints.evaluator.training_loader(run)
            parts = engine.set_batchnorm_scheme(net, run.training)
            images = min(RECALIBRATION_IMAGES, len(run.splits.training.manifest))
            steps = math.ceil(images / run.training.batch_size)
            for alpha in np.linspace(0, 1, self.points).tolist():
                pruned_model.write_state(net, interpolate(one, other, alpha))
                plain = recalibrated = _error_and_loss(engine.accelerator, net, held_out)
                if batch_norm_layers(net):
                    recalibrate_batch_norm(engine.accelerator, net, training.train(0, steps), parts)
                    recalibrated = _error_and_loss(engine.accelerator, net, held_out)
                points.append([alpha, *plain, *recalibrated])
                endpoints.progress.advance(len(points), 0)
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
