"""Compiled loops of `metrics.counts`. Importing this module compiles them; `base.compiled` does that once.

Why they are fast: label maps are runs of equal labels (`io.runs`), so empty areas cost nothing. Object by object, some
rows at a time, both masks are drawn as bits around the object, 64 pixels per word. Boundaries, overlaps, and the pixels
in a rectangle around any boundary pixel are then a few operations per word, which processors do for several words at
once. One rectangle is inside the disk of the tolerance and one around it, so that only the pixels between both have to
be looked up in the rows of the disk.
"""

# No type hints: these functions are compiled, their signatures say the types.

import numpy as np

from vosarena.base.compiled import jit

# Columns of the result: the label, COUNTS and then ADAPTIVE_COUNTS of `metrics.counts`.
INTERSECTION, GT_PIXELS, PRED_PIXELS, GT_BOUNDARY, PRED_BOUNDARY, GT_MATCHED, PRED_MATCHED = range(1, 8)
_FIELD = (1 << 20) - 1  # a run of an object is one number: y << 40 | x of the first pixel << 20 | x of the last pixel
_ALL = np.uint64(0xFFFFFFFFFFFFFFFF)
_ONE = np.uint64(1)
_LAST = np.uint64(63)


@jit("i8(u8)")
def _bit_count(word):
    """How many bits are set (LLVM knows this form and makes one instruction of it)."""
    word -= (word >> np.uint64(1)) & np.uint64(0x5555555555555555)
    word = (word & np.uint64(0x3333333333333333)) + ((word >> np.uint64(2)) & np.uint64(0x3333333333333333))
    word = (word + (word >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return (word * np.uint64(0x0101010101010101)) >> np.uint64(56)


@jit("void(i4[::1], u1[::1], i8, i8[::1], i8[::1], i8[::1])")
def _sort_runs(starts, labels, step, pixels, ends, out):
    """Write the runs of objects, grouped by label, and the pixels of each label.

    ends: where each label's group ends, which is where the next one begins; written.
    """
    pixels[:] = 0
    ends[:] = 0
    for run in range(labels.size):
        pixels[labels[run]] += starts[run + 1] - starts[run]
        ends[labels[run]] += 1
    ends[0] = total = 0
    for label in range(256):
        number = ends[label]
        ends[label] = total
        total += number
    y = row = 0  # row: where row y begins
    for run in range(labels.size):
        start, label = np.int64(starts[run]), np.int64(labels[run])
        while row + step <= start:
            row += step
            y += 1
        if label:
            out[ends[label]] = y << 40 | (start - row - 1) << 20 | (starts[run + 1] - row - 2)
            ends[label] += 1


@jit("UniTuple(i8, 4)(i8[::1], i8, i8, i8)")
def _find_band(runs, near, top, bottom):
    """Find the runs in the rows top .. bottom, beginning at run `near`.

    Returns the first one, the one after the last one, and the least and the largest x in them.
    """
    begin = end = near
    while begin > 0 and runs[begin - 1] >> 40 >= top:
        begin -= 1
    while end < runs.size and runs[end] >> 40 <= bottom:
        end += 1
    least, largest = _FIELD, np.int64(0)
    for run in runs[begin:end]:
        least = min(least, run >> 20 & _FIELD)
        largest = max(largest, run & _FIELD)
    return begin, end, least, largest


@jit("void(i8[::1], i8, i8, u8[::1])")
def _draw(runs, origin, stride, plane):
    """Set the bits of runs. Pixel (y, x) is bit x of the row that begins at word origin + y * stride."""
    for run in runs:
        row, x, last = origin + (run >> 40) * stride, run >> 20 & _FIELD, run & _FIELD
        word, last_word = row + (x >> 6), row + (last >> 6)
        head, tail = _ALL << np.uint64(x & 63), _ALL >> np.uint64(63 - (last & 63))
        if word == last_word:
            plane[word] |= head & tail
        else:
            plane[word] |= head
            for inner in range(word + 1, last_word):
                plane[inner] = _ALL
            plane[last_word] |= tail


@jit("i8(u8[::1], u8[::1], i8, i8)")
def _count_common(a, b, start, stop):
    """How many bits are set in both, in the words start .. stop - 1."""
    found = 0
    a, b = a[start:stop], b[start:stop]
    for i in range(a.size):
        found += _bit_count(a[i] & b[i])
    return found


@jit("void(u8[::1], u8[::1], i8, i8, i8)")
def _find_boundary(plane, out, start, stop, stride):
    """Set the bits of pixels whose 2x2 block, of which they are the upper left one, is not uniform."""
    upper, next_upper = plane[start:stop], plane[start + 1 : stop + 1]
    lower, next_lower = plane[start + stride : stop + stride], plane[start + stride + 1 : stop + stride + 1]
    out = out[start:stop]
    for i in range(out.size):
        a, c = upper[i], lower[i]
        b, d = a >> _ONE | next_upper[i] << _LAST, c >> _ONE | next_lower[i] << _LAST
        out[i] = (a | b | c | d) ^ (a & b & c & d)


@jit("void(u8[::1], u8[::1], i8, i8, i8)")
def _grow_rows(plane, out, start, stop, distance):
    """Set the bits that are set in this word, or `distance` words before or after it."""
    before, after = plane[start - distance : stop - distance], plane[start + distance : stop + distance]
    here, out = plane[start:stop], out[start:stop]
    for i in range(out.size):
        out[i] = before[i] | here[i] | after[i]


@jit("void(u8[::1], u8[::1], i8, i8, i8)")
def _grow_columns(plane, out, start, stop, distance):
    """Set the bits that are set here, or `distance` bits before or after it; 0 < distance < 64."""
    shift, back = np.uint64(distance), np.uint64(64 - distance)
    before, here, after = plane[start - 1 : stop - 1], plane[start:stop], plane[start + 1 : stop + 1]
    out = out[start:stop]
    for i in range(out.size):
        word = here[i]
        out[i] = word | word << shift | word >> shift | before[i] >> back | after[i] << back


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


@jit("i8(u8, u8[::1], i8, i8, i4[::1], i4[::1])")
def _count_far(pixels, plane, word, stride, left, right):
    """How many pixels of a word have no set bit of the plane in their disk.

    left, right: i4 (2 R + 1,), extent of the disk in the rows -R..R, right < left where a row is empty.
    """
    number = left.size
    centre = number // 2
    index = 0  # rows in the order 0, 1, -1, 2, -2, ..., because those next to each other mostly have the same extent
    while index < number and pixels:
        row = centre + ((index + 1) >> 1) * (2 * (index & 1) - 1)
        bit, end = np.int64(left[row]), np.int64(right[row])
        after = index
        while after < number:
            row = centre + ((after + 1) >> 1) * (2 * (after & 1) - 1)
            if left[row] != bit or right[row] != end:
                break
            after += 1
        while bit <= end:
            low = high = next_high = np.uint64(0)
            for same in range(index, after):
                dy = ((same + 1) >> 1) * (2 * (same & 1) - 1)
                first = word + dy * stride + (bit >> 6)
                low |= plane[first]
                high |= plane[first + 1]
                next_high |= plane[first + 2]
            shift = np.uint64(bit & 63)
            if shift:
                low = low >> shift | high << (np.uint64(64) - shift)
                high = high >> shift | next_high << (np.uint64(64) - shift)
            pixels &= ~_any_of_next(low, high, min(end + 1 - bit, 65))
            bit += 65
        index = after
    return _bit_count(pixels)


@jit("void(u8[::1], u8[::1], i8, i8, i8, i8, i8, i8, i8)")
def _find_edges(plane, edges, gap, stride, rows, top, height, left, width):
    """Set the bits of boundary pixels: their 2x2 block, cut off at the edges of the image, is not uniform.

    rows: number of rows to write; the plane has one more. top: y of the first one. left: x of the first pixel in a row,
    whose last `gap` words are empty.
    """
    last, words = width - 1 - left, stride - gap
    keep = _ALL
    if last >> 6 < words:  # the pixel after the last one is equal to it
        for row in range(gap, gap + (rows + 1) * stride, stride):
            value = plane[row + (last >> 6)] >> np.uint64(last & 63) & _ONE
            plane[row + ((last + 1) >> 6)] |= value << np.uint64((last + 1) & 63)
        keep = _ALL >> np.uint64(63 - (last & 63))
    last = height - 1 - top
    if last < rows:
        for word in range(gap + last * stride, gap + (last + 1) * stride):
            plane[word + stride] = plane[word]
    _find_boundary(plane, edges, gap, gap + rows * stride, stride)
    for row in range(gap, gap + rows * stride, stride):
        edges[row + words - 1] &= keep
        edges[row + words : row + stride] = np.uint64(0)
    if top < 0:
        before = gap + (-1 - top) * stride
        edges[before : before + stride] = np.uint64(0)
    if last + 1 < rows:
        after = gap + (last + 1) * stride
        edges[after : after + stride] = np.uint64(0)


@jit("i8(u8[::1], u8[::1], u8[:,::1], i8, i8, i8, i4[::1], i4[::1], i4[::1])")
def _count_near(own, other, buffers, start, stop, stride, left, right, reach):
    """How many bits of `own`, in the words start .. stop - 1, have a set bit of `other` in their disk.

    buffers: three planes. left, right: see `_count_far`. reach: half the rows and columns of a rectangle inside the
    disk, and how many more, at least 1, those of one around it have. The first is -1 if there are no such rectangles.
    """
    near, out, spare, wide = other, buffers[0], buffers[1], buffers[2]
    rows, columns, more_rows, more_columns = reach[0], reach[1], reach[2], reach[3]
    done = 0
    begin, end = start - more_rows * stride, stop + more_rows * stride
    while done < rows:
        further = min(2 * done + 1, rows - done)
        done += further
        margin = (rows - done) * stride
        _grow_rows(near, out, begin - margin, end + margin, further * stride)
        near, out, spare = out, spare, out
    done = 0
    while done < columns:
        further = min(2 * done + 1, columns - done, 63)
        done += further
        _grow_columns(near, out, begin, end, further)
        near, out, spare = out, spare, out
    known = rows >= 0
    if known:
        # Bits of the last object beyond the margins may get into `out`, which then holds too many, but not too few.
        _grow_rows(near, wide, start, stop, more_rows * stride)
        _grow_columns(wide, out, start, stop, more_columns)
    found = 0
    own, near, out = own[start:stop], near[start:stop], out[start:stop]
    for i in range(own.size):
        pixels = own[i]
        if known:
            pixels &= out[i]
            found += _bit_count(pixels)
            pixels &= ~near[i]
        else:
            found += _bit_count(pixels)
        if pixels:
            found -= _count_far(pixels, other, start + i, stride, left, right)
    return found


@jit(
    "i8(i4[::1], u1[::1], i4[::1], u1[::1], i8, i8, i8, f8, i4[:,:,::1], i4[:,::1], i8[:,::1], u8[:,::1], i8,"
    "i8[:,::1], i8[:,::1])"
)
def count(
    gt_starts, gt, pred_starts, pred, height, width, adaptive, cap, disks, reach, runs, planes, band, by_label, table
):
    """Write the counts of all labels of a frame to the rows of `table`, i8 (255, 10). Returns the number of labels.

    gt_starts, gt, pred_starts, pred: starts and labels of `io.runs.Runs`. disks: i4 (2, R + 1, 2 R + 1), their left and
    right ends by radius 1..R; row 0 is the disk of radius `cap` of MOSEv2. reach: i4 (R + 1, 4), see `_count_near`.
    runs: a buffer, i8 (2, N), N at least the runs of a map. planes: uint64 (7, N) for `band` + 2 R + 2 rows of a map,
    zero before the first use. band: rows that are counted at once. by_label: a buffer, i8 (4, 256).
    """
    gt_pixels, pred_pixels, gt_ends, pred_ends = by_label[0], by_label[1], by_label[2], by_label[3]
    _sort_runs(gt_starts, gt, width + 1, gt_pixels, gt_ends, runs[0])
    _sort_runs(pred_starts, pred, width + 1, pred_pixels, pred_ends, runs[1])
    radius = disks.shape[1] - 1
    gap = radius // 64 + 1  # empty words between two rows, and before the first one
    g, p = planes[0], planes[1]
    found = 0
    for label in range(1, 256):
        if not gt_pixels[label] and not pred_pixels[label]:
            continue
        counts = table[found]
        counts[:] = 0
        counts[0], counts[GT_PIXELS], counts[PRED_PIXELS] = label, gt_pixels[label], pred_pixels[label]
        disk = -1
        if adaptive:
            tolerance = np.ceil(0.1 * np.sqrt(gt_pixels[label]))
            disk = np.int64(tolerance) if tolerance < cap else 0
        g_runs = runs[0][gt_ends[label - 1] : gt_ends[label]]
        p_runs = runs[1][pred_ends[label - 1] : pred_ends[label]]
        next_g = next_p = done = 0  # rows before `done` are counted
        while next_g < g_runs.size or next_p < p_runs.size:
            y = height
            if next_g < g_runs.size:
                y = min(y, g_runs[next_g] >> 40)
            if next_p < p_runs.size:
                y = min(y, p_runs[next_p] >> 40)
            y = max(y - 1, done)  # the boundary begins a row above the object
            after_g, after_p = next_g, next_p
            while after_g < g_runs.size and g_runs[after_g] >> 40 < y + band:
                after_g += 1
                done = (g_runs[after_g - 1] >> 40) + 1
            while after_p < p_runs.size and p_runs[after_p] >> 40 < y + band:
                after_p += 1
                done = max(done, (p_runs[after_p - 1] >> 40) + 1)
            top, rows = y - radius, done - y + 2 * radius
            g_begin, g_end, g_least, g_largest = _find_band(g_runs, next_g, top, top + rows)
            p_begin, p_end, p_least, p_largest = _find_band(p_runs, next_p, top, top + rows)
            left = max(min(g_least, p_least) - 1, 0) >> 6
            stride = (max(g_largest, p_largest) >> 6) - left + 1 + gap
            start = gap + radius * stride
            stop, end = start + (done - y) * stride, gap + (rows + 1) * stride + 1
            origin = gap - top * stride - left
            g[gap:end] = np.uint64(0)
            p[gap:end] = np.uint64(0)
            _draw(g_runs[g_begin:g_end], origin, stride, g)
            _draw(p_runs[p_begin:p_end], origin, stride, p)
            counts[INTERSECTION] += _count_common(g, p, start, stop)
            for side in range(2):  # one call each instead of two, because functions are inlined
                edges = planes[2 + side]
                _find_edges(planes[side], edges, gap, stride, rows, top, height, 64 * left, width)
                counts[GT_BOUNDARY + side] += _count_common(edges, edges, start, stop)
            if g_begin < g_end and p_begin < p_end:
                for place in range(GT_MATCHED, GT_MATCHED + (2 if disk < 0 else 4)):
                    side, chosen = (place - GT_MATCHED) & 1, radius if place <= PRED_MATCHED else disk
                    own, other = planes[2 + side], planes[3 - side]
                    counts[place] += _count_near(
                        own, other, planes[4:], start, stop, stride, disks[0][chosen], disks[1][chosen], reach[chosen]
                    )
            next_g, next_p = after_g, after_p
        found += 1
    return found
