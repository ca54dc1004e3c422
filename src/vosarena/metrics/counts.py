"""Integer statistics of a frame: for every object the seven counts that J and F of all protocols follow from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np

from vosarena.base.errors import MaskError
from vosarena.io.masks import LabelMap

BOUNDARY_FRACTION = 0.008
_LONGEST = 32768  # the kernels pack y << 16 | x into 32 bits
Integers = np.ndarray[Any, np.dtype[np.int64]]
Floats = np.ndarray[Any, np.dtype[np.float64]]

#: Names of the counts, in the order of the columns that `FrameCounter.count` returns after the label.
COUNTS = ("intersection", "gt_pixels", "pred_pixels", "gt_boundary", "pred_boundary", "gt_matched", "pred_matched")
ADAPTIVE_COUNTS = ("gt_matched_adaptive", "pred_matched_adaptive")


def count_names(adaptive: bool) -> tuple[str, ...]:
    """COUNTS, and ADAPTIVE_COUNTS if asked for."""
    return COUNTS + ADAPTIVE_COUNTS if adaptive else COUNTS


@cache
def _kernels() -> ModuleType:
    from vosarena.metrics import kernels  # compiled on first use

    return kernels


def tolerance_cap(height: int, width: int) -> float:
    """0.008 of the image diagonal, in pixels; computed as the reference implementations do, to the last bit."""
    return float(BOUNDARY_FRACTION * np.linalg.norm((height, width)))


def tolerance(height: int, width: int) -> int:
    """Boundary tolerance of DAVIS in pixels: ceil(0.008 * diagonal) (Perazzi et al., CVPR 2016)."""
    return int(np.ceil(tolerance_cap(height, width)))


def adaptive_tolerance(gt_pixels: Integers, cap: float | Floats) -> Floats:
    """Tolerance of MOSEv2's F-dot: ceil(0.1 * sqrt(area)), at most `cap`; `cap` where there is no object.

    Source: MOSE-api, MOSEv2/sam2_rcms/tools/metricsv2.py (the cap is not rounded up there).
    """
    wanted = np.ceil(0.1 * np.sqrt(gt_pixels))
    return np.where(gt_pixels > 0, np.minimum(wanted, cap), cap)


@dataclass(frozen=True)
class _Workspace:
    """Buffers and tables for one image size."""

    shape: tuple[int, int]
    cap: float
    left: np.ndarray[Any, np.dtype[np.int32]]
    right: np.ndarray[Any, np.dtype[np.int32]]
    differences: LabelMap
    gt_positions: np.ndarray[Any, np.dtype[np.int32]]
    pred_positions: np.ndarray[Any, np.dtype[np.int32]]
    gt_plane: np.ndarray[Any, np.dtype[np.uint64]]
    pred_plane: np.ndarray[Any, np.dtype[np.uint64]]

    @classmethod
    def of(cls, height: int, width: int) -> _Workspace:
        if height > _LONGEST or width > 2 * _LONGEST:
            raise MaskError(f"a mask of {width}x{height} pixels is too large to count; expected at most 65536x32768")
        radius, cap = tolerance(height, width), tolerance_cap(height, width)
        left, right = _disks(radius, cap)
        words = 2 * ((radius + 63) // 64) + (width + 63) // 64 + 1
        return cls(
            (height, width),
            cap,
            left,
            right,
            np.zeros(64 * ((width + 63) // 64), np.uint8),
            np.empty(height * width, np.int32),
            np.empty(height * width, np.int32),
            np.zeros((height, words), np.uint64),
            np.zeros((height, words), np.uint64),
        )


@cache
def _disks(radius: int, cap: float) -> tuple[Any, Any]:
    """Extents (left, right), int32 (R + 1, 2 R + 1), of the disks of radius 1..R by row; row 0: the disk of `cap`.

    A disk is every offset with dx^2 + dy^2 <= r^2. For a radius that is not whole, MOSEv2's scorer takes
    skimage.morphology.disk(r), whose grid starts at -r: a disk that lies off the centre of its footprint. That is
    repeated here, because the published numbers have it.
    """
    left = np.ones((radius + 1, 2 * radius + 1), np.int32)
    right = np.zeros_like(left)
    for row in range(radius + 1):
        r = row if row else cap
        axis = np.arange(-r, r + 1)
        centre = len(axis) // 2  # the anchor of a dilation
        inside = axis[:, None] ** 2 + axis[None, :] ** 2 <= r**2
        inside[centre, centre] |= not inside.any()  # diagonals under 75 pixels: at least the pixel itself
        for i in np.flatnonzero(inside.any(axis=1)):
            columns = np.flatnonzero(inside[i])
            left[row, radius + i - centre] = columns[0] - centre
            right[row, radius + i - centre] = columns[-1] - centre
    return left, right


class FrameCounter:
    """Counts frames of any size; keeps its buffers from one frame to the next. Use one per thread."""

    def __init__(self, adaptive: bool = False) -> None:
        """adaptive: also count matches within MOSEv2's adaptive tolerance."""
        self.adaptive = adaptive
        self._workspace: _Workspace | None = None
        self._table = np.zeros((256, _kernels().COLUMNS), np.int64)

    def count(self, gt_rows: LabelMap, pred_rows: LabelMap) -> Integers:
        """Label and counts of every object of a frame, int64 (objects, 1 + 7 or 9), by ascending label.

        gt_rows, pred_rows: uint8 (H, 1 + W) as of `data.masks.decode_rows`, the first column is ignored; label 0 is
        background, 255 a label like any other. Columns: label and `count_names`. Raises MaskError if the shapes differ.
        """
        height, width = gt_rows.shape[0], gt_rows.shape[1] - 1
        if pred_rows.shape != gt_rows.shape:
            raise MaskError(
                f"the prediction is {pred_rows.shape[1] - 1}x{pred_rows.shape[0]} pixels but the ground truth is "
                f"{width}x{height}: write masks at the size of the frames, "
                "or give `vosarena evaluate` --resize nearest"
            )
        space = self._workspace
        if space is None or space.shape != (height, width):
            space = self._workspace = _Workspace.of(height, width)
        table = self._table
        _kernels().count(
            np.ascontiguousarray(gt_rows),
            np.ascontiguousarray(pred_rows),
            space.left,
            space.right,
            space.cap,
            self.adaptive,
            space.differences,
            space.gt_positions,
            space.pred_positions,
            space.gt_plane,
            space.pred_plane,
            table,
        )
        labels = np.flatnonzero(table[:, 1] | table[:, 2])
        return np.column_stack((labels, table[labels, : len(count_names(self.adaptive))]))


