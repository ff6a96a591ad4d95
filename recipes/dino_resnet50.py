"""Label-agnostic tickets in ResNet-50: DINO on ImageNet.

Finds     winning tickets without labels, of 31 densities from 100% to 0.12%.
Source    Caron et al. 2021 (DINO), with the authors' settings for 100 epochs of ResNet-50 with SGD (README of their
          code; its transformers take AdamW): rate 0.03 per 256 images.
Differs   they clip each tensor's gradient to a norm of 3, here that of all weights together; they spare biases and
          batch norm the weight decay.
Run       accelerate launch recipes/dino_resnet50.py
Cost      not measured yet.
Accuracy  not measured yet.
"""

from sslticket import DINO, IMP, SGD, Data, Recipe, TrainConfig, run

recipe = Recipe(
    model="resnet50",
    data=Data(dataset="imagenet"),
    objective=DINO(),
    training=TrainConfig(
        length="100ep",
        batch_size=512,
        optimizer=SGD(lr=0.06, weight_decay=1e-4),
        warmup="10ep",
        decay="cosine",
        last_lr=1e-6,
        clip=3.0,
    ),
    search=IMP(levels=30, rate=0.2, rewind="3840000samples"),
)

if __name__ == "__main__":
    run(recipe)
