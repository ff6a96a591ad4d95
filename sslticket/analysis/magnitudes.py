"""How large trained weights are, and how many are zero by nature: those that training takes to zero by itself."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from sslticket.analysis.analyse import Analysis, analyse
from sslticket.analysis.endpoints import Endpoints
from sslticket.analysis.subjects import Course, Subject
from sslticket.evaluation.natural import MACHINE_PRECISION
from sslticket.evaluation.protocols import Protocol
from sslticket.evaluation.tasks import matrix
from sslticket.ticket import Ticket
from sslticket.training.workbench import Workbench

BIN = 0.1
"""Width of a bin in log10|w|; ours. An edge lies at machine precision, so the counts above it are natural weights."""


@dataclass(frozen=True)
class Magnitudes(Analysis):
    """Natural density at convergence, and the histogram of magnitudes (Finding Winning Tickets, Figure 6, Appendix D).

    Of the dense network, the ticket of level 0; of a sparse one, pruned weights are zeros too.
    """

    kind: ClassVar[str] = "magnitudes"

    def courses(self, subject: Subject) -> Sequence[Course]:
        """See the base class."""
        return (subject.course,)

    def measure(self, subject: Subject, ends: Endpoints) -> dict[str, Any]:
        """See the base class."""
        end = ends.read(subject.course)
        names = list(Ticket.load(subject.task.path).mask)
        layers = {name: (above(end.backbone[name]), end.backbone[name].numel()) for name in names}
        kept, total = (sum(counts) for counts in zip(*layers.values(), strict=True))
        return {
            "natural_density": kept / total,
            "layers": {name: list(counts) for name, counts in layers.items()},
            **histogram([end.backbone[name] for name in names]),
            "top1": end.told["top1"],
        }

    def line(self, row: Mapping[str, Any]) -> str:
        """See the base class."""
        weights = f"{row['natural_density']:.2%} of {sum(row['counts']) + row['zeros']:,} weights are above"
        return f"{weights} {MACHINE_PRECISION:.3g}, {row['zeros']:,} are exactly 0, top-1 {row['top1']:.1%}"


def magnitudes(
    paths: Sequence[Path], protocol: Protocol, seeds: Sequence[int] | None, bench: Workbench
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
    return analyse(Magnitudes(), matrix(paths, (), [protocol], seeds), bench)


def above(weights: Tensor) -> int:
    """How many are above machine precision."""
    return int((weights.abs() > MACHINE_PRECISION).sum())


def histogram(layers: Sequence[Tensor]) -> dict[str, Any]:
    """Weights by the logarithm of their magnitudes.

    Returns:
        bins: the n + 1 edges of log10|w|; counts: n numbers of weights, each above its lower edge and up to its upper
        one; zeros: weights that are exactly 0 and have no logarithm.
    """
    places: dict[int, int] = {}
    zeros = 0
    for layer in layers:
        magnitudes = layer.detach().abs().double().numpy().ravel()
        alive = magnitudes[magnitudes > 0]
        zeros += len(magnitudes) - len(alive)
        numbers, counts = np.unique(np.ceil(np.log10(alive / MACHINE_PRECISION) / BIN).astype(int), return_counts=True)
        for number, count in zip(numbers.tolist(), counts.tolist(), strict=True):
            places[number] = places.get(number, 0) + count
    if not places:
        return {"bins": [], "counts": [], "zeros": zeros}
    first, last, zero = min(places), max(places), math.log10(MACHINE_PRECISION)
    return {
        "bins": [round(zero + BIN * number, 6) for number in range(first - 1, last + 1)],
        "counts": [places.get(number, 0) for number in range(first, last + 1)],
        "zeros": zeros,
    }
