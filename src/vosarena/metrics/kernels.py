"""Compiled loops of `metrics.counts`. Importing this module compiles them; `base.compiled` does that once.

Why they are fast: one pass over both label maps finds the boundary pixels of all objects at once (a 2x2 block that is
not uniform is a boundary of every object in it) and all areas from run lengths. Then, object by object, the boundary
of one map is drawn as bits, and each boundary pixel of the other map looks for a set bit in its disk, nearest rows
first, 64 pixels at a time. Nothing is dilated, so after the first pass the cost grows with the boundaries only.
"""

# No type hints: these functions are compiled, their signatures say the types.

import numpy as np

from vosarena.base.compiled import jit

# Rows of `table`, one column per label: COUNTS and ADAPTIVE_COUNTS of `metrics.counts`.
INTERSECTION, GT_PIXELS, PRED_PIXELS, GT_BOUNDARY, PRED_BOUNDARY, GT_MATCHED, PRED_MATCHED = range(7)
GT_MATCHED_ADAPTIVE, PRED_MATCHED_ADAPTIVE = 7, 8


_LOW = np.uint64(0x7F7F7F7F7F7F7F7F)
_GATHER = np.uint64(0x0102040810204080)  # times 8 bytes of 0 or 1: their bits side by side in the highest byte


