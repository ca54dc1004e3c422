"""Resizing as in SAM 2 (Pillow, bicubic) and Cutie (torch, antialiased): the same bits in a third of the time or less.

Both libraries blend columns and then rows. Here the same sums are taken over whole rows of the transposed image,
without the GIL. For each pair of sizes random pictures are resized both ways first: they show in which order the
library computes, and where nothing matches it to the bit, the library itself is used from then on.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from PIL import Image

from vosarena.base.compiled import compiled

Table = tuple[np.ndarray, np.ndarray, np.ndarray]  # weights (M, taps), first row (M,), number of rows (M,)
Size = tuple[int, int]


@dataclass(frozen=True)
class _Plan:
    """How a library resizes: functions that blend the rows of an array into another, and which one comes first."""

    columns: Callable[[np.ndarray, np.ndarray], None]
    rows: Callable[[np.ndarray, np.ndarray], None]
    rows_first: bool = False


_plans: dict[tuple[str, Size, Size], _Plan | None] = {}
_planning = threading.Lock()
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
        out: float32 (3, h, w), written. With the size of the frame, nothing is resized.
    """
    with _buffers():
        if frame.shape[:2] == out.shape[1:]:
            for source, target in zip(_channels(frame), out, strict=True):
                np.divide(source, np.float32(255), out=target)
        elif not _resize("torch", frame, out):
            out[:] = _torch(frame, out.shape[1:])


def _resize(library: str, frame: np.ndarray, out: np.ndarray) -> bool:
    """Resize a frame; False if nothing is known that equals the library's result."""
    key = library, frame.shape[:2], out.shape[1:]
    with _planning:  # threads that need the same plan wait for it
        if key not in _plans:
            _plans[key] = _plan(*key)
    plan = _plans[key]
    if plan is not None:
        _run(frame, out, plan)
    return plan is not None


def _run(frame: np.ndarray, out: np.ndarray, plan: _Plan) -> None:
    (height, width), (new_height, new_width) = frame.shape[:2], out.shape[1:]
    for source, target in zip(_channels(frame), out, strict=True):
        if plan.rows_first:
            flat = _buffer("flat", (new_height, width), out.dtype)
            plan.rows(source, flat)
            turned = cv2.transpose(flat, _buffer("turned", (width, new_height), out.dtype))
            small = _buffer("small", (new_width, new_height), out.dtype)
            plan.columns(turned, small)
            cv2.transpose(small, target)
        else:
            turned = cv2.transpose(source, _buffer("turned", (width, height), np.uint8))
            narrow = _buffer("narrow", (new_width, height), out.dtype)
            plan.columns(turned, narrow)
            plan.rows(cv2.transpose(narrow, _buffer("upright", (height, new_width), out.dtype)), target)


def _channels(frame: np.ndarray) -> Sequence[np.ndarray]:
    channels = [_buffer(f"channel {index}", frame.shape[:2], np.uint8) for index in range(3)]
    cv2.split(frame, channels)
    return channels


@contextmanager
def _buffers() -> Iterator[None]:
    """Give this thread buffers that no other one uses: threads end with every sequence, buffers stay."""
    _local.buffers = _spare.pop() if _spare else {}
    try:
        yield
    finally:
        _spare.append(_local.buffers)


def _buffer(name: str, shape: Size, dtype: Any) -> np.ndarray:
    """Return an array that is used for many frames, because new memory costs more than the work in it."""
    buffers: dict[str, np.ndarray] = _local.buffers  # of `_buffers`
    found = buffers.get(name)
    if found is None or found.shape != shape or found.dtype != dtype:
        found = buffers[name] = np.empty(shape, dtype)
    return found


