"""Masks are what acts: in networks of many families, by what their layers are really given."""

from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from sslticket import models
from sslticket.errors import BadInput
from sslticket.pruning import pruned_model
from sslticket.pruning.forward_graph import ForwardGraph, MaskCoverage
from sslticket.pruning.mask import Mask, num_kept
from sslticket.pruning.prunable import prunable_weights

SIZES = {
    "lenet300": 8,
    "alexnet": 64,
    "squeezenet1_1": 64,
    "inception_v3": 96,
    "halonet26t": 256,
    "test_nfnet": 64,
    "nf_resnet26": 64,
}
"""Image sizes at which networks are tried that do not take 32 pixels."""
WHOLE = (
    *("resnet20", "conv6", "vgg19", "alexnet", "lenet300", "googlenet", "inception_v3", "shufflenet_v2_x0_5"),
    *("squeezenet1_1", "mobilenet_v3_small", "swin_t", "vit_b_32", "test_resnet", "seresnext26ts", "densenet121"),
    *("test_efficientnet", "regnetx_002", "test_convnext", "test_vit", "swinv2_tiny_window8_256", "ghostnet_050"),
    *("deit_tiny_patch16_224", "beit_base_patch16_224", "mixer_s32_224", "resmlp_12_224", "cait_xxs24_224"),
    *("xcit_nano_12_p16_224", "test_coatnet", "pit_ti_224", "mobilevit_xxs", "convit_tiny", "levit_128s"),
)
"""Networks whose every matrix may be pruned."""
PARTLY = {
    "sequencer2d_s": "rnn_v.weight_ih_l0",
    "halonet26t": "height_rel",
    "tf_efficientnet_cc_b0_4e": "conv_dw.weight",
}
"""Networks with other matrices beside, and how one of these is called: of LSTMs, positions, kernels that are mixed."""
REFUSED = ("test_nfnet", "nf_resnet26", "resnetv2_50x1_bit")
"""Networks that standardise their weights."""

_LAYERS = {"conv1d": (1,), "conv2d": (1,), "conv3d": (1,), "conv_transpose2d": (1,), "linear": (1,)}
_ATTENTION = {"multi_head_attention_forward": (5, 11)}


