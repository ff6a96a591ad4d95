"""Label-agnostic tickets in AlexNet: Exemplar on ImageNet.

Finds     winning tickets without labels in AlexNet, of 31 densities from 100% to 0.12%.
Source    Finding Winning Tickets with Limited (or No) Supervision, section 4.1 and Appendix A, "ImageNet Exemplar -
          AlexNet".
Run       accelerate launch recipes/exemplar_alexnet.py
Cost      not measured yet.
Accuracy  not measured yet.
"""

from sslticket import IMP, SGD, Data, Exemplar, Recipe, TrainConfig, run

recipe = Recipe(
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
    search=IMP(levels=30, rate=0.2, rewind="3840000samples"),
)

if __name__ == "__main__":
    run(recipe)
