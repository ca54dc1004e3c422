"""Compiled loops of the resizing. Importing this module compiles them; `base.compiled` does that once.

Row y of the result is the sum of rows first[y] to first[y] + count[y] - 1 times weights[y]. Whole rows are added, so
that all loads and stores are contiguous; columns are blended as rows of the transposed image.
"""

# No type hints: these functions are compiled, their signatures say the types.

import numpy as np

from vosarena.base.compiled import jit
from vosarena.io.resize_tables import BITS, LEVEL, LEVEL_REST


@jit("void(u1[:,::1], i4[:,::1], i8[::1], i8[::1], i4[:,::1], u1[:,::1])")
def blend_integers(rows, weights, first, count, sums, out):
    """Blend rows with integer weights, as Pillow does: summed exactly, then rounded and clipped.

    rows: uint8 (N, W); sums: int32 (1, W), a buffer; out: uint8 (M, W), written.
    """
    width = rows.shape[1]
    total = sums[0]
    for y in range(out.shape[0]):
        start, stop = first[y], first[y] + count[y]
        weight = weights[y]
        total[:] = 1 << (BITS - 1)
        i = start
        while i + 3 <= stop:  # three at a time: most of the time goes into loading and storing the sums
            a, b, c = rows[i], rows[i + 1], rows[i + 2]
            p, q, r = weight[i - start], weight[i - start + 1], weight[i - start + 2]
            for x in range(width):
                total[x] += np.int32(a[x]) * p + np.int32(b[x]) * q + np.int32(c[x]) * r
            i += 3
        while i < stop:
            a, p = rows[i], weight[i - start]
            for x in range(width):
                total[x] += np.int32(a[x]) * p
            i += 1
        line = out[y]
        for x in range(width):
            line[x] = min(max(total[x] >> BITS, 0), 255)


@jit("void(f4[::1], f4[::1], f4)")
def _add_product(line, row, weight):
    for x in range(len(line)):
        line[x] = line[x] + row[x] * weight


@jit("void(f4[::1], f4[::1], f4)", contract=True)
def _add_fused(line, row, weight):
    for x in range(len(line)):
        line[x] = line[x] + row[x] * weight  # one rounding instead of two


@jit("void(f4[:,::1], f4[:,::1], i8[::1], i8[::1], i8, f4[:,::1])")
def blend_floats(rows, weights, first, count, group, out):
    """Blend rows in float32, in the order of torch's loop: the first product, then the others are added to it.

    Its compiler handles `group` of the others together, whose products are rounded before they are added; what is left
    is added by fused operations.

    rows: float32 (N, W); out: float32 (M, W), written.
    """
    for y in range(out.shape[0]):
        start, others = first[y], count[y] - 1
        line, row, weight = out[y], rows[start], weights[y, 0]
        for x in range(len(line)):
            line[x] = row[x] * weight
        rounded = others - others % group
        for i in range(1, rounded + 1):
            _add_product(line, rows[start + i], weights[y, i])
        for i in range(rounded + 1, others + 1):
            _add_fused(line, rows[start + i], weights[y, i])


@jit("void(u1[:,::1], f4[:,::1], i8[::1], i8[::1], i8, f4[:,::1], f4[:,::1])")
def blend_levels(rows, weights, first, count, group, ring, out):
    """As `blend_floats`, for rows of uint8, which are divided by 255 when they are needed.

    ring: float32 (columns of `weights`, W), a buffer for the last rows; row i is at i % len(ring).
    """
    ready = 0
    for y in range(out.shape[0]):
        start, others = first[y], count[y] - 1
        for i in range(max(ready, start), start + others + 1):
            line, levels = ring[i % len(ring)], rows[i]
            for x in range(len(line)):
                level = np.float32(levels[x])
                line[x] = level * LEVEL + level * LEVEL_REST
        ready = max(ready, start + others + 1)
        line, row, weight = out[y], ring[start % len(ring)], weights[y, 0]
        for x in range(len(line)):
            line[x] = row[x] * weight
        rounded = others - others % group
        for i in range(1, rounded + 1):
            _add_product(line, ring[(start + i) % len(ring)], weights[y, i])
        for i in range(rounded + 1, others + 1):
            _add_fused(line, ring[(start + i) % len(ring)], weights[y, i])