class Given(TorchFunctionMode):
    """Notes the weights that convolutions, linear layers and PyTorch's attention are called with."""

    def __init__(self) -> None:
        self.weights: list[Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        for place in (_LAYERS | _ATTENTION).get(getattr(func, "__name__", ""), ()):
            self.weights.append((args[place] if place < len(args) else kwargs["weight"]).detach())
        return func(*args, **kwargs)


def masked(net: nn.Module) -> dict[str, Tensor]:
    """Put a tenth of a network's weights behind gates; what should act of each."""
    state, names = pruned_model.stored_state(net), prunable_weights(net)
    scores = {name: torch.rand(state[name].shape, generator=torch.Generator().manual_seed(1)) for name in names}
    dense = Mask.ones_like(state, names)
    mask = Mask.top(scores, keep=num_kept(dense.total, 0.1), within=dense)
    with torch.no_grad():
        for name in names:  # some networks begin with layers of zeros
            state[name].copy_(scores[name] + 1)
    pruned_model.attach_gates(net, names)
    pruned_model.set_mask(net, mask)
    return {name: (scores[name] + 1) * mask[name] for name in names}


def acts(net: nn.Module, size: int) -> None:
    """Every weight that the layers get is one of the masked ones, bit for bit, and every one of these is used."""
    wanted = masked(net.eval())
    used = set()
    with Given() as given:
        net(torch.zeros(1, 3, size, size))
    for weight in given.weights:
        alike = [name for name, value in wanted.items() if value.numel() == weight.numel()]
        same = {name for name in alike if torch.equal(wanted[name].flatten(), weight.flatten())}
        # Kernels that are mixed for each image are no parameters, and dense.
        assert same or weight.count_nonzero() > 0.99 * weight.numel(), f"a weight of {tuple(weight.shape)}"
        used |= same
    assert used == set(wanted)


def tried(model: str) -> tuple[nn.Module, int, MaskCoverage]:
    size = SIZES.get(model, 32)
    if model == "beit_base_patch16_224":  # there is no small one
        net = timm.create_model(model, num_classes=0, img_size=size, depth=2)
    else:
        net = models.create_model(model, channels=3, image_size=size)
    return net, size, MaskCoverage.measure(net, channels=3, image_size=size)


@pytest.mark.parametrize("model", models.PAPER_MODELS)
def test_the_papers_networks_are_whole_so_that_searches_need_not_try_them(model: str) -> None:
    """`Acting.whole` is what plans and evaluations take of them without a look."""
    assert tried(model)[2] == MaskCoverage.complete()


@pytest.mark.slow
@pytest.mark.parametrize("model", WHOLE)
def test_the_told_density_is_what_acts(model: str) -> None:
    net, size, acting = tried(model)
    acting.check(model, prunable_weights(net))
    assert (acting.unprunable, acting.unused) == ((), ())
    acts(net, size)


@pytest.mark.slow
@pytest.mark.parametrize("model", PARTLY)
def test_matrices_that_stay_dense_are_named(model: str) -> None:
    net, size, acting = tried(model)
    acting.check(model, prunable_weights(net))
    assert any(name.endswith(PARTLY[model]) for name in acting.unprunable)
    acts(net, size)


@pytest.mark.slow
@pytest.mark.parametrize("model", REFUSED)
def test_networks_that_standardise_their_weights_are_refused_in_a_line(model: str) -> None:
    net, _, acting = tried(model)
    with pytest.raises(
        BadInput, match=rf"^masks do not act in {model}: at a density of 10% .* give a --model"
    ) as refusal:
        acting.check(model, prunable_weights(net))
    assert "\n" not in str(refusal.value)
    acting.check(
        model, [name for name in prunable_weights(net) if name not in acting.recomputed]
    )  # a search may leave them out


class Standardised(nn.Conv2d):
    """A convolution that standardises its weights, as BiT's."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return F.conv2d(x, weight / weight.std((1, 2, 3), keepdim=True))


class Odd(nn.Module):
    """Layers that do more with a matrix than multiply by it, and some that do less."""

    def __init__(self) -> None:
        super().__init__()
        self.standardised = Standardised(3, 4, 1)
        self.scaled = nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 4, 1))
        self.bare = nn.Parameter(torch.randn(4, 5))
        self.tokens = nn.Parameter(torch.randn(1, 2, 5))
        self.positions = nn.Parameter(torch.randn(1, 16, 5))
        self.scale = nn.Parameter(torch.randn(1, 1, 5))
        self.query = nn.Linear(5, 5)
        self.unused = nn.Linear(5, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.scaled(self.standardised(x))
        x = torch.einsum("bcp,cd->bpd", x.flatten(2), self.bare) * self.scale + self.positions
        weights = (self.query(self.tokens) @ x.transpose(1, 2)).softmax(2)
        return (weights @ x).mean(1)


def test_what_is_multiplied_by_is_told_apart() -> None:
    acting = MaskCoverage.measure(Odd(), channels=3, image_size=4)
    stored = [name for name in acting.unprunable if not name.startswith("scaled")]
    assert stored == ["bare"], "positions are added, a scale is no matrix, and tokens are what a layer is fed"
    assert prunable_weights(Odd()) == ["standardised.weight", "query.weight", "unused.weight"], (
        "weight norm computes its weight"
    )
    assert "scaled.parametrizations.weight.original1" in acting.unprunable
    assert list(acting.recomputed) == ["standardised.weight"]
    assert acting.recomputed["standardised.weight"] == 1
    assert acting.unused == ("unused.weight",)
    with pytest.raises(BadInput, match=r"must be used in odd, got unused, .* give --exclude unused"):
        acting.check("odd", ["query.weight", "unused.weight"])


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("gradients", [True, False])
def test_pytorchs_attention_is_pruned_in_training_and_in_its_fast_path(training: bool, gradients: bool) -> None:
    torch.manual_seed(0)
    plain = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True).train(training)
    net = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True).train(training)
    net.load_state_dict(plain.state_dict())
    names = prunable_weights(net)
    assert names == ["self_attn.in_proj_weight", "self_attn.out_proj.weight", "linear1.weight", "linear2.weight"]
    mask = Mask({name: torch.rand(plain.get_parameter(name).shape) < 0.2 for name in names})
    pruned_model.attach_gates(net, names)
    pruned_model.set_mask(net, mask)
    with torch.no_grad():
        for name in names:
            plain.get_parameter(name).mul_(mask[name])
    tokens = torch.randn(2, 5, 8)
    with torch.set_grad_enabled(gradients):
        assert torch.equal(net(tokens), plain(tokens))
    assert pruned_model.read_state(net).keys() == plain.state_dict().keys()
    if gradients:
        net(tokens).square().sum().backward()
        slope = pruned_model.stored_weights(net, names)["self_attn.in_proj_weight"].grad
        assert slope is not None
        assert not slope[~mask["self_attn.in_proj_weight"]].any()
        assert slope[mask["self_attn.in_proj_weight"]].any()


class Writes(nn.Module):
    """A network that writes to a buffer and to its images."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(1, 4, 3)
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        x.sub_(0.5)
        return self.layer(x).mean((2, 3)) * self.count


def test_what_a_network_writes_to_is_as_before_when_it_was_traced() -> None:
    net = Writes()
    graph = ForwardGraph.trace(net, channels=1, image_size=8)
    assert not net.count
    assert not graph.image.any()
    found = graph.graph(*graph.graph_inputs({name: value.clone() for name, value in graph.state.items()}, graph.image))
    assert torch.allclose(found, net(torch.zeros(1, 1, 8, 8)))
