"""A backbone's forward pass as a graph of basic operations, and whether a mask acts on all that it multiplies by."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, fx, nn
from torch.func import functional_call, functionalize
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils import _pytree as pytree

from sslticket.errors import BadInput
from sslticket.pruning import pruned_model
from sslticket.pruning.mask import StateDict, prunable_weights

_ATEN = torch.ops.aten
MATRIX_PRODUCTS: dict[Any, tuple[int, int]] = {
    _ATEN.convolution: (0, 1),
    _ATEN.mm: (0, 1),
    _ATEN.bmm: (0, 1),
    _ATEN.mv: (0, 1),
    _ATEN.dot: (0, 1),
    _ATEN.addmm: (1, 2),
    _ATEN.addbmm: (1, 2),
    _ATEN.baddbmm: (1, 2),
    _ATEN.addmv: (1, 2),
}
"""The operations that every convolution, linear layer, `matmul`, `einsum` and attention comes down to, and which of
their arguments are multiplied."""
RECURRENT_LAYERS: dict[Any, tuple[int, ...]] = {
    _ATEN.mkldnn_rnn_layer: (0, 1, 2),
    _ATEN.lstm: (0,),
    _ATEN.gru: (0,),
}
"""Whole recurrent layers, which are one operation."""


@dataclass(frozen=True, eq=False)
class ForwardGraph:
    """What a backbone does with one image in evaluation.

    Attributes:
        graph: called with a state and a (1, C, S, S) image; each node is a function without side effects.
        state: the backbone's own parameters and buffers on the CPU, under the names that they have behind gates.
        image: of zeros.
    """

    graph: GraphModule
    state: StateDict
    image: Tensor

    @classmethod
    def trace(cls, backbone: nn.Module, *, channels: int, image_size: int) -> "ForwardGraph":
        """Run the backbone once; its state, its mode and the random numbers stay as they are.

        Args:
            backbone: with or without gates.
            channels: of the images.
            image_size: side of the square images, in pixels.
        """
        state = {
            name: value.detach().cpu()
            for members in (backbone.named_parameters(), backbone.named_buffers())
            for name, value in members
        }
        # A copy that shares all tensors: some networks keep what they compute in attributes of their own.
        shared = {id(tensor): tensor for tensor in (*backbone.parameters(), *backbone.buffers())}
        net = copy.deepcopy(backbone, cast(dict[int, Any], shared)).eval()
        image = torch.zeros(1, channels, image_size, image_size)

        def forward(state: StateDict, image: Tensor) -> Tensor:
            return cast(Tensor, functional_call(net, state, (image,)))

        # By plain products and softmax: fused attention is one operation that hides what it multiplies.
        with torch.no_grad(), torch.random.fork_rng(devices=[]), sdpa_kernel(SDPBackend.MATH):
            graph = make_fx(functionalize(forward, remove="mutations"))(state, image)
        return cls(graph, state, image)

    def plain_names(self) -> dict[str, str]:
        """Clean names of all parameters and buffers but those of gates, by their names in `state`."""
        return {name: clean for name in self.state if (clean := pruned_model.plain_name(name)) is not None}

    def graph_inputs(self, state: dict[str, Any], image: Any) -> list[Any]:
        """What the graph's inputs are, in its order.

        Args:
            state: for each name in `state` what stands for it.
            image: what stands for the image.
        """
        return [*(state[name] for name in self.state), image]


_TRIAL_DENSITY = 0.1  # of the mask that is tried


@dataclass(frozen=True)
class MaskCoverage:
    """What acts in a forward pass.

    Attributes:
        unprunable: matrices by which activations are multiplied and which no search can prune, by name: parameters of two or
            more dimensions that belong to neither a convolution, a linear layer nor an attention of PyTorch's.
        recomputed: weights by name -> the fraction of the entries really multiplied by that is not 0, and not as the mask
            has it, when a tenth of the weight survives: these weights meet activations only after something was
            computed from them, such as a standardisation, which makes pruned entries act again.
        unused: weights that may be pruned and that nothing is multiplied by.
    """

    unprunable: tuple[str, ...]
    recomputed: Mapping[str, float]
    unused: tuple[str, ...]

    @classmethod
    def complete(cls) -> "MaskCoverage":
        """Of a network of which it is known that every matrix may be pruned and every weight acts as it is."""
        return cls((), {}, ())

    @classmethod
    def measure(cls, backbone: nn.Module, *, channels: int, image_size: int) -> "MaskCoverage":
        """Try a random mask on a backbone's forward pass; the backbone stays as it is.

        Args:
            backbone: without gates.
            channels: of the images.
            image_size: side of the square images, in pixels.
        """
        trace, names = (
            ForwardGraph.trace(backbone, channels=channels, image_size=image_size),
            prunable_weights(backbone),
        )
        drawn = {name: _random_weight_and_mask(trace.state[name], number) for number, name in enumerate(names)}
        kept = {name: value.where(alive, 0.0) for name, (value, alive) in drawn.items()}
        left = {name: value.where(~alive, 0.0) for name, (value, alive) in drawn.items()}
        weights = dict.fromkeys(dict(backbone.named_parameters()))
        products, others = (_OperandSearch(trace, weights, changed).run() for changed in (kept, left))
        computed: dict[str, float] = {}
        for one, other in zip(products, others, strict=True):
            # An entry that comes of one entry of the weight is 0 under the mask or under its opposite.
            if one.weights & drawn.keys() and bool(((one.value != 0) & (other.value != 0)).any()):
                share = torch.count_nonzero(one.value).item() / one.value.numel()
                computed |= {name: max(share, computed.get(name, 0.0)) for name in one.weights & drawn.keys()}
        used = {name for one in products for name in one.weights}
        # What only scales a weight that may be pruned, or is fed to one, as a learnt token is, is no matrix.
        own = {name for one in products if not (one.weights | one.by) & drawn.keys() for name in one.weights}
        dense = tuple(name for name in weights if name in own and trace.state[name].dim() > 1)
        return cls(dense, computed, tuple(name for name in names if name not in used))

    def check(self, model: str, names: Sequence[str]) -> None:
        """Whether a mask of these weights is what acts.

        Args:
            model: by name.
            names: weights that a search may prune, or that a ticket's mask holds.

        Raises:
            BadInput: if some of them are not multiplied by as the mask leaves them, or not at all.
        """
        if unused := [name.removesuffix(".weight") for name in names if name in self.unused]:
            raise BadInput(
                f"nothing is ever multiplied by {unused[0]} of {model}, so its mask means nothing; give "
                f"--exclude {' '.join(unused)}, or another --model"
            )
        if not (wrong := [name for name in names if name in self.recomputed]):
            return
        act = max(self.recomputed[name] for name in wrong)
        left_out = " or leave these layers out by --exclude" if len(wrong) < len(names) else ""
        raise BadInput(
            f"masks do not act in {model}: at a density of {_TRIAL_DENSITY:.0%} it multiplies by {act:.0%} of the entries of "
            f"{wrong[0].removesuffix('.weight')}, since {len(wrong)} of its {len(names)} layers compute their weights "
            f"from those stored (weight standardisation); give a --model with batch norm, such as resnet50{left_out}"
        )


def _random_weight_and_mask(weight: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Values in a weight's shape of which none is 0, and about a tenth of its entries."""
    uniform = torch.rand(weight.shape, generator=torch.Generator().manual_seed(seed))
    return uniform + 0.5, uniform < _TRIAL_DENSITY


