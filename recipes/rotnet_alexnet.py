"""Label-agnostic tickets in AlexNet: RotNet on ImageNet.

Finds     winning tickets without labels in AlexNet, of 31 densities from 100% to 0.12%.
Source    Finding Winning Tickets with Limited (or No) Supervision, section 4.1 and Appendix A, "ImageNet RotNet -
          AlexNet".
Run       accelerate launch recipes/rotnet_alexnet.py
Cost      not measured yet.
Accuracy  not measured yet.
"""

from sslticket import IMP, SGD, Data, Recipe, RotNet, TrainConfig, run

recipe = Recipe(
    model="alexnet",
    data=Data(dataset="imagenet"),
    objective=RotNet(),
    training=TrainConfig(
        length="90ep",
        batch_size=8192,
        ghost_batch=512,
        optimizer=SGD(lr=0.5, weight_decay=1e-5),
        warmup="2ep",
        drops=("30ep", "60ep"),
    ),
    search=IMP(levels=30, rate=0.2, rewind="3840000samples"),
)

if __name__ == "__main__":
    run(recipe)
