"""An analysis from outside the package: how large are the weights with which a ticket starts?

Run       sslticket analyse examples/weight_norm.py:WeightNorm runs/<key> --order 1
          sslticket report runs/<key>
Python    analyse_tickets("runs/<key>", analysis=WeightNorm(order=1))
"""

from dataclasses import dataclass

import torch

from sslticket.analysis.base import TicketAnalysis
from sslticket.report.chart import Axis, Chart
from sslticket.report.sections import FigureGroup, Picker, Section, mean_curves, rows_of_kind
from sslticket.report.sections.scores import DENSITY_AXIS
from sslticket.results.rows import Row


@dataclass(frozen=True, kw_only=True)
class NormRow(Row):
    """What a row has beside what every row says of its ticket."""
    kind = "weight_norm"
    mean_norm: float


@dataclass(frozen=True)
class WeightNorm(TicketAnalysis):
    """The p-norm of the surviving weights at W_k, over their number; p is --order."""
    row_type, title = NormRow, "Norm of the surviving weights"
    order: int = 2

    def measure(self, ticket):
        kept = torch.cat([ticket.weights[name][mask] for name, mask in ticket.mask.items()])
        return {"mean_norm": float(kept.norm(self.order)) / len(kept)}

    @classmethod
    def section(cls, rows):
        curves = mean_curves(rows_of_kind(rows, "weight_norm"), "density", DENSITY_AXIS, "mean_norm", "mean norm:")
        chart = Chart("weight-norm", cls.title, DENSITY_AXIS, Axis("norm / number of weights"), curves)
        return Section("weight-norm", cls.title, cls.__doc__, (Picker("", (FigureGroup(cls.title, (chart,)),)),))
