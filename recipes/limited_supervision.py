"""Finding Winning Tickets with Limited (or No) Supervision: class labels, few labels, RotNet, Exemplar and S4L.

Finds     winning tickets of 31 densities from 100% to 0.12%: 30 levels of 20%. W_k is taken after 3,840,000 samples on
          ImageNet and Places365, and after 1 epoch on CIFAR-10.
Source    Finding Winning Tickets with Limited (or No) Supervision, sections 4.1 and 4.2, Table 1 and Appendix A. It has
          no low-shot runs without labels, and none with 1% of them beside all images: these are ours.
Run       accelerate launch recipes/limited_supervision.py supervised_resnet50_samples10
Cost      not measured yet; recipes/README.md has a line for each.
Accuracy  not measured yet.
"""

from dataclasses import replace
from typing import Literal

from rotnet_resnet50 import recipe as rotnet_resnet50
from supervised_resnet50 import recipe as supervised_resnet50

from sslticket import (
    IMP,
    SGD,
    Adam,
    Data,
    Exemplar,
    HSVNoise,
    Recipe,
    RotNet,
    S4LRotation,
    Supervised,
    TrainConfig,
    View,
    run,
)

AFTER_3_840_000_SAMPLES = IMP(levels=30, rate=0.2, rewind="3840000samples")

# Table 1, section 4.2 and Appendix A, "ImageNet Labels - 10% dataset", "- 10% of classes" and so on: W_k after 10, 30
# and 300 epochs, which are 2,500, 5,000 and 5,000 updates, or 5%, 15% and 30% of the training.
LOW_SHOT = TrainConfig(
    length="200ep",
    batch_size=1536,
    ghost_batch=96,
    optimizer=SGD(lr=0.1, weight_decay=3e-4),
    warmup="5ep",
    drops=("140ep", "160ep", "180ep"),
)
ONE_PERCENT = TrainConfig(
    length="1000ep",
    batch_size=768,
    ghost_batch=96,
    optimizer=SGD(lr=0.1, weight_decay=1e-3),
    drops=("700ep", "800ep", "900ep"),
)
# S4L's noise (Zhai et al. 2019) on top of the standard augmentation, for 1% of the labels.
NOISY = View(size=224, crop="resized", flip=True, transforms=(HSVNoise(),))


def low_shot(training: TrainConfig, subset: float, by: str = "samples", view: View | None = None) -> Recipe:
    """Class labels of a part of ImageNet: of each class's images, or of the classes with all their images."""
    data = Data(dataset="imagenet", subset=subset, subset_by="classes" if by == "classes" else "samples", augment=view)
    return replace(supervised_resnet50, data=data, training=training)


def without_labels(
    recipe: Recipe, subset: float, by: Literal["samples", "classes"], *, lr: float, warmup: float = 0
) -> Recipe:
    """A label-agnostic recipe on a part of ImageNet, for which the paper has no run: these settings are ours.

    Length and drops are those of its runs with labels on as many images, so that W_k after 3,840,000 samples lies where
    its Table 1 has it: at 15% and 30% of the training. The batch of 768 is theirs too, with the rate in proportion.
    Objective, weight decay, ghost batches, views and the share of warmup are those of the recipe on all images.
    """
    labels, epochs = (LOW_SHOT, 200) if subset > 0.01 else (ONE_PERCENT, 1000)
    training = replace(
        labels,
        batch_size=768,
        ghost_batch=recipe.training.ghost_batch,
        optimizer=recipe.training.optimizer.with_lr(lr),
        warmup=f"{warmup * epochs:g}ep",
    )
    return replace(recipe, data=Data(dataset="imagenet", subset=subset, subset_by=by), training=training)


# Appendix A, "CIFAR-10 Labels & RotNet", "CIFAR-10 Exemplar" and "CIFAR-10 Randomly permuted labels".
CIFAR10 = Recipe(
    model="vgg19",  # of Morcos et al.: one linear layer after global pooling
    data=Data(dataset="cifar10"),
    objective=Supervised(),
    training=TrainConfig(
        length="160ep",
        batch_size=512,
        optimizer=Adam(lr=1e-3, weight_decay=1e-4),
        drops=("80ep", "120ep"),
    ),
    search=IMP(levels=30, rate=0.2, rewind="1ep"),
)
CIFAR10_EXEMPLAR = replace(
    CIFAR10,
    objective=Exemplar(),
    training=TrainConfig(length="180ep", batch_size=512, optimizer=Adam(lr=3e-4, weight_decay=1e-4), drops=("120ep",)),
)
# Without augmentation, so that only single images can be learnt, by heart.
CIFAR10_SHUFFLED = replace(CIFAR10, data=Data(dataset="cifar10", shuffle_labels=1.0, augment=View(size=32)))
RESNET18 = "resnet18_cifar"  # ResNet-18 in its CIFAR form: 3x3 stem, no max pool

# "ImageNet Exemplar - ResNet-50"
EXEMPLAR = Recipe(
    model="resnet50",
    data=Data(dataset="imagenet"),
    objective=Exemplar(),
    training=TrainConfig(
        length="30ep",
        batch_size=1536,
        ghost_batch=48,
        optimizer=SGD(lr=1.0, weight_decay=1e-5),
        drops=("20ep", "25ep"),
    ),
    search=AFTER_3_840_000_SAMPLES,
)
# "ImageNet Semi-supervised RotNet": 2,048 source images a step, 1,024 of each stream; an epoch is one pass of the
# labelled one; W_k counts both. Zhai et al. released others: rate 0.03, weight decay 1e-3, 256 + 256 images, in
# four turns each 2,048.
S4L = Recipe(
    model="resnet50",
    data=Data(dataset="imagenet", labels=0.1),
    objective=S4LRotation(),
    training=TrainConfig(
        length="200ep",
        batch_size=2048,
        ghost_batch=64,
        optimizer=SGD(lr=0.1, weight_decay=3e-4),
        warmup="5ep",
        drops=("140ep", "160ep", "180ep"),
    ),
    search=AFTER_3_840_000_SAMPLES,
)

