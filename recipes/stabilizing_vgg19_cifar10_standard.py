"""Rewound tickets in VGG-19 at the standard learning rate: class labels on CIFAR-10.

Finds     tickets of 21 densities from 100% to 1.2%; the paper studies 2.2%, level 17. --rewind 0it resets to
          initialisation.
Source    Stabilizing the Lottery Ticket Hypothesis (Frankle et al. 2019), figures 2 and 4; weight decay as in Liu et
          al. 2019, flips and shifts as in Frankle & Carbin 2019, which it follows.
Run       accelerate launch recipes/stabilizing_vgg19_cifar10_standard.py
Cost      not measured yet.
Accuracy  the paper's dense network 91.5%; ours not measured yet.
"""

from sslticket import IMP, SGD, Data, Recipe, Supervised, TrainConfig, View, run

recipe = Recipe(
    model="vgg19",
    data=Data(dataset="cifar10", augment=View(size=32, crop="pad", pad=4, flip=True)),
    objective=Supervised(),
    training=TrainConfig(
        length="112000it",
        batch_size=64,
        optimizer=SGD(lr=0.1, weight_decay=1e-4),
        drops=("56000it", "84000it"),
    ),
    search=IMP(levels=20, rate=0.2, rewind="100it"),
)

if __name__ == "__main__":
    run(recipe)
