"""The demonstration: RotNet tickets in a small convolutional network on 8x8 digits.

Finds     tickets of 7 densities from 100% to 1.6% in under two minutes on two processor cores.
Source    our own settings, chosen to show the papers' effect in a short time; `make demo` runs it.
Run       python recipes/rotnet_digits.py
"""

from sslticket import IMP, Adam, Data, Recipe, RotNet, TrainConfig, run

recipe = Recipe(
    model="conv3",
    data=Data(dataset="digits"),
    objective=RotNet(),
    training=TrainConfig(
        length="200it",
        batch_size=128,
        optimizer=Adam(lr=3e-3, weight_decay=0.0),
        drops=("140it", "180it"),
    ),
    search=IMP(levels=6, rate=0.5, rewind="30it"),
)

if __name__ == "__main__":
    run(recipe)
