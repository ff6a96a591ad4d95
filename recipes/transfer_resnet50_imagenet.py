"""Tickets to carry to other data sets, in ResNet-50 with SGD: class labels on ImageNet or Places365.

Finds     winning tickets of one large source data set, of 31 densities from 100% to 0.12%; the paper takes six seeds.
Source    One Ticket to Win Them All (Morcos et al. 2019), section 4.2 and Appendix A.1.
Others    --dataset places365, all else the same.
Run       accelerate launch recipes/transfer_resnet50_imagenet.py --dataset places365
Cost      not measured yet.
Accuracy  not measured yet.
"""

from sslticket import IMP, SGD, Data, Recipe, Supervised, TrainConfig, run

recipe = Recipe(
    model="resnet50",
    data=Data(dataset="imagenet"),
    objective=Supervised(),
    training=TrainConfig(
        length="90ep",
        batch_size=512,
        ghost_batch=32,
        optimizer=SGD(lr=0.1, weight_decay=1e-4),
        drops=("50ep", "65ep", "80ep"),
    ),
    search=IMP(levels=30, rate=0.2, rewind="3ep"),
)

if __name__ == "__main__":
    run(recipe)
