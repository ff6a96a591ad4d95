"""Tickets of four data sets on four, of halves, and of two optimisers (findings 7, 12 and 13).

CIFAR-10, Fashion-MNIST, 80 classes of Tiny-ImageNet and digits, all as colour images of 16 pixels.

Run       sslticket sweep sweeps/findings/transfer.py --out runs/transfer --data-root /data
Cost      docs/findings.md has the core-hours that it took.
"""

from collections.abc import Mapping
from pathlib import Path

from findings_sweeps import RANDOM, SEEDS, TINY_PART, TRAINED, told

from sslticket import Evaluate, Sweep
from sslticket.campaign.panels import Between, Finding, Gap, Ordering, Panel
from sslticket.evaluation.protocols import find_protocol

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

NAMES = {
    "CIFAR-10": "cifar10",
    "Fashion-MNIST": "fashion_mnist",
    "Tiny-ImageNet-80": f"tiny_imagenet[{TINY_PART}]",
    "digits": "digits",
}
CIFAR10_SGD = find_protocol(f"{PROTOCOLS}:CIFAR10_SGD").name


def tickets(head: str = "new", **where: object) -> dict[str, object]:
    """Tickets of labels with one kind of head."""
    return {"control": "ticket", "head": head, **where}


ON_TARGETS = {
    target: Panel(
        title=f"On {label}",
        series={
            **{source: tickets(source=name, optimizer="Adam") for source, name in NAMES.items()},
            f"{label}, own head": tickets("own", source=target, optimizer="Adam"),
            **RANDOM,
        },
        where={"target": target, "model": "conv3"},
        x_scale="log",
    )
    for label, target in NAMES.items()
}
HALVES = Panel(
    title="On half b of CIFAR-10",
    series={"of half a": tickets(source="cifar10a"), "of half b": tickets(source="cifar10b"), **RANDOM},
    where={"target": "cifar10b"},
    x_scale="log",
)
WITH_SGD = Panel(
    title="Trained with SGD",
    series={"found with Adam": tickets(optimizer="Adam"), "found with SGD": tickets(optimizer="SGD"), **RANDOM},
    where={"target": "cifar10", "protocol": CIFAR10_SGD},
    x_scale="log",
)
SEVERE = Between(high=0.1)
figures = [
    told(
        "transfer",
        "Transfer across data sets, halves and optimisers",
        "Do tickets serve data sets, halves and optimisers on which they were not found?",
        [*ON_TARGETS.values(), HALVES, WITH_SGD],
        [
            *(
                Finding(
                    number=12,
                    text=f"{panel.title}: tickets of {source} are better than random ones.",
                    check=Ordering(panel=panel.title, series=(source, "random"), at=SEVERE),
                )
                for target, panel in ON_TARGETS.items()
                for source, name in NAMES.items()
                if name != target
            ),
            Finding(
                number=12,
                text="On Fashion-MNIST tickets of 80 classes of photographs are better than those of CIFAR-10's ten.",
                check=Ordering(panel="On Fashion-MNIST", series=("Tiny-ImageNet-80", "CIFAR-10"), at=SEVERE),
            ),
            Finding(
                number=12,
                text="Tickets of one half of CIFAR-10 serve the other half as its own do.",
                check=Gap(panel=HALVES.title, series=("of half b", "of half a"), at=SEVERE, low=-0.01, high=0.01),
            ),
            Finding(
                number=13,
                text="Trained with SGD, tickets that Adam found match those that SGD found.",
                check=Gap(
                    panel=WITH_SGD.title, series=("found with SGD", "found with Adam"), at=SEVERE, low=-0.01, high=0.01
                ),
            ),
        ],
        paper="000",
    )
]
