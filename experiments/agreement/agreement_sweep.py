"""Whether a fast protocol ranks tickets as a full one does: conv3 on CIFAR-10 and Tiny-ImageNet, 32 pixels.

Run       sslticket sweep experiments/agreement/agreement_sweep.py --out runs/agreement --data-root /data
Cost      45 minutes on one busy core; a data root with all classes of Tiny-ImageNet needs PART to be None.
"""

from dataclasses import replace
from pathlib import Path

from sslticket import IMP, Adam, Data, Evaluate, Recipe, RotNet, Supervised, Sweep, TrainConfig

SEEDS = (0, 1, 2)
PART = "tiny80"
PROTOCOLS = Path(__file__).with_name("small_protocols.py")

LABELS = Recipe(
    model="conv3",
    data=Data(dataset="cifar10"),
    objective=Supervised(),
    training=TrainConfig(
        length="200it", batch_size=64, optimizer=Adam(lr=3e-3, weight_decay=1e-4), drops=("140it", "180it")
    ),
    search=IMP(levels=3, rate=0.75, rewind="30it"),
)
# A batch of 32 images in four turns each.
ROTNET = replace(LABELS, objective=RotNet(), training=replace(LABELS.training, batch_size=32))
TINY = Data(dataset="tiny_imagenet", part=PART, image_size=32)


def scores(*protocols: str, part: str | None = None) -> list[Evaluate]:
    """Top-1 of tickets and random ones with new heads, each search's under its own seed."""
    names = [f"{PROTOCOLS}:{name}" for name in protocols]
    return [Evaluate(protocols=names, controls=["random"], levels="all", seeds="search", heads=["new"], part=part)]


sweeps = [
    Sweep(
        title="Does a fast protocol rank tickets as a full one does",
        recipes=[LABELS, ROTNET],
        seeds=SEEDS,
        evaluate=scores("CIFAR10_FULL", "CIFAR10_FAST"),
    ),
    Sweep(
        recipes=[replace(LABELS, data=TINY), replace(ROTNET, data=TINY)],
        seeds=SEEDS,
        evaluate=scores("TINY_FULL", "TINY_FAST", part=PART),
    ),
]
