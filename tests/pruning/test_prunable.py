"""Which layers a depth limit and exclusions leave to be pruned."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import nn
from torchvision.models import get_model

from sslticket import models
from sslticket.errors import BadInput
from sslticket.pruning.prunable import describe_layers, layers_to_prune, prunable_weights


def build(name: str) -> nn.Module:
    """On no device: names and shapes are all that matters here."""
    with torch.device("meta"):
        return models.create_model(name)


def torchvision_network(name: str) -> nn.Module:
    """Where timm has a network of this name too."""
    with torch.device("meta"):
        net = get_model(name)
    net.classifier[2] = nn.Identity()
    return net


def size(backbone: nn.Module, names: list[str]) -> int:
    return sum(backbone.get_parameter(name).numel() for name in names)


def test_the_paper_s_depths_of_resnet50_are_its_stages() -> None:
    """Finding Winning Tickets with Limited (or No) Supervision, Figure 8: 11, 24 and 43 convolutions of 53."""
    backbone = build("resnet50")
    everything = prunable_weights(backbone)
    for depth, stages, last in ((11, 1, "layer1.2.conv3"), (24, 2, "layer2.3.conv3"), (43, 3, "layer3.5.conv3")):
        chosen = layers_to_prune(backbone, prune_up_to=f"conv{depth}")
        assert len(chosen) == depth
        assert chosen == layers_to_prune(backbone, prune_up_to=last)
        before = ("conv1", *(f"layer{stage}" for stage in range(1, stages + 1)))
        assert chosen == [name for name in everything if name.split(".")[0] in before]
    # By hand: 64 x 3 x 49, then 64 x 64 + 64 x 64 x 9 + 64 x 256 and the shortcut's 64 x 256, and two blocks more.
    assert size(backbone, layers_to_prune(backbone, prune_up_to="conv11")) == 9408 + 57_344 + 16_384 + 2 * 69_632
    assert len(layers_to_prune(backbone)) == 53


def test_the_paper_s_depths_of_alexnet_leave_the_mlp_dense() -> None:
    backbone = build("alexnet")
    for depth, last in ((1, "features.0"), (3, "features.6"), (5, "features.10")):
        chosen = layers_to_prune(backbone, prune_up_to=f"conv{depth}")
        assert (len(chosen), chosen[-1]) == (depth, f"{last}.weight")
    assert layers_to_prune(backbone)[5:] == ["classifier.1.weight", "classifier.4.weight"]
    assert len(layers_to_prune(backbone, prune_up_to="classifier.1")) == 6


# By hand: patches; then in each block queries, keys, values, what joins the heads, and two layers four times as wide.
VIT_SMALL = 384 * 3 * 16**2 + 12 * (3 * 384**2 + 384**2 + 2 * 384 * 1536)
VIT_BASE = 768 * 3 * 16**2 + 12 * (3 * 768**2 + 768**2 + 2 * 768 * 3072)
# The stem, half the size and twice the channels three times, and blocks: 7 x 7 depthwise, 1 x 1 out to 4 C and back.
CONVNEXT_TINY = 96 * 3 * 16 + 4 * (96 * 192 + 192 * 384 + 384 * 768)
CONVNEXT_TINY += sum(depth * (49 * c + 2 * c * 4 * c) for depth, c in ((3, 96), (3, 192), (9, 384), (3, 768)))


@pytest.mark.parametrize(
    ("backbone", "layers", "weights", "dense"),
    [
        # All else are biases, norms, tokens, positions, and scales of layers.
        (partial(build, "vit_small_patch16_224"), 1 + 12 * 4, VIT_SMALL, {"cls_token", "pos_embed"}),
        (partial(build, "vit_b_16"), 1 + 12 * 4, VIT_BASE, {"class_token", "encoder.pos_embedding"}),
        (partial(build, "convnext_tiny"), 1 + 3 + 18 * 3, CONVNEXT_TINY, set()),
        (partial(torchvision_network, "convnext_tiny"), 1 + 3 + 18 * 3, CONVNEXT_TINY, {"layer_scale"}),
        # Keys and values of other widths: a parameter each for queries, keys and values, and one that joins the heads.
        (partial(nn.MultiheadAttention, 6, 2, kdim=4, vdim=3), 4, 6 * 6 + 6 * 4 + 6 * 3 + 6 * 6, set()),
        (partial(nn.MultiheadAttention, 6, 2, add_bias_kv=True), 2, 3 * 6 * 6 + 6 * 6, {"bias_k", "bias_v"}),
    ],
    ids=["timm's ViT", "torchvision's ViT", "timm's ConvNeXt", "torchvision's ConvNeXt", "separate", "in one"],
)
def test_attention_and_convnext_are_prunable_to_the_last_matrix(
    backbone: Callable[[], nn.Module], layers: int, weights: int, dense: set[str]
) -> None:
    net = backbone()
    names = prunable_weights(net)
    assert (len(names), size(net, names)) == (layers, weights)
    left = {name for name, value in net.named_parameters() if value.dim() > 1 and name not in names}
    assert all(any(name.endswith(word) for word in dense) for name in left)
    assert bool(left) == bool(dense)


def test_exclusions_are_names_or_patterns() -> None:
    backbone = build("resnet20")
    # Continuous Sparsification, section 4.2, leaves the 1x1 shortcuts dense.
    assert size(backbone, layers_to_prune(backbone, exclude=("*.downsample.*",))) == 267_696
    chosen = layers_to_prune(backbone, prune_up_to="conv4", exclude=("conv1", "layer1.*.conv2"))
    assert chosen == ["layer1.0.conv1.weight", "layer1.1.conv1.weight"]


@pytest.mark.parametrize(
    ("given", "answer"),
    [
        (
            {"prune_up_to": "conv22"},
            "--prune-up-to must name a layer, got conv22; give conv1 to conv21, or a name such as conv1",
        ),
        ({"prune_up_to": "conv0"}, "give conv1 to conv21"),
        ({"prune_up_to": "layer2.0.conv9"}, "must name a layer, got layer2.0.conv9; did you mean layer2.0.conv"),
        ({"exclude": ("layer1.0.conv3",)}, "must name a layer, got layer1.0.conv3; did you mean layer1.0.conv"),
        ({"exclude": ("fc*",)}, r"must name a layer, got fc\*; layers are conv1, layer1.0.conv1, .*, layer3.2.conv2"),
        ({"exclude": ("*",)}, r"--exclude must leave a layer that may be pruned, got \*"),
        ({"prune_up_to": "conv1", "exclude": ("conv1",)}, "must leave a layer among those up to conv1"),
    ],
)
def test_what_names_no_layer_is_answered_with_the_nearest(given: dict[str, str], answer: str) -> None:
    with pytest.raises(BadInput, match=answer) as raised:
        layers_to_prune(build("resnet20"), **given)  # type: ignore[arg-type]
    assert "\n" not in str(raised.value)


def test_a_network_without_convolutions_has_a_depth_by_name_only() -> None:
    assert layers_to_prune(models.create_model("lenet300", channels=1, image_size=28), prune_up_to="fc1") == [
        "fc1.weight"
    ]
    with pytest.raises(BadInput, match="there are no convolutions, or a name such as fc1"):
        layers_to_prune(models.create_model("lenet300", channels=1, image_size=28), prune_up_to="conv1")


def test_words_for_what_may_be_pruned() -> None:
    def words(**search: object) -> str:
        return describe_layers({"search": search})

    assert words(prune_up_to="conv3", exclude=["a", "b.*"]) == "up to conv3, without a b.*"
    assert words(exclude=["a"]) == "without a"
    assert words(levels=3) == words(prune_up_to=None, exclude=[]) == describe_layers({}) == ""
