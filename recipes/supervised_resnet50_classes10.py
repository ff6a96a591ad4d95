"""Low-shot supervised tickets in ResNet-50: 10% of ImageNet's classes.

Finds     winning tickets from 10% of the classes, with all their images; W_k after 30 epochs, 5,000 updates, 15% of
          training.
Source    Finding Winning Tickets with Limited (or No) Supervision, section 4.2, Table 1 and Appendix A, "ImageNet
          Labels - 10% of classes".
Run       accelerate launch recipes/supervised_resnet50_classes10.py
Cost      not measured yet.
Accuracy  not measured yet.
"""

from sslticket import IMP, SGD, Data, Recipe, Supervised, TrainConfig, run

recipe = Recipe(
    model="resnet50",
    data=Data(dataset="imagenet", subset=0.1, subset_by="classes"),
    objective=Supervised(),
    training=TrainConfig(
        length="200ep",
        batch_size=768,
        ghost_batch=96,
        optimizer=SGD(lr=0.3, weight_decay=3e-4),
        warmup="5ep",
        drops=("140ep", "160ep", "180ep"),
    ),
    search=IMP(levels=30, rate=0.2, rewind="3840000samples"),
)

if __name__ == "__main__":
    run(recipe)
