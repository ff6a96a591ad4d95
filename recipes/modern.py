"""Transformers and ConvNeXts: class labels with DeiT's and ConvNeXt's settings, and DINO with its authors'.

Finds     winning tickets in ViT-S/16 and ConvNeXt-T on ImageNet, of 31 densities from 100% to 0.12%; W_k after
          3,840,000 samples, as in Finding Winning Tickets with Limited (or No) Supervision.
Source    the networks' own authors, see each recipe, which also says what of theirs is left out here.
Run       accelerate launch recipes/modern.py supervised_vit_small
Cost      not measured yet; recipes/README.md has a line for each.
Accuracy  not measured yet.
"""

from sslticket import DINO, IMP, AdamW, Data, Recipe, Supervised, TrainConfig, run

IMAGENET = Data(dataset="imagenet")
SEARCH = IMP(levels=30, rate=0.2, rewind="3840000samples")

recipes = {
    # Touvron et al. 2021 (DeiT), Table 9, and their command for DeiT-S (README_deit.md of their code, main.py for what
    # it does not say): rate 5e-4 per 512 images, 1,024 of them on 4 GPUs; class token and position embedding do not
    # decay. Left out is their augmentation: RandAugment, Mixup and CutMix, random erasing, repeated augmentation; and
    # the moving average of the weights. Without these an accuracy of 79.9% is not to be expected.
    "supervised_vit_small": Recipe(
        model="vit_small_patch16_224",
        data=IMAGENET,
        objective=Supervised(label_smoothing=0.1),
        training=TrainConfig(
            length="300ep",
            batch_size=1024,
            optimizer=AdamW(lr=1e-3, weight_decay=0.05, spare="tokens"),
            warmup="5ep",
            decay="cosine",
            last_lr=1e-5,
            drop_path=0.1,
        ),
        search=SEARCH,
    ),
    # Liu et al. 2022 (ConvNeXt), Table 5, and their command for ConvNeXt-T (TRAINING.md of their code, main.py for what
    # it does not say). Left out are RandAugment, Mixup and CutMix, random erasing, and the moving average of the
    # weights. Without these an accuracy of 82.1% is not to be expected.
    "supervised_convnext_tiny": Recipe(
        model="convnext_tiny",
        data=IMAGENET,
        objective=Supervised(label_smoothing=0.1),
        training=TrainConfig(
            length="300ep",
            batch_size=4096,
            optimizer=AdamW(lr=4e-3, weight_decay=0.05),
            warmup="20ep",
            decay="cosine",
            last_lr=1e-6,
            drop_path=0.1,
        ),
        search=SEARCH,
    ),
    # Caron et al. 2021 (DINO), the authors' command for 100 epochs of ViT-S/16 on 8 GPUs (README of their code, the
    # rest main_dino.py's defaults): rate 5e-4 per 256 images. They clip each tensor's gradient to a norm of 3, here
    # that of all weights together.
    "dino_vit_small": Recipe(
        model="vit_small_patch16_224",
        data=IMAGENET,
        objective=DINO(crop_boundary=0.4),
        training=TrainConfig(
            length="100ep",
            batch_size=512,
            optimizer=AdamW(lr=1e-3, weight_decay=0.04, last_weight_decay=0.4),
            warmup="10ep",
            decay="cosine",
            last_lr=1e-6,
            clip=3.0,
            drop_path=0.1,
        ),
        search=SEARCH,
    ),
}

if __name__ == "__main__":
    run(recipes)
