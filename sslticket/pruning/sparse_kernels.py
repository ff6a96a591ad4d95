"""Products of sparse layers on a CPU, forward and backward, of kept weights only.

A layer's images are packed so that those of a chunk lie innermost: a kept weight of a convolution then multiplies whole
vectors, one for each pixel of a tile, at a place that is the same for all of them. The tile's sums stay in registers
while all kept weights of an output channel pass, so each product costs what it costs in a dense layer. The input's
gradient is the same kernel with the layer turned round; the weights' gradient is one dot product for each kept weight.

What must stay in registers is written in LLVM's terms and compiled for the distances of one layer, in a few hundredths
of a second; the loops around it are numba's, which keeps them on disk. Whoever imports this module needs numba. Sums go
by chunk, tile and kept weight in a fixed order.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import llvmlite.binding as llvm
import llvmlite.ir as ir
import numba
import numpy as np
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from sslticket.storage.files import save_if_possible

VECTOR_BYTES = 64 if llvm.get_host_cpu_features().get("avx512f", False) else 32
"""Bytes of the vectors that kernels work with: of AVX-512, or else of AVX; LLVM splits them where a CPU has less."""
MAX_TILE = 16 if VECTOR_BYTES == 64 else 8
"""Vectors of sums that stay in registers."""

_INT, _INDEX = ir.IntType(64), ir.IntType(32)
_DTYPES = {4: ir.FloatType(), 8: ir.DoubleType()}


@dataclass(frozen=True, kw_only=True)
class Tile:
    """The pixels and vectors of images for which sums are in registers together, and where they lie.

    Attributes:
        size: Bytes of a number: 4 or 8.
        rows: Rows of pixels.
        columns: Columns of pixels.
        vectors: Vectors of images, of each pixel.
        x_row: Bytes between rows of what is multiplied.
        x_column: Bytes between its columns.
        y_row: Bytes between rows of the sums, or of the output's gradient.
        y_column: Bytes between their columns.
    """

    size: int
    rows: int
    columns: int
    vectors: int
    x_row: int
    x_column: int
    y_row: int
    y_column: int

    def x_places(self) -> list[int]:
        """Distances of the vectors that are multiplied from the first, in bytes."""
        return self._places(self.x_row, self.x_column)

    def y_places(self) -> list[int]:
        """Distances of the vectors of the output or its gradient from the first, in bytes."""
        return self._places(self.y_row, self.y_column)

    def _places(self, row: int, column: int) -> list[int]:
        return [
            r * row + c * column + v * VECTOR_BYTES
            for r in range(self.rows)
            for c in range(self.columns)
            for v in range(self.vectors)
        ]


class _Code:
    """A function in LLVM's terms: its builder, its arguments, and what kernels need of loads and loops.

    Args:
        module: The module that it becomes part of.
        name: Its name.
        size: Bytes of a number.
        arguments: Number of arguments: addresses and counts.
    """

    def __init__(self, module: Any, name: str, size: int, arguments: int) -> None:
        self.element, self.size = _DTYPES[size], size
        self.lanes = VECTOR_BYTES // size
        self.kind = ir.VectorType(self.element, self.lanes)
        self.zero = ir.Constant(self.kind, [0.0] * self.lanes)
        self.function = ir.Function(module, ir.FunctionType(ir.VoidType(), [_INT] * arguments), name)
        self.builder = ir.IRBuilder(self.function.append_basic_block("entry"))
        self.arguments = self.function.args

    def at(self, address: Any, distance: Any, times: int = 1) -> Any:
        """The address so many times further."""
        distance = ir.Constant(_INT, distance) if isinstance(distance, int) else distance
        distance = self.builder.mul(distance, ir.Constant(_INT, times)) if times != 1 else distance
        return self.builder.add(address, distance)

    def load(self, address: Any, kind: Any = None, align: int | None = None) -> Any:
        """A vector, or something else, from an address."""
        kind = self.kind if kind is None else kind
        loaded = self.builder.load(self.builder.inttoptr(address, kind.as_pointer()))
        loaded.align = align or VECTOR_BYTES
        return loaded

    def index(self, table: Any, number: Any) -> Any:
        """A distance in bytes, from a table of distances in numbers."""
        return self.builder.mul(
            self.builder.sext(self.load(self.at(table, number, 4), _INDEX, 4), _INT), ir.Constant(_INT, self.size)
        )

    def store(self, value: Any, address: Any, align: int | None = None) -> None:
        """Writes a vector to an address."""
        stored = self.builder.store(value, self.builder.inttoptr(address, value.type.as_pointer()))
        stored.align = align or VECTOR_BYTES

    def splat(self, address: Any) -> Any:
        """A vector of one number that lies at an address."""
        value = self.load(address, self.element, self.size)
        undefined = ir.Constant(self.kind, ir.Undefined)
        one = self.builder.insert_element(undefined, value, ir.Constant(_INDEX, 0))
        return self.builder.shuffle_vector(
            one, undefined, ir.Constant(ir.VectorType(_INDEX, self.lanes), [0] * self.lanes)
        )

    def fma(self, a: Any, b: Any, c: Any) -> Any:
        """A times b plus c, rounded once."""
        name = f"llvm.fma.v{self.lanes}{self.element.intrinsic_name}"
        kind = ir.FunctionType(self.kind, [self.kind] * 3)
        return self.builder.call(cgutils.get_or_insert_function(self.builder.module, kind, name), [a, b, c])

    def loop(
        self, first: Any, last: Any, step: int, carried: list[Any], body: Callable[[Any, list[Any]], list[Any]]
    ) -> list[Any]:
        """What is carried through all numbers from first to last, by a body of (number, carried) -> carried."""
        builder, before = self.builder, self.builder.block
        head, inside, after = (self.function.append_basic_block() for _ in range(3))
        builder.branch(head)
        builder.position_at_end(head)
        number, phis = builder.phi(_INT), [builder.phi(value.type) for value in carried]
        builder.cbranch(builder.icmp_signed("<", number, last), inside, after)
        builder.position_at_end(inside)
        following = [builder.add(number, ir.Constant(_INT, step)), *body(number, phis)]
        for phi, start, end in zip([number, *phis], [first, *carried], following, strict=True):
            phi.add_incoming(start, before)
            phi.add_incoming(end, builder.block)
        builder.branch(head)
        builder.position_at_end(after)
        return phis


def _write_sums(module: Any, tile: Tile) -> None:
    """(x, y, values, places, first, last, start): start + sum of value * x at its place, for each vector, to y."""
    code = _Code(module, "sums", tile.size, 7)
    x, y, values, places, first, last, start = code.arguments
    sums = [code.splat(start)] * len(tile.x_places())

    def body(number: Any, sums: list[Any]) -> list[Any]:
        value = code.splat(code.at(values, number, tile.size))
        here = code.at(x, code.index(places, number))
        return [
            code.fma(value, code.load(code.at(here, place)), total)
            for place, total in zip(tile.x_places(), sums, strict=True)
        ]

    for place, total in zip(tile.y_places(), code.loop(first, last, 1, sums, body), strict=True):
        code.store(total, code.at(y, place))
    code.builder.ret_void()


def _write_dots(module: Any, tile: Tile) -> None:
    """(x, g, sums, places, first, last): adds g times x at each place to the vector of this place's sums."""
    code = _Code(module, "dots", tile.size, 6)
    x, g, sums, places, first, last = code.arguments
    gradients = [code.load(code.at(g, place)) for place in tile.y_places()]

    def body(number: Any, _: list[Any]) -> list[Any]:
        here, own = code.at(x, code.index(places, number)), code.at(sums, number, VECTOR_BYTES)
        # Two sums, since each waits for the one before it.
        halves = [code.load(own), code.zero]
        for turn, (place, gradient) in enumerate(zip(tile.x_places(), gradients, strict=True)):
            halves[turn % 2] = code.fma(gradient, code.load(code.at(here, place)), halves[turn % 2])
        code.store(code.builder.fadd(*halves), own)
        return []

    code.loop(first, last, 1, [], body)
    code.builder.ret_void()


