"""Effective sparsity: the weights of a mask on a path from the image to the features (Vysogorets & Kempe 2021).

The forward pass is run on `Reach` in place of numbers: for each entry of each tensor, whether an image reaches it. All
values are 0 or positive, so nothing cancels, and all that matters of them is whether they are 0.
Source: https://arxiv.org/abs/2107.02306.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.autograd.function import FunctionCtx
from torch.utils import _pytree as pytree

from sslticket.pruning.forward_graph import MATRIX_PRODUCTS, ForwardGraph
from sslticket.pruning.mask import Mask

_ATEN = torch.ops.aten


class EffectivePaths:
    """The paths of one network. The network itself is left unchanged."""

    def __init__(self, graph: ForwardGraph) -> None:
        self._graph = graph
        self._interpreter = _ReachInterpreter(graph.graph)

    @classmethod
    def trace(cls, backbone: nn.Module, *, channels: int, image_size: int) -> "EffectivePaths":
        """Trace the backbone once; see `ForwardGraph.trace`."""
        return cls(ForwardGraph.trace(backbone, channels=channels, image_size=image_size))

    def effective_mask(self, mask: Mask) -> Mask:
        """The survivors of the mask that lie on a path from a pixel to a feature (Vysogorets & Kempe 2021).

        A path leads through surviving weights and whatever is not pruned. Biases, embeddings of positions and other
        additions begin none. Where activations multiply activations (attention, squeeze and excite), both lie on the
        path if neither is 0; a sigmoid or a softmax is not 0 where all that leads to it was pruned. Normalisations
        connect nothing. What makes a constant by which activations are multiplied, such as the bias of an attention by
        relative position, counts where an image meets it. Nothing depends on the values of weights.
        """
        names = {name: plain for name, plain in self._graph.plain_names().items() if plain in mask}
        leaves = {plain: mask[plain].float().requires_grad_() for plain in names.values()}
        state = {
            name: Reach(fixed=leaves[names[name]]) if name in names else value
            for name, value in self._graph.state.items()
        }
        image = Reach(image=torch.ones_like(self._graph.image))
        with torch.enable_grad():
            features = self._interpreter.run(*self._graph.graph_inputs(state, image))
            reached = features.image if isinstance(features, Reach) else None
        if reached is None or not reached.requires_grad:
            return Mask({name: torch.zeros_like(layer) for name, layer in mask.items()})
        slopes = torch.autograd.grad(reached.sum(), list(leaves.values()), allow_unused=True, materialize_grads=True)
        return Mask({name: mask[name] & (slope > 0.5) for name, slope in zip(leaves, slopes, strict=True)})


def effective_mask(backbone: nn.Module, mask: Mask, *, channels: int, image_size: int) -> Mask:
    """The survivors of a mask on a path from the image to the features; see `EffectivePaths.effective_mask`.

    Args:
        backbone: A network with or without gates. Only its connections matter, and it is left unchanged.
        mask: Over some or all of its prunable weights; all other weights count as present.
        channels: Channels of the images.
        image_size: Side of the square images in pixels: a kernel's corner that sees only padding is on no path.
    """
    return EffectivePaths.trace(backbone, channels=channels, image_size=image_size).effective_mask(mask)


@dataclass(frozen=True, eq=False)
class Reach:
    """What is known of a tensor, in its shape. None stands for 0 everywhere.

    Attributes:
        image: Above 0 where an entry depends on the image.
        fixed: Above 0 where an entry would not be 0 without an image: a weight that survives, a sigmoid of 0, and what
            follows from these.
    """

    image: Tensor | None = None
    fixed: Tensor | None = None

    @property
    def shape(self) -> torch.Size:
        """Shape of the tensor."""
        return self.total.shape

    @property
    def total(self) -> Tensor:
        """Above 0 where an entry may be other than 0."""
        if self.image is not None and self.fixed is not None:
            return self.image + self.fixed
        known = self.fixed if self.image is None else self.image
        assert known is not None, "a tensor of which nothing is known has no Reach"
        return known

    def map(self, function: Callable[[Tensor], Tensor]) -> "Reach":
        """The same function of both."""
        image, fixed = (None if value is None else function(value) for value in (self.image, self.fixed))
        return Reach(image, fixed)


class _ReachInterpreter(fx.Interpreter):
    """Runs a graph with `Reach` for what depends on the image or on the mask, and with constants for the rest."""

    def run_node(self, n: fx.Node) -> Any:
        """See the base class."""
        self._out = n.meta.get("val")
        return super().run_node(n)

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """See the base class."""
        if any(isinstance(one, Reach) for one in pytree.tree_leaves((args, kwargs))):
            return propagate(target, args, dict(kwargs), self._out)
        with torch.no_grad():
            return super().call_function(target, args, dict(kwargs))


def propagate(target: Any, args: Sequence[Any], kwargs: dict[str, Any], out: Any) -> Any:
    """The result of an operation some of whose arguments are `Reach`.

    Additions that are parameters or constants are left out, as are biases: they are no paths. Normalisations connect
    nothing. An operation that is not known connects everything with everything.

    Args:
        target: The operation.
        args: Its positional arguments; all that are no `Reach` are constants.
        kwargs: Its keyword arguments, likewise.
        out: Tensors of the result's shape, whose values do not matter.
    """
    if not isinstance(target, torch._ops.OpOverload):
        return target(*args, **kwargs)  # an element of a tuple
    packet = target.overloadpacket
    given = {argument.name: value for argument, value in zip(target._schema.arguments, args, strict=False)} | kwargs
    if packet in MATRIX_PRODUCTS:
        return _matrix_product(target, args, kwargs, MATRIX_PRODUCTS[packet])
    if rule := _OPERATION_RULES.get(packet):
        found = rule(given, out)
        if found is not None:
            return found
    if packet in _LINEAR_OPERATIONS:
        return _linear(_LINEAR_OPERATIONS[packet] or target, args, kwargs)
    return _fully_connected([one for one in pytree.tree_leaves((args, kwargs)) if isinstance(one, Reach)], out)


class _Binarized(torch.autograd.Function):
    """1 where a value is above a bound, else 0; and the same of its gradient with another bound."""

    @staticmethod
    def forward(ctx: FunctionCtx, value: Tensor, above: float, gradient_above: float) -> Tensor:
        """See the class."""
        cast(Any, ctx).gradient_above = gradient_above
        return (value > above).to(value.dtype)

    @staticmethod
    def backward(ctx: FunctionCtx, *grads: Any) -> Any:
        """See the class."""
        return (grads[0] > cast(Any, ctx).gradient_above).to(grads[0].dtype), None, None


def _binarize_factor(value: Tensor) -> Tensor:
    # Products of 1s and 0s are whole numbers: a half tells them apart even where convolutions are done by transforms.
    return cast(Tensor, _Binarized.apply(value, 0.0, 0.5))


def _binarize_product(value: Tensor) -> Tensor:
    return cast(Tensor, _Binarized.apply(value, 0.5, 0.0))


def _matrix_product(target: Any, args: Sequence[Any], kwargs: dict[str, Any], sides: tuple[int, int]) -> Reach:
    left, right = sides

    def multiply(a: Tensor, b: Tensor) -> Tensor:
        if target.overloadpacket is _ATEN.convolution:
            own = list(args)
            own[left], own[right], own[2] = a, b, None
            return cast(Tensor, target(*own, **kwargs))
        # The other term of a sum with a product is added below.
        return torch.matmul(a, b).sum(0) if target.overloadpacket is _ATEN.addbmm else torch.matmul(a, b)

    product = _bilinear(multiply, args[left], args[right])
    added = args[0] if left else None
    return _sum_of_two(product, added) if isinstance(added, Reach) else product


def _bilinear(multiply: Callable[[Tensor, Tensor], Tensor], a: Any, b: Any) -> Reach:
    a, b = (_as_reach(one).map(_binarize_factor) for one in (a, b))
    image = [multiply(a.image, b.total)] if a.image is not None else []
    image += [multiply(a.fixed, b.image)] if a.fixed is not None and b.image is not None else []
    fixed = multiply(a.fixed, b.fixed) if a.fixed is not None and b.fixed is not None else None
    return Reach(sum(image[1:], image[0]) if image else None, fixed).map(_binarize_product)


def _as_reach(value: Any) -> Reach:
    return value if isinstance(value, Reach) else Reach(fixed=torch.ones(value.shape))


def _linear(target: Any, args: Sequence[Any], kwargs: dict[str, Any], *, added: bool = False) -> Any:
    """The operation itself, applied to what the image reaches and to the rest.

    A constant that is put beside other entries, such as a class token, is there without an image; one that is `added`
    to them is left out.
    """
    leaves, spec = pytree.tree_flatten((list(args), kwargs))
    if not added:
        leaves = [_as_reach(one) if isinstance(one, Tensor) and one.is_floating_point() else one for one in leaves]

    def of(value: Any, kind: str) -> Any:
        own = getattr(value, kind) if isinstance(value, Reach) else None
        if own is not None:
            return own
        left_out = isinstance(value, Reach) or (isinstance(value, Tensor) and value.is_floating_point())
        return torch.zeros(value.shape) if left_out else value

    results: list[Any] = []
    for kind in ("image", "fixed"):
        if all(getattr(one, kind, None) is None for one in leaves):
            results.append(None)
        else:
            own_args, own_kwargs = pytree.tree_unflatten([of(value, kind) for value in leaves], spec)
            results.append(target(*own_args, **own_kwargs))
    known = next(result for result in results if result is not None)
    if isinstance(known, Tensor):
        return Reach(*results)
    return [Reach(*(result and result[number] for result in results)) for number in range(len(known))]


def _sum_of_two(a: Any, b: Any) -> Reach:
    """A sum, of which one term may be a constant."""
    return cast(Reach, _linear(torch.add, [a, b], {}, added=True))


def _fully_connected(given: Sequence[Reach], out: Any) -> Any:
    """As if every entry of the result depended on every entry of what is given."""
    found: list[Tensor | None] = []
    for kind in ("image", "fixed"):
        own = [value for one in given if (value := getattr(one, kind)) is not None]
        found.append(
            _binarize_product(torch.stack([_binarize_factor(each).sum() for each in own]).sum()) if own else None
        )

    def filled(like: Any) -> Any:
        if not isinstance(like, Tensor) or not like.is_floating_point():
            return torch.zeros(like.shape, dtype=like.dtype) if isinstance(like, Tensor) else like
        return Reach(*(None if value is None else value.expand(like.shape) for value in found))

    return pytree.tree_map(filled, out)


def _elementwise(given: dict[str, Any], out: Any) -> Any:
    """Every entry depends on its own alone, and is 0 where that is 0."""
    first = next(iter(given.values()))
    if not isinstance(first, Reach):
        return None
    return [first, *[None] * (len(out) - 1)] if isinstance(out, tuple | list) else first


def _elementwise_nonzero(given: dict[str, Any], out: Any) -> Reach | None:
    """Every entry depends on its own alone, and is not 0 where that is 0: the sigmoid of a gate that was pruned."""
    first = next(iter(given.values()))
    return _nonzero_everywhere(first) if isinstance(first, Reach) else None


def _nonzero_everywhere(one: Reach) -> Reach:
    """Not 0 anywhere; where that depends on weights, it still does."""
    return Reach(one.image, torch.ones(one.shape) if one.fixed is None else one.fixed + 1)


def _divisor(given: dict[str, Any], out: Any) -> Reach:
    """The size of something, by which something else is divided."""
    return Reach(fixed=torch.ones(out.shape))


def _power(given: dict[str, Any], out: Any) -> Any:
    exponent = given.get("exponent")
    return _divisor(given, out) if isinstance(exponent, int | float) and exponent < 0 else _elementwise(given, out)


def _add(given: dict[str, Any], out: Any) -> Reach:
    a, b = given["self"], given["other"]
    if isinstance(a, Reach | Tensor) and isinstance(b, Reach | Tensor):
        return _sum_of_two(a, b)
    one = a if isinstance(a, Reach) else b
    assert isinstance(one, Reach)
    return _nonzero_everywhere(one)


def _multiply(given: dict[str, Any], out: Any) -> Any:
    a, b = given["self"], given["other"]
    if isinstance(a, Reach | Tensor) and isinstance(b, Reach | Tensor):
        return _bilinear(torch.mul, a, b)
    return a if isinstance(a, Reach) else b


def _divide(given: dict[str, Any], out: Any) -> Reach:
    numerator = given["self"]
    if not isinstance(numerator, Reach):
        return _divisor(given, out)
    return numerator.map(lambda value: value.expand(out.shape))


def _add_product(given: dict[str, Any], out: Any) -> Reach:
    a, b = given["tensor1"], given["tensor2"]
    product = _bilinear(torch.mul, a, b) if isinstance(a, Reach) or isinstance(b, Reach) else a
    return _sum_of_two(product, given["self"])


def _where(given: dict[str, Any], out: Any) -> Reach | None:
    if not isinstance(given["condition"], Reach):
        return None
    used = [one for one in given.values() if isinstance(one, Reach)]
    return reduce(_sum_of_two, used).map(lambda value: value.expand(out.shape))


def _max_pool(given: dict[str, Any], out: Any) -> Any:
    """A maximum depends on every entry, and gradients reach only one of them: a mean takes its place."""
    kernel, stride = given["kernel_size"], given.get("stride") or given["kernel_size"]
    padding, dilation = given.get("padding", 0), given.get("dilation", 1)
    if any(step != 1 for step in ([dilation] if isinstance(dilation, int) else dilation)):
        return None
    ceil = given.get("ceil_mode", False)
    pooled = given["self"].map(lambda value: F.avg_pool2d(value, kernel, stride, padding, ceil))
    return [pooled, None] if isinstance(out, tuple | list) else pooled


def _reduce(given: dict[str, Any], out: Any) -> Any:
    """Variances, norms and maxima depend on every entry as a sum does."""
    first, dims, keep = next(iter(given.values())), given.get("dim"), given.get("keepdim", False)
    if not isinstance(first, Reach) or isinstance(dims, str):
        return None
    over = list(range(len(first.shape))) if dims is None or dims == [] else dims
    total = first.map(lambda value: value.sum(over, keepdim=bool(keep)))
    return [total] * len(out) if isinstance(out, tuple | list) else total


def _copy(given: dict[str, Any], out: Any) -> Any:
    """What is written over something."""
    source = given["src"]
    return source.map(lambda value: value.expand(out.shape)) if isinstance(source, Reach) else torch.zeros(out.shape)


def _packets(names: str) -> list[Any]:
    """The operations of these names that this PyTorch has."""
    return [getattr(_ATEN, name) for name in names.split() if hasattr(_ATEN, name)]


_OPERATION_RULES: dict[Any, Callable[[dict[str, Any], Any], Any]] = {
    **dict.fromkeys(
        _packets(
            "relu gelu silu mish elu leaky_relu _prelu_kernel prelu hardswish hardtanh tanh relu6 abs neg clamp "
            "clamp_min clamp_max erf sin sqrt log log1p expm1 native_batch_norm _native_batch_norm_legit "
            "_native_batch_norm_legit_no_training _batch_norm_no_update native_layer_norm native_group_norm "
            "_fused_rms_norm native_dropout detach _to_copy clone alias lift_fresh_copy"
        ),
        _elementwise,
    ),
    **dict.fromkeys(
        _packets("sigmoid hardsigmoid exp exp2 cos softplus _softmax _safe_softmax softmax _log_softmax log_sigmoid"),
        _elementwise_nonzero,
    ),
    **dict.fromkeys(_packets("rsqrt reciprocal"), _divisor),
    **dict.fromkeys(_packets("add sub rsub maximum minimum"), _add),
    **dict.fromkeys(_packets("var std linalg_vector_norm norm amax amin max min logsumexp var_mean"), _reduce),
    # Constants of another tensor's shape.
    **dict.fromkeys(
        _packets("zeros_like ones_like full_like empty_like new_zeros new_ones new_full new_empty fill zero"),
        lambda given, out: torch.zeros(out.shape, dtype=out.dtype),
    ),
    # By reshape, since a view may lie in memory otherwise than the tensor that it stands for.
    **dict.fromkeys(
        _packets("view _unsafe_view reshape"),
        lambda given, out: given["self"].map(lambda value: value.reshape(given["size"])),
    ),
    _ATEN.pow: _power,
    _ATEN.mul: _multiply,
    _ATEN.div: _divide,
    _ATEN.addcmul: _add_product,
    _ATEN.where: _where,
    _ATEN.masked_fill: lambda given, out: given["self"].map(
        lambda value: value.masked_fill(given["mask"], 0.0).expand(out.shape)
    ),
    _ATEN.constant_pad_nd: lambda given, out: given["self"].map(lambda value: F.pad(value, given["pad"])),
    _ATEN.max_pool2d_with_indices: _max_pool,
    _ATEN.adaptive_max_pool2d: lambda given, out: [
        given["self"].map(lambda value: F.adaptive_avg_pool2d(value, given["output_size"])),
        None,
    ],
    _ATEN.copy: _copy,
    _ATEN.as_strided_: lambda given, out: given["self"] if given["self"].shape == out.shape else None,
}
_LINEAR_OPERATIONS: dict[Any, Any] = {
    **dict.fromkeys(
        _packets(
            "expand t transpose permute cat slice unbind select unsqueeze split split_with_sizes index index_select "
            "gather stack roll flip repeat squeeze unfold im2col col2im pixel_shuffle pixel_unshuffle diagonal where "
            "slice_scatter select_scatter index_put scatter mean sum cumsum avg_pool1d avg_pool2d "
            "_adaptive_avg_pool2d upsample_bilinear2d upsample_nearest2d reflection_pad2d replication_pad2d"
        )
    ),
    # Bicubic weights can be negative, so two paths could cancel.
    _ATEN.upsample_bicubic2d: _ATEN.upsample_bilinear2d,
}
"""Operations that are sums of entries with positive weights, and the operation that takes their place."""
