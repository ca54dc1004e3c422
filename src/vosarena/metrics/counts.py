"""Seven integer counts per object and frame, from which J and F of every protocol follow.

The definitions are those of DAVIS (Perazzi et al., "A Benchmark Dataset and Evaluation Methodology for Video Object
Segmentation", CVPR 2016) as implemented in davis2017-evaluation; the adaptive tolerance is that of MOSEv2.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np

from vosarena.base.compiled import as_argument, compiled
from vosarena.base.errors import MaskError
from vosarena.io.masks import LabelMap
from vosarena.io.runs import Runs

BOUNDARY_FRACTION = 0.008  # of the image diagonal
IGNORE = 255  # the label that most datasets use for "do not care"
_MAX_SIDE = 32768
_BAND = 64  # rows of an object that are counted at once, so that their bits stay in the nearest cache

Integers = np.ndarray[Any, np.dtype[np.int64]]
Floats = np.ndarray[Any, np.dtype[np.float64]]
Booleans = np.ndarray[Any, np.dtype[np.bool_]]

#: Names of the counts, in the order of the columns of the kernels' table.
COUNTS = ("intersection", "gt_pixels", "pred_pixels", "gt_boundary", "pred_boundary", "gt_matched", "pred_matched")
#: Names of the two additional counts with MOSEv2's tolerance.
ADAPTIVE_COUNTS = ("gt_matched_adaptive", "pred_matched_adaptive")


@dataclass(frozen=True)
class Counts:
    """Counts of objects in frames: one int64 array per count, all of the same length.

    Attributes:
        intersection: Pixels that belong to the object in both masks.
        gt_pixels: Pixels of the object in the ground truth.
        pred_pixels: Pixels of the object in the prediction.
        gt_boundary: Boundary pixels of the object in the ground truth.
        pred_boundary: Boundary pixels of the object in the prediction.
        gt_matched: Boundary pixels of the ground truth with a predicted one within the tolerance.
        pred_matched: Boundary pixels of the prediction with a true one within the tolerance.
        gt_matched_adaptive: As `gt_matched`, with MOSEv2's tolerance; None if it was not counted.
        pred_matched_adaptive: As `pred_matched`, with MOSEv2's tolerance; None if it was not counted.
    """

    intersection: Integers
    gt_pixels: Integers
    pred_pixels: Integers
    gt_boundary: Integers
    pred_boundary: Integers
    gt_matched: Integers
    pred_matched: Integers
    gt_matched_adaptive: Integers | None = None
    pred_matched_adaptive: Integers | None = None

    @classmethod
    def from_table(cls, table: Integers) -> Counts:
        """Counts from an array (n, 7) or (n, 9) whose columns are `count_names`."""
        return cls(*(np.ascontiguousarray(column) for column in table.T))

    def columns(self) -> dict[str, Integers]:
        """The arrays by name, without those that were not counted."""
        arrays = {name: getattr(self, name) for name in COUNTS + ADAPTIVE_COUNTS}
        return {name: array for name, array in arrays.items() if array is not None}

    def __len__(self) -> int:
        return len(self.intersection)

    def __getitem__(self, rows: slice | Integers) -> Counts:
        """The counts of some rows."""
        return Counts(**{name: array[rows] for name, array in self.columns().items()})

    def total(self) -> Counts:
        """The sums over all rows, as counts of one row."""
        return Counts(**{name: array.sum(keepdims=True) for name, array in self.columns().items()})

    def without_prediction(self) -> Counts:
        """The counts of the same ground truth and a prediction without any object."""
        kept = ("gt_pixels", "gt_boundary")
        return Counts(**{n: array if n in kept else np.zeros_like(array) for n, array in self.columns().items()})

    @property
    def union(self) -> Integers:
        """Pixels that belong to the object in at least one of the masks."""
        return self.gt_pixels + self.pred_pixels - self.intersection


def count_names(adaptive: bool) -> tuple[str, ...]:
    """COUNTS, with ADAPTIVE_COUNTS if `adaptive`."""
    return COUNTS + ADAPTIVE_COUNTS if adaptive else COUNTS


@cache
def tolerance_cap(height: int, width: int) -> float:
    """0.008 of the image diagonal in pixels, computed as in the reference implementations, to the last bit."""
    return float(BOUNDARY_FRACTION * np.linalg.norm((height, width)))


def tolerance(height: int, width: int) -> int:
    """Boundary tolerance of DAVIS in pixels: ceil(0.008 * diagonal) (Perazzi et al., CVPR 2016)."""
    return int(np.ceil(tolerance_cap(height, width)))


def adaptive_tolerance(gt_pixels: Integers, cap: float | Floats) -> Floats:
    """Tolerance of MOSEv2's F-dot in pixels: ceil(0.1 * sqrt(area)), at most `cap`; `cap` where there is no object.

    Source: MOSE-api, MOSEv2/sam2_rcms/tools/metricsv2.py (which does not round the cap up).
    """
    by_area = np.ceil(0.1 * np.sqrt(gt_pixels))
    return np.where(gt_pixels > 0, np.minimum(by_area, cap), cap)


@dataclass(frozen=True)
class _Workspace:
    """Buffers and tables for maps of one size with at most so many runs."""

    shape: tuple[int, int]
    runs: int
    table: Integers
    arrays: tuple[Any, ...]

    @classmethod
    def of(cls, height: int, width: int, runs: int) -> _Workspace:
        if height > _MAX_SIDE or width > 2 * _MAX_SIDE:
            raise MaskError(f"a mask of {width}x{height} pixels is too large; expected at most 65536x32768")
        radius, cap = tolerance(height, width), tolerance_cap(height, width)
        disks = _disks(radius, cap)
        words = (width + 63) // 64 + radius // 64 + 1
        table = np.empty((255, 1 + len(count_names(adaptive=True))), np.int64)
        arrays = (
            cap,
            disks,
            _reach(disks),
            np.empty((2, runs), np.int64),
            np.zeros((7, (_BAND + 2 * radius + 4) * words), np.uint64),
            _BAND,
            np.empty((4, 256), np.int64),
            table,
        )
        return cls((height, width), runs, table, arrays)

    @cached_property
    def arguments(self) -> bytes:
        """The arguments of the compiled `count` after the masks and `adaptive`."""
        return b"".join(map(as_argument, self.arrays))


@cache
def _disks(radius: int, cap: float) -> np.ndarray[Any, np.dtype[np.int32]]:
    """Horizontal extents of disks by row, int32 (2, R + 1, 2 R + 1): left and right.

    Entry r holds the disk of radius r, entry 0 that of radius `cap`. A disk is the set of offsets with
    dx^2 + dy^2 <= r^2. For a fractional radius MOSEv2's scorer uses skimage.morphology.disk(r), whose grid starts at
    -r, so the disk is off the centre of its footprint. Published numbers contain this shift, so it is reproduced.
    """
    disks = np.ones((2, radius + 1, 2 * radius + 1), np.int32)
    left, right = disks
    right[:] = 0
    for row in range(radius + 1):
        r = row if row else cap
        axis = np.arange(-r, r + 1)
        centre = len(axis) // 2  # the anchor of a dilation
        inside = axis[:, None] ** 2 + axis[None, :] ** 2 <= r**2
        inside[0, 0] |= not inside.any()  # diagonals under 75 pixels: what OpenCV makes of an empty kernel
        for i in np.flatnonzero(inside.any(axis=1)):
            columns = np.flatnonzero(inside[i])
            left[row, radius + i - centre] = columns[0] - centre
            right[row, radius + i - centre] = columns[-1] - centre
    return disks


def _reach(disks: np.ndarray[Any, np.dtype[np.int32]]) -> np.ndarray[Any, np.dtype[np.int32]]:
    """The largest rectangle in each disk of `_disks` and the least one around it, int32 (R + 1, 4).

    Half height and half width of the first, and how much larger those of the second are, at least 1. The first is -1
    if the disk does not hold its centre, or the second is too large for the kernels.
    """
    radius = disks.shape[2] // 2
    left, right = disks
    widths = np.minimum(-left, right)
    widths = np.minimum.accumulate(np.minimum(widths, widths[:, ::-1])[:, radius:], axis=1)  # by half height
    height = np.argmax((2 * np.arange(radius + 1) + 1) * (2 * widths + 1) * (widths >= 0), axis=1)
    width = np.take_along_axis(widths, height[:, None], 1)[:, 0]
    filled = left <= right
    most_rows = (np.abs(np.arange(-radius, radius + 1)) * filled).max(axis=1)
    most_columns = (np.maximum(np.abs(left), np.abs(right)) * filled).max(axis=1)
    more = np.maximum(np.stack((most_rows - height, most_columns - width), 1), 1)
    known = (width >= 0) & (height + more[:, 0] <= radius)
    known &= (more[:, 0] <= 2 * height + 1) & (more[:, 1] <= np.minimum(2 * width + 1, 63))
    reach = np.column_stack((height, width, more)).astype(np.int32)
    reach[~known] = -1, -1, 1, 1
    return reach


class FrameCounter:
    """Counts the objects of frames of any size. It reuses its buffers between frames, so use one per thread.

    Args:
        adaptive: Also count matches within MOSEv2's adaptive tolerance.
    """

    def __init__(self, adaptive: bool = False) -> None:
        self.adaptive = adaptive
        self._workspace: _Workspace | None = None

    def count(self, gt: Runs, pred: Runs) -> tuple[Integers, Integers]:
        """Count every object of a frame.

        Args:
            gt: Ground truth. Label 0 is background; 255 is a label like any other.
            pred: Prediction.

        Returns:
            The labels in ascending order, int64 (objects,), and their counts, int64 (objects, 7 or 9), whose columns
            are `count_names`.

        Raises:
            MaskError: The shapes differ.
        """
        if pred.shape != gt.shape:
            raise MaskError(
                f"the prediction is {pred.width}x{pred.height} pixels but the ground truth is "
                f"{gt.width}x{gt.height}: write masks at the size of the frames, "
                "or give `vosarena evaluate` --resize nearest"
            )
        space, runs = self._workspace, max(len(gt.labels), len(pred.labels))
        if space is None or space.shape != gt.shape or space.runs < runs:
            space = self._workspace = _Workspace.of(*gt.shape, 2 * runs)
        masks = (gt.starts, gt.labels, pred.starts, pred.labels)
        number = compiled("vosarena.metrics.kernels", "count")(*masks, *gt.shape, int(self.adaptive), space.arguments)
        rows = space.table[:number, : 1 + len(count_names(self.adaptive))].copy()
        return rows[:, 0], rows[:, 1:]


def count_objects(ground_truth: LabelMap, prediction: LabelMap, adaptive: bool = False) -> tuple[Integers, Counts]:
    """Count every object of one frame.

    A boundary pixel differs from its right, lower or lower-right neighbour; it matches if the other mask has a
    boundary pixel within the tolerance (davis2017-evaluation).

    Args:
        ground_truth: Labels, uint8 (H, W).
        prediction: Labels of the same shape.
        adaptive: Also count matches within MOSEv2's adaptive tolerance.

    Returns:
        The labels that occur in either map, ascending, without 0; and their counts.

    Raises:
        MaskError: The shapes differ.
    """
    maps = (Runs.of_rows(np.pad(labels, ((0, 0), (1, 0)))) for labels in (ground_truth, prediction))
    labels, table = FrameCounter(adaptive).count(*maps)
    return labels, Counts.from_table(table)


def jaccard(counts: Counts) -> Floats:
    """J of DAVIS, 0 to 1: intersection over union; 1 where both masks are empty."""
    union = counts.union
    j: Floats = np.divide(counts.intersection, union, out=np.ones(len(counts)), where=union > 0)
    return j


def boundary_f(counts: Counts, adaptive: bool = False) -> Floats:
    """F of DAVIS, 0 to 1: harmonic mean of boundary precision and recall.

    F is 1 where both boundaries are empty and 0 where one of them is.

    Args:
        counts: Counts of objects in frames.
        adaptive: Use the matches with MOSEv2's tolerance (F-dot).
    """
    gt_matched, pred_matched = counts.gt_matched, counts.pred_matched
    if adaptive:
        assert counts.gt_matched_adaptive is not None
        assert counts.pred_matched_adaptive is not None
        gt_matched, pred_matched = counts.gt_matched_adaptive, counts.pred_matched_adaptive
    both = (counts.gt_boundary > 0) & (counts.pred_boundary > 0)
    zeros = np.zeros(len(counts))
    precision = np.divide(pred_matched, counts.pred_boundary, out=zeros.copy(), where=both)
    recall = np.divide(gt_matched, counts.gt_boundary, out=zeros.copy(), where=both)
    total = precision + recall
    f: Floats = np.divide(2 * precision * recall, total, out=zeros, where=total > 0)
    f[(counts.gt_boundary == 0) & (counts.pred_boundary == 0)] = 1.0
    return f
