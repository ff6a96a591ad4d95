"""What the figures on ImageNet share (section 5): networks, sweeps at each scale, and panels.

Five searches each, as the five trials of Figure 6. Where little is at hand three convolutions stand for ResNet-50, and
nothing for Inception-v3 and Squeezenet, whose question is the same: `supervised_digits` on CIFAR-10 at 16 pixels, 200
steps of 64 images, which are the searches of docs/searches.md.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sslticket.campaign.panels import Near, Panel, Published
from sslticket.campaign.sweep import Analyse, Evaluate, Sweep

SEEDS = range(5)
SMALL_SEEDS = range(3)


@dataclass(frozen=True, kw_only=True)
class Network:
    """A network of Figure 6.

    Attributes:
        name: Its name in the paper.
        recipe: Published recipe, which prunes at once.
        protocol: The protocol that trains as the recipe does.
        model: Name of the model.
        remaining: Fraction of the weights that the paper studies.
        rewind: Rewind point just after which tickets match the dense network.
        rewinds: Rewind points of the figures that vary them.
    """

    name: str
    recipe: str
    protocol: str
    model: str
    remaining: float
    rewind: str
    rewinds: Sequence[str]


RESNET50 = Network(
    name="Resnet-50",
    recipe="stabilizing_resnet50_oneshot",
    protocol="imagenet-resnet50",
    model="resnet50",
    remaining=0.3,
    rewind="4ep",
    rewinds=("0ep", "1ep", "2ep", "4ep", "6ep", "9ep", "12ep"),
)
INCEPTION = Network(
    name="Inception-v3",
    recipe="stabilizing_inception_oneshot",
    protocol="imagenet-inception_v3",
    model="inception_v3",
    remaining=0.3,
    rewind="6ep",
    rewinds=("0ep", "2ep", "4ep", "6ep", "9ep", "12ep", "17ep"),
)
SQUEEZENET = Network(
    name="Squeezenet",
    recipe="stabilizing_squeezenet_oneshot",
    protocol="imagenet-squeezenet1_0",
    model="squeezenet1_0",
    remaining=0.5,
    rewind="10ep",
    rewinds=("0ep", "2ep", "5ep", "10ep", "15ep", "20ep"),
)
NETWORKS = (RESNET50, INCEPTION, SQUEEZENET)

SMALL: Mapping[str, object] = {"dataset": "cifar10", "image-size": 16, "batch-size": 64, "weight-decay": 1e-4}
SMALL_REWINDS = ("0it", "10it", "30it", "60it", "100it")
SMALL_MEANS = (
    "three convolutions on CIFAR-10 at 16 pixels for ResNet-50 on ImageNet, 200 steps of 64 images, levels of 50%, "
    "three seeds; nothing stands for Inception-v3 and Squeezenet, whose question is the same"
)
TRIAL_MEANS = "the 8x8 digits of scikit-learn, 20 steps a training, two levels, one seed, for ResNet-50 alone"
STAND_INS = {
    "small": {"resnet50": "conv3", "imagenet": "cifar10"},
    "trial": {"resnet50": "conv3", "imagenet": "digits"},
}


def small(
    *, settings: Mapping[str, object] | None = None, rewinds: Sequence[str] = ("30it",), measure: Sequence[object] = ()
) -> Sweep:
    """Searches on CIFAR-10, and what is measured of their tickets."""
    return Sweep(
        recipes=["supervised_digits"],
        settings={**SMALL, **(settings or {})},
        grid={"rewind": list(rewinds)},
        seeds=SMALL_SEEDS,
        evaluate=[each for each in measure if isinstance(each, Evaluate)],
        analyse=[each for each in measure if isinstance(each, Analyse)],
    )


def trial(
    *, settings: Mapping[str, object] | None = None, rewinds: Sequence[str] = ("4it",), measure: Sequence[object] = ()
) -> Sweep:
    """A few steps on digits."""
    return Sweep(
        recipes=["supervised_digits"],
        settings={"length": "20it", "levels": 2, **(settings or {})},
        grid={"rewind": list(rewinds)},
        evaluate=[each for each in measure if isinstance(each, Evaluate)],
        analyse=[each for each in measure if isinstance(each, Analyse)],
    )


def stability(protocol: str, levels: str) -> Analyse:
    """Stability of tickets, and of random masks with the same layerwise proportions."""
    return Analyse(analysis="stability", protocols=[protocol], controls=["local"], levels=levels, seeds="search")


REWIND_SCALES = {
    "paper": [
        Sweep(
            recipes=[each.recipe],
            grid={"rewind": list(each.rewinds)},
            seeds=SEEDS,
            analyse=[stability(each.protocol, "1")],
        )
        for each in NETWORKS
    ],
    "small": [small(rewinds=SMALL_REWINDS, measure=[stability("cifar10-small@k", "6")])],
    "trial": [trial(rewinds=["0it", "4it"], measure=[stability("own@k", "2")])],
}
"""Figures 7 and 12: stability and accuracy from several rewind points."""


def rewind_panels(measures: Mapping[str, str]) -> dict[str, list[Panel]]:
    """Stabilities and accuracy against the rewind point, for each network of a scale."""

    def panel(network: Network, measure: str, density: float, x: str) -> Panel:
        reached = Published(
            drawn="threshold-x",
            place="section 5",
            network=network.name,
            quantity="rewind_epoch",
            words="as the dense one",
        )
        return Panel(
            title=f"{network.name}, {measures[measure]}",
            x=x,
            y=measure,
            rows="stability",
            series={"IMP": {"control": "ticket"}, "random": {"control": "local"}},
            where={"model": network.model, "source": "imagenet", "density": Near(value=density)},
            x_scale="linear",
            published=[reached] if x == "rewind_epochs" else (),
        )

    return {
        "paper": [panel(each, measure, each.remaining, "rewind_epochs") for measure in measures for each in NETWORKS],
        "small": [panel(RESNET50, measure, 0.5**6, "rewind_iterations") for measure in measures],
        "trial": [panel(RESNET50, measure, 0.25, "rewind_iterations") for measure in measures],
    }
