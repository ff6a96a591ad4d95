"""Stabilizing the Lottery Ticket Hypothesis: rewinding to an early step, on small and on large networks.

Finds     tickets rewound to W_k: of 21 densities from 100% to 1.2% on MNIST and CIFAR-10, of 11 on ImageNet, and one
          each of networks that are pruned at once. --rewind 0it resets to initialisation, which the paper compares
          with.
Source    Stabilizing the Lottery Ticket Hypothesis (Frankle et al. 2019, https://arxiv.org/abs/1903.01611), figures
          2, 4, 6 and 8 and section 5; flips and shifts as in Frankle & Carbin 2019, which it follows.
Run       accelerate launch recipes/stabilizing.py stabilizing_resnet20_cifar10_low
Cost      not measured yet; recipes/README.md has a line for each.
Accuracy  the paper's dense networks are in recipes/README.md; ours not measured yet.
"""

from dataclasses import replace

from sslticket import IMP, SGD, Adam, Data, Recipe, RMSprop, Supervised, TrainConfig, View, run

CIFAR10 = Data(dataset="cifar10", augment=View(size=32, crop="pad", pad=4, flip=True))

# The paper calls the 20-layer network "Resnet-18" and studies 16.7%, level 8; weight decay as in He et al. 2016.
RESNET20 = Recipe(
    model="resnet20",
    data=CIFAR10,
    objective=Supervised(),
    training=TrainConfig(
        length="30000it",
        batch_size=128,
        optimizer=SGD(lr=0.1, weight_decay=1e-4),
        drops=("20000it", "25000it"),
    ),
    search=IMP(levels=20, rate=0.2, rewind="500it"),
)
# The paper studies 2.2%, level 17; weight decay as in Liu et al. 2019.
VGG19 = Recipe(
    model="vgg19",
    data=CIFAR10,
    objective=Supervised(),
    training=TrainConfig(
        length="112000it",
        batch_size=64,
        optimizer=SGD(lr=0.1, weight_decay=1e-4),
        drops=("56000it", "84000it"),
    ),
    search=IMP(levels=20, rate=0.2, rewind="100it"),
)
# Section 5, figures 6 to 8; weight decays and RMSprop's settings of the implementation it names (Google 2018). In the
# paper tickets match the dense network down to 20%, level 7, or at the 30% and 50% of the networks pruned at once.
RESNET50 = Recipe(
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


def with_lr(recipe: Recipe, lr: float, warmup: str = "0ep") -> Recipe:
    """The same training at another learning rate, which rises over `warmup`."""
    return replace(recipe, training=replace(recipe.training, optimizer=SGD(lr=lr, weight_decay=1e-4), warmup=warmup))


recipes = {
    # Figure 2: pruned by layer and without weight decay, as in Frankle & Carbin 2019, section 2; reset to
    # initialisation. The paper studies 10.7%, level 10.
    "stabilizing_lenet300_mnist": Recipe(
        model="lenet300",
        data=Data(dataset="mnist"),
        objective=Supervised(),
        training=TrainConfig(length="50000it", batch_size=60, optimizer=Adam(lr=1.2e-3, weight_decay=0.0)),
        search=IMP(levels=20, rate=0.2, rewind="0it", scope="layer"),
    ),
    "stabilizing_resnet20_cifar10_standard": RESNET20,
    "stabilizing_resnet20_cifar10_low": with_lr(RESNET20, 0.01),
    "stabilizing_resnet20_cifar10_warmup": with_lr(RESNET20, 0.03, "20000it"),
    "stabilizing_vgg19_cifar10_standard": VGG19,
    "stabilizing_vgg19_cifar10_low": with_lr(VGG19, 0.01),
    "stabilizing_vgg19_cifar10_warmup": with_lr(VGG19, 0.1, "10000it"),
    "stabilizing_resnet50": RESNET50,
    "stabilizing_resnet50_oneshot": replace(RESNET50, search=IMP(levels=1, rate=0.7, rewind="4ep")),
    # Without the auxiliary classifier and the label smoothing of the implementation it names.
    "stabilizing_inception_oneshot": Recipe(
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
    ),
    "stabilizing_squeezenet_oneshot": Recipe(
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
    ),
}

if __name__ == "__main__":
    run(recipes)
