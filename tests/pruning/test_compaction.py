"""Channels that are left out change outputs, gradients and all that is stored by the order of sums alone."""

import copy
import pickle
import random
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch import Tensor, nn

from sslticket import models
from sslticket.models.paper_networks import BasicBlock, ResNet
from sslticket.pruning import pruned_model, sparse_layers
from sslticket.pruning.compaction import Compaction, is_compact, stop_compaction, use_compaction
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


@pytest.fixture(autouse=True)
def same_weights() -> None:
    """Networks are drawn alike whatever ran before: of a third of the draws of VGG-19 rounding alone is above 1e-12."""
    torch.manual_seed(0)


def images(name: str, cifar: Path, count: int = 6) -> Tensor:
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


def masked(net: nn.Module) -> tuple[nn.Module, Mask]:
    """The network in float64 with a mask that kills many channels, and with biases and statistics as trained ones."""
    torch.manual_seed(0)
    net = net.double()
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.Conv2d | nn.Linear | nn.BatchNorm2d) and module.bias is not None:
                # Batch norm takes a convolution's own away again, and its rounding with it times 300 where all is one.
                nn.init.normal_(module.bias, 0.0, 0.2 if isinstance(module, nn.BatchNorm2d) else 0.01)
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
    mask = dead_channels(net)
    pruned_model.attach_masks(net, mask)
    pruned_model.set_mask(net, mask)
    return net, mask


def compacted(net: nn.Module, mask: Mask, sparse: Iterable[str] = (), *, images_innermost: bool = False) -> nn.Module:
    """A copy of the network that leaves channels out, with these layers sparse."""
    net = copy.deepcopy(net)
    plan = Compaction.plan(net, mask)
    assert plan is not None
    use_compaction(net, plan)
    sparse_layers.use_sparse_layers(net, mask, sparse, images_innermost=images_innermost)
    return net


def difference(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """The largest difference, as a fraction of the largest value of its tensor where that is above 1."""
    assert found.keys() == expected.keys()
    return max(
        float((found[name] - value).abs().max() / value.abs().max().clamp(min=1)) for name, value in expected.items()
    )


def trained(net: nn.Module, x: Tensor, steps: int = 3, *, adam: bool = False) -> dict[str, Tensor]:
    """All that a few steps leave: losses, gradients, weights, buffers and the optimiser's state; and evaluations."""
    fixed = list(pruned_model.fixed_masks(net).values())
    moves: torch.optim.Optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, weight_decay=0.01)
    if adam:
        moves = torch.optim.Adam(net.parameters(), lr=0.01, weight_decay=0.01, eps=1e-3)
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


@pytest.mark.parametrize("name", [pytest.param("vgg19", marks=pytest.mark.slow), *[*NETWORKS][1:]])
def test_trainings_are_the_masked_networks_in_float64(name: str, few_cifar: Path) -> None:
    nhwc, steps = name in ("vgg19", "resnet8", "conv3"), 2 if name in ("vgg19", "conv6") else 3
    layout = torch.channels_last if nhwc else torch.contiguous_format
    net, mask = masked(NETWORKS[name]())
    net, x = net.to(memory_format=layout), images(name, few_cifar).contiguous(memory_format=layout)
    expected = trained(copy.deepcopy(net), x, steps)
    for sparse in ([], [*mask][::2]):
        assert difference(trained(compacted(net, mask, sparse), x, steps), expected) < 1e-12


def test_adams_steps_and_images_innermost_are_the_masked_networks_too(few_cifar: Path) -> None:
    net, mask = masked(NETWORKS["conv3"]())
    x = images("conv3", few_cifar, 16)  # whole vectors of images, as that layout wants them
    for adam in (False, True):
        expected = trained(copy.deepcopy(net), x, adam=adam)
        assert difference(trained(compacted(net, mask), x, adam=adam), expected) < 1e-12
        inner = compacted(net, mask, mask, images_innermost=True)
        assert difference(trained(inner, x, adam=adam), expected) < 1e-12