def _write_sum_up(module: Any, size: int) -> None:
    """(sums, count, index, gradient, adding): the sum of each vector to its place, or added to what is there."""
    code = _Code(module, "sum_up", size, 5)
    sums, count, index, gradient, adding = code.arguments
    builder = code.builder
    added = builder.icmp_signed("!=", adding, ir.Constant(_INT, 0))
    undefined = ir.Constant(code.kind, ir.Undefined)

    def body(number: Any, _: list[Any]) -> list[Any]:
        value = code.load(code.at(sums, number, VECTOR_BYTES))
        step = code.lanes // 2
        while step:
            lanes = [(lane + step) % code.lanes for lane in range(code.lanes)]
            turned = builder.shuffle_vector(value, undefined, ir.Constant(ir.VectorType(_INDEX, code.lanes), lanes))
            value = builder.fadd(value, turned)
            step //= 2
        entry = code.at(gradient, code.load(code.at(index, number, 8), _INT, 8), size)
        before = builder.select(added, code.load(entry, code.element, size), ir.Constant(code.element, 0.0))
        code.store(builder.fadd(before, builder.extract_element(value, ir.Constant(_INDEX, 0))), entry, size)
        return []

    code.loop(ir.Constant(_INT, 0), count, 1, [], body)
    builder.ret_void()


