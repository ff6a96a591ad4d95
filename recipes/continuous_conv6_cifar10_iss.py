"""Iterative Stochastic Sparsification in Conv-6: class labels on CIFAR-10.

Finds     tickets of 30 rounds, as dense as the probabilities make them, reset to initialisation.
Source    Winning the Lottery with Continuous Sparsification (Savarese et al. 2019), section 4.1, Algorithm 2.
Run       accelerate launch recipes/continuous_conv6_cifar10_iss.py
Cost      not measured yet.
Accuracy  the paper has curves only; ours not measured yet.
"""

from sslticket import Adam, Data, Recipe, StochasticSparsification, Supervised, TrainConfig, View, run

recipe = Recipe(
    model="conv6",
    data=Data(dataset="cifar10", augment=View(size=32)),
    objective=Supervised(),
    training=TrainConfig(length="40ep", batch_size=60, optimizer=Adam(lr=3e-4, weight_decay=0.0)),
    search=StochasticSparsification(
        rounds=30,
        rewind="0it",
        initial_score=1.0,
        penalty=1e-8,
        score_optimizer="sgd",
        score_lr=20.0,
    ),
)

if __name__ == "__main__":
    run(recipe)