def count_objects(gt: LabelMap, pred: LabelMap, adaptive: bool = False) -> Integers:
    """`FrameCounter.count` for plain label maps, uint8 (H, W). Raises MaskError if the shapes differ.

    Boundaries as in DAVIS: a pixel that differs from its right, lower or lower-right neighbour; a boundary pixel
    matches if one of the other mask's lies within the tolerance (davis2017-evaluation).
    """
    padding = ((0, 0), (1, 0))
    return FrameCounter(adaptive).count(np.pad(gt, padding), np.pad(pred, padding))


def jaccard(counts: Integers) -> Floats:
    """J of DAVIS per row of COUNTS: intersection over union; 1 where both masks are empty."""
    intersection, union = counts[:, 0], counts[:, 1] + counts[:, 2] - counts[:, 0]
    return np.divide(intersection, union, out=np.ones(len(counts)), where=union > 0)


def boundary_f(counts: Integers, matched: Integers | None = None) -> Floats:
    """F of DAVIS per row of COUNTS: harmonic mean of boundary precision and recall.

    1 where both boundaries are empty, 0 where one is. matched: other (gt, pred) matches than those of COUNTS.
    """
    n_gt, n_pred = counts[:, 3], counts[:, 4]
    gt_matched, pred_matched = (counts[:, 5], counts[:, 6]) if matched is None else (matched[:, 0], matched[:, 1])
    both = (n_gt > 0) & (n_pred > 0)
    zeros = np.zeros(len(counts))
    precision = np.divide(pred_matched, n_pred, out=zeros.copy(), where=both)
    recall = np.divide(gt_matched, n_gt, out=zeros.copy(), where=both)
    total = precision + recall
    f = np.divide(2 * precision * recall, total, out=zeros, where=total > 0)
    f[(n_gt == 0) & (n_pred == 0)] = 1.0
    return f
