"""Low-shot supervised tickets in ResNet-50: 1% of ImageNet's images.

Finds     winning tickets from 1% of the images of each class; W_k after 300 epochs, 5,000 updates, 30% of training.
Source    Finding Winning Tickets with Limited (or No) Supervision, section 4.2, Table 1 and Appendix A, "ImageNet
          Labels - 1% dataset".
Colours   S4L's noise (Zhai et al. 2019) on top of the standard augmentation.
Run       accelerate launch recipes/supervised_resnet50_samples1.py
Cost      not measured yet.
Accuracy  not measured yet.
"""

from sslticket import IMP, SGD, Data, HSVNoise, Recipe, Supervised, TrainConfig, View, run

noisy = View(size=224, crop="resized", flip=True, transforms=(HSVNoise(),))
recipe = Recipe(
    model="resnet50",
    data=Data(dataset="imagenet", subset=0.01, augment=noisy),
    objective=Supervised(),
    training=TrainConfig(
        length="1000ep",
        batch_size=768,
        ghost_batch=96,
        optimizer=SGD(lr=0.1, weight_decay=1e-3),
        drops=("700ep", "800ep", "900ep"),
    ),
    search=IMP(levels=30, rate=0.2, rewind="3840000samples"),
)

if __name__ == "__main__":
    run(recipe)
