"""How near two trainings of a subnetwork end: with the network it is cut from, and with another order of the data."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from torch import Tensor

from sslticket.analysis.base import Analysis, run_analysis
from sslticket.analysis.endpoints import (
    AnalysisTarget,
    EndpointStore,
    FinalTraining,
    load_subnetwork,
    make_analysis_tasks,
)
from sslticket.evaluation.protocols import Protocol
from sslticket.pruning.mask import Mask
from sslticket.training.engine import Engine


class WeightDistance(NamedTuple):
    """How far two trained networks are apart, over the survivors of a mask.

    Attributes:
        distance: L2.
        angle: between the two vectors of survivors, degrees.
    """

    distance: float
    angle: float


@dataclass(frozen=True)
class Stability(Analysis):
    """Stability to pruning and to data order (Stabilizing the Lottery Ticket Hypothesis, section 2 and Appendix B).

    To pruning: d(A(W_k, u), A(m * W_k, u)), of the dense network and the subnetwork trained in one order. To data
    order: d(A(m * W_k, u), A(m * W_k, u')), of the subnetwork trained in two.
    """

    kind: ClassVar[str] = "stability"
    needs_dense: ClassVar[bool] = True

    def trainings(self, subject: AnalysisTarget) -> Sequence[FinalTraining]:
        """See the base class."""
        assert subject.dense_training is not None
        return subject.dense_training, subject.training, subject.training_in_order(1)

    def measure(self, subject: AnalysisTarget, ends: EndpointStore) -> dict[str, Any]:
        """See the base class; two networks are in memory at a time, and the mask."""
        dense, first, second = self.trainings(subject)
        mask = load_subnetwork(subject.task).mask
        one = ends.read(first).backbone
        order = weight_distance(one, ends.read(second).backbone, mask)
        pruning = weight_distance(one, ends.read(dense).backbone, mask)
        return {
            "order_distance": order.distance,
            "order_angle": order.angle,
            "pruning_distance": pruning.distance,
            "pruning_angle": pruning.angle,
            "top1": (ends.measurements(first)["top1"] + ends.measurements(second)["top1"]) / 2,
            "dense_top1": ends.measurements(dense)["top1"],
        }

    def describe_row(self, row: Mapping[str, Any]) -> str:
        """See the base class."""
        order, pruning = (
            f"{row[f'{what}_distance']:.3g} apart at {row[f'{what}_angle']:.1f} degrees"
            for what in ("order", "pruning")
        )
        return f"data order {order}, pruning {pruning}, top-1 {row['top1']:.1%}, dense {row['dense_top1']:.1%}"


def measure_stability(
    paths: Sequence[Any],
    protocol: Protocol,
    seeds: Sequence[int] | None,
    bench: Engine,
    *,
    controls: Sequence[str] = (),
) -> Iterator[dict[str, Any]]:
    """Rows of these tickets' stabilities, each written before it is yielded; those that are there are not.

    Args:
        paths: of ticket files.
        protocol: under which networks are trained.
        seeds: one row each; None for the protocol's own.
        bench: where they are trained.
        controls: ("local",) for a random subnetwork beside each ticket.

    Raises:
        BadInput: if a ticket cannot be analysed, or data is missing.
        Diverged: if a loss is not finite.
    """
    return run_analysis(Stability(), make_analysis_tasks(paths, controls, [protocol], seeds), bench)


def weight_distance(one: Mapping[str, Tensor], other: Mapping[str, Tensor], mask: Mask) -> WeightDistance:
    """Distance and angle over the mask's survivors: the prunable weights that it keeps, without head and batch norm.

    In float64, and a layer at a time. The angle is arccos of the cosine, by way of the half angle's tangent, which
    loses no digits where the cosine is near 1 (Kahan): of a vector with itself it is exactly 0.
    """
    layers = [(name, layer) for name, layer in mask.items()]

    def norm(scale: float, other_scale: float) -> float:
        """Of scale * one + other_scale * other."""
        squares = 0.0
        for name, layer in layers:
            mine, theirs = (state[name][layer].double() for state in (one, other))
            squares += float((scale * mine + other_scale * theirs).square().sum())
        return math.sqrt(squares)

    mine, theirs = norm(1, 0), norm(0, 1)
    angle = 2 * math.atan2(norm(theirs, -mine), norm(theirs, mine))
    return WeightDistance(norm(1, -1), math.degrees(angle))
