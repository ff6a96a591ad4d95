"""Low-shot supervised tickets in ResNet-50: 30% of ImageNet's images.

Finds     winning tickets from 30% of the images of each class; W_k after 10 epochs, 2,500 updates, 5% of training.
Source    Finding Winning Tickets with Limited (or No) Supervision, section 4.2, Table 1 and Appendix A, "ImageNet
          Labels - 30% dataset".
Run       accelerate launch recipes/supervised_resnet50_samples30.py
Cost      not measured yet.
Accuracy  not measured yet.
"""

from sslticket import IMP, SGD, Data, Recipe, Supervised, TrainConfig, run

recipe = Recipe(
    model="resnet50",
    data=Data(dataset="imagenet", subset=0.3),
    objective=Supervised(),
    training=TrainConfig(
        length="200ep",
        batch_size=1536,
        ghost_batch=96,
        optimizer=SGD(lr=0.1, weight_decay=3e-4),
        warmup="5ep",
        drops=("140ep", "160ep", "180ep"),
    ),
    search=IMP(levels=30, rate=0.2, rewind="3840000samples"),
)

if __name__ == "__main__":
    run(recipe)
