"""The objectives that a network may learn while tickets are searched, one file each."""

from sslticket.registry import Registry

OBJECTIVES = Registry[type](
    "objective",
    {
        "BYOL": "sslticket.objectives.byol:BYOL",
        "BarlowTwins": "sslticket.objectives.barlowtwins:BarlowTwins",
        "DINO": "sslticket.objectives.dino:DINO",
        "DINOv2": "sslticket.objectives.ibot:DINOv2",
        "Exemplar": "sslticket.objectives.exemplar:Exemplar",
        "IBOT": "sslticket.objectives.ibot:IBOT",
        "MAE": "sslticket.objectives.mae:MAE",
        "MoCoV2": "sslticket.objectives.mocov2:MoCoV2",
        "RotNet": "sslticket.objectives.rotnet:RotNet",
        "S4LExemplar": "sslticket.objectives.s4l:S4LExemplar",
        "S4LRotation": "sslticket.objectives.s4l:S4LRotation",
        "SimCLR": "sslticket.objectives.simclr:SimCLR",
        "SimSiam": "sslticket.objectives.simsiam:SimSiam",
        "Supervised": "sslticket.objectives.supervised:Supervised",
        "SwAV": "sslticket.objectives.swav:SwAV",
        "VICReg": "sslticket.objectives.vicreg:VICReg",
    },
    base="sslticket.objectives.base:Objective",
)
"""The objectives that recipes and --objective may name."""
