"""What the figures of One Ticket to Win Them All share: sweeps at each scale, and panels.

Six searches each, evaluated at every level up to the sixth and then at every third (Appendix A.1). The output layer is
drawn anew, as section 3.3 has it.
"""

from collections.abc import Mapping, Sequence

from sslticket.campaign.panels import Panel
from sslticket.campaign.sweep import Evaluate, Sweep

SEEDS = range(6)
DATASETS = {
    "svhn": "SVHN",
    "fashion_mnist": "Fashion-MNIST",
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "imagenet": "ImageNet",
    "places365": "Places365",
}
"""The data sets in the order of the panels of figures 3 and 4."""
LARGE = ("imagenet", "places365")
RANDOM = {"random": {"control": "random"}}

# Two processor cores: the searches and protocols of docs/transfer.md, 16 pixels and 200 steps of 64 images. The three
# convolutions halve their weights six times, the 20-layer ResNet takes two halvings at once.
SMALL: Mapping[str, object] = {"dataset": "cifar10", "image-size": 16, "batch-size": 64, "weight-decay": 1e-4}
TWO_AT_ONCE = {"levels": 3, "rate": 0.75}
ON_FASHION = {"dataset": "fashion_mnist", "channels": 3}
SMALL_MEANS = (
    "images of 16 pixels, 200 steps of 64 with Adam, W_k after 30 steps, densities 100, 25, 6.25 and 1.56%, three "
    "seeds; three convolutions for VGG-19, the 20-layer ResNet for ResNet-50"
)
TRIAL_MEANS = "20 steps a search and two levels of 50%, one seed"


def scored(*protocols: str, controls: Sequence[str] = ("random",), levels: str | None = None) -> Evaluate:
    """Tickets with a new output layer, and random ones beside them."""
    return Evaluate(protocols=protocols, controls=controls, levels=levels, seeds="search", heads=["new"])


def small(
    *protocols: str,
    model: str = "conv3",
    settings: Mapping[str, object] | None = None,
    grid: Mapping[str, Sequence[object]] | None = None,
    controls: Sequence[str] = ("random",),
) -> Sweep:
    """Searches for a small network on small images."""
    heavy = model != "conv3"
    return Sweep(
        recipes=["supervised_digits"],
        settings={**SMALL, "model": model, **(TWO_AT_ONCE if heavy else {}), **(settings or {})},
        grid=grid or {},
        seeds=range(3),
        evaluate=[scored(*protocols, controls=controls, levels="0-3" if heavy else "0 2 4 6")],
    )


def trial(
    *protocols: str,
    model: str = "conv3",
    settings: Mapping[str, object] | None = None,
    grid: Mapping[str, Sequence[object]] | None = None,
    controls: Sequence[str] = ("random",),
) -> Sweep:
    """A search of a few steps."""
    return Sweep(
        recipes=["supervised_digits"],
        settings={"length": "20it", "levels": 2, "rewind": "4it", "model": model, **(settings or {})},
        grid=grid or {},
        evaluate=[scored(*protocols, controls=controls, levels="0 2")],
    )


def across_datasets(model: str, small_model: str) -> dict[str, list[Sweep]]:
    """Figures 3 and 4: tickets of six data sets on six; of the small ones CIFAR's alone are tried on the large ones."""
    on_small = [f"{name}-sgd" for name in DATASETS if name not in LARGE]
    on_large = [f"{name}-sgd" for name in LARGE]
    return {
        "paper": [
            *(
                Sweep(
                    recipes=[f"transfer_{model}_cifar10"],
                    settings={"dataset": name, **({"channels": 3} if name == "fashion_mnist" else {})},
                    seeds=SEEDS,
                    evaluate=[scored(*on_small, *(on_large if name.startswith("cifar") else []))],
                )
                for name in DATASETS
                if name not in LARGE
            ),
            Sweep(
                recipes=[f"transfer_{model}_imagenet"],
                grid={"dataset": list(LARGE)},
                seeds=SEEDS,
                evaluate=[scored(*on_small, *on_large)],
            ),
        ],
        "small": [
            small("fashion_mnist-small", "cifar10-small", model=small_model, settings=source)
            for source in ({}, ON_FASHION)
        ],
        "trial": [
            trial("digits-demo", "fashion_mnist-demo", model=small_model, settings=source)
            for source in ({}, {"dataset": "fashion_mnist", "image-size": 12})
        ],
    }


def target_panels(model: str, small_model: str) -> dict[str, list[Panel]]:
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

    small_sets, trial_sets = ("fashion_mnist", "cifar10"), ("digits", "fashion_mnist")
    return {
        "paper": [
            panel(
                target,
                [name for name in DATASETS if target not in LARGE or name in (*LARGE, "cifar10", "cifar100")],
                f"{target}-sgd",
                model,
            )
            for target in DATASETS
        ],
        "small": [panel(target, small_sets, f"{target}-small", small_model) for target in small_sets],
        "trial": [panel(target, trial_sets, f"{target}-demo", small_model) for target in trial_sets],
    }


DATA_MEANS = {
    "small": f"{SMALL_MEANS}; two of the six data sets, Fashion-MNIST and CIFAR-10",
    "trial": f"{TRIAL_MEANS}; digits and Fashion-MNIST",
}
