"""Which pixels Pillow's bicubic and torch's antialiased bilinear resizing blend, and with which weights."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

BITS = 22  # of the fraction of Pillow's integer weights

# 1 / 255 in two parts. The product of a level and the first part is exact, that of the second is small: for all 256
# levels, their sum is rounded to the same number as the quotient. A division takes longer.
LEVEL = np.float32(257 / 65536)
LEVEL_REST = np.float32(1 / (255 * 65536))

_VECTOR = 64  # bytes of a vector of AVX-512
_SUMS = 16  # sums in a vector
_CHANNELS = 3


@dataclass(frozen=True)
class Table:
    """Pixel y of the result is the sum of pixels first[y] to first[y] + count[y] - 1 times weights[y].

    Attributes:
        weights: int32 with `BITS` bits of fraction (Pillow) or float32 (torch), (M, taps).
        first: int64 (M,).
        count: int64 (M,).
    """

    weights: np.ndarray
    first: np.ndarray
    count: np.ndarray


def pillow_table(size: int, new_size: int) -> Table:
    """Return the weights of Pillow's bicubic filter (src/libImaging/Resample.c)."""
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
            weights[place, tap] = int(weight / total * (1 << BITS) + math.copysign(0.5, weight))
    return Table(weights, first, count)


def _bicubic(x: float) -> float:
    a, x = -0.5, abs(x)
    if x < 1.0:
        return ((a + 2.0) * x - (a + 3.0)) * x * x + 1
    return (((x - 5) * x + 8) * x - 4) * a if x < 2.0 else 0.0


def interpolate(image: Any, size: tuple[int, int]) -> Any:
    """Resize a tensor (1, C, H, W) to (1, C, h, w) as Cutie does."""
    import torch

    return torch.nn.functional.interpolate(image, size, mode="bilinear", align_corners=False, antialias=True)


def torch_table(size: int, new_size: int) -> Table:
    """Return torch's weights with their windows (aten/src/ATen/native/cpu/UpSampleKernel.cpp).

    The weights of every column are what torch makes of a unit matrix. Those at the ends of a window may be 0.
    """
    import torch

    matrix = interpolate(torch.eye(size)[None, None], (size, new_size))[0, 0].numpy()
    scale = np.float32(size) / np.float32(new_size)
    support = max(scale, np.float32(1))
    centres = (scale * (np.arange(new_size) + 0.5)).astype(np.float32)
    first = np.maximum((centres - support).astype(np.float64) + 0.5, 0).astype(np.int64)
    stop = np.minimum((centres + support).astype(np.float64) + 0.5, size).astype(np.int64)
    taps = first + np.arange((stop - first).max())[:, None]
    weights = np.take_along_axis(matrix, np.minimum(taps, size - 1), 0)
    return Table(np.ascontiguousarray(weights.T), first, stop - first)


@dataclass(frozen=True)
class ColumnVectors:
    """A table as `blend_columns` and `blend_level_columns` of `resize_vector_kernels` take it; see there.

    Attributes:
        starts: int64 (places,).
        indices: uint8, flat.
        weights: uint8 (Pillow) or float32 (torch), flat.
        taps: Number of weights of a sum, a multiple of 4 for Pillow.
    """

    starts: np.ndarray
    indices: np.ndarray
    weights: np.ndarray
    taps: int


def integer_columns(table: Table, size: int) -> ColumnVectors | None:
    """Arrange Pillow's weights for a row of `size` pixels; None if `_places` finds no way."""
    taps = 4 * math.ceil(table.count.max() / 4)
    found = _places(table, size, taps)
    if found is None:
        return None
    starts, where, used = found
    weights = _parts(np.where(used, _wide(table.weights, taps)[_pixels(table)], 0))  # (places, 16, taps, 3)
    groups = (len(starts), _SUMS, taps // 4, 4)
    indices = where.reshape(groups).transpose(0, 2, 1, 3)
    bytes_ = weights.reshape(*groups, 3).transpose(0, 2, 4, 1, 3)
    return ColumnVectors(starts, indices.astype(np.uint8).ravel(), np.ascontiguousarray(bytes_).ravel(), taps)


def integer_rows(table: Table) -> np.ndarray:
    """Arrange Pillow's weights as `blend_rows` of `resize_vector_kernels` takes them: int32 (M, groups, 3)."""
    taps = 4 * math.ceil(table.count.max() / 4)
    parts = _parts(_wide(table.weights, taps)).reshape(len(table.first), taps // 4, 4, 3)
    return np.ascontiguousarray(parts.transpose(0, 1, 3, 2)).view(np.int32)[..., 0]


def level_columns(table: Table, size: int, group: int) -> ColumnVectors | None:
    """As `integer_columns`, for torch's weights; `group` as in `resize_kernels.blend_floats`."""
    taps = int(table.count.max())
    found = _places(table, size, taps)
    if found is None:
        return None
    starts, where, used = found
    pixels = _pixels(table)
    weights = np.where(used, table.weights[pixels], 0)
    others = table.count[pixels] - 1
    rounded = np.arange(taps) <= (others - others % group)[..., None]
    both = np.stack([np.where(rounded, weights, 0), np.where(rounded, 0, weights)])  # (2, places, 16, taps)
    indices = np.zeros((len(starts), taps, _SUMS, 4), np.uint8)
    indices[..., 0] = where.transpose(0, 2, 1)
    ordered = np.ascontiguousarray(both.transpose(1, 3, 0, 2), np.float32)
    return ColumnVectors(starts, indices.ravel(), ordered.ravel(), taps)


def _pixels(table: Table) -> np.ndarray:
    """Return which pixel of a row each of 16 sums belongs to: (places, 16). The last places may overlap."""
    return _sums(table) // _CHANNELS


def _sums(table: Table) -> np.ndarray:
    width = _CHANNELS * len(table.first)
    return np.minimum(np.arange(0, width, _SUMS), width - _SUMS)[:, None] + np.arange(_SUMS)


def _places(table: Table, size: int, taps: int) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Return the first byte of each place, the bytes that each sum needs after it, and which of those count.

    int64 (places,) and int64 and bool (places, 16, taps). None if that is too far for a vector, or if a row is shorter
    than one, which would be read and written beyond its ends.
    """
    if _CHANNELS * min(size, len(table.first)) < _VECTOR:
        return None
    pixels, channels = np.divmod(_sums(table), _CHANNELS)
    where = _CHANNELS * (table.first[pixels][..., None] + np.arange(taps)) + channels[..., None]
    starts = np.minimum(where[:, :, 0].min(1), _CHANNELS * size - _VECTOR)
    used = np.arange(taps) < table.count[pixels][..., None]
    where = np.where(used, where - starts[:, None, None], 0)
    return (starts, where, used) if where.max() < _VECTOR else None


def _wide(weights: np.ndarray, taps: int) -> np.ndarray:
    """Return weights (M, any) with `taps` columns; those that go or come are 0."""
    return np.pad(weights, ((0, 0), (0, max(0, taps - weights.shape[1]))))[:, :taps]


def _parts(weights: np.ndarray) -> np.ndarray:
    """Split integer weights into three signed bytes, from the highest: uint8 (..., 3)."""
    low = (weights + 128) % 256 - 128
    rest = (weights - low) // 256
    middle = (rest + 128) % 256 - 128
    return np.stack([(rest - middle) // 256, middle, low], axis=-1).astype(np.int8).view(np.uint8)