def _write_total(module: Any, tile: Tile) -> None:
    """(g, total): adds the vectors of a tile of the output's gradient to one."""
    code = _Code(module, "total", tile.size, 2)
    g, total = code.arguments
    value = code.load(total)
    for place in tile.y_places():
        value = code.builder.fadd(value, code.load(code.at(g, place)))
    code.store(value, total)
    code.builder.ret_void()


def _transposed(code: _Code, vectors: Sequence[Any]) -> list[Any]:
    """The transpose of a square of vectors, by exchanging ever smaller blocks."""
    count, found = len(vectors), list(vectors)
    step = count // 2
    while step:
        for i in (i for i in range(count) if not i & step):
            a, b = found[i], found[i + step]
            low = [j if not j & step else count + j - step for j in range(count)]
            high = [j + step if not j & step else count + j for j in range(count)]
            for place, lanes in ((i, low), (i + step, high)):
                found[place] = code.builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(_INDEX, count), lanes))
        step //= 2
    return found


def _write_pack(module: Any, size: int) -> None:
    """(images, image, count, packed, table, first, last): a lane's images to vectors, from element first to last.

    Images lie `image` bytes apart; lanes from `count` on become 0.
    """
    code = _Code(module, "pack", size, 7)
    images, image, count, packed, table, first, last = code.arguments
    builder = code.builder
    there = [builder.icmp_signed("<", ir.Constant(_INT, lane), count) for lane in range(code.lanes)]
    starts = [
        builder.select(here, code.at(images, image, lane), images) if lane else images
        for lane, here in enumerate(there)
    ]

    def body(number: Any, _: list[Any]) -> list[Any]:
        rows = [
            builder.select(here, code.load(code.at(start, number, size), align=size), code.zero)
            for here, start in zip(there, starts, strict=True)
        ]
        for element, vector in enumerate(_transposed(code, rows)):
            code.store(vector, code.at(packed, code.index(table, code.at(number, element))))
        return []

    # A square is read whole: `last` is at its end or behind it.
    code.loop(first, last, code.lanes, [], body)
    builder.ret_void()


def _write_unpack(module: Any, size: int) -> None:
    """(images, image, count, packed, table, first, last): the reverse of packing."""
    code = _Code(module, "unpack", size, 7)
    images, image, count, packed, table, first, last = code.arguments
    builder = code.builder

    def body(number: Any, _: list[Any]) -> list[Any]:
        columns = [
            code.load(code.at(packed, code.index(table, code.at(number, element)))) for element in range(code.lanes)
        ]
        for lane, vector in enumerate(_transposed(code, columns)):
            with builder.if_then(builder.icmp_signed("<", ir.Constant(_INT, lane), count), likely=True):
                code.store(vector, code.at(code.at(images, image, lane), number, size), size)
        return []

    code.loop(first, last, code.lanes, [], body)
    builder.ret_void()


