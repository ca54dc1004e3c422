"""Ensembles by the mean of logits: the models track a sequence together, frame by frame."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vosarena.base.errors import TrackerError
from vosarena.io.frames import Frames
from vosarena.trackers.base import Frame, LabelMap, packages_of
from vosarena.trackers.streaming import frame_size

Logits = Mapping[int, NDArray[np.float32]]

# Models mark an absent object with very low logits (SAM 2: -1024), with which one model would overrule all others. This
# is the value that SAM 2 gives to a pixel that another object has.
LOWEST = -10.0


class MeanOfLogits:
    """Tracks with several models and takes the mean of their logits, all with the same weight.

    A pixel belongs to the object with the highest mean above 0, of equals to the lowest id. An object that a model does
    not follow any more has its lowest logit there.

    Args:
        trackers: The models by name.

    Raises:
        TrackerError: A model gives no logits.
    """

    def __init__(self, trackers: Mapping[str, Any]) -> None:
        for name, tracker in trackers.items():
            if not hasattr(tracker, "logits"):
                raise TrackerError(without_logits(name))
        self._trackers: list[Any] = list(trackers.values())
        self.packages = tuple({name: None for tracker in self._trackers for name in packages_of(tracker)})

    def track(self, frames: Sequence[Frame], prompts: Mapping[int, LabelMap]) -> Iterator[LabelMap]:
        """Yield one label map per frame; see Tracker.track."""
        size = frames.mask_size if isinstance(frames, Frames) else frame_size(frames)
        for outputs in zip(*(tracker.logits(frames, prompts) for tracker in self._trackers), strict=True):
            yield mean_labels(outputs, size)

    @contextmanager
    def saving_memory(self) -> Iterator[dict[str, Any]]:
        """Use the least device memory in all models until the context ends; yield the options that were changed."""
        changed: dict[str, Any] = {}
        with ExitStack() as stack:
            for tracker in self._trackers:
                if hasattr(tracker, "saving_memory"):
                    changed |= stack.enter_context(tracker.saving_memory())
            yield changed


def without_logits(name: str) -> str:
    """Return the message that a model gives no logits."""
    return f"{name!r} gives no logits, of which `by: mean` is made; combine the masks `by: vote`, or leave it out"


def mean_labels(outputs: Sequence[Logits], size: tuple[int, int]) -> LabelMap:
    """Return the labels of one frame, uint8 (H, W).

    Args:
        outputs: Logits of each model: object id -> float32 (H, W).
        size: Height and width.
    """
    labels = np.zeros(size, np.uint8)
    best = np.zeros(size, np.float32)
    for number in sorted({number for output in outputs for number in output}):
        total = np.zeros(size, np.float32)
        for output in outputs:
            total += np.maximum(output[number], LOWEST) if number in output else np.float32(LOWEST)
        total /= len(outputs)
        labels[total > best] = number
        np.maximum(best, total, out=best)
    return labels
