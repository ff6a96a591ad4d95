"""Continuous Sparsification in the 20-layer CIFAR ResNet without rewinding: class labels on CIFAR-10.

Finds     tickets of 5 rounds, as dense as the scores make them; --initial-score varies that. W_k after 780 updates.
Source    Winning the Lottery with Continuous Sparsification (Savarese et al. 2019), section 4.2, which calls the
          network "ResNet-18"; the final temperature of its footnote, the penalty of the authors' code.
Run       accelerate launch recipes/continuous_resnet20_cifar10.py
Cost      not measured yet.
Accuracy  the paper has curves only; ours not measured yet.
"""

from sslticket import SGD, ContinuousSparsification, Data, Recipe, Supervised, TrainConfig, View, run

recipe = Recipe(
    model="resnet20",
    data=Data(dataset="cifar10", augment=View(size=32, crop="pad", pad=4, flip=True)),
    objective=Supervised(),
    training=TrainConfig(
        length="85ep",
        batch_size=128,
        optimizer=SGD(lr=0.1, weight_decay=1e-4),
        drops=("56ep", "71ep"),
    ),
    search=ContinuousSparsification(
        rounds=5,
        rewind="780it",
        final_temperature=500.0,
        penalty=1e-8,
        exclude=("*.downsample.*",),
    ),
)

if __name__ == "__main__":
    run(recipe)
