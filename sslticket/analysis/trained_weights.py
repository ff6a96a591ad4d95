"""The weights at the end of trainings: how near two of them come (stability), and how large they are (magnitudes)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from torch import Tensor

from sslticket.analysis.base import EndpointAnalysis
from sslticket.analysis.endpoints import AnalysisTarget, EndpointStore, FinalTraining, load_subnetwork
from sslticket.pruning.mask import Mask
from sslticket.pruning.prunable import MACHINE_PRECISION, magnitude_statistics
from sslticket.results.rows import MagnitudesRow, Row, StabilityRow
from sslticket.ticket import Ticket


class WeightDistance(NamedTuple):
    """How far two trained networks are apart, over the survivors of a mask.

    Attributes:
        distance: L2 distance.
        angle: Angle between the two vectors of survivors, in degrees.
    """

    distance: float
    angle: float


@dataclass(frozen=True)
class Stability(EndpointAnalysis):
    """How near trainings of a subnetwork end, to the dense network's and to each other.

    Trains the dense network from W_k, and each ticket from W_k in two orders of the data, to the end of a protocol
    (Stabilizing the Lottery Ticket Hypothesis, section 2 and Appendix B, https://arxiv.org/abs/1903.01611). Stability
    to pruning is d(A(W_k, u), A(m * W_k, u)), of the dense network and the subnetwork trained in one order u. Stability
    to data order is d(A(m * W_k, u), A(m * W_k, u')), of the subnetwork trained in two.
    """

    row_type: ClassVar[type[Row]] = StabilityRow
    needs_dense: ClassVar[bool] = True

    def trainings(self, target: AnalysisTarget) -> Sequence[FinalTraining]:
        """See the base class."""
        assert target.dense_training is not None
        return target.dense_training, target.training, target.training_in_order(1)

    def measure(self, target: AnalysisTarget, endpoints: EndpointStore) -> dict[str, Any]:
        """See the base class; two networks are in memory at a time, and the mask."""
        dense, first, second = self.trainings(target)
        mask = load_subnetwork(target.task).mask
        one = endpoints.read(first).backbone
        order = weight_distance(one, endpoints.read(second).backbone, mask)
        pruning = weight_distance(one, endpoints.read(dense).backbone, mask)
        top1 = [endpoints.measurements(training)["top1"] for training in (first, second)]
        return {
            "order_distance": order.distance,
            "order_angle": order.angle,
            "pruning_distance": pruning.distance,
            "pruning_angle": pruning.angle,
            "top1": sum(top1) / 2,
            "dense_top1": endpoints.measurements(dense)["top1"],
        }

    def describe_row(self, row: Mapping[str, Any]) -> str:
        """See the base class."""
        order, pruning = (
            f"{row[f'{what}_distance']:.3g} apart at {row[f'{what}_angle']:.1f} degrees"
            for what in ("order", "pruning")
        )
        return f"data order {order}, pruning {pruning}, top-1 {row['top1']:.1%}, dense {row['dense_top1']:.1%}"


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


@dataclass(frozen=True)
class Magnitudes(EndpointAnalysis):
    """Weights that training takes to zero by itself, and the histogram of all.

    Trains the dense network from W_k to the end of a protocol, and measures its natural density, the fraction of its
    weights above machine precision, and the histogram of their magnitudes (Finding Winning Tickets with Limited (or No)
    Supervision, Figure 6 and Appendix D). Of a sparse ticket, pruned weights are zeros too.
    """

    row_type: ClassVar[type[Row]] = MagnitudesRow
    default_levels: ClassVar[str] = "0"

    def measure(self, target: AnalysisTarget, endpoints: EndpointStore) -> dict[str, Any]:
        """See the base class."""
        end = endpoints.read(target.training)
        names = list(Ticket.load(target.task.path).mask)
        return {**magnitude_statistics(end.backbone, names), "top1": end.measurements["top1"]}

    def describe_row(self, row: Mapping[str, Any]) -> str:
        """See the base class."""
        weights = f"{row['natural_density']:.2%} of {sum(row['counts']) + row['zeros']:,} weights are above"
        return f"{weights} {MACHINE_PRECISION:.3g}, {row['zeros']:,} are exactly 0, top-1 {row['top1']:.1%}"
