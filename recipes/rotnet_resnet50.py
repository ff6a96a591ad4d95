"""Label-agnostic tickets in ResNet-50: RotNet on ImageNet.

Finds     winning tickets without labels, of 31 densities from 100% to 0.12%.
Source    Finding Winning Tickets with Limited (or No) Supervision, section 4.1 and Appendix A, "ImageNet RotNet".
Run       accelerate launch recipes/rotnet_resnet50.py --subset 0.1
Cost      not measured yet.
Accuracy  not measured yet.
"""

from sslticket import IMP, SGD, Data, Recipe, RotNet, TrainConfig, run

recipe = Recipe(
    model="resnet50",
    data=Data(dataset="imagenet"),
    objective=RotNet(),
    training=TrainConfig(
        length="90ep",
        batch_size=1536,
        ghost_batch=96,
        optimizer=SGD(lr=1.0, weight_decay=1e-5),
        warmup="5ep",
        drops=("50ep", "65ep", "80ep"),
    ),
    search=IMP(levels=30, rate=0.2, rewind="3840000samples"),
)

if __name__ == "__main__":
    run(recipe)