class _Machine:
    """This CPU for LLVM, and what was compiled for it: code lives as long as its engine."""

    def __init__(self) -> None:
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        self.engines: list[Any] = []

    def compile(self, module: Any, *names: str) -> tuple[int, ...]:
        """Addresses of a module's functions."""
        features = llvm.get_host_cpu_features().flatten()
        target = llvm.Target.from_default_triple().create_target_machine(
            cpu=llvm.get_host_cpu_name(), features=features, opt=3
        )
        engine = llvm.create_mcjit_compiler(llvm.parse_assembly(str(module)), target)
        engine.finalize_object()
        self.engines.append(engine)
        return tuple(engine.get_function_address(name) for name in names)


@cache
def _machine() -> _Machine:
    return _Machine()


@cache
def sums_kernel(tile: Tile) -> int:
    """Address of a tile's sums."""
    module = ir.Module()
    _write_sums(module, tile)
    return _machine().compile(module, "sums")[0]


@cache
def gradient_kernels(tile: Tile) -> tuple[int, int]:
    """Addresses of a tile's dot products and of its total."""
    module = ir.Module()
    _write_dots(module, tile)
    _write_total(module, tile)
    dots, total = _machine().compile(module, "dots", "total")
    return dots, total


@cache
def vector_kernels(size: int) -> tuple[int, int, int]:
    """Addresses of what packs and unpacks vectors of numbers of so many bytes, and of what sums their lanes up."""
    module = ir.Module()
    _write_pack(module, size)
    _write_unpack(module, size)
    _write_sum_up(module, size)
    pack, unpack, sum_up = _machine().compile(module, "pack", "unpack", "sum_up")
    return pack, unpack, sum_up


@intrinsic  # type: ignore[untyped-decorator]
def _call(typing: Any, function: Any, arguments: Any) -> Any:
    """Calls the kernel at an address with a tuple of addresses and counts."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        given = [builder.extract_value(args[1], number) for number in range(arguments.count)]
        kind = ir.FunctionType(ir.VoidType(), [_INT] * len(given))
        builder.call(builder.inttoptr(args[0], kind.as_pointer()), given)
        return context.get_dummy_value()

    return types.void(function, arguments), generate


@intrinsic  # type: ignore[untyped-decorator]
def _get(typing: Any, address: Any, like: Any) -> Any:
    """The number at an address, of an array's type."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load(builder.inttoptr(args[0], _DTYPES[like.dtype.bitwidth // 8].as_pointer()))

    return like.dtype(address, like), generate


@intrinsic  # type: ignore[untyped-decorator]
def _put(typing: Any, address: Any, value: Any, like: Any) -> Any:
    """Writes a number of an array's type to an address."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.store(args[1], builder.inttoptr(args[0], _DTYPES[like.dtype.bitwidth // 8].as_pointer()))
        return context.get_dummy_value()

    return types.void(address, like.dtype, like), generate


@intrinsic  # type: ignore[untyped-decorator]
def _whole(typing: Any, table: Any, number: Any) -> Any:
    """A whole number of a table of those of 64 bits, at an address."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load(builder.gep(builder.inttoptr(args[0], _INT.as_pointer()), [args[1]]))

    return types.int64(table, types.int64), generate


@intrinsic  # type: ignore[untyped-decorator]
def _place(typing: Any, table: Any, number: Any) -> Any:
    """A whole number of a table of those of 32 bits, at an address."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        found = builder.load(builder.gep(builder.inttoptr(args[0], _INDEX.as_pointer()), [args[1]]))
        return builder.sext(found, _INT)

    return types.int64(table, types.int64), generate


@intrinsic  # type: ignore[untyped-decorator]
def _clear(typing: Any, address: Any, count: Any) -> Any:
    """Writes so many bytes of 0."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        byte = ir.IntType(8)
        clear = builder.module.declare_intrinsic("llvm.memset", [byte.as_pointer(), _INT])
        where = builder.inttoptr(args[0], byte.as_pointer())
        builder.call(clear, [where, ir.Constant(byte, 0), args[1], ir.Constant(ir.IntType(1), 0)])
        return context.get_dummy_value()

    return types.void(address, count), generate


