"""Compiled loops of `io.runs`. Importing this module compiles them; `base.compiled` does that once.

Nearly all of a compressed label map are references to earlier bytes, up to 258 at a time, and nearly all of these lie
within one run of equal labels. `inflate_runs` follows the references from run to run, so it never writes the pixels.
"""

# No type hints: these functions are compiled, their signatures say the types.

import numpy as np

from vosarena.base.compiled import jit

_FAST = 10  # bits of a code that are looked up at once
_LONGEST = 15
_FAST_BITS, _CODE_BITS, _ALL = (
    np.uint64((1 << _FAST) - 1),
    np.uint64((1 << _LONGEST) - 1),
    np.uint64(0xFFFFFFFFFFFFFFFF),
)
# By symbol of a length minus 257, and of a distance: the least value, and how many bits are added (RFC 1951, 3.2.5)
_LENGTHS = np.array(
    [*range(3, 11), 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258]
)
_LENGTH_BITS = np.array([0] * 8 + [1] * 4 + [2] * 4 + [3] * 4 + [4] * 4 + [5] * 4 + [0])
_DISTANCES = np.array([1, 2, 3, 4, *((2 + n % 2) * 2 ** (n // 2 - 1) + 1 for n in range(4, 30))])
_DISTANCE_BITS = np.array([0, 0, 0, 0, *(n // 2 - 1 for n in range(4, 30))])
# Entries of the tables say all about a code at once: value << 9 | length of the code << 5 | length with the added bits.
# Here, by symbol, without the length of its code. Values are bytes, 256 (the end of a block), 256 + lengths, distances.
_NONE = -(1 << 20)  # a symbol that is not used
_PLAIN = np.arange(19) << 9
_LITERAL = np.array([*(np.arange(257) << 9), *((256 + _LENGTHS) << 9 | _LENGTH_BITS), _NONE, _NONE])
_DISTANCE = np.array([*(_DISTANCES << 9 | _DISTANCE_BITS), _NONE, _NONE])
_ORDER = np.array([16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15])


@jit("b1(i4[::1], Array(i8, 1, 'C', readonly=True), i4[::1], i4[::1], i4[::1])")
def _build(lengths, meanings, fast, symbols, counts):
    """Make the tables of a Huffman code from the lengths of its codes. Returns whether they are a code.

    meanings: by symbol, its entry without a length. fast: by the next bits, the entry, or 0. symbols: the meanings of
    those with a code, by code. counts: number of codes by length, and room for as many numbers.
    """
    counts[:] = 0
    for length in lengths:
        counts[length] += 1
    counts[0] = 0
    free, total = 1, 0
    places = counts[16:]  # of the first symbol of each length
    for length in range(1, _LONGEST + 1):
        free = 2 * free - counts[length]
        places[length] = total
        total += counts[length]
        if free < 0:
            return False
    if free and (total > 1 or counts[1] != total):  # only a code without or with one symbol may be incomplete
        return False
    for symbol in range(lengths.size):
        length = lengths[symbol]
        if length:
            symbols[places[length]] = meanings[symbol]
            places[length] += 1
    fast[:] = 0
    index = code = 0  # the code from its last bit to its first
    for length in range(1, _FAST + 1):
        for _ in range(counts[length]):
            entry = symbols[index] + 33 * length
            for place in range(code, 1 << _FAST, 1 << length):
                fast[place] = entry
            index += 1
            bit = 1 << (length - 1)
            while code & bit:
                code ^= bit
                bit >>= 1
            code |= bit
    return True


@jit("i8(i8, i4[::1], i4[::1])")
def _long_code(bits, symbols, counts):
    """The entry of the code that the next bits begin with; 0 if there is none."""
    code = first = index = 0
    for length in range(1, _LONGEST + 1):
        code |= bits & 1
        bits >>= 1
        number = counts[length]
        if code - number < first:
            return np.int64(symbols[index + code - first]) + 33 * length
        index += number
        first = (first + number) << 1
        code <<= 1
    return 0


@jit("u8(u8[::1], i8)")
def _next_word(words, at):
    """The 64 bits that begin at a bit."""
    word, shift = np.uint64(at) >> np.uint64(6), np.uint64(at & 63)
    return words[word] >> shift | words[word + np.uint64(1)] << np.uint64(1) << (np.uint64(63) - shift)


@jit("i8(u8[::1], i8)")
def _next_bits(words, at):
    """The 48 bits that begin at a bit."""
    return np.int64(_next_word(words, at) & np.uint64(0xFFFFFFFFFFFF))


@jit("i8(u8[::1], i8, i8, i8, i4[::1], u1[::1], i4[:,::1])")
def inflate_runs(words, size, step, total, starts, labels, work):
    """Decompress rows of a PNG to runs of equal bytes. Returns the number of runs, or -1.

    words: a zlib stream (RFC 1950 and 1951) of `size` bytes, and at least 16 more of 0. step: bytes of a row, the
    filter's among them. total: bytes of all rows. starts, labels: where each run begins, and its label, written;
    `starts` has one entry more at the end, `total`. work: a buffer, int32 (4, 1024).

    -1 means that somebody else has to look at the stream: it is damaged, has stored blocks, rows with a filter or more
    runs than fit.
    """
    literal, distance = work[0], work[1]
    literal_symbols, distance_symbols = work[2][:288], work[2][288:320]
    lengths = work[3][:320]
    literal_counts, distance_counts = work[3][320:352], work[3][352:384]
    most = labels.size - 1
    end = 8 * size
    bits = _next_bits(words, 0)
    if bits & 15 != 8 or bits & 0x2000 or ((bits & 255) << 8 | (bits >> 8 & 255)) % 31:
        return -1
    position = runs = final = 0
    last = -1
    at = 16  # bits
    while not final:
        bits = _next_bits(words, at)
        final, kind = bits & 1, bits >> 1 & 3
        if kind == 1:
            at += 3
            lengths[:144] = 8
            lengths[144:256] = 9
            lengths[256:280] = 7
            lengths[280:288] = 8
            lengths[288:320] = 5
            n_literals, n_distances = 288, 32
        elif kind == 2:
            n_literals, n_distances, number = 257 + (bits >> 3 & 31), 1 + (bits >> 8 & 31), 4 + (bits >> 13 & 15)
            at += 17
            if n_literals > 286 or n_distances > 30 or at + 3 * number > end:
                return -1
            lengths[:19] = 0
            for index in range(number):
                lengths[_ORDER[index]] = _next_bits(words, at) & 7
                at += 3
            if not _build(lengths[:19], _PLAIN, literal, literal_symbols, literal_counts):
                return -1
            index = 0
            while index < n_literals + n_distances:
                bits = _next_bits(words, at)
                entry = np.int64(literal[bits & 1023])
                if not entry or at > end:
                    return -1
                bits >>= entry & 31
                at += entry & 31
                symbol = entry >> 9
                if symbol < 16:
                    lengths[index] = symbol
                    index += 1
                    continue
                value = 0
                if symbol == 16:
                    if not index:
                        return -1
                    value, repeats = np.int64(lengths[index - 1]), 3 + (bits & 3)
                    at += 2
                elif symbol == 17:
                    repeats = 3 + (bits & 7)
                    at += 3
                else:
                    repeats = 11 + (bits & 127)
                    at += 7
                if index + repeats > n_literals + n_distances:
                    return -1
                lengths[index : index + repeats] = value
                index += repeats
        else:
            return -1
        if not _build(lengths[:n_literals], _LITERAL, literal, literal_symbols, literal_counts):
            return -1
        others = lengths[n_literals : n_literals + n_distances]
        if not _build(others, _DISTANCE, distance, distance_symbols, distance_counts):
            return -1
        word = _next_word(words, at)
        entry = np.int64(literal[word & _FAST_BITS])
        while True:
            if not entry:
                entry = _long_code(np.int64(word & _CODE_BITS), literal_symbols, literal_counts)
            used = entry & 31
            at += used
            value = entry >> 9
            if value < 256:
                if entry <= 0 or at > end or position >= total or runs >= most:
                    return -1
                # The next entry is looked up before more bits are read, so that it does not wait for them.
                entry = np.int64(literal[word >> np.uint64(used) & _FAST_BITS])
                word = _next_word(words, at)
                starts[runs] = position  # overwritten if the run goes on
                labels[runs] = value
                runs += value != last
                last = value
                position += 1
                continue
            if value == 256:
                break
            first, at_first = word, at - used
            left = value - 256 + (np.int64(word & ~(_ALL << np.uint64(used))) >> (entry >> 5 & 15))
            word >>= np.uint64(used)
            entry = np.int64(distance[word & _FAST_BITS])
            if not entry:
                entry = _long_code(np.int64(word & _CODE_BITS), distance_symbols, distance_counts)
            if entry <= 0 or at > end:
                return -1
            used = entry & 31
            at += used
            source = position - (entry >> 9) - (np.int64(word & ~(_ALL << np.uint64(used))) >> (entry >> 5 & 15))
            # A length and a distance take at most 48 bits, so the bits of the next entry are here, too.
            entry = np.int64(literal[word >> np.uint64(used) & _FAST_BITS])
            word = _next_word(words, at)
            if source < 0 or position + left > total:
                return -1
            run = runs - 1
            if source >= starts[run]:  # what is copied from the last run is of the last run
                position += left
                # Empty areas are the same few bits again and again.
                used = at - at_first
                mask = ~(_ALL << np.uint64(used))
                first &= mask
                if word & mask == first:
                    while word & mask == first and position + left <= total and at <= end:
                        at += used
                        position += left
                        word = _next_word(words, at)
                    entry = np.int64(literal[word & _FAST_BITS])
            else:
                lower = 0
                back = 1
                while back <= run:  # the run that the source lies in is usually a near one
                    if starts[run - back] <= source:
                        lower = run - back
                        break
                    run -= back
                    back *= 2
                while run - lower > 1:
                    middle = (lower + run) >> 1
                    if starts[middle] <= source:
                        lower = middle
                    else:
                        run = middle
                run = lower
                while run < runs - 1:
                    part = starts[run + 1] - source
                    if runs >= most:
                        return -1
                    label = np.int64(labels[run])
                    starts[runs] = position
                    labels[runs] = label
                    runs += label != last
                    last = label
                    if part >= left:
                        position += left
                        left = 0
                        break
                    position += part
                    source += part
                    left -= part
                    run += 1
                position += left
    at = (at + 7) >> 3
    if position != total or at + 4 > size:
        return -1
    starts[runs] = total
    # Adler-32, and that the first byte of each row is 0: no filter
    first, second, row = 1, 0, 0
    for run in range(runs):
        start, stop, label = np.int64(starts[run]), np.int64(starts[run + 1]), np.int64(labels[run])
        length = stop - start
        second += length * first
        if label:
            while row < start:
                row += step
            if row < stop:
                return -1
            second += label * (length * (length + 1) >> 1)
            first += label * length
    check = (second % 65521) << 16 | first % 65521
    bits = _next_bits(words, 8 * at)
    if check != (bits & 255) << 24 | (bits & 0xFF00) << 8 | (bits >> 8 & 0xFF00) | (bits >> 24 & 255):
        return -1
    return runs


_LOW = np.uint64(0x7F7F7F7F7F7F7F7F)
_GATHER = np.uint64(0x0102040810204080)  # times 8 bytes of 0 or 1: their bits side by side in the highest byte


@jit("i8(u8)")
def bit_count(word):
    """How many bits are set (LLVM knows this form and makes one instruction of it)."""
    word -= (word >> np.uint64(1)) & np.uint64(0x5555555555555555)
    word = (word & np.uint64(0x3333333333333333)) + ((word >> np.uint64(2)) & np.uint64(0x3333333333333333))
    word = (word + (word >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return (word * np.uint64(0x0101010101010101)) >> np.uint64(56)


@jit("u1(u1[::1], u1[::1])")
def _changes(row, out):
    """out[x] != 0 where x differs from the pixel before it, 0 before the first. Returns 0 if no x does."""
    found = out[0] = row[0]
    for x in range(1, row.size):
        different = row[x] ^ row[x - 1]
        out[x] = different
        found |= different
    return found


@jit("i8(u1[::1], i8, i8, u1[::1], i4[::1], u1[::1])")
def find_runs(rows, height, step, changes, starts, labels):
    """Find the runs of equal labels in rows of pixels. Returns their number.

    rows: uint8 (H * step,); the first byte of each row counts as 0. changes: a buffer, uint8 (step rounded up to 64),
    zero at its end. starts, labels: as in `inflate_runs`, large enough for any rows.
    """
    words = changes.view(np.uint64)
    runs = 0
    last = np.uint8(1)
    for y in range(height):
        begin = y * step
        if last:
            starts[runs] = begin
            labels[runs] = last = np.uint8(0)
            runs += 1
        row = rows[begin + 1 : begin + step]
        if not _changes(row, changes[: row.size]):
            continue
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
                x = 8 * block + bit_count((mixed & (~mixed + np.uint64(1))) - np.uint64(1))
                starts[runs] = begin + 1 + x
                labels[runs] = last = row[x]
                runs += 1
                mixed &= mixed - np.uint64(1)
    starts[runs] = height * step
    return runs
