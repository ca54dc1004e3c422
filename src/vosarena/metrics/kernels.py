"""Compiled loops of `metrics.counts`. Importing this module compiles them; `base.compiled` does that once.

Why they are fast: label maps are runs of equal labels (`io.runs`), so empty areas and the insides of objects cost
nothing. Areas are sums over runs. Two rows at a time, the ends of their runs give the boundaries of all objects. Then,
object by object, the boundary of one map is drawn as bits, and the boundary pixels of the other map look for set bits
in their disks, 64 pixels at a time: first in a rectangle inside the disk, where most find one, then in one around it.
"""

# No type hints: these functions are compiled, their signatures say the types.

import numpy as np

from vosarena.base.compiled import jit

# Rows of `table`, one column per label: COUNTS and ADAPTIVE_COUNTS of `metrics.counts`.
INTERSECTION, GT_PIXELS, PRED_PIXELS, GT_BOUNDARY, PRED_BOUNDARY, GT_MATCHED, PRED_MATCHED = range(7)
GT_MATCHED_ADAPTIVE, PRED_MATCHED_ADAPTIVE = 7, 8
_LENGTH = (1 << 20) - 1  # of the number that holds the label and the length of a span
_ALL = np.uint64(0xFFFFFFFFFFFFFFFF)


@jit("i8(u8)")
def _bit_count(word):
    """How many bits are set (LLVM knows this form and makes one instruction of it)."""
    word -= (word >> np.uint64(1)) & np.uint64(0x5555555555555555)
    word = (word & np.uint64(0x3333333333333333)) + ((word >> np.uint64(2)) & np.uint64(0x3333333333333333))
    word = (word + (word >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return (word * np.uint64(0x0101010101010101)) >> np.uint64(56)


@jit("void(i4[::1], u1[::1], i4[::1], u1[::1], i8[::1], i8[::1], i8[::1])")
def _add_areas(gt_starts, gt, pred_starts, pred, gt_pixels, pred_pixels, common):
    """Add the pixels of each label, and those that it has in both maps."""
    for run in range(gt.size):
        gt_pixels[gt[run]] += gt_starts[run + 1] - gt_starts[run]
    for run in range(pred.size):
        pred_pixels[pred[run]] += pred_starts[run + 1] - pred_starts[run]
    i = j = start = 0
    while i < gt.size:
        gt_end, pred_end = np.int64(gt_starts[i + 1]), np.int64(pred_starts[j + 1])
        end = min(gt_end, pred_end)
        common[gt[i]] += (end - start) * (gt[i] == pred[j])
        i += gt_end == end
        j += pred_end == end
        start = end


@jit("i8(i4[:,::1], i8, i8, i8, i8, i8[::1], i8[::1])")
def _add_span(spans, found, label, place, length, boundary, numbers):
    """Write a span of boundary pixels, or make the last one longer. Returns the number of spans.

    A span of label 0 is overwritten by the next one.
    """
    boundary[label] += length
    last = found - 1
    if found and spans[1, last] >> 20 == label and spans[0, last] + (spans[1, last] & _LENGTH) == place:
        spans[1, last] += length
        return found
    spans[0, found] = place
    spans[1, found] = label << 20 | length
    numbers[label] += 1
    return found + (label != 0)


@jit("i8(i4[::1], u1[::1], i8, i8, i4[:,::1], i8[::1], i8[::1])")
def _find_boundary(starts, labels, height, step, spans, boundary, numbers):
    """Write the boundaries of all objects as spans, in the order of rows. Returns the number of spans.

    A 2x2 block that is not uniform, cut off at the edges, is a boundary pixel of every object in it. Row by row,
    between the ends of the runs of a row and of the next one, all blocks but the last are alike.

    spans: y << 16 | x of the first pixel, and label << 20 | length. boundary, numbers: the pixels and the spans of each
    label, added.
    """
    found = y = row = 0  # row: where row y begins
    upper = lower = start = 0
    last_row = (height - 1) * step
    while starts[lower + 1] <= step and lower + 1 < labels.size:
        lower += 1
    a, c = np.int64(labels[upper]), np.int64(labels[lower])
    while start < last_row:
        upper_end, lower_end = np.int64(starts[upper + 1]), np.int64(starts[lower + 1]) - step
        end = min(upper_end, lower_end)
        upper += upper_end == end
        lower += (lower_end == end) & (lower + 1 < labels.size)
        b, d = np.int64(labels[upper]), np.int64(labels[lower])
        while row + step < end:
            row += step
            y += 1
        place = y << 16 | (end - row - 2)  # of the last block
        inside = (end > row + 1) & (end < row + step)  # neither before the first pixel nor the row's last
        if a != c:
            length = end - start
            found = _add_span(spans, found, a, place - length + 1, length, boundary, numbers)
            found = _add_span(spans, found, c, place - length + 1, length, boundary, numbers)
        elif inside and (a != b or a != d):
            found = _add_span(spans, found, a, place, 1, boundary, numbers)
        if inside:
            if b not in (a, c):
                found = _add_span(spans, found, b, place, 1, boundary, numbers)
            if d not in (a, b, c):
                found = _add_span(spans, found, d, place, 1, boundary, numbers)
        start, a, c = end, b, d
    y = height - 1
    while upper + 1 < labels.size:  # the last row: nothing is below it
        end = np.int64(starts[upper + 1])
        a, b = np.int64(labels[upper]), np.int64(labels[upper + 1])
        if a != b and end > last_row + 1:
            place = y << 16 | (end - last_row - 2)
            found = _add_span(spans, found, a, place, 1, boundary, numbers)
            found = _add_span(spans, found, b, place, 1, boundary, numbers)
        upper += 1
    return found


@jit("void(i4[:,::1], i8, i8[::1], i8[::1], i4[:,::1])")
def _sort_by_label(spans, number, ends, chosen, out):
    """Write the spans of chosen labels, grouped by label.

    ends: where each label's group begins in `out`, and on return where it ends.
    """
    for index in range(number):
        label = spans[1, index] >> 20
        if chosen[label]:
            out[0, ends[label]] = spans[0, index]
            out[1, ends[label]] = spans[1, index] & _LENGTH
            ends[label] += 1


@jit("void(i4[:,:], i8, i8, b1, u8[::1])")
def _draw(spans, padding, step, on, plane):
    """Set the bits of spans in the plane, whose rows have `step` words, or clear their words."""
    for index in range(spans.shape[1]):
        y, x = np.int64(spans[0, index]) >> 16, (np.int64(spans[0, index]) & 0xFFFF) + padding
        last = x + spans[1, index] - 1
        for word in range(x >> 6, (last >> 6) + 1):
            if on:
                bits = _ALL
                if word == x >> 6:
                    bits = _ALL << np.uint64(x & 63)
                if word == last >> 6:
                    bits &= _ALL >> np.uint64(63 - (last & 63))
                plane[y * step + word] |= bits
            else:
                plane[y * step + word] = np.uint64(0)


@jit("u8(u8, u8, i8)")
def _any_of_next(low, high, length):
    """Bit x says whether any of the bits x .. x + length - 1 of 128 bits is set; length <= 65."""
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


@jit("u8(u8[::1], i8, i8, i8, i8, i8)")
def _any_in_rows(plane, step, top, bottom, bit, length):
    """Bit x says whether bits bit + x .. bit + x + length - 1 of rows top .. bottom have a set one; length <= 65.

    plane: rows of `step` words after each other. Unsigned indices are faster, because they cannot be negative.
    """
    shift, one, two = np.uint64(bit & 63), np.uint64(1), np.uint64(2)
    low = high = next_high = np.uint64(0)
    first, down = np.uint64(top * step + (bit >> 6)), np.uint64(step)
    left = bottom + 1 - top
    while left > 1:
        second = first + down
        low |= plane[first] | plane[second]
        high |= plane[first + one] | plane[second + one]
        next_high |= plane[first + two] | plane[second + two]
        first = second + down
        left -= 2
    if left == 1:
        low |= plane[first]
        high |= plane[first + one]
        next_high |= plane[first + two]
    if shift:
        low = low >> shift | high << (np.uint64(64) - shift)
        high = high >> shift | next_high << (np.uint64(64) - shift)
    return _any_of_next(low, high, length)


@jit("i8(i4[:,:], i4[:,:], i8, i8, i4[::1], i4[::1], u8[::1], u8[::1])")
def _count_near(spans, others, padding, step, left, right, own, plane):
    """Count the pixels of spans with a set bit of the plane (in which `others` are drawn) within their disk.

    left, right: i4 (2 R + 1,), extent of the disk in the rows -R..R, right < left where a row is empty. Spans are in
    the order of rows and drawn in `own`.
    """
    radius = left.size // 2
    first_row, last_row = np.int64(others[0, 0]) >> 16, np.int64(others[0, others.shape[1] - 1]) >> 16
    top, bottom = radius, -radius
    outer_left, outer_right = radius, -radius
    for dy in range(-radius, radius + 1):
        if left[radius + dy] <= right[radius + dy]:
            top, bottom = min(top, dy), max(bottom, dy)
            outer_left = min(outer_left, np.int64(left[radius + dy]))
            outer_right = max(outer_right, np.int64(right[radius + dy]))
    cut = (bottom - top) * 3 // 20  # leaves the rows of about the largest square in the disk
    inner_left, inner_right = outer_left, outer_right
    for dy in range(top + cut, bottom - cut + 1):
        inner_left = max(inner_left, np.int64(left[radius + dy]))
        inner_right = min(inner_right, np.int64(right[radius + dy]))
    found = 0
    seen = np.int64(-1)
    for index in range(spans.shape[1]):
        y, x = np.int64(spans[0, index]) >> 16, (np.int64(spans[0, index]) & 0xFFFF) + padding
        for word in range(x >> 6, ((x + spans[1, index] - 1) >> 6) + 1):
            if seen == y << 16 | word:
                continue
            seen = y << 16 | word
            left_over = own[y * step + word]  # of the pixels in this word, those for which nothing is found yet
            number = _bit_count(left_over)
            above, below = max(first_row, y + top + cut), min(last_row, y + bottom - cut)
            bits = inner_right - inner_left + 1
            if 0 < bits <= 65:
                left_over &= ~_any_in_rows(plane, step, above, below, 64 * word + inner_left, bits)
            above, below = max(first_row, y + top), min(last_row, y + bottom)
            bits = outer_right - outer_left + 1
            far = np.uint64(0)  # pixels for which there is nothing to find
            if left_over and bits <= 65:
                far = left_over & ~_any_in_rows(plane, step, above, below, 64 * word + outer_left, bits)
                left_over ^= far
            for row in range(above, below + 1):
                if not left_over:
                    break
                bit, bits = 64 * word + left[radius + row - y], right[radius + row - y] - left[radius + row - y] + 1
                while bits > 0:
                    left_over &= ~_any_in_rows(plane, step, row, row, bit, min(bits, 65))
                    bit += 65
                    bits -= 65
            found += number - _bit_count(left_over | far)
    return found


@jit("void(i4[::1], u1[::1], i4[::1], u1[::1], i8, i8, i8, i8[:,::1], f8, i4[:,:,::1], i4[:,:,::1], i8, u8[:,::1])")
def count(gt_starts, gt, pred_starts, pred, height, width, adaptive, table, cap, disks, spans, step, planes):
    """Write the counts of all labels of a frame to the first nine rows of `table`, i8 (14, 256).

    gt_starts, gt, pred_starts, pred: starts and labels of `io.runs.Runs`. disks: i4 (2, R + 1, 2 R + 1), their left and
    right ends by radius 1..R; row 0 is the disk of radius `cap` of MOSEv2. spans: a buffer, i4 (4, 2, N), N at least 8
    times the runs of a map. step: words of a row of the planes. planes: uint64 (2, H * step), zero on entry and on
    return.
    """
    left, right = disks[0], disks[1]
    radius = left.shape[0] - 1
    gt_plane, pred_plane = planes[0], planes[1]
    gt_ends, pred_ends, chosen, gt_numbers, pred_numbers = table[9], table[10], table[11], table[12], table[13]
    padding = 64 * ((radius + 63) // 64)
    table[:] = 0
    _add_areas(gt_starts, gt, pred_starts, pred, table[GT_PIXELS], table[PRED_PIXELS], table[INTERSECTION])
    gt_boundary, pred_boundary = table[GT_BOUNDARY], table[PRED_BOUNDARY]
    gt_found = _find_boundary(gt_starts, gt, height, width + 1, spans[0], gt_boundary, gt_numbers)
    pred_found = _find_boundary(pred_starts, pred, height, width + 1, spans[1], pred_boundary, pred_numbers)
    for row in range(table.shape[0]):
        table[row, 0] = 0
    gt_total = pred_total = 0
    for label in range(1, 256):
        if gt_boundary[label] and pred_boundary[label]:
            chosen[label] = 1
            gt_ends[label], pred_ends[label] = gt_total, pred_total
            gt_total += gt_numbers[label]
            pred_total += pred_numbers[label]
    if not gt_total:
        return
    _sort_by_label(spans[0], gt_found, gt_ends, chosen, spans[2])
    _sort_by_label(spans[1], pred_found, pred_ends, chosen, spans[3])
    for label in range(1, 256):
        if not chosen[label]:
            continue
        g = spans[2][:, gt_ends[label] - gt_numbers[label] : gt_ends[label]]
        p = spans[3][:, pred_ends[label] - pred_numbers[label] : pred_ends[label]]
        _draw(g, padding, step, True, gt_plane)
        _draw(p, padding, step, True, pred_plane)
        table[GT_MATCHED, label] = _count_near(g, p, padding, step, left[radius], right[radius], gt_plane, pred_plane)
        table[PRED_MATCHED, label] = _count_near(p, g, padding, step, left[radius], right[radius], pred_plane, gt_plane)
        if adaptive:
            tolerance = np.ceil(0.1 * np.sqrt(table[GT_PIXELS, label]))
            disk = np.int64(tolerance) if tolerance < cap else 0
            lower, upper = left[disk], right[disk]
            table[GT_MATCHED_ADAPTIVE, label] = _count_near(g, p, padding, step, lower, upper, gt_plane, pred_plane)
            table[PRED_MATCHED_ADAPTIVE, label] = _count_near(p, g, padding, step, lower, upper, pred_plane, gt_plane)
        _draw(g, padding, step, False, gt_plane)
        _draw(p, padding, step, False, pred_plane)
