"""A backbone's forward pass as a graph of basic operations, and whether a mask acts on all that it multiplies by."""

import copy
import operator
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, fx, nn
from torch.func import functional_call, functionalize
from torch.fx import GraphModule
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakIdKeyDictionary

from sslticket.errors import BadInput
from sslticket.pruning import pruned_model
from sslticket.pruning.mask import StateDict
from sslticket.pruning.prunable import prunable_weights

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
    """The operations of a backbone on one image in evaluation.

    Attributes:
        graph: Called with a state and a (1, C, S, S) image; each node is a function without side effects.
        state: The backbone's own parameters and buffers on the CPU, under the names that they have behind gates.
        image: An image of zeros, (1, C, S, S).
    """

    graph: GraphModule
    state: StateDict
    image: Tensor

    @classmethod
    def trace(cls, backbone: nn.Module, *, channels: int, image_size: int) -> "ForwardGraph":
        """Run the backbone once; its state, its mode and the random numbers are left unchanged.

        Args:
            backbone: A network with or without gates.
            channels: Channels of the images.
            image_size: Side of the square images in pixels.
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
        fused = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            with torch.no_grad(), torch.random.fork_rng(devices=[]), sdpa_kernel(SDPBackend.MATH):
                try:
                    with _Recorder([*state.values(), image]) as recorder:
                        features = forward(state, image)
                except _SharedMemoryWritten:
                    # Copies: what is written to the state or to the image in between reaches them in the end.
                    own, given = {name: value.clone() for name, value in state.items()}, image.clone()
                    with _Recorder([*own.values(), given], functional=True) as recorder:
                        features = functionalize(forward, remove="mutations")(own, given)
        finally:
            torch.backends.mha.set_fastpath_enabled(fused)
        return cls(recorder.finished(features), state, image)

    def plain_names(self) -> dict[str, str]:
        """Plain names of all parameters and buffers but those of gates, by their names in `state`."""
        return {name: plain for name in self.state if (plain := pruned_model.plain_name(name)) is not None}

    def graph_inputs(self, state: dict[str, Any], image: Any) -> list[Any]:
        """The inputs of the graph in its order.

        Args:
            state: For each name in `state` the value that takes its place.
            image: The value that takes the image's place.
        """
        return [*(state[name] for name in self.state), image]


class _SharedMemoryWritten(BaseException):
    """Something was about to write to memory that several tensors see; no `except Exception` of a network takes it."""


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own hook for subclasses
    """Writes down the operations that are done while it is entered, as a graph of what it was made with.

    Not torch's own `make_fx`, which does the same: it imports the compiler first, 1.6 seconds of every search. What
    writes to a tensor of its own is written down as what makes a new one; elsewhere torch's `functionalize` is needed,
    which imports sympy for 0.4 seconds.

    Args:
        inputs: The tensors that the graph will be called with, in this order.
        functional: Whether `functionalize` sees to it that nothing matters that operations write.
    """

    def __init__(self, inputs: Sequence[Tensor], *, functional: bool = False) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._functional = functional
        self._root, self._graph = nn.Module(), fx.Graph()
        self._nodes = WeakIdKeyDictionary()
        self._shared: set[int] = set()  # storages that several tensors see
        for number, value in enumerate(inputs):
            self._note(value, self._graph.placeholder(f"input_{number}"))

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """No: torch would import its compiler to keep it off."""
        return False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Does an operation and notes it.

        Raises:
            _SharedMemoryWritten: If it would write to what is not one tensor's alone, before it does.
        """
        kwargs = kwargs or {}
        with self:  # what consists of other operations is noted as those
            result = func.decompose(*args, **kwargs)
        if result is not NotImplemented:
            return result
        schema = getattr(func, "_schema", None)
        writes = schema is not None and schema.is_mutable and not self._functional
        noted = self._without_writing(func, args) if writes else func
        named = pytree.tree_map_only(Tensor, self._node_of, (args, kwargs))
        result = func(*args, **kwargs)
        if schema is not None and not writes and any(each.alias_info is not None for each in schema.returns):
            self._shared |= {
                each.untyped_storage()._cdata for each in pytree.tree_leaves(result) if isinstance(each, Tensor)
            }
        self._note(result, self._graph.call_function(noted, *named))
        return result

    def _without_writing(self, func: Any, args: tuple[Any, ...]) -> Any:
        """The operation that makes a new tensor of what this one would write to its first argument.

        Raises:
            _SharedMemoryWritten: If there is none, or others see that memory.
        """
        namespace, _, name = func._schema.name.partition("::")
        packet = getattr(getattr(torch.ops, namespace), name.removesuffix("_"), None)
        noted = getattr(packet, func._overloadname, None)
        written = [each for each in func._schema.arguments if each.alias_info is not None and each.alias_info.is_write]
        target = args[0] if args and written == func._schema.arguments[:1] else None
        if not name.endswith("_") or noted is None or not isinstance(target, Tensor):
            raise _SharedMemoryWritten
        own = target in self._nodes and self._nodes[target].op == "call_function"
        if not own or target.untyped_storage()._cdata in self._shared:
            raise _SharedMemoryWritten
        return noted

    def finished(self, output: Any) -> GraphModule:
        """The graph of what leads to an output."""
        self._graph.output(pytree.tree_map_only(Tensor, self._node_of, output))
        self._graph.eliminate_dead_code()
        return GraphModule(self._root, self._graph)

    def _node_of(self, value: Tensor) -> fx.Node:
        """The node of a tensor; one that no operation has made is kept as a constant."""
        if value not in self._nodes:
            name = f"constant_{len(list(self._root.buffers()))}"
            self._root.register_buffer(name, value)
            self._note(value, self._graph.get_attr(name))
        return cast(fx.Node, self._nodes[value])

    def _note(self, value: Any, node: fx.Node) -> None:
        """Remembers which node a result is, and of its tensors shape and type."""
        node.meta["val"] = pytree.tree_map_only(
            Tensor, lambda each: torch.empty(each.shape, dtype=each.dtype, device="meta"), value
        )
        if isinstance(value, Tensor):
            self._nodes[value] = node
        elif isinstance(value, tuple | list):
            for number, each in enumerate(value):
                if isinstance(each, Tensor):
                    self._note(each, self._graph.call_function(operator.getitem, (node, number)))


