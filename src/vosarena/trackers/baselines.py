"""Baselines without weights: scores that every model should beat."""

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

import cv2
import numpy as np

from vosarena.trackers.base import Frame, LabelMap


class Static:
    """Repeats the prompt masks: the score of ignoring the frames."""

    packages: ClassVar[tuple[str, ...]] = ()

    def __init__(self, device: str = "cpu", precision: str = "auto") -> None:
        pass

    def track(self, frames: Sequence[Frame], prompts: Mapping[int, LabelMap]) -> Iterator[LabelMap]:
        """Yield one label map per frame; see Tracker.track. Later objects cover earlier ones."""
        labels: LabelMap | None = None
        for index, frame in enumerate(frames):
            if labels is None:
                labels = np.zeros(frame.shape[:2], np.uint8)
            if index in prompts:
                labels = _add(labels, prompts[index])
            yield labels


class Empty:
    """Predicts nothing: the points that a protocol gives for absent objects."""

    packages: ClassVar[tuple[str, ...]] = ()

    def __init__(self, device: str = "cpu", precision: str = "auto") -> None:
        pass

    def track(self, frames: Sequence[Frame], prompts: Mapping[int, LabelMap]) -> Iterator[LabelMap]:
        """Yield one label map without objects per frame; see Tracker.track."""
        for frame in frames:
            yield np.zeros(frame.shape[:2], np.uint8)


class Flow:
    """Warps the last mask along dense optical flow (DIS, Kroeger et al., ECCV 2016, as in OpenCV).

    Each mask is sampled from the previous one by backward flow, so objects deform with the image, but an object that is
    lost is not found again.
    """

    packages: ClassVar[tuple[str, ...]] = ("opencv-python-headless",)

    def __init__(self, device: str = "cpu", precision: str = "auto") -> None:
        self._flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)

    def track(self, frames: Sequence[Frame], prompts: Mapping[int, LabelMap]) -> Iterator[LabelMap]:
        """Yield one label map per frame; see Tracker.track. Later objects cover earlier ones."""
        labels: LabelMap | None = None
        previous: LabelMap | None = None
        for index, frame in enumerate(frames):
            grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
            if labels is None or previous is None:
                labels = np.zeros(grey.shape, np.uint8)
                grid = np.stack(np.meshgrid(*map(np.arange, grey.shape[::-1])), axis=-1).astype(np.float32)
            elif labels.any():
                source = grid + self._flow.calc(grey, previous, None)
                labels = cv2.remap(labels, source, None, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT)
            if index in prompts:
                labels = _add(labels, prompts[index])
            previous = grey
            yield labels


def _add(labels: LabelMap, prompt: LabelMap) -> LabelMap:
    return np.where(prompt > 0, prompt, labels)
