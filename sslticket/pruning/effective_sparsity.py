"""Effective sparsity: the weights of a mask on a path from image to features (Vysogorets & Kempe 2021)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.autograd.function import FunctionCtx
from torch.utils import _pytree as pytree

from sslticket.pruning.forward_graph import MATRIX_PRODUCTS, ForwardGraph
from sslticket.pruning.mask import Mask

_ATEN = torch.ops.aten


@dataclass(frozen=True, eq=False)
class Reach:
    """What is known of a tensor, in its shape; None is 0 everywhere.

    Attributes:
        image: above 0 where an entry depends on the image.
        fixed: above 0 where it would not be 0 without one: a weight that survives, a sigmoid of 0, and what follows
            from these.
    """

    image: Tensor | None = None
    fixed: Tensor | None = None

    @property
    def shape(self) -> torch.Size:
        """That of the tensor."""
        return self._any.shape

    @property
    def total(self) -> Tensor:
        """Above 0 where an entry may be other than 0."""
        return self._any if self.image is None or self.fixed is None else self.image + self.fixed

    @property
    def _any(self) -> Tensor:
        found = self.fixed if self.image is None else self.image
        assert found is not None, "a tensor that nothing is known of is no Reach"
        return found

    def map(self, function: Callable[[Tensor], Tensor]) -> "Reach":
        """The same function of both."""
        return Reach(
            None if self.image is None else function(self.image), None if self.fixed is None else function(self.fixed)
        )


class _Binarized(torch.autograd.Function):
    """1 where a value is above a bound, else 0; and the same of its gradient with another bound."""

    @staticmethod
    def forward(ctx: FunctionCtx, value: Tensor, above: float, back: float) -> Tensor:
        """See the class."""
        cast(Any, ctx).back = back
        return (value > above).to(value.dtype)

    @staticmethod
    def backward(ctx: FunctionCtx, *grads: Any) -> Any:
        """See the class."""
        return (grads[0] > cast(Any, ctx).back).to(grads[0].dtype), None, None


def _binarize_factor(value: Tensor) -> Tensor:
    # Products of 1s and 0s are whole numbers: a half tells them apart even where convolutions are done by transforms.
    return cast(Tensor, _Binarized.apply(value, 0.0, 0.5))


def _binarize_product(value: Tensor) -> Tensor:
    return cast(Tensor, _Binarized.apply(value, 0.5, 0.0))


def propagate(target: Any, args: Sequence[Any], kwargs: dict[str, Any], out: Any) -> Any:
    """What an operation gives, some of whose arguments are `Reach`.

    Additions that are parameters or constants are left out, as are biases: they are no paths. Normalisations connect
    nothing. An operation that is not known connects everything with everything.

    Args:
        target: the operation.
        args: its arguments; all that are no `Reach` are constants.
        kwargs: the same.
        out: tensors of the result's shape, whose values are of no interest.
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


def _matrix_product(target: Any, args: Sequence[Any], kwargs: dict[str, Any], places: tuple[int, int]) -> Reach:
    left, right = places

    def multiply(a: Tensor, b: Tensor) -> Tensor:
        own = list(args)
        own[left], own[right] = a, b
        if target.overloadpacket is _ATEN.convolution:
            own[2] = None
            return cast(Tensor, target(*own, **kwargs))
        # The sum of both, of which the other term is seen to below.
        return torch.matmul(a, b).sum(0) if target.overloadpacket is _ATEN.addbmm else torch.matmul(a, b)

    found = _bilinear(multiply, args[left], args[right])
    added = args[0] if left else None
    return _sum_of_two(found, added) if isinstance(added, Reach) else found


def _bilinear(multiply: Callable[[Tensor, Tensor], Tensor], a: Any, b: Any) -> Reach:
    a, b = (_as_reach(one).map(_binarize_factor) for one in (a, b))
    image = [multiply(a.image, b.total)] if a.image is not None else []
    image += [multiply(a.fixed, b.image)] if a.fixed is not None and b.image is not None else []
    fixed = multiply(a.fixed, b.fixed) if a.fixed is not None and b.fixed is not None else None
    return Reach(sum(image[1:], image[0]) if image else None, fixed).map(_binarize_product)


def _as_reach(value: Any) -> Reach:
    return value if isinstance(value, Reach) else Reach(fixed=torch.ones(value.shape))


def _linear(target: Any, args: Sequence[Any], kwargs: dict[str, Any], *, added: bool = False) -> Any:
    """The operation as it is, of what the image reaches and of the rest.

    A constant that is put beside other entries, such as a class token, is there without an image; one that is `added`
    to them is left out.
    """
    leaves, spec = pytree.tree_flatten((list(args), kwargs))
    if not added:
        leaves = [_as_reach(one) if isinstance(one, Tensor) and one.is_floating_point() else one for one in leaves]
    parts = [
        None if all(getattr(one, part, None) is None for one in leaves) else _apply_to_part(target, leaves, spec, part)
        for part in ("image", "fixed")
    ]
    whole = next(part for part in parts if part is not None)
    if isinstance(whole, Tensor):
        return Reach(*parts)
    return [Reach(*(part and part[place] for part in parts)) for place in range(len(whole))]


