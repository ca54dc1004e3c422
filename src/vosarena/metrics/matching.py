"""Match predicted objects to those of the ground truth, as the unsupervised tasks of DAVIS and LVOS do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vosarena.base.errors import ConfigError
from vosarena.io.runs import Runs
from vosarena.metrics.counts import Counts, FrameCounter, boundary_f, jaccard
from vosarena.metrics.pairs import ObjectInfo

_LABELS = 256


class ObjectMatcher:
    """Collects J and F of every pair of a true and a predicted object, frame by frame.

    Sources: `_evaluate_unsupervised` of davis2017-evaluation (Caelles et al., The 2019 DAVIS Challenge on VOS), and
    `_evaluate_unsupervised_multiple` of lvos-evaluation, where an object counts in the frames of its range only.

    Args:
        counter: Counter of frames.
        ranges: Frames of each object from a meta file; None counts every frame.
    """

    def __init__(self, counter: FrameCounter, ranges: Mapping[int, ObjectInfo] | None = None) -> None:
        self._counter = counter
        self._ranges = ranges
        self._sums = np.zeros((_LABELS, _LABELS))  # of J + F, by prediction and object
        self._frames = np.zeros(_LABELS, np.int64)  # by object
        self._highest = 0

    def add(self, gt: Runs, pred: Runs, number: int) -> None:
        """Add a frame and its number."""
        counted = np.ones(_LABELS, bool)
        for i, info in (self._ranges or {}).items():
            counted[i] = info.start <= number <= info.end
        truth = np.bincount(gt.labels, minlength=_LABELS) > 0
        predicted = np.bincount(pred.labels, minlength=_LABELS) > 0
        only = np.eye(_LABELS, dtype=np.uint8)
        self._sums[np.ix_(~predicted, ~truth & counted)] += 2  # both absent: J and F are 1
        for label in np.flatnonzero(predicted[1:]) + 1:
            mask = pred.map(only[label])
            for object_id in np.flatnonzero(truth[1:] & counted[1:]) + 1:
                _, table = self._counter.count(gt.map(only[object_id]), mask)
                counts = Counts.from_table(table)
                self._sums[label, object_id] += jaccard(counts)[0] + boundary_f(counts)[0]
        self._frames += counted
        self._highest = max(self._highest, int(np.flatnonzero(predicted)[-1]))

    def labels(self, objects: Sequence[int]) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """The object that each predicted label becomes, uint8 (256,); 0 for those that are matched to none.

        The sum of the mean J&F of the pairs is as large as possible. Where there are fewer predictions than objects,
        empty predictions are added, as in the official script.

        Args:
            objects: Ids of the objects.

        Raises:
            ConfigError: SciPy is not installed.
        """
        try:
            from scipy.optimize import linear_sum_assignment
        except ImportError:
            raise ConfigError("matching objects needs SciPy; pip install scipy") from None
        found = np.zeros(_LABELS, np.uint8)
        count = max(self._highest, len(objects))
        # Labels above the highest predicted one are empty predictions.
        gains = self._sums[1 : count + 1][:, list(objects)]
        if self._ranges is not None:  # objects have different numbers of frames
            stated = [self._ranges[i].n_frames if i in self._ranges else None for i in objects]
            gains = gains / [n or max(self._frames[i], 1) for n, i in zip(stated, objects, strict=True)]
        rows, columns = linear_sum_assignment(-gains)
        found[rows + 1] = np.asarray(objects, np.uint8)[columns]
        return found
