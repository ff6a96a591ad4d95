"""What the figures of Stabilizing the Lottery Ticket Hypothesis share: networks, sweeps at each scale, and panels.

Three searches each, as the paper's three trials; six pairs of orders of each make its 18 samples of stability to the
order of the data. The rewind points of figures 4, 7, 11 and 12 are ours: their axes are not in the paper's text.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sslticket.campaign.panels import Near, Panel, Published
from sslticket.campaign.sweep import Analyse, Evaluate, Sweep

SEEDS = range(3)


@dataclass(frozen=True, kw_only=True)
class Network:
    """A network of the paper's Figure 2 or 6, and what stands for it where little is at hand.

    Attributes:
        name: Its name in the paper, such as "Resnet-18".
        variant: "standard", "low" or "warmup"; "" where there is one alone.
        recipe: Published recipe.
        protocol: The protocol that trains as the recipe does.
        where: What its rows have.
        remaining: Fraction of the weights that the paper studies.
        level: Level of that fraction.
        rewinds: Rewind points of the figures that vary them.
        small: Settings of the small scale on top of `supervised_digits`.
        small_level: Level of the fraction there.
    """

    name: str
    variant: str = ""
    recipe: str
    protocol: str
    where: Mapping[str, object]
    remaining: float
    level: int
    rewinds: Sequence[str]
    small: Mapping[str, object]
    small_level: int

    @property
    def label(self) -> str:
        """Name and variant, as "Resnet-18 (low)"."""
        return f"{self.name} ({self.variant})" if self.variant else self.name

    def number(self, place: str, method: str, quantity: str, series: str, column: str) -> Published:
        """The paper's number of this network in one of its tables, as a cell."""
        return Published(
            drawn="cells",
            place=place,
            network=self.name,
            method=method,
            condition=f"{self.variant or 'standard'}*",
            quantity=quantity,
            series=series,
            column=column,
        )


# Two processor cores: CIFAR-10 at 16 pixels and 200 steps of 64 images; levels that prune what two of the paper's do.
_CIFAR10 = {
    "dataset": "cifar10",
    "image-size": 16,
    "batch-size": 64,
    "optimizer": "SGD",
    "weight-decay": 1e-4,
    "rate": 0.36,
}
SMALL_REWINDS = ("0it", "10it", "30it", "60it", "100it")
_RATES = {"standard": (0.1, "0ep"), "low": (0.01, "0ep")}


def _cifar10(name: str, variant: str, model: str, small_model: str, lr: float, warmup: str, **more: object) -> Network:
    small_warmup = "0ep" if warmup == "0ep" else "60it"
    return Network(
        name=name,
        variant=variant,
        recipe=f"stabilizing_{model}_cifar10_{variant}",
        protocol=f"cifar10-{model}" + f"-{variant}" * (variant != "standard"),
        where={"model": model, "source": "cifar10", "lr": lr, "warmup": warmup},
        small={**_CIFAR10, "model": small_model, "lr": lr, "warmup": small_warmup},
        **more,  # type: ignore[arg-type]
    )


LENET = Network(
    name="Lenet",
    recipe="stabilizing_lenet300_mnist",
    protocol="mnist",
    where={"model": "lenet300", "source": "mnist"},
    remaining=0.107,
    level=10,
    rewinds=("0it", "100it", "500it", "2000it", "5000it", "10000it", "20000it"),
    small={
        "dataset": "fashion_mnist",
        "model": "lenet300",
        "length": "5000it",
        "batch-size": 60,
        "lr": 1.2e-3,
        "drops": [],
        "rate": 0.36,
        "scope": "layer",
    },
    small_level=5,
)
RESNET18 = tuple(
    _cifar10(
        *("Resnet-18", variant, "resnet20", "resnet20", lr, warmup),
        remaining=0.167,
        level=8,
        rewinds=("0it", "100it", "250it", "500it", "1000it", "2000it", "4000it", "8000it", "14000it"),
        small_level=4,
    )
    for variant, (lr, warmup) in {**_RATES, "warmup": (0.03, "20000it")}.items()
)
VGG19 = tuple(
    _cifar10(
        *("VGG-19", variant, "vgg19", "conv3", lr, warmup),
        remaining=0.022,
        level=17,
        rewinds=("0it", "20it", "50it", "100it", "500it", "2000it", "8000it", "28000it"),
        small_level=9,
    )
    for variant, (lr, warmup) in {**_RATES, "warmup": (0.1, "10000it")}.items()
)
NETWORKS = (LENET, *RESNET18, *VGG19)
STAND_INS = {"vgg19": "conv3", "mnist": "fashion_mnist", "10000it": "60it", "20000it": "60it"}
TRIAL_STAND_INS = {"vgg19": "conv3", "mnist": "digits", "cifar10": "digits", "10000it": "6it", "20000it": "6it"}

CIFAR10_MEANS = (
    "CIFAR-10 at 16 pixels, 200 steps of 64 images, levels of 36%, three seeds; the 20-layer ResNet as in the paper, "
    "three convolutions for VGG-19"
)
SMALL_MEANS = f"{CIFAR10_MEANS}; LeNet-300-100 on Fashion-MNIST for MNIST, 5,000 steps"
TRIAL_DENSITY = 0.25  # of its second level
TRIAL_MEANS = "the 8x8 digits of scikit-learn, 20 steps a training, two levels, one seed"


