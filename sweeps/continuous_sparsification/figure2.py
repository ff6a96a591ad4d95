"""Figure 2: masks of an untrained network, by continuous and by stochastic sparsification.

Right panel: accuracy against sparsity on CIFAR-10 of Conv-6 with the weights of its initialisation, for penalties from
1e-11 to 1e-7 (continuous) and initial scores from -5 to 5 (stochastic). Settings: section 4.1, those of
recipes/continuous_sparsification.py.
"""

from sslticket.campaign.figure import Figure
from sslticket.campaign.panels import Between, Finding, Ordering, Panel, Published
from sslticket.campaign.sweep import Sweep

PENALTIES = {"penalty": [1e-11, 1e-10, 1e-9, 1e-8, 1e-7]}
SCORES = {"initial-score": [-5.0, -2.0, -1.0, 0.0, 1.0, 2.0, 5.0]}
# Of 14,256 weights in 200 steps: `conv3-supermask-cs` and `conv3-supermask-ss` of docs/searches.md, and others.
SMALL: dict[str, object] = {
    "dataset": "cifar10",
    "image-size": 16,
    "batch-size": 64,
    "weight-decay": 1e-4,
    "rewind": "0it",
    "rounds": 1,
    "frozen": True,
}
TRIAL: dict[str, object] = {"length": "20it", "rewind": "0it", "rounds": 1, "frozen": True}
CONTINUOUS = {"search": "ContinuousSparsification", "final-temperature": 100.0}
STOCHASTIC = {"search": "StochasticSparsification"}
SMALL_SCORES = {"initial-score": [-0.03, -0.02, -0.01, 0.0, 0.01]}

figure = Figure(
    paper="continuous_sparsification",
    place="Figure 2",
    title="Masks of an untrained network",
    question="Which search finds sparser masks of an untrained network at the same accuracy?",
    scales={
        "paper": [
            Sweep(recipes=["continuous_conv6_cifar10_supermask"], grid=PENALTIES),
            Sweep(recipes=["continuous_conv6_cifar10_supermask_ss"], grid=SCORES),
        ],
        "small": [
            Sweep(
                recipes=["supervised_digits"],
                settings={**SMALL, **CONTINUOUS, "penalty": 1e-8, "rewind-weights": True},
                grid=SMALL_SCORES,
                seeds=range(3),
            ),
            Sweep(
                recipes=["supervised_digits"],
                settings={**SMALL, **STOCHASTIC, "penalty": 1e-8},
                grid={"initial-score": [-2.0, -1.0, 0.0, 1.0, 2.0]},
                seeds=range(3),
            ),
        ],
        "trial": [
            Sweep(
                recipes=["supervised_digits"], settings={**TRIAL, **CONTINUOUS}, grid={"initial-score": [-0.01, 0.0]}
            ),
            Sweep(recipes=["supervised_digits"], settings={**TRIAL, **STOCHASTIC}, grid={"initial-score": [-1.0, 1.0]}),
        ],
    },
    stand_ins={"small": {"conv6": "conv3"}, "trial": {"conv6": "conv3", "cifar10": "digits"}},
    means={
        "small": "three convolutions on CIFAR-10 at 16 pixels, 200 steps of 64 images, three seeds; in so few steps "
        "the penalty moves little, so initial scores vary the sparsity of both",
        "trial": "the 8x8 digits of scikit-learn, 20 steps, two points each",
    },
    left_out="The left panel, accuracy while masks are learnt: searches measure what a round leaves, at its end.",
    panels=[
        Panel(
            title="Learnt masks",
            kind="front",
            x="sparsity",
            y="metrics.top1",
            y_label="top-1 of the untrained network, %",
            rows="level",
            series={
                "CS": {"search": "ContinuousSparsification", "level": 1},
                "SS": {"search": "StochasticSparsification", "level": 1},
            },
            where={"model": "conv6", "source": "cifar10", "frozen": True},
            x_scale="linear",
            fronts=["CS", "SS"],
            order=["CS", "SS"],
            published=[
                Published(
                    drawn="threshold-y", place="section 4.1", method="CS", quantity="top1", words="CS over 75% sparse"
                ),
                Published(drawn="threshold-y", place="section 4.1", method="SS", quantity="top1", words="SS at 75%"),
                Published(
                    drawn="threshold-x",
                    place="Figure 2 caption",
                    method="SS",
                    condition="*right panel",
                    quantity="sparsity_percent",
                    words="SS fails above",
                ),
            ],
        )
    ],
    findings=[
        Finding(
            number=20,
            text="At over 75% sparsity continuous sparsification's masks are better than stochastic sparsification's.",
            check=Ordering(panel="Learnt masks", series=["CS", "SS"], at=Between(low=0.7)),
        )
    ],
)
