"""N:M sparsity: networks for sparse tensor cores, of whose every four weights along a layer's inputs two are pruned.

Finds     the 2:4 network of NVIDIA's workflow: the dense network is trained, pruned once by magnitude, and trained
          again as before, from the weights that are left; and beside it a lottery ticket of the same pattern, whose
          mask is found the same way and whose weights go back to W_k.
Source    Accelerating Sparse Deep Neural Networks (Mishra et al. 2021, https://arxiv.org/abs/2104.08378), whose
          workflow "prunes weights of a densely-trained model once, then repeats the training session with a fixed
          sparsity pattern using the same hyper-parameters", and the README of its code, in apex/contrib/sparsity of
          https://github.com/NVIDIA/apex. The training is that of torchvision's reference, of eight processes of 32
          images: references/classification/train.py of https://github.com/pytorch/vision.
Run       accelerate launch recipes/structured_sparsity.py structured_resnet50_2of4
Cost      not measured yet; recipes/README.md has a line for each.
Accuracy  not measured yet.
"""

from dataclasses import replace

from sslticket import IMP, SGD, Data, Recipe, Supervised, TrainConfig, run

# The first convolution has three inputs, which four does not divide: ASP leaves it dense, and so does every search that
# is asked for the pattern. It is written out, so that searches without a pattern can be limited to the same layers.
PRUNED_ONCE = IMP(levels=1, rate=0.5, rewind="0it", retrain="rate", pattern="2:4", exclude=("conv1",))
RESNET50 = Recipe(
    model="resnet50",
    data=Data(dataset="imagenet"),
    objective=Supervised(),
    training=TrainConfig(
        length="90ep", batch_size=256, optimizer=SGD(lr=0.1, weight_decay=1e-4), drops=("30ep", "60ep")
    ),
    search=PRUNED_ONCE,
)

recipes = {
    "structured_resnet50_2of4": RESNET50,
    # W_k as Stabilizing the Lottery Ticket Hypothesis has it for this network, after six epochs.
    "structured_resnet50_2of4_rewound": replace(RESNET50, search=replace(PRUNED_ONCE, rewind="6ep", retrain="rewind")),
}

if __name__ == "__main__":
    run(recipes)
