"""Tickets in pretrained networks: a ResNet-50 with and without labels pruned on the very task that it was trained for.

Finds     tickets of 19 densities from 100% to 1.8% in ResNet-50 on ImageNet, each trained on for 10 epochs; W_k is the
          pretrained network (k = 0). The first convolution stays dense.
Source    The Lottery Tickets Hypothesis for Supervised and Self-supervised Pre-training in Computer Vision Models (Chen
          et al. 2021, https://arxiv.org/abs/2012.06908), with the defaults of its authors' code
          (https://github.com/VITA-Group/CV_LTH_Pre-training): README.md, main_imp_imagenet.py, SimCLR/args.py and
          MoCo/main_moco_imp.py. Theirs prune SimCLR's and MoCo's network once before it is trained any further, and
          start heads from pretrained weights, too; here each level prunes what it has trained, and heads are drawn.
Run       accelerate launch recipes/pretrained_tickets.py pretrained_supervised_resnet50
          Those without labels start from their authors' files, which no library has: have them in the working folder,
          or give --init FILE. MoCo's is that of https://github.com/facebookresearch/moco, SimCLR's that of Chen et al.
Cost      not measured yet; recipes/README.md has a line for each.
Accuracy  not measured yet.
"""

from sslticket import IMP, LARS, SGD, Data, MoCoV2, Recipe, SimCLR, Supervised, TrainConfig, run

IMAGENET = Data(dataset="imagenet")
# The 19 trainings of main_imp_imagenet.py, of the dense network and after each of 18 prunings of a fifth.
SEARCH = IMP(levels=18, rate=0.2, rewind="0it", exclude=("conv1",))

recipes = {
    # main_imp_imagenet.py: its rate does not fall. What `pretrained=True` was in the torchvision of then.
    "pretrained_supervised_resnet50": Recipe(
        model="resnet50",
        init="ResNet50_Weights.IMAGENET1K_V1",
        data=IMAGENET,
        objective=Supervised(),
        training=TrainConfig(length="10ep", batch_size=256, optimizer=SGD(lr=1e-4, weight_decay=1e-4)),
        search=SEARCH,
    ),
    # SimCLR/args.py and nt_xent of SimCLR/utils.py.
    "pretrained_simclr_resnet50": Recipe(
        model="resnet50",
        init="simclr_weight.pt",
        data=IMAGENET,
        objective=SimCLR(temperature=0.5),
        training=TrainConfig(length="10ep", batch_size=256, optimizer=LARS(lr=1e-4, weight_decay=1e-6)),
        search=SEARCH,
    ),
    # MoCo/main_moco_imp.py, whose rate does not fall (`fix_lr`), on 4 GPUs with MoCo v2's settings.
    "pretrained_mocov2_resnet50": Recipe(
        model="resnet50",
        init="moco_v2_800ep_pretrain.pth.tar",
        data=IMAGENET,
        objective=MoCoV2(),
        training=TrainConfig(
            length="10ep",
            batch_size=256,
            ghost_batch=64,
            optimizer=SGD(lr=3e-4, weight_decay=1e-4),
        ),
        search=SEARCH,
    ),
}

if __name__ == "__main__":
    run(recipes)
