"""Supervised tickets in ResNet-50 from another domain: class labels on Places365.

Finds     the tickets that low-shot ones from ImageNet are compared with, of 31 densities from 100% to 0.12%.
Source    Finding Winning Tickets with Limited (or No) Supervision, section 4.2, figure 5b, and Appendix A, "Places
          Labels - ResNet-50"; it names no rewind point for Places: as on ImageNet.
Run       accelerate launch recipes/supervised_resnet50_places365.py
Cost      not measured yet.
Accuracy  not measured yet.
"""

from sslticket import IMP, SGD, Data, Recipe, Supervised, TrainConfig, run

recipe = Recipe(
    model="resnet50",
    data=Data(dataset="places365"),
    objective=Supervised(),
    training=TrainConfig(
        length="90ep",
        batch_size=2048,
        ghost_batch=128,
        optimizer=SGD(lr=0.1, weight_decay=1e-4),
        drops=("50ep", "65ep", "80ep"),
    ),
    search=IMP(levels=30, rate=0.2, rewind="3840000samples"),
)

if __name__ == "__main__":
    run(recipe)
