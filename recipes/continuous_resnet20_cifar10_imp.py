"""What Continuous Sparsification is compared with in the 20-layer CIFAR ResNet: class labels on CIFAR-10.

Finds     tickets of 31 densities from 100% to 0.1%; W_k after 780 updates.
Source    Winning the Lottery with Continuous Sparsification (Savarese et al. 2019), section 4.2, which calls the
          network "ResNet-18".
Run       accelerate launch recipes/continuous_resnet20_cifar10_imp.py
Cost      not measured yet.
Accuracy  the paper has curves only; ours not measured yet.
"""

from sslticket import IMP, SGD, Data, Recipe, Supervised, TrainConfig, View, run

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
    search=IMP(levels=30, rate=0.2, rewind="780it", exclude=("*.downsample.*",)),
)

if __name__ == "__main__":
    run(recipe)
