"""Protocols of agreement_sweep.py: a full one and a fast one for each of two data sets, at 32 pixels.

Full ones have the shape of `cifar10-sgd`. Fast ones take an eighth of their steps: on CIFAR-10 in the shape of
`cifar10-fast`, on Tiny-ImageNet in that of `imagenet-fast`, with its sizes' ratio and their share of the training.

Source    our own settings for three convolutions; rates were not tuned.
"""

from sslticket import SGD, TrainConfig, View
from sslticket.evaluation.protocols import Protocol

_FULL = TrainConfig(length="1200it", batch_size=32, optimizer=SGD(lr=0.05, weight_decay=1e-4), drops=("50%", "75%"))
_CROPPED, _PLAIN = View(size=32, crop="pad", pad=4, flip=True), View(size=32)

CIFAR10_FULL = Protocol(
    name="cifar10-conv3-full", dataset="cifar10", training=_FULL, train=_CROPPED, eval=_PLAIN, seeds=(0,)
)
CIFAR10_FAST = Protocol(
    name="cifar10-conv3-fast",
    dataset="cifar10",
    training=TrainConfig(
        length="150it",
        batch_size=32,
        optimizer=SGD(lr=0.1, momentum=0.85, weight_decay=1e-4, nesterov=True),
        warmup="23%",
        decay="linear",
        last_lr=0.007,
    ),
    train=View(size=32, crop="pad", pad=2, flip=True),
    eval=_PLAIN,
    label_smoothing=0.2,
    seeds=(0,),
)
TINY_FULL = Protocol(
    name="tiny_imagenet-conv3-full", dataset="tiny_imagenet", training=_FULL, image_size=32, seeds=(0,)
)
TINY_FAST = Protocol(
    name="tiny_imagenet-conv3-fast",
    dataset="tiny_imagenet",
    training=TrainConfig(
        length="150it", batch_size=32, optimizer=SGD(lr=0.1, weight_decay=1e-4), warmup="12.5%", decay="linear"
    ),
    image_size=32,
    early_sizes=(("75%", 27),),
    label_smoothing=0.1,
    seeds=(0,),
)
