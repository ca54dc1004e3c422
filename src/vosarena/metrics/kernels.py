"""Compiled loops of `metrics.counts`. Importing this module compiles them; `base.compiled` does that once.

Why they are fast: one pass over both label maps finds the boundary pixels of all objects at once (a 2x2 block that is
not uniform is a boundary of every object in it) and all areas from run lengths. Then, object by object, the boundary
of one map is drawn as bits, and each boundary pixel of the other map looks for a set bit in its disk, nearest rows
first, 64 pixels at a time. Nothing is dilated, so after the first pass the cost grows with the boundaries only.
"""

# No type hints: these functions are compiled, their signatures say the types.

import numpy as np

from vosarena.base.compiled import jit

# Columns of `table`, one row per label: COUNTS and ADAPTIVE_COUNTS of `metrics.counts`.
INTERSECTION, GT_PIXELS, PRED_PIXELS, GT_BOUNDARY, PRED_BOUNDARY, GT_MATCHED, PRED_MATCHED = range(7)
GT_MATCHED_ADAPTIVE, PRED_MATCHED_ADAPTIVE = 7, 8


@jit("u1(u1[::1], u1[::1], u1[::1], u1[::1], u1[::1])")
def _differences(g, g_below, p, p_below, out):
    """out[x] != 0 where the 2x2 block at x, cut off at the right edge, is not uniform in one of two maps.

    g, p: a row of each map; g_below, p_below: the next one. Returns 0 if there is no such block.
    """
    last = g.size - 1
    found = np.uint8(0)
    for x in range(last):
        a, b = g[x], p[x]
        different = (a ^ g[x + 1]) | (a ^ g_below[x]) | (a ^ g_below[x + 1])
        different |= (b ^ p[x + 1]) | (b ^ p_below[x]) | (b ^ p_below[x + 1])
        out[x] = different
        found |= different
    out[last] = (g[last] ^ g_below[last]) | (p[last] ^ p_below[last])
    return found | out[last]


@jit("UniTuple(u1, 4)(u1[::1], u1[::1], i8)")
def _block_labels(row, below, x):
    """The different labels of the 2x2 block at x, without background; 0 fills up."""
    right = x + 1 if x + 1 < row.size else x
    a, b, c, d = row[x], row[right], below[x], below[right]
    zero = np.uint8(0)
    if b == a:
        b = zero
    if c in (a, b):
        c = zero
    if d in (a, b, c):
        d = zero
    return a, b, c, d


@jit("void(u1, u1, i8, i8[:,::1])")
def _add_run(gt_label, pred_label, length, table):
    table[gt_label, GT_PIXELS] += length
    table[pred_label, PRED_PIXELS] += length
    if gt_label == pred_label:
        table[gt_label, INTERSECTION] += length


@jit("UniTuple(i8, 2)(u1[:,::1], u1[:,::1], u1[::1], i8[::1], i4[::1], i4[::1], i8[:,::1])")
def _scan(gt, pred, differences, busy, gt_positions, pred_positions, table):
    """Write areas, intersections and boundary sizes of all labels to `table`, and the positions of mixed blocks."""
    height, width = gt.shape[0], gt.shape[1] - 1
    words = differences.view(np.uint64)
    n_gt = n_pred = 0
    for y in range(height):
        y_below = y + 1 if y + 1 < height else y
        g, g_below = gt[y, 1:], gt[y_below, 1:]
        p, p_below = pred[y, 1:], pred[y_below, 1:]
        start = n_busy = 0
        if _differences(g, g_below, p, p_below, differences[:width]):
            # Most rows have no boundary, and neither have most words of the others: skip eight at once.
            for eight in range(0, words.size, 8):
                a, b, c, d = words[eight], words[eight + 1], words[eight + 2], words[eight + 3]
                a |= words[eight + 4]
                b |= words[eight + 5]
                c |= words[eight + 6]
                d |= words[eight + 7]
                if a | b | c | d:
                    for word in range(eight, eight + 8):
                        busy[n_busy] = word
                        n_busy += words[word] != 0
        for word in busy[:n_busy]:
            for x in range(8 * word, min(8 * word + 8, width)):
                if not differences[x]:
                    continue
                right = x + 1 if x + 1 < width else x
                a, b = g[x], p[x]
                if a != g[right] or a != g_below[x] or a != g_below[right]:
                    gt_positions[n_gt] = y << 16 | x
                    n_gt += 1
                    for label in _block_labels(g, g_below, x):
                        table[label, GT_BOUNDARY] += 1
                if b != p[right] or b != p_below[x] or b != p_below[right]:
                    pred_positions[n_pred] = y << 16 | x
                    n_pred += 1
                    for label in _block_labels(p, p_below, x):
                        table[label, PRED_BOUNDARY] += 1
                if a != g[right] or b != p[right]:
                    _add_run(a, b, x + 1 - start, table)
                    start = x + 1
        _add_run(g[start], p[start], width - start, table)
    return n_gt, n_pred


@jit("void(u1[:,::1], i4[::1], i8[::1], i4[::1])")
def _sort_by_label(labels, positions, ends, points):
    """Write each position once per selected label of its block, grouped by label.

    ends: i8 (256,), on entry where each label's group begins in `points`, on return where it ends; -1: not selected.
    """
    height = labels.shape[0]
    for position in positions:
        y, x = np.int64(position) >> 16, np.int64(position) & 0xFFFF
        y_below = y + 1 if y + 1 < height else y
        for label in _block_labels(labels[y, 1:], labels[y_below, 1:], x):
            if ends[label] >= 0:
                points[ends[label]] = position
                ends[label] += 1


