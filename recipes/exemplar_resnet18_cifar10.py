"""Label-agnostic tickets in ResNet-18: Exemplar on CIFAR-10.

Finds     winning tickets without labels in ResNet-18 in its CIFAR form (3x3 stem, no max pool), of 31 densities from
          100% to 0.12%.
Source    Finding Winning Tickets with Limited (or No) Supervision, section 4.1; Appendix A, "CIFAR-10 Exemplar".
Run       accelerate launch recipes/exemplar_resnet18_cifar10.py
Cost      not measured yet.
Accuracy  not measured yet.
"""

from sslticket import IMP, Adam, Data, Exemplar, Recipe, TrainConfig, run

recipe = Recipe(
    model="resnet18_cifar",
    data=Data(dataset="cifar10"),
    objective=Exemplar(),
    training=TrainConfig(
        length="180ep",
        batch_size=512,
        optimizer=Adam(lr=3e-4, weight_decay=1e-4),
        drops=("120ep",),
    ),
    search=IMP(levels=30, rate=0.2, rewind="1ep"),
)

if __name__ == "__main__":
    run(recipe)
