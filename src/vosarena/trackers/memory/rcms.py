"""RCMS: when the object disappears for the first time, the latest good frames become prompts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

from vosarena.trackers.memory.base import (
    Candidates,
    Choice,
    Limits,
    Path,
    Record,
    Records,
    Selection,
    best_of,
    pointers_before,
)

PROMOTED = 4  # frames
LEAST_QUALITY = 0.6


class Rcms:
    """RCMS, the baseline of MOSEv2.

    Ding et al., "MOSEv2: A More Challenging Dataset for Video Object Segmentation in Complex Scenes", 2025, arXiv
    2508.05630. The number of frames is that of its instructions; its constructor has 3 and its builder 5. Its own
    weights were fine-tuned with other constants of the memory encoder, which stay those of the network here.
    """

    presence: ClassVar[float] = 0.0
    lag: ClassVar[int] = 0

    def choose(self, frame: int, paths: Sequence[Path], found: Sequence[Candidates]) -> list[Choice]:
        """Choose the mask with the highest predicted IoU, and record its quality."""
        (candidates,) = found
        index = best_of(candidates)
        iou, presence = float(candidates.ious[index]), candidates.presence
        return [Choice(Record(iou, presence, quality=quality(iou, presence, candidates.confidence(index))), index)]

    def select(self, records: Records, frame: int, limits: Limits) -> Selection:
        """Attend to the prompts and to the frames just before, as SAM 2 does; frames that became prompts leave gaps."""
        prompts = promoted(records)
        ages = range(min(limits.maps, frame - 1) - 1, -1, -1)
        maps = tuple((age, frame - 1 - age) for age in ages if frame - 1 - age not in prompts)
        pointers = [(distance, past) for distance, past in pointers_before(frame, limits) if past not in prompts]
        return Selection((0, *prompts), maps, tuple(pointers))

    def keep(self, records: Records, frame: int, limits: Limits) -> set[int]:
        """Keep the last frames and those that are or would be promoted; of the first absence the record counts."""
        absent = _first_absence(records)
        later = promoted(records) if absent else _latest_good(records, frame + 1)
        return {0, *later, *range(max(1, frame - limits.maps + 1), frame + 1), *([absent] if absent else [])}


def quality(iou: float, presence: float, confidence: float) -> float:
    """Return sigmoid(presence) * predicted IoU * mean probability of the pixels; 0 for an empty mask."""
    return 0.0 if math.isnan(confidence) else iou * confidence / (1 + math.exp(-presence))


def promoted(records: Records) -> tuple[int, ...]:
    """Return the frames that became prompts, the latest first: the last good ones before the first absence."""
    absent = _first_absence(records)
    return _latest_good(records, absent) if absent else ()


def _first_absence(records: Records) -> int | None:
    return min((frame for frame, record in records.items() if record.presence <= 0), default=None)


def _latest_good(records: Records, end: int) -> tuple[int, ...]:
    good = [frame for frame, record in records.items() if 0 < frame < end and record.quality > LEAST_QUALITY]
    return tuple(sorted(good, reverse=True)[:PROMOTED])
