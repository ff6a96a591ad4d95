"""The searches of early_bird_sweep.py: early birds and full iterative magnitude pruning at the same densities.

Source    Drawing Early-Bird Tickets (You et al. 2020, https://arxiv.org/abs/1909.11957); sizes are our own.
Run       sslticket run experiments/early_bird/recipes.py:resnet8 --early-bird 0.2
"""

from torch import nn

from sslticket import IMP, SGD, Adam, Data, Recipe, Supervised, TrainConfig, View, run
from sslticket.models import MODELS
from sslticket.models.paper_networks import BasicBlock, ResNet


@MODELS.register("narrow_resnet8")
def narrow_resnet8(channels: int, image_size: int) -> nn.Module:
    """A ResNet of eight layers with 4, 8 and 16 channels, (B, channels, side, side) -> (B, 16)."""
    return ResNet(channels, BasicBlock, (1, 1, 1), (4, 8, 16), small_images=True)


# Three convolutions at 16 pixels, as in docs/searches.md; level 2 keeps 25%, level 6 keeps 1.6%.
CONV3 = Recipe(
    model="conv3",
    data=Data(dataset="cifar10", image_size=16),
    objective=Supervised(),
    training=TrainConfig(
        length="200it", batch_size=64, optimizer=Adam(lr=3e-3, weight_decay=1e-4), drops=("140it", "180it")
    ),
    search=IMP(levels=6, rate=0.5, rewind="30it", early_bird_window=2, early_bird_every="10it"),
)
# The small search by which `make bench` compares whole searches; level 3 keeps 51%.
RESNET8 = Recipe(
    model="narrow_resnet8",
    data=Data(dataset="cifar10", augment=View(size=32, crop="pad", pad=4, flip=True)),
    objective=Supervised(),
    training=TrainConfig(length="300it", batch_size=64, optimizer=SGD(lr=0.05, weight_decay=1e-4), drops=("200it",)),
    search=IMP(levels=3, rate=0.2, rewind="50it", early_bird_window=2, early_bird_every="10it"),
)

recipes = {"conv3": CONV3, "resnet8": RESNET8}

if __name__ == "__main__":
    run(recipes)
