"""Sparse steps: layers whose forward and backward passes cost what their kept weights cost, exactly.

`use_sparse_layers` swaps the forward of some linear and convolutional layers of a backbone in place. Parameters, state
dicts and optimisers stay: the weight is still the dense parameter, 0 where it is pruned, and its gradient is dense too,
of which only kept entries are ever computed. What comes out differs from dense kernels by the order of sums alone.
Whether a layer gains is found by a trial, `faster_sparse_layers`. CPU only: on other devices layers stay dense.
"""

import statistics
import threading
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from time import perf_counter, process_time
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from sslticket.errors import one_line
from sslticket.pruning import innermost, pruned_model
from sslticket.pruning.compaction import WeightParts, compact_layer, spread_parts
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
        dense: Seconds of torch's kernels.
        sparse: Seconds of the kept weights' kernels, which use one thread.
    """

    dense: float
    sparse: float


@cache
def kernels() -> Any:
    """The module of kernels; None where numba is missing, which is said once."""
    try:
        return import_module("sslticket.pruning.sparse_kernels")
    except Exception as error:  # whatever an incomplete installation raises
        _say_dense(error)
        return None


@cache
def can_compute() -> bool:
    """Whether the kernels are there and compile on this machine, as a small layer shows; where not, it is said once."""
    if kernels() is None:
        return False
    with torch.random.fork_rng([]):
        module = nn.Linear(2, 2)
    layer = _SparseLayer(module, module.weight, torch.eye(2))
    try:
        with torch.enable_grad():
            layer(torch.ones(3, 2)).sum().backward()  # type: ignore[no-untyped-call]
    except Exception as error:  # whatever compilers raise, and folders that cannot keep what they make
        _say_dense(error)
        return False
    return True


def _say_dense(error: Exception) -> None:
    warnings.warn(f"layers stay dense, since numba cannot be used: {one_line(error)}", stacklevel=3)


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
                lambda _, given, name=name: inputs.update(zip((name,), given, strict=False))
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
    weight = _stored_weight(module)
    sparse = _SparseLayer(module, weight, masks[name])
    given = inputs.detach().requires_grad_(inputs.requires_grad)
    wanted = [value for value in (given, *module.parameters()) if value.requires_grad]
    seconds: dict[Callable[[Tensor], Tensor], list[float]] = {module.forward: [], sparse: []}
    gradient: Tensor | None = None
    # Of one thread, the processor's time, which other programs change least; of several, what a user waits for.
    clock = process_time if torch.get_num_threads() == 1 else perf_counter
    kept = [(value, value.grad) for value in wanted]
    for number in range(rounds + 1):
        for forward, taken in seconds.items():
            for value in wanted:
                value.grad = None
            begun = clock()
            with autocast():
                output = forward(given)
            gradient = torch.ones_like(output) if gradient is None else gradient
            output.backward(gradient.to(output.dtype))  # type: ignore[no-untyped-call]
            if number:
                taken.append(clock() - begun)
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
    return found if found and can_compute() else []


def use_sparse_layers(
    backbone: nn.Module, masks: Mask, names: Iterable[str], *, images_innermost: bool = False
) -> None:
    """Swap the forward of these weights' layers in place, until `stop_sparse_layers`.

    Args:
        backbone: The network; what its masks prune is 0 in its stored weights.
        masks: Its masks.
        names: Names of weights among `sparse_candidates`.
        images_innermost: Whether they hand on batches whose images lie innermost, where the number of images allows it;
            batch norm then takes these too.
    """
    for name in names:
        module = backbone.get_submodule(name.rpartition(".")[0])
        weight = _stored_weight(module)
        layer = _SparseLayer(module, weight, masks[name], images_innermost=images_innermost)
        setattr(module, _SPARSE, layer)
        module.forward = layer
    if images_innermost:
        innermost.use_innermost_norms(backbone)


def stop_sparse_layers(backbone: nn.Module) -> None:
    """Give all layers of the backbone their own forward back."""
    innermost.stop_innermost_norms(backbone)
    for module in backbone.modules():
        if _SPARSE in module.__dict__:
            del module.__dict__[_SPARSE], module.__dict__["forward"]
            if (compact := compact_layer(module)) is not None:
                module.forward = compact


def sparse_layers(backbone: nn.Module) -> list[str]:
    """Names of the weights whose layers are sparse now."""
    return [
        f"{path}.weight" if path else "weight"
        for path, module in backbone.named_modules()
        if _SPARSE in module.__dict__
    ]


def hands_on_innermost(backbone: nn.Module) -> bool:
    """Whether its sparse layers hand on batches whose images lie innermost."""
    return any(layer.images_innermost for layer in layers_in_use(backbone))


def layers_in_use(net: nn.Module) -> "list[_SparseLayer]":
    """The sparse layers anywhere in a net, for `step_kept_weights`."""
    return [module.__dict__[_SPARSE] for module in net.modules() if _SPARSE in module.__dict__]


def step_kept_weights(layers: "Sequence[_SparseLayer]", optimizer: torch.optim.Optimizer) -> dict[Tensor, Tensor]:
    """Take SGD's step for the kept weights of sparse layers, whose other entries it would leave at 0.

    It comes right before the optimiser's own step, which then finds no gradient at these weights. Its state is as that
    step would leave it. Gradients that anything but a sparse layer has written, and optimisers other than torch's SGD,
    are left to the optimiser.

    Args:
        layers: From `layers_in_use`.
        optimizer: The optimiser of a network that has them.

    Returns:
        The weights whose step was taken, and the gradients that were hidden from the optimiser.
    """
    own_step = type(optimizer).__module__.startswith(("torch.", "sslticket."))  # a user's subclass may do otherwise
    if not (isinstance(optimizer, torch.optim.SGD) and own_step) or optimizer._optimizer_step_pre_hooks:
        return {}
    taken: dict[Tensor, Tensor] = {}
    if len(optimizer.param_groups) == 1:
        group = optimizer.param_groups[0]
        if not (group["dampening"] or group["maximize"] or isinstance(group["lr"], Tensor)):
            moved = {id(weight) for weight in group["params"]}  # a user's optimiser may leave some out
            for layer in layers:
                gradient = layer.weight.grad
                if id(layer.weight) in moved and layer.step(group, optimizer.state) and gradient is not None:
                    taken[layer.weight] = gradient
    return taken


def _stored_weight(module: nn.Module) -> Tensor:
    """The parameter that a layer's weight is, be there a gate on it or not."""
    gated = parametrize.is_parametrized(module, "weight")
    return cast(Tensor, cast(Any, module).parametrizations.weight.original if gated else module.weight)


