"""Exact compaction: channels that a mask has killed are left out of what is computed, and of nothing that is stored.

Between a convolution or linear layer and the one layer that reads it, a channel is

- constant, if no weight leads to it: it is what bias, batch norm and activation make of nothing, the same everywhere in
  every image. It goes through the reading layer once, as an image of its own (at a border less of it is seen), and what
  comes out is added to all images;
- gone, if no weight leads to it or from it: nothing is computed;
- read by nobody, if weights lead only to it: nothing is computed either, unless batch norm follows, whose running
  statistics are those of its values.

Parameters, their gradients, optimisers' states, running statistics and files keep their sizes: layers take the parts
that are left of their weights in every pass, and gradients are 0 elsewhere, as they are in the masked network. So
weight decay and momentum act as ever, and what comes out differs by the order of sums alone. Where a tensor is read by
more than one layer, as the stream of a residual network is, all of its channels stay.
"""

import copy
import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from sslticket.pruning import innermost
from sslticket.pruning.mask import Mask

LEAST_DEAD = 0.2
"""Fraction of such channels that must be left out: with fewer, taking parts of weights costs more than it saves."""

_COMPACT = "_compact_layer"
"""Attribute of a module whose channels are left out."""
_LAYERS = (nn.Conv2d, nn.Linear)
_ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SiLU, nn.GELU, nn.Hardswish, nn.Sigmoid, nn.Tanh)
_RELUS: tuple[Any, ...] = (F.relu, torch.relu, "relu", "relu_")
_FLATTENS: tuple[Any, ...] = (torch.flatten, "flatten")


@dataclass(frozen=True, kw_only=True, eq=False)
class Link:
    """A tensor between the layer that makes it and the one that reads it.

    Attributes:
        maker: Path of the layer.
        norm: Path of its batch norm; None without one.
        activations: What is done to each number behind that, in order.
        reader: Path of the layer that reads it.
        live: Channels that are computed.
        constant: Channels without incoming weights that are read.
        channels: Number of its channels.
        spread: Numbers of each channel of an image that the reading layer has weights for; 1 unless it reads a
            flattened image.
    """

    maker: str
    norm: str | None
    activations: tuple[Callable[[Tensor], Tensor], ...]
    reader: str
    live: Tensor
    constant: Tensor
    channels: int
    spread: int


@dataclass(frozen=True, kw_only=True)
class Compaction:
    """Which channels of a network are left out.

    Attributes:
        links: The tensors that lose channels.
        left_out: Number of the channels that are not computed.
        channels: Number of all channels of such tensors.
    """

    links: tuple[Link, ...]
    left_out: int
    channels: int

    @classmethod
    def plan(cls, backbone: nn.Module, mask: Mask) -> "Compaction | None":
        """What a mask lets be left out; None where that is too little, or where it is not known to be exact.

        It is known of plain convolutions and linear layers with plain batch norm, activations and pools between them,
        in networks that `torch.fx` can trace. Everything else keeps its channels.

        Args:
            backbone: A network, which stays as it is.
            mask: Its mask.
        """
        layers = [layer for layer in mask.values() if layer.ndim > 1]
        if all(layer.flatten(1).any(1).all() and layer.transpose(0, 1).flatten(1).any(1).all() for layer in layers):
            return None  # before anything is traced
        found = [_with_channels(backbone, mask, *chain) for chain in _chains(backbone)]
        links = tuple(link for link in found if len(link.live) < link.channels)
        channels = sum(link.channels for link in found)
        left_out = channels - sum(len(link.live) for link in found)
        enough = left_out > 0 and left_out >= LEAST_DEAD * channels
        return cls(links=links, left_out=left_out, channels=channels) if enough else None


