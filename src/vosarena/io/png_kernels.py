"""Compiled loops of the PNG decoder. Importing this module compiles them; `base.compiled` does that once."""

# No type hints: these functions are compiled, their signatures say the types.

import numpy as np

from vosarena.base.compiled import jit

# Of `inflate`: what a code of at most this many bits means is looked up, longer ones are searched.
_FAST_BITS = 10
# Parts of its buffer. A table of codes has _FAST entries by the next bits of the stream, the number of codes by their
# length, all symbols in the order of their codes, and two parts that are needed to make the table.
_FAST, _COUNTS, _SYMBOLS = 1 << _FAST_BITS, 16, 288
_TABLE = _FAST + 3 * _COUNTS + _SYMBOLS
_LENGTHS = 320
BUFFER = 2 * _TABLE + _LENGTHS  # length of the buffer
# The order in which a stream gives the lengths of the codes with which the lengths of codes are written
_ORDER = np.array([16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15])


@jit("b1(i4[::1], i4[::1])")
def _make_table(lengths, table):
    """Make the table of codes with these lengths, by symbol. False if there are too many codes.

    Codes of one length are consecutive numbers in the order of their symbols, see RFC 1951, 3.2.2.
    """
    fast, counts, symbols = table[:_FAST], table[_FAST : _FAST + _COUNTS], table[_FAST + _COUNTS : -2 * _COUNTS]
    codes, places = table[-2 * _COUNTS : -_COUNTS], table[-_COUNTS:]  # of the next symbol, by length
    fast[:] = 0
    counts[:] = 0
    for length in lengths:
        counts[length] += 1
    counts[0] = 0
    codes[0] = places[0] = 0
    for length in range(1, _COUNTS):
        codes[length] = 2 * (codes[length - 1] + counts[length - 1])
        places[length] = places[length - 1] + counts[length - 1]
        if codes[length] + counts[length] > 1 << length:
            return False
    for symbol in range(lengths.size):
        length = lengths[symbol]
        if not length:
            continue
        symbols[places[length]] = symbol
        if length <= _FAST_BITS:
            first = 0  # the first bit of a code is the lowest one of the stream
            for bit in range(length):
                first |= (codes[length] >> bit & 1) << (length - 1 - bit)
            for entry in range(first, _FAST, 1 << length):
                fast[entry] = symbol << 4 | length
        places[length] += 1
        codes[length] += 1
    return True


@jit("i8(u8, i4[::1])")
def _next_symbol(bits, table):
    """The symbol whose code begins these bits, times 16, plus the length of its code; -1 if it is none."""
    entry = table[np.int64(bits & np.uint64(_FAST - 1))]
    if entry:
        return np.int64(entry)
    counts, symbols = table[_FAST : _FAST + _COUNTS], table[_FAST + _COUNTS : -2 * _COUNTS]
    code = first = index = np.int64(0)
    for length in range(1, _COUNTS):
        code = 2 * code + np.int64(bits >> np.uint64(length - 1) & np.uint64(1))
        first = 2 * first
        if code - first < counts[length]:
            return np.int64(symbols[index + code - first]) << 4 | length
        first += counts[length]
        index += counts[length]
    return np.int64(-1)


@jit("void(u1[::1], i8, i8, i8)")
def _repeat(out, end, distance, length):
    """Append `length` bytes to out[:end]: those that begin `distance` bytes before its end, again and again."""
    if distance == 1:
        out[end : end + length] = out[end - 1]
        return
    start = end - distance
    while length > 0:
        part = min(length, end - start)
        source, target = out[start : start + part], out[end : end + part]
        for i in range(part):
            target[i] = source[i]
        end += part
        length -= part


