"""Pruning: which weights may be pruned, how they are scored and selected, and how a mask acts in the forward pass."""

from sslticket.registry import Registry

CRITERIA = Registry[type](
    "criterion",
    {name: f"sslticket.pruning.criteria:{name}" for name in ("ERK", "GraSP", "Magnitude", "Random", "SNIP", "SynFlow")},
    base="sslticket.pruning.criteria:Criterion",
)
"""The criteria that recipes and --criterion may name."""

GATES = Registry[type](
    "gate",
    {name: f"sslticket.pruning.gates:{name}" for name in ("BernoulliMask", "SigmoidMask", "TopKMask")},
    base="sslticket.pruning.gates:GateSettings",
)
"""The settings of gates that `MaskTraining` and --gate may name."""
