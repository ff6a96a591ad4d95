"""The searches of docs/transfer.md: three convolutions on 16 pixels, labels and RotNet; the sweeps beside say where.

Finds     tickets of 7 densities from 100% to 1.6%.
Source    our own settings, those of the protocols `*-small`.
Run       sslticket run experiments/transfer/recipes.py:rotnet_adam
"""

from dataclasses import replace

from sslticket import IMP, SGD, Adam, Data, Recipe, RotNet, Supervised, TrainConfig, run

ADAM = Recipe(
    model="conv3",
    data=Data(dataset="cifar10", image_size=16),
    objective=Supervised(),
    training=TrainConfig(
        length="200it", batch_size=64, optimizer=Adam(lr=3e-3, weight_decay=1e-4), drops=("140it", "180it")
    ),
    search=IMP(levels=6, rate=0.5, rewind="30it"),
)
MOMENTUM = replace(ADAM, training=replace(ADAM.training, optimizer=SGD(lr=0.1, weight_decay=1e-4)))

recipes = {
    "supervised_adam": ADAM,
    "supervised_sgd": MOMENTUM,
    "rotnet_adam": replace(ADAM, objective=RotNet()),
    "rotnet_sgd": replace(MOMENTUM, objective=RotNet()),
}

if __name__ == "__main__":
    run(recipes)
