"""Label-agnostic tickets in ResNet-50: SwAV on ImageNet.

Finds     winning tickets without labels, of 31 densities from 100% to 0.12%.
Source    Caron et al. 2020 (SwAV), Appendix A.1, with the authors' settings for 100 epochs (scripts/ of their code).
Differs   warmup starts from 0, theirs from 0.3.
Run       accelerate launch recipes/swav_resnet50.py
Cost      not measured yet.
Accuracy  not measured yet.
"""

from sslticket import IMP, LARS, Data, Recipe, SwAV, TrainConfig, run

recipe = Recipe(
    model="resnet50",
    data=Data(dataset="imagenet"),
    objective=SwAV(),
    training=TrainConfig(
        length="100ep",
        batch_size=4096,
        optimizer=LARS(lr=4.8, weight_decay=1e-6),
        warmup="10ep",
        decay="cosine",
        last_lr=0.0048,
    ),
    search=IMP(levels=30, rate=0.2, rewind="3840000samples"),
)

if __name__ == "__main__":
    run(recipe)
