"""Small real searches on scikit-learn's digits, shared by the tests of rooms that need tickets."""

from pathlib import Path

from sslticket.config.recipe import Data, Recipe
from sslticket.config.runtime import RuntimeConfig
from sslticket.config.training import SGD, Adam, TrainConfig
from sslticket.objectives.base import Objective
from sslticket.objectives.supervised import Supervised
from sslticket.search.imp import IMP
from sslticket.search.plan import SearchPlan, plan_search
from sslticket.search.run_search import run_search
from sslticket.ticket import Ticket

STEPS, REWIND, BATCH = 6, 2, 32


def recipe(objective: Objective | None = None, *, momentum: bool = True, **changes: object) -> Recipe:
    """A search of three levels, six steps each, on digits."""
    optimizer = SGD(lr=0.1) if momentum else Adam(lr=3e-3)
    settings: dict[str, object] = {
        "model": "conv3",
        "data": Data(dataset="digits"),
        "objective": objective or Supervised(),
        "training": TrainConfig(length=f"{STEPS}it", batch_size=BATCH, optimizer=optimizer, drops=("4it",)),
        "search": IMP(levels=3, rate=0.5, rewind=f"{REWIND}it"),
        "precision": "fp32",  # whatever the device's own is: bits are compared
    }
    return Recipe(**(settings | changes))  # type: ignore[arg-type]


def search(out: Path, which: Recipe | None = None) -> SearchPlan:
    """Run a search to its end."""
    planned = plan_search(which or recipe(), RuntimeConfig(), out)
    run_search(planned, RuntimeConfig())
    return planned


def tickets(planned: SearchPlan) -> list[Ticket]:
    """Its tickets, as they lie on disk."""
    return [Ticket.load(planned.run_dir.ticket_path(level)) for level in range(planned.levels + 1)]
