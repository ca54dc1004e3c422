"""SAM2Long: several paths through the proposed masks; the one with the best predictions over time is the result."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from vosarena.trackers.memory.base import Candidates, Choice, Limits, Path, Record, Records, Selection, best_of, by_rank

PATHS = 3
LEAST_IOU = 0.1
SURE = 2.0  # logit of presence, without its sign, above which a frame is certain
WEIGHTS = (0.95, 1.05)  # of the keys, from the least to the most certain presence
PROMPT_PRESENCE = 10.0  # of the prompt, where memories are put in order


class Long:
    """SAM2Long, written from the paper.

    Ding et al., "SAM2Long: Enhancing SAM 2 for Long Video Segmentation with a Training-Free Memory Tree", ICCV 2025,
    arXiv 2410.16268. The thresholds are those of its instructions; its command line has 0.3 and 1. The paper takes the
    result from the best path after the last frame. That needs every mask of the video, so here a frame is decided `lag`
    frames later: the result is the paper's for videos of up to that length, and where the best path no longer changes
    so far back.
    """

    presence: ClassVar[float] = 0.0
    lag: ClassVar[int] = 100

    def choose(self, frame: int, paths: Sequence[Path], found: Sequence[Candidates]) -> list[Choice]:
        """Choose the masks of the best paths. In the first frame all paths are the same."""
        if frame == 1:
            index = best_of(found[0])
            return [Choice(Record(float(found[0].ious[index]), found[0].presence), index)] * PATHS
        totals = [
            [path.total + math.log(float(iou) + 1e-5) for iou in candidates.ious]
            for path, candidates in zip(paths, found, strict=True)
        ]
        ious = [[float(iou) for iou in candidates.ious] for candidates in found]
        chosen = best_branches(totals, ious, [candidates.presence for candidates in found])
        return [
            Choice(Record(ious[path][index], found[path].presence), index, path, total=totals[path][index])
            for path, index in chosen
        ]

    def select(self, records: Records, frame: int, limits: Limits) -> Selection:
        """Attend to the prompt, the latest frames with a good mask and in any case the last one.

        Codes for time and distances go by rank. Of the pointers the oldest one is left out, as in the code.
        """
        last = frame - 1
        listed = _good(records, frame)[-limits.pointers :]
        listed += [last] if last > 0 and last not in listed else []
        maps = listed[-limits.maps :]
        pointers = listed[1:][::-1][: limits.pointers]
        weights = [key_weights([records[past].presence for past in frames]) for frames in (maps, pointers)]
        ranked = tuple((rank, past) for rank, past in enumerate(pointers, start=1))
        return Selection((0,), by_rank(maps), ranked, (weights[0], weights[1]) if maps else None)

    def keep(self, records: Records, frame: int, limits: Limits) -> set[int]:
        """Keep the prompt, the latest good frames and the last frame."""
        return {0, frame, *_good(records, frame + 1)[-limits.pointers :]}


def best_branches(
    totals: Sequence[Sequence[float]], ious: Sequence[Sequence[float]], presences: Sequence[float]
) -> list[tuple[int, int]]:
    """Choose the branches that become the new paths, as many as there were.

    Args:
        totals: For every path and mask the sum of the logarithms of the predicted IoU.
        ious: The predicted IoU of these masks.
        presences: For every path the logit that the object is visible.

    Returns:
        Pairs of path and mask, the best first. If a path is certain whether the object is visible, they are those of
        the highest totals. Otherwise they differ in their predicted IoU (two digits, and the sign of the presence), so
        that other explanations survive; if too few do, the best masks of paths that have none come next, in the order
        of the paths.
    """
    branches = [(path, mask) for path, row in enumerate(totals) for mask in range(len(row))]
    branches.sort(key=lambda branch: -totals[branch[0]][branch[1]])  # stable: of equals the better path
    count = len(totals)
    if max(abs(presence) for presence in presences) > SURE:
        return branches[:count]
    distinct: dict[float, tuple[int, int]] = {}
    for path, mask in branches:
        distinct.setdefault(round(ious[path][mask], 2) * (1 if presences[path] > 0 else -1), (path, mask))
    chosen = list(distinct.values())[:count]
    left = [path for path in range(count) if path not in {known for known, _ in chosen}]
    return chosen + [next(branch for branch in branches if branch[0] == path) for path in left[: count - len(chosen)]]


def key_weights(presences: Sequence[float]) -> tuple[float, ...]:
    """Return the factors of the keys of the prompt and of other memories, by the order of their presence."""
    order = np.argsort([PROMPT_PRESENCE, *presences], kind="stable")
    weights = np.empty(len(order))
    weights[order] = np.linspace(*WEIGHTS, len(order))
    return tuple(weights.tolist())


def _good(records: Records, frame: int) -> list[int]:
    return [
        past
        for past in sorted(records)
        if 0 < past < frame and records[past].iou > LEAST_IOU and records[past].presence > 0
    ]
