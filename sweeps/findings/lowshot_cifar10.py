"""The low-shot law on CIFAR-10: parts of its images and classes, by labels and without (findings 4, 6 and 7).

Run       sslticket sweep sweeps/findings/lowshot_cifar10.py --out runs/lowshot_cifar10 --data-root /data
Cost      docs/findings.md has the core-hours that it took.
"""

from findings_sweeps import TINY_PART, low_shot, low_shot_law

OTHERS = [{"dataset": "fashion_mnist", "channels": 3}, {"dataset": "tiny_imagenet", "part": TINY_PART, "channels": 3}]
CLASSES = (0.5, 0.3, 0.2)
sweeps = low_shot("cifar10", CLASSES, OTHERS)
figures = low_shot_law(
    "cifar10",
    "lowshot_cifar10",
    CLASSES,
    {"Tiny-ImageNet-80": f"tiny_imagenet[{TINY_PART}]", "Fashion-MNIST": "fashion_mnist"},
    "The low-shot law on CIFAR-10",
)
