"""Products of sparse layers on a CPU, forward and backward, of kept weights only.

A layer's images are packed so that those of a chunk lie innermost: a kept weight of a convolution then multiplies whole
vectors, one for each pixel of a tile, at a place that is the same for all of them. The tile's sums stay in registers
while all kept weights of an output channel pass, so each product costs what it costs in a dense layer. The input's
gradient is the same kernel with the layer turned round; the weights' gradient is one dot product for each kept weight.

Numba compiles this; whoever imports the module needs it. Sums go by chunk, tile and kept weight in a fixed order.
"""

from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
import llvmlite.ir as ir
import numba
import numpy as np
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

VECTOR_BYTES = 64 if llvm.get_host_cpu_features().get("avx512f", False) else 32
"""Bytes of the vectors that kernels work with: of AVX-512, or else of AVX; LLVM splits them where a CPU has less."""
MAX_TILE = 16 if VECTOR_BYTES == 64 else 8
"""Vectors of sums that stay in registers."""

_INT = ir.IntType(64)
_INDEX = ir.IntType(32)


def _element(kind: Any) -> Any:
    """LLVM's type of the elements of a numba array."""
    return ir.FloatType() if kind.dtype == types.float32 else ir.DoubleType()


def _vector(element: Any) -> Any:
    size = 4 if isinstance(element, ir.FloatType) else 8
    return ir.VectorType(element, VECTOR_BYTES // size)


def _pointer(builder: Any, address: Any, kind: Any) -> Any:
    return builder.inttoptr(address, kind.as_pointer())


def _load(builder: Any, address: Any, kind: Any, align: int | None = None) -> Any:
    loaded = builder.load(_pointer(builder, address, kind))
    loaded.align = VECTOR_BYTES if align is None else align
    return loaded


def _store(builder: Any, value: Any, address: Any, align: int | None = None) -> None:
    stored = builder.store(value, _pointer(builder, address, value.type))
    stored.align = VECTOR_BYTES if align is None else align


def _fma(builder: Any, a: Any, b: Any, c: Any) -> Any:
    name = f"llvm.fma.v{a.type.count}{a.type.element.intrinsic_name}"
    function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(a.type, [a.type] * 3), name)
    return builder.call(function, [a, b, c])


def _splat(builder: Any, value: Any, kind: Any) -> Any:
    one = builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.Constant(_INDEX, 0))
    zeros = ir.Constant(ir.VectorType(_INDEX, kind.count), [0] * kind.count)
    return builder.shuffle_vector(one, ir.Constant(kind, ir.Undefined), zeros)


class _Loop:
    """A loop over kept weights in LLVM's terms, with vectors that it carries."""

    def __init__(self, builder: Any, first: Any, last: Any, carried: list[Any]) -> None:
        self.builder = builder
        self._before = builder.block
        self._head = builder.append_basic_block("head")
        self._body = builder.append_basic_block("body")
        self._after = builder.append_basic_block("after")
        builder.branch(self._head)
        builder.position_at_end(self._head)
        self.number = builder.phi(_INT)
        self.number.add_incoming(first, self._before)
        self.carried = [builder.phi(value.type) for value in carried]
        for phi, value in zip(self.carried, carried, strict=True):
            phi.add_incoming(value, self._before)
        builder.cbranch(builder.icmp_signed("<", self.number, last), self._body, self._after)
        builder.position_at_end(self._body)

    def close(self, carried: list[Any]) -> None:
        builder = self.builder
        following = builder.add(self.number, ir.Constant(_INT, 1))
        self.number.add_incoming(following, builder.block)
        for phi, value in zip(self.carried, carried, strict=True):
            phi.add_incoming(value, builder.block)
        builder.branch(self._head)
        builder.position_at_end(self._after)


def _places(builder: Any, address: Any, row: Any, column: Any, tile: tuple[int, int, int]) -> list[Any]:
    """Addresses of the vectors of a tile of (rows, columns, vectors of a pixel); strides are in bytes."""
    found = []
    for r in range(tile[0]):
        at_row = builder.add(address, builder.mul(row, ir.Constant(_INT, r)))
        for c in range(tile[1]):
            at = builder.add(at_row, builder.mul(column, ir.Constant(_INT, c)))
            found += [builder.add(at, ir.Constant(_INT, v * VECTOR_BYTES)) for v in range(tile[2])]
    return found


def _sizes(*tuples: Any) -> tuple[int, ...]:
    return tuple(each.count for each in tuples)


