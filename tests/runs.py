"""Small real searches on scikit-learn's digits, shared by the tests of rooms that need tickets."""

from pathlib import Path

from sslticket.fit import SGD, Adam, Fit
from sslticket.machine import Machine
from sslticket.objectives.base import Objective
from sslticket.objectives.supervised import Supervised
from sslticket.recipe import Data, Recipe
from sslticket.search.imp import IMP
from sslticket.search.plan import Plan, plan
from sslticket.search.run import run
from sslticket.ticket import Ticket

STEPS, REWIND, BATCH = 6, 2, 32


def recipe(objective: Objective | None = None, *, momentum: bool = True, **changes: object) -> Recipe:
    """A search of three levels, six steps each, on digits."""
    optimizer = SGD(lr=0.1) if momentum else Adam(lr=3e-3)
    settings: dict[str, object] = {
        "model": "conv3",
        "data": Data(dataset="digits"),
        "objective": objective or Supervised(),
        "fit": Fit(length=f"{STEPS}it", batch_size=BATCH, optimizer=optimizer, drops=("4it",)),
        "search": IMP(levels=3, rate=0.5, rewind=f"{REWIND}it"),
        "precision": "fp32",  # whatever the device's own is: bits are compared
    }
    return Recipe(**(settings | changes))  # type: ignore[arg-type]


def search(out: Path, which: Recipe | None = None) -> Plan:
    """Run a search to its end."""
    planned = plan(which or recipe(), Machine(), out)
    run(planned, Machine())
    return planned


def tickets(planned: Plan) -> list[Ticket]:
    """Its tickets, as they lie on disk."""
    return [Ticket.load(planned.folder.ticket(level)) for level in range(planned.levels + 1)]
