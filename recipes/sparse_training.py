"""Dynamic sparse training: RigL and SET, sparse from the first step on.

Finds     tickets of densities of 20% and 10% whose masks have changed in training; --densities takes others.
Source    Rigging the Lottery (Evci et al. 2020, https://arxiv.org/abs/1911.11134) and its code
          (https://github.com/google-research/rigl, commit d39fc7d): 32,000 steps, a mask that changes every 100 steps
          up to step 25,000, 30% of it at first. Training and label smoothing are the defaults of
          rigl/imagenet_resnet/imagenet_train_eval.py, by which the learning rate is 0.1 for 256 images. SET is run as
          they run it (Mocanu et al. 2018, https://arxiv.org/abs/1707.04780). The last layer is dense here.
Run       accelerate launch recipes/sparse_training.py rigl_resnet50
Cost      not measured yet; recipes/README.md has a line for each.
Accuracy  theirs are 75.1% at a density of 20% and 73.1% at 10% (Erdos-Renyi-kernel, the code's README); ours not
          measured yet.
"""

from dataclasses import replace

from sslticket import SET, SGD, Adam, Data, Recipe, RigL, Supervised, TrainConfig, View, run

GROWING = RigL(densities=(0.2, 0.1), update_until="25000it")
RESNET50 = Recipe(
    model="resnet50",
    data=Data(dataset="imagenet"),
    objective=Supervised(label_smoothing=0.1),
    training=TrainConfig(
        length="32000it",
        batch_size=4096,
        optimizer=SGD(lr=1.6, weight_decay=1e-4, nesterov=True),
        drops=("30ep", "70ep", "90ep"),
    ),
    search=GROWING,
)
EVOLVING = SET(
    densities=(0.2, 0.1), distribution="erk", update_interval="100it", update_until="25000it", drop_decay="cosine"
)
# Ours: the small residual network of Frankle et al. 2019 with its training, in place of a wide one whose learning rate
# is divided by 5; changes as in rigl/cifar_resnet/resnet_train_eval.py, which leaves the first layer dense, and up to
# three quarters of the training as it does.
RESNET20 = Recipe(
    model="resnet20",
    data=Data(dataset="cifar10", augment=View(size=32, crop="pad", pad=4, flip=True)),
    objective=Supervised(),
    training=TrainConfig(
        length="30000it",
        batch_size=128,
        optimizer=SGD(lr=0.1, weight_decay=1e-4),
        drops=("20000it", "25000it"),
    ),
    search=RigL(densities=(0.2, 0.1, 0.05), distribution="uniform", exclude=("conv1",)),
)

recipes = {
    "rigl_resnet50": RESNET50,
    # The first layer is dense.
    "rigl_resnet50_uniform": replace(RESNET50, search=replace(GROWING, distribution="uniform", exclude=("conv1",))),
    "set_resnet50": replace(RESNET50, search=EVOLVING),
    # "Static" in the paper: a random mask that stays.
    "static_resnet50": replace(RESNET50, search=replace(GROWING, update_until="0it")),
    "rigl_resnet20_cifar10": RESNET20,
    "set_resnet20_cifar10": replace(
        RESNET20,
        search=replace(
            EVOLVING,
            densities=(0.2, 0.1, 0.05),
            distribution="uniform",
            update_until="75%",
            exclude=("conv1",),
        ),
    ),
    # Ours, in a few seconds.
    "rigl_digits": Recipe(
        model="conv3",
        data=Data(dataset="digits"),
        objective=Supervised(),
        training=TrainConfig(
            length="200it", batch_size=128, optimizer=Adam(lr=3e-3, weight_decay=0.0), drops=("140it", "180it")
        ),
        search=RigL(densities=(0.2, 0.05), update_interval="10it"),
    ),
}

if __name__ == "__main__":
    run(recipes)
