"""An analysis from outside the package: how large are the weights with which a ticket starts?

Run       sslticket analyse examples/weight_norm.py:WeightNorm runs/<key> --order 1; sslticket report runs/<key>
"""

from dataclasses import dataclass

import pandas as pd
import torch

from sslticket.analysis.base import TicketAnalysis
from sslticket.report.chart import Axis, Chart
from sslticket.report.sections import FigureGroup, Picker, Section, mean_curves, rows_of_kind
from sslticket.results.rows import Row
from sslticket.ticket import Ticket


@dataclass(frozen=True, kw_only=True)
class NormRow(Row):  # noqa: D101
    kind = "weight_norm"
    mean_norm: float


@dataclass(frozen=True)
class WeightNorm(TicketAnalysis):
    """The p-norm of the surviving weights at W_k, over their number; p is --order."""

    row_type, title = NormRow, "Norm of the surviving weights"
    order: int = 2

    def measure(self, ticket: Ticket) -> dict[str, float]:  # noqa: D102
        kept = torch.cat([ticket.weights[name][mask] for name, mask in ticket.mask.items()])
        return {"mean_norm": float(kept.norm(self.order)) / len(kept)}

    @classmethod
    def section(cls, rows: pd.DataFrame) -> Section:  # noqa: D102
        own, density = rows_of_kind(rows, "weight_norm"), Axis("weights remaining", "density", log=True)
        curves = mean_curves(own, "density", density, "mean_norm", "mean norm:")
        chart = Chart("weight-norm", cls.title, density, Axis("norm over number of weights"), curves)
        return Section("weight-norm", cls.title, str(cls.__doc__), (Picker("", (FigureGroup("", (chart,)),)),))