def _apply_to_part(target: Any, leaves: Sequence[Any], spec: pytree.TreeSpec, part: str) -> Any:
    def one(value: Any) -> Any:
        own = getattr(value, part) if isinstance(value, Reach) else None
        if own is not None:
            return own
        left_out = isinstance(value, Reach) or (isinstance(value, Tensor) and value.is_floating_point())
        return torch.zeros(value.shape) if left_out else value

    args, kwargs = pytree.tree_unflatten([one(value) for value in leaves], spec)
    return target(*args, **kwargs)


def _sum_of_two(a: Any, b: Any) -> Reach:
    """Of two, of which one may be a constant."""
    return cast(Reach, _linear(torch.add, [a, b], {}, added=True))


def _fully_connected(given: Sequence[Reach], out: Any) -> Any:
    """As if every entry of the result depended on every entry of what is given."""
    parts: list[Tensor | None] = []
    for part in ("image", "fixed"):
        own = [value for one in given if (value := getattr(one, part)) is not None]
        parts.append(
            _binarize_product(torch.stack([_binarize_factor(value).sum() for value in own]).sum()) if own else None
        )

    def filled(like: Any) -> Any:
        if not isinstance(like, Tensor) or not like.is_floating_point():
            return torch.zeros(like.shape, dtype=like.dtype) if isinstance(like, Tensor) else like
        return Reach(*(None if part is None else part.expand(like.shape) for part in parts))

    return pytree.tree_map(filled, out)


def _first_argument(given: dict[str, Any]) -> Any:
    return next(iter(given.values()))


def _elementwise(given: dict[str, Any], out: Any) -> Any:
    """Every entry depends on its own alone, and is 0 where that is 0."""
    first = _first_argument(given)
    if not isinstance(first, Reach):
        return None
    return [first, *[None] * (len(out) - 1)] if isinstance(out, tuple | list) else first


def _elementwise_nonzero(given: dict[str, Any], out: Any) -> Reach | None:
    """Every entry depends on its own alone, and is not 0 where that is 0: the sigmoid of a gate that was cut."""
    first = _first_argument(given)
    return _nonzero_everywhere(first) if isinstance(first, Reach) else None


def _nonzero_everywhere(one: Reach) -> Reach:
    """Not 0 anywhere; where that depends on weights, it still does."""
    return Reach(one.image, torch.ones(one.shape) if one.fixed is None else one.fixed + 1)


def _nonzero_constant(given: dict[str, Any], out: Any) -> Reach:
    """The size of something, by which something else is divided."""
    return Reach(fixed=torch.ones(out.shape))


def _power(given: dict[str, Any], out: Any) -> Any:
    exponent = given.get("exponent")
    return (
        _nonzero_constant(given, out)
        if isinstance(exponent, int | float) and exponent < 0
        else _elementwise(given, out)
    )


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
    above = given["self"]
    return above.map(lambda part: part.expand(out.shape)) if isinstance(above, Reach) else _nonzero_constant(given, out)


def _add_product(given: dict[str, Any], out: Any) -> Reach:
    a, b = given["tensor1"], given["tensor2"]
    return _sum_of_two(_bilinear(torch.mul, a, b) if isinstance(a, Reach) or isinstance(b, Reach) else a, given["self"])


def _where(given: dict[str, Any], out: Any) -> Reach | None:
    if not isinstance(given["condition"], Reach):
        return None
    used = [one for one in given.values() if isinstance(one, Reach)]
    return _sum_of(used).map(lambda part: part.expand(out.shape))


def _sum_of(several: Sequence[Reach]) -> Reach:
    total = several[0]
    for one in several[1:]:
        total = _sum_of_two(total, one)
    return total


def _masked_fill(given: dict[str, Any], out: Any) -> Reach:
    return cast(Reach, given["self"]).map(lambda part: part.masked_fill(given["mask"], 0.0).expand(out.shape))


def _pad(given: dict[str, Any], out: Any) -> Reach:
    return cast(Reach, given["self"]).map(lambda part: F.pad(part, given["pad"]))


def _max_pool(given: dict[str, Any], out: Any) -> Any:
    """A maximum depends on every entry, and gradients reach only one of them: a mean in its place."""
    kernel, stride = given["kernel_size"], given.get("stride") or given["kernel_size"]
    padding, dilation = given.get("padding", 0), given.get("dilation", 1)
    if any(step != 1 for step in ([dilation] if isinstance(dilation, int) else dilation)):
        return None
    ceil = given.get("ceil_mode", False)
    pooled = given["self"].map(lambda part: F.avg_pool2d(part, kernel, stride, padding, ceil))
    return [pooled, None] if isinstance(out, tuple | list) else pooled


def _adaptive_max_pool(given: dict[str, Any], out: Any) -> Any:
    return [given["self"].map(lambda part: F.adaptive_avg_pool2d(part, given["output_size"])), None]


