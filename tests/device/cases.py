"""What is rehearsed: each objective, search, criterion and optimiser at a size that takes a second."""

from sslticket.config.recipe import Data, Precision, Recipe
from sslticket.config.runtime import RuntimeConfig
from sslticket.config.training import LARS, SGD, Adam, AdamW, Optimizer, RMSprop, TrainConfig
from sslticket.objectives.barlowtwins import BarlowTwins
from sslticket.objectives.base import Objective
from sslticket.objectives.byol import BYOL
from sslticket.objectives.dino import DINO
from sslticket.objectives.exemplar import Exemplar
from sslticket.objectives.ibot import DINOv2
from sslticket.objectives.mae import MAE
from sslticket.objectives.mocov2 import MoCoV2
from sslticket.objectives.rotnet import RotNet
from sslticket.objectives.s4l import S4L, S4LExemplar, S4LRotation
from sslticket.objectives.simclr import SimCLR
from sslticket.objectives.simsiam import SimSiam
from sslticket.objectives.supervised import Supervised
from sslticket.objectives.swav import SwAV
from sslticket.objectives.vicreg import VICReg
from sslticket.pruning.criteria import ERK, SNIP, Criterion, GraSP, Magnitude, Random, SynFlow
from sslticket.search.base import Search
from sslticket.search.dynamic import SET, RigL
from sslticket.search.imp import IMP
from sslticket.search.learned import ContinuousSparsification, EdgePopup, StochasticSparsification
from sslticket.search.oneshot import OneShot

STEPS, REWIND, BATCH = 5, 1, 32
MEASURED = 72  # images in a batch with which the objective's metrics are measured too: the training sees enough
MACHINE = RuntimeConfig(accumulate=1, channels_last=False, compile=False)

OBJECTIVES: dict[str, Objective] = {
    "supervised": Supervised(),
    "shuffled": Supervised(),
    "rotnet": RotNet(),
    "exemplar": Exemplar(dim=16),
    "exemplar-hard": Exemplar(dim=16, mining="hard"),
    "s4l-rotation": S4LRotation(),
    "s4l-exemplar": S4LExemplar(exemplar=Exemplar(copies=2, mining="hard", degrees=0.0, dim=16)),
    "simclr": SimCLR(dim=16),
    "mocov2": MoCoV2(dim=16, queue=96),
    "byol": BYOL(hidden=32, dim=16),
    "simsiam": SimSiam(dim=32, predictor=16),
    "barlowtwins": BarlowTwins(hidden=32, dim=16),
    "vicreg": VICReg(hidden=32, dim=16),
    "swav": SwAV(hidden=32, dim=16, prototypes=20),
    "dino": DINO(hidden=32, bottleneck=16, outputs=32),
    "mae": MAE(decoder_width=16, decoder_depth=1, decoder_heads=2),
    "dinov2": DINOv2(hidden=32, bottleneck=16, outputs=32),  # what iBOT does, and KoLeo
}

OPTIMIZERS: dict[str, Optimizer] = {
    "SGD": SGD(lr=0.05),
    "Adam": Adam(lr=1e-3),
    "AdamW": AdamW(lr=1e-3, weight_decay=0.1, last_weight_decay=0.5),
    "RMSprop": RMSprop(lr=1e-3, momentum=0.9),
    "LARS": LARS(lr=0.1),
}

CRITERIA: dict[str, Criterion] = {
    "magnitude": Magnitude(),
    "SNIP": SNIP(score_images=BATCH),
    "GraSP": GraSP(score_images=BATCH),
    "SynFlow": SynFlow(rounds=2),
    "random": Random(),
    "ERK": ERK(),
}


def imp(**changes: object) -> IMP:
    """Two levels, so that a sparse network is trained too."""
    return IMP(**({"levels": 2, "rate": 0.5, "rewind": f"{REWIND}it"} | changes))  # type: ignore[arg-type]


def oneshot(criterion: Criterion) -> OneShot:
    """One ticket from the scores of the network as it was drawn."""
    return OneShot(levels=1, rate=0.5, rewind="0it", scored="start", criterion=criterion)


SEARCHES: dict[str, Search] = {
    "IMP with settling": imp(early_bird=0.5, early_bird_window=1, early_bird_every="2it"),
    "IMP from the trained weights": imp(retrain="rate"),
    "IMP with fine-tuning": imp(retrain="finetune"),
    "IMP a layer at a time": imp(scope="layer", min_per_layer=1),
    "IMP by SNIP": imp(criterion=CRITERIA["SNIP"]),
    "one shot": OneShot(levels=2, rate=0.5, rewind=f"{REWIND}it"),
    "CS": ContinuousSparsification(rounds=2, rewind=f"{REWIND}it"),
    "CS from W_k, divided": ContinuousSparsification(
        rounds=2, rewind=f"{REWIND}it", rewind_weights=True, divided=True, scaled_reset=False, score_optimizer="adam"
    ),
    "supermask by CS": ContinuousSparsification(rounds=1, rewind="0it", frozen=True, masked_head=True),
    "ISS": StochasticSparsification(rounds=2, rewind=f"{REWIND}it"),
    "ISS of the likely": StochasticSparsification(rounds=2, rewind=f"{REWIND}it", sampled=False),
    "supermask by ISS": StochasticSparsification(rounds=1, rewind="0it", frozen=True, masked_head=True),
    "edge-popup": EdgePopup(density=0.5),
    "RigL": RigL(densities=(0.5, 0.2), update_interval="3it", update_until="100%"),
    "SET": SET(densities=(0.2,), update_interval="2it", ticket_weights="initial"),
    **{f"one shot by {name}": oneshot(criterion) for name, criterion in CRITERIA.items()},
}


def recipe(
    objective: str = "supervised",
    *,
    search: Search | None = None,
    optimizer: str = "SGD",
    model: str = "conv3",
    clip: float | None = None,
    precision: Precision = "fp32",
    steps: int = STEPS,
    batch_size: int = BATCH,
    **data: object,
) -> Recipe:
    """A search on digits."""
    named = OBJECTIVES[objective]
    if isinstance(named, S4L):
        data["labels"] = 0.5
    if objective == "shuffled":
        data["shuffle_labels"] = 1.0
    if isinstance(named, MAE | DINOv2):  # the smallest vision transformer, whose patches have 16 pixels a side
        model, data = "test_vit", data | {"image_size": 32}
    return Recipe(
        model=model,
        data=Data(dataset="digits", **data),  # type: ignore[arg-type]
        objective=named,
        training=TrainConfig(length=f"{steps}it", batch_size=batch_size, optimizer=OPTIMIZERS[optimizer], clip=clip),
        search=imp() if search is None else search,
        precision=precision,
    )
