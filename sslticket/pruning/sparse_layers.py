"""Sparse steps: layers whose forward and backward passes cost what their kept weights cost, exactly.

`use_sparse_layers` swaps the forward of some linear and convolutional layers of a backbone in place. Parameters, state
dicts and optimisers stay: the weight is still the dense parameter, 0 where it is pruned, and its gradient is dense too,
of which only kept entries are ever computed. What comes out differs from dense kernels by the order of sums alone.
Whether a layer gains is found by a trial, `faster_sparse_layers`. CPU only: on other devices layers stay dense.
"""

import statistics
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from sslticket.pruning import pruned_model
from sslticket.pruning.mask import Mask

MAX_DENSITY = 0.5
"""Density of a layer's mask from which on it is not tried: its kernels are at most as fast per weight as dense ones."""
MIN_GAIN = 1.1
"""Times that a layer must be faster in the trial: less would be lost again in what a trial measures wrongly."""

MAX_NARROW = 16
"""Input channels up to which a convolution is tried at any density: they leave dense kernels' vectors half empty."""

_FORMATS = (torch.contiguous_format, torch.channels_last)
_SPARSE = "_sparse_layer"
"""Attribute of a module that has its sparse forward."""


@dataclass(frozen=True, kw_only=True)
class LayerTimes:
    """What forward and backward pass of one layer take.

    Attributes:
        dense: Seconds of processor time of torch's kernels.
        sparse: Seconds of processor time of the kept weights' kernels.
    """

    dense: float
    sparse: float


@cache
def kernels() -> Any:
    """The module of kernels; None where numba is missing or cannot compile them, which is said once."""
    try:
        from sslticket.pruning import sparse_kernels
    except Exception as error:  # whatever an incomplete installation raises
        warnings.warn(f"layers stay dense, since numba cannot be used: {error}", stacklevel=2)
        return None
    return sparse_kernels