def _plan(library: str, size: Size, new_size: Size) -> _Plan | None:
    """Return how the library resizes, None if no known way gives its result."""
    rng = np.random.default_rng(0)
    count = max(1, 64 // math.prod(new_size))  # another way gives single pixels right by chance, but not dozens
    pictures = rng.integers(0, 256, (count, *size, 3), dtype=np.uint8)
    expected = [(_pillow if library == "pillow" else _torch)(picture, new_size) for picture in pictures]
    out = np.empty(expected[0].shape, expected[0].dtype)

    def fits(plan: _Plan) -> bool:
        for picture, wanted in zip(pictures, expected, strict=True):
            _run(picture, out, plan)
            if not np.array_equal(out, wanted):
                return False
        return True

    plans = (_pillow_plans if library == "pillow" else _torch_plans)(size, new_size)
    return next(filter(fits, plans), None)


def _blend(
    kernel: str, table: Table, *options: int, buffer: tuple[int, Any] | None = None
) -> Callable[[np.ndarray, np.ndarray], None]:
    """Return a kernel with its table. `buffer`: number of rows and type of an array that it needs to work in."""
    run = compiled("vosarena.io.resize_kernels", kernel)

    def blend(rows: np.ndarray, out: np.ndarray) -> None:
        buffers = []
        if buffer:
            shape = buffer[0], rows.shape[1]
            buffers = [_buffer(f"{kernel} {shape}", shape, buffer[1])]
        run(rows, *table, *options, *buffers, out)

    return blend


def _pillow_plans(size: Size, new_size: Size) -> Iterator[_Plan]:
    tables = [_pillow_table(*pair) for pair in zip(size, new_size, strict=True)]
    rows, columns = (_blend("blend_integers", table, buffer=(1, np.int32)) for table in tables)
    for rows_first in (False, True):  # Pillow 13 takes the cheaper order
        yield _Plan(columns, rows, rows_first)


def _torch_plans(size: Size, new_size: Size) -> Iterator[_Plan]:
    rows, columns = (_torch_table(*pair) for pair in zip(size, new_size, strict=True))
    for group in (4, 8, 16, 1, 1 << 30):  # what torch's compiler may have made of its loop
        buffer = columns[0].shape[1], np.float32
        yield _Plan(_blend("blend_levels", columns, group, buffer=buffer), _blend("blend_floats", rows, group))


def _pillow(frame: np.ndarray, size: Size) -> np.ndarray:
    return np.moveaxis(np.array(Image.fromarray(frame).resize(size[::-1], Image.Resampling.BICUBIC)), 2, 0)


def _pillow_table(size: int, new_size: int) -> Table:
    """Return the weights of Pillow's bicubic filter, int32 with 22 bits of fraction (src/libImaging/Resample.c)."""
    scale = size / new_size
    stretch = max(scale, 1.0)
    support = 2.0 * stretch
    weights = np.zeros((new_size, 2 * math.ceil(support) + 1), np.int32)
    first, count = np.zeros(new_size, np.int64), np.zeros(new_size, np.int64)
    for place in range(new_size):
        centre = (place + 0.5) * scale
        start = max(int(centre - support + 0.5), 0)
        stop = min(int(centre + support + 0.5), size)
        exact = [_bicubic((x - centre + 0.5) * (1.0 / stretch)) for x in range(start, stop)]
        total = 0.0
        for weight in exact:  # in order: sum() is more exact than C
            total += weight
        first[place], count[place] = start, stop - start
        for tap, weight in enumerate(exact):
            weights[place, tap] = int(weight / total * (1 << 22) + math.copysign(0.5, weight))
    return weights, first, count


def _bicubic(x: float) -> float:
    a, x = -0.5, abs(x)
    if x < 1.0:
        return ((a + 2.0) * x - (a + 3.0)) * x * x + 1
    return (((x - 5) * x + 8) * x - 4) * a if x < 2.0 else 0.0


def _torch(frame: np.ndarray, size: Size) -> np.ndarray:
    import torch

    image = torch.from_numpy(frame).permute(2, 0, 1).contiguous().float().div_(255)
    result: np.ndarray = _interpolate(image[None], size)[0].numpy()
    return result


def _interpolate(image: Any, size: Size) -> Any:
    import torch

    return torch.nn.functional.interpolate(image, size, mode="bilinear", align_corners=False, antialias=True)


def _torch_table(size: int, new_size: int) -> Table:
    """Return torch's weights, float32, with their windows (aten/src/ATen/native/cpu/UpSampleKernel.cpp).

    The weights of every column are what torch makes of a unit matrix. Those at the ends of a window may be 0.
    """
    import torch

    matrix = _interpolate(torch.eye(size)[None, None], (size, new_size))[0, 0].numpy()
    scale = np.float32(size) / np.float32(new_size)
    support = max(scale, np.float32(1))
    centres = (scale * (np.arange(new_size) + 0.5)).astype(np.float32)
    first = np.maximum((centres - support).astype(np.float64) + 0.5, 0).astype(np.int64)
    stop = np.minimum((centres + support).astype(np.float64) + 0.5, size).astype(np.int64)
    taps = first + np.arange((stop - first).max())[:, None]
    weights = np.take_along_axis(matrix, np.minimum(taps, size - 1), 0)
    return np.ascontiguousarray(weights.T), first, stop - first