@intrinsic
def _tile_sums(
    typing: Any, x: Any, x_row: Any, y: Any, y_row: Any, y_column: Any, values: Any, at: Any, first: Any, last: Any,
    start: Any, rows: Any, columns: Any, vectors: Any, stride: Any,
) -> Any:  # fmt: skip
    """Sums of a tile: the start plus value times what lies at the place of each kept weight, written to y."""
    tile, step = _sizes(rows, columns, vectors), stride.count
    element = _element(values)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = _vector(element)
        size = VECTOR_BYTES // kind.count
        x, x_row, y, y_row, y_column, values, at, first, last, start = args[:10]
        data = [
            context.make_array(signature.args[n])(context, builder, array).data for n, array in ((5, values), (6, at))
        ]
        fixed = ir.Constant(_INT, tile[2] * VECTOR_BYTES * step)
        sums = [_splat(builder, start, kind)] * (tile[0] * tile[1] * tile[2])
        loop = _Loop(builder, first, last, sums)
        value = _splat(builder, builder.load(builder.gep(data[0], [loop.number])), kind)
        offset = builder.sext(builder.load(builder.gep(data[1], [loop.number])), _INT)
        offset = builder.mul(offset, ir.Constant(_INT, size))
        places = _places(builder, builder.add(x, offset), x_row, fixed, tile)
        loop.close(
            [
                _fma(builder, value, _load(builder, place, kind), before)
                for place, before in zip(places, loop.carried, strict=True)
            ]
        )
        for place, total in zip(_places(builder, y, y_row, y_column, tile), loop.carried, strict=True):
            _store(builder, total, place)
        return context.get_dummy_value()

    return types.void(
        x, x_row, y, y_row, y_column, values, at, first, last, values.dtype, rows, columns, vectors, stride
    ), generate


@intrinsic
def _tile_dots(
    typing: Any, x: Any, x_row: Any, g: Any, g_row: Any, sums: Any, at: Any, first: Any, last: Any, like: Any,
    rows: Any, columns: Any, vectors: Any, stride: Any,
) -> Any:  # fmt: skip
    """Adds to the vector of sums of each kept weight the products of a tile of g with what lies at its place."""
    tile, step = _sizes(rows, columns, vectors), stride.count
    element = _element(like)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = _vector(element)
        size = VECTOR_BYTES // kind.count
        x, x_row, g, g_row, sums, at, first, last = args[:8]
        at = context.make_array(signature.args[5])(context, builder, at).data
        pixel = tile[2] * VECTOR_BYTES
        gradients = [
            _load(builder, place, kind) for place in _places(builder, g, g_row, ir.Constant(_INT, pixel), tile)
        ]
        loop = _Loop(builder, first, last, [])
        offset = builder.sext(builder.load(builder.gep(at, [loop.number])), _INT)
        offset = builder.mul(offset, ir.Constant(_INT, size))
        places = _places(builder, builder.add(x, offset), x_row, ir.Constant(_INT, pixel * step), tile)
        place = builder.add(sums, builder.mul(loop.number, ir.Constant(_INT, VECTOR_BYTES)))
        halves = [_load(builder, place, kind), ir.Constant(kind, [0.0] * kind.count)]
        for number, (gradient, where) in enumerate(zip(gradients, places, strict=True)):
            halves[number % 2] = _fma(builder, gradient, _load(builder, where, kind), halves[number % 2])
        _store(builder, builder.fadd(*halves) if len(gradients) > 1 else halves[0], place)
        loop.close([])
        return context.get_dummy_value()

    return types.void(x, x_row, g, g_row, sums, at, first, last, like, rows, columns, vectors, stride), generate


@intrinsic
def _tile_total(typing: Any, g: Any, g_row: Any, total: Any, like: Any, rows: Any, columns: Any, vectors: Any) -> Any:
    """Adds the vectors of a tile to the vector at an address."""
    tile = _sizes(rows, columns, vectors)
    element = _element(like)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = _vector(element)
        g, g_row, total = args[:3]
        value = _load(builder, total, kind)
        for place in _places(builder, g, g_row, ir.Constant(_INT, tile[2] * VECTOR_BYTES), tile):
            value = builder.fadd(value, _load(builder, place, kind))
        _store(builder, value, total)
        return context.get_dummy_value()

    return types.void(g, g_row, total, like, rows, columns, vectors), generate


