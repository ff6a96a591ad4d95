"""Weights on a path from image to features, against paths that are listed one by one, and against cases by hand."""

from collections.abc import Callable
from functools import partial
from itertools import pairwise, product

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import VisionTransformer

from sslticket import models
from sslticket.pruning import pruned_model
from sslticket.pruning.effective_sparsity import EffectivePaths, effective_mask
from sslticket.pruning.mask import Mask, num_kept
from sslticket.pruning.prunable import prunable_weights


def masks(net: nn.Module, *, density: float = 0.5, seeds: int = 20) -> list[Mask]:
    state = pruned_model.stored_state(net)
    return [
        Mask(
            {
                name: torch.rand(state[name].shape, generator=torch.Generator().manual_seed(100 * seed + place))
                < density
                for place, name in enumerate(prunable_weights(net))
            }
        )
        for seed in range(seeds)
    ]


def found(net: nn.Module | EffectivePaths, mask: Mask, *, image_size: int = 4) -> dict[str, list[int]]:
    """Survivors on a path, as flattened places of each layer."""
    paths = net if isinstance(net, EffectivePaths) else EffectivePaths.trace(net, channels=2, image_size=image_size)
    alive = paths.effective_mask(mask)
    assert alive.is_subset_of(mask)
    return {name: layer.flatten().nonzero().flatten().tolist() for name, layer in alive.items()}


class Tiny(nn.Module):
    """A network whose forward pass is a function of its layers."""

    def __init__(self, forward: Callable[["Tiny", Tensor], Tensor], **layers: nn.Module) -> None:
        super().__init__()
        self._forward = forward
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> Tensor:
        return self._forward(self, x)


def pixels(*widths: int) -> dict[str, nn.Module]:
    """Convolutions of one pixel, so that a path is a choice of one channel a layer."""
    return {
        f"c{place}": nn.Conv2d(inward, outward, 1) for place, (inward, outward) in enumerate(pairwise(widths), start=1)
    }


def test_a_chain_is_as_its_listed_paths() -> None:
    net = Tiny(
        lambda m, x: m.c3(F.relu(m.n(m.c2(F.relu(m.c1(x)))))).mean((2, 3)), n=nn.BatchNorm2d(3), **pixels(2, 3, 3, 2)
    )  # type: ignore[operator]
    cut, paths = 0, EffectivePaths.trace(net, channels=2, image_size=4)
    for mask in masks(net, density=0.3, seeds=40):
        one, two, three = (mask[f"c{place}.weight"][..., 0, 0] for place in (1, 2, 3))
        on: dict[str, set[int]] = {name: set() for name in mask}
        for image, a, b, out in product(range(2), range(3), range(3), range(2)):
            if one[a, image] and two[b, a] and three[out, b]:
                on["c1.weight"].add(2 * a + image)
                on["c2.weight"].add(3 * b + a)
                on["c3.weight"].add(3 * out + b)
        cut += not on["c1.weight"]
        assert found(paths, mask) == {name: sorted(places) for name, places in on.items()}
    assert 0 < cut < 40, "some of the masks cut the network and some do not"


def test_shortcuts_and_concatenations_are_paths() -> None:
    def forward(m: Tiny, x: Tensor) -> Tensor:
        h = m.c1(x)  # type: ignore[operator]
        h = torch.cat([F.relu(h + m.c2(h)), x], dim=1)  # type: ignore[operator]
        return m.c3(h).mean((2, 3))  # type: ignore[operator,no-any-return]

    layers = {"c1": nn.Conv2d(2, 3, 1), "c2": nn.Conv2d(3, 3, 1), "c3": nn.Conv2d(5, 2, 1)}
    net = Tiny(forward, **layers)
    paths = EffectivePaths.trace(net, channels=2, image_size=4)
    for mask in masks(net, density=0.3, seeds=40):
        one, two, three = (mask[f"c{place}.weight"][..., 0, 0] for place in (1, 2, 3))
        on: dict[str, set[int]] = {name: set() for name in mask}
        for image, out in product(range(2), range(2)):
            if three[out, 3 + image]:
                on["c3.weight"].add(5 * out + 3 + image)
            for a, b in product(range(3), range(3)):
                around, through = a == b, bool(two[b, a])
                if one[a, image] and three[out, b] and (around or through):
                    on["c1.weight"].add(2 * a + image)
                    on["c3.weight"].add(5 * out + b)
                    if through:
                        on["c2.weight"].add(3 * b + a)
        assert found(paths, mask) == {name: sorted(places) for name, places in on.items()}