@jit("i8(u8)")
def _bit_count(word):
    """How many bits are set (LLVM knows this form and makes one instruction of it)."""
    word -= (word >> np.uint64(1)) & np.uint64(0x5555555555555555)
    word = (word & np.uint64(0x3333333333333333)) + ((word >> np.uint64(2)) & np.uint64(0x3333333333333333))
    word = (word + (word >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return (word * np.uint64(0x0101010101010101)) >> np.uint64(56)


@jit("u1(u1[::1], u1[::1], u1[::1])")
def _differences(row, below, out):
    """out[x] != 0 where x differs from its right, lower or lower-right neighbour. Returns 0 if no x does.

    row, below: one more pixel than out.
    """
    found = np.uint8(0)
    for x in range(out.size):
        different = (row[x] ^ row[x + 1]) | (row[x] ^ below[x]) | (row[x] ^ below[x + 1])
        out[x] = different
        found |= different
    return found


@jit("i8(u1[::1], i8, i8, u1[::1], i4[::1])")
def _find_boundary(labels, height, width, differences, positions):
    """Write the positions of the 2x2 blocks that are not uniform, cut off at the edges, in order of rows.

    labels: the rows of a map after each other, each with one more pixel before it. Returns the number of positions.
    """
    step = width + 1
    words = differences.view(np.uint64)
    found = 0
    for y in range(height):
        start = y * step + 1
        below = start + step if y + 1 < height else start
        # Whole blocks of 64 pixels are fastest; what is read beyond the row is overwritten. Not at the end of the map.
        length = differences.size if below + differences.size < labels.size else width - 1
        upper, lower = labels[start : start + length + 1], labels[below : below + length + 1]
        if (
            not _differences(upper, lower, differences[:length])
            and labels[start + width - 1] == labels[below + width - 1]
        ):
            continue
        differences[width - 1] = labels[start + width - 1] ^ labels[below + width - 1]
        for x in range(width, differences.size):
            differences[x] = 0
        for block in range(0, words.size, 8):
            eight = words[block : block + 8]
            if not ((eight[0] | eight[1] | eight[2] | eight[3]) | (eight[4] | eight[5] | eight[6] | eight[7])):
                continue
            mixed = np.uint64(0)  # a bit per pixel of the block
            for word in range(8):
                value = eight[word]
                high = (((value & _LOW) + _LOW) | value) & ~_LOW  # the high bit of each byte that is not 0
                mixed |= (((high >> np.uint64(7)) * _GATHER) >> np.uint64(56)) << np.uint64(8 * word)
            while mixed:
                positions[found] = y << 16 | (8 * block + _bit_count((mixed & (~mixed + np.uint64(1))) - np.uint64(1)))
                found += 1
                mixed &= mixed - np.uint64(1)
    return found


@jit("void(u1[::1], u1[::1], i4[::1], i8, i8, b1, i8[::1], i8[::1], i8[::1])")
def _tally(labels, others, positions, height, width, second, boundary, pixels, common):
    """Add the boundary and the pixels of each label of a map, and what it has in common with the other map.

    Labels are constant between positions of a row, so those at both sides of a position tell where runs end and begin:
    a run that ends at x has x + 1 pixels more than one that ended at the row's start. A run of the two maps together
    ends where either map changes; where both do, only the call for the first map counts it.
    """
    step = width + 1
    for position in positions:
        y, x = np.int64(position) >> 16, np.int64(position) & 0xFFFF
        index = y * step + 1 + x
        right = index + (x + 1 < width)
        below = index + step * (y + 1 < height)
        a, b, c, d = labels[index], labels[right], labels[below], labels[below + right - index]
        label = a | b | c | d
        if (a and a != label) or (b and b != label) or (c and c != label) or (d and d != label):
            boundary[a] += 1
            boundary[b] += b != a
            boundary[c] += (c != a) & (c != b)
            boundary[d] += (d != a) & (d != b) & (d != c)
        else:  # nearly all have background and one object
            boundary[label] += 1
        length = (x + 1) * (a != b)
        pixels[a] += length
        pixels[b] -= length
        e, f = others[index], others[right]
        if second:
            length *= e == f
        common[a] += length * (a == e)
        common[b] -= length * (b == f)
    for y in range(height):
        last = labels[y * step + width]
        pixels[last] += width
        if not second:
            common[last] += width * (last == others[y * step + width])


@jit("void(u1[::1], i4[::1], i8, i8, i8[::1], i8[::1], i4[::1])")
def _sort_by_label(labels, positions, height, width, ends, chosen, points):
    """Write each position once per chosen label of its block, grouped by label.

    ends: i8 (256,), on entry where each label's group begins in `points`, on return where it ends. What must not be
    written is written too, but overwritten by what follows or left in the place after a group: that needs no branch.
    """
    step = width + 1
    for position in positions:
        y, x = np.int64(position) >> 16, np.int64(position) & 0xFFFF
        index = y * step + 1 + x
        right = index + (x + 1 < width)
        below = index + step * (y + 1 < height)
        a, b, c, d = labels[index], labels[right], labels[below], labels[below + right - index]
        label = a | b | c | d
        if (a and a != label) or (b and b != label) or (c and c != label) or (d and d != label):
            points[ends[a]] = position
            ends[a] += chosen[a]
            points[ends[b]] = position
            ends[b] += chosen[b] * (b != a)
            points[ends[c]] = position
            ends[c] += chosen[c] * ((c != a) & (c != b))
            points[ends[d]] = position
            ends[d] += chosen[d] * ((d != a) & (d != b) & (d != c))
        else:
            points[ends[label]] = position
            ends[label] += chosen[label]


@jit("void(i4[::1], i8, b1, u8[:,::1])")
def _draw(points, padding, on, plane):
    """Set the bit of every point in the plane, or clear its word."""
    for point in points:
        y, bit = np.int64(point) >> 16, (np.int64(point) & 0xFFFF) + padding
        if on:
            plane[y, bit >> 6] |= np.uint64(1) << np.uint64(bit & 63)
        else:
            plane[y, bit >> 6] = np.uint64(0)


@jit("u8(u8[::1], i8, i8)")
def _any_of_next(row, bit, length):
    """Bit x says whether any of the bits bit + x .. bit + x + length - 1 of a row of a plane is set; length <= 65."""
    word, shift = bit >> 6, np.uint64(bit & 63)
    low, high = row[word], row[word + 1]
    if shift:
        low = low >> shift | high << (np.uint64(64) - shift)
        high = high >> shift | row[word + 2] << (np.uint64(64) - shift)
    done = 1
    while done < length and low | high:
        further = np.uint64(min(done, length - done))
        if further == np.uint64(64):
            low |= high
        else:
            low |= low >> further | high << (np.uint64(64) - further)
            high |= high >> further
        done *= 2
    return low


@jit("i8(i4[::1], i4[::1], i8, i4[::1], i4[::1], u8[:,::1], u8[:,::1])")
def _count_near(points, others, padding, left, right, own, plane):
    """Count the points with a set bit of the plane (in which `others` are drawn) within their disk, 64 at a time.

    left, right: i4 (2 R + 1,), extent of the disk in the rows -R..R, right < left where a row is empty. Points are in
    the order of rows and drawn in `own`.
    """
    radius = left.size // 2
    first_row, last_row = np.int64(others[0]) >> 16, np.int64(others[others.size - 1]) >> 16
    found = index = 0
    while index < points.size:
        y, word = np.int64(points[index]) >> 16, ((np.int64(points[index]) & 0xFFFF) + padding) >> 6
        left_over = own[y, word]  # of the points in this word, those for which nothing is found yet
        number = _bit_count(left_over)
        index += number
        for step in range(2 * radius + 1):
            # 0, 1, -1, 2, -2, ...: the other boundary is usually near
            dy = (step + 1) // 2 if step & 1 else -(step // 2)
            if y + dy < first_row or y + dy > last_row:
                continue
            bit, bits = 64 * word + left[radius + dy], right[radius + dy] - left[radius + dy] + 1
            while bits > 0:
                left_over &= ~_any_of_next(plane[y + dy], bit, min(bits, 65))
                bit += 65
                bits -= 65
            if not left_over:
                break
        found += number - _bit_count(left_over)
    return found


@jit("void(u1[::1], u1[::1], i8, i8, i8, i8[:,::1], f8, i4[:,:,::1], u1[::1], i4[:,::1], u8[:,:,::1])")
def count(gt, pred, height, width, adaptive, table, cap, disks, differences, points, planes):
    """Write the counts of all labels of a frame to the first nine rows of `table`, i8 (12, 256).

    gt, pred: uint8 (H (1 + W),), the rows of a map after each other; the first byte of each is ignored. disks: i4 (2,
    R + 1, 2 R + 1), their left and right ends by radius 1..R; row 0 is the disk of radius `cap` of MOSEv2. planes:
    uint64 (2, H, words), zero on entry and on return. The rest are buffers: differences, uint8 (W rounded up to 64);
    points, i4 (2, 5 H W + 256), holds y << 16 | x of both maps, then the same by label.
    """
    left, right = disks[0], disks[1]
    radius = left.shape[0] - 1
    gt_plane, pred_plane = planes[0], planes[1]
    gt_ends, pred_ends, chosen = table[9], table[10], table[11]
    gt_positions, gt_points = points[0][: height * width], points[0][height * width :]
    pred_positions, pred_points = points[1][: height * width], points[1][height * width :]
    padding = 64 * ((radius + 63) // 64)
    table[:] = 0
    gt_boundary, pred_boundary = table[GT_BOUNDARY], table[PRED_BOUNDARY]
    gt_positions = gt_positions[: _find_boundary(gt, height, width, differences, gt_positions)]
    pred_positions = pred_positions[: _find_boundary(pred, height, width, differences, pred_positions)]
    common = table[INTERSECTION]
    _tally(gt, pred, gt_positions, height, width, False, gt_boundary, table[GT_PIXELS], common)
    _tally(pred, gt, pred_positions, height, width, True, pred_boundary, table[PRED_PIXELS], common)
    for row in range(table.shape[0]):
        table[row, 0] = 0
    total_gt = total_pred = n_chosen = 0
    for label in range(256):
        chosen[label] = gt_boundary[label] > 0 and pred_boundary[label] > 0
        if chosen[label]:
            gt_ends[label], pred_ends[label] = total_gt, total_pred
            total_gt += gt_boundary[label] + 1  # one more, see _sort_by_label
            total_pred += pred_boundary[label] + 1
            n_chosen += 1
    if not total_gt:
        return
    for label in range(256):
        if not chosen[label]:
            gt_ends[label], pred_ends[label] = total_gt, total_pred
    if n_chosen > 1 or total_gt <= gt_positions.size:
        _sort_by_label(gt, gt_positions, height, width, gt_ends, chosen, gt_points)
    if n_chosen > 1 or total_pred <= pred_positions.size:
        _sort_by_label(pred, pred_positions, height, width, pred_ends, chosen, pred_points)
    for label in range(1, 256):
        if not chosen[label]:
            continue
        g = gt_points[gt_ends[label] - gt_boundary[label] : gt_ends[label]]
        p = pred_points[pred_ends[label] - pred_boundary[label] : pred_ends[label]]
        # Mostly, an object is the only one, and all positions are its own.
        if gt_boundary[label] == gt_positions.size:
            g = gt_positions
        if pred_boundary[label] == pred_positions.size:
            p = pred_positions
        _draw(g, padding, True, gt_plane)
        _draw(p, padding, True, pred_plane)
        table[GT_MATCHED, label] = _count_near(g, p, padding, left[radius], right[radius], gt_plane, pred_plane)
        table[PRED_MATCHED, label] = _count_near(p, g, padding, left[radius], right[radius], pred_plane, gt_plane)
        if adaptive:
            tolerance = np.ceil(0.1 * np.sqrt(table[GT_PIXELS, label]))
            disk = np.int64(tolerance) if tolerance < cap else 0
            lower, upper = left[disk], right[disk]
            table[GT_MATCHED_ADAPTIVE, label] = _count_near(g, p, padding, lower, upper, gt_plane, pred_plane)
            table[PRED_MATCHED_ADAPTIVE, label] = _count_near(p, g, padding, lower, upper, pred_plane, gt_plane)
        _draw(g, padding, False, gt_plane)
        _draw(p, padding, False, pred_plane)