def _transposed(builder: Any, vectors: list[Any]) -> list[Any]:
    """The transpose of a square of vectors, by exchanging ever smaller blocks."""
    count, found = len(vectors), list(vectors)
    step = count // 2
    while step:
        for i in (i for i in range(count) if not i & step):
            a, b = found[i], found[i + step]
            low = [j if not j & step else count + j - step for j in range(count)]
            high = [j + step if not j & step else count + j for j in range(count)]
            for place, lanes in ((i, low), (i + step, high)):
                found[place] = builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(_INDEX, count), lanes))
        step //= 2
    return found


@intrinsic
def _pack_square(typing: Any, images: Any, image: Any, count: Any, packed: Any, table: Any, first: Any, like: Any) -> Any:
    """Turns a vector of consecutive elements of each image of a lane into a vector of lanes for each element."""
    element = _element(like)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = _vector(element)
        size = VECTOR_BYTES // kind.count
        images, image, count, packed, table, first, _ = args
        table = context.make_array(signature.args[4])(context, builder, table).data
        zero, rows = ir.Constant(kind, [0.0] * kind.count), []
        for lane in range(kind.count):
            there = builder.icmp_signed("<", ir.Constant(_INT, lane), count)
            place = builder.select(there, builder.add(images, builder.mul(image, ir.Constant(_INT, lane))), images)
            rows.append(builder.select(there, _load(builder, place, kind, size), zero))
        for number, vector in enumerate(_transposed(builder, rows)):
            at = builder.load(builder.gep(table, [builder.add(first, ir.Constant(_INT, number))]))
            at = builder.mul(builder.sext(at, _INT), ir.Constant(_INT, size))
            _store(builder, vector, builder.add(packed, at))
        return context.get_dummy_value()

    return types.void(images, image, count, packed, table, first, like), generate


@intrinsic
def _unpack_square(
    typing: Any, images: Any, image: Any, count: Any, packed: Any, table: Any, first: Any, like: Any
) -> Any:
    """The reverse of `_pack_square`; images beyond the count are not written."""
    element = _element(like)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = _vector(element)
        size = VECTOR_BYTES // kind.count
        images, image, count, packed, table, first, _ = args
        table = context.make_array(signature.args[4])(context, builder, table).data
        columns = []
        for number in range(kind.count):
            at = builder.load(builder.gep(table, [builder.add(first, ir.Constant(_INT, number))]))
            at = builder.mul(builder.sext(at, _INT), ir.Constant(_INT, size))
            columns.append(_load(builder, builder.add(packed, at), kind))
        for lane, vector in enumerate(_transposed(builder, columns)):
            with builder.if_then(builder.icmp_signed("<", ir.Constant(_INT, lane), count), likely=True):
                _store(builder, vector, builder.add(images, builder.mul(image, ir.Constant(_INT, lane))), size)
        return context.get_dummy_value()

    return types.void(images, image, count, packed, table, first, like), generate


@intrinsic
def _get(typing: Any, address: Any, like: Any) -> Any:
    """The element at an address."""
    element = _element(like)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load(_pointer(builder, args[0], element))

    return like.dtype(address, like), generate


@intrinsic
def _put(typing: Any, address: Any, value: Any, like: Any) -> Any:
    """Writes an element to an address."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.store(args[1], _pointer(builder, args[0], _element(like)))
        return context.get_dummy_value()

    return types.void(address, like.dtype, like), generate


@intrinsic
def _fill_zero(typing: Any, address: Any, count: Any) -> Any:
    """Writes so many bytes of 0."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        byte = ir.IntType(8)
        clear = builder.module.declare_intrinsic("llvm.memset", [byte.as_pointer(), _INT])
        builder.call(clear, [_pointer(builder, args[0], byte), ir.Constant(byte, 0), args[1], ir.Constant(ir.IntType(1), 0)])
        return context.get_dummy_value()

    return types.void(address, count), generate


def _compiled(function: Callable[..., Any]) -> Any:
    return numba.njit(cache=True, nogil=True)(function)


