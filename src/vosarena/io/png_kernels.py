"""Compiled loops of the PNG decoder. Importing this module compiles them; `base.compiled` does that once."""

# No type hints: these functions are compiled, their signatures say the types.

import numpy as np

from vosarena.base.compiled import jit


@jit("i8(u1[:,::1])")
def unfilter(rows):
    """Undo the row filters of one-byte pixels in place; return -1, or the first row with an unknown filter.

    rows: uint8 (H, 1 + W). Each row begins with its filter type, which stays.
    """
    height, width = rows.shape
    for y in range(height):
        kind = rows[y, 0]
        row = rows[y]
        above = rows[y - 1 if y else 0]
        first = np.int64(y > 0)  # 0: there is no row above, it counts as zeros
        if kind == 0:
            continue
        if kind == 1:
            left = np.uint8(0)
            for x in range(1, width):
                left = np.uint8(left + row[x])
                row[x] = left
        elif kind == 2:
            if y:
                for x in range(1, width):
                    row[x] = np.uint8(row[x] + above[x])
        elif kind == 3:
            left = np.uint8(0)
            for x in range(1, width):
                left = np.uint8(row[x] + ((np.int64(left) + first * above[x]) >> 1))
                row[x] = left
        elif kind == 4:
            a = np.int64(0)  # left, above and upper left, as the specification names them
            c = np.int64(0)
            for x in range(1, width):
                b = first * above[x]
                pa = abs(b - c)
                pb = abs(a - c)
                pc = abs(a + b - 2 * c)
                predicted = c
                if pa <= pb and pa <= pc:
                    predicted = a
                elif pb <= pc:
                    predicted = b
                c = b
                a = (np.int64(row[x]) + predicted) & 255
                row[x] = np.uint8(a)
        else:
            return y
    return -1


@jit("void(u1[:,::1], i8, i8, u1[:,::1])")
def unpack(rows, depth, scale, labels):
    """Unpack samples of 1, 2 or 4 bits, the leftmost in the high bits, to one byte each, times `scale`.

    rows: uint8 (H, 1 + bytes), without filters; labels: uint8 (H, W), written.
    """
    height, width = labels.shape
    per_byte = 8 // depth
    mask = (1 << depth) - 1
    for y in range(height):
        for x in range(width):
            shift = 8 - depth * (x % per_byte + 1)
            labels[y, x] = ((rows[y, 1 + x // per_byte] >> shift) & mask) * scale
