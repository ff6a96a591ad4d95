"""Winning the Lottery with Continuous Sparsification: learned masks, and iterative pruning beside them.

Finds     tickets of several rounds, as dense as the scores make them; --initial-score and --penalty vary that.
Source    Winning the Lottery with Continuous Sparsification (Savarese et al. 2019, https://arxiv.org/abs/1912.04427),
          sections 4.1 (Conv-6) and 4.2 (the 20-layer CIFAR ResNet, which it calls "ResNet-18").
Run       accelerate launch recipes/continuous_sparsification.py continuous_conv6_cifar10
Cost      not measured yet; recipes/README.md has a line for each.
Accuracy  the paper has curves only; ours not measured yet.
"""

from dataclasses import replace

from sslticket import (
    IMP,
    SGD,
    Adam,
    ContinuousSparsification,
    Data,
    Recipe,
    StochasticSparsification,
    Supervised,
    TrainConfig,
    View,
    run,
)

# Section 4.1: weights start again from W_0, as section 4.2 lets one infer; no augmentation and no weight decay, of
# which the paper does not tell.
CONV6 = Recipe(
    model="conv6",
    data=Data(dataset="cifar10", augment=View(size=32)),
    objective=Supervised(),
    training=TrainConfig(length="40ep", batch_size=60, optimizer=Adam(lr=3e-4, weight_decay=0.0)),
    search=ContinuousSparsification(
        rounds=4, rewind="0it", rewind_weights=True, final_temperature=100.0, penalty=1e-10
    ),
)
# Section 4.2, without rewinding of the weights between rounds; W_k after 780 updates, the final temperature of the
# footnote, the penalty of the authors' code.
RESNET20 = Recipe(
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
        rounds=5, rewind="780it", final_temperature=500.0, penalty=1e-8, exclude=("*.downsample.*",)
    ),
)
UNTRAINED = replace(CONV6, training=replace(CONV6.training, length="100ep"))

recipes = {
    "continuous_conv6_cifar10": CONV6,
    # By layer, as in Frankle & Carbin 2019, figure 2, which the paper follows; reset to initialisation.
    "continuous_conv6_cifar10_imp": replace(
        CONV6, search=IMP(levels=30, rate=0.15, linear_rate=0.2, rewind="0it", scope="layer")
    ),
    # Algorithm 2, Iterative Stochastic Sparsification.
    "continuous_conv6_cifar10_iss": replace(
        CONV6,
        search=StochasticSparsification(
            rounds=30, rewind="0it", initial_score=1.0, penalty=1e-8, score_optimizer="sgd", score_lr=20.0
        ),
    ),
    # Figure 2: one mask of an untrained network; --penalty from 1e-11 to 1e-7 varies its density.
    "continuous_conv6_cifar10_supermask": replace(
        UNTRAINED,
        search=ContinuousSparsification(rounds=1, rewind="0it", final_temperature=100.0, penalty=1e-8, frozen=True),
    ),
    # Figure 2, after Zhou et al. 2019; --initial-score from -5 to 5 varies its density. Without a penalty, which the
    # paper does not vary here.
    "continuous_conv6_cifar10_supermask_ss": replace(
        UNTRAINED,
        search=StochasticSparsification(
            rounds=1,
            rewind="0it",
            initial_score=0.0,
            penalty=0.0,
            score_optimizer="sgd",
            score_lr=100.0,
            frozen=True,
        ),
    ),
    "continuous_resnet20_cifar10": RESNET20,
    "continuous_resnet20_cifar10_imp": replace(
        RESNET20, search=IMP(levels=30, rate=0.2, rewind="780it", exclude=("*.downsample.*",))
    ),
}

if __name__ == "__main__":
    run(recipes)
