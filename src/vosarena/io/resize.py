"""Resizing as in SAM 2 (Pillow, bicubic) and Cutie (torch, antialiased): the same bits in a third of the time or less.

Both libraries blend columns and then rows. Here the same sums are taken without the GIL: with instructions of AVX-512
where the CPU has them, otherwise over whole rows of each channel and of its transposed image. For each pair of sizes
random pictures are resized both ways first: they show in which order the library computes, and where nothing matches
it to the bit, the library itself is used from then on.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import cv2
import numpy as np
from PIL import Image

from vosarena.base.compiled import compiled, cpu_has
from vosarena.io.resize_tables import (
    ColumnVectors,
    Table,
    integer_columns,
    integer_rows,
    interpolate,
    level_columns,
    pillow_table,
    torch_table,
)

Size = tuple[int, int]
# Resizes a frame, uint8 (H, W, 3), into an array (3, h, w).
Way = Callable[[np.ndarray, np.ndarray], None]
# Blends the rows or columns of an array into those of another.
Blend = Callable[[np.ndarray, np.ndarray], None]

_STRIP = 128  # rows of the result that are computed together
_ways: dict[tuple[str, Size, Size], Way | None] = {}
_choosing = threading.Lock()
_local = threading.local()  # the buffers that a thread works with
_spare: list[dict[str, np.ndarray]] = []  # those that no thread works with now


def resize_as_pillow(frame: np.ndarray, out: np.ndarray) -> None:
    """Resize as `PIL.Image.resize` with its bicubic filter.

    Args:
        frame: uint8 (H, W, 3).
        out: uint8 (3, h, w), written.
    """
    with _buffers():
        if not _resize("pillow", frame, out):
            out[:] = _pillow(frame, out.shape[1:])


def resize_as_torch(frame: np.ndarray, out: np.ndarray) -> None:
    """Divide by 255 and resize as `torch.nn.functional.interpolate` with `mode="bilinear"` and `antialias=True`.

    Args:
        frame: uint8 (H, W, 3).
        out: float32 (3, h, w), written.
    """
    with _buffers():
        if not _resize("torch", frame, out):
            out[:] = _torch(frame, out.shape[1:])


def _resize(library: str, frame: np.ndarray, out: np.ndarray) -> bool:
    """Resize a frame; False if nothing is known that equals the library's result."""
    key = library, frame.shape[:2], out.shape[1:]
    with _choosing:  # threads that need the same way wait for it
        if key not in _ways:
            _ways[key] = _choose(*key)
    way = _ways[key]
    if way is not None:
        way(frame, out)
    return way is not None


