"""What the sweeps of docs/findings.md share: networks, data sets, trainings, and protocols.

The scale: three convolutions (14,256 prunable weights), 400 steps of 64 images, W_k after 3,840 samples whatever the
subset is, three levels of 70%: densities 30, 9 and 2.7%. CIFAR-10 is seen at 16 pixels. Tiny-ImageNet-80 (80 of its
classes, 500 photographs each) is seen at 32, where searches take 200 steps and W_k lies after 1,920 samples. Every
ticket, whatever found it, starts from a new head and is trained on all images and labels of its target.

Source    our own settings, chosen so that six searches of everything fit two processor cores.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from sslticket import Adam, Evaluate, Sweep, TrainConfig
from sslticket.campaign.figure import ScaledFigure
from sslticket.campaign.panels import Between, Filter, Finding, Gap, Near, Ordering, Panel
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
    without: Sequence[str] = (),
    title: str = "",
) -> Sweep:
    """Six searches of each point on one data set, scored there unless something else is asked for."""
    usual = {**TRAINED, **IMAGES[source], **(settings or {})}
    varied = {*without, *(name for point in points for name in point)}
    return Sweep(
        title=title,
        recipes=["supervised_digits"],
        settings={name: value for name, value in usual.items() if name not in varied},
        points=points,
        seeds=SEEDS,
        evaluate=[scored(source)] if evaluate is None else evaluate,
    )


def low_shot(
    target: str, classes: Sequence[float], others: Sequence[Mapping[str, object]], *, steps: int = 400
) -> list[Sweep]:
    """The low-shot law on one data set: parts of the images and of the classes, by equal steps and by equal epochs.

    Args:
        target: The data set.
        classes: Fractions of its classes.
        others: Data sets whose tickets are tried on it, as settings.
        steps: Steps of the searches' trainings; drops and W_k lie after the same parts of them as of 400.
    """
    fractions = (0.3, 0.1, 0.03, 0.01)
    whole = [scored(target, controls=["random"], levels="0-3"), scored(target, heads=["own"], levels="0-3")]

    def trained(fraction: float) -> dict[str, object]:
        lengths = [f"{round(part * fraction * steps)}it" for part in (1, 0.7, 0.9)]
        return {"length": lengths[0], "drops": lengths[1:]}

    # The epochs of all steps on the whole set. W_k's samples do not fit there: it lies after the same share.
    epochs: list[Mapping[str, object]] = [
        {"subset": fraction, **trained(fraction), "rewind": "15%"} for fraction in fractions[:3]
    ]
    settings = {**trained(1), "rewind": f"{round(9.6 * steps)}samples"}
    asked: list[tuple[str, Sequence[Mapping[str, object]]]] = [
        ("No labels, or a tenth of them, on all images", [*OBJECTIVES[1:], TENTH_OF_LABELS]),
        (
            "Parts of the images, equal steps",
            [{**task, "subset": part} for part in fractions for task in OBJECTIVES],
        ),
        (
            "Parts of the classes, equal steps",
            [{**task, "subset": part, "subset-by": "classes"} for part in classes for task in OBJECTIVES],
        ),
        ("Parts of the images, equal epochs", [{**task, **part} for part in epochs for task in OBJECTIVES]),
        ("Labels of other data sets", others),
    ]
    first = "Labels on all images, and random tickets"
    return [
        searches(target, OBJECTIVES[0], settings=settings, evaluate=whole, title=first),
        *(searches(target, *points, settings=settings, title=title) for title, points in asked),
    ]


TICKET: Filter = {"control": "ticket", "head": "new"}
RANDOM: Mapping[str, Filter] = {"random": {"control": "random"}}
SHOWN = {"labels": "supervised", "RotNet": "rotnet", "Exemplar": "exemplar", "SimCLR": "simclr"}
"""The objectives of the low-shot law, by their labels in charts."""


def part(objective: str, fraction: float, by: str = "samples", length: str = "400it") -> Filter:
    """Tickets of an objective on a part of the images or classes; of the whole set there is one kind."""
    kind = {} if fraction == 1 else {"subset_by": by}
    return {**TICKET, "objective": objective, "subset": fraction, "length": length, **kind}


def by_density(title: str, series: Mapping[str, Filter], **where: object) -> Panel:
    """Top-1 against the fraction of the weights that remains, with random tickets."""
    return Panel(title=title, series={**series, **RANDOM}, where={"model": "conv3", **where}, x_scale="log")


def by_part(
    title: str, density: float, fractions: Sequence[float], by: str, length: str = "400it", **where: object
) -> Panel:
    """Top-1 against the part of the images or classes that the search had, at one density, for all objectives."""
    # All images are a part by samples, and no row of theirs says that they are all classes.
    parts = (*fractions, 1.0) if by == "samples" else tuple(fractions)
    series = {
        label: {**TICKET, "objective": name, "subset": parts, "subset_by": by, "length": length}
        for label, name in SHOWN.items()
    }
    held = {"model": "conv3", "density": Near(value=density), **where}
    return Panel(title=title, x="subset", series=series, where=held, x_scale="log", x_label="part of the set, %")


def told(
    name: str, title: str, question: str, panels: Sequence[Panel], findings: Sequence[Finding], *, paper: str = "002"
) -> ScaledFigure:
    """What a sweep's rows are drawn as and asked; its findings are the main paper's, or another's by its number."""
    return ScaledFigure(
        name=name, published_as=paper, place="", title=title, question=question, panels=panels, findings=findings
    )


