"""The searches of docs/searches.md: searches and criteria against each other, on small images.

Run       sslticket run experiments/searches/recipes.py:conv3-imp
"""

from dataclasses import replace

from sslticket import (
    ERK,
    IMP,
    SET,
    SNIP,
    Adam,
    ContinuousSparsification,
    Data,
    EdgePopup,
    GraSP,
    Magnitude,
    OneShot,
    Random,
    Recipe,
    RigL,
    StochasticSparsification,
    Supervised,
    SynFlow,
    TrainConfig,
    run,
)

# LeNet 300-100 at its published length; every level prunes what two of the paper's do, to 10.7% at level 5.
LENET = Recipe(
    model="lenet300",
    data=Data(dataset="fashion_mnist"),
    objective=Supervised(),
    training=TrainConfig(length="50000it", batch_size=60, optimizer=Adam(lr=1.2e-3, weight_decay=0.0)),
    search=IMP(levels=5, rate=0.36, rewind="0it", scope="layer"),
)
# Three convolutions on small images, as in the protocol cifar10-small; level 2 keeps 25%, level 6 keeps 1.6%.
CONV3 = Recipe(
    model="conv3",
    data=Data(dataset="cifar10", image_size=16),
    objective=Supervised(),
    training=TrainConfig(
        length="200it", batch_size=64, optimizer=Adam(lr=3e-3, weight_decay=1e-4), drops=("140it", "180it")
    ),
    search=IMP(levels=6, rate=0.5, rewind="30it"),
)
# The same network, trained for longer, so that a mask has the time to change: 14 times, every 15 steps.
LONGER = replace(CONV3, training=replace(CONV3.training, length="300it", drops=("210it", "270it")))
RIGL = RigL(densities=(0.125, 0.015625), update_interval="15it", ticket_weights="initial")
DYNAMIC = {
    "imp": IMP(levels=6, rate=0.5, rewind="0it"),
    "rigl": RIGL,
    "set": SET(
        densities=RIGL.densities,
        distribution="erk",
        update_interval=RIGL.update_interval,
        update_until=RIGL.update_until,
        drop_decay="cosine",
        ticket_weights="initial",
    ),
    "static": replace(RIGL, update_until="0it"),
}
BEFORE_TRAINING = {
    "snip": SNIP(),
    "grasp": GraSP(),
    "synflow": SynFlow(),
    "magnitude": Magnitude(),
    "erk": ERK(),
    "chance": Random(),
}
CONTINUOUS = ContinuousSparsification(
    rounds=3, rewind="30it", rewind_weights=True, final_temperature=100.0, penalty=1e-8, initial_score=0.0
)
STOCHASTIC = StochasticSparsification(rounds=6, rewind="30it", penalty=1e-8)

recipes = {
    "lenet-oneshot": replace(LENET, search=OneShot(levels=5, rate=0.36, rewind="0it", scope="layer")),
    "conv3-imp": CONV3,
    "conv3-oneshot": replace(CONV3, search=OneShot(levels=6, rate=0.5, rewind="30it")),
    "conv3-cs": replace(CONV3, search=CONTINUOUS),
    "conv3-iss": replace(CONV3, search=STOCHASTIC),
    "conv3-supermask-cs": replace(CONV3, search=replace(CONTINUOUS, rounds=1, rewind="0it", frozen=True)),
    "conv3-supermask-ss": replace(CONV3, search=replace(STOCHASTIC, rounds=1, rewind="0it", frozen=True)),
    "conv3-edgepopup": replace(CONV3, search=EdgePopup()),
}
recipes |= {f"dynamic-{name}": replace(LONGER, search=search) for name, search in DYNAMIC.items()}
for name, criterion in BEFORE_TRAINING.items():
    start = OneShot(levels=5, rate=0.36, rewind="0it", scored="start", criterion=criterion)
    recipes[f"lenet-{name}"] = replace(LENET, search=start)
    recipes[f"conv3-{name}"] = replace(CONV3, search=replace(start, levels=6, rate=0.5))

if __name__ == "__main__":
    run(recipes)