@jit("void(i4[::1], i8, b1, u8[:,::1])")
def _draw(points, padding, on, plane):
    """Set the bit of every point in the plane, or clear its word."""
    for point in points:
        y, bit = np.int64(point) >> 16, (np.int64(point) & 0xFFFF) + padding
        if on:
            plane[y, bit >> 6] |= np.uint64(1) << np.uint64(bit & 63)
        else:
            plane[y, bit >> 6] = np.uint64(0)


@jit("i8(i4[::1], i4[::1], i8, i4[::1], i4[::1], u8[:,::1])")
def _count_near(points, others, padding, left, right, plane):
    """Count the points with a set bit of the plane (in which `others` are drawn) within their disk.

    left, right: i4 (2 R + 1,), extent of the disk in the rows -R..R, right < left where a row is empty. Points are in
    the order of rows.
    """
    radius = left.size // 2
    first_row, last_row = np.int64(others[0]) >> 16, np.int64(others[others.size - 1]) >> 16
    found = 0
    for point in points:
        y, x = np.int64(point) >> 16, np.int64(point) & 0xFFFF
        for step in range(2 * radius + 1):
            # 0, 1, -1, 2, -2, ...: the other boundary is usually near
            dy = (step + 1) // 2 if step & 1 else -(step // 2)
            row = y + dy
            if row < first_row or row > last_row:
                continue
            bits = right[radius + dy] - left[radius + dy] + 1
            bit = x + padding + left[radius + dy]
            hit = False
            while bits > 0:
                word, shift = bit >> 6, np.uint64(bit & 63)
                value = plane[row, word] >> shift
                if shift > np.uint64(0):
                    value |= plane[row, word + 1] << (np.uint64(64) - shift)
                if bits < 64:
                    value &= (np.uint64(1) << np.uint64(bits)) - np.uint64(1)
                if value != np.uint64(0):
                    hit = True
                    break
                bits -= 64
                bit += 64
            if hit:
                found += 1
                break
    return found


@jit(
    "void(u1[:,::1], u1[:,::1], i8, i8[:,::1], f8, i4[:,::1], i4[:,::1],"
    " u1[::1], i8[::1], i4[:,::1], i4[:,::1], i8[:,::1], u8[:,::1], u8[:,::1])"
)
def count(
    gt, pred, adaptive, table, cap, left, right, differences, busy, positions, points, ends, gt_plane, pred_plane
):
    """Write the counts of all labels of a frame to `table`, i8 (256, 9).

    gt, pred: uint8 (H, 1 + W), first column ignored. left, right: i4 (R + 1, 2 R + 1), disks by radius 1..R; row 0 is
    the disk of radius `cap` of MOSEv2. differences: uint8 (W rounded up to 64), zero beyond W. planes: uint64 (H,
    words), zero on entry and on return. The rest are buffers: positions, i4 (2, H W), holds y << 16 | x of both maps;
    points, i4 (2, 4 H W), holds them by label; ends, i8 (2, 256); busy, i8 (bytes of `differences` / 8 + 1).
    """
    radius = left.shape[0] - 1
    padding = 64 * ((radius + 63) // 64)
    table[:] = 0
    gt_positions, pred_positions = positions[0], positions[1]
    gt_points, pred_points = points[0], points[1]
    gt_ends, pred_ends = ends[0], ends[1]
    n_gt, n_pred = _scan(gt, pred, differences, busy, gt_positions, pred_positions, table)
    ends[:] = -1
    total_gt = total_pred = 0
    for label in range(1, 256):
        if table[label, GT_BOUNDARY] and table[label, PRED_BOUNDARY]:
            gt_ends[label], pred_ends[label] = total_gt, total_pred
            total_gt += table[label, GT_BOUNDARY]
            total_pred += table[label, PRED_BOUNDARY]
    table[0] = 0
    if not total_gt:
        return
    _sort_by_label(gt, gt_positions[:n_gt], gt_ends, gt_points)
    _sort_by_label(pred, pred_positions[:n_pred], pred_ends, pred_points)
    for label in range(1, 256):
        if gt_ends[label] < 0:
            continue
        g = gt_points[gt_ends[label] - table[label, GT_BOUNDARY] : gt_ends[label]]
        p = pred_points[pred_ends[label] - table[label, PRED_BOUNDARY] : pred_ends[label]]
        _draw(g, padding, True, gt_plane)
        _draw(p, padding, True, pred_plane)
        table[label, GT_MATCHED] = _count_near(g, p, padding, left[radius], right[radius], pred_plane)
        table[label, PRED_MATCHED] = _count_near(p, g, padding, left[radius], right[radius], gt_plane)
        if adaptive:
            tolerance = np.ceil(0.1 * np.sqrt(table[label, GT_PIXELS]))
            disk = np.int64(tolerance) if tolerance < cap else 0
            table[label, GT_MATCHED_ADAPTIVE] = _count_near(g, p, padding, left[disk], right[disk], pred_plane)
            table[label, PRED_MATCHED_ADAPTIVE] = _count_near(p, g, padding, left[disk], right[disk], gt_plane)
        _draw(g, padding, False, gt_plane)
        _draw(p, padding, False, pred_plane)
