"""Tickets for docs/transfer.md: class labels, Adam, three convolutions, 16 pixels; run.sh says on which images.

Finds     tickets of 7 densities from 100% to 1.6%.
Source    our own settings, those of the protocols `*-small`.
"""

from sslticket import IMP, Adam, Data, Recipe, Supervised, TrainConfig, run

recipe = Recipe(
    model="conv3",
    data=Data(dataset="cifar10", image_size=16),
    objective=Supervised(),
    training=TrainConfig(
        length="200it", batch_size=64, optimizer=Adam(lr=3e-3, weight_decay=1e-4), drops=("140it", "180it")
    ),
    search=IMP(levels=6, rate=0.5, rewind="30it"),
)

if __name__ == "__main__":
    run(recipe)
