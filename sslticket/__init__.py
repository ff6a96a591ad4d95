"""Lottery tickets from limited or no supervision: the names that recipes and notebooks use.

Each is imported when it is first asked for, so `import sslticket` costs nothing and `sslticket --help` needs no torch.
"""

import sys
from contextlib import nullcontext
from importlib import import_module
from typing import TYPE_CHECKING, Any

from sslticket.processes.stopping import early

if TYPE_CHECKING:
    from sslticket.cli.recipe import run
    from sslticket.data.effects import Blur, Grayscale, HSVNoise, Jitter, Rotate, Solarize
    from sslticket.data.views import View
    from sslticket.errors import BadInput, Diverged
    from sslticket.fit import LARS, SGD, Adam, Fit, RMSprop
    from sslticket.masking.criteria.erk import ERK
    from sslticket.masking.criteria.grasp import GraSP
    from sslticket.masking.criteria.magnitude import Magnitude
    from sslticket.masking.criteria.random import Random
    from sslticket.masking.criteria.snip import SNIP
    from sslticket.masking.criteria.synflow import SynFlow
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
    from sslticket.recipe import Data, Recipe
    from sslticket.search.continuous import ContinuousSparsification
    from sslticket.search.edgepopup import EdgePopup
    from sslticket.search.imp import IMP
    from sslticket.search.oneshot import OneShot
    from sslticket.search.stochastic import StochasticSparsification
    from sslticket.ticket import Ticket

_HOMES = {
    "Adam": "fit",
    "BYOL": "objectives.byol",
    "BadInput": "errors",
    "BarlowTwins": "objectives.barlowtwins",
    "Blur": "data.effects",
    "ContinuousSparsification": "search.continuous",
    "DINO": "objectives.dino",
    "Data": "recipe",
    "Diverged": "errors",
    "ERK": "masking.criteria.erk",
    "EdgePopup": "search.edgepopup",
    "Exemplar": "objectives.exemplar",
    "Fit": "fit",
    "GraSP": "masking.criteria.grasp",
    "Grayscale": "data.effects",
    "HSVNoise": "data.effects",
    "IMP": "search.imp",
    "Jitter": "data.effects",
    "LARS": "fit",
    "Magnitude": "masking.criteria.magnitude",
    "MoCoV2": "objectives.mocov2",
    "OneShot": "search.oneshot",
    "RMSprop": "fit",
    "Random": "masking.criteria.random",
    "Recipe": "recipe",
    "RotNet": "objectives.rotnet",
    "Rotate": "data.effects",
    "S4LExemplar": "objectives.s4l",
    "S4LRotation": "objectives.s4l",
    "SGD": "fit",
    "SNIP": "masking.criteria.snip",
    "SimCLR": "objectives.simclr",
    "SimSiam": "objectives.simsiam",
    "Solarize": "data.effects",
    "StochasticSparsification": "search.stochastic",
    "Supervised": "objectives.supervised",
    "SwAV": "objectives.swav",
    "SynFlow": "masking.criteria.synflow",
    "Ticket": "ticket",
    "VICReg": "objectives.vicreg",
    "View": "data.views",
    "run": "cli.recipe",
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
    "Fit",
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
    "VICReg",
    "View",
    "run",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'sslticket' has no attribute {name!r}")
    with early() if _in_script() else nullcontext():
        return getattr(import_module(f"sslticket.{_HOMES[name]}"), name)


def _in_script() -> bool:
    """Whether a script imports from here: a recipe is a command from its first line on."""
    frame = sys._getframe(2)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("importlib"):
        frame = frame.f_back
    return bool(frame.f_globals.get("__name__") == "__main__")
