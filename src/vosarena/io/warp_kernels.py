"""The compiled loop of `warp`. Importing this module compiles it; `base.compiled` does that once."""

# No type hints: these functions are compiled, their signatures say the types.

import math

from vosarena.base.compiled import jit


@jit("void(u1[:,:,::1], i8, f8[::1], u1[::1], i8, i8, u1[:,:,::1])")
def warp(frame, mirrored, matrix, fill, top, left, out):
    """Write a rectangle of a frame after an affine transformation, bilinear in float64, rounded down.

    frame: uint8 (H, W, 3); mirrored: 1 to mirror it first; matrix: from a pixel of the result to one of the frame;
    fill: colour of the pixels from outside of the frame; top, left: corner of the rectangle; out: uint8 (h, w, 3).
    """
    height, width = frame.shape[:2]
    for row in range(out.shape[0]):
        v = top + row + 0.5
        for column in range(out.shape[1]):
            u = left + column + 0.5
            x = matrix[0] * u + matrix[1] * v + matrix[2]
            y = matrix[3] * u + matrix[4] * v + matrix[5]
            if x < 0 or x >= width or y < 0 or y >= height:
                for channel in range(3):
                    out[row, column, channel] = fill[channel]
                continue
            x -= 0.5
            y -= 0.5
            x0, y0 = math.floor(x), math.floor(y)
            dx, dy = x - x0, y - y0
            x1, y1 = min(x0 + 1, width - 1), min(y0 + 1, height - 1)
            x0, y0 = max(x0, 0), max(y0, 0)
            if mirrored:
                x0, x1 = width - 1 - x0, width - 1 - x1
            for channel in range(3):
                a, b = float(frame[y0, x0, channel]), float(frame[y0, x1, channel])
                upper = a + (b - a) * dx
                a, b = float(frame[y1, x0, channel]), float(frame[y1, x1, channel])
                lower = a + (b - a) * dx
                out[row, column, channel] = int(upper + (lower - upper) * dy)
