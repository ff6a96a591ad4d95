"""Table 1: what the rewind point of 3,840,000 samples is on parts of ImageNet.

Epochs, samples, gradient updates and share of the training, for 100, 30, 10 and 1% of the images. Arithmetic on the
recipes' lengths and batches and the catalogue's number of images (Appendix A and B); nothing is trained.
"""

from sslticket.campaign.figure import Figure
from sslticket.campaign.panels import Panel, Published
from sslticket.campaign.sweep import Sweep

PARTS = {"ImageNet 100%": 1.0, "ImageNet 30%": 0.3, "ImageNet 10%": 0.1, "ImageNet 1%": 0.01}
COLUMNS = {
    "epochs": ("rewind_epochs", "rewind_epochs"),
    "samples seen": ("rewind_samples", "rewind_samples"),
    "gradient updates": ("rewind_iterations", "rewind_updates"),
    "share of training": ("rewind_percent", "rewind_percent_of_training"),
}

figure = Figure(
    paper="limited_supervision",
    place="Table 1",
    title="The rewind point on parts of ImageNet",
    question="How many epochs, updates and which share of the training are 3,840,000 samples?",
    planned=True,
    scales={
        "paper": [
            Sweep(
                recipes=["supervised_resnet50", *(f"supervised_resnet50_samples{part}" for part in (30, 10, 1))],
                settings={"levels": 1},
            )
        ]
    },
    without={
        "small": "it is arithmetic on the published settings, which takes nothing at the scale paper",
        "trial": "it is arithmetic on the published settings, which takes nothing at the scale paper",
    },
    panels=[
        Panel(
            title="Rewind point",
            kind="table",
            rows="level",
            columns={title: column for title, (column, _) in COLUMNS.items()},
            series={label: {"subset": part} for label, part in PARTS.items()},
            published=[
                Published(
                    drawn="cells",
                    place="Table 1",
                    condition=f"subset {part:.0%}",
                    quantity=quantity,
                    series=label,
                    column=title,
                )
                for label, part in PARTS.items()
                for title, (_, quantity) in COLUMNS.items()
            ],
        )
    ],
)