recipes = {
    "supervised_resnet50": supervised_resnet50,
    "rotnet_resnet50": rotnet_resnet50,
    "exemplar_resnet50": EXEMPLAR,
    "s4l_resnet50": S4L,
    # Ours: 1% of the labels beside all images. Passes over the labelled images, drops and no warmup are those of the
    # paper's runs with 1% of the images; W_k lies at 15% of the training, as with labels for 10%.
    "s4l_resnet50_labels1": replace(
        S4L,
        data=Data(dataset="imagenet", labels=0.01),
        training=replace(S4L.training, length=ONE_PERCENT.length, warmup="0ep", drops=ONE_PERCENT.drops),
    ),
    # Ours, see `without_labels`; warmup is 5% of the training, as about 5 of 90 epochs are.
    "rotnet_resnet50_samples10": without_labels(rotnet_resnet50, 0.1, "samples", lr=0.5, warmup=0.05),
    "rotnet_resnet50_samples1": without_labels(rotnet_resnet50, 0.01, "samples", lr=0.5, warmup=0.05),
    "rotnet_resnet50_classes10": without_labels(rotnet_resnet50, 0.1, "classes", lr=0.5, warmup=0.05),
    "rotnet_resnet50_classes1": without_labels(rotnet_resnet50, 0.01, "classes", lr=0.5, warmup=0.05),
    "exemplar_resnet50_samples10": without_labels(EXEMPLAR, 0.1, "samples", lr=0.5),
    "exemplar_resnet50_samples1": without_labels(EXEMPLAR, 0.01, "samples", lr=0.5),
    "exemplar_resnet50_classes10": without_labels(EXEMPLAR, 0.1, "classes", lr=0.5),
    "exemplar_resnet50_classes1": without_labels(EXEMPLAR, 0.01, "classes", lr=0.5),
    # "ImageNet Labels - full dataset - AlexNet"
    "supervised_alexnet": Recipe(
        model="alexnet",
        data=Data(dataset="imagenet"),
        objective=Supervised(),
        training=TrainConfig(
            length="90ep",
            batch_size=4096,
            ghost_batch=512,
            optimizer=SGD(lr=0.4, weight_decay=1e-4),
            drops=("30ep", "60ep"),
        ),
        search=AFTER_3_840_000_SAMPLES,
    ),
    # "ImageNet RotNet - AlexNet"
    "rotnet_alexnet": Recipe(
        model="alexnet",
        data=Data(dataset="imagenet"),
        objective=RotNet(),
        training=TrainConfig(
            length="90ep",
            batch_size=8192,
            ghost_batch=512,
            optimizer=SGD(lr=0.5, weight_decay=1e-5),
            warmup="2ep",
            drops=("30ep", "60ep"),
        ),
        search=AFTER_3_840_000_SAMPLES,
    ),
    # "ImageNet Exemplar - AlexNet"
    "exemplar_alexnet": Recipe(
        model="alexnet",
        data=Data(dataset="imagenet"),
        objective=Exemplar(),
        training=TrainConfig(
            length="30ep",
            batch_size=4096,
            ghost_batch=256,
            optimizer=SGD(lr=0.1, weight_decay=1e-4),
            drops=("20ep",),
        ),
        search=AFTER_3_840_000_SAMPLES,
    ),
    "supervised_resnet50_samples30": low_shot(LOW_SHOT, 0.3),
    "supervised_resnet50_samples10": low_shot(
        replace(LOW_SHOT, batch_size=768, optimizer=SGD(lr=0.1, weight_decay=1e-3)), 0.1
    ),
    "supervised_resnet50_samples1": low_shot(ONE_PERCENT, 0.01, view=NOISY),
    "supervised_resnet50_classes30": low_shot(
        replace(LOW_SHOT, optimizer=SGD(lr=0.03, weight_decay=1e-3)), 0.3, "classes"
    ),
    "supervised_resnet50_classes10": low_shot(
        replace(LOW_SHOT, batch_size=768, optimizer=SGD(lr=0.3, weight_decay=3e-4)), 0.1, "classes"
    ),
    "supervised_resnet50_classes1": low_shot(
        replace(ONE_PERCENT, optimizer=SGD(lr=0.01, weight_decay=3e-3)), 0.01, "classes", NOISY
    ),
    # "Places Labels - ResNet-50" and figure 5b: what low-shot tickets from ImageNet are compared with. The paper
    # names no rewind point for Places; it is taken as on ImageNet.
    "supervised_resnet50_places365": replace(
        supervised_resnet50,
        data=Data(dataset="places365"),
        training=replace(supervised_resnet50.training, batch_size=2048, ghost_batch=128),
    ),
    "supervised_vgg19_cifar10": CIFAR10,
    "supervised_resnet18_cifar10": replace(CIFAR10, model=RESNET18),
    "rotnet_vgg19_cifar10": replace(CIFAR10, objective=RotNet()),
    "rotnet_resnet18_cifar10": replace(CIFAR10, model=RESNET18, objective=RotNet()),
    "exemplar_vgg19_cifar10": CIFAR10_EXEMPLAR,
    "exemplar_resnet18_cifar10": replace(CIFAR10_EXEMPLAR, model=RESNET18),
    "shuffled_vgg19_cifar10": CIFAR10_SHUFFLED,
    "shuffled_resnet18_cifar10": replace(CIFAR10_SHUFFLED, model=RESNET18),
}

if __name__ == "__main__":
    run(recipes)
