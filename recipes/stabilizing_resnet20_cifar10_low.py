"""Rewound tickets in the 20-layer CIFAR ResNet at a low learning rate: class labels on CIFAR-10.

Finds     tickets of 21 densities from 100% to 1.2%; the paper studies 16.7%, level 8. --rewind 0it resets to
          initialisation.
Source    Stabilizing the Lottery Ticket Hypothesis (Frankle et al. 2019), figures 2 and 4, which calls it "Resnet-18";
          weight decay as in He et al. 2016, flips and shifts as in Frankle & Carbin 2019, which it follows.
Run       accelerate launch recipes/stabilizing_resnet20_cifar10_low.py
Cost      not measured yet.
Accuracy  the paper's dense network 89.1%; ours not measured yet.
"""

from sslticket import IMP, SGD, Data, Recipe, Supervised, TrainConfig, View, run

recipe = Recipe(
    model="resnet20",
    data=Data(dataset="cifar10", augment=View(size=32, crop="pad", pad=4, flip=True)),
    objective=Supervised(),
    training=TrainConfig(
        length="30000it",
        batch_size=128,
        optimizer=SGD(lr=0.01, weight_decay=1e-4),
        drops=("20000it", "25000it"),
    ),
    search=IMP(levels=20, rate=0.2, rewind="500it"),
)

if __name__ == "__main__":
    run(recipe)
