"""A supermask of an untrained Conv-6 by Continuous Sparsification: class labels on CIFAR-10.

Finds     one mask; --penalty from 1e-11 to 1e-7 varies its density.
Source    Winning the Lottery with Continuous Sparsification (Savarese et al. 2019), section 4.1, figure 2.
Run       accelerate launch recipes/continuous_conv6_cifar10_supermask.py
Cost      not measured yet.
Accuracy  the paper's over 75% at over 75% sparsity; ours not measured yet.
"""

from sslticket import Adam, ContinuousSparsification, Data, Recipe, Supervised, TrainConfig, View, run

recipe = Recipe(
    model="conv6",
    data=Data(dataset="cifar10", augment=View(size=32)),
    objective=Supervised(),
    training=TrainConfig(length="100ep", batch_size=60, optimizer=Adam(lr=3e-4, weight_decay=0.0)),
    search=ContinuousSparsification(
        rounds=1,
        rewind="0it",
        final_temperature=100.0,
        penalty=1e-8,
        frozen=True,
    ),
)

if __name__ == "__main__":
    run(recipe)
