"""Label-agnostic tickets in ResNet-50: Exemplar on ImageNet.

Finds     winning tickets without labels, of 31 densities from 100% to 0.12%.
Source    Finding Winning Tickets with Limited (or No) Supervision, section 4.1 and Appendix A, "ImageNet Exemplar -
          ResNet-50".
Run       accelerate launch recipes/exemplar_resnet50.py
Cost      not measured yet.
Accuracy  not measured yet.
"""

from sslticket import IMP, SGD, Data, Exemplar, Recipe, TrainConfig, run

recipe = Recipe(
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
    search=IMP(levels=30, rate=0.2, rewind="3840000samples"),
)

if __name__ == "__main__":
    run(recipe)
