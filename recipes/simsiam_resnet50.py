"""Label-agnostic tickets in ResNet-50: SimSiam on ImageNet.

Finds     winning tickets without labels, of 31 densities from 100% to 0.12%.
Source    Chen & He 2021 (SimSiam), section 3, baseline settings: rate 0.05 per 256 images.
Run       accelerate launch recipes/simsiam_resnet50.py
Cost      not measured yet.
Accuracy  not measured yet.
"""

from sslticket import IMP, SGD, Data, Recipe, SimSiam, TrainConfig, run

recipe = Recipe(
    model="resnet50",
    data=Data(dataset="imagenet"),
    objective=SimSiam(),
    training=TrainConfig(
        length="100ep",
        batch_size=512,
        optimizer=SGD(lr=0.1, weight_decay=1e-4),
        decay="cosine",
    ),
    search=IMP(levels=30, rate=0.2, rewind="3840000samples"),
)

if __name__ == "__main__":
    run(recipe)
