"""J over time of every object, where it fails first, and what makes a sequence hard, from one table of counts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vosarena.scoring.pairs import frame_order
from vosarena.scoring.table import Metrics, SequenceRows

LOST = 0.5  # a frame counts as failed at or below this J: the threshold of DAVIS's recall
SPARK = 32  # points of a sparkline
SMALL, MANY, LONG = 0.01, 5, 150  # part of the frame; objects; frames


@dataclass(frozen=True)
class ObjectCurve:
    """One object of one model. j: per frame with ground truth, 0..1. visible: whether the object is there."""

    object_id: int
    stems: tuple[str, ...]
    j: np.ndarray
    visible: np.ndarray

    @property
    def failure(self) -> int | None:
        """Position of the first frame, after the one the object appears in, with J at or below LOST; or None."""
        if not self.visible.any():
            return None
        start = int(np.argmax(self.visible)) + 1
        lost = np.flatnonzero(self.j[start:] <= LOST)
        return start + int(lost[0]) if len(lost) else None


def sequence_curves(rows: SequenceRows) -> list[ObjectCurve]:
    """Curves of the objects that count."""
    return [ObjectCurve(number, item.frames, item.j, item.in_gt) for number, item in rows.listed.items()]


def mean_curve(curves: Sequence[ObjectCurve]) -> tuple[np.ndarray, np.ndarray]:
    """Mean J, and whether an object is visible, on every frame; a frame counts the objects with ground truth there."""
    order = list(frame_order({stem for curve in curves for stem in curve.stems}))
    position = {stem: index for index, stem in enumerate(order)}
    j, visible = np.full((len(curves), len(order)), np.nan), np.zeros(len(order), bool)
    for mine, curve in zip(j, curves, strict=True):
        places = [position[stem] for stem in curve.stems]
        mine[places] = curve.j
        visible[places] |= curve.visible
    return np.nanmean(j, axis=0), visible


def spark(curves: Sequence[ObjectCurve]) -> list[int]:
    """Mean J over objects as at most SPARK percentages, each the mean of its part of the video."""
    if not curves:
        return []
    points = min(SPARK, *(len(curve.j) for curve in curves))
    parts = [[part.mean() for part in np.array_split(curve.j, points)] for curve in curves]
    return [round(100 * float(value)) for value in np.mean(parts, axis=0)]


def derived_attributes(metrics: Metrics, table: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Attributes that the ground truth shows, for datasets that give none.

    small: an object whose median visible area is below 1 % of the frame. many-objects: five or more. long: more than
    150 frames. disappearance: an object is absent in a frame after it appeared; return: and is there again later. late:
    an object appears after the first frame.
    """
    facts = {row["sequence"]: row for row in table}
    found: dict[str, list[str]] = {}
    for rows in metrics.sequences():
        fact, objects = facts[rows.name], [item for item in rows.listed.values() if item.in_gt.any()]
        area = fact["height"] * fact["width"]
        gone = [item.in_gt[int(np.argmax(item.in_gt)) :] for item in objects]
        signs = {
            "small": any(np.median(item.counts[item.in_gt, 1]) < SMALL * area for item in objects),
            "many-objects": len(objects) >= MANY,
            "long": fact["n_frames"] > LONG,
            "disappearance": any(not seen.all() for seen in gone),
            "return": any((~seen[:-1] & seen[1:]).any() for seen in gone),
            "late": any(not item.in_gt[0] for item in objects),
        }
        found[rows.name] = sorted(name for name, sign in signs.items() if sign)
    return found
