"""Label-agnostic tickets in ResNet-50: BYOL on ImageNet.

Finds     winning tickets without labels, of 31 densities from 100% to 0.12%.
Source    Grill et al. 2020 (BYOL), section 3.3, with the authors' settings for 100 epochs (byol/configs in their code):
          rate 0.45 per 256 images.
Run       accelerate launch recipes/byol_resnet50.py
Cost      not measured yet.
Accuracy  not measured yet.
"""

from sslticket import BYOL, IMP, LARS, Data, Recipe, TrainConfig, run

recipe = Recipe(
    model="resnet50",
    data=Data(dataset="imagenet"),
    objective=BYOL(ema=0.99),
    training=TrainConfig(
        length="100ep",
        batch_size=4096,
        optimizer=LARS(lr=7.2, weight_decay=1e-6),
        warmup="10ep",
        decay="cosine",
    ),
    search=IMP(levels=30, rate=0.2, rewind="3840000samples"),
)

if __name__ == "__main__":
    run(recipe)
