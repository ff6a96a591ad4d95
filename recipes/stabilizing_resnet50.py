"""Rewound tickets in ResNet-50, pruned step by step: class labels on ImageNet.

Finds     tickets of 11 densities from 100% to 10.7%; in the paper they match the dense network down to 20%, level 7.
Source    Stabilizing the Lottery Ticket Hypothesis (Frankle et al. 2019), section 5, figures 6 and 8; weight decay of
          the implementation it names (Google 2018).
Run       accelerate launch recipes/stabilizing_resnet50.py
Cost      not measured yet.
Accuracy  the paper's dense network about 76%; ours not measured yet.
"""

from sslticket import IMP, SGD, Data, Recipe, Supervised, TrainConfig, run

recipe = Recipe(
    model="resnet50",
    data=Data(dataset="imagenet"),
    objective=Supervised(),
    training=TrainConfig(
        length="90ep",
        batch_size=1024,
        optimizer=SGD(lr=0.4, weight_decay=1e-4),
        warmup="5ep",
        drops=("30ep", "60ep", "80ep"),
    ),
    search=IMP(levels=10, rate=0.2, rewind="6ep"),
)

if __name__ == "__main__":
    run(recipe)