@_compiled
def _pack(images, count, length, packed, chunk_bytes, vectors, table, like):  # type: ignore[no-untyped-def]
    """Packs images of `length` consecutive elements each into chunks."""
    size = like.itemsize
    lanes = VECTOR_BYTES // size
    image = length * size
    chunks = (count + lanes * vectors - 1) // (lanes * vectors)
    for chunk in range(chunks):
        for vector in range(vectors):
            number = (chunk * vectors + vector) * lanes
            there = min(max(count - number, 0), lanes)
            source = images + min(number, count - 1) * image
            target = packed + chunk * chunk_bytes + vector * VECTOR_BYTES
            first = 0
            while first + lanes <= length:
                _pack_square(source + first * size, image, there, target, table, first, like)
                first += lanes
            if first < length and length >= lanes:
                first = length - lanes
                _pack_square(source + first * size, image, there, target, table, first, like)
            elif first < length:
                for element in range(length):
                    for lane in range(lanes):
                        value = _get(source + lane * image + element * size, like) if lane < there else like.dtype.type(0)
                        _put(target + table[element] * size + lane * size, value, like)


@_compiled
def _unpack(images, count, length, packed, chunk, vectors, table, like):  # type: ignore[no-untyped-def]
    """Writes one packed chunk to its images of `length` consecutive elements each."""
    size = like.itemsize
    lanes = VECTOR_BYTES // size
    image = length * size
    for vector in range(vectors):
        number = (chunk * vectors + vector) * lanes
        there = min(max(count - number, 0), lanes)
        if there <= 0:
            continue
        target = images + number * image
        source = packed + vector * VECTOR_BYTES
        first = 0
        while first + lanes <= length:
            _unpack_square(target + first * size, image, there, source, table, first, like)
            first += lanes
        if first < length and length >= lanes:
            first = length - lanes
            _unpack_square(target + first * size, image, there, source, table, first, like)
        elif first < length:
            for element in range(length):
                for lane in range(there):
                    value = _get(source + table[element] * size + lane * size, like)
                    _put(target + lane * image + element * size, value, like)


@_compiled
def _clear_border(packed, planes, height, width, inner, pixel):  # type: ignore[no-untyped-def]
    """Writes 0 around the images of packed planes; `inner` is their (top, left, height, width) in pixels."""
    top, left, rows, columns = inner
    row = width * pixel
    for plane in range(planes):
        start = packed + plane * height * row
        if top:
            _fill_zero(start, top * row)
        for number in range(top, top + rows):
            if left:
                _fill_zero(start + number * row, left * pixel)
            if left + columns < width:
                _fill_zero(start + number * row + (left + columns) * pixel, (width - left - columns) * pixel)
        if top + rows < height:
            _fill_zero(start + (top + rows) * row, (height - top - rows) * row)


@_compiled
def pack(images, count, packed, table, geometry, like, vectors):  # type: ignore[no-untyped-def]
    """Packs a batch, with borders of 0.

    Args:
        images: Address of the batch, whose images lie one behind another.
        count: Number of images.
        packed: Address of what is written: chunks of channels of rows of pixels of images.
        table: Place of each element of an image in the first chunk.
        geometry: Channels, height and width with borders, top, left, height and width without them.
        like: An array of the elements' type.
        vectors: As many numbers as a pixel of a chunk has vectors.
    """
    channels, height, width, top, left, rows, columns = geometry
    pixel = len(vectors) * VECTOR_BYTES
    lanes = pixel // like.itemsize
    chunks = (count + lanes - 1) // lanes
    if rows < height or columns < width:
        _clear_border(packed, chunks * channels, height, width, (top, left, rows, columns), pixel)
    _pack(images, count, len(table), packed, channels * height * width * pixel, len(vectors), table, like)


@_compiled
def gather(weight, index, values):  # type: ignore[no-untyped-def]
    """Reads the kept weights at these places of a dense one."""
    for number in range(len(index)):
        values[number] = _get(weight + index[number] * values.itemsize, values)


