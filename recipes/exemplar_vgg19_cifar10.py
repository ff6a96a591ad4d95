"""Label-agnostic tickets in VGG-19: Exemplar on CIFAR-10.

Finds     winning tickets without labels in the VGG-19 of Morcos et al. (one linear layer after global pooling), of 31
          densities from 100% to 0.12%.
Source    Finding Winning Tickets with Limited (or No) Supervision, section 4.1; Appendix A, "CIFAR-10 Exemplar".
Run       accelerate launch recipes/exemplar_vgg19_cifar10.py
Cost      not measured yet.
Accuracy  not measured yet.
"""

from sslticket import IMP, Adam, Data, Exemplar, Recipe, TrainConfig, run

recipe = Recipe(
    model="vgg19",
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