def _supports(backbone: nn.Module, name: str, mask: Tensor) -> bool:
    module = backbone.get_submodule(name.rpartition(".")[0])
    plain = type(module).forward in (nn.Linear.forward, nn.Conv2d.forward) and name.rpartition(".")[2] == "weight"
    # What users' layers do otherwise, such as weights that are standardised first.
    own = isinstance(module, nn.Conv2d) and type(module)._conv_forward is not nn.Conv2d._conv_forward
    others = "forward" in vars(module) and compact_layer(module) is None
    if not plain or own or others or mask.device.type != "cpu":
        return False
    weight = _stored_weight(module)
    if weight.device.type != "cpu" or weight.dtype not in (torch.float32, torch.float64):
        return False
    mask = _part_of(mask, module)
    narrow = isinstance(module, nn.Conv2d) and mask.shape[1] <= MAX_NARROW
    if not narrow and int(mask.sum()) > MAX_DENSITY * mask.numel():
        return False
    return not isinstance(module, nn.Conv2d) or (
        module.groups == 1
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
        and module.stride[0] == module.stride[1] <= 2
    )


def _part_of(mask: Tensor, module: nn.Module) -> Tensor:
    """The mask of the rows and columns of a layer's weight that are computed."""
    compact = compact_layer(module)
    if compact is None:
        return mask
    part = mask if compact.rows is None else mask[compact.rows.cpu()]
    return part if compact.columns is None else part[:, compact.columns.cpu()]


