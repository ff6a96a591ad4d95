"""Training: one network, one loop, exact checkpoints; and the trackers that may follow a training."""

from sslticket.registry import Registry

TRACKERS = Registry[type](
    "tracker",
    {"TensorBoard": "sslticket.training.progress:TensorBoardTracker"},
    base="sslticket.training.progress:Tracker",
)
"""The trackers that --tracker may name."""
