"""J over time of every object, where it fails first, and what makes a sequence hard, from one table of counts."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vosarena.datasets.sequences import frame_order
from vosarena.datasets.table import SequenceRecord
from vosarena.demo.clips import LONG_FRAMES, MANY_OBJECTS, SMALL_AREA
from vosarena.metrics.read import Metrics, SequenceRows

LOST = 0.5  # a frame counts as failed at or below this J: the threshold of DAVIS's recall
SPARK = 32  # points of a sparkline


@dataclass(frozen=True)
class ObjectCurve:
    """One object of one model. j: per frame with ground truth, 0..1. visible: whether the object is there."""

    object_id: int
    stems: tuple[str, ...]
    j: np.ndarray
    visible: np.ndarray

    @property
    def start(self) -> int:
        """Position of the first frame that the object appears in; the number of frames if it never does."""
        return int(np.argmax(self.visible)) if self.visible.any() else len(self.visible)

    @property
    def failure(self) -> int | None:
        """Position of the first frame, after the one the object appears in, with J at or below LOST; or None."""
        lost = np.flatnonzero(self.j[self.start + 1 :] <= LOST)
        return self.start + 1 + int(lost[0]) if len(lost) else None


def sequence_curves(rows: SequenceRows) -> list[ObjectCurve]:
    """Curves of the objects that count."""
    return [ObjectCurve(number, item.frames, item.j, item.in_gt) for number, item in rows.listed.items()]


def mean_curve(curves: Sequence[ObjectCurve]) -> ObjectCurve | None:
    """Mean J over objects, on the frames from the first appearance of any of them on; None without any object.

    A frame counts the objects with ground truth there that have appeared by then; visible: whether any of them is.
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


def spark(curves: Sequence[ObjectCurve]) -> list[int]:
    """Mean J over objects as at most SPARK percentages, each the mean of its part of the video."""
    mean = mean_curve(curves)
    if mean is None:
        return []
    return [round(100 * float(part.mean())) for part in np.array_split(mean.j, min(SPARK, len(mean.j)))]


def derived_attributes(metrics: Metrics, table: Sequence[SequenceRecord]) -> dict[str, list[str]]:
    """Attributes that the ground truth shows, for datasets that give none.

    small, many-objects, long: as for procedural clips (data.clips). disappearance: an object is absent in a frame after
    it appeared; return: and is there again later. late: an object appears after the first frame.
    """
    facts = {record.sequence: record for record in table}
    found: dict[str, list[str]] = {}
    for rows in metrics.sequences():
        fact, objects = facts[rows.name], [item for item in rows.listed.values() if item.in_gt.any()]
        area = fact.height * fact.width
        gone = [item.in_gt[int(np.argmax(item.in_gt)) :] for item in objects]
        signs = {
            "small": any(np.median(item.counts[item.in_gt, 1]) < SMALL_AREA * area for item in objects),
            "many-objects": len(objects) >= MANY_OBJECTS,
            "long": fact.n_frames >= LONG_FRAMES,
            "disappearance": any(not seen.all() for seen in gone),
            "return": any((~seen[:-1] & seen[1:]).any() for seen in gone),
            "late": any(not item.in_gt[0] for item in objects),
        }
        found[rows.name] = sorted(name for name, sign in signs.items() if sign)
    return found
