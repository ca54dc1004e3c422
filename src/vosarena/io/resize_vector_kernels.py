"""Compiled loops of the resizing with instructions of AVX-512 (VBMI, VNNI) that the compiler does not find by itself.

They take pixels as they are, with the three channels side by side. To blend columns, one instruction picks any bytes
out of 64, for 16 sums at once. For Pillow's integers, another one multiplies 64 levels by 64 small weights and adds the
products of every four; therefore a weight is split into three signed bytes: 65536 high + 256 middle + low.
"""

# No type hints: these functions are compiled, their signatures say the types.

from llvmlite import ir
from numba import types
from numba.extending import intrinsic, models, register_model

from vosarena.base.compiled import jit
from vosarena.io.resize_tables import BITS, LEVEL, LEVEL_REST

_BLOCK = 8  # rows that are blended together, so that the tables of a place are read once

_INT = ir.IntType(32)
_BYTES, _INTS = ir.VectorType(ir.IntType(8), 64), ir.VectorType(_INT, 16)
_FLOATS = ir.VectorType(ir.FloatType(), 16)


class _Vector(types.Type):
    """64 bytes: levels, indices or weights of one byte, or integers or floats of four."""

    def __init__(self):
        super().__init__("vector of 64 bytes")


@register_model(_Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager, kind):
        super().__init__(manager, kind, _INTS)


_vector = _Vector()
_four = types.UniTuple(_vector, 4)


def _constant(number):
    return ir.Constant(_INTS, [number] * 16)


def _address(context, builder, array, kind, place, target):
    """Return where element `place` of a flat array is, as a pointer to `target`."""
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [place]), target.as_pointer())


def _instruction(builder, name, vectors, types_, result):
    """Call an instruction of the CPU by LLVM's name of it."""
    function = builder.module.declare_intrinsic(name, (), ir.FunctionType(result, types_))
    return builder.call(function, [builder.bitcast(vector, kind) for vector, kind in zip(vectors, types_, strict=True)])


def _add_products(builder, total, levels, weights):
    return _instruction(builder, "llvm.x86.avx512.vpdpbusd.512", [total, levels, weights], [_INTS] * 3, _INTS)


def _levels(builder, high, middle, low):
    """Return the 16 rounded sums of three sums with the bytes of the weights."""
    total = builder.add(low, _constant(1 << (BITS - 1)))
    total = builder.add(total, builder.shl(middle, _constant(8)))
    total = builder.add(total, builder.shl(high, _constant(16)))
    return builder.ashr(total, _constant(BITS))


@intrinsic
def _zero(typing):
    return _vector(), lambda context, builder, signature, arguments: _constant(0)


@intrinsic
def _load(typing, array, place):
    """The 64 bytes from element `place` of a flat array on."""

    def generate(context, builder, signature, arguments):
        pointer = _address(context, builder, arguments[0], signature.args[0], arguments[1], _INTS)
        return builder.load(pointer, align=1)

    return _vector(array, types.int64), generate


@intrinsic
def _repeat(typing, number):
    """A vector of 16 times the same four bytes."""

    def generate(context, builder, signature, arguments):
        one = builder.insert_element(ir.Constant(_INTS, ir.Undefined), arguments[0], _INT(0))
        return builder.shuffle_vector(one, one, _constant(0))

    return _vector(types.int32), generate


@intrinsic
def _choose(typing, vector, indices):
    """Bytes of a vector by their indices."""

    def generate(context, builder, signature, arguments):
        chosen = _instruction(builder, "llvm.x86.avx512.permvar.qi.512", arguments, [_BYTES] * 2, _BYTES)
        return builder.bitcast(chosen, _INTS)

    return _vector(_vector, _vector), generate


@intrinsic
def _add(typing, total, levels, weights):
    """Add to each of 16 sums the products of four levels and weights."""
    return _vector(_vector, _vector, _vector), lambda context, builder, _, arguments: _add_products(builder, *arguments)


