"""J&F of trackers on generated clips that no training has seen: the scores next to the demo weights."""

from __future__ import annotations

from typing import Any

import numpy as np

from vosarena.base.logs import progress_bar
from vosarena.demo.clips import DOMAINS, random_clip
from vosarena.demo.synthesize import SIZE, clip_seed
from vosarena.metrics.counts import boundary_f, count_objects, jaccard
from vosarena.trackers.base import LabelMap, Tracker
from vosarena.trackers.baselines import Flow, Static

FRAMES = 24
DEFINITION = "per clip: mean over objects of (J+F)/2 over the frames after the prompt, the last one excluded"


def first_appearances(masks: np.ndarray) -> dict[int, LabelMap]:
    """Return the prompts of a clip: frame index -> labels of the objects that first appear there.

    masks: labels, uint8 (T, H, W).
    """
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
    """Return the J&F of one clip in percent: mean over objects and over frames after the prompt, except the last."""
    prompts = first_appearances(masks)
    first = {int(label): index for index, prompt in prompts.items() for label in np.unique(prompt) if label}
    scores: dict[int, list[float]] = {label: [] for label in first}
    for index, labels in enumerate(tracker.track(list(frames), prompts)):
        if index == len(frames) - 1:
            break
        ids, counts = count_objects(masks[index], labels)
        values = dict(zip(ids.tolist(), (jaccard(counts) + boundary_f(counts)) / 2, strict=True))
        for label, start in first.items():
            if index > start:
                scores[label].append(values.get(label, 1.0))  # absent from both masks counts as 1, as in DAVIS
    means = [np.mean(values) for values in scores.values() if values]
    return 100 * float(np.mean(means))


def held_out_scores(name: str, tracker: Tracker, clips: int) -> dict[str, Any]:
    """Return the J&F of a tracker and of the baselines on the same held-out clips of each domain.

    For every tracker this is the mean over the clips and its standard error, and for the differences to the baselines,
    paired by clip, also the 95 % interval (normal).
    """
    trackers: dict[str, Tracker] = {"static": Static(), "flow": Flow(), name: tracker}
    report: dict[str, Any] = {"clips": clips, "frames": FRAMES, "definition": DEFINITION}
    for domain in DOMAINS:
        scores: dict[str, list[float]] = {key: [] for key in trackers}
        for number in progress_bar(range(clips), desc=f"held-out clips ({domain})"):
            clip = random_clip(clip_seed("held-out", number), frames=FRAMES, size=SIZE, domain=domain)
            for key, one in trackers.items():
                scores[key].append(clip_score(one, clip.frames, clip.masks))
        report[domain] = {key: _mean_and_error(np.array(values)) for key, values in scores.items()}
        for baseline in ("static", "flow"):
            difference = np.array(scores[name]) - np.array(scores[baseline])
            report[domain][f"{name} minus {baseline}"] = _mean_and_error(difference, interval=True)
    return report


def _mean_and_error(values: np.ndarray, interval: bool = False) -> dict[str, Any]:
    mean, error = float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))
    found: dict[str, Any] = {"j_and_f": round(mean, 2), "standard_error": round(error, 2)}
    if interval:
        found["interval_95"] = [round(mean - 1.96 * error, 2), round(mean + 1.96 * error, 2)]
    return found
