"""The papers' networks: their sizes, their names, how their weights start."""

import math
import subprocess
import sys

import pytest
import torch
from torch import nn

from sslticket import models


def prunable(backbone: nn.Module) -> dict[str, int]:
    """Weights per convolution and linear layer, in the network's order."""
    layers = backbone.named_modules()
    return {name: layer.weight.numel() for name, layer in layers if isinstance(layer, nn.Conv2d | nn.Linear)}


@pytest.mark.parametrize(
    ("name", "channels", "image_size", "weights", "features"),
    [
        ("resnet50", 3, 64, 23_454_912, 2048),
        ("resnet18", 3, 64, 11_166_912, 512),
        ("resnet18_cifar", 3, 32, 11_159_232, 512),
        ("resnet20", 3, 32, 270_256, 64),
        ("vgg11", 3, 32, 9_217_728, 512),
        ("vgg13", 3, 32, 9_402_048, 512),
        ("vgg16", 3, 32, 14_710_464, 512),
        ("vgg19", 3, 32, 20_018_880, 512),
        ("alexnet", 3, 64, 56_994_496, 4096),
        ("lenet300", 1, 28, 265_200, 100),
        ("conv6", 3, 32, 2_258_624, 256),
        ("conv3", 1, 8, 13_968, 32),
    ],
)
def test_prunable_weights_and_features(name: str, channels: int, image_size: int, weights: int, features: int) -> None:
    backbone = models.create_model(name, channels=channels, image_size=image_size)
    assert sum(prunable(backbone).values()) == weights
    assert backbone(torch.rand(2, channels, image_size, image_size)).shape == (2, features)
    assert models.num_features(backbone, channels=channels, image_size=image_size) == features


def test_resnet20_is_the_274k_network() -> None:
    backbone = models.create_model("resnet20", image_size=32)
    # Continuous Sparsification masks the 3x3 convolutions alone.
    shortcuts = sum(count for name, count in prunable(backbone).items() if "downsample" in name)
    assert sum(prunable(backbone).values()) - shortcuts == 267_696
    # Frankle & Carbin's 274K count batch norm's running statistics, and the head of 10 classes.
    everything = sum(v.numel() for name, v in backbone.state_dict().items() if "num_batches" not in name)
    assert everything + 64 * 10 + 10 == 274_042


def test_resnet50_stages_end_at_the_convolutions_where_layerwise_tickets_stop() -> None:
    # Finding Winning Tickets with Limited (or No) Supervision prunes the first 11, 24, 43 convolutions, or all 53.
    stages = [name.partition(".")[0] for name in prunable(models.create_model("resnet50"))]
    ends = [len(stages) - stages[::-1].index(f"layer{number}") for number in (1, 2, 3, 4)]
    assert ends == [11, 24, 43, 53]


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_torchvision_resnets_have_the_same_names_and_give_the_same_features(name: str) -> None:
    from torchvision.models import get_model

    theirs = get_model(name, weights=None)
    theirs.fc = nn.Identity()
    with torch.no_grad():
        for value in theirs.state_dict().values():
            if value.ndim == 1:
                value.uniform_(0.5, 1.5)
    ours = models.create_model(name)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 3, 64, 64)
    assert torch.equal(ours.eval()(x), theirs.eval()(x))
    assert torch.equal(ours.train()(x), theirs.train()(x))


@pytest.mark.parametrize(
    ("name", "original", "head"),
    [
        *((f"vgg{depth}", f"vgg{depth}_bn", "classifier.") for depth in (11, 13, 16, 19)),
        ("alexnet", "alexnet", "classifier.6."),
    ],
)
def test_torchvision_vgg_and_alexnet_have_the_same_names_and_shapes(name: str, original: str, head: str) -> None:
    from torchvision.models import get_model

    with torch.device("meta"):
        theirs = get_model(original, weights=None).state_dict()
    shapes = {key: value.shape for key, value in theirs.items() if not key.startswith(head)}
    assert {key: value.shape for key, value in models.create_model(name).state_dict().items()} == shapes


@pytest.mark.parametrize("name", ["resnet50", "resnet20", "vgg19", "lenet300", "conv6", "conv3"])
def test_weights_start_normal_with_the_papers_spread(name: str) -> None:
    torch.manual_seed(0)
    backbone = models.create_model(name, image_size=32)
    for layer in backbone.modules():
        if isinstance(layer, nn.BatchNorm2d):
            assert torch.all(layer.weight == 1)
            assert torch.all(layer.bias == 0)
        if not isinstance(layer, nn.Conv2d | nn.Linear):
            continue
        weight = layer.weight.detach()
        fan_in, fan_out = weight[0].numel(), weight[:, 0].numel()
        # He et al. 2015, equation 14, for residual networks; Glorot & Bengio 2010, equation 12, for the others.
        std = math.sqrt(2 / fan_out) if "resnet" in name else math.sqrt(2 / (fan_in + fan_out))
        assert abs(weight.std().item() / std - 1) < 5 / math.sqrt(2 * weight.numel())
        assert abs(weight.mean().item()) < 5 * std / math.sqrt(weight.numel())
        # A uniform distribution of this spread ends at 1.73.
        assert weight.abs().max() > 2.2 * std
        assert layer.bias is None or torch.all(layer.bias == 0)


@pytest.mark.parametrize("name", ["resnet20", "conv6", "lenet300", "test_vit"])
def test_the_seed_decides_the_weights(name: str) -> None:
    def draw(seed: int) -> dict[str, torch.Tensor]:
        torch.manual_seed(seed)
        return models.create_model(name, image_size=32).state_dict()

    first, again, other = draw(1), draw(1), draw(2)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not any(torch.equal(first[key], other[key]) for key in first if first[key].ndim == 4)


def test_cifar_stem_keeps_the_image_size() -> None:
    backbone = models.create_model("resnet18_cifar", image_size=32)
    sizes = []
    for stage in ("layer1", "layer4"):
        layer = backbone.get_submodule(stage)
        layer.register_forward_hook(lambda _layer, _inputs, output: sizes.append(output.shape[-1]))
    backbone(torch.rand(1, 3, 32, 32).expand(2, -1, -1, -1))
    assert sizes == [32, 4]


def test_own_networks_need_neither_torchvision_nor_the_compiler() -> None:
    # Either import takes a second, more than building a ResNet-50: a dry run could not afford it.
    code = (
        "import sys; from sslticket import models\n"
        "for name in models.list_models():\n"
        "    name == 'alexnet' or models.create_model(name, image_size=32)\n"
        "print([name for name in ('torchvision', 'timm', 'torch._dynamo') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
