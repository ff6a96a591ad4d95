"""A supermask of an untrained Conv-6 by Stochastic Sparsification: class labels on CIFAR-10.

Finds     one mask; --initial-score from -5 to 5 varies its density.
Source    Winning the Lottery with Continuous Sparsification (Savarese et al. 2019), section 4.1, figure 2, after
          Zhou et al. 2019; without a penalty, which the paper does not vary here.
Run       accelerate launch recipes/continuous_conv6_cifar10_supermask_ss.py
Cost      not measured yet.
Accuracy  the paper's under 40% at 75% sparsity; ours not measured yet.
"""

from sslticket import Adam, Data, Recipe, StochasticSparsification, Supervised, TrainConfig, View, run

recipe = Recipe(
    model="conv6",
    data=Data(dataset="cifar10", augment=View(size=32)),
    objective=Supervised(),
    training=TrainConfig(length="100ep", batch_size=60, optimizer=Adam(lr=3e-4, weight_decay=0.0)),
    search=StochasticSparsification(
        rounds=1,
        rewind="0it",
        initial_score=0.0,
        penalty=0.0,
        score_optimizer="sgd",
        score_lr=100.0,
        frozen=True,
    ),
)

if __name__ == "__main__":
    run(recipe)
