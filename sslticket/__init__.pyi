from .analysis.base import Analysis
from .api import analyse_tickets, evaluate_tickets, find_tickets, load_recipe, read_rows, write_report
from .cli.recipe_commands import run
from .config.recipe import Data, Recipe
from .config.runtime import RuntimeConfig
from .config.training import LARS, SGD, Adam, RMSprop, TrainConfig
from .data.augment import View
from .data.loader import Batch
from .data.transforms import Blur, Grayscale, HSVNoise, Jitter, Rotate, Solarize
from .errors import BadInput, Diverged
from .evaluation.protocols import Protocol
from .objectives.barlowtwins import BarlowTwins
from .objectives.base import Network, Objective
from .objectives.byol import BYOL
from .objectives.dino import DINO
from .objectives.exemplar import Exemplar
from .objectives.mocov2 import MoCoV2
from .objectives.rotnet import RotNet
from .objectives.s4l import S4LExemplar, S4LRotation
from .objectives.simclr import SimCLR
from .objectives.simsiam import SimSiam
from .objectives.supervised import Supervised
from .objectives.swav import SwAV
from .objectives.vicreg import VICReg
from .pruning.criteria import ERK, SNIP, Criterion, GraSP, Magnitude, Random, SynFlow
from .search.base import Search
from .search.imp import IMP
from .search.learned import ContinuousSparsification, EdgePopup, MaskTraining, StochasticSparsification
from .search.oneshot import OneShot
from .ticket import Ticket

Fit = TrainConfig

__all__ = [
    "BYOL",
    "DINO",
    "ERK",
    "IMP",
    "LARS",
    "SGD",
    "SNIP",
    "Adam",
    "Analysis",
    "BadInput",
    "BarlowTwins",
    "Batch",
    "Blur",
    "ContinuousSparsification",
    "Criterion",
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
    "MaskTraining",
    "MoCoV2",
    "Network",
    "Objective",
    "OneShot",
    "Protocol",
    "RMSprop",
    "Random",
    "Recipe",
    "RotNet",
    "Rotate",
    "RuntimeConfig",
    "S4LExemplar",
    "S4LRotation",
    "Search",
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
    "analyse_tickets",
    "evaluate_tickets",
    "find_tickets",
    "load_recipe",
    "read_rows",
    "run",
    "write_report",
]
