"""Protocols of transfer.py: four data sets as colour images of 16 pixels, halves of CIFAR-10, and SGD.

Source    our own settings, those of findings_sweeps.py.
"""

from dataclasses import replace

from findings_sweeps import CIFAR10, TINY

from sslticket import SGD

FASHION16 = replace(CIFAR10, name="fashion16-findings", dataset="fashion_mnist")
DIGITS16 = replace(CIFAR10, name="digits16-findings", dataset="digits")
TINY16 = replace(TINY, name="tiny16-findings", image_size=16)
CIFAR10A = replace(CIFAR10, name="cifar10a-findings", half="a")
CIFAR10B = replace(CIFAR10, name="cifar10b-findings", half="b")
CIFAR10_SGD = replace(
    CIFAR10, name="cifar10-findings-sgd", training=replace(CIFAR10.training, optimizer=SGD(lr=0.1, weight_decay=1e-4))
)
__all__ = ["CIFAR10", "CIFAR10A", "CIFAR10B", "CIFAR10_SGD", "DIGITS16", "FASHION16", "TINY16"]