def _choose(library: str, size: Size, new_size: Size) -> Way | None:
    """Return how the library resizes, None if no known way gives its result."""
    rng = np.random.default_rng(0)
    count = max(1, 64 // math.prod(new_size))  # another way gives single pixels right by chance, but not dozens
    pictures = rng.integers(0, 256, (count, *size, 3), dtype=np.uint8)
    expected = [(_pillow if library == "pillow" else _torch)(picture, new_size) for picture in pictures]
    out = np.empty(expected[0].shape, expected[0].dtype)

    def fits(way: Way) -> bool:
        for picture, wanted in zip(pictures, expected, strict=True):
            way(picture, out)
            if not np.array_equal(out, wanted):
                return False
        return True

    ways = (_pillow_ways if library == "pillow" else _torch_ways)(size, new_size)
    return next(filter(fits, ways), None)


def _pillow_ways(size: Size, new_size: Size) -> Iterator[Way]:
    rows, columns = (pillow_table(*pair) for pair in zip(size, new_size, strict=True))
    orders = (False, True)  # Pillow 13 takes the cheaper one
    vectors = integer_columns(columns, size[1]) if _has_vectors() else None
    if vectors:
        for rows_first in orders:
            yield _pixels_at_once(_vector_columns("blend_columns", vectors), _vector_rows, rows, rows_first)
    blend_columns, blend_rows = (_blend("blend_integers", (), table, (1, np.int32)) for table in (columns, rows))
    for rows_first in orders:
        yield _channel_by_channel(blend_columns, blend_rows, rows_first)


def _torch_ways(size: Size, new_size: Size) -> Iterator[Way]:
    rows, columns = (torch_table(*pair) for pair in zip(size, new_size, strict=True))
    for group in (4, 8, 16, 1, 1 << 30):  # what torch's compiler may have made of its loop
        blend_rows = partial(_blend, "blend_floats", (group,))
        vectors = level_columns(columns, size[1], group) if _has_vectors() else None
        if vectors:
            yield _pixels_at_once(_vector_columns("blend_level_columns", vectors), blend_rows, rows)
        buffer = columns.weights.shape[1], np.float32
        yield _channel_by_channel(_blend("blend_levels", (group,), columns, buffer), blend_rows(rows))


def _has_vectors() -> bool:
    return cpu_has("avx512vbmi", "avx512vnni")


def _pixels_at_once(columns: Blend, blend_rows: Callable[[Table], Blend], rows: Table, rows_first: bool = False) -> Way:
    """Blend rows (H, 3 W) of pixels, strip by strip, so that what is between the two steps stays in the CPU's cache."""
    strips = []
    for top in range(0, len(rows.first), _STRIP):
        part = slice(top, top + _STRIP)
        first, count = rows.first[part], rows.count[part]
        needed = slice(first[0], (first + count).max())
        strips.append((part, needed, blend_rows(Table(rows.weights[part], first - first[0], count))))

    def resize(frame: np.ndarray, out: np.ndarray) -> None:
        width, new_width = 3 * frame.shape[1], 3 * out.shape[2]
        for part, needed, rows_of_strip in strips:
            pixels = frame[needed].reshape(-1, width)
            result = out[:, part]
            height = result.shape[1]
            half = (height, width) if rows_first else (len(pixels), new_width)
            between, small = _buffer("between", half, out.dtype), _buffer("small", (height, new_width), out.dtype)
            first, second = (rows_of_strip, columns) if rows_first else (columns, rows_of_strip)
            first(pixels, between)
            second(between, small)
            cv2.split(small.reshape(height, -1, 3), list(result))

    return resize


def _channel_by_channel(columns: Blend, rows: Blend, rows_first: bool = False) -> Way:
    """Blend columns as rows of the transposed channel."""

    def resize(frame: np.ndarray, out: np.ndarray) -> None:
        (height, width), (new_height, new_width) = frame.shape[:2], out.shape[1:]
        for source, target in zip(_channels(frame), out, strict=True):
            if rows_first:
                flat = _buffer("flat", (new_height, width), out.dtype)
                rows(source, flat)
                turned = cv2.transpose(flat, _buffer("turned", (width, new_height), out.dtype))
                small = _buffer("small", (new_width, new_height), out.dtype)
                columns(turned, small)
                cv2.transpose(small, target)
            else:
                turned = cv2.transpose(source, _buffer("turned", (width, height), np.uint8))
                narrow = _buffer("narrow", (new_width, height), out.dtype)
                columns(turned, narrow)
                rows(cv2.transpose(narrow, _buffer("upright", (height, new_width), out.dtype)), target)

    return resize


def _vector_columns(kernel: str, vectors: ColumnVectors) -> Blend:
    run = compiled("vosarena.io.resize_vector_kernels", kernel)
    tables = vectors.starts, vectors.indices, vectors.weights, vectors.taps

    def blend(rows: np.ndarray, out: np.ndarray) -> None:
        run(rows.reshape(-1), rows.shape[1], *tables, out.reshape(-1), out.shape[1])

    return blend


def _vector_rows(table: Table) -> Blend:
    run = compiled("vosarena.io.resize_vector_kernels", "blend_rows")
    weights = integer_rows(table)

    def blend(rows: np.ndarray, out: np.ndarray) -> None:
        run(rows.reshape(-1), rows.shape[1], table.first, weights, out.reshape(-1))

    return blend


def _blend(kernel: str, options: tuple[int, ...], table: Table, buffer: tuple[int, Any] | None = None) -> Blend:
    """Return a kernel of whole rows. `buffer`: number of rows and type of an array that it needs to work in."""
    run = compiled("vosarena.io.resize_kernels", kernel)

    def blend(rows: np.ndarray, out: np.ndarray) -> None:
        buffers = [_buffer(kernel, (buffer[0], rows.shape[1]), buffer[1])] if buffer else []
        run(rows, table.weights, table.first, table.count, *options, *buffers, out)

    return blend


def _channels(frame: np.ndarray) -> Sequence[np.ndarray]:
    channels = [_buffer(f"channel {index}", frame.shape[:2], np.uint8) for index in range(3)]
    cv2.split(frame, channels)
    return channels


def _pillow(frame: np.ndarray, size: Size) -> np.ndarray:
    return np.moveaxis(np.array(Image.fromarray(frame).resize(size[::-1], Image.Resampling.BICUBIC)), 2, 0)


def _torch(frame: np.ndarray, size: Size) -> np.ndarray:
    import torch

    image = torch.from_numpy(frame).permute(2, 0, 1).contiguous().float().div_(255)
    result: np.ndarray = interpolate(image[None], size)[0].numpy()
    return result


@contextmanager
def _buffers() -> Iterator[None]:
    """Give this thread buffers that no other one uses: threads end with every sequence, buffers stay."""
    _local.buffers = _spare.pop() if _spare else {}
    try:
        yield
    finally:
        _spare.append(_local.buffers)


def _buffer(name: str, shape: Size, dtype: Any) -> np.ndarray:
    """Return an array in memory that is used for many frames, because new memory costs more than the work in it."""
    buffers: dict[str, np.ndarray] = _local.buffers  # of `_buffers`
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if name not in buffers or len(buffers[name]) < size:
        buffers[name] = np.empty(size, np.uint8)
    array: np.ndarray = buffers[name][:size].view(dtype).reshape(shape)
    return array
