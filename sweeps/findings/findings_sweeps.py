"""What the sweeps of docs/findings.md share: networks, data sets, trainings, and protocols.

The scale: three convolutions (14,256 prunable weights), 400 steps of 64 images, W_k after 3,840 samples whatever the
subset is, three levels of 70%: densities 30, 9 and 2.7%. CIFAR-10 is seen at 16 pixels, Tiny-ImageNet-80 (80 of its
classes, 500 photographs each) at 32. Every ticket, whatever found it, starts from a new head and is trained on all
images and labels of its target.

Source    our own settings, chosen so that six searches of everything fit two processor cores.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from sslticket import Adam, Evaluate, Sweep, TrainConfig
from sslticket.evaluation.protocols import Protocol

SEEDS = range(6)
TINY_PART = "80 classes"

_TRAINING = TrainConfig(
    length="400it", batch_size=64, optimizer=Adam(lr=3e-3, weight_decay=1e-4), drops=("280it", "360it")
)
CIFAR10 = Protocol(name="cifar10-findings", dataset="cifar10", training=_TRAINING, image_size=16, seeds=(0,))
TINY = Protocol(name="tiny-findings", dataset="tiny_imagenet", training=_TRAINING, image_size=32, seeds=(0,))

PROTOCOLS = {"cifar10": f"{Path(__file__)}:CIFAR10", "tiny_imagenet": f"{Path(__file__)}:TINY"}
TRAINED: Mapping[str, object] = {
    "batch-size": 64,
    "length": "400it",
    "drops": ["280it", "360it"],
    "weight-decay": 1e-4,
    "rewind": "3840samples",
    "levels": 3,
    "rate": 0.7,
}
IMAGES: Mapping[str, Mapping[str, object]] = {
    "cifar10": {"dataset": "cifar10", "image-size": 16},
    "tiny_imagenet": {"dataset": "tiny_imagenet", "part": TINY_PART, "image-size": 32},
}
OBJECTIVES: Sequence[Mapping[str, object]] = tuple(
    {"objective": name} for name in ("Supervised", "RotNet", "Exemplar", "SimCLR")
)
TENTH_OF_LABELS: Mapping[str, object] = {"objective": "S4LRotation", "labels": 0.1}


def scored(
    target: str, *, controls: Sequence[str] = (), levels: str = "1-3", heads: Sequence[str] = ("new",)
) -> Evaluate:
    """Top-1 of tickets on all images of a target, each search's under its own seed."""
    part = TINY_PART if target == "tiny_imagenet" else None
    return Evaluate(
        protocols=[PROTOCOLS[target]],
        controls=controls,
        levels=levels,
        seeds="search",
        heads=heads,  # type: ignore[arg-type]
        part=part,
    )


def searches(
    source: str,
    *points: Mapping[str, object],
    settings: Mapping[str, object] | None = None,
    evaluate: Sequence[Evaluate] | None = None,
    title: str = "",
) -> Sweep:
    """Six searches of each point on one data set, scored there unless something else is asked for."""
    varied = {name for point in points for name in point}
    usual = {**TRAINED, **IMAGES[source], **(settings or {})}
    return Sweep(
        title=title,
        recipes=["supervised_digits"],
        settings={name: value for name, value in usual.items() if name not in varied},
        points=points,
        seeds=SEEDS,
        evaluate=[scored(source)] if evaluate is None else evaluate,
    )


def low_shot(target: str, classes: Sequence[float], others: Sequence[Mapping[str, object]]) -> list[Sweep]:
    """The low-shot law on one data set: parts of the images and of the classes, by equal steps and by equal epochs.

    Args:
        target: The data set.
        classes: Fractions of its classes.
        others: Data sets whose tickets are tried on it, as settings.
    """
    fractions = (0.3, 0.1, 0.03, 0.01)
    whole = [scored(target, controls=["random"], levels="0-3"), scored(target, heads=["own"], levels="0-3")]
    # The epochs of 400 steps on the whole set. 3,840 samples do not fit there: W_k lies after the same share.
    epochs: list[Mapping[str, object]] = [
        {
            "subset": fraction,
            "length": f"{round(400 * fraction)}it",
            "drops": [f"{round(280 * fraction)}it", f"{round(360 * fraction)}it"],
            "rewind": "15%",
        }
        for fraction in fractions[:3]
    ]
    return [
        searches(target, OBJECTIVES[0], evaluate=whole, title="Labels on all images, and random tickets"),
        searches(target, *OBJECTIVES[1:], TENTH_OF_LABELS, title="No labels, or a tenth of them, on all images"),
        searches(
            target,
            *({**task, "subset": part} for part in fractions for task in OBJECTIVES),
            title="Parts of the images, equal steps",
        ),
        searches(
            target,
            *({**task, "subset": part, "subset-by": "classes"} for part in classes for task in OBJECTIVES),
            title="Parts of the classes, equal steps",
        ),
        searches(
            target,
            *({**task, **part} for part in epochs for task in OBJECTIVES),
            title="Parts of the images, equal epochs",
        ),
        searches(target, *others, title="Labels of other data sets"),
    ]
