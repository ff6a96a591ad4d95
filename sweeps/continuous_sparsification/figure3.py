"""Figure 3: tickets of continuous sparsification, of iterative stochastic sparsification and of iterative pruning.

Top-1 on CIFAR-10 against density. Left: Conv-6 from its initialisation; continuous sparsification of at most 4 rounds
from initial scores between -0.03 and 0.03. Right: the 20-layer ResNet that the paper calls ResNet-18, from epoch 2, in
at most 5 rounds without rewinding. The front has the best tickets of all runs and rounds. Settings: sections 4.1 and
4.2, those of recipes/continuous_sparsification.py; the right panel's scores are ours, since the paper names none.
"""

from sslticket.campaign.figure import Figure
from sslticket.campaign.panels import Between, Finding, Ordering, Panel, Published
from sslticket.campaign.sweep import Evaluate, Sweep

CONV6_SCORES = [-0.03, -0.02, -0.01, 0.0, 0.01, 0.02, 0.03]
RESNET_SCORES = [-0.3, -0.2, -0.1, -0.05, 0.0, 0.05, 0.1]
SERIES = {
    "CS, best of all runs": {"search": "ContinuousSparsification", "control": "ticket"},
    "IMP": {"search": "IMP", "control": "ticket"},
}
ISS = {"ISS": {"search": "StochasticSparsification", "control": "ticket"}}
ON_CONV6 = [Evaluate(protocols=["cifar10-conv6"], levels="all", seeds="search")]
ON_RESNET = [Evaluate(protocols=["cifar10-resnet20-85ep"], levels="all", seeds="search")]

# The searches of docs/searches.md: 200 steps of 64 images of 16 pixels.
SMALL: dict[str, object] = {
    "dataset": "cifar10",
    "image-size": 16,
    "batch-size": 64,
    "weight-decay": 1e-4,
    "rewind": "30it",
}
CONTINUOUS = {
    "search": "ContinuousSparsification",
    "rounds": 3,
    "rewind-weights": True,
    "final-temperature": 100.0,
    "penalty": 1e-8,
}
STOCHASTIC = {"search": "StochasticSparsification", "rounds": 6, "penalty": 1e-8}
RESNET = {"model": "resnet20", "levels": 3, "rate": 0.75}
RESNET_CS = {"model": "resnet20", **CONTINUOUS, "rewind-weights": False}


def small(settings: dict[str, object], scores: list[float] | None = None, levels: str = "1-6") -> Sweep:
    """A search on CIFAR-10 at 16 pixels; initial scores vary its density."""
    return Sweep(
        recipes=["supervised_digits"],
        settings={**SMALL, **settings},
        grid={} if scores is None else {"initial-score": scores},
        seeds=range(3),
        evaluate=[Evaluate(protocols=["cifar10-small"], levels=levels, seeds="search")],
    )


def trial(settings: dict[str, object], scores: list[float] | None = None) -> Sweep:
    """A few steps on digits."""
    return Sweep(
        recipes=["supervised_digits"],
        settings={"length": "20it", "rewind": "4it", **settings},
        grid={} if scores is None else {"initial-score": scores},
        evaluate=[Evaluate(levels="all", seeds="search")],
    )


LEFT = Panel(
    title="Conv-6",
    kind="front",
    series={**SERIES, **ISS},
    where={"model": "conv6", "source": "cifar10"},
    x_scale="log",
    fronts=["CS, best of all runs"],
    order=["CS, best of all runs", ("IMP", "ISS")],
    order_at=Between(low=0.03, high=0.9),
    published=[
        Published(
            drawn="threshold-x",
            place="section 4.1 (Figure 3 left)",
            condition="best-of-runs curve",
            quantity="remaining_percent",
            words="CS dominates IMP above",
        ),
        Published(
            drawn="threshold-x",
            place="section 4.1 (Figure 3 left)",
            condition="after 2 iterations*",
            quantity="sparsity_percent",
            words="CS in 2 rounds",
        ),
    ],
)
RIGHT = Panel(
    title="ResNet-18",
    kind="front",
    series=SERIES,
    where={"model": "resnet20", "source": "cifar10"},
    x_scale="log",
    fronts=["CS, best of all runs"],
    order=["CS, best of all runs", "IMP"],
    order_at=Between(low=0.03, high=0.9),
    published=[
        Published(
            drawn="threshold-x",
            place="section 4.2 (Figure 3 right)",
            condition="*best-of-runs curve",
            quantity="sparsity_percent",
            words="CS dominates IMP above",
        ),
        Published(
            drawn="threshold-x",
            place="section 4.2 (Figure 3 right)",
            condition="*first iteration",
            quantity="sparsity_percent",
            words="CS in 1 round",
        ),
    ],
)

figure = Figure(
    paper="continuous_sparsification",
    place="Figure 3",
    title="Tickets of learnt masks",
    question="Does continuous sparsification find better tickets than iterative pruning, in fewer rounds?",
    scales={
        "paper": [
            Sweep(recipes=["continuous_conv6_cifar10"], grid={"initial-score": CONV6_SCORES}, evaluate=ON_CONV6),
            Sweep(recipes=["continuous_conv6_cifar10_imp", "continuous_conv6_cifar10_iss"], evaluate=ON_CONV6),
            Sweep(recipes=["continuous_resnet20_cifar10"], grid={"initial-score": RESNET_SCORES}, evaluate=ON_RESNET),
            Sweep(recipes=["continuous_resnet20_cifar10_imp"], evaluate=ON_RESNET),
        ],
        "small": [
            small({}, levels="0 2 4 6"),
            small(STOCHASTIC),
            small(CONTINUOUS, [-0.03, -0.02, -0.01, 0.0]),
            small(RESNET, levels="0-3"),
            small(RESNET_CS, [-0.03, -0.02, 0.0]),
        ],
        "trial": [
            trial({"levels": 2}),
            trial({**STOCHASTIC, "rounds": 2}),
            trial({**CONTINUOUS, "rounds": 2}, [-0.01, 0.0]),
            trial({**RESNET, "levels": 2}),
            trial({**RESNET_CS, "rounds": 2}, [-0.01, 0.0]),
        ],
    },
    stand_ins={"small": {"conv6": "conv3"}, "trial": {"conv6": "conv3", "cifar10": "digits"}},
    means={
        "small": "CIFAR-10 at 16 pixels, 200 steps of 64 images, three rounds, six of the stochastic search and of "
        "pruning, three seeds; three convolutions for Conv-6, the 20-layer ResNet as in the paper",
        "trial": "the 8x8 digits of scikit-learn, 20 steps, two rounds, one seed",
    },
    panels=[LEFT, RIGHT],
    findings=[
        Finding(
            number=18,
            text="Conv-6: tickets of continuous sparsification are better than those of iterative pruning where more "
            "than 3% remain.",
            check=Ordering(panel="Conv-6", series=["CS, best of all runs", "IMP"], at=Between(low=0.03)),
        ),
        Finding(
            number=19,
            text="ResNet-18: tickets of continuous sparsification without rewinding are better than those of iterative "
            "pruning below 97% sparsity.",
            check=Ordering(panel="ResNet-18", series=["CS, best of all runs", "IMP"], at=Between(low=0.03)),
        ),
    ],
)