class Steps(nn.Module):
    """All that may lie between two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *(nn.Conv2d(2, 12, 3, padding=1), nn.SiLU(inplace=True), nn.AvgPool2d(2)),
            *(nn.Conv2d(12, 14, 3, 2, padding=1, padding_mode="reflect"), nn.BatchNorm2d(14), nn.Identity(), nn.ELU()),
            *(nn.Conv2d(14, 10, 3, padding="same", bias=False), nn.MaxPool2d(3, 1, 1), nn.Hardswish()),
            *(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(40, 18), nn.GELU(), nn.Dropout(0.0)),
        )
        self.out = nn.Linear(18, 8, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.features(x).relu())


def test_every_step_between_layers_keeps_constants_and_images_may_grow() -> None:
    net, mask = masked(Steps())
    plan = Compaction.plan(net, mask)
    assert plan is not None
    assert len(plan.links) == 4
    assert all(len(link.constant) for link in plan.links)
    small = compacted(net, mask)
    for side in (12, 20):
        x = torch.randn(7, 2, side, side, dtype=torch.float64)
        assert difference(trained(copy.deepcopy(small), x), trained(copy.deepcopy(net), x)) < 1e-12


def test_second_derivatives_are_the_masked_networks() -> None:
    net, mask = masked(Steps())
    x = torch.randn(5, 2, 12, 12, dtype=torch.float64, requires_grad=True)
    found = []
    for each in (net, compacted(net, mask), compacted(net, mask, ["features.0.weight", "out.weight"])):
        value = each(x).square().sum()
        slope, own = torch.autograd.grad(value, (x, each.get_parameter("features.3.weight")), create_graph=True)
        (slope.square().sum() + (own * mask["features.3.weight"]).square().sum()).backward()
        pruned_model.mask_gradients(pruned_model.fixed_masks(each).values())
        found.append({name: value.grad for name, value in each.named_parameters()} | {"slope": slope.detach()})
    for other in found[1:]:
        assert difference(other, found[0]) < 1e-12


def test_under_autocast_channels_are_left_out_too() -> None:
    net, mask = masked(NETWORKS["conv3"]())
    net, x = net.float(), torch.randn(8, 1, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        expected = net(x)
        for sparse in ([], ["features.4.weight"]):
            found = compacted(net, mask, sparse)(x)
            assert torch.allclose(found.float(), expected.float(), atol=0.1)
            found.float().sum().backward()


def test_copies_have_their_own_parts_and_the_end_gives_everything_back() -> None:
    net, mask = masked(NETWORKS["conv3"]())
    names = [*net.state_dict()]
    small = compacted(net, mask, ["features.4.weight"])
    assert [*small.state_dict()] == names
    x = torch.randn(4, 1, 8, 8, dtype=torch.float64)
    expected = small.eval()(x)
    for other in (copy.deepcopy(small), pickle.loads(pickle.dumps(small))):
        with torch.no_grad():
            for parameter in other.parameters():
                parameter.mul_(2)
        assert not torch.allclose(other(x), expected)
    assert torch.equal(small(x), expected)
    sparse_layers.stop_sparse_layers(small)
    assert is_compact(small)
    assert torch.allclose(small(x), expected)
    stop_compaction(small)
    assert not any("forward" in vars(module) for module in small.modules())
    assert torch.equal(small(x), net.eval()(x))


def test_what_is_left_out_is_told_and_streams_keep_their_width() -> None:
    net, mask = masked(NETWORKS["resnet20"]())
    plan = Compaction.plan(net, mask)
    assert plan is not None
    assert {link.reader.rpartition(".")[2] for link in plan.links} == {"conv2"}
    assert plan.channels == 3 * (16 + 32 + 64)
    first, second = (mask[f"layer1.0.conv{number}.weight"] for number in (1, 2))
    dead = ~first.flatten(1).any(1)
    read = second.transpose(0, 1).flatten(1).any(1)
    assert plan.links[0].live.tolist() == (~dead).nonzero().flatten().tolist(), "batch norm counts what nobody reads"
    assert plan.links[0].constant.tolist() == (dead & read).nonzero().flatten().tolist()
    assert plan.left_out == sum(link.channels - len(link.live) for link in plan.links)


def test_a_tensor_without_a_living_channel_keeps_one() -> None:
    net, mask = masked(NETWORKS["conv3"]())
    mask["features.4.weight"].zero_()
    pruned_model.set_mask(net, mask)
    x = torch.rand(5, 1, 8, 8, dtype=torch.float64)
    expected = trained(copy.deepcopy(net), x)
    for sparse in ([], [*mask]):
        assert difference(trained(compacted(net, mask, sparse), x), expected) < 1e-12


def chain(*between: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 8, 3, bias=False), *between, nn.Conv2d(8, 4, 3), nn.Flatten())


class Twice(nn.Module):
    """A network that another layer's output reaches too, and one that looks at its input."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.first, self.second, self.kind = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 3, padding=1), kind

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        if self.kind == "looks" and x.sum() > 0:
            return self.second(x)
        return self.second(self.second(x)) if self.kind == "again" else self.second(x) + x


