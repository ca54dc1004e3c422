"""SAMURAI: a predicted box helps to choose the mask, and only good frames are remembered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from vosarena.trackers.memory.base import (
    Box,
    Candidates,
    Choice,
    Limits,
    Motion,
    Path,
    Record,
    Records,
    Selection,
    by_rank,
    pointers_before,
)

MOTION_WEIGHT = 0.15  # of the box in the choice of a mask
LEAST_IOU = 0.3  # the filter follows masks of this predicted IoU
LEAST_IOU_REMEMBERED = 0.5
STABLE_FRAMES = 15  # frames in a row before the prediction counts
_POSITION, _VELOCITY = 1 / 20, 1 / 160  # standard deviations, relative to the height of the box

_STEP = np.eye(8) + np.eye(8, k=4)  # position += velocity
_OBSERVE = np.eye(4, 8)


class Samurai:
    """SAMURAI, with the defaults of its code.

    Yang et al., "SAMURAI: Adapting Segment Anything Model for Zero-Shot Visual Tracking with Motion-Aware Memory",
    2024, arXiv 2411.11922. An object counts as visible above a logit of -1. Its configurations of the smaller networks
    give the motion a weight of 0.25; here it is 0.15, that of the paper's largest network, for all.
    """

    presence: ClassVar[float] = -1.0
    lag: ClassVar[int] = 0

    def choose(self, frame: int, paths: Sequence[Path], found: Sequence[Candidates]) -> list[Choice]:
        """Choose by predicted IoU and motion; a network that proposes a single mask gets no filter."""
        (path,), (candidates,) = paths, found
        index, motion, overlap = 0, None, None
        if len(candidates.ious) > 1:
            index, motion, overlap = choose_by_motion(path.motion, candidates.ious, candidates.boxes())
        record = Record(float(candidates.ious[index]), candidates.presence, motion=overlap)
        return [Choice(record, index, motion=motion)]

    def select(self, records: Records, frame: int, limits: Limits) -> Selection:
        """Attend to the latest good frames and in any case to the last one; pointers are those of SAM 2.

        Codes for time go by rank. Frame 1 is attended to by frame 2 only, as in the code.
        """
        last = frame - 1
        frames = [*_good(records, frame)[-limits.maps :], *([last] if not _is_good(records, last) else [])]
        maps = by_rank([past for past in frames if past > 0][-limits.maps :])
        return Selection((0,), maps, tuple(pointers_before(frame, limits)))

    def keep(self, records: Records, frame: int, limits: Limits) -> set[int]:
        """Keep the prompt, the latest good frames and the last frame."""
        return {0, frame, *_good(records, frame + 1)[-limits.maps :]}


def _good(records: Records, frame: int) -> list[int]:
    """Return the frames before this one that are worth remembering, from the oldest to the latest.

    They have a predicted IoU above 0.5, a logit of presence above 0 and, where motion counts, a box that overlaps the
    predicted one.
    """
    return [past for past in sorted(records) if past < frame and _is_good(records, past)]


def _is_good(records: Records, frame: int) -> bool:
    record = records[frame]
    moves = record.motion is None or record.motion > 0
    return frame > 1 and record.iou > LEAST_IOU_REMEMBERED and record.presence > 0 and moves


def choose_by_motion(
    motion: Motion | None, ious: NDArray[np.float32], boxes: Sequence[Box | None]
) -> tuple[int, Motion, float | None]:
    """Choose a mask by its predicted IoU and by how well its box fits the motion so far.

    The mask is the one with the highest w * IoU(box, predicted box) + (1 - w) * predicted IoU, once the motion has been
    right for 15 frames; until then the one with the highest predicted IoU.

    Args:
        motion: The motion up to the previous frame, None in the first one.
        ious: Predicted IoU, float32 (N,).
        boxes: The box of every mask, None for an empty one.

    Returns:
        The number of the mask, the new motion, and the IoU of the mask's box with the predicted one (None as long as
        the prediction does not count). The motion starts anew after a mask of low predicted IoU.
    """
    if motion is None or motion.stable == 0:
        index = int(np.argmax(ious))
        return index, start_motion(boxes[index]), None
    predicted = predict(motion)
    if motion.stable < STABLE_FRAMES:
        index = int(np.argmax(ious))
        good = bool(ious[index] > LEAST_IOU)
        return index, update(predicted, boxes[index], motion.stable + 1) if good else _lost(predicted), None
    overlaps = [box_iou(predicted.mean[:4], box) for box in boxes]
    index = int(np.argmax(MOTION_WEIGHT * np.array(overlaps) + np.float32(1 - MOTION_WEIGHT) * ious))
    good = bool(ious[index] >= LEAST_IOU)
    moved = update(predicted, boxes[index], motion.stable) if good else _lost(predicted)
    return index, moved, overlaps[index]


def _lost(motion: Motion) -> Motion:
    return Motion(motion.mean, motion.covariance, 0)


def start_motion(box: Box | None) -> Motion:
    """Return the motion of a box that has been seen once: centre x and y, width / height, height, and velocities of 0.

    The filter is that of DeepSORT (Wojke et al., 2017), on which SAMURAI's is based.
    """
    measured = _measurement(box)
    deviations = measured[3] * np.array([2 * _POSITION] * 4 + [10 * _VELOCITY] * 4)
    deviations[[2, 6]] = 1e-2, 1e-5
    return Motion(np.concatenate([measured, np.zeros(4)]), np.diag(deviations**2), 1)


def predict(motion: Motion) -> Motion:
    """Return the motion one frame later, before that frame is seen."""
    deviations = motion.mean[3] * np.array([_POSITION] * 4 + [_VELOCITY] * 4)
    deviations[[2, 6]] = 1e-2, 1e-5
    covariance = _STEP @ motion.covariance @ _STEP.T + np.diag(deviations**2)
    return Motion(_STEP @ motion.mean, covariance, motion.stable)


def update(motion: Motion, box: Box | None, stable: int) -> Motion:
    """Return a predicted motion corrected by the box that was seen."""
    deviations = motion.mean[3] * np.array([_POSITION] * 4)
    deviations[2] = 1e-1
    uncertainty = _OBSERVE @ motion.covariance @ _OBSERVE.T + np.diag(deviations**2)
    gain = np.linalg.solve(uncertainty, _OBSERVE @ motion.covariance).T
    mean = motion.mean + gain @ (_measurement(box) - _OBSERVE @ motion.mean)
    return Motion(mean, motion.covariance - gain @ uncertainty @ gain.T, stable)


def _measurement(box: Box | None) -> NDArray[np.float64]:
    x0, y0, x1, y1 = box or (0, 0, 0, 0)
    height = (y1 - y0) or 1
    return np.array([(x0 + x1) / 2, (y0 + y1) / 2, (x1 - x0) / height, height])


def box_iou(predicted: NDArray[np.float64], box: Box | None) -> float:
    """Return the IoU of a predicted box (centre x and y, width / height, height) with a box; 0 with an empty one."""
    if box is None or box == (0, 0, 0, 0):
        return 0.0
    x, y, ratio, height = (float(value) for value in predicted)
    px0, py0, px1, py1 = x - ratio * height / 2, y - height / 2, x + ratio * height / 2, y + height / 2
    x0, y0, x1, y1 = box
    shared = max(0.0, min(px1, x1) - max(px0, x0)) * max(0.0, min(py1, y1) - max(py0, y0))
    union = (px1 - px0) * (py1 - py0) + (x1 - x0) * (y1 - y0) - shared
    return shared / union if union else 0.0
