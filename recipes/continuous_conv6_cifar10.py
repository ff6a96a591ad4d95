"""Continuous Sparsification in Conv-6: class labels on CIFAR-10.

Finds     tickets of 4 rounds, as dense as the scores make them; --initial-score from -0.03 to 0.03 varies that.
Source    Winning the Lottery with Continuous Sparsification (Savarese et al. 2019), section 4.1: weights start again
          from W_0, as the paper's section 4.2 lets one infer; no augmentation and no weight decay, of which it does not
          tell.
Run       accelerate launch recipes/continuous_conv6_cifar10.py
Cost      not measured yet.
Accuracy  the paper has curves only; ours not measured yet.
"""

from sslticket import Adam, ContinuousSparsification, Data, Recipe, Supervised, TrainConfig, View, run

recipe = Recipe(
    model="conv6",
    data=Data(dataset="cifar10", augment=View(size=32)),
    objective=Supervised(),
    training=TrainConfig(length="40ep", batch_size=60, optimizer=Adam(lr=3e-4, weight_decay=0.0)),
    search=ContinuousSparsification(
        rounds=4,
        rewind="0it",
        rewind_weights=True,
        final_temperature=100.0,
        penalty=1e-10,
    ),
)

if __name__ == "__main__":
    run(recipe)