_TRIAL_DENSITY = 0.1  # of the random mask


@dataclass(frozen=True)
class MaskCoverage:
    """Which of a network's weights a mask can prune, and whether it acts on them.

    Attributes:
        unprunable: Names of matrices by which activations are multiplied and which no search can prune: parameters of
            two or more dimensions that belong to neither a convolution, a linear layer nor an attention of PyTorch's.
        recomputed: Names of weights -> the fraction of entries other than 0 among those really multiplied by, when a
            tenth of the weight survives. These weights meet activations only after something was computed from them,
            such as a standardisation, which makes pruned entries act again.
        unused: Names of weights that may be pruned and by which nothing is multiplied.
    """

    unprunable: tuple[str, ...]
    recomputed: Mapping[str, float]
    unused: tuple[str, ...]

    @classmethod
    def complete(cls) -> "MaskCoverage":
        """The coverage of a network whose matrices may all be pruned and whose masks are known to act."""
        return cls((), {}, ())

    @classmethod
    def measure(cls, backbone: nn.Module, *, channels: int, image_size: int) -> "MaskCoverage":
        """Try a random mask and its complement on a backbone's forward pass; the backbone is left unchanged.

        Args:
            backbone: A network without gates.
            channels: Channels of the images.
            image_size: Side of the square images in pixels.
        """
        graph = ForwardGraph.trace(backbone, channels=channels, image_size=image_size)
        names, parameters = prunable_weights(backbone), dict(backbone.named_parameters())
        trial = {}
        for number, name in enumerate(names):
            uniform = torch.rand(graph.state[name].shape, generator=torch.Generator().manual_seed(number))
            trial[name] = uniform + 0.5, uniform < _TRIAL_DENSITY  # no value is 0
        masked = {name: value.where(alive, 0.0) for name, (value, alive) in trial.items()}
        complement = {name: value.where(~alive, 0.0) for name, (value, alive) in trial.items()}
        products, others = (_operands(graph, parameters.keys(), changed) for changed in (masked, complement))
        recomputed: dict[str, float] = {}
        for one, other in zip(products, others, strict=True):
            # An entry that comes from one entry of the weight is 0 under the mask or under its complement.
            if one.weights & trial.keys() and bool(((one.value != 0) & (other.value != 0)).any()):
                nonzero = torch.count_nonzero(one.value).item() / one.value.numel()
                recomputed |= {name: max(nonzero, recomputed.get(name, 0.0)) for name in one.weights & trial.keys()}
        used = {name for one in products for name in one.weights}
        # What only scales a weight that may be pruned, or is fed to one, as a learned token is, is no matrix.
        own = {name for one in products if not (one.weights | one.multiplied) & trial.keys() for name in one.weights}
        unprunable = tuple(name for name in parameters if name in own and graph.state[name].dim() > 1)
        return cls(unprunable, recomputed, tuple(name for name in names if name not in used))

    def check(self, model: str, names: Sequence[str]) -> None:
        """Check that a mask of these weights acts in the forward pass.

        Args:
            model: Name of the model.
            names: Names of weights that a search may prune, or that a ticket's mask holds.

        Raises:
            BadInput: If some of them are not multiplied by as the mask leaves them, or not at all.
        """
        if unused := [name.removesuffix(".weight") for name in names if name in self.unused]:
            raise BadInput(
                f"a weight that is pruned must be used in {model}, got {unused[0]}, by which nothing is multiplied; "
                f"give --exclude {' '.join(unused)}, or another --model"
            )
        if not (wrong := [name for name in names if name in self.recomputed]):
            return
        fraction = max(self.recomputed[name] for name in wrong)
        left_out = " or leave these layers out by --exclude" if len(wrong) < len(names) else ""
        raise BadInput(
            f"masks do not act in {model}: at a density of {_TRIAL_DENSITY:.0%} it multiplies by {fraction:.0%} of the "
            f"entries of {wrong[0].removesuffix('.weight')}, since {len(wrong)} of its {len(names)} layers compute "
            "their weights from those stored (weight standardisation); give a --model with batch norm, such as "
            f"resnet50{left_out}"
        )


