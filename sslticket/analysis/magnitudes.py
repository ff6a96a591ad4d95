"""How large trained weights are, and how many are zero by nature: those that training takes to zero by itself."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from sslticket.analysis.base import EndpointAnalysis
from sslticket.analysis.endpoints import AnalysisTarget, EndpointStore
from sslticket.pruning.prunable import MACHINE_PRECISION, magnitude_statistics
from sslticket.results.rows import MagnitudesRow, Row
from sslticket.ticket import Ticket


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