@torch.enable_grad()
def faster_sparse_layers(
    backbone: nn.Module,
    masks: Mask,
    images: Tensor,
    *,
    rounds: int = 3,
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> list[str]:
    """The trial: names of the weights whose layers gain, in the order of the masks.

    What a forward pass changes, running statistics and random numbers, is put back.

    Args:
        backbone: The network as it will be trained: in its memory layout and mode, and dense.
        masks: Its masks.
        images: A batch as training will have it, (B, C, H, W).
        rounds: Timed passes of each kind and layer.
        autocast: Makes the context in which training's passes run.
    """
    names = sparse_candidates(backbone, masks) if images.device.type == "cpu" else []
    inputs: dict[str, Tensor] = {}
    if names:
        buffers = [(buffer, buffer.clone()) for buffer in backbone.buffers()]
        hooks = [
            backbone.get_submodule(name.rpartition(".")[0]).register_forward_pre_hook(
                lambda _, given, name=name: inputs.__setitem__(name, given[0])
            )
            for name in names
        ]
        try:
            with torch.random.fork_rng([]), autocast():
                backbone(images)
        finally:
            for hook in hooks:
                hook.remove()
            with torch.no_grad():
                for buffer, before in buffers:
                    buffer.copy_(before)
    faster = []
    for name, value in inputs.items():
        times = time_layer(backbone, masks, name, value, rounds=rounds, autocast=autocast)
        if times.sparse * MIN_GAIN < times.dense:
            faster.append(name)
    return [name for name in masks if name in faster]


def time_layer(
    backbone: nn.Module,
    masks: Mask,
    name: str,
    inputs: Tensor,
    *,
    rounds: int = 3,
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> LayerTimes:
    """What a step of one layer takes, dense and sparse in turn, medians after a pass that is not counted.

    Args:
        backbone: The network.
        masks: Its masks.
        name: Name of the layer's weight.
        inputs: What the layer is given in training; its gradient is computed where this one's would be.
        rounds: Timed passes of each.
        autocast: Makes the context in which training's passes run.
    """
    module = backbone.get_submodule(name.rpartition(".")[0])
    weight = pruned_model.stored_weights(backbone, [name])[name]
    sparse = _SparseLayer(module, weight, masks[name])
    given = inputs.detach().requires_grad_(inputs.requires_grad)
    wanted = [value for value in (given, *module.parameters()) if value.requires_grad]
    seconds: dict[Callable[[Tensor], Tensor], list[float]] = {module.forward: [], sparse: []}
    gradient: Tensor | None = None
    kept = [(value, value.grad) for value in wanted]
    for number in range(rounds + 1):
        for forward, taken in seconds.items():
            for value in wanted:
                value.grad = None
            begun = time.process_time()
            with autocast():
                output = forward(given)
            gradient = torch.ones_like(output) if gradient is None else gradient
            output.backward(gradient.to(output.dtype))
            if number:
                taken.append(time.process_time() - begun)
    for value, before in kept:
        value.grad = before
    return LayerTimes(dense=statistics.median(seconds[module.forward]), sparse=statistics.median(seconds[sparse]))


def sparse_candidates(backbone: nn.Module, masks: Mask) -> list[str]:
    """Names of the weights whose layers may be sparse: those of plain linear and convolutional layers on a CPU.

    Args:
        backbone: The network.
        masks: Its masks.
    """
    learned = pruned_model.learned_gates(backbone)
    found = [name for name, mask in masks.items() if name not in learned and _supports(backbone, name, mask)]
    return found if found and kernels() is not None else []


def use_sparse_layers(backbone: nn.Module, masks: Mask, names: Iterable[str]) -> None:
    """Swap the forward of these weights' layers in place, until `stop_sparse_layers`.

    Args:
        backbone: The network; what its masks prune is 0 in its stored weights.
        masks: Its masks.
        names: Names of weights among `sparse_candidates`.
    """
    for name in names:
        module = backbone.get_submodule(name.rpartition(".")[0])
        weight = pruned_model.stored_weights(backbone, [name])[name]
        layer = _SparseLayer(module, weight, masks[name])
        setattr(module, _SPARSE, layer)
        module.forward = layer  # type: ignore[assignment]


def stop_sparse_layers(backbone: nn.Module) -> None:
    """Give all layers of the backbone their own forward back."""
    for module in backbone.modules():
        if _SPARSE in module.__dict__:
            del module.__dict__[_SPARSE], module.__dict__["forward"]


def sparse_layers(backbone: nn.Module) -> list[str]:
    """Names of the weights whose layers are sparse now."""
    return [f"{path}.weight" if path else "weight" for path, module in backbone.named_modules() if _SPARSE in module.__dict__]


def _supports(backbone: nn.Module, name: str, mask: Tensor) -> bool:
    module = backbone.get_submodule(name.rpartition(".")[0])
    plain = type(module).forward in (nn.Linear.forward, nn.Conv2d.forward) and name.rpartition(".")[2] == "weight"
    if not plain or mask.device.type != "cpu":
        return False
    weight = pruned_model.stored_weights(backbone, [name])[name]
    if weight.device.type != "cpu" or weight.dtype not in (torch.float32, torch.float64):
        return False
    narrow = isinstance(module, nn.Conv2d) and module.in_channels <= MAX_NARROW
    if not narrow and int(mask.sum()) > MAX_DENSITY * mask.numel():
        return False
    return not isinstance(module, nn.Conv2d) or (
        module.groups == 1
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
        and module.stride[0] == module.stride[1] <= 2
    )


class _Plan:
    """Where the kept weights of a layer find what they multiply, for images of one shape.

    Args:
        mask: The kept entries of the weight, (out, in, height, width).
        strides: The dense weight's.
        size: Height and width of the images.
        padding: Rows and columns of 0 around them.
        stride: Pixels of the images between two of the output.
        dilation: Pixels of the images between two entries of the kernel.
        nhwc: Whether channels lie innermost.
        vectors: Vectors of images in a chunk, at least.
        dtype: Type of the numbers.
    """

    def __init__(
        self,
        mask: Tensor,
        strides: Sequence[int],
        *,
        size: tuple[int, int],
        padding: tuple[int, int],
        stride: int,
        dilation: tuple[int, int],
        nhwc: bool,
        vectors: int,
        dtype: torch.dtype,
    ) -> None:
        compiled = kernels()
        outward, inward, *kernel = mask.shape
        number = np.dtype(np.float32 if dtype is torch.float32 else np.float64)
        self.pixel = pixel = vectors * compiled.VECTOR_BYTES
        self.images = chunk = pixel // number.itemsize
        out = [
            (side + 2 * pad - gap * (taps - 1) - 1) // stride + 1
            for side, pad, gap, taps in zip(size, padding, dilation, kernel, strict=True)
        ]
        (top, bottom), (left, right) = (
            _gradient_border(*each, stride=stride) for each in zip(size, out, padding, dilation, kernel, strict=True)
        )
        tall, wide = (side + 2 * pad for side, pad in zip(size, padding, strict=True))
        g_tall, g_wide = out[0] + top + bottom, out[1] + left + right
        self.x_geometry = np.array([inward, tall, wide, *padding, *size], np.int64)
        self.g_geometry = np.array([outward, g_tall, g_wide, top, left, *out], np.int64)
        self.out = np.array([outward, *out, 1], np.int64)
        self.back_out = np.array([inward, *size, stride], np.int64)
        self.out_shape = (outward, *out)

        o, i, y, x = np.nonzero(mask.numpy())
        self.index = sum(
            (place * stride for place, stride in zip((o, i, y, x), strides, strict=False)), np.zeros(len(o), np.int64)
        )
        y, x = y * dilation[0], x * dilation[1]
        self.places = (((i * tall + y) * wide + x) * chunk).astype(np.int32)
        self.starts = np.searchsorted(o, np.arange(outward + 1)).astype(np.int64)
        # Seen from the input, a pixel has the phase of its place between two pixels of the output.
        phase_y, phase_x = (y - padding[0]) % stride, (x - padding[1]) % stride
        g_y, g_x = (phase_y + padding[0] - y) // stride + top, (phase_x + padding[1] - x) // stride + left
        key = (phase_y * stride + phase_x) * inward + i
        order = np.argsort(key, kind="stable")
        self.back_index = self.index[order]
        self.back_places = (((o * g_tall + g_y) * g_wide + g_x) * chunk)[order].astype(np.int32)
        self.back_starts = np.searchsorted(key[order], np.arange(stride**2 * inward + 1)).astype(np.int64)
        self.values = np.empty(len(o), number)

        self.x_pixels, self.g_pixels = inward * tall * wide, outward * g_tall * g_wide
        self.y_chunk, self.x_chunk = outward * out[0] * out[1] * chunk, inward * size[0] * size[1] * chunk
        self.x_length, self.format = inward * size[0] * size[1], _FORMATS[nhwc]
        self.x_table = _table(self.x_geometry, chunk, nhwc)
        self.g_table = _table(self.g_geometry, chunk, nhwc)
        self.y_table = _table((outward, *out, 0, 0, *out), chunk, nhwc)
        self.back_table = _table((inward, *size, 0, 0, *size), chunk, nhwc)

        self.pack, self.unpack = compiled.packing_kernels(number.itemsize)
        rows, columns = _tile(out, vectors)
        tile = {"size": number.itemsize, "rows": rows, "columns": columns, "vectors": vectors}
        x_steps = {"x_row": wide * stride * pixel, "x_column": stride * pixel}
        forward = compiled.Tile(**tile, **x_steps, y_row=out[1] * pixel, y_column=pixel)
        weights = compiled.Tile(**tile, **x_steps, y_row=g_wide * pixel, y_column=pixel)
        self.sums, self.dots = compiled.tile_kernels(forward)[0], compiled.tile_kernels(weights)[1:]
        self.tile = rows, columns, stride
        rows, columns = _tile([side // stride for side in size], vectors)
        backward = compiled.Tile(
            size=number.itemsize,
            rows=rows,
            columns=columns,
            vectors=vectors,
            x_row=g_wide * pixel,
            x_column=pixel,
            y_row=size[1] * stride * pixel,
            y_column=stride * pixel,
        )
        self.back_sums, self.back_tile = compiled.tile_kernels(backward)[0], (rows, columns, 1)

    def memory(self, place: int, count: int) -> int:
        """Numbers of a packed batch whose chunks have so many pixels."""
        return -(-count // self.images) * place * self.images


def _gradient_border(side: int, length: int, padding: int, gap: int, taps: int, *, stride: int) -> tuple[int, int]:
    """Rows of 0 before and behind the output's gradient, so that every pixel of the input finds what it needs."""
    places = [
        (phase + padding - gap * tap) // stride
        for phase in range(stride)
        for tap in range(taps)
        if (phase + padding - gap * tap) % stride == 0
    ]
    return max(0, -min(places)), max(0, side // stride + max(places) - length)


def _tile(size: Sequence[int], vectors: int) -> tuple[int, int]:
    """Rows and columns of a tile, which divide the output's."""
    most = max(1, kernels().MAX_TILE // vectors)
    columns = _divisor(size[1], most)
    return _divisor(size[0], max(1, most // columns)), columns


def _divisor(number: int, most: int) -> int:
    return max(each for each in range(1, most + 1) if number % each == 0)


def _table(geometry: Sequence[int], chunk: int, nhwc: bool) -> Any:
    """Place of each number of an image in a packed chunk."""
    channels, tall, wide, top, left, rows, columns = (int(number) for number in geometry)
    channel, row, column = np.ogrid[:channels, :rows, :columns]
    place = ((channel * tall + row + top) * wide + column + left) * chunk
    return np.ascontiguousarray(place.transpose(1, 2, 0) if nhwc else place, np.int32).reshape(-1)


class _SparseLayer:
    """The sparse forward of one layer.

    Args:
        module: The layer, whose own forward is taken where this one cannot be.
        weight: Its stored weight, 0 where it is pruned.
        mask: The entries that are kept.
    """

    def __init__(self, module: nn.Module, weight: Tensor, mask: Tensor) -> None:
        self.weight, self.bias = weight, cast("Tensor | None", module.bias)
        self._mask = mask.view(*mask.shape, *(1,) * (4 - mask.ndim)).cpu() > 0
        self._dense = cast("Callable[[Tensor], Tensor]", module.forward)
        self._plans: dict[Any, _Plan | None] = {}
        self._conv = module if isinstance(module, nn.Conv2d) else None

    def __call__(self, x: Tensor) -> Tensor:
        """See the module's own forward."""
        narrow = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None
        own = x if narrow is None else x.to(self.weight.dtype)
        plan = self._plan(own)
        if plan is None:
            return self._dense(x)
        y = cast(Tensor, _SparseProduct.apply(own, self.weight, self.bias, plan))  # type: ignore[no-untyped-call]
        return y if narrow is None else y.to(narrow)

    def _plan(self, x: Tensor) -> _Plan | None:
        """The plan for these images; None where the layer's own forward is to be taken."""
        nhwc = self._conv is not None and (_is_nhwc(x) or _is_nhwc(self.weight))
        size = x.shape[1:] if self._conv is not None else x.shape[-1:]
        key = (size, x.shape[0], nhwc, x.dtype, x.device.type, x.ndim, self.weight.stride())
        if key not in self._plans:
            self._plans[key] = self._make_plan(x, nhwc)
        return self._plans[key]

    def _make_plan(self, x: Tensor, nhwc: bool) -> _Plan | None:
        conv, weight = self._conv, self.weight
        expected = weight.shape[1]
        if x.device.type != "cpu" or x.dtype != weight.dtype or not x.numel() or (conv is not None and x.ndim != 4):
            return None
        size = (1, 1) if conv is None else (x.shape[2], x.shape[3])
        if x.shape[-1 if conv is None else 1] != expected:
            return None
        padding, stride, dilation = ((0, 0), 1, (1, 1)) if conv is None else (conv.padding, conv.stride[0], conv.dilation)
        if any(side % stride for side in size):
            return None
        out = [
            (side + 2 * pad - gap * (taps - 1) - 1) // stride + 1
            for side, pad, gap, taps in zip(size, padding, dilation, self._mask.shape[2:], strict=True)
        ]
        if min(out) < 1:
            return None
        rows, columns = _tile(out, 1)
        count = x.numel() // (expected * size[0] * size[1])
        needed = -(-count * x.element_size() // kernels().VECTOR_BYTES)
        most = max(1, min(kernels().MAX_TILE // (rows * columns), needed))
        chunks = -(-needed // most)
        return _Plan(
            self._mask,
            weight.stride(),
            size=size,
            padding=padding,
            stride=stride,
            dilation=dilation,
            nhwc=nhwc,
            vectors=-(-needed // chunks) if chunks < 8 else most,
            dtype=x.dtype,
        )


def _is_nhwc(tensor: Tensor) -> bool:
    return not tensor.is_contiguous() and tensor.is_contiguous(memory_format=torch.channels_last)


class _SparseProduct(torch.autograd.Function):
    """The output of a layer from its input, and the gradients of both and of the weight, by kept weights only."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, plan: _Plan) -> Tensor:
        """See `torch.nn.functional.linear` and `conv2d`."""
        run = kernels()
        linear = weight.ndim == 2
        x = x.contiguous() if linear else x.contiguous(memory_format=plan.format)
        count = x.numel() // plan.x_length
        packed = torch.empty(plan.memory(plan.x_pixels, count), dtype=x.dtype)
        chunk = torch.empty(plan.y_chunk, dtype=x.dtype)
        if linear:
            y = torch.empty(*x.shape[:-1], plan.out_shape[0], dtype=x.dtype)
        else:
            y = torch.empty((count, *plan.out_shape), dtype=x.dtype, memory_format=plan.format)
        values, pixel = plan.values, plan.pixel
        at = packed.data_ptr()
        run.pack(plan.pack, x.data_ptr(), count, at, plan.x_table, plan.x_geometry, pixel, values)
        run.products(
            (plan.sums, plan.unpack), at, count, plan.x_geometry, weight.data_ptr(), plan.index, values, plan.places,
            plan.starts, 0 if bias is None else bias.data_ptr(), chunk.data_ptr(), y.data_ptr(), plan.y_table, plan.out,
            plan.tile, pixel,
        )  # fmt: skip
        ctx.save_for_backward(packed, weight)
        ctx.plan, ctx.shape = plan, x.shape
        return y

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        """Gradients of input, weight and bias; the weight's is 0 where it is pruned."""
        run, plan = kernels(), cast(_Plan, ctx.plan)
        packed, weight = ctx.saved_tensors
        linear, shape = weight.ndim == 2, ctx.shape
        wants_x, wants_weight, wants_bias, _ = ctx.needs_input_grad
        g = g.contiguous() if linear else g.contiguous(memory_format=plan.format)
        count = shape.numel() // plan.x_length
        values, pixel = plan.values, plan.pixel
        packed_g = torch.empty(plan.memory(plan.g_pixels, count), dtype=g.dtype)
        at = packed_g.data_ptr()
        run.pack(plan.pack, g.data_ptr(), count, at, plan.g_table, plan.g_geometry, pixel, values)
        d_weight = torch.zeros_like(weight) if wants_weight else None
        d_bias = torch.zeros(plan.out_shape[0], dtype=g.dtype) if wants_bias else None
        if wants_weight or wants_bias:
            index = plan.index if wants_weight else plan.index[:0]
            sums = torch.empty((len(index) + 1) * run.VECTOR_BYTES, dtype=torch.uint8)
            run.weight_products(
                plan.dots, packed.data_ptr(), plan.x_geometry, at, plan.g_geometry, count, values, plan.places,
                plan.starts, index, sums.data_ptr(), 0 if d_weight is None else d_weight.data_ptr(),
                0 if d_bias is None else d_bias.data_ptr(), plan.tile, pixel,
            )  # fmt: skip
        d_x = None
        if wants_x:
            chunk = torch.empty(plan.x_chunk, dtype=g.dtype)
            d_x = torch.empty(shape, dtype=g.dtype) if linear else torch.empty(shape, dtype=g.dtype, memory_format=plan.format)
            run.products(
                (plan.back_sums, plan.unpack), at, count, plan.g_geometry, weight.data_ptr(), plan.back_index, values,
                plan.back_places, plan.back_starts, 0, chunk.data_ptr(), d_x.data_ptr(), plan.back_table, plan.back_out,
                plan.back_tile, pixel,
            )  # fmt: skip
        return d_x, d_weight, d_bias, None
