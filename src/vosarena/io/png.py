"""A decoder and an encoder for the PNGs that hold label maps: one channel of at most 8 bits.

Pillow spends most of its time on things that label maps do not need, and no other library is as fast. This module reads
a file by chunks (and checks their CRC), inflates the stream with libdeflate (PyPI `deflate`) and undoes the row filters
in compiled loops. Its result equals Pillow's, sample by sample; it refuses more damaged files. It compresses with
ISA-L (PyPI `isal`), ten times as fast as zlib and to smaller files.

Source of the format: Portable Network Graphics (PNG) Specification, Third Edition, W3C, sections 5, 7, 8, 9 and 11.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from deflate import DeflateError, crc32, zlib_compress, zlib_decompress

try:
    from isal import isal_zlib as zlib
except ImportError:  # no build of it exists for some processors
    import zlib  # type: ignore[no-redef]

from vosarena.base.compiled import compiled
from vosarena.io.runs import Runs

SIGNATURE = b"\x89PNG\r\n\x1a\n"
GREY, PALETTE = 0, 3
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}  # by colour type
_MAX_PIXELS = 2**28
_SPARSE = 32  # pixels per compressed byte, from which on following runs is quicker than writing pixels
_MOST_INFLATED = 1032  # bytes that deflate can make of one byte, at most
# First row and column, and steps, of the passes of interlaced images
_ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
_KERNELS = "vosarena.io.png_kernels"
_CHUNK = struct.Struct(">I4s")
_CRC = struct.Struct(">I")
_HEADER = struct.Struct(">IIBBBBB")


Samples = np.ndarray[Any, np.dtype[np.uint8]]


class PngError(ValueError):
    """The bytes are not a complete, valid PNG; the message says what is wrong."""


class OtherKindError(ValueError):
    """A PNG that is not a label map; the message says what it is."""


@dataclass(frozen=True)
class _Header:
    """The fields of IHDR that matter here."""

    width: int
    height: int
    depth: int
    colour: int
    interlaced: bool


def decode_rows(data: bytes) -> Samples:
    """Decode a PNG to palette indices or 8-bit grey values (1-bit grey: 0 and 1).

    Args:
        data: The bytes of the file.

    Returns:
        The samples, uint8 (H, 1 + W); the first column is to be ignored.

    Raises:
        OtherKindError: The image has another colour type or more than 8 bits per pixel.
        PngError: The file is damaged.
    """
    return _decode_rows(*_read_chunks(data))


def decode_runs(data: bytes) -> Runs:
    """As `decode_rows`, but the runs of equal samples, which takes less time for most files of label maps."""
    header, stream = _read_chunks(data)
    size = header.height * (1 + header.width)
    runs = None
    if header.depth == 8 and not header.interlaced and size > _SPARSE * len(stream):
        runs = Runs.of_stream(stream, header.height, header.width)
    return Runs.of_rows(_decode_rows(header, stream)) if runs is None else runs


def _decode_rows(header: _Header, stream: bytes | memoryview) -> Samples:
    parts = list(_passes(header))
    sizes = [height * (1 + (width * header.depth + 7) // 8) for *_, height, width in parts]
    if sum(sizes) > _MOST_INFLATED * len(stream):
        raise PngError("it holds fewer rows than its header says")
    try:
        raw = zlib_decompress(stream, sum(sizes))
    except DeflateError as error:
        raise PngError("its image data are damaged or truncated") from error
    if len(raw) != sum(sizes):
        raise PngError("it holds fewer rows than its header says")
    if not header.interlaced:
        return _samples(np.frombuffer(raw, np.uint8), header, header.height, header.width)
    rows = np.zeros((header.height, 1 + header.width), np.uint8)
    start = 0
    for (top, left, down, right, height, width), size in zip(parts, sizes, strict=True):
        part = np.frombuffer(raw, np.uint8, size, start)
        rows[top::down, 1 + left :: right] = _samples(part, header, height, width)[:, 1:]
        start += size
    return rows


def encode_palette(indices: Samples, palette: bytes, alpha: bytes = b"", *, small: bool = False) -> bytes:
    """Encode palette indices as a PNG of 8 bits.

    Args:
        indices: uint8 (H, W).
        palette: Bytes of up to 256 RGB colours.
        alpha: Opacity of the first colours, from 0 to 255; the others are opaque.
        small: Whether to compress with libdeflate instead: six times as long for files two thirds as large.

    Returns:
        The bytes of the file.
    """
    height, width = indices.shape
    rows = np.zeros((height, 1 + width), np.uint8)  # each row begins with its filter: none
    rows[:, 1:] = indices
    header = _HEADER.pack(width, height, 8, PALETTE, 0, 0, 0)
    transparency = [(b"tRNS", alpha)] if alpha else []
    data = bytes(zlib_compress(rows, 6)) if small else zlib.compress(rows, 1)
    chunks = [(b"IHDR", header), (b"PLTE", palette), *transparency, (b"IDAT", data), (b"IEND", b"")]
    return SIGNATURE + b"".join(_chunk(kind, content) for kind, content in chunks)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return _CHUNK.pack(len(content), kind) + content + _CRC.pack(crc32(kind + content))


def _read_chunks(data: bytes) -> tuple[_Header, bytes | memoryview]:
    """Header and compressed image data. Raises PngError if a chunk is damaged or misplaced, and OtherKindError."""
    view = memoryview(data)
    header: _Header | None = None
    streams: list[memoryview] = []
    position, end, kind = len(SIGNATURE), len(data), b""
    if data[:position] != SIGNATURE:
        raise PngError("it does not begin like a PNG")
    while kind != b"IEND":
        if position + 12 > end:
            raise PngError("it is truncated")
        previous = kind
        length, kind = _CHUNK.unpack_from(data, position)
        stop = position + 8 + length
        if stop + 4 > end:
            raise PngError("it is truncated")
        if crc32(view[position + 4 : stop]) != _CRC.unpack_from(data, stop)[0]:
            raise PngError(f"its {kind.decode('latin-1')} chunk fails the checksum")
        if (kind == b"IHDR") != (header is None):
            raise PngError("its header is not its first chunk" if header is None else "it has two headers")
        if kind == b"IHDR":
            header = _read_header(data[position + 8 : stop])
        elif kind == b"IDAT":
            if streams and previous != b"IDAT":
                raise PngError("its image data are in two places")
            streams.append(view[position + 8 : stop])
        position = stop + 4
    if header is None or not streams:
        raise PngError("it has no image data")
    return header, streams[0] if len(streams) == 1 else b"".join(streams)


@lru_cache
def _read_header(data: bytes) -> _Header:
    if len(data) != _HEADER.size:
        raise PngError("its header has a wrong length")
    width, height, depth, colour, compression, filters, interlaced = _HEADER.unpack(data)
    if colour not in _DEPTHS or depth not in _DEPTHS[colour] or compression or filters or interlaced > 1:
        raise PngError("its header is of no known kind")
    if not 0 < width * height <= _MAX_PIXELS:
        raise PngError(f"its size of {width}x{height} is not a plausible image")
    if colour not in (GREY, PALETTE):
        kind = {2: "RGB", 4: "grey with alpha", 6: "RGBA"}[colour]
        raise OtherKindError(f"is {kind}: expected object ids, save it as a palette or 8-bit greyscale PNG")
    if depth > 8:
        raise OtherKindError(f"has {depth} bits per pixel: expected at most 8, save it as a palette PNG")
    return _Header(width, height, depth, colour, bool(interlaced))


def _passes(header: _Header) -> Iterator[tuple[int, int, int, int, int, int]]:
    """First row and column, steps, height and width of every pass that has pixels; one if it is not interlaced."""
    for top, left, down, right in _ADAM7 if header.interlaced else ((0, 0, 1, 1),):
        height = (header.height - top + down - 1) // down
        width = (header.width - left + right - 1) // right
        if height > 0 and width > 0:
            yield top, left, down, right, height, width


def _samples(raw: Samples, header: _Header, height: int, width: int) -> Samples:
    """The samples of one pass, uint8 (height, 1 + width), from its filtered rows, which are overwritten."""
    rows = raw.reshape(height, -1)
    bad = compiled(_KERNELS, "unfilter")(rows) if rows[:, 0].any() else -1  # mostly, no row has a filter
    if bad >= 0:
        raise PngError(f"its row {bad} has an unknown filter")
    if header.depth == 8:
        return rows
    # Grey values are scaled to 8 bits as in Pillow, except for 1 bit, which all readers of masks read as 0 and 1.
    scale = 1 if header.colour == PALETTE or header.depth == 1 else 255 // (2**header.depth - 1)
    labels = np.empty((height, width), np.uint8)
    compiled(_KERNELS, "unpack")(rows, header.depth, scale, labels)
    return np.pad(labels, ((0, 0), (1, 0)))