def use_compaction(backbone: nn.Module, plan: Compaction) -> None:
    """Leave channels out of the network's passes, in place, until `stop_compaction`.

    Args:
        backbone: The network, or a copy of it, with its mask; its layers have their own forward.
        plan: From `Compaction.plan` for this mask.
    """
    made, read = {link.maker: link for link in plan.links}, {link.reader: link for link in plan.links}
    for path in dict.fromkeys((*made, *read)):
        layer = CompactLayer(backbone, path, made.get(path), read.get(path))
        _swap(layer.module, layer)
    for link in plan.links:
        if link.norm is not None:
            norm = _CompactNorm(backbone, link)
            _swap(norm.module, norm)


def stop_compaction(net: nn.Module) -> None:
    """Give all layers of the net their own forward back; none of them is sparse."""
    for module in net.modules():
        if _COMPACT in module.__dict__:
            del module.__dict__[_COMPACT], module.__dict__["forward"]


def is_compact(net: nn.Module) -> bool:
    """Whether it leaves channels out."""
    return any(_COMPACT in module.__dict__ for module in net.modules())


def compact_layer(module: nn.Module) -> "CompactLayer | None":
    """What computes a layer some of whose channels are left out; None where all are there."""
    return cast("CompactLayer | None", module.__dict__.get(_COMPACT))


def _swap(module: nn.Module, forward: "CompactLayer | _CompactNorm") -> None:
    setattr(module, _COMPACT, forward)
    module.forward = forward