def test_groups_do_not_mix_and_corners_that_see_padding_alone_do_not_count() -> None:
    deep = nn.Conv2d(2, 2, 3, padding=1, groups=2)
    net = Tiny(lambda m, x: m.last(m.deep(x)).mean((2, 3)), deep=deep, last=nn.Conv2d(2, 1, 1))  # type: ignore[operator]
    whole = Mask.ones_like(pruned_model.stored_state(net), prunable_weights(net))
    first_only = Mask(dict(whole) | {"last.weight": torch.tensor([[[[True]], [[False]]]])})
    assert found(net, first_only) == {"deep.weight": list(range(9)), "last.weight": [0]}
    assert found(net, whole, image_size=1) == {"deep.weight": [4, 13], "last.weight": [0, 1]}, "one pixel: centres"


def test_a_maximum_hides_no_path() -> None:
    """Of equal entries a maximum's gradient reaches one only."""
    net = Tiny(lambda m, x: F.max_pool2d(m.c1(x), 4).flatten(1), c1=nn.Conv2d(2, 2, 3, padding=1))  # type: ignore[operator]
    whole = Mask.ones_like(pruned_model.stored_state(net), prunable_weights(net))
    assert effective_mask(net, whole, channels=2, image_size=4).density == 1


def test_a_gate_that_was_cut_stays_open_and_what_leads_to_it_does_not_count() -> None:
    def forward(m: Tiny, x: Tensor) -> Tensor:
        h = m.c1(x)  # type: ignore[operator]
        squeezed = F.relu(m.down(h.mean((2, 3), keepdim=True)))  # type: ignore[operator]
        return m.c2(h * m.up(squeezed).sigmoid()).mean((2, 3))  # type: ignore[operator,no-any-return]

    net = Tiny(forward, c1=nn.Conv2d(2, 2, 1), down=nn.Conv2d(2, 1, 1), up=nn.Conv2d(1, 2, 1), c2=nn.Conv2d(2, 1, 1))
    whole = Mask.ones_like(pruned_model.stored_state(net), prunable_weights(net))
    assert effective_mask(net, whole, channels=2, image_size=4).density == 1
    cut = Mask(dict(whole) | {"up.weight": torch.zeros(2, 1, 1, 1, dtype=torch.bool)})
    everything = {"c1.weight": [0, 1, 2, 3], "c2.weight": [0, 1]}
    assert found(net, cut) == everything | {"down.weight": [], "up.weight": []}
    dead = Mask(dict(whole) | {"c1.weight": torch.zeros(2, 2, 1, 1, dtype=torch.bool)})
    assert not any(found(net, dead).values()), "a gate of nothing opens no path"


