"""J&F of trackers on procedural clips that no training has seen: the scores that go beside the demo weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from vosarena.data.synthetic import SIZE, clip_seed, random_clip
from vosarena.logs import progress_bar
from vosarena.scoring.counts import boundary_f, count_objects, jaccard
from vosarena.trackers.base import LabelMap, Tracker


def first_appearances(masks: np.ndarray) -> dict[int, LabelMap]:
    """Prompts of a clip: frame index -> label map of the objects that first appear there. masks: uint8 (T, H, W)."""
    prompts: dict[int, LabelMap] = {}
    seen = np.zeros(256, bool)
    seen[0] = True
    for index, labels in enumerate(masks):
        new = np.bincount(labels.ravel(), minlength=256).astype(bool) & ~seen
        if new.any():
            prompts[index] = np.where(new[labels], labels, 0).astype(np.uint8)
            seen |= new
    return prompts


def clip_score(tracker: Tracker, frames: np.ndarray, masks: np.ndarray) -> float:
    """J&F of one clip in percent: mean over objects of the mean over frames after the prompt, the last one excluded."""
    prompts = first_appearances(masks)
    first = {int(label): index for index, prompt in prompts.items() for label in np.unique(prompt) if label}
    scores: dict[int, list[float]] = {label: [] for label in first}
    for index, labels in enumerate(tracker.track(list(frames), prompts)):
        if index == len(frames) - 1:
            break
        rows = count_objects(masks[index], labels)
        values = dict(zip(rows[:, 0].tolist(), (jaccard(rows[:, 1:]) + boundary_f(rows[:, 1:])) / 2, strict=True))
        for label, start in first.items():
            if index > start:
                scores[label].append(values.get(label, 1.0))  # absent from both masks: as DAVIS, a hit
    means = [np.mean(values) for values in scores.values() if values]
    return 100 * float(np.mean(means))


def held_out_scores(
    trackers: Mapping[str, Tracker], clips: int = 120, frames: int = 24, domain: str = "plain"
) -> dict[str, dict[str, Any]]:
    """Mean J&F over clips of the held-out stream and its standard error, per tracker."""
    scores: dict[str, list[float]] = {name: [] for name in trackers}
    for number in progress_bar(range(clips), desc=f"held-out clips ({domain})"):
        clip = random_clip(clip_seed("held-out", number), frames=frames, size=SIZE, domain=domain)
        for name, tracker in trackers.items():
            scores[name].append(clip_score(tracker, clip.frames, clip.masks))
    return {
        name: {
            "j_and_f": round(float(np.mean(values)), 2),
            "standard_error": round(float(np.std(values, ddof=1) / np.sqrt(clips)), 2),
        }
        for name, values in scores.items()
    }
