"""Lottery tickets from limited or no supervision: the names that recipes and notebooks use.

Each is imported when it is first asked for, so `import sslticket` costs nothing and `sslticket --help` needs no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sslticket.cli.recipe import run
    from sslticket.data.views import View
    from sslticket.errors import BadInput, Diverged
    from sslticket.fit import SGD, Adam, Fit
    from sslticket.objectives.rotnet import RotNet
    from sslticket.objectives.supervised import Supervised
    from sslticket.recipe import Data, Recipe
    from sslticket.search.imp import IMP
    from sslticket.ticket import Ticket

_HOMES = {
    "Adam": "fit",
    "BadInput": "errors",
    "Data": "recipe",
    "Diverged": "errors",
    "Fit": "fit",
    "IMP": "search.imp",
    "Recipe": "recipe",
    "RotNet": "objectives.rotnet",
    "SGD": "fit",
    "Supervised": "objectives.supervised",
    "Ticket": "ticket",
    "View": "data.views",
    "run": "cli.recipe",
}

__all__ = [
    "IMP",
    "SGD",
    "Adam",
    "BadInput",
    "Data",
    "Diverged",
    "Fit",
    "Recipe",
    "RotNet",
    "Supervised",
    "Ticket",
    "View",
    "run",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'sslticket' has no attribute {name!r}")
    return getattr(import_module(f"sslticket.{_HOMES[name]}"), name)
