"""Self-supervision since then: SimCLR, MoCo v2, BYOL, SimSiam, Barlow Twins, VICReg, SwAV, DINO; MAE, iBOT and DINOv2.

Finds     winning tickets in ResNet-50 without labels, and with the last three in vision transformers, of 31 densities
          from 100% to 0.12%; W_k after 3,840,000 samples, as in Finding Winning Tickets with Limited (or No)
          Supervision.
Source    each objective's own authors: their settings for 100 epochs where there are any, since every level costs a
          training. Low-shot SimCLR is ours.
Run       accelerate launch recipes/self_supervision.py simclr_resnet50
Cost      not measured yet; recipes/README.md has a line for each.
Accuracy  not measured yet.
"""

from dataclasses import replace
from typing import Literal

from sslticket import (
    BYOL,
    DINO,
    IBOT,
    IMP,
    LARS,
    MAE,
    SGD,
    AdamW,
    BarlowTwins,
    Data,
    DINOv2,
    MoCoV2,
    Recipe,
    SimCLR,
    SimSiam,
    SwAV,
    TrainConfig,
    VICReg,
    run,
)

IMAGENET = Data(dataset="imagenet")
SEARCH = IMP(levels=30, rate=0.2, rewind="3840000samples")

# Chen et al. 2020 (SimCLR), section 2.2: rate 0.3 per 256 images.
SIMCLR = Recipe(
    model="resnet50",
    data=IMAGENET,
    objective=SimCLR(),
    training=TrainConfig(
        length="100ep",
        batch_size=4096,
        optimizer=LARS(lr=4.8, weight_decay=1e-6),
        warmup="10ep",
        decay="cosine",
    ),
    search=SEARCH,
)


def low_shot_simclr(subset: float, by: Literal["samples", "classes"], epochs: int) -> Recipe:
    """SimCLR on a part of ImageNet, of which its authors have no run: these settings are ours.

    The epochs are those of Finding Winning Tickets with Limited (or No) Supervision on as many labelled images, 200 and
    1,000, so that W_k lies where its Table 1 has it. Half the batch, since 1% of the images are 12,811; rate per image,
    cosine and a tenth of warmup are as on all images.
    """
    training = replace(
        SIMCLR.training,
        length=f"{epochs}ep",
        batch_size=2048,
        optimizer=LARS(lr=2.4, weight_decay=1e-6),
        warmup=f"{epochs // 10}ep",
    )
    return replace(SIMCLR, data=Data(dataset="imagenet", subset=subset, subset_by=by), training=training)