@intrinsic
def _add_floats(typing, total, levels, rounded, fused):
    """Add to each of 16 sums a level (uint8, the lowest of four bytes), divided by 255, times one of two weights.

    The product with the first one is rounded before it is added. The other weight is 0.
    """

    def generate(context, builder, signature, arguments):
        total, rounded, fused = (builder.bitcast(arguments[place], _FLOATS) for place in (0, 2, 3))
        number = builder.uitofp(builder.and_(arguments[1], _constant(255)), _FLOATS)
        parts = (builder.fmul(number, ir.Constant(_FLOATS, [float(part)] * 16)) for part in (LEVEL, LEVEL_REST))
        level = builder.fadd(*parts)
        total = builder.fadd(total, builder.fmul(level, rounded))
        total = _instruction(builder, "llvm.fma.v16f32", [level, fused, total], [_FLOATS] * 3, _FLOATS)
        return builder.bitcast(total, _INTS)

    return _vector(_vector, _vector, _vector, _vector), generate


@intrinsic
def _store_floats(typing, array, place, total):
    """Write 16 sums."""

    def generate(context, builder, signature, arguments):
        array, place, total = arguments
        builder.store(total, _address(context, builder, array, signature.args[0], place, _INTS), align=1)
        return context.get_dummy_value()

    return types.void(array, types.int64, _vector), generate


@intrinsic
def _store(typing, array, place, high, middle, low):
    """Write 16 rounded and clipped sums."""

    def generate(context, builder, signature, arguments):
        array, place, *sums = arguments
        levels = _levels(builder, *sums)
        for limit, beyond in ((0, "<"), (255, ">")):
            outside = builder.icmp_signed(beyond, levels, _constant(limit))
            levels = builder.select(outside, _constant(limit), levels)
        narrow = ir.VectorType(ir.IntType(8), 16)
        pointer = _address(context, builder, array, signature.args[0], place, narrow)
        builder.store(builder.trunc(levels, narrow), pointer, align=1)
        return context.get_dummy_value()

    return types.void(array, types.int64, _vector, _vector, _vector), generate


