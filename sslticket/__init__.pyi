from .analysis import ANALYSES
from .analysis.base import Analysis, EndpointAnalysis, TicketAnalysis
from .analysis.connectivity import Connectivity
from .analysis.overlap import DeadChannels, Overlap
from .analysis.trained_weights import Magnitudes, Stability
from .api import analyse_tickets, evaluate_tickets, find_tickets, load_recipe, read_rows, run_sweep, write_report
from .campaign.sweep import Analyse, Evaluate, Sweep
from .cli.recipe_commands import run
from .config import OPTIMIZERS
from .config.recipe import Data, Recipe
from .config.runtime import RuntimeConfig
from .config.training import LARS, SGD, Adam, AdamW, Optimizer, RMSprop, TrainConfig
from .data import TRANSFORMS
from .data.augment import Blur, Grayscale, HSVNoise, Jitter, Rotate, Solarize, Transform, View
from .data.datasets import DATASETS
from .data.datasets.base import Dataset, Layout
from .data.loader import Batch
from .errors import BadInput, Diverged
from .evaluation import CONTROLS, PROTOCOLS
from .evaluation.controls import Control
from .evaluation.protocols import Protocol
from .models import MODELS
from .objectives import OBJECTIVES
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
from .pruning import CRITERIA, GATES
from .pruning.criteria import ERK, SNIP, Criterion, GraSP, Magnitude, Random, SynFlow
from .pruning.gates import Gate, GateSettings, LearnedGate
from .search import SEARCHES
from .search.base import Search
from .search.dynamic import SET, RigL
from .search.imp import IMP
from .search.learned import ContinuousSparsification, EdgePopup, MaskTraining, StochasticSparsification
from .search.oneshot import OneShot
from .ticket import Ticket
from .training import TRACKERS
from .training.progress import Tracker

Fit = TrainConfig

__all__ = [
    "ANALYSES",
    "BYOL",
    "CONTROLS",
    "CRITERIA",
    "DATASETS",
    "DINO",
    "ERK",
    "GATES",
    "IMP",
    "LARS",
    "MODELS",
    "OBJECTIVES",
    "OPTIMIZERS",
    "PROTOCOLS",
    "SEARCHES",
    "SET",
    "SGD",
    "SNIP",
    "TRACKERS",
    "TRANSFORMS",
    "Adam",
    "AdamW",
    "Analyse",
    "Analysis",
    "BadInput",
    "BarlowTwins",
    "Batch",
    "Blur",
    "Connectivity",
    "ContinuousSparsification",
    "Control",
    "Criterion",
    "Data",
    "Dataset",
    "DeadChannels",
    "Diverged",
    "EdgePopup",
    "EndpointAnalysis",
    "Evaluate",
    "Exemplar",
    "Fit",
    "Gate",
    "GateSettings",
    "GraSP",
    "Grayscale",
    "HSVNoise",
    "Jitter",
    "Layout",
    "LearnedGate",
    "Magnitude",
    "Magnitudes",
    "MaskTraining",
    "MoCoV2",
    "Network",
    "Objective",
    "OneShot",
    "Optimizer",
    "Overlap",
    "Protocol",
    "RMSprop",
    "Random",
    "Recipe",
    "RigL",
    "RotNet",
    "Rotate",
    "RuntimeConfig",
    "S4LExemplar",
    "S4LRotation",
    "Search",
    "SimCLR",
    "SimSiam",
    "Solarize",
    "Stability",
    "StochasticSparsification",
    "Supervised",
    "SwAV",
    "Sweep",
    "SynFlow",
    "Ticket",
    "TicketAnalysis",
    "Tracker",
    "TrainConfig",
    "Transform",
    "VICReg",
    "View",
    "analyse_tickets",
    "evaluate_tickets",
    "find_tickets",
    "load_recipe",
    "read_rows",
    "run",
    "run_sweep",
    "write_report",
]
