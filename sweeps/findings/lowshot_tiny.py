"""The low-shot law on 80 classes of Tiny-ImageNet: parts of its images and classes (findings 4, 6 and 7).

Run       sslticket sweep sweeps/findings/lowshot_tiny.py --out runs/lowshot_tiny --data-root /data
Cost      docs/findings.md has the core-hours that it took.
"""

from findings_sweeps import TINY_PART, low_shot, low_shot_law

OTHERS = [{"dataset": name, "channels": 3, "part": None} for name in ("fashion_mnist", "cifar10")]
# One percent of 80 classes is less than the two that labels need.
CLASSES = (0.3, 0.1, 0.025)
STEPS = 200
sweeps = low_shot("tiny_imagenet", CLASSES, OTHERS, steps=STEPS)
figures = low_shot_law(
    f"tiny_imagenet[{TINY_PART}]",
    "lowshot_tiny",
    CLASSES,
    {"CIFAR-10": "cifar10", "Fashion-MNIST": "fashion_mnist"},
    "The low-shot law on 80 classes of Tiny-ImageNet",
    steps=STEPS,
)