@intrinsic
def _interleave(typing, a, b, c, d):
    """Bytes of four rows one by one: those of a column are together. Order of the columns as in `_store_four`."""

    def generate(context, builder, signature, arguments):
        def zip_vectors(one, two, width):
            size = 64 // width
            kind = ir.VectorType(ir.IntType(8 * width), size)
            one, two = (builder.bitcast(vector, kind) for vector in (one, two))
            part = size // 4  # the CPU handles four parts in parallel
            for half in (0, part // 2):
                places = [start + half + i for start in range(0, size, part) for i in range(part // 2)]
                mask = ir.VectorType(_INT, size)([number for place in places for number in (place, size + place)])
                yield builder.shuffle_vector(one, two, mask)

        upper, lower = (list(zip_vectors(*pair, 1)) for pair in (arguments[:2], arguments[2:]))
        vectors = [found for pair in zip(upper, lower, strict=True) for found in zip_vectors(*pair, 2)]
        return context.make_tuple(builder, _four, [builder.bitcast(vector, _INTS) for vector in vectors])

    return _four(_vector, _vector, _vector, _vector), generate


@intrinsic
def _add_four(typing, totals, levels, weights):
    """`_add` for four vectors of sums and levels with the same weights."""

    def generate(context, builder, signature, arguments):
        totals, levels = ([builder.extract_value(argument, place) for place in range(4)] for argument in arguments[:2])
        added = [_add_products(builder, *pair, arguments[2]) for pair in zip(totals, levels, strict=True)]
        return context.make_tuple(builder, _four, added)

    return _four(_four, _four, _vector), generate


@intrinsic
def _store_four(typing, array, place, high, middle, low):
    """Write 64 rounded and clipped sums in the order of the columns."""

    def generate(context, builder, signature, arguments):
        array, place, *sums = arguments
        levels = [_levels(builder, *(builder.extract_value(item, part) for item in sums)) for part in range(4)]
        words = ir.VectorType(ir.IntType(16), 32)
        name = "llvm.x86.avx512.packssdw.512"
        upper, lower = (_instruction(builder, name, pair, [_INTS] * 2, words) for pair in (levels[:2], levels[2:]))
        packed = _instruction(builder, "llvm.x86.avx512.packuswb.512", [upper, lower], [words] * 2, _BYTES)
        builder.store(packed, _address(context, builder, array, signature.args[0], place, _BYTES), align=1)
        return context.get_dummy_value()

    return types.void(array, types.int64, _four, _four, _four), generate


@jit("void(u1[::1], i8, i8[::1], u1[::1], u1[::1], i8, u1[::1], i8)")
def blend_columns(frame, width, starts, indices, weights, taps, out, new_width):
    """Blend columns with integer weights, as Pillow does: 16 bytes of a new row at once, from 64 bytes of the row.

    frame: uint8 (H * width,), width at least 64; starts: int64 (places,), first of the 64 bytes; indices: uint8
    (places * taps / 4 * 64,), which of them are multiplied; weights: uint8 (places * taps / 4 * 192,), in three parts;
    taps: a multiple of 4; out: uint8 (H * new_width,), new_width at least 16, written.
    """
    height, groups = len(frame) // width, taps // 4
    for top in range(0, height, _BLOCK):
        for place in range(len(starts)):
            for y in range(top, min(top + _BLOCK, height)):
                source = _load(frame, y * width + starts[place])
                high = middle = low = _zero()
                for group in range(place * groups, place * groups + groups):
                    levels = _choose(source, _load(indices, 64 * group))
                    high = _add(high, levels, _load(weights, 192 * group))
                    middle = _add(middle, levels, _load(weights, 192 * group + 64))
                    low = _add(low, levels, _load(weights, 192 * group + 128))
                _store(out, y * new_width + min(16 * place, new_width - 16), high, middle, low)


@jit("void(u1[::1], i8, i8[::1], i4[:,:,::1], u1[::1])")
def blend_rows(rows, width, first, weights, out):
    """Blend rows with integer weights, as Pillow does: 64 bytes at once.

    rows: uint8 (N * width,), width at least 64; first: int64 (M,), first row of each sum; weights: int32
    (M, groups, 3), those of four rows in three parts; out: uint8 (M * width,), written.
    """
    last = len(rows) // width - 1
    for y in range(len(first)):
        for left in range(0, width, 64):
            x = min(left, width - 64)
            zero = _zero()
            high = middle = low = (zero, zero, zero, zero)
            for group in range(weights.shape[1]):
                row = first[y] + 4 * group
                levels = _interleave(
                    _load(rows, min(row, last) * width + x),
                    _load(rows, min(row + 1, last) * width + x),
                    _load(rows, min(row + 2, last) * width + x),
                    _load(rows, min(row + 3, last) * width + x),
                )
                high = _add_four(high, levels, _repeat(weights[y, group, 0]))
                middle = _add_four(middle, levels, _repeat(weights[y, group, 1]))
                low = _add_four(low, levels, _repeat(weights[y, group, 2]))
            _store_four(out, y * width + x, high, middle, low)


@jit("void(u1[::1], i8, i8[::1], u1[::1], f4[::1], i8, f4[::1], i8)")
def blend_level_columns(frame, width, starts, indices, weights, taps, out, new_width):
    """Divide by 255 and blend columns in float32, in the order of torch's loop: 16 sums at once, as `blend_columns`.

    indices: uint8 (places * taps * 64,), the first of every four is used; weights: float32 (places * taps * 32,):
    those whose products are rounded, then those of fused operations; out: float32 (H * new_width,), written.
    """
    height = len(frame) // width
    for top in range(0, height, _BLOCK):
        for place in range(len(starts)):
            for y in range(top, min(top + _BLOCK, height)):
                source = _load(frame, y * width + starts[place])
                total = _zero()
                for tap in range(place * taps, place * taps + taps):
                    levels = _choose(source, _load(indices, 64 * tap))
                    total = _add_floats(total, levels, _load(weights, 32 * tap), _load(weights, 32 * tap + 16))
                _store_floats(out, y * new_width + min(16 * place, new_width - 16), total)
