"""Linear mode connectivity: what lies on the line between two trainings that share a ticket."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from sslticket.analysis.analyse import Analysis, analyse
from sslticket.analysis.endpoints import Endpoints
from sslticket.analysis.recalibration import IMAGES, normalised, recalibrate
from sslticket.analysis.subjects import Course, Subject, wanted
from sslticket.data.loader import Loader
from sslticket.errors import BadInput
from sslticket.evaluation.protocols import Protocol
from sslticket.masking import gate
from sslticket.masking.mask import State
from sslticket.training.measure import measure
from sslticket.training.net import Net
from sslticket.training.workbench import Workbench


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

    def courses(self, subject: Subject) -> Sequence[Course]:
        """See the base class."""
        return subject.course, subject.reordered(1)

    def has(self, row: Mapping[str, Any]) -> bool:
        """See the base class: a row has as many points as are asked for."""
        return len(row["points"]) == self.points

    def measure(self, subject: Subject, ends: Endpoints) -> dict[str, Any]:
        """See the base class; two networks are in memory beside the one that is measured."""
        one, other = (ends.read(course).state for course in self.courses(subject))
        bench, exam = ends.bench, ends.exam(subject.course)
        net, points, task = exam.net(), [], subject.task
        ends.progress.task(f"the line of {task.path.stem} {task.control} seed {task.seed}", self.points)
        with bench.prepared(net):
            held_out, training = ends.examiner.evaluation_images(exam), ends.examiner.training_images(exam)
            parts = bench.arranged(net, exam.fit)
            steps = math.ceil(min(IMAGES, len(exam.splits.training.manifest)) / exam.fit.batch_size)
            for alpha in np.linspace(0, 1, self.points).tolist():
                gate.write(net, between(one, other, alpha))
                plain = again = _scores(bench.accelerator, net, held_out)
                if normalised(net):
                    recalibrate(bench.accelerator, net, training.train(0, steps), parts)
                    again = _scores(bench.accelerator, net, held_out)
                points.append([alpha, *plain, *again])
                ends.progress.advance(len(points), 0)
        _, errors, losses, recalibrated_errors, recalibrated_losses = zip(*points, strict=True)
        return {
            "points": points,
            "barrier": barrier(errors),
            "barrier_recalibrated": barrier(recalibrated_errors),
            "loss_barrier": barrier(losses),
            "loss_barrier_recalibrated": barrier(recalibrated_losses),
        }

    def line(self, row: Mapping[str, Any]) -> str:
        """See the base class."""
        barriers = f"{row['barrier']:.2%}, {row['barrier_recalibrated']:.2%} with batch norm recalibrated"
        return f"error barrier {barriers}; error at the ends {row['points'][0][1]:.2%} and {row['points'][-1][1]:.2%}"


def connectivity(
    paths: Sequence[Path],
    protocol: Protocol,
    seeds: Sequence[int] | None,
    bench: Workbench,
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
    return analyse(Connectivity(points), wanted(paths, controls, [protocol], seeds), bench)


def between(one: Mapping[str, Tensor], other: Mapping[str, Tensor], alpha: float) -> State:
    """The state (1 - alpha) * one + alpha * other, exactly the ends at 0 and 1; what counts steps stays one's."""
    return {
        name: torch.lerp(value, other[name], alpha) if value.is_floating_point() else value
        for name, value in one.items()
    }


def barrier(values: Sequence[float | None]) -> float | None:
    """The highest value on the line above the mean of its ends; None where a value is not finite."""
    finite = [value for value in values if value is not None]
    return max(finite) - (finite[0] + finite[-1]) / 2 if len(finite) == len(values) else None


def _scores(accelerator: Accelerator, net: Net, images: Loader) -> tuple[float, float | None]:
    """Top-1 error, and the mean loss where it is finite."""
    found = measure(accelerator, net, images)
    return 1 - found["top1"], found.get("loss")