def _reduce(given: dict[str, Any], out: Any) -> Any:
    """Variances, norms and maxima depend on every entry as a sum does."""
    first, dims, keep = _first_argument(given), given.get("dim"), given.get("keepdim", False)
    several = isinstance(out, tuple | list)
    if not isinstance(first, Reach) or isinstance(dims, str):
        return None
    every = list(range(len(first.shape)))
    over = every if dims is None or dims == [] else dims
    total = first.map(lambda part: part.sum(over, keepdim=bool(keep)))
    return [total] * len(out) if several else total


def _copy(given: dict[str, Any], out: Any) -> Any:
    """What is written over something."""
    source = given["src"]
    return source.map(lambda part: part.expand(out.shape)) if isinstance(source, Reach) else torch.zeros(out.shape)


def _zeros_like_output(given: dict[str, Any], out: Any) -> Tensor:
    """A constant of another tensor's shape."""
    return torch.zeros(out.shape, dtype=out.dtype)


def _as_strided(given: dict[str, Any], out: Any) -> Any:
    return given["self"] if given["self"].shape == out.shape else None


def _reshape(given: dict[str, Any], out: Any) -> Any:
    # A view of what lies in memory otherwise than the tensor it stands for.
    return given["self"].map(lambda part: part.reshape(given["size"]))


def _packets(names: str) -> list[Any]:
    """Those of these names that this PyTorch has."""
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
    **dict.fromkeys(_packets("rsqrt reciprocal"), _nonzero_constant),
    **dict.fromkeys(_packets("add sub rsub maximum minimum"), _add),
    **dict.fromkeys(_packets("var std linalg_vector_norm norm amax amin max min logsumexp var_mean"), _reduce),
    **dict.fromkeys(
        _packets("zeros_like ones_like full_like empty_like new_zeros new_ones new_full new_empty fill zero"),
        _zeros_like_output,
    ),
    **dict.fromkeys(_packets("view _unsafe_view reshape"), _reshape),
    _ATEN.pow: _power,
    _ATEN.mul: _multiply,
    _ATEN.div: _divide,
    _ATEN.addcmul: _add_product,
    _ATEN.where: _where,
    _ATEN.masked_fill: _masked_fill,
    _ATEN.constant_pad_nd: _pad,
    _ATEN.max_pool2d_with_indices: _max_pool,
    _ATEN.adaptive_max_pool2d: _adaptive_max_pool,
    _ATEN.copy: _copy,
    _ATEN.as_strided_: _as_strided,
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
    # Bicubic weights are negative in places, where two paths could cancel.
    _ATEN.upsample_bicubic2d: _ATEN.upsample_bilinear2d,
}
"""Operations that are sums of entries with positive weights, and what takes their place."""


class EffectivePaths:
    """The paths of one network; looking for them leaves no trace in it."""

    def __init__(self, trace: ForwardGraph) -> None:
        self._trace = trace
        self._flow = _ReachInterpreter(trace.graph)

    @classmethod
    def trace(cls, backbone: nn.Module, *, channels: int, image_size: int) -> "EffectivePaths":
        """See `Trace.of`."""
        return cls(ForwardGraph.trace(backbone, channels=channels, image_size=image_size))

    def effective_mask(self, mask: Mask) -> Mask:
        """The survivors of the mask that lie on a path from a pixel to a feature (Vysogorets & Kempe 2021).

        A path leads through surviving weights and whatever is not pruned. Biases, embeddings of positions and other
        additions begin none. Where activations multiply activations (attention, squeeze and excite), both lie on the
        path if neither is 0; a sigmoid or a softmax is not 0 where all that leads to it was pruned. Normalisations
        connect nothing. What makes a constant by which activations are multiplied, such as the bias of an attention by
        relative position, counts where an image meets it. Nothing depends on the values of weights.
        """
        names = {name: clean for name, clean in self._trace.plain_names().items() if clean in mask}
        leaves = {clean: mask[clean].float().requires_grad_() for clean in names.values()}
        state = {
            name: Reach(fixed=leaves[names[name]]) if name in names else value
            for name, value in self._trace.state.items()
        }
        image = Reach(image=torch.ones_like(self._trace.image))
        with torch.enable_grad():
            features = self._flow.run(*self._trace.graph_inputs(state, image))
            there = features.image if isinstance(features, Reach) else None
        if there is None or not there.requires_grad:
            return Mask({name: torch.zeros_like(layer) for name, layer in mask.items()})
        found = torch.autograd.grad(there.sum(), list(leaves.values()), allow_unused=True, materialize_grads=True)
        return Mask({name: mask[name] & (slope > 0.5) for name, slope in zip(leaves, found, strict=True)})


def effective_mask(backbone: nn.Module, mask: Mask, *, channels: int, image_size: int) -> Mask:
    """The survivors of a mask that lie on a path from the image to the features; see `Paths.effective`.

    Args:
        backbone: with or without gates; only how it is connected matters, and it stays as it is.
        mask: over some or all of its prunable weights; all others are there.
        channels: of the images.
        image_size: side of the square images, in pixels: a kernel's corner that sees only padding is on no path.
    """
    return EffectivePaths.trace(backbone, channels=channels, image_size=image_size).effective_mask(mask)


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
