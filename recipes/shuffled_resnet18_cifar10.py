"""Tickets from labels that mean nothing in ResNet-18: shuffled labels on CIFAR-10.

Finds     tickets in ResNet-18 in its CIFAR form (3x3 stem, no max pool) that can only have learnt single images by
          heart, of 31 densities from 100% to 0.12%; without augmentation.
Source    Finding Winning Tickets with Limited (or No) Supervision, section 4.1; Appendix A, "CIFAR-10 Randomly permuted
          labels".
Run       accelerate launch recipes/shuffled_resnet18_cifar10.py
Cost      not measured yet.
Accuracy  not measured yet.
"""

from sslticket import IMP, Adam, Data, Recipe, Supervised, TrainConfig, View, run

recipe = Recipe(
    model="resnet18_cifar",
    data=Data(dataset="cifar10", shuffle_labels=1.0, augment=View(size=32)),
    objective=Supervised(),
    training=TrainConfig(
        length="160ep",
        batch_size=512,
        optimizer=Adam(lr=1e-3, weight_decay=1e-4),
        drops=("80ep", "120ep"),
    ),
    search=IMP(levels=30, rate=0.2, rewind="1ep"),
)

if __name__ == "__main__":
    run(recipe)
