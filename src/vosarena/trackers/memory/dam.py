"""DAM4SAM: memories every fifth frame, and anchors where another mask of the network shows a distractor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from vosarena.trackers.memory.base import (
    Candidates,
    Choice,
    Limits,
    Path,
    Record,
    Records,
    Selection,
    best_of,
    by_rank,
    pointers_before,
)

ANCHORS = 4  # with the prompt
STRIDE = 5  # frames between recent memories, and the least distance of two anchors
LEAST_IOU = 0.8
SIZES = (0.8, 1.2)  # of the median of recent sizes
SIZE_FRAMES, SIZE_MEDIAN = 300, 10
MOST_BOX_IOU = 0.7


class Dam:
    """DAM4SAM, with the defaults of its code.

    Videnovic et al., "A Distractor-Aware Memory for Visual Object Tracking with SAM2", CVPR 2025, arXiv 2411.17576.
    Slots that no anchor fills go to recent frames, as in the code; the paper has three of each.
    """

    presence: ClassVar[float] = 0.0
    lag: ClassVar[int] = 0

    def choose(self, frame: int, paths: Sequence[Path], found: Sequence[Candidates]) -> list[Choice]:
        """Choose the mask with the highest predicted IoU; the other masks decide whether the frame is an anchor."""
        (path,), (candidates,) = paths, found
        index = best_of(candidates)
        iou = float(candidates.ious[index])
        mask = candidates.mask(index)
        seen = not candidates.is_empty(index)
        record = Record(iou, candidates.presence, int(np.count_nonzero(mask)), seen)
        if may_be_anchor(path.records, frame, record):
            others = [candidates.mask(other) for other in range(len(candidates.ious)) if other != index]
            record = replace(record, anchor=shows_distractor(mask, others))
        return [Choice(record, index)]

    def select(self, records: Records, frame: int, limits: Limits) -> Selection:
        """Attend to the prompt and the latest anchors without a code for time, and to recent frames with the object.

        The last frame is always recent. The other recent frames are multiples of the stride, counted from the prompt.
        """
        last = frame - 1
        anchors = [past for past in sorted(records, reverse=True) if records[past].anchor and past < last]
        prompts = (*anchors[:1], 0, *anchors[1 : ANCHORS - 1])
        seen = [past for past in sorted(records, reverse=True) if 0 < past < frame and records[past].seen]
        recent = [past for past in seen if not records[past].anchor or past == last][:1]
        spaced = [past for past in seen if past % STRIDE == 0 and not records[past].anchor]
        recent += [past for past in spaced if past < recent[0]]
        maps = by_rank(recent[: max(0, limits.maps + 1 - len(prompts))][::-1])
        pointers = [(distance, past) for distance, past in pointers_before(frame, limits) if past not in prompts]
        return Selection(prompts, maps, tuple(pair for pair in pointers if records[pair[1]].seen))

    def keep(self, records: Records, frame: int, limits: Limits) -> set[int]:
        """Keep the prompt, the latest anchors, the last frame with the object, and enough multiples of the stride."""
        newest = sorted((past for past in records if past and records[past].seen), reverse=True)
        anchors = [past for past in newest if records[past].anchor]
        others = [past for past in newest if not records[past].anchor]
        spaced = [past for past in others if past % STRIDE == 0]
        return {0, frame, *anchors[:ANCHORS], *others[:1], *spaced[: limits.maps + 1]}


def may_be_anchor(records: Records, frame: int, record: Record) -> bool:
    """Return whether a frame may be an anchor: a sure mask of a usual size, some frames after the latest anchor."""
    sizes = [records[past].pixels for past in sorted(records) if past > 0] + [record.pixels]
    usual = [size for size in sizes[-SIZE_FRAMES:] if size][-SIZE_MEDIAN:]
    latest = max((past for past in records if records[past].anchor), default=None)
    if frame == 1 or not record.pixels or record.iou <= LEAST_IOU:
        return False
    sized = SIZES[0] <= record.pixels / float(np.median(usual)) <= SIZES[1]
    return sized and (latest is None or frame - latest > STRIDE)


def shows_distractor(chosen: NDArray[np.bool_], others: Sequence[NDArray[np.bool_]]) -> bool:
    """Return whether another mask has a large part far from the chosen one.

    Args:
        chosen: bool (H, W), not empty.
        others: The other masks of the network, bool (H, W).

    Returns:
        Whether for one of them the box of the chosen mask has an IoU of at most 0.7 with the box around the chosen mask
        and the largest part (8-connected) that only the other mask has.
    """
    area = _box_area(chosen)
    for other in others:
        only = (other & ~chosen).astype(np.uint8)
        if not only.any():
            continue
        _, parts, statistics, _ = cv2.connectedComponentsWithStats(only, connectivity=8)
        largest = 1 + int(np.argmax(statistics[1:, cv2.CC_STAT_AREA]))
        if area / _box_area(chosen | (parts == largest)) <= MOST_BOX_IOU:
            return True
    return False


def _box_area(mask: NDArray[np.bool_]) -> int:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int((rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1))
