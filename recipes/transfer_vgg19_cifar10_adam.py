"""Tickets to carry to another optimiser, in VGG-19 with Adam: class labels on CIFAR-10, or another small set.

Finds     winning tickets of one source optimiser, of 31 densities from 100% to 0.12%; transfer_vgg19_cifar10 finds
          SGD's.
Source    One Ticket to Win Them All (Morcos et al. 2019), section 4.3 and Appendix A.1; flips and padding from its
          reproducibility report (Gohil et al. 2020), section 3.3.
Others    --dataset cifar100 or fashion_mnist, all else the same.
Run       accelerate launch recipes/transfer_vgg19_cifar10_adam.py --dataset cifar100
Cost      not measured yet.
Accuracy  not measured yet.
"""

from sslticket import IMP, Adam, Data, Recipe, Supervised, TrainConfig, View, run

recipe = Recipe(
    model="vgg19",
    data=Data(dataset="cifar10", augment=View(size=32, crop="pad", pad=4, flip=True)),
    objective=Supervised(),
    training=TrainConfig(
        length="160ep",
        batch_size=512,
        ghost_batch=256,
        optimizer=Adam(lr=3e-4, weight_decay=1e-4),
        drops=("80ep", "120ep"),
    ),
    search=IMP(levels=30, rate=0.2, rewind="1ep"),
)

if __name__ == "__main__":
    run(recipe)
