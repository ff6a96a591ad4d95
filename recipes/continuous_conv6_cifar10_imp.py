"""What Continuous Sparsification is compared with: iterative pruning of Conv-6, class labels on CIFAR-10.

Finds     tickets of 31 densities from 100% to 0.1%, reset to initialisation.
Source    Winning the Lottery with Continuous Sparsification (Savarese et al. 2019), section 4.1; by layer, as in
          Frankle & Carbin 2019, figure 2, which it follows.
Run       accelerate launch recipes/continuous_conv6_cifar10_imp.py
Cost      not measured yet.
Accuracy  the paper has curves only; ours not measured yet.
"""

from sslticket import IMP, Adam, Data, Recipe, Supervised, TrainConfig, View, run

recipe = Recipe(
    model="conv6",
    data=Data(dataset="cifar10", augment=View(size=32)),
    objective=Supervised(),
    training=TrainConfig(length="40ep", batch_size=60, optimizer=Adam(lr=3e-4, weight_decay=0.0)),
    search=IMP(levels=30, rate=0.15, linear_rate=0.2, rewind="0it", scope="layer"),
)

if __name__ == "__main__":
    run(recipe)
