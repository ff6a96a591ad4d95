"""Protocols of agreement_sweep.py: a full one and a fast one for each of two data sets, at 32 pixels.

Source    our own settings for three convolutions, in the shapes of `cifar10-sgd`.
"""

from sslticket import SGD, TrainConfig, View
from sslticket.evaluation.protocols import Protocol

_FULL = TrainConfig(length="1200it", batch_size=32, optimizer=SGD(lr=0.05, weight_decay=1e-4), drops=("50%", "75%"))
_CROPPED, _PLAIN = View(size=32, crop="pad", pad=4, flip=True), View(size=32)

CIFAR10_FULL = Protocol(
    name="cifar10-conv3-full", dataset="cifar10", training=_FULL, train=_CROPPED, eval=_PLAIN, seeds=(0,)
)
TINY_FULL = Protocol(
    name="tiny_imagenet-conv3-full", dataset="tiny_imagenet", training=_FULL, image_size=32, seeds=(0,)
)
