"""Compute J over time and failures of objects, and attributes of sequences, from a metrics file's counts."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from vosarena.datasets.sequences import frame_order
from vosarena.datasets.table import SequenceRecord
from vosarena.demo.clips import LONG_FRAMES, MANY_OBJECTS, SMALL_AREA
from vosarena.metrics.read import Metrics
from vosarena.metrics.records import ObjectRows, SequenceRows

FAILURE_J = 0.5  # a frame counts as failed at or below this J, the threshold of DAVIS's recall
WRONG_OBJECT = 0.1  # largest share of overlap with the object for a mask to be on something else
SPARKLINE_POINTS = 32


class FailureKind(StrEnum):
    """How a model failed on an object in a frame."""

    LOST = "lost"  # the object is visible, and there is no mask
    WRONG = "wrong object"  # the mask is on something else
    DRIFT = "drift"  # the mask covers too little or too much
    ABSENT = "false positive while absent"  # there is a mask, and the object is not visible


@dataclass(frozen=True)
class ObjectCurve:
    """J of one object of one model over the frames with ground truth.

    Attributes:
        object_id: Id of the object; 0 for a mean over objects.
        stems: Names of the frames.
        j: J of each frame, from 0 to 1.
        visible: Whether the object is in the ground truth of each frame.
    """

    object_id: int
    stems: tuple[str, ...]
    j: NDArray[np.float64]
    visible: NDArray[np.bool_]

    @property
    def start(self) -> int:
        """Index of the first frame in which the object appears, or the number of frames if it never does."""
        return int(np.argmax(self.visible)) if self.visible.any() else len(self.visible)

    @property
    def failure(self) -> int | None:
        """Index of the first frame after the appearance with J at or below FAILURE_J, or None."""
        failed = np.flatnonzero(self.j[self.start + 1 :] <= FAILURE_J)
        return self.start + 1 + int(failed[0]) if len(failed) else None


def sequence_curves(rows: SequenceRows) -> list[ObjectCurve]:
    """Return the curves of the objects that count (see SequenceRows.listed)."""
    return [ObjectCurve(number, item.frames, item.j, item.in_gt) for number, item in rows.listed.items()]


def failure_kinds(rows: ObjectRows) -> list[FailureKind | None]:
    """Return how a model failed on an object, by frame; None before its first frame and where J is above FAILURE_J.

    A mask is on something else if at most a share of WRONG_OBJECT of its pixels is on the object, and it covers at most
    the same share of the object.
    """
    start = int(np.argmax(rows.in_gt)) if rows.in_gt.any() else len(rows.j)
    return [None if index <= start or j > FAILURE_J else _failure_kind(rows, index) for index, j in enumerate(rows.j)]


def _failure_kind(rows: ObjectRows, index: int) -> FailureKind:
    counts = rows.counts
    common, true, predicted = (
        int(values[index]) for values in (counts.intersection, counts.gt_pixels, counts.pred_pixels)
    )
    if not predicted:
        return FailureKind.LOST
    if not true:
        return FailureKind.ABSENT
    return FailureKind.WRONG if common <= WRONG_OBJECT * min(true, predicted) else FailureKind.DRIFT


@dataclass(frozen=True)
class Survival:
    """How long a model followed an object.

    Attributes:
        share: Fraction of the frames after the object's first one before the first failure; 1 without a failure, NaN if
            no frame comes after its first one.
        failure: The first failure, if there is one.
    """

    share: float
    failure: FailureKind | None = None


def survival(rows: ObjectRows) -> Survival:
    """Return how long a model followed an object: until the first frame with J at or below FAILURE_J."""
    curve = ObjectCurve(rows.object_id, rows.frames, rows.j, rows.in_gt)
    after = len(curve.j) - curve.start - 1
    if after < 1:
        return Survival(float("nan"))
    if curve.failure is None:
        return Survival(1.0)
    return Survival((curve.failure - curve.start - 1) / after, _failure_kind(rows, curve.failure))


def mean_curve(curves: Sequence[ObjectCurve]) -> ObjectCurve | None:
    """Return the mean J over objects from the first appearance of any of them, or None without objects.

    The mean of a frame is over the objects that have ground truth in it and have appeared by then. A frame counts as
    visible if any of these objects is visible in it.
    """
    values: dict[str, list[float]] = {}
    seen: dict[str, bool] = {}
    for curve in curves:
        for index in range(curve.start, len(curve.j)):
            stem = curve.stems[index]
            values.setdefault(stem, []).append(float(curve.j[index]))
            seen[stem] = seen.get(stem, False) or bool(curve.visible[index])
    order = list(frame_order(set(values)))
    if not order:
        return None
    j = np.array([np.mean(values[stem]) for stem in order])
    return ObjectCurve(0, tuple(order), j, np.array([seen[stem] for stem in order]))


def sparkline(curves: Sequence[ObjectCurve]) -> list[int]:
    """Return the mean J over objects as at most SPARKLINE_POINTS percentages, each the mean of a part of a sequence."""
    mean = mean_curve(curves)
    if mean is None:
        return []
    return [round(100 * float(part.mean())) for part in np.array_split(mean.j, min(SPARKLINE_POINTS, len(mean.j)))]


def derived_attributes(metrics: Metrics, table: Sequence[SequenceRecord]) -> dict[str, list[str]]:
    """Return attributes by sequence, derived from the ground truth, for datasets that give none.

    - `small`, `many-objects` and `long` use the thresholds of demo.clips.
    - `disappearance` means that an object is absent from a frame after it appeared.
    - `return` means that an object reappears after a disappearance.
    - `late` means that an object appears after the first frame.

    Args:
        metrics: Metrics of any model; only the counts of the ground truth are read.
        table: Rows of the table of sequences.
    """
    facts = {record.sequence: record for record in table}
    found: dict[str, list[str]] = {}
    for rows in metrics.sequences:
        fact, objects = facts[rows.name], [item for item in rows.listed.values() if item.in_gt.any()]
        area = fact.height * fact.width
        gone = [item.in_gt[int(np.argmax(item.in_gt)) :] for item in objects]
        signs = {
            "small": any(np.median(item.counts.gt_pixels[item.in_gt]) < SMALL_AREA * area for item in objects),
            "many-objects": len(objects) >= MANY_OBJECTS,
            "long": fact.n_frames >= LONG_FRAMES,
            "disappearance": any(not seen.all() for seen in gone),
            "return": any((~seen[:-1] & seen[1:]).any() for seen in gone),
            "late": any(not item.in_gt[0] for item in objects),
        }
        found[rows.name] = sorted(name for name, sign in signs.items() if sign)
    return found