class Own(nn.Conv2d):
    """A layer that may do otherwise."""


@pytest.mark.parametrize(
    "net",
    [
        chain(nn.Dropout(0.5)),
        chain(nn.BatchNorm2d(8, momentum=None)),
        chain(nn.BatchNorm2d(8, affine=False)),
        chain(nn.ReLU(), nn.BatchNorm2d(8)),
        chain(nn.GroupNorm(2, 8)),
        chain(nn.AvgPool2d(3, 1, 1)),
        chain(nn.Softmax(1)),
        nn.Sequential(nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 3, groups=2)),
        nn.Sequential(nn.Conv2d(1, 8, 3), Own(8, 8, 3)),
        nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Unflatten(1, (8, 1, 1)), nn.Conv2d(8, 4, 1)),
        Twice("adds"),
        Twice("again"),
        Twice("looks"),
    ],
)
def test_what_is_not_known_to_be_exact_keeps_its_channels(net: nn.Module) -> None:
    mask = Mask({name: torch.ones_like(net.get_parameter(name), dtype=torch.bool) for name in prunable_weights(net)})
    for layer in mask.values():
        layer[::2] = False
    assert Compaction.plan(net, mask) is None


class Otherwise(nn.Module):
    """A network that does something else in training, or by chance, or that writes to its own tensors."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.first, self.second, self.kind = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 3), kind
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        if self.kind == "noise" and self.training:
            x = x + torch.randn_like(x)
        chance = {"torch": lambda: torch.rand(()).item(), "python": random.random}.get(self.kind, lambda: 0.0)()
        if self.kind == "counts":
            self.count += 1
            with torch.no_grad():
                for parameter in self.parameters():
                    parameter.clamp_(-0.01, 0.01)
        return self.second(x if chance < 2 else -x)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", ["noise", "torch", "python", "counts"])
def test_what_a_network_does_in_training_or_by_chance_or_writes_is_neither_missed_nor_done(
    kind: str, training: bool
) -> None:
    net = Otherwise(kind).train(training)
    mask = Mask({name: torch.ones_like(net.get_parameter(name), dtype=torch.bool) for name in prunable_weights(net)})
    mask["first.weight"][::2] = False
    before = copy.deepcopy(net.state_dict()), torch.get_rng_state(), random.getstate()
    assert (Compaction.plan(net, mask) is not None) == (kind == "counts")
    assert all(torch.equal(value, before[0][name]) for name, value in net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), before[1])
    assert random.getstate() == before[2]
    assert net.training is training


def test_layers_that_somebody_looks_at_and_masks_that_kill_little_keep_their_channels() -> None:
    net, mask = masked(chain(nn.BatchNorm2d(8), nn.ReLU()))
    for layer in mask.values():
        layer.fill_(True)
    assert Compaction.plan(net, mask) is None
    mask["0.weight"][:1] = False
    assert Compaction.plan(net, mask) is None, "an eighth"
    mask["0.weight"][:2] = False
    plan = Compaction.plan(net, mask)
    assert plan is not None
    assert (plan.left_out, plan.channels) == (2, 8)
    net[2].register_forward_hook(lambda *_: None)
    assert Compaction.plan(net, mask) is None
    inside = nn.Sequential(nn.Sequential(nn.Conv2d(1, 8, 3, bias=False), nn.ReLU()), nn.Conv2d(8, 4, 3))
    mask = Mask({"0.0.weight": mask["0.weight"], "1.weight": torch.ones(4, 8, 3, 3, dtype=torch.bool)})
    assert Compaction.plan(inside, mask) is not None
    seen: list[Tensor] = []
    inside[0].register_forward_hook(lambda module, given, output: seen.append(output))
    assert Compaction.plan(inside, mask) is None
    assert not seen
