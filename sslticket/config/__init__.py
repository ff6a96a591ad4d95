"""Configuration: recipes, training settings and runtime settings, as frozen dataclasses that need no torch."""

from sslticket.config.training import Optimizer
from sslticket.registry import Registry

OPTIMIZERS: Registry[type[Optimizer]] = Registry(
    "optimizer",
    {name: f"sslticket.config.training:{name}" for name in ("SGD", "Adam", "AdamW", "RMSprop", "LARS")},
    base="sslticket.config.training:Optimizer",
)
"""The optimisers that recipes and --optimizer may name."""