recipes = {
    "simclr_resnet50": SIMCLR,
    "simclr_resnet50_samples10": low_shot_simclr(0.1, "samples", 200),
    "simclr_resnet50_samples1": low_shot_simclr(0.01, "samples", 1000),
    "simclr_resnet50_classes10": low_shot_simclr(0.1, "classes", 200),
    "simclr_resnet50_classes1": low_shot_simclr(0.01, "classes", 1000),
    # Chen et al. 2020 (MoCo v2), section 3; batch and rate from He et al. 2020 (MoCo), section 4.
    "mocov2_resnet50": Recipe(
        model="resnet50",
        data=IMAGENET,
        objective=MoCoV2(),
        training=TrainConfig(
            length="200ep",
            batch_size=256,
            ghost_batch=32,
            optimizer=SGD(lr=0.03, weight_decay=1e-4),
            decay="cosine",
        ),
        search=SEARCH,
    ),
    # Grill et al. 2020 (BYOL), section 3.3, with the authors' settings for 100 epochs (byol/configs in their code):
    # rate 0.45 per 256 images.
    "byol_resnet50": Recipe(
        model="resnet50",
        data=IMAGENET,
        objective=BYOL(momentum=0.99),
        training=TrainConfig(
            length="100ep",
            batch_size=4096,
            optimizer=LARS(lr=7.2, weight_decay=1e-6),
            warmup="10ep",
            decay="cosine",
        ),
        search=SEARCH,
    ),
    # Chen & He 2021 (SimSiam), section 3, baseline settings: rate 0.05 per 256 images.
    "simsiam_resnet50": Recipe(
        model="resnet50",
        data=IMAGENET,
        objective=SimSiam(),
        training=TrainConfig(length="100ep", batch_size=512, optimizer=SGD(lr=0.1, weight_decay=1e-4), decay="cosine"),
        search=SEARCH,
    ),
    # Zbontar et al. 2021 (Barlow Twins), section 2.2: rate 0.2 per 256 images, falling to a thousandth; biases and
    # batch norm 0.0048.
    "barlowtwins_resnet50": Recipe(
        model="resnet50",
        data=IMAGENET,
        objective=BarlowTwins(),
        training=TrainConfig(
            length="1000ep",
            batch_size=2048,
            optimizer=LARS(lr=1.6, weight_decay=1.5e-6, bias_lr=0.0384),
            warmup="10ep",
            decay="cosine",
            last_lr=1.6e-3,
        ),
        search=SEARCH,
    ),
    # Bardes et al. 2022 (VICReg), section 4.2, with the authors' settings for 100 epochs (README of their code): rate
    # 0.3 per 256 images, falling to a thousandth.
    "vicreg_resnet50": Recipe(
        model="resnet50",
        data=IMAGENET,
        objective=VICReg(),
        training=TrainConfig(
            length="100ep",
            batch_size=512,
            optimizer=LARS(lr=0.6, weight_decay=1e-6),
            warmup="10ep",
            decay="cosine",
            last_lr=6e-4,
        ),
        search=SEARCH,
    ),
    # Caron et al. 2020 (SwAV), Appendix A.1, with the authors' settings for 100 epochs (scripts/ of their code); warmup
    # starts from 0, theirs from 0.3.
    "swav_resnet50": Recipe(
        model="resnet50",
        data=IMAGENET,
        objective=SwAV(),
        training=TrainConfig(
            length="100ep",
            batch_size=4096,
            optimizer=LARS(lr=4.8, weight_decay=1e-6),
            warmup="10ep",
            decay="cosine",
            last_lr=0.0048,
        ),
        search=SEARCH,
    ),
    # Caron et al. 2021 (DINO), with the authors' settings for 100 epochs of ResNet-50 with SGD (README of their code;
    # its transformers take AdamW): rate 0.03 per 256 images. They clip each tensor's gradient to a norm of 3, here
    # that of all weights together; they spare biases and batch norm the weight decay.
    "dino_resnet50": Recipe(
        model="resnet50",
        data=IMAGENET,
        objective=DINO(),
        training=TrainConfig(
            length="100ep",
            batch_size=512,
            optimizer=SGD(lr=0.06, weight_decay=1e-4),
            warmup="10ep",
            decay="cosine",
            last_lr=1e-6,
            clip=3.0,
        ),
        search=SEARCH,
    ),
    # He et al. 2022 (MAE), appendix A.1, with the authors' command for 800 epochs (PRETRAIN.md of their code, where
    # ViT-Base has the settings of ViT-Large): rate 1.5e-4 per 256 images. Their network has fixed positions and
    # Xavier's initial weights, here it is timm's own; they resize by a bicubic filter.
    "mae_vit_base": Recipe(
        model="vit_base_patch16_224",
        data=IMAGENET,
        objective=MAE(),
        training=TrainConfig(
            length="800ep",
            batch_size=4096,
            optimizer=AdamW(lr=2.4e-3, betas=(0.9, 0.95), weight_decay=0.05),
            warmup="40ep",
            decay="cosine",
        ),
        search=SEARCH,
    ),
    # Zhou et al. 2022 (iBOT), section 4, with the authors' command for 800 epochs of ViT-S/16 (README of their code,
    # and main_ibot.py for what it leaves at its default): rate 5e-4 per 256 images. They clip each tensor's gradient to
    # a norm of 3, here that of all weights together, and let the length of the last layer's weight vectors move.
    "ibot_vit_small": Recipe(
        model="vit_small_patch16_224",
        data=IMAGENET,
        objective=IBOT(),
        training=TrainConfig(
            length="800ep",
            batch_size=1024,
            optimizer=AdamW(lr=2e-3, weight_decay=0.04, last_weight_decay=0.4),
            warmup="10ep",
            decay="cosine",
            last_lr=1e-6,
            clip=3.0,
            drop_path=0.1,
        ),
        search=SEARCH,
    ),
    # Oquab et al. 2024 (DINOv2), with the authors' settings of ViT-L/16 on ImageNet-1k (ssl_default_config.yaml of
    # their code, 100 epochs of 1,250 steps): rate 0.004 times the root of the batch over 1,024. They start each block's
    # branches from 1e-5 (LayerScale), leave out all blocks alike with probability 0.3, which here rises to that with
    # depth, and give the patch embedding a fifth of its layer's rate.
    "dinov2_vit_large": Recipe(
        model="vit_large_patch16_224",
        data=IMAGENET,
        objective=DINOv2(),
        training=TrainConfig(
            length="125000it",
            batch_size=2048,
            optimizer=AdamW(lr=5.657e-3, weight_decay=0.04, last_weight_decay=0.4),
            warmup="12500it",
            decay="cosine",
            last_lr=1e-6,
            clip=3.0,
            layer_decay=0.9,
            drop_path=0.3,
        ),
        search=SEARCH,
    ),
}

if __name__ == "__main__":
    run(recipes)
