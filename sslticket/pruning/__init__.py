"""Masks: which weights a ticket keeps, by what they are ranked, and how they are learnt."""

from sslticket.registry import Registry

CRITERIA = Registry[type](
    "criterion",
    {name: f"sslticket.pruning.criteria:{name}" for name in ("ERK", "GraSP", "Magnitude", "Random", "SNIP", "SynFlow")},
    base="sslticket.pruning.criteria:Criterion",
)
"""The criteria that recipes and --criterion may name."""
