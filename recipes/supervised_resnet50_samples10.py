"""Low-shot supervised tickets in ResNet-50: 10% of ImageNet's images.

Finds     winning tickets from 10% of the images of each class; W_k after 30 epochs, 5,000 updates, 15% of training.
Source    Finding Winning Tickets with Limited (or No) Supervision, section 4.2, Table 1 and Appendix A, "ImageNet
          Labels - 10% dataset".
Run       accelerate launch recipes/supervised_resnet50_samples10.py
Cost      not measured yet.
Accuracy  not measured yet.
"""

from sslticket import IMP, SGD, Data, Recipe, Supervised, TrainConfig, run

recipe = Recipe(
    model="resnet50",
    data=Data(dataset="imagenet", subset=0.1),
    objective=Supervised(),
    training=TrainConfig(
        length="200ep",
        batch_size=768,
        ghost_batch=96,
        optimizer=SGD(lr=0.1, weight_decay=1e-3),
        warmup="5ep",
        drops=("140ep", "160ep", "180ep"),
    ),
    search=IMP(levels=30, rate=0.2, rewind="3840000samples"),
)

if __name__ == "__main__":
    run(recipe)
