"""Channels that are left out change neither outputs nor gradients nor anything that is stored, but by the order of sums."""

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

from sslticket import models
from sslticket.models.paper_networks import BasicBlock, ResNet
from sslticket.pruning import compaction, pruned_model, sparse_layers
from sslticket.pruning.compaction import Compaction, stop_compaction, use_compaction
from sslticket.pruning.mask import Mask
from sslticket.pruning.prunable import prunable_weights

NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "vgg19": lambda: models.create_model("vgg19", channels=3, image_size=32),
    "conv6": lambda: models.create_model("conv6", channels=3, image_size=32),
    "resnet20": lambda: models.create_model("resnet20", channels=3, image_size=32),
    "resnet8": lambda: ResNet(3, BasicBlock, (1, 1, 1), (16, 32, 64), small_images=True),
    "conv3": lambda: models.create_model("conv3", channels=1, image_size=8),
    "lenet300": lambda: models.create_model("lenet300", channels=1, image_size=8),
}


def images(name: str, cifar: Path, count: int = 12) -> Tensor:
    """Real images, (count, C, S, S) in float64."""
    if name in ("conv3", "lenet300"):
        return torch.tensor(load_digits().images[:count])[:, None] / 16
    files = sorted(cifar.rglob("*.jpg"))[:count]
    pixels = [torch.from_numpy(np.array(Image.open(file).convert("RGB"))) for file in files]
    return torch.stack(pixels).permute(0, 3, 1, 2).double() / 255 - 0.5


def dead_channels(net: nn.Module, density: float = 0.2, share: float = 0.5) -> Mask:
    """Random masks in which channels are constant, gone and read by nobody."""
    draw = torch.Generator().manual_seed(0)
    weights = dict(net.named_parameters())
    masks = {}
    for name in prunable_weights(net):
        mask = torch.rand(weights[name].shape, generator=draw) < density
        mask[torch.rand(mask.shape[0], generator=draw) < share] = False
        if mask.shape[1] > 3:
            mask[:, torch.rand(mask.shape[1], generator=draw) < share] = False
        masks[name] = mask
    return Mask(masks)


def masked(name: str, dtype: torch.dtype = torch.float64) -> tuple[nn.Module, Mask]:
    """A network whose mask kills many channels, with biases and statistics as trained ones have them."""
    torch.manual_seed(0)
    net = NETWORKS[name]().to(dtype)
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.Conv2d | nn.Linear | nn.BatchNorm2d) and module.bias is not None:
                nn.init.normal_(module.bias, 0.0, 0.2 if isinstance(module, nn.BatchNorm2d) else 0.02)
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
    mask = dead_channels(net)
    pruned_model.attach_masks(net, mask)
    pruned_model.set_mask(net, mask)
    return net, mask


def compacted(net: nn.Module, mask: Mask, *, sparse: bool = False) -> nn.Module:
    """A copy of the network that leaves channels out."""
    net = copy.deepcopy(net)
    plan = Compaction.plan(net, mask)
    assert plan is not None
    use_compaction(net, plan)
    if sparse:
        sparse_layers.use_sparse_layers(net, mask, [*mask][::2])
    return net


def difference(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """The largest difference, as a fraction of the largest value of its tensor where that is above 1."""
    assert found.keys() == expected.keys()
    return max(
        float((found[name] - value).abs().max() / value.abs().max().clamp(min=1))
        for name, value in expected.items()
    )


def trained(net: nn.Module, x: Tensor, optimizer: type[torch.optim.Optimizer], steps: int = 3) -> dict[str, Tensor]:
    """All that a few steps leave: losses, gradients, weights, buffers and the optimiser's state; and evaluations."""
    fixed = list(pruned_model.fixed_masks(net).values())
    settings = {"momentum": 0.9} if optimizer is torch.optim.SGD else {"eps": 1e-3}
    moves = optimizer(net.parameters(), lr=0.01, weight_decay=0.01, **settings)
    found = {}
    for step in range(steps):
        moves.zero_grad()
        y = net.train()(x)
        loss = (y * torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(y.shape)).square().mean()
        loss.backward()
        pruned_model.mask_gradients(fixed)
        found[f"output {step}"] = y.detach()
        found |= {f"{name} gradient {step}": value.grad.clone() for name, value in net.named_parameters()}
        sparse_layers.step_kept_weights(sparse_layers.layers_in_use(net), moves)
        moves.step()
    found["evaluated"] = net.eval()(x).detach()
    found |= net.state_dict()
    found |= {
        f"state {number} {name}": value
        for number, state in moves.state_dict()["state"].items()
        for name, value in state.items()
    }
    return {name: value.double() for name, value in found.items()}


@pytest.mark.parametrize("nhwc", [False, True], ids=["nchw", "nhwc"])
@pytest.mark.parametrize("name", NETWORKS)
def test_trainings_are_the_masked_networks_in_float64(name: str, nhwc: bool, few_cifar: Path) -> None:
    layout = torch.channels_last if nhwc else torch.contiguous_format
    net, mask = masked(name)
    net, x = net.to(memory_format=layout), images(name, few_cifar).contiguous(memory_format=layout)
    expected = trained(copy.deepcopy(net), x, torch.optim.SGD)
    for sparse in (False, True):
        assert difference(trained(compacted(net, mask, sparse=sparse), x, torch.optim.SGD), expected) < 1e-12
