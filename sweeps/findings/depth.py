"""Whether the gap between labels and RotNet grows with the depth that is pruned (findings 2 and 3).

The 20-layer ResNet with half of its filters, pruned up to the first and the second third of its convolutions and whole;
three convolutions with AlexNet's multilayer perceptron, which has 96% of the weights, pruned with and without it.

Run       sslticket sweep sweeps/findings/depth.py --out runs/depth --data-root /data
Cost      docs/findings.md has the core-hours that it took.
"""

from collections.abc import Mapping
from pathlib import Path

from findings_sweeps import scored, searches

NETWORKS = Path(__file__).with_name("narrow_networks.py")
TASKS = [{"objective": "Supervised"}, {"objective": "RotNet"}]
SCORED = [scored("cifar10", controls=["random"], levels="0-3")]
RESNET = {"model": f"{NETWORKS}:narrow_resnet20", "length": "200it", "drops": ["140it", "180it"], "rewind": "30it"}
ALEXNET = {"model": f"{NETWORKS}:small_alexnet"}


def pruned(network: Mapping[str, object], *depths: str | None) -> list[dict[str, object]]:
    """Labels and RotNet for each depth; None prunes all layers."""
    return [{**task, **({"prune-up-to": depth} if depth else {}), **network} for depth in depths for task in TASKS]


sweeps = [
    searches("cifar10", *pruned(ALEXNET, "conv3"), evaluate=SCORED, title="Without the multilayer perceptron"),
    searches("cifar10", *pruned(ALEXNET, None), evaluate=SCORED, title="With the multilayer perceptron"),
    searches("cifar10", *pruned(RESNET, "conv7", "conv14"), evaluate=SCORED, title="Up to a third, and two thirds"),
    searches("cifar10", *pruned(RESNET, None), evaluate=SCORED, title="The whole ResNet"),
]
