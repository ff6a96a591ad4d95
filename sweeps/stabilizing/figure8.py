"""Figure 8: rewinding on ImageNet at all densities, pruned at once and iteratively.

Top-1 against density of ResNet-50, Squeezenet and Inception-v3 pruned at once, and of ResNet-50 pruned by 20% a level:
rewound, randomly reinitialised, and reset to iteration 0. Settings: section 5 and Figure 6, those of
recipes/stabilizing.py.
"""

from imagenet_sweeps import INCEPTION, RESNET50, SEEDS, SMALL_MEANS, SQUEEZENET, STAND_INS, TRIAL_MEANS, small, trial

from sslticket.campaign.figure import Figure
from sslticket.campaign.panels import Between, Finding, Gap, Matches, Ordering, Panel, Published
from sslticket.campaign.sweep import Evaluate, Sweep

# The mask of one-shot pruning is drawn from one dense training, so its reset ticket is a control.
CONTROLS = ["preserved", "reset"]
AT_ONCE = {"search": "OneShot"}
SERIES = {
    "rewound": {"control": "ticket"},
    "reinitialised": {"control": "preserved"},
    "reset to iteration 0": {"control": "reset"},
}
ITERATIVE = {
    "rewound": {"rewind": "6ep", "control": "ticket"},
    "reinitialised": {"rewind": "6ep", "control": "preserved"},
    "reset to iteration 0": {"rewind": "0it", "control": "ticket"},
}


def at_once(name: str, model: str) -> Panel:
    """One-shot pruning of a network."""
    matched = Published(
        drawn="threshold-x",
        place="section 5 (Figure 8)",
        network=name,
        condition="one-shot*",
        quantity="sparsity_percent",
        words="as the dense one",
    )
    return Panel(
        title=f"{name}, one-shot",
        series=SERIES,
        where={"model": model, "source": "imagenet", "search": "OneShot Magnitude"},
        x_scale="log",
        published=[matched],
        order=["rewound", ("reinitialised", "reset to iteration 0")],
    )


PANELS = [
    *(at_once(each.name, each.model) for each in (RESNET50, SQUEEZENET, INCEPTION)),
    Panel(
        title="Resnet-50, iterative",
        series=ITERATIVE,
        where={"model": "resnet50", "source": "imagenet", "search": "IMP"},
        x_scale="log",
        published=[
            Published(
                drawn="threshold-x",
                place="section 5 (Figure 8)",
                network="Resnet-50",
                condition="iterative, 20%*",
                quantity="remaining_percent",
                words="as the dense one",
            )
        ],
        order=["rewound", ("reinitialised", "reset to iteration 0")],
    ),
]
SMALL_PANELS = [PANELS[0], PANELS[3]]
SCORED = Evaluate(protocols=["cifar10-small"], controls=CONTROLS, levels="0 2 4 6", seeds="search")
TRIED = Evaluate(controls=CONTROLS, levels="all", seeds="search")

figure = Figure(
    paper="stabilizing",
    place="Figure 8",
    title="Rewinding on ImageNet at all densities",
    question="Down to which density do rewound tickets match the dense network on ImageNet, and do others?",
    scales={
        "paper": [
            *(
                Sweep(
                    recipes=[each.recipe],
                    settings={**AT_ONCE, "levels": 10, "rate": 0.2, "rewind": each.rewind},
                    seeds=SEEDS,
                    evaluate=[Evaluate(protocols=[each.protocol], controls=CONTROLS, levels="all", seeds="search")],
                )
                for each in (RESNET50, SQUEEZENET, INCEPTION)
            ),
            Sweep(
                recipes=["stabilizing_resnet50"],
                grid={"rewind": ["6ep", "0it"]},
                seeds=SEEDS,
                evaluate=[
                    Evaluate(protocols=[RESNET50.protocol], controls=["preserved"], levels="all", seeds="search")
                ],
            ),
        ],
        "small": [
            small(settings=AT_ONCE, measure=[SCORED]),
            small(rewinds=["30it", "0it"], measure=[SCORED]),
        ],
        "trial": [
            trial(settings=AT_ONCE, measure=[TRIED]),
            trial(rewinds=["4it", "0it"], measure=[TRIED]),
        ],
    },
    stand_ins={
        "small": STAND_INS["small"] | {"6ep": "30it"},
        "trial": STAND_INS["trial"] | {"6ep": "4it"},
    },
    means={"small": f"{SMALL_MEANS}; W_k after 30 steps", "trial": TRIAL_MEANS},
    panels={"paper": PANELS, "small": SMALL_PANELS, "trial": SMALL_PANELS},
    findings=[
        Finding(
            number=16,
            text="Resnet-50 pruned at once to 30% and rewound matches the dense network.",
            check=Matches(
                panel="Resnet-50, one-shot", series="rewound", at=Between(low=0.24), contrast="reinitialised"
            ),
        ),
        Finding(
            number=16,
            text="Resnet-50 pruned iteratively to 20% and rewound matches the dense network.",
            check=Matches(
                panel="Resnet-50, iterative", series="rewound", at=Between(low=0.2), contrast="reinitialised"
            ),
        ),
        Finding(
            number=16,
            text="Resnet-50 pruned at once: rewound tickets are better than reinitialised and than reset ones.",
            check=Ordering(panel="Resnet-50, one-shot", series=["rewound", ("reinitialised", "reset to iteration 0")]),
        ),
        Finding(
            number=16,
            text="Resnet-50 pruned iteratively: reinitialised and reset tickets are equally poor.",
            check=Gap(
                panel="Resnet-50, iterative",
                series=("reinitialised", "reset to iteration 0"),
                low=-0.01,
                high=0.01,
                contrast="rewound",
            ),
        ),
    ],
)
