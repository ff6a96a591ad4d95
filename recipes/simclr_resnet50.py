"""Label-agnostic tickets in ResNet-50: SimCLR on ImageNet.

Finds     winning tickets without labels, of 31 densities from 100% to 0.12%.
Source    Chen et al. 2020 (SimCLR), section 2.2: rate 0.3 per 256 images.
Run       accelerate launch recipes/simclr_resnet50.py
Cost      not measured yet.
Accuracy  not measured yet.
"""

from sslticket import IMP, LARS, Data, Recipe, SimCLR, TrainConfig, run

recipe = Recipe(
    model="resnet50",
    data=Data(dataset="imagenet"),
    objective=SimCLR(),
    training=TrainConfig(
        length="100ep",
        batch_size=4096,
        optimizer=LARS(lr=4.8, weight_decay=1e-6),
        warmup="10ep",
        decay="cosine",
    ),
    search=IMP(levels=30, rate=0.2, rewind="3840000samples"),
)

if __name__ == "__main__":
    run(recipe)
