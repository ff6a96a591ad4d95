"""Tickets for docs/transfer.md: class labels, SGD, three convolutions, 16 pixels; run.sh says on which images.

Finds     tickets of 7 densities from 100% to 1.6%.
Source    our own settings, those of the protocols `*-small`.
"""

from sslticket import IMP, SGD, Data, Recipe, Supervised, TrainConfig, run

recipe = Recipe(
    model="conv3",
    data=Data(dataset="cifar10", image_size=16),
    objective=Supervised(),
    training=TrainConfig(
        length="200it", batch_size=64, optimizer=SGD(lr=0.1, weight_decay=1e-4), drops=("140it", "180it")
    ),
    search=IMP(levels=6, rate=0.5, rewind="30it"),
)

if __name__ == "__main__":
    run(recipe)
