"""A rewound ticket in SqueezeNet, pruned at once: class labels on ImageNet.

Finds     one ticket of 50%, which in the paper matches the dense network.
Source    Stabilizing the Lottery Ticket Hypothesis (Frankle et al. 2019), section 5, figures 6 to 8; RMSprop's other
          settings from the implementation it names (Google 2018).
Run       accelerate launch recipes/stabilizing_squeezenet_oneshot.py
Cost      not measured yet.
Accuracy  not measured yet.
"""

from sslticket import IMP, Data, Recipe, RMSprop, Supervised, TrainConfig, run

recipe = Recipe(
    model="squeezenet1_0",
    data=Data(dataset="imagenet"),
    objective=Supervised(),
    training=TrainConfig(
        length="150ep",
        batch_size=1024,
        optimizer=RMSprop(lr=0.66, alpha=0.9, eps=1.0, momentum=0.9),
        decay="exponential",
        last_lr=6.6e-5,
    ),
    search=IMP(levels=1, rate=0.5, rewind="10ep"),
)

if __name__ == "__main__":
    run(recipe)
