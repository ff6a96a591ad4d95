"""What the figures of Finding Winning Tickets with Limited (or No) Supervision share: sweeps at each scale, and series.

The paper names no number of seeds: one search of each kind is taken, and `--seeds 0-5` takes more. Labels' tickets,
too, start from a new classification layer: tickets without labels have none, and like is compared with like.
"""

from collections.abc import Mapping, Sequence

from sslticket.campaign.panels import Panel
from sslticket.campaign.sweep import Evaluate, Sweep

SEARCHED = {"labels": "supervised", "RotNet": "rotnet", "Exemplar": "exemplar"}
SERIES = {label: {"objective": name, "control": "ticket"} for label, name in SEARCHED.items()}
RANDOM = {"random": {"control": "random"}}
ADJUSTED = {"random, adjusted": {"control": "adjusted"}}

# Two processor cores: CIFAR-10 at 16 pixels, 200 steps of 64 images, as the protocol cifar10-small, for searches too.
# The three convolutions halve their weights six times, larger networks take two halvings at once.
SMALL: Mapping[str, object] = {"dataset": "cifar10", "image-size": 16, "batch-size": 64, "weight-decay": 1e-4}
TWO_AT_ONCE = {"levels": 3, "rate": 0.75}
TRIAL: Mapping[str, object] = {"length": "20it", "levels": 2, "rewind": "4it"}

SMALL_MEANS = (
    "CIFAR-10 at 16 pixels in the place of ImageNet, 200 steps of 64 images a training, W_k after 30 steps, densities "
    "100, 25, 6.25 and 1.56%, three seeds"
)
TRIAL_MEANS = "the 8x8 digits of scikit-learn, 20 steps a training, two levels of 50%, one seed"


def published(
    *recipes: str,
    protocol: str,
    controls: Sequence[str] = (),
    settings: Mapping[str, object] | None = None,
    grid: Mapping[str, Sequence[object]] | None = None,
) -> Sweep:
    """Searches of the published recipes, scored under the protocol of all labels of the target."""
    scored = Evaluate(protocols=[protocol], controls=controls, seeds="search", heads=["new"])
    return Sweep(recipes=recipes, settings=settings or {}, grid=grid or {}, evaluate=[scored])


def small(
    *points: Mapping[str, object],
    models: Sequence[str] = ("conv3",),
    controls: Sequence[str] = (),
    grid: Mapping[str, Sequence[object]] | None = None,
) -> list[Sweep]:
    """The same questions on CIFAR-10, for small networks."""
    made = []
    for model in models:
        fewer = {} if model == "conv3" else TWO_AT_ONCE
        levels = "0 2 4 6" if model == "conv3" else "0-3"
        scored = Evaluate(protocols=["cifar10-small"], controls=controls, levels=levels, seeds="search", heads=["new"])
        settings = {**SMALL, "model": model, **fewer}
        for point in points or ({},):
            made.append(
                Sweep(
                    recipes=["supervised_digits"],
                    settings={**settings, **point},
                    grid=grid or {},
                    seeds=range(3),
                    evaluate=[scored],
                )
            )
    return made


def trial(
    *points: Mapping[str, object],
    models: Sequence[str] = ("conv3",),
    controls: Sequence[str] = (),
    grid: Mapping[str, Sequence[object]] | None = None,
) -> list[Sweep]:
    """A few steps on digits, to see that all is wired."""
    scored = Evaluate(controls=controls, levels="0-2", seeds="search", heads=["new"])
    return [
        Sweep(
            recipes=["supervised_digits"],
            settings={**TRIAL, "model": model, **point},
            grid=grid or {},
            evaluate=[scored],
        )
        for model in models
        for point in points or ({},)
    ]


def curves(title: str, series: Mapping[str, Mapping[str, object]], **where: object) -> Panel:
    """Accuracy against the fraction of the weights that remains."""
    return Panel(title=title, x="density", y="top1", series=series, where=where, x_scale="log")