class _Plan:
    """Where the kept weights of a layer find what they multiply, for images of one shape.

    Args:
        mask: The kept entries of the weight, (out, in, height, width), or of some rows and columns.
        places: Which rows and columns of the weight these are.
        strides: The dense weight's.
        size: Height and width of the images.
        padding: Rows and columns of 0 around them.
        stride: Pixels of the images between two of the output.
        dilation: Pixels of the images between two entries of the kernel.
        nhwc: Whether channels lie innermost.
        vectors: Vectors of images in a chunk, at least.
        dtype: Type of the numbers.
        innermost: Whether images lie innermost in the input, and in the output and both gradients; they are all of one
            chunk then.
    """

    def __init__(
        self,
        mask: Tensor,
        places: Sequence[Any],
        strides: Sequence[int],
        *,
        size: tuple[int, int],
        padding: tuple[int, int],
        stride: int,
        dilation: tuple[int, int],
        nhwc: bool,
        vectors: int,
        dtype: torch.dtype,
        innermost: tuple[bool, bool],
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
        x_geometry = (inward, tall, wide, *padding, *size)
        g_geometry = (outward, g_tall, g_wide, top, left, *out)
        self.out_shape, self.x_length = (outward, *out), inward * size[0] * size[1]
        self.format = _FORMATS[nhwc]

        o, i, y, x = np.nonzero(mask.numpy())
        stored = (places[0][o], places[1][i], y, x)
        index = sum((place * apart for place, apart in zip(stored, strides, strict=False)), np.zeros(len(o), np.int64))
        y, x = y * dilation[0], x * dilation[1]
        places = ((i * tall + y) * wide + x) * chunk
        # Seen from the input, a pixel has the phase of its place between two pixels of the output.
        phase_y, phase_x = (y - padding[0]) % stride, (x - padding[1]) % stride
        g_y, g_x = (phase_y + padding[0] - y) // stride + top, (phase_x + padding[1] - x) // stride + left
        key = (phase_y * stride + phase_x) * inward + i
        order = np.argsort(key, kind="stable")
        back_places = (((o * g_tall + g_y) * g_wide + g_x) * chunk)[order]

        packing, unpacking, summing = compiled.vector_kernels(number.itemsize)
        self.innermost = innermost
        unpacking = 0 if innermost[1] else unpacking
        rows, columns = _tile(out, vectors)
        tile = {"size": number.itemsize, "rows": rows, "columns": columns, "vectors": vectors}
        steps = {"x_row": wide * stride * pixel, "x_column": stride * pixel}
        forward = compiled.Tile(**tile, **steps, y_row=out[1] * pixel, y_column=pixel)
        weights = compiled.Tile(**tile, **steps, y_row=g_wide * pixel, y_column=pixel)
        back_rows, back_columns = _tile([side // stride for side in size], vectors)
        backward = compiled.Tile(
            size=number.itemsize,
            rows=back_rows,
            columns=back_columns,
            vectors=vectors,
            x_row=g_wide * pixel,
            x_column=pixel,
            y_row=size[1] * stride * pixel,
            y_column=stride * pixel,
        )
        self.like = np.empty(len(o), number)  # the kept weights, of the last pass forward
        self._held: list[Any] = [self.like]  # what the addresses below are of
        self.values = values = self.like.ctypes.data
        self.index = self._keep(index)
        side = (
            compiled.sums_kernel(forward),
            unpacking,
            x_geometry,
            len(o),
            self._keep(places, np.int32),
            (self.index, self._keep(np.searchsorted(o, np.arange(outward + 1))), values),
            (outward, *out, 1),
            self._table((outward, *out, 0, 0, *out), nhwc),
            (rows, columns, stride),
        )
        starts = np.searchsorted(key[order], np.arange(stride**2 * inward + 1))
        back = (
            compiled.sums_kernel(backward),
            unpacking,
            g_geometry,
            len(o),
            self._keep(back_places, np.int32),
            (self._keep(order), self._keep(starts), self._keep(np.empty(len(o), number), number)),
            (inward, *size, stride),
            self._table((inward, *size, 0, 0, *size), nhwc),
            (back_rows, back_columns, 1),
        )
        self.forward = (0 if innermost[0] else packing, self._table(x_geometry, nhwc)), side, pixel, self.like
        g_packing = 0 if innermost[1] else packing, self._table(g_geometry, nhwc)
        self.backward = (
            g_packing,
            x_geometry,
            (*compiled.gradient_kernels(weights), summing),
            side,
            back,
            pixel,
            self.like,
        )
        self.x_pixels, self._g_pixels = inward * tall * wide, outward * g_tall * g_wide
        sums = (len(o) + 1) * compiled.VECTOR_BYTES
        self.bare = (tall, wide) == size, (g_tall, g_wide) == tuple(out)  # without a border, of input and gradient
        self.y_bytes, self._back_bytes = outward * out[0] * out[1] * pixel, max(self.x_length * pixel, sums)

    def _keep(self, numbers: Any, kind: Any = np.int64) -> int:
        """Address of numbers that stay as long as the plan."""
        self._held.append(np.ascontiguousarray(numbers, kind))
        return int(self._held[-1].ctypes.data)

    def _table(self, geometry: Sequence[int], nhwc: bool) -> int:
        """Address of the place of each number of an image in a packed chunk."""
        channels, tall, wide, top, left, rows, columns = geometry
        channel, row, column = np.ogrid[:channels, :rows, :columns]
        place = ((channel * tall + row + top) * wide + column + left) * self.images
        return self._keep((place.transpose(1, 2, 0) if nhwc else place).reshape(-1), np.int32)

    def empty(self, shape: torch.Size, dtype: torch.dtype) -> Tensor:
        """Memory for a batch of the output, or of the input's gradient."""
        if self.innermost[1]:
            return innermost.empty_innermost(shape, dtype)
        return torch.empty(shape, dtype=dtype, memory_format=self.format)

    def numbers(self, count: int) -> int:
        """Numbers of a packed batch of so many images."""
        return int(-(-count // self.images) * self.x_pixels * self.images)

    def gradient_bytes(self, count: int) -> tuple[int, int]:
        """Bytes of a packed gradient of so many images, and of what else its pass needs."""
        return -(-count // self.images) * self._g_pixels * self.pixel, self._back_bytes


class _Scratch(threading.local):
    """Memory of a thread that layers use in turn, for what nobody needs after a pass."""

    def __init__(self) -> None:
        self._memory = torch.empty(0, dtype=torch.uint8)

    def address(self, size: int) -> int:
        """Address of so many bytes."""
        if self._memory.numel() < size:
            self._memory = torch.empty(size, dtype=torch.uint8)
        return int(self._memory.data_ptr())


_scratch = _Scratch()


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


class _SparseLayer:
    """The sparse forward of one layer.

    Args:
        module: The layer, whose own forward is taken where this one cannot be.
        weight: Its stored weight, 0 where it is pruned.
        mask: The entries that are kept.
        images_innermost: Whether it hands on batches whose images lie innermost.
    """

    def __init__(self, module: nn.Module, weight: Tensor, mask: Tensor, *, images_innermost: bool = False) -> None:
        self.weight, self.bias = weight, cast("Tensor | None", module.bias)
        self._compact = compact_layer(module)
        part = _part_of(mask, module)
        self._mask = part.reshape(*part.shape, *(1,) * (4 - mask.ndim)).cpu() > 0
        rows, columns = (None, None) if self._compact is None else (self._compact.rows, self._compact.columns)
        self._places = [
            np.arange(whole) if index is None else index.cpu().numpy()
            for whole, index in zip(mask.shape, (rows, columns), strict=False)
        ]
        self._is_whole = int(self._mask.sum()) == int((mask > 0).sum())  # no kept weight lies outside
        self._gradient: tuple[Tensor | None, int] = None, 0
        self._last: _Plan | None = None
        self._shared = torch.distributed.is_available() and torch.distributed.is_initialized()
        dense = module.forward if self._compact is None else self._compact.product
        self._dense = cast("Callable[[Tensor], Tensor]", dense)
        self._plans: dict[Any, _Plan | None] = {}
        self._made: dict[Any, _Plan] = {}
        self._conv = module if isinstance(module, nn.Conv2d) else None
        self.images_innermost = images_innermost and self._conv is not None

    def __call__(self, input: Tensor) -> Tensor:  # noqa: A002  # torch's name, which callers may give
        """See the module's own forward."""
        x = input if self._compact is None else self._compact.join(input)
        # Under autocast too: outputs that are cast as those of dense layers would be cast back by the next sparse one.
        own = x.to(self.weight.dtype) if torch.is_autocast_enabled("cpu") else x
        plan = self._plan(own)
        if plan is None:
            return self._dense(x)
        bias = self.bias if self._compact is None else self._compact.bias()
        return cast(Tensor, _SparseProduct.apply(own, self.weight, bias, plan, self))

    def gradient(self, plan: _Plan, alone: bool) -> tuple[Tensor | None, Tensor, bool]:
        """Where the weight's gradient goes: what autograd is given, where to write, and whether to add.

        A gradient that autograd is given would be memory that is cleared anew in every step. Where nobody waits for it,
        as the processes of distributed training do, it is written to the parameter's own gradient: a tensor of the
        layer's, 0 where the weight is pruned as long as nobody else writes there.

        Args:
            plan: The plan of the pass.
            alone: Whether it is asked for by itself, as `torch.autograd.grad` does.
        """
        weight, self._last = self.weight, plan
        if alone or self._shared or weight._backward_hooks or weight._post_accumulate_grad_hooks:
            fresh = torch.zeros_like(weight)
            return fresh, fresh, False
        if weight.grad is not None:
            if weight.grad.stride() == weight.stride() and weight.grad.dtype is weight.dtype:
                return None, weight.grad, True
            fresh = torch.zeros_like(weight)
            return fresh, fresh, False
        own, version = self._gradient
        if own is None or own.stride() != weight.stride():
            own = torch.zeros_like(weight)
        elif own._version != version:
            own.zero_()
        self._gradient = own, own._version
        weight.grad = own
        pruned_model.note_masked_gradient(weight)
        return None, own, False

    def dense_gradients(self, g: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Gradients of input, weight and bias by operations of torch, for the output's gradient and the input."""
        conv, outward = self._conv, self._mask.shape[0]
        rows, columns = (None, None) if self._compact is None else (self._compact.rows, self._compact.columns)
        compact = self._compact is not None
        (weight,) = WeightParts.apply(self.weight, rows, columns) if compact else (self.weight,)
        d_bias: Tensor | None
        if conv is None:
            flat = g.reshape(-1, outward)
            d_x, d_weight, d_bias = g @ weight, flat.t() @ x.reshape(-1, x.shape[-1]), flat.sum(0)
        else:
            d_x, d_weight, d_bias = torch.ops.aten.convolution_backward(
                *(g, x, weight, [outward], conv.stride, conv.padding, conv.dilation, False, [0, 0], 1, [True] * 3)
            )
        d_weight = d_weight * self._mask.view(weight.shape)
        if compact:
            d_weight = spread_parts([d_weight], self.weight, rows, [columns])
        return d_x, d_weight, None if self.bias is None else d_bias

    def step(self, group: Mapping[str, Any], state: dict[Any, Any]) -> bool:
        """Takes the step of SGD with these settings and this state, where the gradient is the layer's alone.

        Returns:
            Whether it was taken.
        """
        weight, gradient, plan = self.weight, self.weight.grad, self._last
        if gradient is None or plan is None or not self._is_whole or not pruned_model.is_masked_gradient(weight):
            return False
        address, momentum = 0, group["momentum"]
        if momentum:
            own = state[weight]
            if own.get("momentum_buffer") is None:
                own["momentum_buffer"] = torch.zeros_like(weight)
            if own["momentum_buffer"].stride() != weight.stride():
                return False
            address = own["momentum_buffer"].data_ptr()
        kernels().sgd_step(
            weight.data_ptr(),
            gradient.data_ptr(),
            address,
            plan.index,
            len(plan.like),
            group["lr"],
            momentum,
            group["weight_decay"],
            group["nesterov"],
            plan.like,
        )
        torch.autograd.graph.increment_version(weight)
        weight.grad = None
        return True

    def __getstate__(self) -> dict[str, Any]:
        """What copies get: plans, which hold addresses, and memory they make for themselves."""
        return self.__dict__ | {"_plans": {}, "_made": {}, "_last": None, "_gradient": (None, 0)}

    def _plan(self, x: Tensor) -> _Plan | None:
        """The plan for these images; None where the layer's own forward is to be taken."""
        key = (x.shape, x.stride(), x.dtype, x.device.type, self.weight.stride())
        if key not in self._plans:
            nhwc = self._conv is not None and (_is_nhwc(x) or _is_nhwc(self.weight))
            self._plans[key] = self._make_plan(x, nhwc)
        return self._plans[key]

    def _make_plan(self, x: Tensor, nhwc: bool) -> _Plan | None:
        conv, weight = self._conv, self.weight
        expected = self._mask.shape[1]
        if x.device.type != "cpu" or x.dtype != weight.dtype or not x.numel() or (conv is not None and x.ndim != 4):
            return None
        if kernels() is None:
            return None
        size = (1, 1) if conv is None else (x.shape[2], x.shape[3])
        if x.shape[-1 if conv is None else 1] != expected:
            return None
        padding, dilation, stride = (0, 0), (1, 1), 1
        if conv is not None:
            padding, dilation = cast("tuple[int, int]", conv.padding), cast("tuple[int, int]", conv.dilation)
            stride = conv.stride[0]
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
        vectors = -(-needed // chunks) if chunks < 8 else most
        whole = count * x.element_size() % kernels().VECTOR_BYTES == 0 and needed <= kernels().MAX_TILE
        handed_on = self.images_innermost and whole
        given = handed_on and innermost.is_innermost(x)
        if handed_on:
            vectors = needed
        key = (size, x.dtype, nhwc, weight.stride(), vectors, given, handed_on)  # for many numbers of images
        if key not in self._made:
            self._made[key] = _Plan(
                self._mask,
                self._places,
                weight.stride(),
                size=size,
                padding=padding,
                stride=stride,
                dilation=dilation,
                nhwc=nhwc,
                vectors=vectors,
                dtype=x.dtype,
                innermost=(given, handed_on),
            )
        return self._made[key]


def _is_nhwc(tensor: Tensor) -> bool:
    """Whether torch takes a tensor for channels-last: by its strides alone, in which one channel has an order too."""
    least = 0
    for size, stride in ((tensor.shape[dim], tensor.stride(dim)) for dim in (1, 3, 2, 0) if tensor.ndim == 4):
        if stride < max(least, 1):
            return False
        least = stride * size
    return tensor.ndim == 4 and (tensor.shape[0] > 1 or tensor.stride(0) != tensor.stride(1))


class _SparseProduct(torch.autograd.Function):
    """The output of a layer from its input, and the gradients of both and of the weight, by kept weights only."""

    @staticmethod
    def forward(
        ctx: Any, given: Tensor, weight: Tensor, bias: Tensor | None, plan: _Plan, layer: _SparseLayer
    ) -> Tensor:
        """See `torch.nn.functional.linear` and `conv2d`."""
        if weight.ndim == 2:
            x = given.contiguous()
            count = x.numel() // plan.x_length
            y = torch.empty((*x.shape[:-1], plan.out_shape[0]), dtype=x.dtype)
        else:
            x = given if plan.innermost[0] else given.contiguous(memory_format=plan.format)
            count = x.shape[0]
            y = plan.empty(torch.Size((count, *plan.out_shape)), x.dtype)
        bare = plan.innermost[0] and plan.bare[0] and x.data_ptr() % kernels().VECTOR_BYTES == 0
        packed = x if bare else torch.empty(plan.numbers(count), dtype=x.dtype)
        kernels().forward(
            x.data_ptr(),
            count,
            packed.data_ptr(),
            weight.data_ptr(),
            0 if bias is None else bias.data_ptr(),
            y.data_ptr(),
            y.data_ptr() if plan.innermost[1] else _scratch.address(plan.y_bytes),
            *plan.forward,
        )
        ctx.save_for_backward(given, packed, weight, bias)
        ctx.plan, ctx.layer, ctx.shape, ctx.count = plan, layer, x.shape, count
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None]:
        """Gradients of input, weight and bias; the weight's is 0 where it is pruned."""
        plan, count = cast(_Plan, ctx.plan), ctx.count
        x, packed, weight, bias = ctx.saved_tensors
        if torch.is_grad_enabled():  # second derivatives are asked for, which torch's kernels have
            return *ctx.layer.dense_gradients(g, x), None, None
        wants_x, wants_weight, wants_bias = ctx.needs_input_grad[:3]
        alone = False
        if wants_weight:
            try:
                # `torch.autograd.grad` of something else must not leave anything in the weight's own gradient.
                wants_weight = torch._C._will_engine_execute_node(ctx.next_functions[1][0])
            except RuntimeError:  # torch tells of no leaf whose gradient is asked for by itself
                alone = True
        if weight.ndim == 2:
            g = g.contiguous()
            d_x = torch.empty(ctx.shape, dtype=g.dtype) if wants_x else None
        else:
            g = innermost.to_innermost(g) if plan.innermost[1] else g.contiguous(memory_format=plan.format)
            d_x = plan.empty(ctx.shape, g.dtype) if wants_x else None
        d_bias = torch.empty_like(bias) if wants_bias else None
        returned, gradient, adding = ctx.layer.gradient(plan, alone) if wants_weight else (None, None, False)
        size, more = plan.gradient_bytes(count)
        memory = _scratch.address(size + more)
        bare = plan.innermost[1] and plan.bare[1] and g.data_ptr() % kernels().VECTOR_BYTES == 0
        kernels().backward(
            g.data_ptr(),
            count,
            packed.data_ptr(),
            g.data_ptr() if bare else memory,
            plan.values,
            0 if gradient is None else gradient.data_ptr(),
            int(adding),
            0 if d_bias is None else d_bias.data_ptr(),
            0 if d_x is None else d_x.data_ptr(),
            memory + size,
            *plan.backward,
        )
        return d_x, returned, d_bias, None, None