def low_shot_law(
    target: str, name: str, classes: Sequence[float], others: Mapping[str, str], title: str, *, steps: int = 400
) -> list[ScaledFigure]:
    """The panels and findings of a low-shot law; `others` has the labels of other data sets and their names in rows."""
    length = f"{steps}it"
    here = {"target": target, "source": target}
    images = by_density(
        "(a) Labels, parts of the images",
        {f"{fraction:.0%}": part("supervised", fraction, length=length) for fraction in (1.0, 0.3, 0.1, 0.03, 0.01)},
        **here,
    )
    kinds = by_density(
        "(b) Labels, parts of the classes",
        {
            "all": part("supervised", 1.0, length=length),
            **{
                f"{100 * fraction:.3g}% of the classes": part("supervised", fraction, "classes", length)
                for fraction in classes
            },
            "30% of the images": part("supervised", 0.3, length=length),
        },
        **here,
    )
    unlabelled = by_density(
        "(c) RotNet, parts of the images",
        {f"{fraction:.0%}": part("rotnet", fraction, length=length) for fraction in (1.0, 0.3, 0.1, 0.03, 0.01)},
        **here,
    )
    epochs = by_density(
        "(d) Labels, parts of the images, equal epochs",
        {
            "100%": part("supervised", 1.0, length=length),
            **{
                f"{fraction:.0%}": part("supervised", fraction, length=f"{round(steps * fraction)}it")
                for fraction in (0.3, 0.1, 0.03)
            },
        },
        **here,
    )
    access = by_density(
        "(e) A tenth of the labels",
        {
            "all labels": part("supervised", 1.0, length=length),
            "10% of the labels, all images": {**TICKET, "objective": "s4l-rotation"},
            "10% of the labels, their images": part("supervised", 0.1, length=length),
            "no labels (RotNet)": part("rotnet", 1.0, length=length),
        },
        **here,
    )
    sources = by_density(
        "(f) Other data sets",
        {
            "10% of the target": {**part("supervised", 0.1, length=length), "source": target},
            **{
                label: {**TICKET, "objective": "supervised", "source": source, "subset": 1.0}
                for label, source in others.items()
            },
        },
        target=target,
    )
    by_images = by_part("(g) Images, 2.7% of the weights", 0.027, (0.3, 0.1, 0.03, 0.01), "samples", length, **here)
    by_classes = by_part("(h) Classes, 2.7% of the weights", 0.027, classes, "classes", length, **here)
    moderate, severe = Between(low=0.1, high=0.9), Between(high=0.1)
    findings = [
        Finding(
            number=4,
            text="At moderate density tickets from 10% of the images lie 1 to 4 points below those of all.",
            check=Gap(panel=images.title, series=("100%", "10%"), at=moderate, low=0.01, high=0.04),
        ),
        Finding(
            number=4,
            text="Where more than 90% is pruned, tickets from 10% of the images are as good as those of all.",
            check=Gap(panel=images.title, series=("100%", "10%"), at=severe, low=-0.01, high=0.01),
        ),
        Finding(
            number=4,
            text="Fewer classes in the place of fewer images make little difference: 30% of each.",
            check=Gap(
                panel=kinds.title,
                series=("30% of the images", "30% of the classes"),
                at=severe,
                low=-0.01,
                high=0.01,
            ),
        ),
        Finding(
            number=4,
            text="Tickets from 1% of the images are better than random ones where more than 90% is pruned.",
            check=Ordering(panel=images.title, series=("1%", "random"), at=severe),
        ),
        Finding(
            number=4,
            text="So are RotNet's from 1% of the images, which takes no label.",
            check=Ordering(panel=unlabelled.title, series=("1%", "random"), at=severe),
        ),
        Finding(
            number=6,
            text="At 10% of the labels semi-supervised tickets are better than low-shot ones, and these than RotNet's.",
            check=Ordering(panel=access.title, series=list(access.series)[1:4]),
        ),
        Finding(
            number=7,
            text="Tickets from 10% of the target's images are better than those from all of another data set.",
            check=Ordering(panel=sources.title, series=("10% of the target", tuple(others))),
        ),
    ]
    panels = [images, kinds, unlabelled, epochs, access, sources, by_images, by_classes]
    question = "How good are tickets from few images, few classes, few labels, none, or another data set?"
    return [told(name, title, question, panels, findings)]