@_compiled
def products(packed, count, geometry, values, places, starts, bias, output, images, table, out, rows, columns, vectors, stride):  # type: ignore[no-untyped-def]
    """The outputs of a layer, or its input's gradient, for a packed batch.

    Args:
        packed: Address of the packed batch.
        count: Number of images.
        geometry: That of the batch, see `pack`.
        values: Kept weights in the order of their output channel.
        places: Place, in elements of the batch, that each of them multiplies for the first pixel.
        starts: Number of the first weight of each output channel, and of the end; one phase after another.
        bias: Address of a number for each output channel; 0 for none.
        output: Address of memory for one packed chunk of the output.
        images: Address of the output's images.
        table: As for `pack`, of the output.
        out: Channels, height and width of the output, and the distance of a phase's pixels: phases are its square.
        rows: As many numbers as a tile has rows.
        columns: As many numbers as a tile has columns.
        vectors: As many numbers as a pixel of a chunk has vectors.
        stride: As many numbers as pixels of the batch lie between two pixels of the output.
    """
    pixel = len(vectors) * VECTOR_BYTES
    lanes = pixel // values.itemsize
    chunk_bytes = geometry[0] * geometry[1] * geometry[2] * pixel
    row = geometry[2] * pixel
    channels, height, width, apart = out
    plane = height * width * pixel
    step = len(stride)
    zero = values.dtype.type(0)
    for chunk in range((count + lanes - 1) // lanes):
        batch = packed + chunk * chunk_bytes
        for phase in range(apart * apart):
            corner = output + ((phase // apart) * width + phase % apart) * pixel
            first = phase * channels
            for top in range(0, height // apart, len(rows)):
                for left in range(0, width // apart, len(columns)):
                    x = batch + top * step * row + left * step * pixel
                    y = corner + (top * width + left) * apart * pixel
                    for channel in range(channels):
                        start = _get(bias + channel * values.itemsize, values) if bias else zero
                        _tile_sums(
                            x, row * step, y + channel * plane, width * apart * pixel, apart * pixel, values, places,
                            starts[first + channel], starts[first + channel + 1], start, rows, columns, vectors, stride,
                        )  # fmt: skip
        _unpack(images, count, len(table), output, chunk, len(vectors), table, values)


@_compiled
def weight_products(x, x_geometry, g, g_geometry, count, values, places, starts, index, sums, gradient, bias, rows, columns, vectors, stride):  # type: ignore[no-untyped-def]
    """Adds the gradients of kept weights, and of the bias, to dense ones.

    Args:
        x: Address of the packed batch.
        x_geometry: Its geometry, see `pack`.
        g: Address of the packed gradient of the output.
        g_geometry: Its geometry.
        count: Number of images.
        values: An array of the elements' type.
        places: As for `products`.
        starts: As for `products`.
        index: Place of each kept weight in the dense one.
        sums: Address of memory for a vector for each kept weight, and one more.
        gradient: Address of the dense gradient; only kept entries are touched.
        bias: Address of the bias's gradient; 0 for none.
        rows: As for `products`.
        columns: As for `products`.
        vectors: As for `products`.
        stride: As for `products`.
    """
    pixel = len(vectors) * VECTOR_BYTES
    size = values.itemsize
    lanes = VECTOR_BYTES // size
    x_row, g_row, step = x_geometry[2] * pixel, g_geometry[2] * pixel, len(stride)
    x_chunk = x_geometry[0] * x_geometry[1] * x_row
    plane = g_geometry[1] * g_row
    channels, g_top, g_left, height, width = g_geometry[0], g_geometry[3], g_geometry[4], g_geometry[5], g_geometry[6]
    chunks = (count + len(vectors) * lanes - 1) // (len(vectors) * lanes)
    _fill_zero(sums, (len(index) + 1) * VECTOR_BYTES)
    for chunk in range(chunks):
        for top in range(0, height, len(rows)):
            for left in range(0, width, len(columns)):
                at = x + chunk * x_chunk + top * step * x_row + left * step * pixel
                here = g + chunk * channels * plane + (g_top + top) * g_row + (g_left + left) * pixel
                for channel in range(channels):
                    if starts[channel] < starts[channel + 1]:
                        _tile_dots(
                            at, x_row * step, here + channel * plane, g_row, sums, places, starts[channel],
                            starts[channel + 1], values, rows, columns, vectors, stride,
                        )  # fmt: skip
    for number in range(len(index)):
        total = values.dtype.type(0)
        for lane in range(lanes):
            total += _get(sums + number * VECTOR_BYTES + lane * size, values)
        entry = gradient + index[number] * size
        _put(entry, _get(entry, values) + total, values)
    if bias:
        last = sums + len(index) * VECTOR_BYTES
        for channel in range(channels):
            _fill_zero(last, VECTOR_BYTES)
            for chunk in range(chunks):
                for top in range(0, height, len(rows)):
                    for left in range(0, width, len(columns)):
                        here = g + (chunk * channels + channel) * plane
                        here += (g_top + top) * g_row + (g_left + left) * pixel
                        _tile_total(here, g_row, last, values, rows, columns, vectors)
            total = values.dtype.type(0)
            for lane in range(lanes):
                total += _get(last + lane * size, values)
            _put(bias + channel * size, _get(bias + channel * size, values) + total, values)