class Attention(nn.Module):
    """PyTorch's attention over pixels, then a mean."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.last = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        out: Tensor = self.last(self.attention(tokens, tokens, tokens, need_weights=False)[0].mean(1))
        return out


def test_attention_without_queries_still_averages_values() -> None:
    net = Attention()
    names = prunable_weights(net)
    assert names == ["attention.in_proj_weight", "attention.out_proj.weight", "last.weight"]
    whole = Mask.ones_like(pruned_model.stored_state(net), names)
    assert effective_mask(net, whole, channels=4, image_size=2).density == 1
    no_queries, no_values = (torch.ones(12, 4, dtype=torch.bool) for _ in range(2))
    no_queries[:4], no_values[8:] = False, False
    mask = Mask(dict(whole) | {"attention.in_proj_weight": no_queries})
    alive = effective_mask(net, mask, channels=4, image_size=2)
    assert alive["attention.in_proj_weight"].sum(1).tolist() == [0] * 8 + [4] * 4, "keys meet no query"
    assert alive["last.weight"].all()
    mask = Mask(dict(whole) | {"attention.in_proj_weight": no_values})
    assert effective_mask(net, mask, channels=4, image_size=2).survivors == 0


def test_an_emptied_branch_of_a_resnet_is_gone_around() -> None:
    net = models.create_model("resnet20", channels=3, image_size=32)
    whole = Mask.ones_like(pruned_model.stored_state(net), prunable_weights(net))
    name = "layer2.1.conv1.weight"
    mask = Mask(dict(whole) | {name: torch.zeros_like(whole[name])})
    lost = mask.survivors - effective_mask(net, mask, channels=3, image_size=32).survivors
    assert lost == whole["layer2.1.conv2.weight"].numel() == 32 * 32 * 9, "the branch's other layer gets nothing"


def test_vgg_is_cut_though_every_layer_keeps_weights() -> None:
    """By magnitude at initialisation 0.2% leaves 224 weights or more in each layer, and they do not meet."""
    torch.manual_seed(0)
    net = models.create_model("vgg19", channels=3, image_size=32)
    state = pruned_model.stored_state(net)
    dense = Mask.ones_like(state, prunable_weights(net))
    scores = {name: state[name].abs() for name in dense}
    paths = EffectivePaths.trace(net, channels=3, image_size=32)
    at = {
        density: Mask.top(scores, keep=num_kept(dense.total, density), within=dense) for density in (0.1, 0.005, 0.002)
    }
    on = {density: paths.effective_mask(mask).survivors / mask.total for density, mask in at.items()}
    assert min(left for left, _ in at[0.002].layer_counts().values()) > 200
    assert on[0.002] == 0
    assert on[0.1] == pytest.approx(0.1, rel=0.001)
    assert 0.004 < on[0.005] < 0.005
    middle = Mask(dict(dense) | {"features.23.weight": torch.zeros_like(dense["features.23.weight"])})
    assert paths.effective_mask(middle).survivors == 0


@pytest.mark.parametrize("gated", [False, True])
def test_nothing_is_left_behind_and_values_do_not_matter(gated: bool) -> None:
    net = models.create_model("resnet20", channels=3, image_size=32)
    if gated:
        pruned_model.attach_gates(net, prunable_weights(net))
    net.bn1.eval()
    mask = masks(net, density=0.02, seeds=1)[0]
    state, modes = pruned_model.read_state(net), [module.training for module in net.modules()]
    drawn = torch.get_rng_state()
    alive = effective_mask(net, mask, channels=3, image_size=32)
    assert 0 < alive.survivors < mask.survivors
    assert torch.equal(torch.get_rng_state(), drawn)
    assert [module.training for module in net.modules()] == modes
    assert all(torch.equal(value, state[name]) for name, value in pruned_model.read_state(net).items())
    assert all(parameter.grad is None for parameter in net.parameters())
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
    assert effective_mask(net, mask, channels=3, image_size=32).equals(alive)


def torchvision_vit() -> nn.Module:
    """Torchvision's, whose queries, keys and values come from one parameter of PyTorch's attention."""
    net = VisionTransformer(32, 16, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32)
    net.heads = nn.Identity()
    return net


class Scaled(nn.Module):
    """Layer norm without what is no path: a channel that nothing reaches stays 0 here."""

    def forward(self, x: Tensor) -> Tensor:
        return x / x.detach().square().mean().sqrt()


def unfused_vit() -> nn.Module:
    """Timm's with a layer each for queries, keys and values, rotary positions and a gated MLP."""
    sizes = {"img_size": 32, "patch_size": 16, "embed_dim": 24, "depth": 2, "num_heads": 2}
    return timm.create_model("eva02_base_patch14_224", num_classes=0, **sizes)


SMOOTH: dict[str, tuple[Callable[[], nn.Module], float]] = {
    "torchvision's ViT": (torchvision_vit, 0.15),
    "unfused ViT": (unfused_vit, 0.15),
    **{
        name: (partial(models.create_model, name, channels=3, image_size=32), density)
        for name, density in (("test_efficientnet", 0.03), ("test_vit", 0.1), ("test_convnext", 0.1))
    },
}


@pytest.mark.parametrize("model", SMOOTH)
def test_weights_on_a_path_are_those_with_a_gradient(model: str) -> None:
    """With smooth activations and no biases, whatever the values of the weights: depthwise, squeezed, attended."""
    torch.manual_seed(0)
    build, density = SMOOTH[model]
    net = build().eval().double()
    for path, layer in list(net.named_modules()):
        if isinstance(layer, nn.LayerNorm):
            net.set_submodule(path, Scaled())
    names = prunable_weights(net)
    for name, parameter in net.named_parameters():
        if name in names:
            nn.init.normal_(parameter, std=(20 / parameter[0].numel()) ** 0.5)
        elif name.endswith("bias"):
            nn.init.zeros_(parameter)
    (mask,) = masks(net, density=density, seeds=1)
    alive = effective_mask(build(), mask, channels=3, image_size=32)
    pruned_model.attach_gates(net, names)
    pruned_model.set_mask(net, mask)
    features = net(torch.randn(2, 3, 32, 32, dtype=torch.float64))
    weights = pruned_model.stored_weights(net, names)
    slopes = torch.autograd.grad((features * torch.randn_like(features)).sum(), list(weights.values()))
    assert alive.equals(Mask({name: slope != 0 for name, slope in zip(weights, slopes, strict=True)}))
    assert 0 < alive.survivors < mask.survivors
