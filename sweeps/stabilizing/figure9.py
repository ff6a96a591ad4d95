"""Figure 9: iterative pruning, random reinitialisation and SNIP.

Top-1 on CIFAR-10 against density of VGG-19 and Resnet-18 with warmup: tickets reset to iteration 0, their masks with
weights drawn anew, and subnetworks that SNIP finds before training. Settings: Appendix A and Figure 2, those of
recipes/stabilizing.py; SNIP's scores are of one mini-batch.
"""

from stability_sweeps import (
    CIFAR10_MEANS,
    RESNET18,
    STAND_INS,
    TRIAL_MEANS,
    TRIAL_STAND_INS,
    VGG19,
    published,
    small,
    trial,
)

from sslticket.campaign.figure import Figure
from sslticket.campaign.panels import Between, Finding, Matches, Ordering, Panel, Published
from sslticket.campaign.sweep import Evaluate

NETWORKS = (VGG19[2], RESNET18[2])
SNIP = {"search": "OneShot", "criterion": "SNIP", "scored": "start"}
SERIES = {
    "IMP, original initialisation": {"search": "IMP", "control": "ticket"},
    "SNIP": {"search": "OneShot SNIP", "control": "ticket"},
    "IMP, reinitialised": {"search": "IMP", "control": "preserved"},
}


def scored(protocol: str, levels: str | None = None, controls: tuple[str, ...] = ("preserved",)) -> list[Evaluate]:
    """Tickets, and their masks with weights drawn anew."""
    return [Evaluate(protocols=[protocol], controls=controls, levels=levels, seeds="search")]


figure = Figure(
    paper="stabilizing",
    place="Figure 9",
    title="Iterative pruning, reinitialisation and SNIP",
    question="Is the original initialisation needed, and does SNIP find as good subnetworks before training?",
    scales={
        "paper": [
            sweep
            for each in NETWORKS
            for sweep in (
                published(each, evaluate=scored(each.protocol)),
                published(each, settings=SNIP, evaluate=scored(each.protocol, controls=())),
            )
        ],
        "small": [
            sweep
            for each in NETWORKS
            for sweep in (
                small(each, evaluate=scored("own@k", "all")),
                small(each, settings=SNIP, evaluate=scored("own@k", "all", ())),
            )
        ],
        "trial": [
            sweep
            for each in NETWORKS
            for sweep in (
                trial(each, evaluate=scored("own@k", "all")),
                trial(each, settings=SNIP, evaluate=scored("own@k", "all", ())),
            )
        ],
    },
    stand_ins={"small": STAND_INS, "trial": TRIAL_STAND_INS},
    means={"small": CIFAR10_MEANS, "trial": TRIAL_MEANS},
    panels=[
        Panel(
            title=each.name,
            series=SERIES,
            where={**each.where, "rewind": "0it"},
            x_scale="log",
            order=list(SERIES) if each.name == "VGG-19" else (),
            published=[
                Published(
                    drawn="threshold-x",
                    place="Appendix A",
                    network="VGG-19",
                    method=method,
                    condition="warmup*",
                    quantity="sparsity_percent",
                    words=f"{words} as the dense one",
                )
                for method, words in (("random reinit*", "reinitialised"), ("IMP ticket", "IMP"))
                if each.name == "VGG-19"
            ],
        )
        for each in NETWORKS
    ],
    findings=[
        Finding(
            number=17,
            text="VGG-19 reinitialised matches the dense network down to 20% of the weights.",
            check=Matches(
                panel="VGG-19",
                series="IMP, reinitialised",
                at=Between(low=0.2),
                contrast="IMP, original initialisation",
            ),
        ),
        Finding(
            number=17,
            text="VGG-19's tickets match the dense network down to 1% of the weights.",
            check=Matches(
                panel="VGG-19",
                series="IMP, original initialisation",
                at=Between(low=0.01),
                contrast="IMP, reinitialised",
            ),
        ),
        Finding(
            number=17,
            text="VGG-19: SNIP lies between tickets and reinitialised ones.",
            check=Ordering(panel="VGG-19", series=list(SERIES), at=Between(high=0.2)),
        ),
    ],
)