class CompactLayer:
    """The forward of a layer that makes or reads a tensor without some of its channels.

    Args:
        backbone: The network.
        path: The layer's.
        made: What it makes; None where that keeps all channels.
        read: What it reads; None where that keeps all channels.

    Attributes:
        module: The layer.
        rows: The output channels that it computes; None for all.
        columns: The inputs for which it has weights: those that are given, then the constant ones; None for all.
    """

    def __init__(self, backbone: nn.Module, path: str, made: Link | None, read: Link | None) -> None:
        self.module = cast("nn.Conv2d | nn.Linear", backbone.get_submodule(path))
        device = self.module.weight.device
        self.rows = None if made is None else made.live.to(device)
        self.columns: Tensor | None = None
        self._constants: _Constants | None = None
        if read is not None:
            live, constant = (_features(channels, read.spread).to(device) for channels in (read.live, read.constant))
            self.columns, self._of_constants, self._given = torch.cat([live, constant]), constant, live
            self._constants = _Constants(backbone, read, device) if len(constant) else None

    def __call__(self, input: Tensor) -> Tensor:  # noqa: A002  # torch's name, which callers may give
        """The channels that are left, of an input without those that are not."""
        if self._constants is None:
            return self.product(input)
        live, constant = WeightParts.apply(self.module.weight, self.rows, self._given, self._of_constants)
        value = self._constants().to(input.dtype)
        if isinstance(self.module, nn.Conv2d):
            value = value.view(1, -1, 1, 1).expand(1, -1, *input.shape[2:])
        return self._apply(input, live, None).add_(self._apply(value, constant, self.bias()))

    def join(self, x: Tensor) -> Tensor:
        """The input with its constant channels, which `product` reads."""
        if self._constants is None:
            return x
        value = self._constants().to(x.dtype)
        if isinstance(self.module, nn.Linear):
            return torch.cat([x, value.expand(*x.shape[:-1], -1)], -1)
        order = _memory_order(x)
        inside = [x.permute(order), value.view(1, -1, 1, 1).expand(len(x), -1, *x.shape[2:]).permute(order)]
        return torch.cat(inside, order.index(1)).permute([order.index(dim) for dim in range(4)])

    def product(self, x: Tensor) -> Tensor:
        """The channels that are left, of an input that has its constant channels."""
        (part,) = WeightParts.apply(self.module.weight, self.rows, self.columns)
        return self._apply(x, part, self.bias())

    def bias(self) -> Tensor | None:
        """The bias of the channels that are computed."""
        bias = self.module.bias
        return bias if bias is None or self.rows is None else bias.index_select(0, self.rows)

    def _apply(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if isinstance(self.module, nn.Linear):
            return F.linear(x, weight, bias)
        return cast(Tensor, self.module._conv_forward(x, weight, bias))


class _CompactNorm:
    """The forward of a batch norm that is given some of its channels alone.

    Args:
        backbone: The network.
        link: The tensor that it normalises.

    Attributes:
        module: The batch norm.
    """

    def __init__(self, backbone: nn.Module, link: Link) -> None:
        assert link.norm is not None
        self.module = cast(nn.BatchNorm2d, backbone.get_submodule(link.norm))
        self._maker = cast(nn.Conv2d, backbone.get_submodule(link.maker))
        self._live = link.live.to(self.module.weight.device)

    def __call__(self, input: Tensor) -> Tensor:  # noqa: A002  # torch's name, which callers may give
        """The channels normalised; running statistics move as those of all channels do."""
        norm, live = self.module, self._live
        assert type(norm) is nn.BatchNorm2d, "of no ghost batches, and of one process"
        mean, variance, momentum = norm.running_mean, norm.running_var, norm.momentum
        assert mean is not None
        assert variance is not None
        assert momentum is not None
        own_mean, own_variance = mean.index_select(0, live), variance.index_select(0, live)
        weight, bias = norm.weight.index_select(0, live), norm.bias.index_select(0, live)
        if innermost.can_normalise(input, tensors := (weight, bias, own_mean, own_variance)):
            y = innermost.normalise(input, tensors, momentum if norm.training else -1.0, norm.eps)
        else:
            y = F.batch_norm(input, own_mean, own_variance, weight, bias, norm.training, momentum, norm.eps)
        if norm.training:
            with torch.no_grad():
                assert norm.num_batches_tracked is not None
                norm.num_batches_tracked.add_(1)
                # Of a channel without incoming weights: its bias everywhere, which varies by nothing.
                mean.mul_(1 - momentum)
                variance.mul_(1 - momentum)
                if self._maker.bias is not None:
                    mean.add_(self._maker.bias, alpha=momentum)
                mean.index_copy_(0, live, own_mean)
                variance.index_copy_(0, live, own_variance)
        return y


class _Constants:
    """The numbers of the constant channels of a tensor, as the layer that reads it sees them.

    Args:
        backbone: The network.
        link: The tensor.
        device: Where it is.
    """

    def __init__(self, backbone: nn.Module, link: Link, device: torch.device) -> None:
        self._maker = cast("nn.Conv2d | nn.Linear", backbone.get_submodule(link.maker))
        self._norm = None if link.norm is None else cast(nn.BatchNorm2d, backbone.get_submodule(link.norm))
        self._activations, self._index, self._spread = link.activations, link.constant.to(device), link.spread

    def __call__(self) -> Tensor:
        """One number for each feature that comes from these channels, with its gradients."""
        norm, index, bias = self._norm, self._index, self._maker.bias
        if norm is not None and norm.training:
            value = norm.bias.index_select(0, index)  # a batch that is the same everywhere has its mean there
        else:
            value = self._maker.weight.new_zeros(len(index)) if bias is None else bias.index_select(0, index)
            if norm is not None:
                stored = (norm.running_mean, norm.running_var, norm.weight, norm.bias)
                mean, variance, weight, added = (cast(Tensor, each).index_select(0, index) for each in stored)
                value = F.batch_norm(value[None], mean, variance, weight, added, False, 0.0, norm.eps)[0]
        for activation in self._activations:
            value = activation(value)
        return value.repeat_interleave(self._spread) if self._spread > 1 else value


class WeightParts(torch.autograd.Function):
    """Parts of a weight, some rows and some columns each; the weight's gradient is 0 elsewhere."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, rows: Tensor | None, *columns: Tensor | None) -> tuple[Tensor, ...]:
        """One part for each choice of columns, in the weight's layout of memory; None stands for all."""
        ctx.rows, ctx.columns, ctx.like = rows, columns, weight
        nhwc = weight.dim() == 4 and weight.is_contiguous(memory_format=torch.channels_last)
        layout = torch.channels_last if nhwc else torch.contiguous_format
        return tuple(weight[_place(rows, each)].contiguous(memory_format=layout) for each in columns)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """The gradient of the whole weight."""
        whole = spread_parts(gradients, ctx.like, ctx.rows, ctx.columns)
        return whole, None, *(None for _ in ctx.columns)


def spread_parts(
    parts: Iterable[Tensor], like: Tensor, rows: Tensor | None, columns: Sequence[Tensor | None]
) -> Tensor:
    """A tensor that has these rows and columns at their places, is as large as another, and 0 elsewhere."""
    whole = torch.zeros_like(like)
    for part, each in zip(parts, columns, strict=True):
        whole[_place(rows, each)] = part
    return whole


def _place(rows: Tensor | None, columns: Tensor | None) -> Any:
    """The index of some rows and columns."""
    if columns is None:
        assert rows is not None
        return (rows,)
    return (slice(None), columns) if rows is None else (rows[:, None], columns[None])


def _memory_order(x: Tensor) -> list[int]:
    """The dimensions of images from the outermost in memory to the innermost."""
    if innermost.is_innermost(x):
        return [1, 2, 3, 0]
    return [0, 2, 3, 1] if x.is_contiguous(memory_format=torch.channels_last) else [0, 1, 2, 3]


def _features(channels: Tensor, spread: int) -> Tensor:
    """The inputs of a layer that come from these channels of the tensor that it reads."""
    return (channels[:, None] * spread + torch.arange(spread)).flatten()


def _with_channels(
    backbone: nn.Module,
    mask: Mask,
    maker: str,
    norm: str | None,
    activations: Sequence[Callable[[Tensor], Tensor]],
    reader: str,
) -> Link:
    """The link of a chain, with the channels that are left of it under a mask."""
    first, second = (cast("nn.Conv2d | nn.Linear", backbone.get_submodule(path)) for path in (maker, reader))
    channels = len(first.weight)
    incoming = mask.get(f"{maker}.weight", torch.ones_like(first.weight)).cpu().flatten(1).bool().any(1)
    weights = mask.get(f"{reader}.weight", torch.ones_like(second.weight)).cpu().bool()
    read = weights.reshape(len(weights), channels, -1).any(2).any(0)
    live = incoming & (read | torch.tensor(norm is not None))
    if not live.any():
        live[0] = True  # a tensor without channels is none that kernels know, and a dead one may be computed as well
    return Link(
        maker=maker,
        norm=norm,
        activations=tuple(activations),
        reader=reader,
        live=live.nonzero().flatten(),
        constant=(read & ~incoming & ~live).nonzero().flatten(),
        channels=channels,
        spread=second.weight.shape[1] // channels,
    )


_Chain = tuple[str, str | None, list[Callable[[Tensor], Tensor]], str]


def _chains(backbone: nn.Module) -> list[_Chain]:
    """Layers whose output goes through what keeps channels apart to one other layer alone: the parts of links.

    They are found by what the forward does without numbers. What it does in training alone, or by chance, what hooks of
    its blocks see, and what it writes to its own tensors must neither be missed nor happen.
    """
    blocks = [module for module in backbone.modules() if module is not backbone and any(module.children())]
    if "forward" in vars(backbone) or not all(map(_is_bare, blocks)):
        return []
    modules = dict(backbone.named_modules())
    before = _generators()
    try:
        with torch.random.fork_rng([]):
            net = copy.deepcopy(backbone)
            graphs = [fx.Tracer().trace(net.train(training)) for training in (True, False)]
            decided_by_chance = _generators() != before
    except Exception:  # whatever networks raise that look at what they are given
        return []
    finally:
        random.setstate(before[1])
    in_training, in_evaluation = (_chains_of(graph, modules) for graph in graphs)
    return [] if decided_by_chance else [chain for chain in in_training if chain in in_evaluation]


def _generators() -> tuple[bytes, Any]:
    """Where the generators of torch and Python stand, by which a forward may decide what it does."""
    return torch.get_rng_state().numpy().tobytes(), random.getstate()


def _chains_of(graph: fx.Graph, modules: dict[str, nn.Module]) -> list[_Chain]:
    """The chains of one graph."""
    calls = Counter(node.target for node in graph.nodes if node.op == "call_module")
    once = {cast(str, path) for path, count in calls.items() if count == 1 and _is_bare(modules[cast(str, path)])}
    found = (
        _chain(node, modules, once)
        for node in graph.nodes
        if node.op == "call_module" and node.target in once and _is_layer(modules[node.target])
    )
    return [chain for chain in found if chain is not None]


def _chain(node: fx.Node, modules: dict[str, nn.Module], once: set[str]) -> _Chain | None:
    """The chain that begins with a layer; None where something else than known steps comes before the next layer."""
    maker = cast(str, node.target)
    images = isinstance(modules[maker], nn.Conv2d)
    norm: str | None = None
    steps: list[Callable[[Tensor], Tensor]] = []
    flat, moved = False, False
    while len(node.users) == 1:
        (user,) = node.users
        if not user.args or user.args[0] is not node or len(user.all_input_nodes) != 1:
            return None
        node = user
        if node.op != "call_module":
            if node.target in _RELUS:
                steps.append(F.relu)
            elif node.target in _FLATTENS and _starts_at_channels(node):
                flat = True
            else:
                return None
            moved = True
            continue
        path = cast(str, node.target)
        module = modules[path]
        if path not in once:
            return None
        if _is_layer(module):
            fits = images == flat if isinstance(module, nn.Linear) else images and not flat
            return (maker, norm, steps, path) if fits else None
        if type(module) is nn.BatchNorm2d and not moved:
            known = module.affine and module.track_running_stats and module.momentum is not None
            if not known or norm is not None:
                return None
            norm = path
            continue
        moved = True
        if type(module) in _ACTIVATIONS:
            steps.append(module)
        elif type(module) is nn.Flatten and module.start_dim == 1 and module.end_dim == -1:
            flat = True
        elif not _does_nothing(module) and (flat or not images or not _keeps_constants(module)):
            return None
    return None


def _is_layer(module: nn.Module) -> bool:
    """Whether it is a plain layer that mixes all its channels."""
    return type(module) in _LAYERS and getattr(module, "groups", 1) == 1


def _is_bare(module: nn.Module) -> bool:
    """Whether nobody looks at what goes through a module, or has it compute otherwise."""
    hooks: Iterable[Any] = (
        module._forward_hooks,
        module._forward_pre_hooks,
        module._backward_hooks,
        module._backward_pre_hooks,
    )
    return "forward" not in vars(module) and not any(hooks)


def _keeps_constants(module: nn.Module) -> bool:
    """Whether a pool leaves a channel that is the same everywhere as it is."""
    if type(module) is nn.AvgPool2d:
        return not module.ceil_mode and module.divisor_override is None and not _any(module.padding)
    if type(module) is nn.MaxPool2d:
        return not module.return_indices
    return type(module) is nn.AdaptiveAvgPool2d


def _does_nothing(module: nn.Module) -> bool:
    return type(module) is nn.Identity or (type(module) is nn.Dropout and module.p == 0)


def _any(sides: Any) -> bool:
    return any(sides) if isinstance(sides, tuple) else bool(sides)


def _starts_at_channels(node: fx.Node) -> bool:
    """Whether a flattening makes one row of each image."""
    return tuple(node.args[1:]) == (1,) and not node.kwargs
