"""One Ticket to Win Them All: source tickets, to be evaluated on other data sets and with other optimisers.

Finds     winning tickets of one source data set, of 31 densities from 100% to 0.12%: 30 levels of 20%; W_k after 1
          epoch on small sets and 3 on large ones. The paper takes six seeds.
Source    One Ticket to Win Them All (Morcos et al. 2019), sections 4.2 and 4.3 and Appendix A.1; flips and padding of
          small images from its reproducibility report (Gohil et al. 2020), section 3.3.
Others    --dataset cifar100 or fashion_mnist in place of cifar10, places365 in place of imagenet, all else the same.
Run       accelerate launch recipes/one_ticket.py transfer_vgg19_cifar10 --dataset cifar100
Cost      not measured yet; recipes/README.md has a line for each.
Accuracy  not measured yet.
"""

from dataclasses import replace

from sslticket import IMP, SGD, Adam, Data, Recipe, Supervised, TrainConfig, View, run

VGG19 = Recipe(
    model="vgg19",
    data=Data(dataset="cifar10", augment=View(size=32, crop="pad", pad=4, flip=True)),
    objective=Supervised(),
    training=TrainConfig(
        length="160ep",
        batch_size=512,
        ghost_batch=256,
        optimizer=SGD(lr=0.1, weight_decay=1e-4),
        drops=("80ep", "120ep"),
    ),
    search=IMP(levels=30, rate=0.2, rewind="1ep"),
)
RESNET50 = replace(
    VGG19,
    model="resnet50",
    training=replace(VGG19.training, length="90ep", drops=("50ep", "65ep", "80ep")),
)


def on_imagenet(small: Recipe) -> Recipe:
    """The same training on ImageNet: batch norm sees a GPU's 32 images, and W_k is taken after 3 epochs."""
    return replace(
        small,
        data=Data(dataset="imagenet"),
        training=replace(small.training, ghost_batch=32),
        search=IMP(levels=30, rate=0.2, rewind="3ep"),
    )


recipes = {
    "transfer_vgg19_cifar10": VGG19,
    "transfer_resnet50_cifar10": RESNET50,
    "transfer_vgg19_imagenet": on_imagenet(VGG19),
    "transfer_resnet50_imagenet": on_imagenet(RESNET50),
    # Section 4.3: tickets to carry to another optimiser.
    "transfer_vgg19_cifar10_adam": replace(
        VGG19, training=replace(VGG19.training, optimizer=Adam(lr=3e-4, weight_decay=1e-4))
    ),
}

if __name__ == "__main__":
    run(recipes)
