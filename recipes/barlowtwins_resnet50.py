"""Label-agnostic tickets in ResNet-50: Barlow Twins on ImageNet.

Finds     winning tickets without labels, of 31 densities from 100% to 0.12%.
Source    Zbontar et al. 2021 (Barlow Twins), section 2.2: rate 0.2 per 256 images, falling to a thousandth;
          biases and batch norm 0.0048.
Run       accelerate launch recipes/barlowtwins_resnet50.py
Cost      not measured yet.
Accuracy  not measured yet.
"""

from sslticket import IMP, LARS, BarlowTwins, Data, Recipe, TrainConfig, run

recipe = Recipe(
    model="resnet50",
    data=Data(dataset="imagenet"),
    objective=BarlowTwins(),
    training=TrainConfig(
        length="1000ep",
        batch_size=2048,
        optimizer=LARS(lr=1.6, weight_decay=1.5e-6, bias_lr=0.0384),
        warmup="10ep",
        decay="cosine",
        last_lr=1.6e-3,
    ),
    search=IMP(levels=30, rate=0.2, rewind="3840000samples"),
)

if __name__ == "__main__":
    run(recipe)
