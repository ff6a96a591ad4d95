"""What the figures of the reproducibility report of One Ticket to Win Them All share: sweeps at each scale, and panels.

One search each, and every level is evaluated: section 5 has one seed, and 30 prunings in every curve. ImageNet and
Places365 were beyond its authors' means.
"""

from collections.abc import Mapping, Sequence

from sslticket.campaign.panels import Panel
from sslticket.campaign.sweep import Evaluate, Sweep

DATASETS = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "fashion_mnist": "Fashion-MNIST", "svhn": "SVHN"}
RANDOM = {"random": {"control": "random"}}
SMALL: Mapping[str, object] = {"dataset": "cifar10", "image-size": 16, "batch-size": 64, "weight-decay": 1e-4}
SMALL_MEANS = (
    "images of 16 pixels, 200 steps of 64 with Adam, W_k after 30 steps, densities 100, 25, 6.25 and 1.56%, one seed; "
    "three convolutions for VGG-19, the 20-layer ResNet for ResNet-50"
)
TRIAL_MEANS = "20 steps a search and two levels of 50%"


def scored(*protocols: str, levels: str) -> Evaluate:
    """Tickets with a new output layer, and random ones beside them."""
    return Evaluate(protocols=protocols, controls=["random"], levels=levels, seeds="search", heads=["new"])


def published(*recipes: str, protocols: Sequence[str], points: Sequence[Mapping[str, object]] = ()) -> Sweep:
    """Searches of the published recipes."""
    return Sweep(recipes=recipes, points=points, evaluate=[scored(*protocols, levels="all")])


def small(*protocols: str, model: str = "conv3", points: Sequence[Mapping[str, object]] = ()) -> Sweep:
    """Searches for a small network on small images."""
    fewer = {} if model == "conv3" else {"levels": 3, "rate": 0.75}
    levels = "0 2 4 6" if model == "conv3" else "0-3"
    return Sweep(
        recipes=["supervised_digits"],
        settings={**{name: value for name, value in SMALL.items() if name != "dataset"}, "model": model, **fewer},
        points=[{"dataset": "cifar10", **point} for point in points or ({},)],
        evaluate=[scored(*protocols, levels=levels)],
    )


def trial(*protocols: str, model: str = "conv3", points: Sequence[Mapping[str, object]] = ()) -> Sweep:
    """Searches of a few steps."""
    return Sweep(
        recipes=["supervised_digits"],
        settings={"length": "20it", "levels": 2, "rewind": "4it", "model": model},
        points=points,
        evaluate=[scored(*protocols, levels="0 2")],
    )


def across_datasets(model: str, small_model: str, left_out: Sequence[str] = ()) -> dict[str, list[Sweep]]:
    """Figures 3 and 4: tickets of each data set on each."""
    names = [name for name in DATASETS if name not in left_out]
    return {
        "paper": [
            published(
                f"transfer_{model}_cifar10",
                protocols=[f"{name}-sgd" for name in names],
                points=[{"dataset": name, **({"channels": 3} if name == "fashion_mnist" else {})} for name in names],
            )
        ],
        "small": [
            small(
                "fashion_mnist-small",
                "cifar10-small",
                model=small_model,
                points=[{}, {"dataset": "fashion_mnist", "channels": 3}],
            )
        ],
        "trial": [
            trial(
                "digits-demo",
                "fashion_mnist-demo",
                model=small_model,
                points=[{}, {"dataset": "fashion_mnist", "image-size": 12}],
            )
        ],
    }


def target_panels(model: str, small_model: str, left_out: Sequence[str] = ()) -> dict[str, list[Panel]]:
    """A panel for each target: a curve for each source, and random tickets."""

    def panel(target: str, sources: Sequence[str], protocol: str, network: str) -> Panel:
        series = {
            DATASETS.get(name, "digits"): {"source": name, "control": "ticket", "objective": "supervised"}
            for name in sources
        }
        return Panel(
            title=DATASETS.get(target, "digits"),
            series={**series, **RANDOM},
            where={"model": network, "target": target, "protocol": protocol},
            x_scale="log",
        )

    names = [name for name in DATASETS if name not in left_out]
    small_sets, trial_sets = ("fashion_mnist", "cifar10"), ("digits", "fashion_mnist")
    return {
        "paper": [panel(target, names, f"{target}-sgd", model) for target in names],
        "small": [panel(target, small_sets, f"{target}-small", small_model) for target in small_sets],
        "trial": [panel(target, trial_sets, f"{target}-demo", small_model) for target in trial_sets],
    }
