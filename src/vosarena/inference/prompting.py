"""Boxes and clicks that are derived from first masks, to compare prompts in a study by one fixed rule."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from vosarena.trackers.prompts import Box, Click, Prompt, by_object

if TYPE_CHECKING:
    from vosarena.trackers.base import BoolMask, Frame

    Segment = Callable[[Sequence[Prompt]], BoolMask]


def derived_prompts(tracker: Any, frames: Sequence[Frame], masks: Mapping[int, Any], kind: str) -> Mapping[int, Any]:
    """Return the prompts that stand in for first masks.

    Args:
        tracker: The tracker, which shows where clicks after the first one are needed.
        frames: The frames.
        masks: Frame index -> label map, or object id -> bool (H, W).
        kind: `mask`, `box`, `1-click`, `3-click` or `5-click`.

    Returns:
        The masks themselves, or frame index -> object id -> prompts.
    """
    if kind == "mask":
        return masks
    return {index: _of_frame(tracker, frames, index, by_object(given), kind) for index, given in masks.items()}


def _of_frame(
    tracker: Any, frames: Sequence[Frame], index: int, masks: Mapping[int, Any], kind: str
) -> dict[int, Sequence[Prompt]]:
    if kind == "box":
        return {number: (Prompt(box=box_of(mask)),) for number, mask in masks.items()}
    frame = frames[index]

    def segment(prompts: Sequence[Prompt]) -> BoolMask:
        (labels,) = tracker.track([frame], {0: {1: prompts}})
        found: BoolMask = labels == 1
        return found

    count = int(kind.partition("-")[0])
    return {number: clicks_for(mask, count, segment) for number, mask in masks.items()}


def box_of(mask: BoolMask) -> Box:
    """Return the smallest box with all pixels of a mask, bool (H, W): first and last column and row."""
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    return float(columns[0]), float(rows[0]), float(columns[-1]), float(rows[-1])


def clicks_for(mask: BoolMask, count: int, segment: Segment) -> tuple[Prompt, ...]:
    """Return clicks that a person would make one after the other, each where the mask is most wrong.

    The first click is in the middle of the object, and every further one in the middle of the largest error of the mask
    so far. SAM 2 is evaluated so (`pt_sampling_for_eval: center` in `training/model/sam2.py` of facebookresearch/sam2);
    here masks are compared in the size of the frames, not in that of the network.

    Args:
        mask: The right mask, bool (H, W).
        count: Number of clicks.
        segment: Returns the mask of the model after some clicks, bool (H, W).
    """
    predicted, prompts = np.zeros_like(mask), tuple[Prompt, ...]()
    for place in range(count):
        prompts += (Prompt(clicks=(next_click(mask, predicted),)),)
        if place < count - 1:
            predicted = segment(prompts)
    return prompts


def next_click(mask: BoolMask, predicted: BoolMask) -> Click:
    """Return the click in the middle of the largest error, by the rule of SAM 2.

    Of the pixels that are missing and of those that are too many, it is the one with the largest distance to the border
    of its region, where the border of the image counts as one; of equals the first in reading order, and one that is
    too many before one that is missing. This is `sample_one_point_from_error_center` in `sam2/modeling/sam2_utils.py`
    of facebookresearch/sam2, which names RITM (Sofiiuk et al., 2022) as its source. As there, a mask without errors
    gives a click outside of the object in the first pixel.

    Args:
        mask: The right mask, bool (H, W).
        predicted: The mask so far, bool (H, W).
    """
    missing, excess = (_depth(region) for region in (mask & ~predicted, predicted & ~mask))
    inside = bool(missing.max() > excess.max())
    y, x = np.unravel_index(int((missing if inside else excess).argmax()), mask.shape)
    return Click(float(x), float(y), inside)


def _depth(region: BoolMask) -> np.ndarray[Any, Any]:
    """Return the distance of every pixel of a region to the nearest pixel outside of it, float (H, W)."""
    padded = np.pad(region.astype(np.uint8), 1)
    distances: np.ndarray[Any, Any] = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return distances[1:-1, 1:-1]
