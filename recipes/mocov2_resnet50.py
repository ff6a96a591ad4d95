"""Label-agnostic tickets in ResNet-50: MoCo v2 on ImageNet.

Finds     winning tickets without labels, of 31 densities from 100% to 0.12%.
Source    Chen et al. 2020 (MoCo v2), section 3; batch and rate from He et al. 2020 (MoCo), section 4.
Run       accelerate launch recipes/mocov2_resnet50.py
Cost      not measured yet.
Accuracy  not measured yet.
"""

from sslticket import IMP, SGD, Data, MoCoV2, Recipe, TrainConfig, run

recipe = Recipe(
    model="resnet50",
    data=Data(dataset="imagenet"),
    objective=MoCoV2(),
    training=TrainConfig(
        length="200ep",
        batch_size=256,
        ghost_batch=32,
        optimizer=SGD(lr=0.03, weight_decay=1e-4),
        decay="cosine",
    ),
    search=IMP(levels=30, rate=0.2, rewind="3840000samples"),
)

if __name__ == "__main__":
    run(recipe)
