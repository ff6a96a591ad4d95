"""A rewound ticket in Inception-v3, pruned at once: class labels on ImageNet.

Finds     one ticket of 30%, which in the paper matches the dense network.
Source    Stabilizing the Lottery Ticket Hypothesis (Frankle et al. 2019), section 5, figures 6 to 8; weight decay of
          the implementation it names (Google 2018). Without that one's auxiliary classifier and label smoothing.
Run       accelerate launch recipes/stabilizing_inception_oneshot.py
Cost      not measured yet.
Accuracy  the paper's dense network 78.1%; ours not measured yet.
"""

from sslticket import IMP, SGD, Data, Recipe, Supervised, TrainConfig, run

recipe = Recipe(
    model="inception_v3",
    data=Data(dataset="imagenet", image_size=299),
    objective=Supervised(),
    training=TrainConfig(
        length="171ep",
        batch_size=1024,
        optimizer=SGD(lr=0.03, weight_decay=4e-5),
        decay="linear",
        last_lr=0.005,
    ),
    search=IMP(levels=1, rate=0.7, rewind="6ep"),
)

if __name__ == "__main__":
    run(recipe)
