"""The low-shot law on 80 classes of Tiny-ImageNet: parts of its images and classes (findings 4, 6 and 7).

Run       sslticket sweep sweeps/findings/lowshot_tiny.py --out runs/lowshot_tiny --data-root /data
Cost      docs/findings.md has the core-hours that it took.
"""

from findings_sweeps import low_shot

OTHERS = [{"dataset": name, "channels": 3, "part": None} for name in ("fashion_mnist", "cifar10")]
# One percent of 80 classes is less than the two that labels need.
sweeps = low_shot("tiny_imagenet", classes=(0.3, 0.1, 0.025), others=OTHERS)
