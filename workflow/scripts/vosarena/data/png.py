"""A decoder for the PNGs that hold label maps: one channel of at most 8 bits, not interlaced.

PIL spends most of its time on things that label maps do not need. Here the file is read by chunks (CRC checked), the
stream is inflated by libdeflate (PyPI `deflate`), and the row filters are undone by compiled loops. What this module
does not read (interlaced files) is left to PIL; what it reads is equal to PIL's result, sample by sample.

Source of the format: Portable Network Graphics (PNG) Specification, Third Edition, W3C, sections 5, 7, 9 and 11.
"""

from __future__ import annotations

import struct
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np
from deflate import DeflateError, crc32, zlib_decompress

SIGNATURE = b"\x89PNG\r\n\x1a\n"
GREY, PALETTE = 0, 3
_MAX_PIXELS = 2**28
_CHUNK = struct.Struct(">I4s")
_CRC = struct.Struct(">I")
_HEADER = struct.Struct(">IIBBBBB")


Samples = np.ndarray[Any, np.dtype[np.uint8]]


class PngError(ValueError):
    """The bytes are not a whole, valid PNG; the message says what is wrong."""


@cache
def _kernels() -> ModuleType:
    from vosarena.data import png_kernels  # compiled on first use, not when a tracker imports this module

    return png_kernels


def decode_rows(data: bytes) -> Samples | None:
    """Samples of a PNG, uint8 (H, 1 + W), the first column to be ignored: palette indices, or grey values of 8 bits.

    One-bit grey is 0 and 1. None for valid kinds that this module does not read (interlaced). Raises PngError for
    damaged files.
    """
    view = memoryview(data)
    header: tuple[int, ...] | None = None
    streams: list[memoryview] = []
    position, end, kind = len(SIGNATURE), len(data), b""
    if data[:position] != SIGNATURE:
        raise PngError("it does not begin like a PNG")
    while kind != b"IEND":
        if position + 12 > end:
            raise PngError("it is truncated")
        length, kind = _CHUNK.unpack_from(data, position)
        stop = position + 8 + length
        if stop + 4 > end:
            raise PngError("it is truncated")
        if crc32(view[position + 4 : stop]) != _CRC.unpack_from(data, stop)[0]:
            raise PngError(f"its {kind.decode('latin-1')} chunk fails the checksum")
        if kind == b"IDAT":
            streams.append(view[position + 8 : stop])
        elif kind == b"IHDR" and length == _HEADER.size:
            header = _HEADER.unpack_from(data, position + 8)
        position = stop + 4
    if header is None or not streams:
        raise PngError("it has no header" if header is None else "it has no image data")
    width, height, depth, colour, _, _, interlaced = header
    if not 0 < width * height <= _MAX_PIXELS:
        raise PngError(f"its size of {width}x{height} is not a plausible image")
    if colour not in (GREY, PALETTE) or depth not in (1, 2, 4, 8) or interlaced:
        return None
    row_bytes = (width * depth + 7) // 8
    size = height * (row_bytes + 1)
    try:
        raw = zlib_decompress(streams[0] if len(streams) == 1 else b"".join(streams), size)
    except DeflateError as error:
        raise PngError("its image data are damaged or truncated") from error
    if len(raw) != size:
        raise PngError("it holds fewer rows than its header says")
    rows = np.frombuffer(raw, np.uint8).reshape(height, row_bytes + 1)
    bad = _kernels().unfilter(rows)
    if bad >= 0:
        raise PngError(f"its row {bad} has an unknown filter")
    if depth == 8:
        return rows
    # Grey values are scaled to 8 bits as PIL does, except for 1 bit, which everybody reads as 0 and 1.
    scale = 1 if colour == PALETTE or depth == 1 else 255 // (2**depth - 1)
    labels = np.empty((height, width), np.uint8)
    _kernels().unpack(rows, depth, scale, labels)
    return np.pad(labels, ((0, 0), (1, 0)))
