"""Supervised tickets in AlexNet: class labels on ImageNet.

Finds     winning tickets with labels in AlexNet, of 31 densities from 100% to 0.12%.
Source    Finding Winning Tickets with Limited (or No) Supervision, section 4.1 and Appendix A, "ImageNet Labels - full
          dataset - AlexNet".
Run       accelerate launch recipes/supervised_alexnet.py
Cost      not measured yet.
Accuracy  not measured yet.
"""

from sslticket import IMP, SGD, Data, Recipe, Supervised, TrainConfig, run

recipe = Recipe(
    model="alexnet",
    data=Data(dataset="imagenet"),
    objective=Supervised(),
    training=TrainConfig(
        length="90ep",
        batch_size=4096,
        ghost_batch=512,
        optimizer=SGD(lr=0.4, weight_decay=1e-4),
        drops=("30ep", "60ep"),
    ),
    search=IMP(levels=30, rate=0.2, rewind="3840000samples"),
)

if __name__ == "__main__":
    run(recipe)
