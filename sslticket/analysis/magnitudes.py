"""How large trained weights are, and how many are zero by nature: those that training takes to zero by itself."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from sslticket.analysis.base import Analysis, run_analysis
from sslticket.analysis.endpoints import AnalysisTarget, EndpointStore, FinalTraining, make_analysis_tasks
from sslticket.evaluation.protocols import Protocol
from sslticket.pruning.prunable import MACHINE_PRECISION
from sslticket.pruning.prunable import magnitude_statistics as magnitudes_of
from sslticket.ticket import Ticket
from sslticket.training.engine import Engine


@dataclass(frozen=True)
class Magnitudes(Analysis):
    """Natural density at convergence, and the histogram of magnitudes (Finding Winning Tickets, Figure 6, Appendix D).

    Of the dense network, the ticket of level 0; of a sparse one, pruned weights are zeros too.
    """

    kind: ClassVar[str] = "magnitudes"

    def trainings(self, subject: AnalysisTarget) -> Sequence[FinalTraining]:
        """See the base class."""
        return (subject.training,)

    def measure(self, subject: AnalysisTarget, ends: EndpointStore) -> dict[str, Any]:
        """See the base class."""
        end = ends.read(subject.training)
        names = list(Ticket.load(subject.task.path).mask)
        return {**magnitudes_of(end.backbone, names), "top1": end.measurements["top1"]}

    def describe_row(self, row: Mapping[str, Any]) -> str:
        """See the base class."""
        weights = f"{row['natural_density']:.2%} of {sum(row['counts']) + row['zeros']:,} weights are above"
        return f"{weights} {MACHINE_PRECISION:.3g}, {row['zeros']:,} are exactly 0, top-1 {row['top1']:.1%}"


def measure_magnitudes(
    paths: Sequence[Path], protocol: Protocol, seeds: Sequence[int] | None, bench: Engine
) -> Iterator[dict[str, Any]]:
    """Rows of the magnitudes to which these tickets train, each written before it is yielded; those there are not.

    Args:
        paths: of ticket files, those of level 0 for dense networks.
        protocol: under which networks are trained.
        seeds: one row each; None for the protocol's own.
        bench: where they are trained.

    Raises:
        BadInput: if a ticket cannot be analysed, or data is missing.
        Diverged: if a loss is not finite.
    """
    return run_analysis(Magnitudes(), make_analysis_tasks(paths, (), [protocol], seeds), bench)