@intrinsic  # type: ignore[untyped-decorator]
def _copy(typing: Any, target: Any, source: Any, count: Any) -> Any:
    """Copies so many bytes."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        byte = ir.IntType(8).as_pointer()
        copy = builder.module.declare_intrinsic("llvm.memcpy", [byte, byte, _INT])
        target, source = (builder.inttoptr(address, byte) for address in args[:2])
        builder.call(copy, [target, source, args[2], ir.Constant(ir.IntType(1), 0)])
        return context.get_dummy_value()

    return types.void(target, source, count), generate


@intrinsic  # type: ignore[untyped-decorator]
def _numbers(typing: Any, address: Any, like: Any) -> Any:
    """A pointer to numbers of an array's type, of which `numba.carray` makes an array."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], _DTYPES[like.dtype.bitwidth // 8].as_pointer())

    return types.CPointer(like.dtype)(address, like), generate


def _compiled(function: Callable[..., Any], **options: Any) -> Any:
    # Under a user's name for the CPU, machines with vectors of other lengths would take each other's code.
    cache = numba.config.CPU_NAME is None and numba.config.CPU_FEATURES is None
    try:
        made = numba.njit(cache=cache, nogil=True, **options)(function)
        return save_if_possible(made) if cache else made
    except RuntimeError:  # no folder in which compiled code could be kept
        return numba.njit(nogil=True, **options)(function)


@_compiled
def _clear_border(packed, planes, geometry, pixel):  # type: ignore[no-untyped-def]
    """Writes 0 around the images of packed planes."""
    _, height, width, top, left, rows, columns = geometry
    row = width * pixel
    for plane in range(planes):
        start = packed + plane * height * row
        if top:
            _clear(start, top * row)
        for number in range(top, top + rows):
            if left:
                _clear(start + number * row, left * pixel)
            if left + columns < width:
                _clear(start + number * row + (left + columns) * pixel, (width - left - columns) * pixel)
        if top + rows < height:
            _clear(start + (top + rows) * row, (height - top - rows) * row)


