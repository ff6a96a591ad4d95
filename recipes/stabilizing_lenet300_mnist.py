"""The first winning tickets: class labels in LeNet 300-100 on MNIST.

Finds     tickets of 21 densities from 100% to 1.2%, reset to initialisation; the paper studies 10.7%, level 10.
Source    Stabilizing the Lottery Ticket Hypothesis (Frankle et al. 2019), figure 2; pruned by layer and without weight
          decay, as in Frankle & Carbin 2019, section 2.
Run       accelerate launch recipes/stabilizing_lenet300_mnist.py
Cost      not measured yet.
Accuracy  the paper's dense network 98.0%; ours not measured yet.
"""

from sslticket import IMP, Adam, Data, Recipe, Supervised, TrainConfig, run

recipe = Recipe(
    model="lenet300",
    data=Data(dataset="mnist"),
    objective=Supervised(),
    training=TrainConfig(
        length="50000it",
        batch_size=60,
        optimizer=Adam(lr=1.2e-3, weight_decay=0.0),
    ),
    search=IMP(levels=20, rate=0.2, rewind="0it", scope="layer"),
)

if __name__ == "__main__":
    run(recipe)
