"""Tickets of four data sets on four, of halves, and of two optimisers (findings 7, 12 and 13).

CIFAR-10, Fashion-MNIST, 80 classes of Tiny-ImageNet and digits, all as colour images of 16 pixels.

Run       sslticket sweep sweeps/findings/transfer.py --out runs/transfer --data-root /data
Cost      docs/findings.md has the core-hours that it took.
"""

from collections.abc import Mapping
from pathlib import Path

from findings_sweeps import SEEDS, TINY_PART, TRAINED

from sslticket import Evaluate, Sweep

SOURCES: dict[str, Mapping[str, object]] = {
    "cifar10": {"dataset": "cifar10"},
    "fashion_mnist": {"dataset": "fashion_mnist"},
    "tiny_imagenet": {"dataset": "tiny_imagenet", "part": TINY_PART},
    "digits": {"dataset": "digits"},
}
PROTOCOLS = Path(__file__).with_name("transfer_protocols.py")


def scored(*names: str, controls: tuple[str, ...] = (), head: str = "new", levels: str = "0-3") -> list[Evaluate]:
    """Tickets under some protocols, each search's under its own seed; Tiny-ImageNet is a part of its set."""
    return [
        Evaluate(
            protocols=[f"{PROTOCOLS}:{name}"],
            controls=controls,
            levels=levels,
            seeds="search",
            heads=[head],  # type: ignore[list-item]
            part=TINY_PART if name == "TINY16" else None,
        )
        for name in names
    ]


def searched(settings: Mapping[str, object], evaluate: list[Evaluate], title: str = "") -> Sweep:
    """Six searches by labels on colour images of 16 pixels."""
    return Sweep(
        title=title,
        recipes=["supervised_digits"],
        settings={**TRAINED, "image-size": 16, "channels": 3, **settings},
        seeds=SEEDS,
        evaluate=evaluate,
    )


OWN = {"cifar10": "CIFAR10", "fashion_mnist": "FASHION16", "tiny_imagenet": "TINY16", "digits": "DIGITS16"}
SGD = {"optimizer": "SGD", "lr": 0.1}
sweeps = [
    *(
        searched(
            settings,
            [
                *scored(*(name for source, name in OWN.items() if source != here), levels="1-3"),
                *scored(OWN[here], controls=("random",)),
                *scored(OWN[here], head="own"),
            ],
            title=f"Tickets of {here} on four data sets",
        )
        for here, settings in SOURCES.items()
    ),
    searched({"dataset": "cifar10", "half": "a"}, scored("CIFAR10A", "CIFAR10B"), title="Halves"),
    searched({"dataset": "cifar10", "half": "b"}, scored("CIFAR10B", controls=("random",))),
    searched({"dataset": "cifar10", **SGD}, scored("CIFAR10", "CIFAR10_SGD"), title="Optimisers"),
    searched({"dataset": "cifar10"}, scored("CIFAR10_SGD", controls=("random",))),
]
