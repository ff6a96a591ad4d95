"""Semi-supervised tickets in ResNet-50: labels of 10% of ImageNet, turns of all of it.

Finds     winning tickets with few labels, of 31 densities from 100% to 0.12%.
Source    Finding Winning Tickets with Limited (or No) Supervision, section 4.2 and Appendix A, "ImageNet
          Semi-supervised RotNet".
Batch     2,048 source images a step, 1,024 of each stream; an epoch is one pass of the labelled one; W_k counts both.
          Zhai et al. released others: rate 0.03, weight decay 1e-3, 256 + 256 images, in four turns each 2,048.
Run       accelerate launch recipes/s4l_resnet50.py
Cost      not measured yet.
Accuracy  not measured yet.
"""

from sslticket import IMP, SGD, Data, Recipe, S4LRotation, TrainConfig, run

recipe = Recipe(
    model="resnet50",
    data=Data(dataset="imagenet", labels=0.1),
    objective=S4LRotation(),
    training=TrainConfig(
        length="200ep",
        batch_size=2048,
        ghost_batch=64,
        optimizer=SGD(lr=0.1, weight_decay=3e-4),
        warmup="5ep",
        drops=("140ep", "160ep", "180ep"),
    ),
    search=IMP(levels=30, rate=0.2, rewind="3840000samples"),
)

if __name__ == "__main__":
    run(recipe)
