"""Label-agnostic tickets in ResNet-50: VICReg on ImageNet.

Finds     winning tickets without labels, of 31 densities from 100% to 0.12%.
Source    Bardes et al. 2022 (VICReg), section 4.2, with the authors' settings for 100 epochs (README of their code):
          rate 0.3 per 256 images, falling to a thousandth.
Run       accelerate launch recipes/vicreg_resnet50.py
Cost      not measured yet.
Accuracy  not measured yet.
"""

from sslticket import IMP, LARS, Data, Recipe, TrainConfig, VICReg, run

recipe = Recipe(
    model="resnet50",
    data=Data(dataset="imagenet"),
    objective=VICReg(),
    training=TrainConfig(
        length="100ep",
        batch_size=512,
        optimizer=LARS(lr=0.6, weight_decay=1e-6),
        warmup="10ep",
        decay="cosine",
        last_lr=6e-4,
    ),
    search=IMP(levels=30, rate=0.2, rewind="3840000samples"),
)

if __name__ == "__main__":
    run(recipe)