@jit("i8(u1[::1], u1[::1], i4[::1])")
def inflate(data, out, buffer):
    """Decompress a zlib stream (RFC 1950 and 1951). Its checksum is not compared.

    data: uint8 (n,), the stream. out: uint8 (size,), written. buffer: i4 (BUFFER,); buffer[0] becomes the number of
    bytes of the stream before its checksum.

    Returns the number of written bytes, or -1 if the stream is damaged or has more bytes than `out`.
    """
    literals, distances = buffer[:_TABLE], buffer[_TABLE : 2 * _TABLE]
    lengths = buffer[2 * _TABLE :]
    if buffer.size < BUFFER or data.size < 2 or data[0] & 15 != 8 or data[0] >> 4 > 7 or data[1] & 32:
        return -1
    if (np.int64(data[0]) << 8 | np.int64(data[1])) % 31:
        return -1
    bits, n_bits, position, end = np.uint64(0), np.int64(0), np.int64(2), np.int64(0)
    last = False
    while not last:
        while n_bits <= 56 and position < data.size:
            bits |= np.uint64(data[position]) << np.uint64(n_bits)
            position += 1
            n_bits += 8
        last = bits & np.uint64(1) == np.uint64(1)
        kind = np.int64(bits >> np.uint64(1) & np.uint64(3))
        bits >>= np.uint64(3)
        n_bits -= 3
        if kind == 0:  # not compressed
            position -= n_bits >> 3
            bits, n_bits = np.uint64(0), np.int64(0)
            if position + 4 > data.size:
                return -1
            length = np.int64(data[position]) | np.int64(data[position + 1]) << 8
            check = np.int64(data[position + 2]) | np.int64(data[position + 3]) << 8
            position += 4
            if length ^ check != 0xFFFF or position + length > data.size or end + length > out.size:
                return -1
            for i in range(length):
                out[end + i] = data[position + i]
            position += length
            end += length
            continue
        if kind == 1:
            lengths[:144] = 8
            lengths[144:256] = 9
            lengths[256:280] = 7
            lengths[280:288] = 8
            n_literals = 288
            lengths[288:320] = 5
            n_all = 320
        elif kind == 2:
            n_literals = 257 + np.int64(bits & np.uint64(31))
            n_all = n_literals + 1 + np.int64(bits >> np.uint64(5) & np.uint64(31))
            n_lengths = 4 + np.int64(bits >> np.uint64(10) & np.uint64(15))
            bits >>= np.uint64(14)
            n_bits -= 14
            lengths[:19] = 0
            for i in range(n_lengths):
                while n_bits <= 56 and position < data.size:
                    bits |= np.uint64(data[position]) << np.uint64(n_bits)
                    position += 1
                    n_bits += 8
                lengths[_ORDER[i]] = np.int64(bits & np.uint64(7))
                bits >>= np.uint64(3)
                n_bits -= 3
            if not _make_table(lengths[:19], literals):
                return -1
            i = 0
            while i < n_all:
                while n_bits <= 56 and position < data.size:
                    bits |= np.uint64(data[position]) << np.uint64(n_bits)
                    position += 1
                    n_bits += 8
                symbol = _next_symbol(bits, literals)
                if symbol < 0:
                    return -1
                bits >>= np.uint64(symbol & 15)
                n_bits -= symbol & 15
                symbol >>= 4
                value, repeats, extra = symbol, np.int64(1), np.int64(0)
                if symbol == 16:
                    if not i:
                        return -1
                    value, repeats, extra = np.int64(lengths[i - 1]), np.int64(3), np.int64(2)
                elif symbol == 17:
                    value, repeats, extra = np.int64(0), np.int64(3), np.int64(3)
                elif symbol == 18:
                    value, repeats, extra = np.int64(0), np.int64(11), np.int64(7)
                repeats += np.int64(bits & ((np.uint64(1) << np.uint64(extra)) - np.uint64(1)))
                bits >>= np.uint64(extra)
                n_bits -= extra
                if i + repeats > n_all or n_bits < 0:
                    return -1
                lengths[i : i + repeats] = value
                i += repeats
        else:
            return -1
        if not _make_table(lengths[:n_literals], literals) or not _make_table(lengths[n_literals:n_all], distances):
            return -1
        while True:
            while n_bits <= 56 and position < data.size:
                bits |= np.uint64(data[position]) << np.uint64(n_bits)
                position += 1
                n_bits += 8
            symbol = _next_symbol(bits, literals)
            if symbol < 0:
                return -1
            bits >>= np.uint64(symbol & 15)
            n_bits -= symbol & 15
            symbol >>= 4
            if symbol < 256:
                if end >= out.size or n_bits < 0:
                    return -1
                out[end] = symbol
                end += 1
                continue
            if symbol == 256:
                break
            # What the symbols of lengths and distances mean: RFC 1951, 3.2.5
            extra = (symbol - 261) >> 2
            if symbol < 265:
                length = symbol - 254
            elif symbol < 285:
                length = ((4 + (symbol - 265 & 3)) << extra) + 3
                length += np.int64(bits & ((np.uint64(1) << np.uint64(extra)) - np.uint64(1)))
                bits >>= np.uint64(extra)
                n_bits -= extra
            elif symbol == 285:
                length = np.int64(258)
            else:
                return -1
            symbol = _next_symbol(bits, distances)
            if symbol < 0:
                return -1
            bits >>= np.uint64(symbol & 15)
            n_bits -= symbol & 15
            symbol >>= 4
            distance = symbol + 1
            if symbol > 29:
                return -1
            if symbol > 3:
                extra = (symbol >> 1) - 1
                distance = ((2 + (symbol & 1)) << extra) + 1
                distance += np.int64(bits & ((np.uint64(1) << np.uint64(extra)) - np.uint64(1)))
                bits >>= np.uint64(extra)
                n_bits -= extra
            if n_bits < 0 or distance > end or end + length > out.size:
                return -1
            _repeat(out, end, distance, length)
            end += length
        if n_bits < 0:
            return -1
    buffer[0] = position - (n_bits >> 3)
    return end


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
