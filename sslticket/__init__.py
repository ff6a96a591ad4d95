"""Lottery tickets from limited or no supervision: the names that recipes and notebooks use.

Each is imported when it is first asked for, so `import sslticket` costs nothing and `sslticket --help` needs no torch.
"""

import sys
from contextlib import nullcontext
from importlib import import_module
from typing import TYPE_CHECKING, Any

from sslticket.processes.signals import quiet_exit_during_imports

if TYPE_CHECKING:
    from sslticket.cli.recipe_commands import run
    from sslticket.config.recipe import Data, Recipe
    from sslticket.config.training import LARS, SGD, Adam, RMSprop, TrainConfig
    from sslticket.data.augment import View
    from sslticket.data.transforms import Blur, Grayscale, HSVNoise, Jitter, Rotate, Solarize
    from sslticket.errors import BadInput, Diverged
    from sslticket.objectives.barlowtwins import BarlowTwins
    from sslticket.objectives.byol import BYOL
    from sslticket.objectives.dino import DINO
    from sslticket.objectives.exemplar import Exemplar
    from sslticket.objectives.mocov2 import MoCoV2
    from sslticket.objectives.rotnet import RotNet
    from sslticket.objectives.s4l import S4LExemplar, S4LRotation
    from sslticket.objectives.simclr import SimCLR
    from sslticket.objectives.simsiam import SimSiam
    from sslticket.objectives.supervised import Supervised
    from sslticket.objectives.swav import SwAV
    from sslticket.objectives.vicreg import VICReg
    from sslticket.pruning.criteria import ERK, SNIP, GraSP, Magnitude, Random, SynFlow
    from sslticket.search.imp import IMP
    from sslticket.search.learned import ContinuousSparsification, EdgePopup, StochasticSparsification
    from sslticket.search.oneshot import OneShot
    from sslticket.ticket import Ticket

_HOMES = {
    "Adam": "config.training",
    "BYOL": "objectives.byol",
    "BadInput": "errors",
    "BarlowTwins": "objectives.barlowtwins",
    "Blur": "data.transforms",
    "ContinuousSparsification": "search.learned",
    "DINO": "objectives.dino",
    "Data": "config.recipe",
    "Diverged": "errors",
    "ERK": "pruning.criteria",
    "EdgePopup": "search.learned",
    "Exemplar": "objectives.exemplar",
    "TrainConfig": "config.training",
    "GraSP": "pruning.criteria",
    "Grayscale": "data.transforms",
    "HSVNoise": "data.transforms",
    "IMP": "search.imp",
    "Jitter": "data.transforms",
    "LARS": "config.training",
    "Magnitude": "pruning.criteria",
    "MoCoV2": "objectives.mocov2",
    "OneShot": "search.oneshot",
    "RMSprop": "config.training",
    "Random": "pruning.criteria",
    "Recipe": "config.recipe",
    "RotNet": "objectives.rotnet",
    "Rotate": "data.transforms",
    "S4LExemplar": "objectives.s4l",
    "S4LRotation": "objectives.s4l",
    "SGD": "config.training",
    "SNIP": "pruning.criteria",
    "SimCLR": "objectives.simclr",
    "SimSiam": "objectives.simsiam",
    "Solarize": "data.transforms",
    "StochasticSparsification": "search.learned",
    "Supervised": "objectives.supervised",
    "SwAV": "objectives.swav",
    "SynFlow": "pruning.criteria",
    "Ticket": "ticket",
    "VICReg": "objectives.vicreg",
    "View": "data.augment",
    "run": "cli.recipe_commands",
}

__all__ = [
    "BYOL",
    "DINO",
    "ERK",
    "IMP",
    "LARS",
    "SGD",
    "SNIP",
    "Adam",
    "BadInput",
    "BarlowTwins",
    "Blur",
    "ContinuousSparsification",
    "Data",
    "Diverged",
    "EdgePopup",
    "Exemplar",
    "GraSP",
    "Grayscale",
    "HSVNoise",
    "Jitter",
    "Magnitude",
    "MoCoV2",
    "OneShot",
    "RMSprop",
    "Random",
    "Recipe",
    "RotNet",
    "Rotate",
    "S4LExemplar",
    "S4LRotation",
    "SimCLR",
    "SimSiam",
    "Solarize",
    "StochasticSparsification",
    "Supervised",
    "SwAV",
    "SynFlow",
    "Ticket",
    "TrainConfig",
    "VICReg",
    "View",
    "run",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'sslticket' has no attribute {name!r}")
    with quiet_exit_during_imports() if _in_script() else nullcontext():
        return getattr(import_module(f"sslticket.{_HOMES[name]}"), name)


def _in_script() -> bool:
    """Whether a script imports from here: a recipe is a command from its first line on."""
    frame = sys._getframe(2)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("importlib"):
        frame = frame.f_back
    return bool(frame.f_globals.get("__name__") == "__main__")