def published(
    network: Network,
    *,
    rewinds: Sequence[str] = ("0it",),
    levels: int | None = None,
    evaluate: Sequence[Evaluate] = (),
    analyse: Sequence[Analyse] = (),
    settings: Mapping[str, object] | None = None,
) -> Sweep:
    """Searches of a published recipe from several rewind points."""
    return Sweep(
        recipes=[network.recipe],
        settings={**({} if levels is None else {"levels": levels}), **(settings or {})},
        grid={"rewind": list(rewinds)},
        seeds=SEEDS,
        evaluate=evaluate,
        analyse=analyse,
    )


def small(
    network: Network,
    *,
    rewinds: Sequence[str] = ("0it",),
    levels: int | None = None,
    evaluate: Sequence[Evaluate] = (),
    analyse: Sequence[Analyse] = (),
    settings: Mapping[str, object] | None = None,
) -> Sweep:
    """The same on small images, for few steps."""
    return Sweep(
        recipes=["supervised_digits"],
        settings={**network.small, "levels": network.small_level if levels is None else levels, **(settings or {})},
        grid={"rewind": list(rewinds)},
        seeds=SEEDS,
        evaluate=evaluate,
        analyse=analyse,
    )


def trial(
    network: Network,
    *,
    rewinds: Sequence[str] = ("0it",),
    evaluate: Sequence[Evaluate] = (),
    analyse: Sequence[Analyse] = (),
    settings: Mapping[str, object] | None = None,
) -> Sweep:
    """A few steps on digits."""
    own = {name: value for name, value in network.small.items() if name in ("model", "optimizer", "lr", "scope")}
    warmup = {"warmup": "6it"} if network.small.get("warmup") == "60it" else {}
    return Sweep(
        recipes=["supervised_digits"],
        settings={**own, **warmup, "length": "20it", "levels": 2, "rate": 0.5, **(settings or {})},
        grid={"rewind": list(rewinds)},
        evaluate=evaluate,
        analyse=analyse,
    )


def stability(protocol: str, level: int | str, seeds: Sequence[int] | str = "search") -> Analyse:
    """Stability to pruning and to the order of the data, beside random masks with the same layerwise proportions."""
    return Analyse(
        analysis="stability",
        protocols=[protocol],
        controls=["local"],
        levels=str(level),
        seeds=seeds,  # type: ignore[arg-type]
    )


def rewind_sweeps(networks: Iterable[Network]) -> dict[str, list[Sweep]]:
    """Stability and accuracy from several rewind points, at each scale."""
    networks = list(networks)
    return {
        "paper": [
            published(
                each, rewinds=each.rewinds, levels=each.level, analyse=[stability(each.protocol, each.level, range(6))]
            )
            for each in networks
        ],
        "small": [
            small(each, rewinds=SMALL_REWINDS, analyse=[stability("own@k", each.small_level)]) for each in networks
        ],
        "trial": [trial(each, rewinds=["0it", "4it"], analyse=[stability("own@k", 2)]) for each in networks],
    }


PAIR = {"IMP": {"control": "ticket"}, "random": {"control": "local"}}
MEASURES = {
    "order_distance": "order distance",
    "pruning_distance": "pruning distance",
    "order_angle": "order angle",
    "pruning_angle": "pruning angle",
    "top1": "accuracy",
}


def rewind_panels(networks: Iterable[Network], measures: Sequence[str]) -> list[Panel]:
    """A column of panels for each network: stabilities and accuracy against the rewind point."""
    networks = list(networks)
    return [
        Panel(
            title=f"{each.label}, {MEASURES[measure]}",
            x="rewind_iterations",
            y=measure,
            rows="stability",
            series=PAIR,
            where=each.where,
            x_scale="linear",
            published=rewind_thresholds(each) if measure in ("order_distance", "top1") else (),
        )
        for measure in measures
        for each in networks
    ]


def rewind_thresholds(network: Network) -> tuple[Published, ...]:
    """From where on the paper calls the standard networks stable, or as accurate as the dense one."""
    if network.variant != "standard":
        return ()
    return tuple(
        Published(drawn="threshold-x", place=place, network=network.name, quantity="rewind_iterations")
        for place in ("section 3",)
    )


def stability_tables(title: str, networks: Iterable[Network], place: str, measure: str) -> dict[str, list[Panel]]:
    """The paper's table of stabilities by distance or by angle, for each scale."""
    networks = list(networks)
    studied, tried = (_stability_table(title, networks, place, measure, density) for density in (None, TRIAL_DENSITY))
    return {"paper": [studied], "small": [studied], "trial": [tried]}


def _stability_table(title: str, networks: Sequence[Network], place: str, measure: str, density: float | None) -> Panel:
    """A line for each network's tickets and random masks, of the size that the paper studies or of another."""
    columns = {
        f"data order ({measure})": f"order_{measure}",
        f"pruning ({measure})": f"pruning_{measure}",
        "top-1": "top1",
    }
    methods = {"IMP": "IMP ticket", "random": "random"}
    lost = place == "Figure 10 table"  # which lacks the accuracies of VGG-19's tickets
    return Panel(
        title=title,
        kind="table",
        rows="stability",
        columns=columns,
        series={
            f"{each.label}, {kind}": {
                **each.where,
                **found,
                "rewind_samples": 0,
                "density": Near(value=density or each.remaining),
            }
            for each in networks
            for kind, found in PAIR.items()
        },
        published=[
            each.number(place, method, quantity, f"{each.label}, {kind}", column)
            for each in networks
            for kind, method in methods.items()
            for column, quantity in columns.items()
            if not (lost and quantity == "top1" and each.name == "VGG-19" and kind == "IMP")
        ],
    )