@dataclass(frozen=True, eq=False)
class _Operand:
    """A tensor that activations are multiplied by, which no image has changed.

    Attributes:
        value: its entries.
        weights: parameters that it comes of.
        by: parameters that the other side of the product comes of.
    """

    value: Tensor
    weights: frozenset[str]
    by: frozenset[str]


@dataclass(frozen=True, eq=False)
class _FromParameters:
    """A tensor that comes of parameters alone, by no product."""

    value: Any
    weights: frozenset[str]


@dataclass(frozen=True)
class _Activation:
    """A tensor that depends on the image; its values do not matter."""


@dataclass(eq=False)
class _OperandSearch:
    """The forward pass, of which only what no image changes is computed."""

    trace: ForwardGraph
    parameters: Mapping[str, Any]
    changed: Mapping[str, Tensor]
    found: list[_Operand] = field(default_factory=list)

    def run(self) -> list[_Operand]:
        """All operands, in the order of their products."""
        state: dict[str, Any] = {}
        for name, value in self.trace.state.items():
            own = self.changed.get(name, value)
            state[name] = _FromParameters(own, frozenset([name])) if name in self.parameters else own
        with torch.no_grad():
            _ConstantInterpreter(self.trace.graph, self.found).run(*self.trace.graph_inputs(state, _Activation()))
        return self.found


class _ConstantInterpreter(fx.Interpreter):
    """Runs a graph on parameters, and passes activations over."""

    def __init__(self, graph: fx.GraphModule, found: list[_Operand]) -> None:
        super().__init__(graph)
        self._found = found

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """See the base class."""
        leaves = pytree.tree_leaves((args, kwargs))
        packet = getattr(target, "overloadpacket", None)
        product = packet in MATRIX_PRODUCTS or packet in RECURRENT_LAYERS
        if product:
            self._note([args[place] for place in (MATRIX_PRODUCTS.get(packet) or RECURRENT_LAYERS[packet])])
        if any(isinstance(one, _Activation) for one in leaves):
            return _Activation()
        plain = pytree.tree_map(
            lambda one: one.value if isinstance(one, _FromParameters) else one, (args, dict(kwargs))
        )
        result = super().call_function(target, *plain)
        names = frozenset(name for one in leaves if isinstance(one, _FromParameters) for name in one.weights)
        return result if product or not names else _FromParameters(result, names)

    def _note(self, sides: Sequence[Any]) -> None:
        sides = [one for side in sides for one in pytree.tree_leaves(side)]
        for side in sides:
            if isinstance(side, _FromParameters):
                others = [one.weights for one in sides if one is not side and isinstance(one, _FromParameters)]
                self._found.append(_Operand(side.value, side.weights, frozenset().union(*others)))