@dataclass(frozen=True, eq=False)
class _Operand:
    """A tensor that activations are multiplied by and that does not depend on the image.

    Attributes:
        value: Its entries.
        weights: Names of the parameters from which it is computed.
        multiplied: Names of the parameters from which the other side of the product is computed.
    """

    value: Tensor
    weights: frozenset[str]
    multiplied: frozenset[str]


@dataclass(frozen=True, eq=False)
class _FromParameters:
    """A tensor that is computed from parameters alone, by no product."""

    value: Any
    weights: frozenset[str]


@dataclass(frozen=True)
class _Activation:
    """A tensor that depends on the image; its values do not matter."""


def _operands(trace: ForwardGraph, parameters: Collection[str], changed: Mapping[str, Tensor]) -> list[_Operand]:
    """All operands of a forward pass with some parameters changed, in the order of their products."""
    state: dict[str, Any] = {}
    for name, value in trace.state.items():
        own = changed.get(name, value)
        state[name] = _FromParameters(own, frozenset([name])) if name in parameters else own
    interpreter = _ConstantInterpreter(trace.graph)
    with torch.no_grad():
        interpreter.run(*trace.graph_inputs(state, _Activation()))
    return interpreter.operands


class _ConstantInterpreter(fx.Interpreter):
    """Runs a graph on parameters, skips what depends on the image, and collects the operands of its products."""

    def __init__(self, graph: fx.GraphModule) -> None:
        super().__init__(graph)
        self.operands: list[_Operand] = []

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """See the base class."""
        leaves = pytree.tree_leaves((args, kwargs))
        packet = getattr(target, "overloadpacket", None)
        factors = MATRIX_PRODUCTS.get(packet) or RECURRENT_LAYERS.get(packet)
        if factors:
            sides = [one for number in factors for one in pytree.tree_leaves(args[number])]
            constant = [one for one in sides if isinstance(one, _FromParameters)]
            for side in constant:
                others = frozenset().union(*(one.weights for one in constant if one is not side))
                self.operands.append(_Operand(side.value, side.weights, others))
        if any(isinstance(one, _Activation) for one in leaves):
            return _Activation()
        plain = pytree.tree_map(
            lambda one: one.value if isinstance(one, _FromParameters) else one, (args, dict(kwargs))
        )
        result = super().call_function(target, *plain)
        names = frozenset(name for one in leaves if isinstance(one, _FromParameters) for name in one.weights)
        return result if factors or not names else _FromParameters(result, names)