@_compiled
def _pack(kernel, images, count, packed, geometry, table, pixel, like):  # type: ignore[no-untyped-def]
    """Packs a batch, with borders of 0."""
    channels, height, width, _, _, rows, columns = geometry
    size, vectors, length = like.itemsize, pixel // VECTOR_BYTES, channels * rows * columns
    lanes, image = VECTOR_BYTES // size, length * size
    chunks = (count + lanes * vectors - 1) // (lanes * vectors)
    if rows < height or columns < width:
        _clear_border(packed, chunks * channels, geometry, pixel)
    squares = length // lanes * lanes
    for vector in range(chunks * vectors):
        number = vector * lanes
        there = min(max(count - number, 0), lanes)
        source = images + min(number, count - 1) * image
        target = packed + (vector // vectors * channels * height * width * vectors + vector % vectors) * VECTOR_BYTES
        _call(kernel, (source, image, there, target, table, 0, squares))
        if squares < length and length >= lanes:
            _call(kernel, (source, image, there, target, table, length - lanes, length))
        elif squares < length:
            for place in range(length):
                for lane in range(lanes):
                    value = _get(source + lane * image + place * size, like) if lane < there else like.dtype.type(0)
                    _put(target + (_place(table, place) + lane) * size, value, like)


@_compiled
def _frame(images, packed, geometry, pixel):  # type: ignore[no-untyped-def]
    """Packs a batch whose images lie innermost already: rows are copied, with borders of 0."""
    channels, height, width, top, left, rows, columns = geometry
    _clear_border(packed, channels, geometry, pixel)
    for channel in range(channels):
        for row in range(rows):
            target = packed + ((channel * height + top + row) * width + left) * pixel
            _copy(target, images + (channel * rows + row) * columns * pixel, columns * pixel)


@_compiled
def _unpack(kernel, images, count, packed, chunk, length, table, pixel, like):  # type: ignore[no-untyped-def]
    """Writes one packed chunk to its images."""
    size, vectors = like.itemsize, pixel // VECTOR_BYTES
    lanes, image = VECTOR_BYTES // size, length * size
    squares = length // lanes * lanes
    for vector in range(vectors):
        number = (chunk * vectors + vector) * lanes
        there = min(count - number, lanes)
        if there <= 0:
            break
        target = images + number * image
        source = packed + vector * VECTOR_BYTES
        _call(kernel, (target, image, there, source, table, 0, squares))
        if squares < length and length >= lanes:
            _call(kernel, (target, image, there, source, table, length - lanes, length))
        elif squares < length:
            for place in range(length):
                for lane in range(there):
                    value = _get(source + (_place(table, place) + lane) * size, like)
                    _put(target + lane * image + place * size, value, like)


@_compiled
def _products(packed, count, weight, bias, images, chunk_memory, side, pixel, like):  # type: ignore[no-untyped-def]
    """What `side` says from a packed batch, see `Side`."""
    kernel, unpacking, geometry, kept, places, (index, starts, values), out, table, (rows, columns, step) = side
    size, row = like.itemsize, geometry[2] * pixel
    channels, height, width, apart = out
    nothing = np.zeros(1, like.dtype)
    none = np.int64(nothing.ctypes.data)
    for number in range(kept):
        _put(values + number * size, _get(weight + _whole(index, number) * size, like), like)
    for chunk in range((count * size + pixel - 1) // pixel):
        batch = packed + chunk * geometry[0] * geometry[1] * row
        for phase in range(apart * apart):
            corner = chunk_memory + ((phase // apart) * width + phase % apart) * pixel
            first = phase * channels
            for top in range(0, height // apart, rows):
                for left in range(0, width // apart, columns):
                    x = batch + top * step * row + left * step * pixel
                    y = corner + (top * width + left) * apart * pixel
                    begin = _whole(starts, first)
                    for channel in range(channels):
                        end = _whole(starts, first + channel + 1)
                        start = bias + channel * size if bias else none
                        _call(kernel, (x, y, values, places, begin, end, start))
                        y += height * width * pixel
                        begin = end
        if unpacking:
            _unpack(unpacking, images, count, chunk_memory, chunk, channels * height * width, table, pixel, like)


@_compiled
def forward(x, count, packed, weight, bias, y, memory, packing, side, pixel, like):  # type: ignore[no-untyped-def]
    """The output of a layer.

    Args:
        x: Address of the batch, whose images lie one behind another.
        count: Number of images.
        packed: Address of memory for the packed batch: chunks of channels of rows of pixels of images.
        weight: Address of the dense weight.
        bias: Address of a number for each output channel; 0 for none.
        y: Address of the output's images.
        memory: Address of memory for a packed chunk of the output; of the output itself where its images lie innermost.
        packing: Address of the kernel that packs, and of the place of each number of an image in the first chunk. A
            kernel of 0 says that images lie innermost already, and that they are all of one chunk.
        side: What is computed, see `sslticket.pruning.sparse_layers`.
        pixel: Bytes of a pixel of a chunk.
        like: An array of the numbers' type.
    """
    if packing[0]:
        _pack(packing[0], x, count, packed, side[2], packing[1], pixel, like)
    elif x != packed:
        _frame(x, packed, side[2], pixel)
    _products(packed, count, weight, bias, y, memory, side, pixel, like)


@_compiled
def backward(  # type: ignore[no-untyped-def]
    g,
    count,
    x,
    packed,
    weight,
    d_weight,
    adding,
    d_bias,
    d_x,
    memory,
    packing,
    x_geometry,
    tile,
    side,
    back,
    pixel,
    like,
):
    """The gradients of a layer.

    Args:
        g: Address of the output's gradient.
        count: Number of images.
        x: Address of the packed batch.
        packed: Address of memory for the packed gradient.
        weight: Address of the kept weights as they were forward.
        d_weight: Address of its dense gradient, of which only kept entries are touched; 0 where it is not wanted.
        adding: 1 where gradients of kept entries are added to what is there, 0 where they take its place.
        d_bias: Address of the bias's gradient; 0 where it is not wanted.
        d_x: Address of the input's gradient; 0 where it is not wanted.
        memory: Address of memory for a packed chunk of it, or for a vector for each kept weight and one more.
        packing: As for `forward`, for the gradient.
        x_geometry: Geometry of the packed batch.
        tile: Addresses of the kernels of a tile's dot products and total, and of the one that sums lanes up.
        side: As for `forward`.
        back: The same for the input's gradient.
        pixel: As for `forward`.
        like: As for `forward`.
    """
    if packing[0]:
        _pack(packing[0], g, count, packed, back[2], packing[1], pixel, like)
    elif g != packed:
        _frame(g, packed, back[2], pixel)
    size = like.itemsize
    nothing = np.zeros(1, np.int64)
    none = np.int64(nothing.ctypes.data)
    _, _, _, kept, places, (index, starts, _), _, _, (rows, columns, step) = side
    x_row, g_row = x_geometry[2] * pixel, back[2][2] * pixel
    channels, g_tall, _, g_top, g_left, height, width = back[2]
    plane = g_tall * g_row
    inner = packed + g_top * g_row + g_left * pixel
    chunks = (count * size + pixel - 1) // pixel
    if d_weight:
        _clear(memory, kept * VECTOR_BYTES)
        for chunk in range(chunks):
            for top in range(0, height, rows):
                for left in range(0, width, columns):
                    at = x + (chunk * x_geometry[0] * x_geometry[1] + top * step) * x_row + left * step * pixel
                    here = inner + chunk * channels * plane + top * g_row + left * pixel
                    begin = _whole(starts, 0)
                    for channel in range(channels):
                        end = _whole(starts, channel + 1)
                        if begin < end:
                            _call(tile[0], (at, here, memory, places, begin, end))
                        here += plane
                        begin = end
        _call(tile[2], (memory, kept, index, d_weight, adding))
    if d_bias:
        for channel in range(channels):
            _clear(memory, VECTOR_BYTES)
            for chunk in range(chunks):
                for top in range(0, height, rows):
                    for left in range(0, width, columns):
                        here = inner + (chunk * channels + channel) * plane + top * g_row + left * pixel
                        _call(tile[1], (here, memory))
            _call(tile[2], (memory, 1, none, d_bias + channel * size, 0))
    if d_x:
        # Where images lie innermost, nothing is unpacked.
        _products(packed, count, weight, 0, d_x, memory if back[1] else d_x, back, pixel, like)


@_compiled
def sgd_step(weight, gradient, buffer, index, kept, rate, momentum, decay, nesterov, like):  # type: ignore[no-untyped-def]
    """One step of SGD for kept weights.

    Args:
        weight: Address of the dense weight.
        gradient: Address of its dense gradient.
        buffer: Address of the dense running sum of gradients; 0 without momentum.
        index: Address of the places of the kept weights.
        kept: Number of the kept weights.
        rate: The learning rate.
        momentum: Factor of the running sum.
        decay: Factor of the L2 penalty.
        nesterov: Whether the gradient is looked up behind the step.
        like: An array of the numbers' type.
    """
    rate, momentum, decay = like.dtype.type(rate), like.dtype.type(momentum), like.dtype.type(decay)
    for number in range(kept):
        at = _whole(index, number) * like.itemsize
        value = _get(weight + at, like)
        change = _get(gradient + at, like) + decay * value
        if buffer:
            total = momentum * _get(buffer + at, like) + change
            _put(buffer + at, total, like)
            change = change + momentum * total if nesterov else total
        _put(weight + at, value - rate * change, like)


_BLOCK = 4096  # numbers that are summed up in their own type; sums of blocks are in float64


@partial(_compiled, fastmath={"reassoc", "contract", "nsz"})  # else no sum is computed in vectors
def _norm_sums(x, g, mean, gradient):  # type: ignore[no-untyped-def]
    """Sums over a channel: of x, and of squares of x less its mean; or, with a gradient, of g and of g times that."""
    first, second = 0.0, 0.0
    for start in range(0, len(x), _BLOCK):
        part, other = x[start : start + _BLOCK], g[start : start + _BLOCK]
        one, two = x.dtype.type(0), x.dtype.type(0)
        if gradient:
            for number in range(len(part)):
                one += other[number]
                two += other[number] * (part[number] - mean)
        else:
            for number in range(len(part)):
                one += part[number]
                two += (part[number] - mean) * (part[number] - mean)
        first += one
        second += two
    return first, second


@_compiled
def norm_forward(x, y, channels, plane, weight, bias, used, moving, factor, eps, like):  # type: ignore[no-untyped-def]
    """Batch norm of images that lie innermost, so that each channel is one run of numbers.

    Args:
        x: Address of the input.
        y: Address of the output.
        channels: Number of channels.
        plane: Numbers of each.
        weight: Address of the channels' factors.
        bias: Address of what is added.
        used: Address of the means, and behind them of the reciprocal standard deviations, that are used.
        moving: Addresses of the running means and variances, which are used where `factor` is negative.
        factor: By which running statistics move to those of this batch.
        eps: Added to variances.
        like: An array of the numbers' type.
    """
    size, kind = like.itemsize, like.dtype.type
    means, variances = moving
    for channel in range(channels):
        at = channel * size
        values = numba.carray(_numbers(x + at * plane, like), plane)
        result = numba.carray(_numbers(y + at * plane, like), plane)
        if factor < 0:
            mean, variance = np.float64(_get(means + at, like)), np.float64(_get(variances + at, like))
        else:
            total, _ = _norm_sums(values, values, kind(0), False)
            mean = total / plane
            _, squares = _norm_sums(values, values, kind(mean), False)
            variance = squares / plane
            unbiased = squares / max(plane - 1, 1)
            _put(means + at, kind(factor * mean + (1 - factor) * _get(means + at, like)), like)
            _put(variances + at, kind(factor * unbiased + (1 - factor) * _get(variances + at, like)), like)
        inverse = 1 / np.sqrt(variance + eps)
        _put(used + at, kind(mean), like)
        _put(used + channels * size + at, kind(inverse), like)
        scale = inverse * _get(weight + at, like)
        slope, shift = kind(scale), kind(_get(bias + at, like) - mean * scale)
        for number in range(plane):
            result[number] = values[number] * slope + shift


@_compiled
def norm_backward(x, g, d_x, channels, plane, weight, used, d_weight, d_bias, batch, like):  # type: ignore[no-untyped-def]
    """The gradients of `norm_forward`.

    Args:
        x: Address of the input.
        g: Address of the output's gradient.
        d_x: Address of the input's gradient; 0 where it is not wanted.
        channels: As for `norm_forward`.
        plane: As for `norm_forward`.
        weight: As for `norm_forward`.
        used: As for `norm_forward`.
        d_weight: Address of the factors' gradients.
        d_bias: Address of the gradients of what is added.
        batch: Whether the batch's own statistics were used.
        like: As for `norm_forward`.
    """
    size, kind = like.itemsize, like.dtype.type
    for channel in range(channels):
        at = channel * size
        values = numba.carray(_numbers(x + at * plane, like), plane)
        slopes = numba.carray(_numbers(g + at * plane, like), plane)
        mean, inverse = _get(used + at, like), np.float64(_get(used + channels * size + at, like))
        total, product = _norm_sums(values, slopes, mean, True)
        _put(d_weight + at, kind(product * inverse), like)
        _put(d_bias + at, kind(total), like)
        if d_x:
            result = numba.carray(_numbers(d_x + at * plane, like), plane)
            scale = inverse * _get(weight + at, like)
            factor = kind(scale)
            # scale * (g - total / n - (x - mean) * inverse**2 * product / n), as one product and one sum of each number
            slope = kind(-scale * inverse * inverse * product / plane if batch else 0.0)
            shift = kind(-scale * total / plane if batch else 0.0)
            for number in range(plane):
                result[number] = slopes[number] * factor + ((values[number] - mean) * slope + shift)
