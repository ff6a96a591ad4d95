"""The low-shot law on CIFAR-10: parts of its images and classes, by labels and without (findings 4, 6 and 7).

Run       sslticket sweep sweeps/findings/lowshot_cifar10.py --out runs/lowshot_cifar10 --data-root /data
Cost      docs/findings.md has the core-hours that it took.
"""

from findings_sweeps import TINY_PART, low_shot

OTHERS = [{"dataset": "fashion_mnist", "channels": 3}, {"dataset": "tiny_imagenet", "part": TINY_PART, "channels": 3}]
sweeps = low_shot("cifar10", classes=(0.5, 0.3, 0.2), others=OTHERS)
